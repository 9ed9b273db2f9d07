"""Running it for others: rights of keys, and how large an index becomes."""
