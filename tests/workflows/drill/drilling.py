"""A drill by hand: a company with its store on one server, dumps in a folder, and a scratch server."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from devtools.servers.postgres import PostgresServer
from lethe.adapters.drills.command import Commands
from lethe.adapters.stores.sql.scratch import SqlScratchServer
from lethe.adapters.stores.sql.store import SqlStore
from lethe.domain.drill_facts import DrillEnded
from lethe.domain.drills import DrillRecord
from lethe.ports.drills import Restorer
from lethe.workflows.drill.conduct import DrillPlan, Halt, conduct
from lethe.workflows.store_session import StoreSession
from tests.invariants.company import NAMESPACE, STORE, Company

PG_RESTORE = 'exec {programs}/pg_restore --no-owner --exit-on-error --dbname="$LETHE_SCRATCH_URL" {file}'
FILE = '"$LETHE_SNAPSHOT_PLACE/$LETHE_SNAPSHOT"'
DRILL = f"{NAMESPACE}/sunday"

STEPS = (
    *("place", "marked", "create", "restore", "size", "missing", "is_empty"),
    *("prove", "observe", "erase", "check", "tick", "drop"),
)
"""What a drill asks of the scratch server, of what restores, and of the copy; as each first comes."""


class Told:
    """Something that asks a server, of whose calls somebody is told right before each."""

    def __init__(self, inner: Any, tell: Callable[[str], None]) -> None:
        self._inner, self._tell = inner, tell

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "anew":
            return lambda: Told(found(), self._tell)
        if name in STEPS:
            self._tell(name)
        return found


class Drills:
    """The drills of a company."""

    def __init__(self, company: Company, scratch: PostgresServer, home: Path) -> None:
        self.company, self.server = company, scratch
        self.dumps, self.folder = home / "dumps", home / "commands"
        for folder in (self.dumps, self.folder):
            folder.mkdir()
        self.count, self.snapshot = 0, ""
        self.begin_anew()

    def begin_anew(self) -> None:
        """Let drills go on as usual."""
        self.command("restore", PG_RESTORE.format(programs=self.server.programs, file=FILE))
        self.url, self.same_server = self.server.url(), False
        self.watch: Callable[[Any], Any] = lambda port: port

    def command(self, name: str, line: str) -> None:
        """Lay a command down."""
        file = self.folder / name
        file.write_text(f"#!/bin/sh\n{line}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def dump(self) -> str:
        """Take a snapshot of the store."""
        self.count += 1
        name = f"site-{self.count}.dump"
        self.company.server.dump(self.company.database, self.dumps / name)
        return name

    @property
    def record(self) -> DrillRecord:
        """Return what the ledger knows of the drill."""
        return self.company.real_ledger.drills()[DRILL]

    def left(self) -> set[str]:
        """Return the scratch databases that are there."""
        rows = self.server.psql("SELECT datname FROM pg_database WHERE datname LIKE 'lethe\\_drill\\_%'")
        return set(rows.split())

    def plan(self, snapshot: str) -> DrillPlan:
        """Return the plan of the next drill."""
        self.count += 1
        proof = self.company.store.proof
        assert proof is not None
        return DrillPlan(
            DRILL,
            STORE,
            f"{NAMESPACE}/nightly",
            snapshot,
            self.company.now,
            str(self.dumps),
            snapshot,
            f"lethe_drill_{self.count:010x}",
            "users",
            ("users", "sessions", "comments"),
            {STORE: proof.server},
            same_server=self.same_server,
        )

    def scratch(self) -> SqlScratchServer:
        """Return the scratch server as a drill sees it."""
        return SqlScratchServer(self.url)

    def session(self, url: str) -> StoreSession:
        """Return the store's session with the port to a copy."""
        company = self.company
        port = SqlStore(
            url,
            company.mapping,
            ledger_id=company.real_ledger.ledger_id,
            store=STORE,
            keyring=company.keyring,
            primary=True,
        )
        known = company.store
        return StoreSession(known.description, self.watch(port), known.fingerprints)

    def run(
        self,
        snapshot: str,
        command: str = "restore",
        *,
        seconds: float = 60,
        wrap: Callable[[SqlScratchServer], Any] = lambda scratch: scratch,
        restorer: Restorer | None = None,
        halt: Halt | None = None,
        ledger: Any = None,
    ) -> DrillEnded:
        """Conduct a drill."""
        self.company.now = self.company.now.replace(microsecond=0) + timedelta(seconds=1)
        return conduct(
            self.plan(snapshot),
            replace(self.company.context, ledger=ledger or self.company.ledger),
            wrap(self.scratch()),
            restorer or partial(Commands(self.folder).restore, command),
            self.session,
            halt or Halt(time.monotonic() + seconds),
        )
