"""Commands that serve the index, and the options that find a running `serve`."""
