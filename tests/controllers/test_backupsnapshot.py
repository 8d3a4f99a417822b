"""What one BackupSnapshot does wrong is told of it, and holds up no other and not its source."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lethe.api.parse import parse
from lethe.controllers import backupsnapshot
from lethe.controllers.runtime import queue
from tests.controllers.backups_running import NAMESPACE, BackupsRunning, eventually


@pytest.fixture
async def backups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackupsRunning:
    """Sources whose failures are tried again soon."""
    monkeypatch.setattr(queue, "FIRST_PAUSE", 0.05)
    return BackupsRunning(tmp_path)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The names of the objects over which Lethe fails, with how often it did."""
    real_parse, failures = parse, dict[str, int]()

    def fails(kind: Any, manifest: Any) -> Any:
        name = manifest["metadata"]["name"]
        if name in failures or name.startswith(tuple(one for one in failures if one.endswith("-"))):
            failures[name] = failures.get(name, 0) + 1
            raise RuntimeError("ada@example.org")
        return real_parse(kind, manifest)

    monkeypatch.setattr(backupsnapshot, "parse", fails)
    return failures


def applied(
    backups: BackupsRunning, name: str, ref: str, source: str = "nightly", *, status: Any = None
) -> None:
    """Let a job apply a snapshot."""
    spec = {"source": source, "ref": ref, "takenAt": "2026-01-01T00:00:00Z"}
    backups.cluster.apply("backupsnapshots", NAMESPACE, name, spec, status=status)


def reason(backups: BackupsRunning, name: str, kind: str = "Ready") -> Any:
    """Return the reason of a snapshot's condition."""
    return backups.cluster.condition("backupsnapshots", NAMESPACE, name, kind).get("reason")


@pytest.mark.parametrize("listed", [True, False], ids=["at the start", "while running"])
async def test_a_snapshot_that_lethe_fails_over_is_told_alone_and_heals(
    backups: BackupsRunning, broken: dict[str, int], *, listed: bool
) -> None:
    held = {"type": "Held", "status": "False", "reason": "NoHold", "message": "nothing keeps it"}
    broken["bad"] = 0
    backups.apply("nightly")
    if listed:
        applied(backups, "bad", "bad.dump", status={"state": "Present", "conditions": [held]})
        applied(backups, "good", "good.dump")
    async with backups.running():
        await eventually(lambda: backups.ready("nightly") == "Scanned")
        if not listed:
            applied(backups, "bad", "bad.dump", status={"state": "Present", "conditions": [held]})
            applied(backups, "good", "good.dump")
        await eventually(lambda: reason(backups, "bad") == "InternalError")
        await eventually(lambda: reason(backups, "good") == "NotSeen")
        ready = backups.cluster.condition("backupsnapshots", NAMESPACE, "bad")
        assert ready["status"] == "False"
        assert ready["message"] == "Lethe failed here (RuntimeError); see its log and report it"
        assert reason(backups, "bad", "Held") == "NoHold", "what else was said stays"
        await eventually(lambda: broken["bad"] > 4)
        assert backups.cluster.writes["backupsnapshots", "bad"] == 1
        assert backups.ready("nightly") == "Scanned"
        broken.clear()
        await eventually(lambda: reason(backups, "bad") == "NotSeen")


async def test_an_object_of_lethes_own_that_it_fails_over_spares_its_source(
    backups: BackupsRunning, broken: dict[str, int]
) -> None:
    broken["nightly-"] = 0
    backups.apply("nightly")
    async with backups.running():
        await eventually(lambda: len(broken) == 2)
        [name] = broken.keys() - {"nightly-"}
        await eventually(lambda: reason(backups, name) == "InternalError")
        await eventually(lambda: backups.ready("nightly") == "Scanned")
        broken.clear()
        await eventually(lambda: backups.states("nightly") == ["Present"])


async def test_a_snapshot_in_trouble_that_is_deleted_is_forgotten(
    backups: BackupsRunning, broken: dict[str, int]
) -> None:
    broken["bad"] = 0
    async with backups.running():
        applied(backups, "bad", "bad.dump")
        await eventually(lambda: reason(backups, "bad") == "InternalError")
        backups.cluster.remove("backupsnapshots", NAMESPACE, "bad")
        await asyncio.sleep(0.5)
        assert not backups.snapshots.queue, "and is not tried again"
        assert backups.objects.declared((NAMESPACE, "nightly")) == []


async def test_a_snapshot_of_no_source_says_so_until_there_is_one(backups: BackupsRunning) -> None:
    async with backups.running():
        applied(backups, "early", "early.dump")
        await eventually(lambda: reason(backups, "early") == "SourceMissing")
        backups.apply("nightly")
        await eventually(lambda: reason(backups, "early") == "NotSeen")


async def test_an_object_made_anew_under_its_name_is_taken_for_another(backups: BackupsRunning) -> None:
    backups.apply("nightly")
    backups.apply("weekly")
    async with backups.running():
        await eventually(lambda: backups.ready("weekly") == "Scanned" == backups.ready("nightly"))
        applied(backups, "one", "one.dump")
        await eventually(lambda: backups.objects.declared((NAMESPACE, "nightly")))
        backups.cluster.remove("backupsnapshots", NAMESPACE, "one")
        applied(backups, "one", "one.dump", "weekly")  # before the deletion is taken in
        await eventually(lambda: backups.objects.declared((NAMESPACE, "weekly")))
        assert backups.objects.declared((NAMESPACE, "nightly")) == []


async def test_what_says_the_same_is_not_written_again_after_a_restart(tmp_path: Path) -> None:
    first = BackupsRunning(tmp_path)
    first.apply("nightly")
    async with first.running():
        await eventually(lambda: first.ready("nightly") == "Scanned")
    [before] = first.cluster.objects["backupsnapshots"].values()
    assert before["status"]["state"] == "Present"
    first.cluster.writes.clear()
    second = BackupsRunning(tmp_path, first.cluster)
    async with second.running():
        await eventually(lambda: second.cache.sources[NAMESPACE, "nightly"].scan_due)
    assert second.cluster.writes.total() == second.cluster.writes["backupsources", "nightly"] <= 1, (
        "lastScanAt"
    )
