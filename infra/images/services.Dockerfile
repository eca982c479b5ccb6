# MLflow's guarded server, Prefect's server, `safegen deploy`, and workers without a GPU: one image, several commands.
#
#   docker build -f infra/images/services.Dockerfile -t safegen-services:0.1.0 .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt prefect.yaml README.md LICENSE ./
COPY configs configs
COPY policies policies
COPY flows flows
COPY safegen safegen
RUN python -m venv /opt/safegen \
 && /opt/safegen/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[server,kubernetes]'

FROM ${PYTHON_IMAGE}
# pg_dump and pg_restore, for backups
RUN apt-get update \
 && apt-get install -y --no-install-recommends postgresql-client libgomp1 \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home --home-dir /work safegen \
 && install --directory --owner 10001 /work/prefect
COPY --from=build /opt/safegen /opt/safegen
ENV PATH=/opt/safegen/bin:$PATH \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    GX_ANALYTICS_ENABLED=false
USER 10001
WORKDIR /work
ENTRYPOINT []
CMD ["safegen", "--help"]
