"""The stages wired together: the pipeline, one pass (`sync`) and the daemon."""
