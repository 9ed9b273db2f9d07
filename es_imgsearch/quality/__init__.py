"""Measure and improve the answers: tune, evaluate, calibrate, train codes."""
