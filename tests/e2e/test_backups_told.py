"""What is wrong with a source or a snapshot is told, and holds up nothing else."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.company import Api, Site, eventually
from devtools.dumps import PATTERN, apply_source, days_ago, instant, leave_dump, snapshot_states
from devtools.operator_process import OperatorProcess
from devtools.servers.controlplane import ControlPlane
from tests.e2e.conftest import StartOperator

pytestmark = pytest.mark.e2e


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    """The directory of the nightly dumps."""
    directory = tmp_path / "dumps"
    directory.mkdir()
    return directory


@pytest.fixture
def hang(tmp_path: Path) -> Path:
    """The file that makes backends hang while it is there."""
    return tmp_path / "hang"


@pytest.fixture
def hanging(
    tmp_path: Path, control_plane: ControlPlane, namespace: str, dumps: Path, hang: Path
) -> Iterator[OperatorProcess]:
    """An operator whose backends hang when they are told to."""
    process = OperatorProcess(
        tmp_path / "operator",
        control_plane.kubeconfig_of("operator"),
        namespaces=[namespace],
        environment={"LETHE_SCAN_INTERVAL": "300ms", "LETHE_BACKUP_DIRECTORIES": str(tmp_path)},
        module="tests.e2e.hanging",
        arguments=(str(hang),),
    )
    try:
        yield process.start()
    finally:
        hang.unlink(missing_ok=True)
        process.stop()


def test_a_backend_that_hangs_holds_up_no_erasure_and_no_other_source(
    api: Api, site: Site, dumps: Path, hang: Path, hanging: OperatorProcess
) -> None:
    path = leave_dump(dumps, days_ago(3))
    key = site.sign_up("ada@example.org")[0]
    hang.touch()
    api.sql_store("site", site.url)
    apply_source(api, dumps)
    api.request_by_id("ada", key)
    api.wait("deletionrequests", "ada", "Erased")
    api.delete("backupsources", "nightly")  # in the middle of a scan that does not end
    apply_source(api, dumps)
    eventually(lambda: snapshot_states(api) == {path.name: "Present"}, lambda: str(snapshot_states(api)))
    assert hang.exists()


def test_the_operator_ends_although_a_backend_hangs(
    api: Api, site: Site, dumps: Path, hang: Path, hanging: OperatorProcess
) -> None:
    hang.touch()
    api.sql_store("site", site.url)
    apply_source(api, dumps)
    api.wait("datastores", "site", "Ready")
    assert hanging.stop() == 0
    assert hang.exists()


def test_two_sources_of_one_place_are_one_too_many(
    api: Api, site: Site, dumps: Path, start_operator: StartOperator
) -> None:
    leave_dump(dumps, days_ago(100))
    api.sql_store("site", site.url)
    apply_source(api, dumps)
    time.sleep(1.1)  # creationTimestamp counts whole seconds
    where = {"path": str(dumps), "name": PATTERN}
    api.create("backupsources", "hasty", {"stores": ["site"], "directory": where, "retention": "P1D"})
    start_operator(LETHE_SCAN_INTERVAL="300ms", LETHE_BACKUP_DIRECTORIES=str(dumps))
    refused = api.wait_reason("backupsources", "hasty", "DuplicateSource")
    assert f"{api.namespace}/nightly lists the same place" in str(refused["status"])
    api.wait("backupsources", "nightly", "Ready")
    assert set(snapshot_states(api).values()) == {"Present"}
    assert len(list(dumps.iterdir())) == 1


def test_a_place_that_never_showed_a_snapshot_covers_nothing(
    api: Api, site: Site, dumps: Path, start_operator: StartOperator
) -> None:
    start_operator(LETHE_SCAN_INTERVAL="300ms", LETHE_BACKUP_DIRECTORIES=str(dumps))
    api.sql_store("site", site.url)
    apply_source(api, dumps, stores=["site", "sight"])
    source = api.wait("backupsources", "nightly", "Ready")
    assert "no snapshot has been seen here yet" in str(source["status"])
    assert "no DataStore is called sight" in str(source["status"])

    def covered() -> str:
        return str(api.condition("datastores", "site", "BackupsCovered").get("reason"))

    eventually(lambda: covered() == "NothingSeen", covered)
    leave_dump(dumps, days_ago(1))
    eventually(lambda: covered() == "Covered", covered)


def test_a_snapshot_that_nobody_has_seen_counts_for_nothing_and_says_so(
    api: Api, site: Site, dumps: Path, start_operator: StartOperator
) -> None:
    start_operator(LETHE_SCAN_INTERVAL="300ms", LETHE_BACKUP_DIRECTORIES=str(dumps))
    api.sql_store("site", site.url)
    leave_dump(dumps, days_ago(1))
    apply_source(api, dumps)
    taken = instant(days_ago(5))
    typo = {"source": "nightly", "ref": "/backups/site.dump", "takenAt": taken}
    api.create("backupsnapshots", "typo", typo)
    api.create("backupsnapshots", "nowhere", {**typo, "source": "weekly"})
    api.wait_reason("backupsnapshots", "typo", "NotSeen")
    api.wait_reason("backupsnapshots", "nowhere", "SourceMissing")
    eventually(
        lambda: (
            ((api.get("backupsources", "nightly") or {})["status"].get("snapshots") or {}).get("total") == 1
        ),
        "one snapshot, the real one",
    )
    api.delete("backupsnapshots", "typo")
    leave_dump(dumps, days_ago(0.5))
    eventually(lambda: len(snapshot_states(api)) == 3, lambda: str(snapshot_states(api)))
    assert api.get("backupsnapshots", "typo") is None


def test_a_place_that_is_not_allowed_is_told_with_the_setting_to_change(
    api: Api, tmp_path: Path, dumps: Path, start_operator: StartOperator
) -> None:
    start_operator(LETHE_SCAN_INTERVAL="300ms", LETHE_BACKUP_DIRECTORIES=str(dumps))
    apply_source(api, tmp_path / "operator")  # where the ledger lies
    refused = api.wait_reason("backupsources", "nightly", "Misconfigured")
    assert "LETHE_BACKUP_DIRECTORIES" in str(refused["status"])
    assert api.condition("backupsources", "nightly", "Stalled")["status"] == "True"
