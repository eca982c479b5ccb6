"""Implementations of the ports on concrete systems: folders, S3, MLflow."""
