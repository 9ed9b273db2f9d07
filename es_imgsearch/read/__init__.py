"""Step 2: turn a path into a picture, in worker processes."""
