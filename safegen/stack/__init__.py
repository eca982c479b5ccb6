"""Start, watch and stop the local services: object storage, MLflow and Prefect."""
