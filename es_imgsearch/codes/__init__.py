"""Binary codes of vectors: fit a coder, store it, apply it to an index."""
