"""What the tests of S3 do again and again."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from devtools.servers import VersityServer
from lethe.adapters.backups.s3 import MARKERS, S3Backend
from lethe.domain.snapshot_names import NamePattern
from lethe.ports.backups import Deletion, Pin

PATTERN = NamePattern.parse("{takenAt:%Y%m%d}*")
_numbers = itertools.count(1)


def bucket_name() -> str:
    """Return a name that no bucket has yet."""
    return f"bucket-{next(_numbers)}"


def open_backend(
    server: VersityServer,
    bucket: str,
    *,
    endpoint: str | None = None,
    prefix: str = "site/",
    access_key: str | None = None,
    secret_key: str | None = None,
    session_token: str | None = None,
    region: str | None = None,
    ca_file: str | None = None,
) -> S3Backend:
    return S3Backend(
        endpoint or server.endpoint,
        region or server.region,
        bucket,
        prefix,
        PATTERN,
        access_key or server.access_key,
        secret_key or server.secret_key,
        session_token,
        ca_file,
    )


def pin(backend: S3Backend, ref: str) -> Pin:
    (seen,) = [one for one in backend.list().snapshots if one.ref == ref]
    return Pin(ref, seen.pieces)


def delete_one(backend: S3Backend, pinned: Pin) -> Deletion:
    (deletion,) = backend.delete([pinned]).values()
    return deletion


def begin_upload(server: VersityServer, bucket: str, key: str) -> None:
    upload = server.client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    server.client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"half")


def asks(backend: S3Backend) -> list[Callable[[], object]]:
    return [
        backend.list,
        lambda: backend.delete([Pin("20260101", (MARKERS,))]),
        lambda: backend.gone(["20260101"]),
        lambda: backend.gone(["no name"]),
    ]
