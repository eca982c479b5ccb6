"""Metrics, one idea per file: distances between sets of pictures, between pairs of pictures, and to their prompts."""
