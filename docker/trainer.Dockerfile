# Stages: `build` installs the service and what it needs into /opt/venv; the last one holds that and nothing else.
#
# torch from PyPI brings its own CUDA libraries, so that one image serves CPU and GPU. A smaller one for CPUs only:
# --build-arg PIP_EXTRA_ARGS="--index-url URL" with an index of CPU-only wheels.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG PIP_EXTRA_ARGS=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
WORKDIR /src
# Dependencies first: this layer changes only with them. The packages are there as names without content.
COPY constraints.txt ./
COPY libs/gaitfleet/pyproject.toml libs/gaitfleet/README.md libs/gaitfleet/
COPY services/trainer/pyproject.toml services/trainer/README.md services/trainer/
# hadolint ignore=SC2086 # PIP_EXTRA_ARGS is a list of words
RUN mkdir -p libs/gaitfleet/src/gaitfleet services/trainer/src/trainer \
 && touch libs/gaitfleet/src/gaitfleet/__init__.py services/trainer/src/trainer/__init__.py \
 && /opt/venv/bin/pip install ${PIP_EXTRA_ARGS} -c constraints.txt './libs/gaitfleet[client]' ./services/trainer
COPY libs/gaitfleet libs/gaitfleet
COPY services/trainer services/trainer
RUN /opt/venv/bin/pip install --no-deps --force-reinstall ./libs/gaitfleet ./services/trainer

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gaitfleet-trainer" \
      org.opencontainers.image.description="Learns from sampled batches and publishes checkpoints for gaitfleet" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The root file system is read-only in the cluster: nothing is written but under /tmp (compiled kernels are cached there).
# The NVIDIA variables tell the container runtime which driver parts to mount; they do nothing without a GPU.
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp USER=gaitfleet \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    GAITFLEET_TRAINER_METRICS_PORT=9090
COPY --from=build /opt/venv /opt/venv
WORKDIR /tmp
USER 10002:10002
EXPOSE 9090
# For Docker and compose; Kubernetes has its own probes.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9090/metrics', timeout=4)"]
CMD ["python", "-m", "trainer"]
