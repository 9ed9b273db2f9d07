"""Stages of the pipeline: what reads, embeds and writes, each knowing nothing of the others."""
