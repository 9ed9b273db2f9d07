"""Step 1: find out which files changed, from events and from comparisons with the index."""
