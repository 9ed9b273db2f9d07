"""Step 1: find changed files by events and by comparison with the index."""
