#!/usr/bin/env bash
# Prints the secrets that the manifests name, from the files that `safegen keys services infra/kubernetes/secrets` made:
#   infra/kubernetes/create-secrets.sh | kubectl apply --filename -
set -euo pipefail
cd "${1:-"$(dirname "${BASH_SOURCE[0]}")/secrets"}"

secret() {
  local name=$1
  shift
  kubectl create secret generic "$name" --namespace safegen --dry-run=client --output yaml "$@"
  echo ---
}
secret safegen-mlflow --from-env-file mlflow.env
secret safegen-prefect --from-env-file prefect.env
secret safegen-worker --from-env-file worker.env
secret safegen-s3-admin --from-env-file s3-admin.env
secret safegen-gateway --from-file mlflow_users=mlflow-users
secret safegen-public --from-file ca.pem --from-file release.pub
secret safegen-signing --from-file SAFEGEN_SIGNING_KEY=release.key
