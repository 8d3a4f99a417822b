"""Backups from end to end: found, kept, pruned, proven gone, and what that means for who was erased."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from devtools.company import Api, Site, eventually, names
from devtools.dumps import apply_source, days_ago, dump_name, instant, leave_dump, snapshot_states
from lethe.domain.periods import Period
from tests.e2e.conftest import StartOperator

pytestmark = pytest.mark.e2e


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    """The directory of the nightly dumps."""
    directory = tmp_path / "dumps"
    directory.mkdir()
    return directory


def test_expired_dumps_go_and_the_request_tells_when_its_last_copy_dies(
    api: Api, site: Site, dumps: Path, start_operator: StartOperator
) -> None:
    expired = [leave_dump(dumps, days_ago(days)) for days in (215, 200)]
    kept = [leave_dump(dumps, days_ago(days)) for days in (150, 30, 1)]
    notes = dumps / "README"
    notes.write_text("not a dump")
    key = site.sign_up("ada@example.org")[0]
    operator = start_operator(LETHE_SCAN_INTERVAL="500ms", LETHE_BACKUP_DIRECTORIES=str(dumps))
    api.sql_store("site", site.url)
    apply_source(api, dumps)

    states = {path.name: "Purged" for path in expired} | {path.name: "Present" for path in kept}
    eventually(lambda: snapshot_states(api) == states, lambda: f"{states}; it is {snapshot_states(api)}")
    assert sorted(path.name for path in dumps.iterdir()) == sorted([notes.name, *(p.name for p in kept)])
    source = api.wait_reason("backupsources", "nightly", "NameUnparsable")
    assert api.condition("backupsources", "nightly", "RetentionEffective")["reason"] == "NameUnparsable"
    assert source["status"]["unparsable"] == ["README"]
    assert source["status"]["next"]["ref"] == kept[0].name
    assert api.condition("backupsources", "nightly", "Ready")["reason"] == "NameUnparsable"
    api.wait("datastores", "site", "BackupsCovered")
    gone = next(s for s in api.list("backupsnapshots") if s["spec"]["ref"] == expired[0].name)
    assert gone["status"]["deletedAt"]
    assert gone["status"]["purgedAt"]

    api.request_by_id("forget-ada", key)
    request = api.wait("deletionrequests", "forget-ada", "Erased")
    last = Period(6, 0).after(datetime.fromisoformat(kept[-1].stem.removeprefix("site-")))
    eventually(
        lambda: (
            (api.get("deletionrequests", "forget-ada") or {})["status"].get("backups")
            == {"lastCopyGoneAt": instant(last)}
        ),
        lambda: f"{instant(last)}; it is {api.get('deletionrequests', 'forget-ada')}",
    )
    request = api.get("deletionrequests", "forget-ada") or {}
    assert api.condition("deletionrequests", "forget-ada", "Purged")["reason"] == "SnapshotsRemain"

    leave_dump(dumps, datetime.now(UTC).replace(microsecond=0))
    eventually(lambda: len(api.list("backupsnapshots")) == 6, "the new dump")
    scans = operator.metric("lethe_api_writes_total")
    eventually(lambda: operator.metric("lethe_api_writes_total") >= scans, "a scan")
    assert api.get("deletionrequests", "forget-ada") == request  # a new nightly dump changes nothing


def test_a_deleted_object_deletes_no_dump_and_comes_back(
    api: Api, site: Site, dumps: Path, start_operator: StartOperator
) -> None:
    path = leave_dump(dumps, days_ago(3))
    start_operator(LETHE_SCAN_INTERVAL="500ms", LETHE_BACKUP_DIRECTORIES=str(dumps))
    api.sql_store("site", site.url)
    apply_source(api, dumps)
    eventually(lambda: snapshot_states(api) == {path.name: "Present"}, "the snapshot")
    before = names(api.list("backupsnapshots"))[0]
    uid = (api.get("backupsnapshots", before) or {})["metadata"]["uid"]
    api.delete("backupsnapshots", before)
    eventually(
        lambda: (
            snapshot_states(api) == {path.name: "Present"}
            and names(api.list("backupsnapshots")) == [before]
            and (api.get("backupsnapshots", before) or {})["metadata"]["uid"] != uid
        ),
        "the same object, made anew",
    )
    assert path.exists()


def test_more_than_allowed_at_once_waits_for_a_person_who_names_the_count(
    api: Api, site: Site, dumps: Path, start_operator: StartOperator
) -> None:
    old = [leave_dump(dumps, days_ago(200 + n)) for n in range(4)]
    leave_dump(dumps, days_ago(1))
    start_operator(LETHE_SCAN_INTERVAL="500ms", LETHE_BACKUP_DIRECTORIES=str(dumps))
    api.sql_store("site", site.url)
    apply_source(api, dumps, maxPrunesPerRun=3)

    def reason() -> str:
        return str(api.condition("backupsources", "nightly", "RetentionEffective").get("reason"))

    eventually(lambda: reason() == "AwaitingConfirmation", reason)
    assert "set spec.confirmPrunes to 4" in str(api.get("backupsources", "nightly"))
    assert all(path.exists() for path in old)
    api.patch_spec("backupsources", "nightly", {"confirmPrunes": 3})
    eventually(lambda: (api.get("backupsources", "nightly") or {})["status"]["observedGeneration"] == 2, "3")
    assert all(path.exists() for path in old)
    api.patch_spec("backupsources", "nightly", {"confirmPrunes": 4})
    eventually(lambda: not any(path.exists() for path in old), "four dumps to go")
    eventually(lambda: reason() == "WithinRetention", reason)


def test_the_only_dump_left_is_held_loudly(
    api: Api, site: Site, dumps: Path, start_operator: StartOperator
) -> None:
    only = leave_dump(dumps, days_ago(300))
    start_operator(LETHE_SCAN_INTERVAL="500ms", LETHE_BACKUP_DIRECTORIES=str(dumps))
    api.sql_store("site", site.url)
    apply_source(api, dumps)
    eventually(lambda: snapshot_states(api) == {only.name: "Held"}, lambda: str(snapshot_states(api)))
    eventually(
        lambda: (
            api.condition("backupsources", "nightly", "RetentionEffective").get("reason")
            == "LastSnapshotHeld"
        ),
        "the source to say so loudly",
    )
    api.patch_spec("backupsources", "nightly", {"lastSnapshot": "Prune"})
    eventually(lambda: snapshot_states(api) == {only.name: "Purged"}, lambda: str(snapshot_states(api)))
    assert not only.exists()


def test_a_job_applies_the_snapshot_itself_and_there_is_one_object(
    api: Api, site: Site, dumps: Path, start_operator: StartOperator
) -> None:
    taken = days_ago(2)
    leave_dump(dumps, taken)
    start_operator(LETHE_SCAN_INTERVAL="500ms", LETHE_BACKUP_DIRECTORIES=str(dumps))
    api.sql_store("site", site.url)
    apply_source(api, dumps)
    eventually(lambda: snapshot_states(api) == {dump_name(taken): "Present"}, "the snapshot")
    spec = {"source": "nightly", "ref": dump_name(taken), "takenAt": instant(taken)}
    api.create("backupsnapshots", "by-the-job", spec)
    eventually(
        lambda: (
            names(api.list("backupsnapshots")) == ["by-the-job"]
            and snapshot_states(api) == {dump_name(taken): "Present"}
        ),
        lambda: str(api.list("backupsnapshots")),
    )
