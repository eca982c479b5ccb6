"""Evaluation: the same prompts and seeds through base and candidate, scored, compared, and written as report.json."""
