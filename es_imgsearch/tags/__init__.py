"""Derive tags from stored vectors with a vocabulary and a trained classifier."""
