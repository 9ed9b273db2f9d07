"""Export an index to a file of vectors, and import such files."""
