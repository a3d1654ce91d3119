# Stages: `build` installs the service and what it needs into /opt/venv; the last one holds that and nothing else.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
WORKDIR /src
# Dependencies first: this layer changes only with them. The packages are there as names without content.
COPY constraints.txt ./
COPY libs/gaitfleet/pyproject.toml libs/gaitfleet/README.md libs/gaitfleet/
COPY services/rollout/pyproject.toml services/rollout/README.md services/rollout/
RUN mkdir -p libs/gaitfleet/src/gaitfleet services/rollout/src/rollout \
 && touch libs/gaitfleet/src/gaitfleet/__init__.py services/rollout/src/rollout/__init__.py \
 && /opt/venv/bin/pip install -c constraints.txt './libs/gaitfleet[client]' './services/rollout[opensim,gymnasium]'
COPY libs/gaitfleet libs/gaitfleet
COPY services/rollout services/rollout
RUN /opt/venv/bin/pip install --no-deps --force-reinstall ./libs/gaitfleet ./services/rollout

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gaitfleet-rollout" \
      org.opencontainers.image.description="Plays episodes of OpenSim walkers for gaitfleet" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The root file system is read-only in the cluster: nothing is written but under /tmp (OpenSim's log is opened in the
# working directory) and in the spool. One thread a simulator: its matrices gain nothing from more.
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
    GAITFLEET_ROLLOUT_METRICS_PORT=9090
COPY --from=build /opt/venv /opt/venv
WORKDIR /tmp
USER 10003:10003
EXPOSE 9090
# For Docker and compose; Kubernetes has its own probes.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9090/metrics', timeout=4)"]
CMD ["python", "-m", "rollout"]
