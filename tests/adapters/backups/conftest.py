"""What tests of backends share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.servers import VersityServer
from tests.adapters.backups.s3_buckets import bucket_name


@pytest.fixture(scope="module")
def server(built_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VersityServer]:
    """An S3 server whose buckets keep versions."""
    with VersityServer(tmp_path_factory.mktemp("versions")) as running:
        yield running


@pytest.fixture(scope="module")
def plain_server(built_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VersityServer]:
    """An S3 server without versions."""
    with VersityServer(tmp_path_factory.mktemp("plain"), versioned=False) as running:
        yield running


@pytest.fixture
def bucket(server: VersityServer) -> str:
    """A bucket that keeps versions."""
    return server.bucket(bucket_name())


@pytest.fixture
def plain_bucket(plain_server: VersityServer) -> str:
    """A bucket that does not."""
    return plain_server.bucket(bucket_name())


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """An empty folder that every user may enter: each session of pytest closes those of all of them."""
    with tempfile.TemporaryDirectory(prefix="lethe-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
