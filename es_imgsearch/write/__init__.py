"""Step 4: turn a vector into a document, and decide which documents may be deleted."""
