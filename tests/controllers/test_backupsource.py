"""What one source or its backend does wrong is told of it, and holds up nothing else."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devtools.dumps import PATTERN, days_ago, leave_dump
from lethe.api.translation import source_description
from lethe.controllers import backupsource
from lethe.controllers.runtime import queue
from lethe.ports.backups import BackendUnavailable
from tests.controllers.backups_running import NAMESPACE, BackupsRunning, eventually
from tests.workflows.backed_up import touch


@pytest.fixture
async def backups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackupsRunning:
    """Sources whose failures are tried again soon."""
    monkeypatch.setattr(queue, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(backupsource, "FIRST_PAUSE", 0.05)
    return BackupsRunning(tmp_path)


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """What a backend hangs in until it is set."""
    event = threading.Event()
    yield event
    event.set()


async def test_a_backend_that_fails_unforeseen_is_its_own_sources_trouble(backups: BackupsRunning) -> None:
    backups.faults.error["weekly"] = RuntimeError("ada@example.org")
    backups.apply("weekly")
    backups.apply("nightly")
    async with backups.running():
        await eventually(lambda: backups.ready("weekly") == "InternalError")
        await eventually(lambda: backups.ready("nightly") == "Scanned")
        await eventually(lambda: backups.states("nightly") == ["Present"])
        ready = backups.cluster.condition("backupsources", NAMESPACE, "weekly")
        assert ready["status"] == "False"
        assert ready["message"] == "Lethe failed here (RuntimeError); see its log and report it"
        assert _up(backups, "weekly") == 0

        listed = backups.faults.listed["weekly"]
        await eventually(lambda: len(listed) >= 5)
        pauses = [after - before for before, after in pairwise(listed)]
        assert pauses[3] > 3 * pauses[0], "each time later"
        assert backups.cluster.writes["backupsources", "weekly"] == 1, "and told once"
        del backups.faults.error["weekly"]
        await eventually(lambda: backups.ready("weekly") == "Scanned")
        assert backups.states("weekly") == ["Present"]
        assert _up(backups, "weekly") == 1
    about = [event for event in backups.cluster.events if event.regarding["metadata"]["name"] == "weekly"]
    assert [event.reason for event in about] == ["InternalError", "Scanned"]


async def test_a_manifest_that_lethe_fails_over_neither_ends_nor_delays_a_start(
    backups: BackupsRunning, monkeypatch: pytest.MonkeyPatch
) -> None:
    translate, broken = source_description, {"weekly"}

    def fails(source: Any, retention: Any, skew: Any) -> Any:
        if source.metadata.name in broken:
            raise KeyError("weekly")
        return translate(source, retention, skew)

    monkeypatch.setattr(backupsource, "source_description", fails)
    backups.apply("weekly")
    backups.apply("nightly")
    async with backups.running():
        await eventually(lambda: backups.ready("weekly") == "InternalError")
        await eventually(lambda: backups.ready("nightly") == "Scanned")
        broken.clear()
        await eventually(lambda: backups.ready("weekly") == "Scanned")
        broken.add("weekly")
        backups.apply("weekly", suspend=True)
        await eventually(lambda: backups.ready("weekly") == "InternalError")
        backups.cluster.remove("backupsources", NAMESPACE, "weekly")
        await eventually(lambda: _up(backups, "weekly") is None)


async def test_a_source_that_was_never_met_leaves_no_metric_behind(
    backups: BackupsRunning, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(source: Any, retention: Any, skew: Any) -> Any:
        raise KeyError(source)

    monkeypatch.setattr(backupsource, "source_description", fails)
    backups.apply("weekly")
    async with backups.running():
        await eventually(lambda: _up(backups, "weekly") == 0)
        backups.cluster.remove("backupsources", NAMESPACE, "weekly")
        await eventually(lambda: _up(backups, "weekly") is None)


async def test_a_backend_that_hangs_is_said_to_be_silent(
    backups: BackupsRunning, hang: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backupsource, "LONG_LISTING_SECONDS", 0.2)
    backups.faults.hangs_in_list["weekly"] = hang
    backups.apply("weekly")
    backups.apply("nightly")
    async with backups.running():
        await eventually(lambda: backups.ready("nightly") == "Scanned")
        await eventually(lambda: backups.ready("weekly") == "Unreachable")
        message = backups.cluster.condition("backupsources", NAMESPACE, "weekly")["message"]
        assert message == "the backend has been asked for a listing and is silent"
        hang.set()
        await eventually(lambda: backups.ready("weekly") == "Scanned")
        assert len(backups.faults.listed["weekly"]) == 1


async def test_a_listing_that_hangs_holds_up_neither_repair_nor_deletion(
    backups: BackupsRunning, hang: threading.Event
) -> None:
    backups.faults.hangs_in_list["weekly"] = hang
    backups.apply("weekly")
    async with backups.running():
        await eventually(lambda: backups.faults.listed["weekly"])
        abandoned = [known for known, _ in backups.cache.scans.values()]
        del backups.faults.hangs_in_list["weekly"]
        backups.apply("weekly", retention="P1M")
        await eventually(lambda: backups.ready("weekly") == "Scanned", patience=5)
        assert backups.cluster.condition("backupsources", NAMESPACE, "weekly")["observedGeneration"] == 2

        backups.faults.hangs_in_list["weekly"] = hang
        backups.apply("weekly", retention="P2M")
        await eventually(lambda: len(backups.faults.listed["weekly"]) == 3)
        backups.cluster.remove("backupsources", NAMESPACE, "weekly")
        await eventually(lambda: not backups.cache.sources, patience=5)
        assert [known for known, _ in backups.cache.scans.values()][:1] == abandoned, "holds must know of it"
        assert len(backups.cache.scans) == 2
        hang.set()
        await eventually(lambda: not backups.cache.scans)
        assert not abandoned[0].snapshots, "it has concluded nothing"


async def test_an_edited_source_waits_for_deletions_that_have_begun(
    backups: BackupsRunning, hang: threading.Event
) -> None:
    backups.faults.hangs_in_delete["weekly"] = hang
    leave_dump(backups.apply("weekly"), days_ago(300))
    async with backups.running():
        await eventually(lambda: "weekly" in backups.faults.deleting)
        backups.apply("weekly", suspend=True)
        with pytest.raises(AssertionError):
            await eventually(lambda: len(backups.faults.listed["weekly"]) > 1, patience=0.5)
        hang.set()
        await eventually(lambda: len(backups.faults.listed["weekly"]) > 1)
        await eventually(lambda: backups.states("weekly") == ["Present", "Purged"])


async def test_a_deletion_that_hangs_holds_up_a_repair_for_a_while_only(
    backups: BackupsRunning, hang: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backupsource, "STOP_SECONDS", 0.3)
    backups.faults.hangs_in_delete["weekly"] = hang
    leave_dump(backups.apply("weekly"), days_ago(300))
    async with backups.running():
        await eventually(lambda: "weekly" in backups.faults.deleting)
        backups.apply("weekly", suspend=True)
        await eventually(lambda: backups.ready("weekly") == "Scanned", patience=5)


async def test_a_snapshot_applied_during_a_scan_has_another_scan_follow(
    backups: BackupsRunning, hang: threading.Event
) -> None:
    backups.faults.hangs_in_list["weekly"] = hang
    backups.apply("weekly")
    async with backups.running():
        await eventually(lambda: backups.faults.listed["weekly"])
        spec = {"source": "weekly", "ref": "other.dump", "takenAt": "2026-01-01T00:00:00Z"}
        backups.cluster.apply("backupsnapshots", NAMESPACE, "by-the-job", spec)
        await eventually(lambda: backups.cache.sources[NAMESPACE, "weekly"].rung)
        hang.set()
        await eventually(lambda: len(backups.faults.listed["weekly"]) == 2)
        await eventually(lambda: backups.states("weekly") == ["Missing", "Present"])


async def test_without_an_api_server_a_source_is_scanned_and_told_of_later(backups: BackupsRunning) -> None:
    backups.apply("weekly")
    async with backups.running():
        backups.cluster.away = True
        await eventually(lambda: _status_writes(backups) > 0)
        backups.cluster.away = False
        backups.sources.scan_soon((NAMESPACE, "weekly"))
        await eventually(lambda: backups.ready("weekly") == "Scanned")
        assert backups.states("weekly") == ["Present"]


def _status_writes(backups: BackupsRunning) -> float:
    return backups.metrics.registry.get_sample_value("lethe_api_writes_total", {"what": "status"}) or 0.0


def _up(backups: BackupsRunning, name: str) -> float | None:
    return backups.metrics.registry.get_sample_value("lethe_source_up", {"source": f"{NAMESPACE}/{name}"})


async def test_a_scan_that_the_end_of_the_operator_abandons_leaves_no_error_in_the_log(
    backups: BackupsRunning, caplog: pytest.LogCaptureFixture
) -> None:
    scan: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    known: Any = SimpleNamespace(abandoned=False)
    backups.cache.scans[scan] = known, 0.0
    await backups.sources.close()
    assert known.abandoned
    scan.set_exception(BackendUnavailable("nobody waits for this scan any more"))
    await asyncio.sleep(0)
    backups.cache.scans.clear()
    del scan
    gc.collect()  # asyncio complains of what nobody has taken notice of when it is collected
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_source_says_what_lies_where_it_looked_before_until_that_is_gone(
    backups: BackupsRunning,
) -> None:
    old = backups.apply("nightly")
    leave_dump(backups.home / "nightly", days_ago(200))
    new = backups.home / "moved"
    new.mkdir()
    leave_dump(new, days_ago(2))
    where = {"path": str(new), "name": PATTERN}

    def effective(name: str) -> Any:
        return backups.cluster.condition("backupsources", NAMESPACE, name, "RetentionEffective")

    async with backups.running():
        await eventually(lambda: backups.states("nightly") == ["Present", "Purged"])
        backups.apply("nightly", directory=where)
        await eventually(lambda: effective("nightly").get("reason") == "PlaceChanged")
        assert f"1 in directory {old}" in effective("nightly")["message"]
        await eventually(lambda: backups.states("nightly") == ["Missing", "Present", "Purged"])
        snapshots = backups.cluster.objects["backupsnapshots"].values()
        told = next(one for one in snapshots if one["status"]["state"] == "Missing")
        assert {one["reason"] for one in told["status"]["conditions"] if one["type"] == "Ready"} == {
            "PlaceChanged"
        }
        assert told["status"]["expiresAt"] is not None
        sources = backups.cluster.objects["backupsources"]
        assert sources[NAMESPACE, "nightly"]["status"]["snapshots"]["total"] == 2
        old.rename(backups.home / "nightly-old")
        old.symlink_to(backups.home / "nightly-old")  # only the words of the manifest tell what a place is
        backups.apply("nightly-old", directory={"path": f"{old}/", "name": PATTERN})
        await eventually(lambda: backups.states("nightly-old") == ["Present", "Purged"])
        backups.sources.scan_soon((NAMESPACE, "nightly"))
        await eventually(lambda: effective("nightly").get("reason") == "WithinRetention")
        await eventually(lambda: sources[NAMESPACE, "nightly"]["status"]["snapshots"]["total"] == 1)


async def test_what_was_left_unfinished_or_misnamed_is_told_by_its_name(backups: BackupsRunning) -> None:
    directory = backups.apply("nightly")
    (directory / ".gitkeep").touch()
    part = directory / "site-20260101T030000Z.dump.part"
    part.write_text("half a dump")
    touch(part, days_ago(300))
    misnamed = leave_dump(backups.apply("weekly"), days_ago(2))
    touch(misnamed, days_ago(2) - timedelta(hours=2))

    def said(name: str, kind: str) -> Any:
        return backups.cluster.condition("backupsources", NAMESPACE, name, kind)

    async with backups.running():
        await eventually(lambda: backups.ready("nightly") == "LeftUnfinished")
        assert f"unfinished for over a day ({part.name})" in said("nightly", "Ready")["message"]
        assert said("nightly", "RetentionEffective")["reason"] == "LeftUnfinished"
        status = backups.cluster.objects["backupsources"][NAMESPACE, "nightly"]["status"]
        assert status["partial"] == [part.name]
        assert status["snapshots"]["overdue"] == 1
        await eventually(lambda: backups.ready("weekly") == "NameAfterContent")
        assert misnamed.name in said("weekly", "Ready")["message"]
