"""Publish, find, verify and withdraw releases of checkpoints in an object store."""
