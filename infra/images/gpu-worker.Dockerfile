# A worker that edits and evaluates on NVIDIA GPUs. The lock's torch is the one that tests run with; here a CUDA build of
# another version replaces it, and everything else stays as locked.
#
#   docker build -f infra/images/gpu-worker.Dockerfile -t safegen-gpu-worker:0.1.0 .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
ARG TORCH=2.14.1
WORKDIR /src
COPY pyproject.toml constraints.txt prefect.yaml README.md LICENSE ./
COPY configs configs
COPY policies policies
COPY flows flows
COPY safegen safegen
RUN grep -v '^torch==' constraints.txt > locked.txt \
 && python -m venv /opt/safegen \
 && /opt/safegen/bin/pip install --no-cache-dir --disable-pip-version-check -c locked.txt "torch==${TORCH}" '.[server]'

FROM ${PYTHON_IMAGE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home --home-dir /work safegen \
 && install --directory --owner 10001 /work/prefect
COPY --from=build /opt/safegen /opt/safegen
# The NVIDIA runtime mounts the driver; the image holds the libraries, which come with torch.
ENV PATH=/opt/safegen/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    GX_ANALYTICS_ENABLED=false
USER 10001
WORKDIR /work
ENTRYPOINT []
CMD ["prefect", "worker", "start", "--pool", "safegen"]
