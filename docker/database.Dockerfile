# For development only: the MongoDB-compatible server that `gaitfleet up` and the tests use.
#
# Not the official mongo image: that one needs a replica set to be initiated from outside before it takes the retryable
# writes of the replay API, and a CPU with AVX; this one is ready when it listens, runs as any user on a read-only root
# file system, and is the server that the tests run against. SecantusDB is GPL; it is a process of its own here.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
# Where pip looks besides its defaults, as its own variables of these names; nothing of it is left in the image.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY docker/requirements/database.txt /src/
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv \
 && /opt/pip/bin/pip --python /opt/venv/bin/python install --require-hashes --only-binary :all: -r /src/database.txt \
 && /opt/pip/bin/pip --python /opt/venv/bin/python check

FROM ${BASE_IMAGE}
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
COPY --from=build /opt/venv /opt/venv
# Owned by the user, so that a fresh named volume of Docker is, too.
RUN mkdir /data && chown 10004:10004 /data
VOLUME /data
WORKDIR /tmp
USER 10004:10004
EXPOSE 27017
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s \
  CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 27017), 4)"]
# Its oplog holds whole documents and nothing here reads it: kept short, or it takes four times the disk of the data.
CMD ["secantusd-py", "--host", "0.0.0.0", "--port", "27017", "--storage-path", "/data", "--cache-size", "128M", \
     "--oplog-max-entries", "200", "--oplog-retention-seconds", "60", "--log-level", "WARNING"]
# Last, so that a new revision changes no layer that holds files.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gaitfleet-database" \
      org.opencontainers.image.description="A MongoDB-compatible database for trying gaitfleet out" \
      org.opencontainers.image.licenses="GPL-2.0-only" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
