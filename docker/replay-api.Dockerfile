# Stages: `build` installs the service and what it needs into /opt/venv; the last one holds that and nothing else.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
WORKDIR /src
# Dependencies first: this layer changes only with them. The packages are there as names without content.
COPY constraints.txt ./
COPY libs/gaitfleet/pyproject.toml libs/gaitfleet/README.md libs/gaitfleet/
COPY services/replay-api/pyproject.toml services/replay-api/README.md services/replay-api/
RUN mkdir -p libs/gaitfleet/src/gaitfleet services/replay-api/src/replay_api \
 && touch libs/gaitfleet/src/gaitfleet/__init__.py services/replay-api/src/replay_api/__init__.py \
 && /opt/venv/bin/pip install -c constraints.txt ./libs/gaitfleet ./services/replay-api
COPY libs/gaitfleet libs/gaitfleet
COPY services/replay-api services/replay-api
RUN /opt/venv/bin/pip install --no-deps --force-reinstall ./libs/gaitfleet ./services/replay-api

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gaitfleet-replay-api" \
      org.opencontainers.image.description="Keeps the experience and the checkpoints of gaitfleet's runs, and serves them" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The root file system is read-only in the cluster: nothing is written but under /tmp.
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    GAITFLEET_REPLAY_API_HOST=0.0.0.0 GAITFLEET_REPLAY_API_PORT=8000
COPY --from=build /opt/venv /opt/venv
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
# For Docker and compose; Kubernetes has its own probes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
CMD ["python", "-m", "replay_api"]
