"""Measure and improve search quality: tune, evaluate, calibrate, train codes."""
