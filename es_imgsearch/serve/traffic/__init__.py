"""Many requests at once: one model for all, limits, metrics, the access log."""
