"""Search the stored words of pictures, and join that with the search by vectors."""
