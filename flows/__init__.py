"""Prefect flows: thin, their bodies read as the pipeline. `safegen.pipeline` holds the stages themselves."""
