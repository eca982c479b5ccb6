"""Environment variables of a guarded MLflow server; `safegen.adapters.mlflow_app` says what each holds."""

PUBLIC_KEYS = "SAFEGEN_GUARD_PUBLIC_KEYS"
ALIASES = "SAFEGEN_GUARD_ALIASES"
STAGES = "SAFEGEN_GUARD_STAGES"
ARTIFACT_ROOTS = "SAFEGEN_GUARD_ARTIFACT_ROOTS"
