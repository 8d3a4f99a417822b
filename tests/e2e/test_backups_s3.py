"""Snapshots in a real S3, from end to end: versions, credentials, locks, and a server that goes away."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from devtools.company import Api, eventually
from devtools.dumps import PATTERN, days_ago, dump_name, snapshot_states
from devtools.servers import VersityServer
from tests.e2e.conftest import StartOperator

pytestmark = pytest.mark.e2e
_buckets = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VersityServer]:
    """An S3 server whose buckets keep versions."""
    with VersityServer(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def bucket(server: VersityServer) -> str:
    """A bucket of the test's own."""
    return server.bucket(f"backups-{next(_buckets)}")


def give_credentials(api: Api, server: VersityServer, *, secret_key: str | None = None) -> None:
    api.secret(
        "s3",
        {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": secret_key or server.secret_key},
    )


def apply_source(api: Api, server: VersityServer, bucket: str) -> None:
    s3 = {
        "endpoint": server.endpoint,
        "region": server.region,
        "bucket": bucket,
        "prefix": "site/",
        "name": PATTERN,
        "credentialsSecretRef": {"name": "s3"},
    }
    api.create("backupsources", "nightly", {"stores": ["site"], "s3": s3})


def put_dump(server: VersityServer, bucket: str, taken_at: datetime, body: bytes = b"a dump") -> str:
    """Put the dump of a moment as it was uploaded then; return its key."""
    key = f"site/{dump_name(taken_at)}"
    server.put(bucket, key, body, taken_at)
    return key


def effective(api: Api) -> str:
    return str(api.condition("backupsources", "nightly", "RetentionEffective").get("reason"))


def wait_effective(api: Api, reason: str) -> str:
    """Wait until RetentionEffective has a reason; return its message."""
    eventually(lambda: effective(api) == reason, lambda: f"{reason}; it is {api.list('backupsources')}")
    return str(api.condition("backupsources", "nightly", "RetentionEffective")["message"])


def test_every_version_and_marker_of_an_expired_key_goes_and_others_stay_as_they_are(
    api: Api, server: VersityServer, bucket: str, start_operator: StartOperator
) -> None:
    expired = [put_dump(server, bucket, days_ago(days), b"first") for days in (220, 210)]
    for key, days in zip(expired, (219, 209), strict=True):
        server.put(bucket, key, b"second", days_ago(days))
        server.delete(bucket, key)
    kept = [put_dump(server, bucket, days_ago(days)) for days in (100, 1)]
    server.put(bucket, kept[0], b"uploaded again", days_ago(99))
    server.delete(bucket, kept[0])
    elsewhere = f"other/{expired[0].removeprefix('site/')}"
    server.put(bucket, elsewhere, b"another prefix", days_ago(300))
    before = {key: server.bytes_of(bucket, key) for key in (*kept, elsewhere)}
    assert all(content in (before[kept[0]] or b"") for content in (b"a dump", b"uploaded again"))

    give_credentials(api, server)
    start_operator(LETHE_SCAN_INTERVAL="500ms")
    apply_source(api, server, bucket)

    states = {key.removeprefix("site/"): "Purged" for key in expired}
    states |= {key.removeprefix("site/"): "Present" for key in kept}
    eventually(lambda: snapshot_states(api) == states, lambda: f"{states}; it is {snapshot_states(api)}")
    assert [server.bytes_of(bucket, key) for key in expired] == [None, None]
    assert {key: server.bytes_of(bucket, key) for key in before} == before
    wait_effective(api, "WithinRetention")
    api.wait_reason("backupsources", "nightly", "Scanned")


def test_credentials_are_said_to_be_missing_or_wrong_and_mended_by_the_secret_alone(
    api: Api, server: VersityServer, bucket: str, start_operator: StartOperator
) -> None:
    wrong = "canary-key-of-s3-00093"
    old = put_dump(server, bucket, days_ago(200))
    put_dump(server, bucket, days_ago(1))
    operator = start_operator(LETHE_SCAN_INTERVAL="500ms")
    apply_source(api, server, bucket)

    missing = api.wait_reason("backupsources", "nightly", "SecretMissing")
    assert "Secret s3 does not exist; create it" in str(missing["status"])
    give_credentials(api, server, secret_key=wrong)
    refused = api.wait_reason("backupsources", "nightly", "Unreachable")
    assert effective(api) == "BackendUnavailable"
    for secret in (wrong, server.access_key, server.secret_key):
        assert secret not in str(refused["status"])
        assert secret not in operator.log.read_text()
    assert server.bytes_of(bucket, old) is not None
    give_credentials(api, server)
    mended = api.wait_reason("backupsources", "nightly", "Scanned")
    wait_effective(api, "WithinRetention")
    assert mended["metadata"]["generation"] == missing["metadata"]["generation"]
    assert server.bytes_of(bucket, old) is None


def test_a_server_that_is_away_is_said_and_all_goes_on_when_it_is_back(
    api: Api, server: VersityServer, bucket: str, start_operator: StartOperator
) -> None:
    kept = put_dump(server, bucket, days_ago(1))
    give_credentials(api, server)
    start_operator(LETHE_SCAN_INTERVAL="500ms")
    apply_source(api, server, bucket)
    wait_effective(api, "WithinRetention")
    server.stop()
    try:
        wait_effective(api, "BackendUnavailable")
        api.wait_reason("backupsources", "nightly", "Unreachable")
        assert snapshot_states(api) == {kept.removeprefix("site/"): "Present"}
    finally:
        server.start()
    old = put_dump(server, bucket, days_ago(200))
    eventually(lambda: snapshot_states(api).get(old.removeprefix("site/")) == "Purged", "the old one to go")
    wait_effective(api, "WithinRetention")
    assert server.bytes_of(bucket, old) is None


def test_an_edited_place_is_another_source_and_purges_nothing_of_the_first(
    api: Api, server: VersityServer, bucket: str, start_operator: StartOperator
) -> None:
    kept = [put_dump(server, bucket, days_ago(days)) for days in (179, 2)]
    empty, copied = (server.bucket(f"backups-{next(_buckets)}") for _ in range(2))
    for key in kept:
        server.put(copied, key, b"a dump", days_ago(3))
    server.put(bucket, f"other/{dump_name(days_ago(1))}", b"another prefix", days_ago(1))
    give_credentials(api, server)
    start_operator(LETHE_SCAN_INTERVAL="500ms")
    apply_source(api, server, bucket)
    wait_effective(api, "WithinRetention")

    named = f"2 in bucket {server.endpoint.removeprefix('http://')}/{bucket}/site/"
    there_again = {key.removeprefix("site/"): "Present" for key in kept}.items()
    there = {"bucket": bucket, "prefix": "site/"}
    for place in ({"bucket": empty}, {"bucket": copied}, {"prefix": "other/"}):
        api.patch_spec("backupsources", "nightly", {"s3": place, "retention": "P1W"})  # both are due
        eventually(lambda: named in wait_effective(api, "PlaceChanged"), named)
        assert all(server.bytes_of(bucket, key) is not None for key in kept)
        assert "Purged" not in snapshot_states(api).values()
        api.patch_spec("backupsources", "nightly", {"s3": there, "retention": "P6M"})
        eventually(lambda: there_again <= snapshot_states(api).items(), "both to be there again")
    api.patch_spec("backupsources", "nightly", {"retention": "P1W"})
    eventually(lambda: server.bytes_of(bucket, kept[0]) is None, "the old one to go where it lies")


def test_a_locked_version_outlives_its_time_and_everybody_is_told(
    api: Api, server: VersityServer, start_operator: StartOperator
) -> None:
    bucket = server.bucket(f"backups-{next(_buckets)}", lock=True)
    locked = put_dump(server, bucket, days_ago(200))
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    server.client.put_object_retention(
        Bucket=bucket, Key=locked, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until}
    )
    free = put_dump(server, bucket, days_ago(190))
    fresh = put_dump(server, bucket, days_ago(1))
    give_credentials(api, server)
    operator = start_operator(LETHE_SCAN_INTERVAL="500ms")
    apply_source(api, server, bucket)

    message = wait_effective(api, "ObjectLocked")
    assert f"{until:%Y-%m-%d}" in message
    states = dict(zip((locked, free, fresh), ("Overdue", "Purged", "Present"), strict=True))
    states = {key.removeprefix("site/"): state for key, state in states.items()}
    eventually(lambda: snapshot_states(api) == states, lambda: f"{states}; it is {snapshot_states(api)}")
    told = next(one for one in api.list("backupsnapshots") if one["status"]["state"] == "Overdue")
    purged = next(c for c in told["status"]["conditions"] if c["type"] == "Purged")
    assert (purged["status"], purged["reason"]) == ("False", "ObjectLocked")
    eventually(lambda: operator.metric("lethe_snapshots_overdue") == 1, "the metric to say one")
    assert server.bytes_of(bucket, locked) is not None
