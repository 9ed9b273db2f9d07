"""Output of the commands: lines, JSON, hits, pictures and progress."""
