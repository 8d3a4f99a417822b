"""One key of a bucket whose versions are the history, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler

import pytest

from devtools.servers import VersityServer
from lethe.adapters.backups.s3_versions import S3Versions
from lethe.ports.backups import BackendMisconfigured, DeletionResult, Pin
from tests.adapters.backups.odd_s3 import Odd, Reply, refusal
from tests.adapters.backups.s3_buckets import begin_upload

NIGHTS = [datetime(2026, 3, 1, 3, tzinfo=UTC) + timedelta(days=night) for night in range(4)]
KEY = "site/site.dump"


def opened(server: VersityServer, bucket: str, endpoint: str | None = None) -> S3Versions:
    where = endpoint or server.endpoint, server.region, bucket, "site/"
    return S3Versions(*where, None, server.access_key, server.secret_key, names="*.dump")


@pytest.fixture
def backend(server: VersityServer, bucket: str) -> Iterator[S3Versions]:
    backend = opened(server, bucket)
    yield backend
    backend.close()


def written(server: VersityServer, bucket: str) -> list[str]:
    """Write the key in each night; return the contents."""
    contents = [f"the dump of {night:%d %B}" for night in NIGHTS]
    for night, content in zip(NIGHTS, contents, strict=True):
        server.put(bucket, KEY, content.encode(), night)
    return contents


def test_each_version_is_a_snapshot_as_of_when_it_was_written(
    server: VersityServer, bucket: str, backend: S3Versions
) -> None:
    written(server, bucket)
    server.put(bucket, "site/notes.txt", b"x")
    server.put(bucket, "other/site.dump", b"x")
    server.delete(bucket, KEY)
    begin_upload(server, bucket, KEY)
    listing = backend.list()
    assert sorted(one.taken_at for one in listing.snapshots) == NIGHTS
    assert {one.ref.partition("?")[0] for one in listing.snapshots} == {"site.dump"}
    assert len({one.ref for one in listing.snapshots}) == 4
    assert listing.unparsable == ("notes.txt",)
    assert [one.name for one in listing.partial] == ["site.dump"]


def test_exactly_the_versions_that_are_pinned_go_and_are_proven_gone(
    server: VersityServer, bucket: str, backend: S3Versions
) -> None:
    contents = written(server, bucket)
    by_age = sorted(backend.list().snapshots, key=lambda one: one.taken_at)
    refs, pins = [one.ref for one in by_age], [Pin(one.ref, one.pieces) for one in by_age]
    assert set(backend.gone(refs)) == set(refs)
    results = backend.delete([pins[0], pins[3], Pin(refs[1], ("another",)), Pin("notes.txt?versionId=1", ())])
    assert [results[pin.ref].result for pin in (pins[0], pins[3])] == [DeletionResult.ACCEPTED] * 2
    assert results[refs[1]].result is DeletionResult.IDENTITY_MISMATCH
    assert results["notes.txt?versionId=1"].result is DeletionResult.FAILED
    assert set(backend.gone(refs)) == {refs[1], refs[2]}
    assert set(backend.gone(["site.dump", "notes.txt?versionId=1"])) == {"site.dump", "notes.txt?versionId=1"}
    left = b"".join(server.files(bucket).values())
    assert [content.encode() in left for content in contents] == [False, True, True, False]
    assert backend.delete([pins[0]])[refs[0]].result is DeletionResult.ACCEPTED


def test_what_was_written_without_versions_is_one_that_may_be_replaced(
    plain_server: VersityServer, plain_bucket: str
) -> None:
    plain_server.put(plain_bucket, KEY, b"the first")
    backend = opened(plain_server, plain_bucket)
    (seen,) = backend.list().snapshots
    assert seen.ref == "site.dump?versionId=null"
    plain_server.put(plain_bucket, KEY, b"the second")
    assert backend.delete([Pin(seen.ref, seen.pieces)])[seen.ref].result is DeletionResult.IDENTITY_MISMATCH
    (again,) = backend.list().snapshots
    assert backend.delete([Pin(again.ref, again.pieces)])[again.ref].result is DeletionResult.ACCEPTED
    assert backend.gone([seen.ref]) == {}
    assert not plain_server.files(plain_bucket)
    backend.close()


def test_a_service_that_keeps_no_versions_has_no_history_and_says_so(
    server: VersityServer, bucket: str
) -> None:
    written(server, bucket)

    def answer(request: BaseHTTPRequestHandler) -> Reply | None:
        return (501, refusal("NotImplemented")) if "versions" in request.path else None

    with Odd(server.endpoint, answer) as odd:
        backend = opened(server, bucket, endpoint=odd.endpoint)
        for ask in (backend.list, lambda: backend.gone(["site.dump?versionId=null"])):
            with pytest.raises(BackendMisconfigured, match="keeps no versions"):
                ask()
        backend.close()
