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
# The files whose hashes the locks name and no others, also where a package exists as source alone (gym). This layer
# changes only with them.
COPY docker/requirements/build.txt docker/requirements/rollout.txt ./
RUN /opt/pip/bin/pip install --require-hashes --only-binary :all: -r build.txt \
 && /opt/pip/bin/pip wheel --no-build-isolation --use-pep517 --require-hashes --no-deps --wheel-dir wheels -r rollout.txt \
 && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-index --no-deps wheels/*.whl \
 && /opt/pip/bin/pip --python /opt/venv/bin/python check \
 && rm -r wheels

FROM dependencies AS code
COPY libs/gaitfleet libs/gaitfleet
COPY services/rollout services/rollout
RUN /opt/pip/bin/pip install --no-index --no-build-isolation --no-deps --target /opt/code ./libs/gaitfleet ./services/rollout

FROM ${BASE_IMAGE}
# The root file system is read-only in the cluster: nothing is written but under /tmp (OpenSim's log is opened in the
# working directory) and in the spool. One thread a simulator: its matrices gain nothing from more.
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/code PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
    GAITFLEET_ROLLOUT_METRICS_PORT=9090
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=code /opt/code /opt/code
# Owned by the user, so that a fresh named volume of Docker is, too.
RUN mkdir -p /var/spool/gaitfleet && chown 10003:10003 /var/spool/gaitfleet
WORKDIR /tmp
USER 10003:10003
EXPOSE 9090
# For Docker and compose; Kubernetes has its own probes.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9090/metrics', timeout=4)"]
CMD ["python", "-m", "rollout"]
# Last, so that a new revision changes no layer that holds files.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gaitfleet-rollout" \
      org.opencontainers.image.description="Plays episodes of OpenSim walkers for gaitfleet" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
