"""What S3 has of its own: versions, markers, uploads, siblings, locks, pages, services that know less."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from devtools.servers import VersityServer
from lethe.adapters.backups.s3 import MARKERS, S3Backend
from lethe.domain.snapshot_names import NamePattern
from lethe.domain.snapshots import UnfinishedSnapshot
from lethe.ports.backups import (
    DeletionResult,
    Pin,
)
from tests.adapters.backups.s3_buckets import begin_upload, bucket_name, delete_one, open_backend, pin

TAKEN_AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def backend(server: VersityServer, bucket: str) -> Iterator[S3Backend]:
    opened = open_backend(server, bucket)
    yield opened
    opened.close()


# Versions and delete markers


def test_a_key_is_one_snapshot_with_a_piece_and_a_date_for_each_version(
    server: VersityServer, bucket: str, backend: S3Backend
) -> None:
    dates = [TAKEN_AT + timedelta(hours=1), TAKEN_AT + timedelta(days=40)]
    versions = [
        server.put(bucket, "site/20260101", body, at) for body, at in zip((b"1", b"22"), dates, strict=True)
    ]

    (seen,) = backend.list().snapshots

    assert (seen.ref, seen.taken_at, seen.size) == ("20260101", TAKEN_AT, 3)
    assert seen.evidence == tuple(dates)
    assert {piece.partition(":")[0] for piece in seen.pieces} == {*versions, MARKERS}


def test_a_delete_marker_is_no_new_content_and_hides_nothing(
    server: VersityServer, bucket: str, backend: S3Backend
) -> None:
    server.put(bucket, "site/20260101", b"1", TAKEN_AT)
    (before,) = backend.list().snapshots

    server.delete(bucket, "site/20260101")

    assert backend.list().snapshots == [before]
    assert backend.gone(["20260101"]) == {"20260101": "1 version, 1 delete marker"}


def test_a_key_of_which_only_markers_are_left_is_listed_still_and_can_be_cleaned(
    server: VersityServer, bucket: str, backend: S3Backend
) -> None:
    version = server.put(bucket, "site/20260101", b"1", TAKEN_AT)
    pinned = pin(backend, "20260101")
    server.delete(bucket, "site/20260101")
    server.client.delete_object(Bucket=bucket, Key="site/20260101", VersionId=version)

    (seen,) = backend.list().snapshots

    assert (seen.pieces, seen.evidence, seen.size) == ((MARKERS,), (), None)
    assert backend.gone(["20260101"]) == {"20260101": "1 delete marker"}
    assert delete_one(backend, pinned).result is DeletionResult.ACCEPTED
    assert backend.gone(["20260101"]) == {}


def test_every_version_marker_and_upload_of_a_key_goes_and_no_byte_stays(
    server: VersityServer, bucket: str, backend: S3Backend
) -> None:
    for body in (b"first", b"second", b"third"):
        server.put(bucket, "site/20260101", body)
        server.delete(bucket, "site/20260101")
    begin_upload(server, bucket, "site/20260101")
    assert backend.gone(["20260101"]) == {"20260101": "3 versions, 3 delete markers, 1 unfinished upload"}

    assert delete_one(backend, pin(backend, "20260101")).result is DeletionResult.ACCEPTED

    assert backend.gone(["20260101"]) == {}
    assert dict(server.files(bucket)) == {}


def test_a_version_that_was_added_since_the_listing_stops_the_deletion_of_all(
    server: VersityServer, bucket: str, backend: S3Backend
) -> None:
    server.put(bucket, "site/20260101", b"first")
    begin_upload(server, bucket, "site/20260101")
    pinned = pin(backend, "20260101")
    server.put(bucket, "site/20260101", b"second")
    before = server.files(bucket)

    deletion = delete_one(backend, pinned)

    assert deletion.result is DeletionResult.IDENTITY_MISMATCH
    assert "2 versions" in deletion.message
    assert server.files(bucket) == before


def test_a_version_that_is_gone_since_the_listing_is_no_mismatch(
    server: VersityServer, bucket: str, backend: S3Backend
) -> None:
    first = server.put(bucket, "site/20260101", b"first")
    server.put(bucket, "site/20260101", b"second")
    pinned = pin(backend, "20260101")
    server.client.delete_object(Bucket=bucket, Key="site/20260101", VersionId=first)

    assert delete_one(backend, pinned).result is DeletionResult.ACCEPTED
    assert backend.gone(["20260101"]) == {}


def test_what_was_written_before_the_bucket_kept_versions_goes_too(server: VersityServer) -> None:
    bucket = bucket_name()
    server.client.create_bucket(Bucket=bucket)
    server.put(bucket, "site/20260101", b"without a version")
    server.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    server.put(bucket, "site/20260101", b"a version")
    backend = open_backend(server, bucket)
    pinned = pin(backend, "20260101")
    assert len(pinned.pieces) == 3

    assert delete_one(backend, pinned).result is DeletionResult.ACCEPTED
    assert backend.gone(["20260101"]) == {}
    assert dict(server.files(bucket)) == {}


def test_more_versions_than_one_deletion_takes_all_go(
    server: VersityServer, bucket: str, backend: S3Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lethe.adapters.backups.s3_bucket._MOST_AT_ONCE", 3)
    for number in range(7):
        server.put(bucket, "site/20260101", b"%d" % number)

    assert delete_one(backend, pin(backend, "20260101")).result is DeletionResult.ACCEPTED
    assert backend.gone(["20260101"]) == {}


# Siblings, folders, uploads


def test_siblings_of_a_key_and_of_the_prefix_are_not_touched(
    server: VersityServer, bucket: str, backend: S3Backend
) -> None:
    siblings = ["site/20260101.a.b", "site/20260101.aa", "site/20260101.b", "site2/20260101.a", "20260101.a"]
    server.put(bucket, "site/20260101.a", b"meant")
    pinned = pin(backend, "20260101.a")
    for key in siblings:
        server.put(bucket, key, b"not meant")
        begin_upload(server, bucket, key)
    before = {name: body for name, body in server.files(bucket).items() if name != "site/20260101.a"}
    assert backend.gone(["20260101.a"]) == {"20260101.a": "1 version"}

    assert delete_one(backend, pinned).result is DeletionResult.ACCEPTED

    assert backend.gone(["20260101.a"]) == {}
    assert dict(server.files(bucket)) == before
    assert [one.ref for one in backend.list().snapshots] == ["20260101.a.b", "20260101.aa", "20260101.b"]


def test_a_prefix_is_no_folder_name_but_what_keys_begin_with(server: VersityServer, bucket: str) -> None:
    server.put(bucket, "site-20260101", b"meant")
    server.put(bucket, "site2-20260101", b"not meant")
    backend = open_backend(server, bucket, prefix="site-")

    assert [one.ref for one in backend.list().snapshots] == ["20260101"]
    assert [one.ref for one in open_backend(server, bucket, prefix="").list().snapshots] == []


def test_names_that_lead_elsewhere_are_reported_and_never_used(server: VersityServer, bucket: str) -> None:
    """`..` in a URL's path is resolved by clients and proxies on the way, and another key is meant."""
    escaping = S3Backend(
        server.endpoint,
        server.region,
        bucket,
        "site/",
        NamePattern.parse("../other/{takenAt:%Y%m%d}"),
        server.access_key,
        server.secret_key,
    )
    server.put(bucket, "other/20260101", b"of others")

    assert delete_one(escaping, Pin("../other/20260101", (MARKERS,))).result is DeletionResult.FAILED
    assert escaping.gone(["../other/20260101"])
    assert dict(server.files(bucket)) == {"other/20260101": b"of others"}


