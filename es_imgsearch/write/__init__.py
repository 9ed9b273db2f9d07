"""Make documents of pictures, and decide which documents may be deleted."""
