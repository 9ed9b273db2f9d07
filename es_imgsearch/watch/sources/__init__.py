"""List, look at and open the files of roots that are folders or URLs."""