def test_an_unfinished_upload_is_partial_whether_its_key_has_versions_or_not(
    server: VersityServer, bucket: str, backend: S3Backend
) -> None:
    server.put(bucket, "site/20260101", b"1")
    for key in ("site/20260101", "site/20260102", "site/notes", "site2/20260103"):
        begin_upload(server, bucket, key)

    listing = backend.list()

    assert [one.ref for one in listing.snapshots] == ["20260101"]
    assert [one.name for one in listing.partial] == ["20260101", "20260102", "notes"]
    assert listing.unparsable == ()


def test_an_upload_tells_when_it_began_the_first_of_several_to_one_key(
    server: VersityServer, bucket: str, backend: S3Backend
) -> None:
    for key in ("site/20260101", "site/notes", "site/20260101"):
        begin_upload(server, bucket, key)
    began = {
        upload["UploadId"]: upload["Initiated"]
        for upload in server.client.list_multipart_uploads(Bucket=bucket)["Uploads"]
        if upload["Key"] == "site/20260101"
    }
    assert len(began) == 2

    first, notes = backend.list().partial

    assert first == UnfinishedSnapshot("20260101", min(began.values()), datetime(2026, 1, 1, tzinfo=UTC))
    assert (notes.name, notes.taken_at) == ("notes", None)


