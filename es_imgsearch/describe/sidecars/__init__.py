"""Files beside pictures: their names, their formats, and what one of them says."""
