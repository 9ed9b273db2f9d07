"""Tags: derived from stored vectors by a vocabulary and a trained classifier."""