def test_an_empty_key_that_keeps_a_folder_is_nothing_to_report(
    server: VersityServer, bucket: str, backend: S3Backend
) -> None:
    for key in ("site/.gitkeep", "site/older/.keep"):
        server.client.put_object(Bucket=bucket, Key=key, Body=b"")
    server.client.put_object(Bucket=bucket, Key="site/.hidden", Body=b"rows")

    assert backend.list().unparsable == (".hidden",)


def test_an_upload_alone_is_never_deleted_whatever_was_pinned(
    server: VersityServer, bucket: str, backend: S3Backend
) -> None:
    begin_upload(server, bucket, "site/20260101")

    assert delete_one(backend, Pin("20260101", (MARKERS,))).result is DeletionResult.IDENTITY_MISMATCH
    assert backend.gone(["20260101"]) == {"20260101": "1 unfinished upload"}


def test_what_consoles_make_for_an_empty_folder_is_no_snapshot_without_a_date(
    server: VersityServer, bucket: str, backend: S3Backend
) -> None:
    for key in ("site/", "site/older/"):
        server.client.put_object(Bucket=bucket, Key=key, Body=b"")

    listing = backend.list()

    assert (listing.snapshots, listing.unparsable) == ([], ())


def test_keys_that_need_escaping_are_found_and_deleted(
    server: VersityServer, bucket: str, backend: S3Backend
) -> None:
    refs = [f"20260101{rest}" for rest in (" a+b", "ü&<>", "%2F", "?versionId=x", "#", "'\"")]
    for ref in refs:
        server.put(bucket, f"site/{ref}", ref.encode())

    seen = {one.ref: one.pieces for one in backend.list().snapshots}
    assert set(seen) == set(refs)
    results = backend.delete([Pin(ref, pieces) for ref, pieces in seen.items()])

    assert {one.result for one in results.values()} == {DeletionResult.ACCEPTED}
    assert backend.gone(refs) == {}
    assert dict(server.files(bucket)) == {}


# Buckets that keep no versions


def test_an_object_that_is_replaced_between_look_and_deletion_stays(
    plain_server: VersityServer, plain_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service compares the ETag in the very moment of the deletion."""
    backend = open_backend(plain_server, plain_bucket)
    plain_server.put(plain_bucket, "site/20260101", b"first")
    pinned, bucket = pin(backend, "20260101"), backend._bucket
    ask = bucket.delete_mutable

    def replace_then_ask(*version: object, **how: object) -> object:
        plain_server.put(plain_bucket, "site/20260101", b"second")
        return ask(*version, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(bucket, "delete_mutable", replace_then_ask)

    assert delete_one(backend, pinned).result is DeletionResult.IDENTITY_MISMATCH
    assert plain_server.bytes_of(plain_bucket, "site/20260101") == b"second"


# Locks


@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
def test_a_retained_version_is_locked_until_its_date(server: VersityServer, mode: str) -> None:
    """Also for root, whom governance mode would let through if it were asked to."""
    bucket = server.bucket(bucket_name(), lock=True)
    backend = open_backend(server, bucket)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    server.put(bucket, "site/20260101", b"not retained")
    version = server.put(bucket, "site/20260101", b"retained")
    server.client.put_object_retention(
        Bucket=bucket,
        Key="site/20260101",
        VersionId=version,
        Retention={"Mode": mode, "RetainUntilDate": until},
    )
    server.delete(bucket, "site/20260101")

    deletion = delete_one(backend, pin(backend, "20260101"))

    assert deletion.result is DeletionResult.LOCKED
    assert deletion.until is not None
    assert deletion.until.replace(microsecond=0) == until
    # Its marker stays with it: without that, what was deleted would show again.
    assert backend.gone(["20260101"]) == {"20260101": "1 version, 1 delete marker"}


def test_a_legal_hold_is_a_lock_that_says_so(server: VersityServer) -> None:
    bucket = server.bucket(bucket_name(), lock=True)
    backend = open_backend(server, bucket)
    version = server.put(bucket, "site/20260101", b"held")
    server.client.put_object_legal_hold(
        Bucket=bucket, Key="site/20260101", VersionId=version, LegalHold={"Status": "ON"}
    )

    deletion = delete_one(backend, pin(backend, "20260101"))

    assert (deletion.result, deletion.until) == (DeletionResult.LOCKED, None)
    assert "legal hold" in deletion.message
