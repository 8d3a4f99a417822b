"""kill -9 before and after every side effect of a prune: start again, and exactly what was due is gone."""

import shutil
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from devtools.company import Api, eventually
from devtools.dumps import PATTERN, days_ago, dump_name, leave_dump
from devtools.servers.controlplane import ControlPlane
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from tests.e2e.crashing import Fatal
from tests.e2e.forking import end, fork_operator, made

__all__ = ["made"]  # a fixture

pytestmark = pytest.mark.e2e

EXPIRED = [days_ago(days) for days in (230, 215, 200)]
KEPT = [days_ago(days) for days in (150, 30, 1)]
NAMES = {dump_name(moment): "Purged" for moment in EXPIRED} | {dump_name(m): "Present" for m in KEPT}


class Stage:
    """A namespace, a directory of dumps and an operator's folder of one's own, for one kill."""

    def __init__(self, folder: Path, control_plane: ControlPlane, made: Path, namespace: str) -> None:
        self.api = Api(control_plane, namespace)
        self.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        self._control_plane = control_plane
        self.folder = folder / namespace
        shutil.copytree(made, self.folder)
        self.ledger = self.folder / "ledger.db"
        self.last = ""
        """The last moment of the operator that was to die."""
        self.moments = self.folder / "moments"
        self.dumps = self.folder / "dumps"
        self.dumps.mkdir()
        for moment in (*EXPIRED, *KEPT):
            leave_dump(self.dumps, moment)

    def operator(self, fatal: Fatal) -> BaseProcess:
        """Start an operator that dies at a moment (0: never)."""
        # One scan is one story: the next one would be more moments to die at.
        settings = {"LETHE_BACKUP_DIRECTORIES": str(self.dumps), "LETHE_SCAN_INTERVAL": "1m"}
        return fork_operator(self.folder, self._control_plane, self.api.namespace, fatal, **settings)

    def told(self) -> dict[str, str]:
        """Return the state of each BackupSnapshot by its ref; two of one ref are an error."""
        states: dict[str, str] = {}
        for one in self.api.list("backupsnapshots"):
            assert one["spec"]["ref"] not in states, f"two objects for {one['spec']['ref']}"
            states[one["spec"]["ref"]] = one.get("status", {}).get("state", "")
        return states

    def settled(self) -> bool:
        """Whether everything has been told."""
        effective = self.api.condition("backupsources", "nightly", "RetentionEffective")
        return self.told() == NAMES and effective.get("reason") == "WithinRetention"


def play(stage: Stage, fatal: Fatal) -> bool:
    """Let an operator prune until it dies or has done all, then a sound one; return whether it died."""
    directory = {"path": str(stage.dumps), "name": PATTERN}
    stage.api.create("backupsources", "nightly", {"stores": ["site"], "directory": directory})
    fragile = stage.operator(fatal)
    until(lambda: not fragile.is_alive() or stage.settled())
    died = not fragile.is_alive()
    end(fragile)
    stage.last = stage.moments.read_text().splitlines()[-1]
    sound = stage.operator(0)
    try:
        eventually(stage.settled, lambda: f"{NAMES}; it is {stage.told()}")
        check(stage)
    finally:
        end(sound)
    check_ledger(stage)
    return died


def until(claim: Callable[[], bool], patience: float = 120) -> None:
    """Wait until a claim holds, but not for ever."""
    ends = time.monotonic() + patience
    while not claim() and time.monotonic() < ends:
        time.sleep(0.02)


def check(stage: Stage) -> None:
    """Exactly what was due is gone, and each object tells it."""
    assert sorted(path.name for path in stage.dumps.iterdir()) == sorted(map(dump_name, KEPT))
    for one in stage.api.list("backupsnapshots"):
        told: dict[str, Any] = one["status"]
        reasons = {condition["type"]: condition["reason"] for condition in told["conditions"]}
        if NAMES[one["spec"]["ref"]] == "Purged":
            assert told["deletedAt"] <= told["purgedAt"]
            assert (reasons["Ready"], reasons["Purged"]) == ("Purged", "Verified")
        else:
            assert "deletedAt" not in told
            assert (reasons["Ready"], reasons["Purged"]) == ("Retained", "NotDue")


def check_ledger(stage: Stage) -> None:
    """The chain holds, and nothing that Lethe deleted counts as vanished."""
    ledger = open_ledger(f"sqlite:///{stage.ledger}", FileKeyring(stage.folder / "keys"))
    try:
        ledger.verify()
        records = {record.ref: record for record in ledger.snapshots()}
        assert records.keys() == NAMES.keys()
        assert not [ref for ref, record in records.items() if record.vanished_at is not None]
        for moment in EXPIRED:
            record = records[dump_name(moment)]
            assert record.intended_at is not None
            assert record.deleted_at is not None
            assert record.purged_at is not None
            assert record.intended_at <= record.deleted_at <= record.purged_at
    finally:
        ledger.close()


@pytest.mark.slow
def test_a_kill_at_any_side_effect_of_a_prune_converges(
    tmp_path: Path, control_plane: ControlPlane, made: Path, namespace: str
) -> None:
    kinds = ("append", "list", "delete", "gone", "create", "write_status")
    unseen = {f"{when} {kind}" for kind in kinds for when in ("before", "after")}

    def died(fatal: Fatal, number: int) -> str | None:
        """Play, and return the moment of the kill; none if the story ended without it."""
        stage = Stage(tmp_path, control_plane, made, f"{namespace}-{number}")
        try:
            killed = play(stage, fatal)
        except AssertionError as wrong:
            log = (stage.folder / "operator.log").read_text()[-3000:]
            raise AssertionError(f"killed at {fatal}: {stage.moments.read_text()}\n{log}") from wrong
        return stage.last.partition(" ")[2] if killed else None

    died(0, 0)
    fatal = 1
    while moment := died(fatal, fatal):
        unseen.discard(moment)
        fatal += 1
    assert fatal > 40, "the story has more side effects than that"
    # Effects run side by side: the Nth moment of one run need not be that of another.
    for number, kind in enumerate(sorted(unseen), 1):
        assert died(kind, fatal + number) == kind
