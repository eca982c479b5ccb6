"""Prompt sets in the files that their authors publish: one module per format, each its settings and its columns."""
