"""Commands that judge and tune the results."""
