"""kill -9 after and before every single side effect: start again, and everything converges to the same
state.
"""

import shutil
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from devtools.company import Api, Site, eventually
from devtools.servers.controlplane import ControlPlane
from devtools.servers.postgres import PostgresServer
from tests.e2e.forking import end, fork_operator, made

__all__ = ["made"]  # a fixture

Story = tuple[dict[str, Any], ...]


class Stage:
    """A fresh company with a fresh operator, played from the start for each kill."""

    def __init__(
        self,
        folder: Path,
        control_plane: ControlPlane,
        postgres: PostgresServer,
        made: Path,
        api: Api,
        number: int,
    ) -> None:
        self.api, self.postgres = api, postgres
        self.database = f"{api.namespace.replace('-', '_')}_{number}"
        self.site = Site(postgres.create_database(self.database))
        self.ada, self.bob, self.cleo = self.site.sign_up(
            *(f"{name}@canary.example" for name in ("ada", "bob", "cleo"))
        )
        self.folder = folder / str(number)
        shutil.copytree(made, self.folder)
        self.counts = self.folder / "moments"
        self.control_plane = control_plane

    def operator(self, fatal: int) -> BaseProcess:
        """Start an operator that dies at a moment (0: never)."""
        # The dying one looks at its stores once: every further tick would be one more moment to die at.
        often = {"LETHE_JOURNAL_INTERVAL": "300ms" if fatal == 0 else "1m", "LETHE_CLOCK_SKEW": "1ms"}
        return fork_operator(self.folder, self.control_plane, self.api.namespace, fatal, **often)

    def close(self) -> None:
        """Leave nothing behind for the next kill."""
        for plural in ("deletionrequests", "restoreevents", "datastores"):
            for item in self.api.list(plural):
                self.api.delete(plural, item["metadata"]["name"])
        for name in ("bob", "site-db"):
            self.api.delete("secrets", name)
        self.postgres.drop_database(self.database)


def settled(api: Api) -> dict[str, Any]:
    """Return what the story came to, without what differs from run to run (times, digests, sequences)."""
    told: dict[str, Any] = {}
    for name in ("ada", "bob"):
        status = (api.get("deletionrequests", name) or {}).get("status", {})
        stores = [{k: v for k, v in store.items() if k != "erasedAt"} for store in status.get("stores", ())]
        conditions = sorted((c["type"], c["status"], c["reason"]) for c in status.get("conditions", ()))
        told[name] = (status.get("state"), stores, conditions)
    return told


def play_erasure(stage: Stage, fatal: int) -> bool:
    """Play two requests with an operator that dies at a moment; return whether it died."""
    api = stage.api
    api.sql_store("site", stage.site.url)
    api.request_by_id("ada", stage.ada)
    api.request_by_email("bob", "bob@canary.example")
    died = run_until_death_or_end(stage, fatal)
    for name in ("ada", "bob"):
        api.wait("deletionrequests", name, "Erased", patience=30)
    assert stage.site.is_cleared(stage.ada)
    assert stage.site.is_cleared(stage.bob)
    assert stage.site.is_intact(stage.cleo)
    eventually(lambda: api.get("secrets", "bob") is None, "the Secret to be gone")
    entries = stage.site.sql("SELECT count(*), count(DISTINCT of_number) FROM lethe_journal_entries")[0]
    assert entries == (2, 2), "each erasure is in the journal once"
    return died


def run_until_death_or_end(stage: Stage, fatal: int) -> bool:
    """Run the fragile operator until it dies or all is erased, then a sound one."""
    fragile = stage.operator(fatal)
    try:
        until = time.monotonic() + 120
        while fragile.is_alive() and time.monotonic() < until:
            states = [(item.get("status") or {}).get("state") for item in stage.api.list("deletionrequests")]
            if states == ["Erased", "Erased"]:
                break
            time.sleep(0.05)
        died = not fragile.is_alive()
    finally:
        end(fragile)
    stage_operators.append(stage.operator(0))
    return died


stage_operators: list[BaseProcess] = []


@pytest.fixture(autouse=True)
def _no_operator_is_left() -> Iterator[None]:
    yield
    while stage_operators:
        end(stage_operators.pop())


@pytest.mark.slow
def test_a_kill_at_any_side_effect_of_an_erasure_converges(
    tmp_path: Path, control_plane: ControlPlane, postgres: PostgresServer, made: Path, api: Api
) -> None:
    expected: dict[str, Any] | None = None
    fatal = 0
    while True:
        stage = Stage(tmp_path, control_plane, postgres, made, api, fatal)
        died = play_erasure(stage, fatal)
        state = settled(api)
        expected = expected or state
        assert state == expected, f"killed at moment {fatal}: {stage.counts.read_text()}"
        while stage_operators:
            end(stage_operators.pop())
        stage.close()
        if fatal and not died:
            break
        fatal += 1
    assert fatal > 20, "the story has more side effects than that"
