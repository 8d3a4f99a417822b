"""Until the last copy is gone: months go by in clocks that a test sets, and no date alone deletes."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devtools.company import Api, Site, eventually
from devtools.dumps import apply_source, days_ago, instant, leave_dump, snapshot_states
from devtools.servers.controlplane import ControlPlane
from lethe.domain.periods import Period
from tests.e2e.set_clocks import ClockedOperator

pytestmark = pytest.mark.e2e

HALF_A_YEAR = timedelta(days=190)
YEAR = timedelta(days=365)


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    """The directory of the nightly dumps."""
    directory = tmp_path / "dumps"
    directory.mkdir()
    return directory


@pytest.fixture
def operator(
    tmp_path: Path, control_plane: ControlPlane, namespace: str, dumps: Path
) -> Iterator[ClockedOperator]:
    """An operator whose clocks can be set, running in the present."""
    environment = {"LETHE_BACKUP_DIRECTORIES": str(dumps)}
    with ClockedOperator(tmp_path / "operator", control_plane, namespace, environment) as started:
        started.start()
        yield started


def erase_ada(api: Api, site: Site) -> None:
    """Have somebody erased who is in the dumps."""
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "BackupsCovered")
    api.request_by_id("ada", site.sign_up("ada@example.org")[0])
    api.wait("deletionrequests", "ada", "Erased")


def wait_purged(api: Api, status: str, reason: str) -> None:
    """Wait until the request says so of its copies."""

    def told() -> tuple[str, str]:
        condition = api.condition("deletionrequests", "ada", "Purged")
        return str(condition.get("status")), str(condition.get("reason"))

    eventually(
        lambda: told() == (status, reason),
        lambda: f"Purged={status} {reason}; it is {told()}, and {api.list('backupsources')}",
    )


def effective(api: Api) -> str:
    return str(api.condition("backupsources", "nightly", "RetentionEffective").get("reason"))


def wait_effective(api: Api, reason: str) -> dict[str, Any]:
    eventually(lambda: effective(api) == reason, lambda: f"{reason}; it is {api.list('backupsources')}")
    return api.condition("backupsources", "nightly", "RetentionEffective")


def test_half_a_year_later_the_last_copy_is_gone_and_the_request_is_purged(
    api: Api, site: Site, dumps: Path, operator: ClockedOperator
) -> None:
    taken = days_ago(0)
    last = leave_dump(dumps, taken)
    apply_source(api, dumps)
    eventually(lambda: snapshot_states(api) == {last.name: "Present"}, "the dump")
    erase_ada(api, site)
    wait_purged(api, "False", "SnapshotsRemain")
    gone_at = {"lastCopyGoneAt": instant(Period(6, 0).after(taken))}
    eventually(
        lambda: (api.get("deletionrequests", "ada") or {})["status"].get("backups") == gone_at,
        lambda: f"{gone_at}; it is {api.get('deletionrequests', 'ada')}",
    )

    operator.stop()  # nobody sees a dump before it was taken
    leave_dump(dumps, days_ago(1) + HALF_A_YEAR)
    operator.restart_in(HALF_A_YEAR)

    wait_purged(api, "True", "Verified")
    assert not last.exists()
    request = api.get("deletionrequests", "ada") or {}
    assert request["status"]["state"] == "Purged"
    assert "backups" not in request["status"]
    assert api.condition("deletionrequests", "ada", "Ready")["status"] == "True"
    assert snapshot_states(api)[last.name] == "Purged"

    def events() -> list[Any]:
        path = f"/apis/events.k8s.io/v1/namespaces/{api.namespace}/events"
        return [e for e in api.call("GET", path)[1]["items"] if e["regarding"].get("name") == "ada"]

    eventually(lambda: "Purged" in [e["reason"] for e in events()], lambda: f"an event; there are {events()}")
    wait_effective(api, "WithinRetention")


def test_a_clock_that_jumps_by_a_year_deletes_nothing_and_all_goes_on_afterwards(
    api: Api, dumps: Path, operator: ClockedOperator
) -> None:
    present = [leave_dump(dumps, days_ago(days)) for days in (90, 30, 1)]
    apply_source(api, dumps)
    wait_effective(api, "WithinRetention")
    before = snapshot_states(api)
    for host, server in ((YEAR, None), (None, YEAR), (-YEAR, None), (None, -YEAR), (YEAR, YEAR)):
        operator.set(host=host or timedelta(0), server=server or timedelta(0))
        message = wait_effective(api, "ClocksDisagree")["message"]
        assert "nothing is pruned" in message
        assert all(path.exists() for path in present)
        operator.set()
        wait_effective(api, "WithinRetention")
    assert snapshot_states(api) == before
    due = leave_dump(dumps, days_ago(200))
    eventually(lambda: snapshot_states(api).get(due.name) == "Purged", lambda: str(snapshot_states(api)))
    assert not due.exists()
    assert all(path.exists() for path in present)


def test_without_its_source_nothing_is_called_purged_and_with_it_all_goes_on(
    api: Api, site: Site, dumps: Path, operator: ClockedOperator
) -> None:
    last = leave_dump(dumps, days_ago(0))
    apply_source(api, dumps)
    eventually(lambda: snapshot_states(api) == {last.name: "Present"}, "the dump")
    erase_ada(api, site)
    wait_purged(api, "False", "SnapshotsRemain")

    api.delete("backupsources", "nightly")
    uncovered = api.wait("datastores", "site", "BackupsCovered", "False")
    covered = next(c for c in uncovered["status"]["conditions"] if c["type"] == "BackupsCovered")
    assert covered["reason"] == "NoSource"
    operator.stop()  # nobody sees a dump before it was taken
    leave_dump(dumps, days_ago(1) + HALF_A_YEAR)
    operator.restart_in(HALF_A_YEAR)
    # Whoever is told of somebody erased now has heard of the stores' backups.
    api.request_by_id("bob", site.sign_up("bob@example.org")[0])
    api.wait("deletionrequests", "bob", "Purged", "False")
    assert api.condition("deletionrequests", "ada", "Purged")["status"] == "False"
    assert last.exists()

    apply_source(api, dumps)
    wait_purged(api, "True", "Verified")
    assert not last.exists()
    api.wait("datastores", "site", "BackupsCovered")
    instants = [datetime.fromisoformat(one["spec"]["takenAt"]) for one in api.list("backupsnapshots")]
    assert len(instants) == len(set(instants)) == 2, "each dump has one object still"


def test_suspended_nothing_goes_and_status_says_what_would(
    api: Api, dumps: Path, operator: ClockedOperator
) -> None:
    taken = days_ago(200)
    due = leave_dump(dumps, taken)
    leave_dump(dumps, days_ago(1))
    apply_source(api, dumps, suspend=True)
    assert "1 would go" in wait_effective(api, "Suspended")["message"]
    source = api.get("backupsources", "nightly") or {}
    assert source["status"]["next"] == {"ref": due.name, "at": instant(Period(6, 0).after(taken))}
    eventually(lambda: snapshot_states(api).get(due.name) == "Overdue", lambda: str(snapshot_states(api)))
    assert operator.metric("lethe_snapshots_overdue") == 1
    assert due.exists()
    api.patch_spec("backupsources", "nightly", {"suspend": False})
    eventually(lambda: snapshot_states(api)[due.name] == "Purged", lambda: str(snapshot_states(api)))
    assert not due.exists()
    wait_effective(api, "WithinRetention")


def test_a_request_says_that_its_last_copy_is_overdue(
    api: Api, site: Site, dumps: Path, operator: ClockedOperator
) -> None:
    last = leave_dump(dumps, days_ago(0))
    apply_source(api, dumps, suspend=True)
    eventually(lambda: snapshot_states(api) == {last.name: "Present"}, "the dump")
    erase_ada(api, site)
    wait_purged(api, "False", "SnapshotsRemain")
    operator.stop()
    leave_dump(dumps, days_ago(1) + HALF_A_YEAR)
    operator.restart_in(HALF_A_YEAR)
    eventually(lambda: snapshot_states(api).get(last.name) == "Overdue", lambda: str(snapshot_states(api)))
    api.request_by_id("bob", site.sign_up("bob@example.org")[0])
    api.wait("deletionrequests", "bob", "Purged", "False")
    wait_purged(api, "False", "SnapshotsOverdue")
