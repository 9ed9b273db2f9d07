"""Binary codes of vectors: make them, store their parameters, apply them to an index."""
