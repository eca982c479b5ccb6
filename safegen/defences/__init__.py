"""Defences: ways to keep a model from drawing the restricted concept, one file each."""
