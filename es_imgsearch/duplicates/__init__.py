"""Find files that show the same picture."""
