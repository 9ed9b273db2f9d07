"""Find what is wrong with a set-up, and say what to do (`doctor`)."""
