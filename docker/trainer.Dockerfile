# Stages: `dependencies` installs what the service needs into /opt/venv, `code` the service itself into /opt/code; the last
# one holds these two and nothing else. Two layers, so that changed code is a megabyte to push and not all the libraries.
#
# torch is whichever build of its pinned version pip prefers. From PyPI it brings its own CUDA libraries, so that one image
# serves CPU and GPU; a much smaller one for CPUs only: --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
# (or PIP_FIND_LINKS). With --build-arg TORCH=hashed it is PyPI's, and held by hash as all else is.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS dependencies
# Where pip looks besides its defaults, as its own variables of these names; nothing of it is left in the image.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# The service's environment has no pip; another one installs into it.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
WORKDIR /src
# The files whose hashes the locks name and no others; nothing is built. This layer changes only with them.
ARG TORCH=pinned
COPY docker/requirements/build.txt docker/requirements/trainer.txt docker/requirements/torch-cuda.txt constraints.txt ./
RUN /opt/pip/bin/pip install --require-hashes --only-binary :all: -r build.txt \
 && /opt/pip/bin/pip --python /opt/venv/bin/python install --require-hashes --only-binary :all: -r trainer.txt \
 && if [ "$TORCH" = hashed ]; \
    then /opt/pip/bin/pip --python /opt/venv/bin/python install --require-hashes --only-binary :all: --no-deps -r torch-cuda.txt; \
    else /opt/pip/bin/pip --python /opt/venv/bin/python install --only-binary :all: -c constraints.txt torch; \
    fi \
 && /opt/pip/bin/pip --python /opt/venv/bin/python check

FROM dependencies AS code
COPY libs/gaitfleet libs/gaitfleet
COPY services/trainer services/trainer
RUN /opt/pip/bin/pip install --no-index --no-build-isolation --no-deps --target /opt/code ./libs/gaitfleet ./services/trainer

FROM ${BASE_IMAGE}
# The root file system is read-only in the cluster: nothing is written but under /tmp (compiled kernels are cached there).
# The NVIDIA variables tell the container runtime which driver parts to mount; they do nothing without a GPU.
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/code PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp USER=gaitfleet \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    GAITFLEET_TRAINER_METRICS_PORT=9090
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=code /opt/code /opt/code
WORKDIR /tmp
USER 10002:10002
EXPOSE 9090
# For Docker and compose; Kubernetes has its own probes.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9090/metrics', timeout=4)"]
CMD ["python", "-m", "trainer"]
# Last, so that a new revision changes no layer that holds files.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gaitfleet-trainer" \
      org.opencontainers.image.description="Learns from sampled batches and publishes checkpoints for gaitfleet" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
