"""S3 passes the contract of backends, whether buckets keep versions or not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from devtools.servers import VersityServer
from devtools.servers.children import free_port
from lethe.adapters.backups.s3 import S3Backend
from lethe.domain.snapshot_names import NamePattern
from lethe.ports.backups import Backend
from tests.adapters.backups.s3_buckets import bucket_name
from tests.contracts.backups import BackendContract, World

PATTERN = NamePattern.parse("site-{takenAt:%Y%m%dT%H%M%SZ}.dump")
PREFIX = "site/"


def backend_of(server: VersityServer, bucket: str, *, endpoint: str | None = None) -> S3Backend:
    return S3Backend(
        endpoint or server.endpoint,
        server.region,
        bucket,
        PREFIX,
        PATTERN,
        server.access_key,
        server.secret_key,
    )


@dataclass
class S3World(World):
    """A bucket. `layered`: every snapshot has an older version, too, and a delete marker on top."""

    server: VersityServer = field(kw_only=True)
    bucket: str = field(kw_only=True)
    layered: bool = field(kw_only=True)
    keys: set[str] = field(default_factory=set)

    def put(self, taken_at: datetime) -> str:
        ref = f"site-{taken_at:%Y%m%dT%H%M%SZ}.dump"
        self.keys.add(PREFIX + ref)
        if self.layered:
            self.server.put(self.bucket, PREFIX + ref, f"a first dump of {taken_at}".encode(), taken_at)
        self.server.put(self.bucket, PREFIX + ref, f"the dump of {taken_at}".encode(), taken_at)
        if self.layered:
            self.server.delete(self.bucket, PREFIX + ref)
        return ref

    def replace(self, ref: str) -> bool:
        self.server.put(self.bucket, PREFIX + ref, b"another dump")
        return True

    def remove(self, ref: str) -> None:
        self.server.remove(self.bucket, PREFIX + ref)

    def put_elsewhere(self) -> str:
        name = "site-20260101T000000Z.dump"
        self.server.put(self.bucket, f"site2/{name}", b"of another source")
        self.server.put(self.bucket, name, b"at the top")
        return f"../site2/{name}"

    def put_unparsable(self) -> str:
        self.server.put(self.bucket, f"{PREFIX}before-the-migration.dump", b"when?")
        return "before-the-migration.dump"

    def put_unfinished(self) -> str:
        ref = "site-20250101T000000Z.dump"
        self.keys.add(PREFIX + ref)
        begin_upload(self.server, self.bucket, PREFIX + ref)
        return ref

    def contents(self) -> Mapping[str, bytes]:
        # The server keeps old versions and parts of uploads under the digest of their key.
        digests = {hashlib.sha256(key.encode()).hexdigest(): key for key in self.keys}
        found = dict[str, bytes]()
        for name, content in sorted(self.server.files(self.bucket).items()):
            key = next((digests[part] for part in name.split("/") if part in digests), name)
            ref = key.removeprefix(PREFIX)
            found[ref] = found.get(ref, b"") + content
        return found

    @contextmanager
    def away(self) -> Iterator[Backend]:
        backend = backend_of(self.server, self.bucket, endpoint=f"http://127.0.0.1:{free_port()}")
        yield backend
        backend.close()

    def misplaced(self) -> tuple[Backend, str]:
        return backend_of(self.server, "no-such-bucket"), "spec.s3.bucket"

    @property
    def secrets(self) -> Sequence[str]:
        return (self.server.secret_key, self.server.access_key)


def begin_upload(server: VersityServer, bucket: str, key: str) -> None:
    upload = server.client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    server.client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"half a dump")


@pytest.fixture(scope="module")
def servers(
    built_programs: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[bool, VersityServer]]:
    """Servers by whether their buckets keep versions."""
    with (
        VersityServer(tmp_path_factory.mktemp("versions")) as versioned,
        VersityServer(tmp_path_factory.mktemp("plain"), versioned=False) as plain,
    ):
        yield {True: versioned, False: plain}


@pytest.mark.parametrize("kind", ["unversioned", "versioned", "layered"])
class TestS3(BackendContract):
    @pytest.fixture
    def world(self, servers: Mapping[bool, VersityServer], kind: str) -> Iterator[World]:
        server = servers[kind != "unversioned"]
        bucket = server.bucket(bucket_name())
        backend = backend_of(server, bucket)
        yield S3World(backend, server=server, bucket=bucket, layered=kind == "layered")
        backend.close()
