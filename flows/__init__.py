"""Prefect flows: each body reads as the pipeline it runs."""
