# Stages: `dependencies` installs what the service needs into /opt/venv, `code` the service itself into /opt/code; the last
# one holds these two and nothing else. Two layers, so that changed code is a megabyte to push and not all the libraries.
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
COPY docker/requirements/build.txt docker/requirements/replay-api.txt ./
RUN /opt/pip/bin/pip install --require-hashes --only-binary :all: -r build.txt \
 && /opt/pip/bin/pip --python /opt/venv/bin/python install --require-hashes --only-binary :all: -r replay-api.txt \
 && /opt/pip/bin/pip --python /opt/venv/bin/python check

FROM dependencies AS code
COPY libs/gaitfleet libs/gaitfleet
COPY services/replay-api services/replay-api
RUN /opt/pip/bin/pip install --no-index --no-build-isolation --no-deps --target /opt/code ./libs/gaitfleet ./services/replay-api

FROM ${BASE_IMAGE}
# The root file system is read-only in the cluster: nothing is written but under /tmp.
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/code PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    GAITFLEET_REPLAY_API_HOST=0.0.0.0 GAITFLEET_REPLAY_API_PORT=8080
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=code /opt/code /opt/code
WORKDIR /tmp
USER 10001:10001
EXPOSE 8080
# For Docker and compose; Kubernetes has its own probes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health/live', timeout=4)"]
CMD ["python", "-m", "replay_api"]
# Last, so that a new revision changes no layer that holds files.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gaitfleet-replay-api" \
      org.opencontainers.image.description="Keeps the experience and the checkpoints of gaitfleet's runs, and serves them" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
