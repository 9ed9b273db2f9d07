"""Report what a run does: to its log, to progress bars, to Prometheus."""
