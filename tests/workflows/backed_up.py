"""A company's backups in one process: a real ledger file, real directories of dumps, and a clock to set.

`true` is what time it is. `wall` is what this host says and `server` what the API server says; both follow
`true` until a test sets them apart. What the engine does around a scan is done here in the same words.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lethe.adapters.backups.directory import DirectoryBackend
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import SqlLedger, open_ledger
from lethe.domain.clocks import Clocks
from lethe.domain.facts import Accepted, Completed, Fact, Intended, Outcome, Verified
from lethe.domain.legal_facts import (
    HoldEnded,
    HoldPlaced,
    LegalKind,
    LegalRegistered,
    NonDisclosureOrdered,
)
from lethe.domain.snapshots import SnapshotRecord
from lethe.domain.tombstones import Tombstone
from lethe.workflows.backup import last_copy
from lethe.workflows.backup.last_copy import Coverage
from lethe.workflows.backup.scan import Declared, KnownSource, Scan, SourceDescription, load, scan
from tests.invariants.company import Fuse, PowerCut, Wired

MINUTE, HOUR, DAY, YEAR = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(days=365)
NIGHT = datetime(2026, 8, 31, 3, tzinfo=UTC)
"""When the first dump is taken; it dies on the last day of February, `EXPIRY`."""
EXPIRY = datetime(2027, 2, 28, 3, tzinfo=UTC)
PATTERN = "site-{takenAt:%Y%m%dT%H%M%SZ}.dump"
SITE, CRM = "shop/site", "shop/crm"
EFFECTS = ["list", "delete", "gone"]


class Source:
    """A BackupSource over a real directory, as the engine looks after it."""

    def __init__(self, world: Backups, name: str, stores: Sequence[str]) -> None:
        self.world = world
        self.path = world.home / name
        self.path.mkdir(exist_ok=True)
        # All clocks of these tests are one, unless a test says otherwise.
        self.description = SourceDescription("shop", name, tuple(stores), "P6M", hold_last=False, skew=0.0)
        self.applied = True
        self.look_in(self.path)

    def connect(self) -> None:
        """Begin anew, as after a restart, or when the manifest was edited."""
        self.backend = DirectoryBackend(str(self.path), PATTERN, [self.world.home])
        wired: Any = Wired(self.backend, self.world.fuse, EFFECTS)
        self.known = KnownSource(self.description, wired)

    def look_in(self, path: Path) -> None:
        """Edit the manifest: look in this directory from now on."""
        self.path = path
        path.mkdir(exist_ok=True)
        self.say(place=f"directory {path}", names=PATTERN)

    def say(self, **more: Any) -> None:
        """Edit the manifest."""
        self.description = replace(self.description, **more)
        self.connect()

    def dump(self, taken_at: datetime, content: str = "rows", *, mtime: datetime | None = None) -> Path:
        """Lay a dump down that was taken then and written in no time."""
        path = self.path / f"site-{taken_at:%Y%m%dT%H%M%SZ}.dump"
        path.write_text(content)
        touch(path, mtime or taken_at)
        return path

    def scan(self, *, declared: Sequence[Declared] = ()) -> Scan:
        """Scan once, now."""
        return scan(
            self.known,
            self.world.ledger,
            now=lambda: self.world.wall,
            clocks=self.world.clocks,
            declared=declared,
            watched={one.description.known_as for one in self.world.sources if one.applied},
        )

    def record(self, path: Path) -> SnapshotRecord:
        """Return what the ledger knows of a dump, and see that the source knows the same."""
        known = {one.ref: one for one in self.world.real_ledger.snapshots(self.known.name)}
        assert known == self.known.snapshots
        return known[path.name]

    @property
    def names(self) -> list[str]:
        """Return the names that lie in the directory, but for what a drill that died has left of its own."""
        return sorted(one.name for one in self.path.iterdir() if one.name != ".lethe-rewrite")


class Backups:
    """One ledger and its sources."""

    def __init__(self, home: Path) -> None:
        home.mkdir(exist_ok=True)
        (home / "keys").mkdir()
        self.home = home
        self.true = NIGHT
        self.wrong, self.server_wrong = timedelta(0), timedelta(0)
        self.server_tells = True
        self.fuse = Fuse()
        self.sources: list[Source] = []
        self.keyring = FileKeyring(home / "keys")
        self._open()

    def _open(self) -> None:
        self.real_ledger: SqlLedger = open_ledger(
            f"sqlite:///{self.home / 'ledger.db'}", self.keyring, now=lambda: self.true
        )
        self.real_ledger.take_over()
        self.ledger: Any = Wired(self.real_ledger, self.fuse, ["append"])
        self.agreed = self.wall, self.true

    def source(self, name: str = "nightly", stores: Sequence[str] = (SITE,), **more: Any) -> Source:
        """Apply a BackupSource."""
        made = Source(self, name, stores)
        self.sources.append(made)
        if more:
            made.say(**more)
        return made

    def restart(self) -> None:
        """Lose everything in memory and begin a new process."""
        self.fuse.at = None
        self.real_ledger.close()
        self._open()
        for source in self.sources:
            source.connect()

    def cut_at(self, moment: int, source: Source) -> bool:
        """Scan a source and die at a moment of it, counted from 1; tell whether it came so far."""
        self.fuse.at, self.fuse.passed, self.fuse.names = moment, 0, []
        try:
            source.scan()
        except PowerCut:
            self.restart()
            return True
        self.fuse.at = None
        return False

    def close(self) -> None:
        """End."""
        self.real_ledger.close()

    # clocks

    @property
    def wall(self) -> datetime:
        """Return what this host's clock says."""
        return self.true + self.wrong

    def clocks(self, backend_date: datetime | None) -> str | None:
        """Compare the clocks as the engine does; nobody can set the steady one, which follows `true`."""
        others = {"the API server": self.true + self.server_wrong} if self.server_tells else {}
        if backend_date is not None:
            others["the backend"] = backend_date
        agreed_at, steady = self.agreed
        disagreement = Clocks(self.wall, others, agreed_at + (self.true - steady)).disagreement()
        if disagreement is None:
            self.agreed = self.wall, self.true
        return disagreement

    # persons

    def erase(self, person: str, *numbers: int, stores: Sequence[str] = (SITE,)) -> None:
        """Let a request for somebody be accepted, carried out and verified now."""
        facts: list[Fact] = [
            Accepted(
                request=person,
                namespace="shop",
                name=f"forget-{person}",
                spec_digest="sha256:ab",
                accepted_at=self.wall,
                requested_at=self.wall,
                due_at=self.wall + 30 * DAY,
                stores=tuple(stores),
            )
        ]
        for store in stores:
            stones = tuple(
                Tombstone(number, person, "users", f"key-{number}", "m1", None, number.to_bytes(32, "big"))
                for number in numbers
            )
            facts += [Intended(person, store, stones), Verified(person, store, self.wall)]
        self.ledger.append([*facts, Completed(person, self.wall, Outcome.ERASED)])

    def hold(self, *stores: str, name: str = "le-1", secretly: bool = False, namespace: str = "shop") -> None:
        """Let counsel preserve somebody's data in these stores (none named: in all of the namespace)."""
        registered = LegalRegistered(
            legal=name,
            namespace=namespace,
            name=name,
            spec_digest="ab",
            at=self.wall,
            kind=LegalKind.PRESERVATION,
            authority="County Sheriff's Office",
            level="Local",
            country="US",
            received_at=self.wall,
            subject_id="7",
        )
        order = [NonDisclosureOrdered(name, self.wall, "18 U.S.C. 2705(b)")] if secretly else []
        self.ledger.append([registered, *order, HoldPlaced(name, self.wall, tuple(stores))])

    def let_go(self, name: str = "le-1") -> None:
        """End a hold."""
        self.ledger.append([HoldEnded(name, self.wall, "lifted")])

    def coverage(self) -> dict[str, Coverage]:
        """Return how each store's backups are known now, as the engine says it."""
        found = {}
        for store in (SITE, CRM):
            of_store = [one for one in self.sources if one.applied and store in one.description.stores]
            scans = [one.known.proven_until for one in of_store]
            proven = [one for one in scans if one is not None]
            found[store] = Coverage(
                covered=bool(of_store),
                scanned_at=min(proven) if proven and len(proven) == len(scans) else None,
            )
        return found

    def grade(self) -> frozenset[str]:
        """Grade everybody."""
        return last_copy.grade(self.ledger, self.coverage(), now=self.wall)

    def purged(self, *persons: str) -> bool:
        """Tell whether all these are shown as purged, or have nothing left that would hinder it."""
        left = self.ledger.copies_left(persons)
        records = self.ledger.requests_by_id(persons)
        return all(
            records[one].purged_at is not None or (one in left and left[one].none_left) for one in persons
        )

    def gone_at(self, person: str) -> datetime | None:
        """Return when the last known copy of somebody dies."""
        left = self.ledger.copies_left([person]).get(person)
        return left.gone_at if left else None

    def known_again(self, source: Source) -> dict[str, SnapshotRecord]:
        """Return what a new process would know of a source."""
        fresh = KnownSource(source.description, source.backend)
        load(fresh, self.real_ledger)
        return fresh.snapshots


def touch(path: Path, at: datetime) -> None:
    """Set a file's modification time."""
    seconds = int(at.timestamp())
    os.utime(path, (seconds, seconds))
