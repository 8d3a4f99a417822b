"""S3 on MinIO, the second stage: real locks, real rights, many keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from devtools.servers import MinioServer
from devtools.servers.children import wait_until
from lethe.adapters.backups.s3 import MARKERS, S3Backend
from lethe.ports.backups import BackendUnavailable, DeletionResult, Pin
from tests.adapters.backups.s3_buckets import PATTERN, bucket_name, delete_one, pin

pytestmark = pytest.mark.stage2
KEY = "site/20260101"
LISTING = ["s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with MinioServer(tmp_path_factory.mktemp("minio")) as running:
        yield running


@pytest.fixture
def bucket(server: MinioServer) -> str:
    return server.bucket(bucket_name())


@pytest.fixture
def locking_bucket(server: MinioServer) -> str:
    return server.bucket(bucket_name(), lock=True)


def open_backend(server: MinioServer, bucket: str, *, region: str | None = None) -> S3Backend:
    return S3Backend(
        server.endpoint,
        region or server.region,
        bucket,
        "site/",
        PATTERN,
        server.access_key,
        server.secret_key,
    )


def restricted_backend(server: MinioServer, bucket: str, actions: Sequence[str]) -> S3Backend:
    access_key, secret_key, token = server.restricted(actions)
    return S3Backend(server.endpoint, server.region, bucket, "site/", PATTERN, access_key, secret_key, token)


def put(server: MinioServer, bucket: str, key: str = KEY, body: bytes = b"a dump") -> str:
    return str(server.client.put_object(Bucket=bucket, Key=key, Body=body).get("VersionId", "null"))


def begin_upload(server: MinioServer, bucket: str, key: str) -> None:
    upload = server.client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    server.client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"half")


@pytest.mark.parametrize("mode", ["COMPLIANCE", "GOVERNANCE"])
def test_what_is_retained_stays_until_its_date_also_for_who_could_bypass_that(
    server: MinioServer, locking_bucket: str, mode: str
) -> None:
    """root may bypass governance mode; Lethe never asks for it."""
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    backend = open_backend(server, locking_bucket)
    free, locked = put(server, locking_bucket), put(server, locking_bucket)
    server.client.put_object_retention(
        Bucket=locking_bucket,
        Key=KEY,
        VersionId=locked,
        Retention={"Mode": mode, "RetainUntilDate": until},
    )
    server.client.delete_object(Bucket=locking_bucket, Key=KEY)

    deletion = delete_one(backend, pin(backend, "20260101"))

    assert deletion.result is DeletionResult.LOCKED
    assert deletion.until is not None
    assert abs(deletion.until - until) < timedelta(seconds=1)
    (left,) = server.client.list_object_versions(Bucket=locking_bucket)["Versions"]
    assert left["VersionId"] == locked != free
    assert backend.gone(["20260101"]) == {"20260101": "1 version, 1 delete marker"}


def test_what_was_retained_goes_once_its_date_is_past(server: MinioServer, locking_bucket: str) -> None:
    backend = open_backend(server, locking_bucket)
    version = put(server, locking_bucket)
    until = datetime.now(UTC) + timedelta(seconds=2)
    server.client.put_object_retention(
        Bucket=locking_bucket,
        Key=KEY,
        VersionId=version,
        Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until},
    )
    pinned = pin(backend, "20260101")

    wait_until(
        lambda: delete_one(backend, pinned).result is DeletionResult.ACCEPTED, what="the retention to end"
    )

    assert backend.gone(["20260101"]) == {}


def test_a_legal_hold_is_told_from_a_retention(server: MinioServer, locking_bucket: str) -> None:
    backend = open_backend(server, locking_bucket)
    version = put(server, locking_bucket)
    where = {"Bucket": locking_bucket, "Key": KEY, "VersionId": version}
    server.client.put_object_legal_hold(**where, LegalHold={"Status": "ON"})
    pinned = pin(backend, "20260101")

    deletion = delete_one(backend, pinned)
    assert (deletion.result, deletion.until) == (DeletionResult.LOCKED, None)
    assert "legal hold" in deletion.message

    server.client.put_object_legal_hold(**where, LegalHold={"Status": "OFF"})
    assert delete_one(backend, pinned).result is DeletionResult.ACCEPTED
    assert backend.gone(["20260101"]) == {}


def test_a_lock_is_a_lock_also_to_who_may_not_ask_until_when(
    server: MinioServer, locking_bucket: str
) -> None:
    version = put(server, locking_bucket)
    server.client.put_object_legal_hold(
        Bucket=locking_bucket, Key=KEY, VersionId=version, LegalHold={"Status": "ON"}
    )
    backend = restricted_backend(
        server, locking_bucket, [*LISTING, "s3:DeleteObject", "s3:DeleteObjectVersion"]
    )

    deletion = delete_one(backend, pin(backend, "20260101"))

    assert deletion.result is DeletionResult.LOCKED
    assert "s3:GetObjectLegalHold" in deletion.message


def test_versions_markers_and_abandoned_uploads_go_and_siblings_stay(
    server: MinioServer, bucket: str
) -> None:
    for body in (b"1", b"22"):
        put(server, bucket, body=body)
        server.client.delete_object(Bucket=bucket, Key=KEY)
    siblings = [f"{KEY}.b", "site2/20260101", "20260101"]
    for key in (KEY, *siblings):
        begin_upload(server, bucket, key)
    for key in siblings:
        put(server, bucket, key)
    backend = open_backend(server, bucket)
    listing = backend.list()
    assert [one.ref for one in listing.snapshots] == ["20260101", "20260101.b"]
    # MinIO finds no upload by a prefix.
    assert [one.name for one in listing.partial] == ["20260101", "20260101.b"]
    assert backend.gone(["20260101"]) == {"20260101": "2 versions, 2 delete markers, 1 unfinished upload"}

    assert delete_one(backend, pin(backend, "20260101")).result is DeletionResult.ACCEPTED

    assert backend.gone(["20260101"]) == {}
    left = server.client.list_object_versions(Bucket=bucket)
    assert [one["Key"] for one in left["Versions"]] == sorted(siblings)
    uploads = server.client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert {one["Key"] for one in uploads} == set(siblings)


def test_a_bucket_without_versions_is_compared_right_before(server: MinioServer) -> None:
    bucket = server.bucket(bucket_name(), versioned=False)
    backend = open_backend(server, bucket)
    put(server, bucket, body=b"first")
    first = pin(backend, "20260101")
    put(server, bucket, body=b"second")

    assert delete_one(backend, first).result is DeletionResult.IDENTITY_MISMATCH
    assert delete_one(backend, pin(backend, "20260101")).result is DeletionResult.ACCEPTED
    assert backend.gone(["20260101"]) == {}


def test_fifteen_hundred_keys_and_versions_are_listed_to_the_last(server: MinioServer, bucket: str) -> None:
    keys = [f"site/20260101-{number:04}" for number in range(1500)]
    for key in keys:
        put(server, bucket, key)
    for _ in range(1100):
        put(server, bucket)
    backend = open_backend(server, bucket)

    seen = {one.ref: one.pieces for one in backend.list().snapshots}

    assert len(seen) == 1501
    assert len(seen["20260101"]) == 1101
    assert delete_one(backend, Pin("20260101", seen["20260101"])).result is DeletionResult.ACCEPTED
    assert backend.gone(["20260101"]) == {}
    assert len(backend.list().snapshots) == 1500


def test_who_may_only_list_is_told_which_right_lacks(server: MinioServer, bucket: str) -> None:
    put(server, bucket)
    begin_upload(server, bucket, "site/20260102")
    backend = restricted_backend(server, bucket, [*LISTING, "s3:AbortMultipartUpload"])
    listing = backend.list()
    assert [one.ref for one in listing.snapshots] == ["20260101"]
    assert [one.name for one in listing.partial] == ["20260102"]

    deletion = delete_one(backend, pin(backend, "20260101"))

    assert deletion.result is DeletionResult.NOT_PERMITTED
    assert "s3:DeleteObjectVersion" in deletion.message
    assert backend.gone(["20260101"]) == {"20260101": "1 version"}


@pytest.mark.parametrize("lacking", ["s3:ListBucket", "s3:ListBucketMultipartUploads"])
def test_who_may_not_list_all_is_told_so_and_proves_nothing(
    server: MinioServer, bucket: str, lacking: str
) -> None:
    # MinIO lets s3:ListBucket list versions, too, and s3:ListBucketVersions as well.
    allowed = [one for one in LISTING if one != lacking]
    backend = restricted_backend(server, bucket, allowed)
    for asked in (backend.list, lambda: backend.gone(["20260101"])):
        with pytest.raises(BackendUnavailable, match=lacking):
            asked()
    assert delete_one(backend, Pin("20260101", (MARKERS,))).result is DeletionResult.NOT_PERMITTED


def test_pruning_needs_no_right_to_read_backups(server: MinioServer, bucket: str) -> None:
    plain = server.bucket(bucket_name(), versioned=False)
    for one in (bucket, plain):
        put(server, one)
        backend = restricted_backend(
            server,
            one,
            [*LISTING, "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:AbortMultipartUpload"],
        )
        assert delete_one(backend, pin(backend, "20260101")).result is DeletionResult.ACCEPTED
        assert backend.gone(["20260101"]) == {}


def test_a_service_that_does_not_mind_the_region_is_used_with_any(server: MinioServer, bucket: str) -> None:
    put(server, bucket)
    listing = open_backend(server, bucket, region="eu-central-7").list()
    assert [one.ref for one in listing.snapshots] == ["20260101"]
