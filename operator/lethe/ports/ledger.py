"""The port to the ledger: append-only facts, each chained to the one before, and what follows from them.

All methods block; the adapter serialises writers. A call of `append` is one durable transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from lethe.domain.drills import DrillRecord
from lethe.domain.facts import Fact
from lethe.domain.journal import Head, HeadMove, KnownHead, StoreIdentity, merged_positions
from lethe.domain.legal import LegalRecord
from lethe.domain.mapping import ProvedMapping
from lethe.domain.requests import RequestRecord
from lethe.domain.restores import RestoreEpisode
from lethe.domain.snapshots import CopiesLeft, CopyStep, SnapshotRecord, SourceRecord
from lethe.domain.tombstones import Tombstone


class LedgerError(Exception):
    """The ledger can't be used as asked; the message says what to do and holds nothing personal."""


class LedgerUnavailable(LedgerError):
    """The ledger's database is away or refuses to write. Nothing is erased until it is back."""


class Fenced(LedgerError):
    """Another operator process has taken over; this one must end."""


class KeysDoNotMatch(LedgerError):
    """The ledger was written with other keys than the ones that are mounted."""


class ChainBroken(LedgerError):
    """An entry does not follow from the one before, or its payload was changed."""


@dataclass(frozen=True, slots=True)
class MoveIntended:
    """Step 1 of a head's move: durably noted before the store is asked. `reserve` journal numbers are
    allotted with it (they begin at the known head's `last_number` + 1)."""

    store: str
    move: HeadMove
    reserve: int = 0


@dataclass(frozen=True, slots=True)
class MoveSettled:
    """Step 3: the store stands at `head`. Positions only ever grow. `identity` `None` leaves it as it is."""

    store: str
    head: Head
    identity: StoreIdentity | None = None


@dataclass(frozen=True, slots=True)
class MoveLost:
    """The pending move did not commit."""

    store: str


MoveNote = MoveIntended | MoveSettled | MoveLost


def moved(known: KnownHead, note: MoveNote, now: datetime) -> KnownHead:
    """Return what is known of a journal after a note; what is settled is settled `now`."""
    if isinstance(note, MoveIntended):
        return replace(known, pending=note.move, last_number=known.last_number + note.reserve)
    if isinstance(note, MoveSettled):
        return replace(
            known,
            head=note.head,
            pending=None,
            positions=merged_positions(known.positions, note.head.positions),
            identity=note.identity or known.identity,
            settled_at=now,
        )
    return replace(known, pending=None)


@dataclass(frozen=True, slots=True)
class LedgerPosition:
    """The last entry: its sequence (0: none) and digest (hex SHA-256)."""

    sequence: int
    digest: str


class Ledger(Protocol):
    """The operator's own record of what was asked, done and seen."""

    @property
    def ledger_id(self) -> str:
        """Return the random id under which this ledger keeps its journals in stores."""
        ...

    @property
    def server(self) -> str | None:
        """Return the identity of the database server that holds the ledger; `None` for a file."""
        ...

    def take_over(self) -> int:
        """Become the one that writes, and return the fencing token; every earlier holder is `Fenced`."""
        ...

    def append(
        self,
        facts: Sequence[Fact] = (),
        *,
        seal: Mapping[str, bytes] | None = None,
        moves: Sequence[MoveNote] = (),
    ) -> None:
        """Record facts, sealed texts and head moves, all or nothing.

        Texts are sealed by request, or by legal request, and replace an earlier one. A `Completed` fact
        destroys what was sealed for its request, a `LetterSettled` to the user what was sealed for its legal
        request, unless a further letter is due. A `Verified` fact makes the
        request's tombstones count. A `TombstonesExpired` fact destroys the key of its month, and of its
        requests all but what tells that they were made and ended.

        Raises `Fenced`, `LedgerUnavailable`, `IllegalTransition` (domain).
        """
        ...

    def confirm(self) -> None:
        """See that nobody has taken over: to be asked before what can't be undone and no `append` precedes.

        Raises `Fenced`, `LedgerUnavailable`.
        """
        ...

    def position(self) -> LedgerPosition:
        """Return where the chain ends."""
        ...

    def requests_named(self, names: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], RequestRecord]:
        """Return the requests of these (namespace, name), as far as they are known."""
        ...

    def open_requests(self) -> Sequence[RequestRecord]:
        """Return every request that has not ended, oldest first."""
        ...

    def sealed(self, requests: Collection[str]) -> Mapping[str, bytes]:
        """Return what is sealed for these requests, or legal requests; absent where it was destroyed."""
        ...

    def erased_before(self, digests: Collection[bytes]) -> frozenset[bytes]:
        """Return which of these keyed digests (tombstones' `email`, or `record_digest`) were erased
        and verified.
        """
        ...

    def absent_addresses(self, store: str) -> Mapping[bytes, str]:
        """Return the fingerprints of addresses by which a store was searched and held nobody, with the
        request. They are kept as long as tombstones are.
        """
        ...

    def rejoined(self, store: str) -> Mapping[int, tuple[datetime, datetime]]:
        """Return of tombstones, by number, since when she has consented anew, and when that was recorded.
        It is kept as long as they are.
        """
        ...

    def known_head(self, store: str) -> KnownHead:
        """Return what is known of a store's journal; an empty `KnownHead` for a store never met."""
        ...

    def mappings(self, store: str) -> Mapping[str, ProvedMapping]:
        """Return every mapping version that was proved for a store."""
        ...

    def tombstones(self, store: str, *, chunk: int = 50_000) -> Iterator[Sequence[Tombstone]]:
        """Yield every verified tombstone of a store by ascending number, in chunks."""
        ...

    def tombstone_numbers(self, store: str) -> Iterator[Sequence[int]]:
        """Yield the numbers of what `tombstones` yields, in chunks and at a small part of its cost."""
        ...

    def erased_stores(self) -> frozenset[str]:
        """Return the stores that have verified tombstones."""
        ...

    def tombstone_count(self, store: str) -> int:
        """Return how many verified tombstones a store has."""
        ...

    def sample_tombstones(self, store: str, *, newest: int, random: int) -> Sequence[Tombstone]:
        """Return the newest verified tombstones and a random choice of the others."""
        ...

    def episodes(self, *, store: str | None = None, open_only: bool = False) -> Sequence[RestoreEpisode]:
        """Return the restores, oldest first."""
        ...

    # Legal requests

    def legal_requests(
        self, *, namespace: str | None = None, open_only: bool = False
    ) -> Sequence[LegalRecord]:
        """Return legal requests (`None`: of all namespaces), oldest first."""
        ...

    def legal_named(self, names: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], LegalRecord]:
        """Return the legal requests of these (namespace, name), as far as they are known."""
        ...

    def who_erased(self, digests: Collection[bytes]) -> Mapping[bytes, str]:
        """Return the last request that erased and verified each of these keyed digests."""
        ...

    # Backups

    def sources(self) -> Mapping[str, SourceRecord]:
        """Return every BackupSource that was ever described, also deleted ones, by `known_as` (domain)."""
        ...

    def snapshots(self, source: str | None = None) -> Sequence[SnapshotRecord]:
        """Return the snapshots of a source (`None`: of all) that are known, purged ones included."""
        ...

    def drills(self) -> Mapping[str, DrillRecord]:
        """Return what every RestoreDrill that ever began has come to, by `namespace/name`."""
        ...

    def forget_purged(self, before: datetime) -> int:
        """Drop from memory what was purged before an instant (its facts stay); return how many."""
        ...

    def cleared_stores(self) -> frozenset[str]:
        """Return the stores in which somebody was erased whose copies in backups are not proven gone."""
        ...

    def grade(self, store: str, steps: Sequence[CopyStep]) -> frozenset[str]:
        """Note what the backups of a store still hold of everybody who was erased in it.

        `steps` are sorted by `since`; the first begins before everybody. Returns the requests of which
        something else is known now than before (their `gone_at` or whether it is proven).
        """
        ...

    def outlived(self, at: datetime) -> frozenset[str]:
        """Return the erased requests of which, as graded last, a copy was to be gone by an instant.

        Reads every clearing: to be asked where a snapshot is overdue only.
        """
        ...

    def cleared_between(self, store: str, since: datetime, until: datetime) -> frozenset[str]:
        """Return the requests that erased somebody in a store from one instant on and before another, and
        whose copies in backups are not proven gone.
        """
        ...

    def cleared_without(
        self, store: str, numbers: Sequence[int], since: datetime, until: datetime
    ) -> Mapping[str, datetime]:
        """Return the requests that cleared somebody in a store from one instant on and before another by none
        of the tombstones of these numbers, with when; those that are purged, or have not ended, are left out.
        """
        ...

    def last_cleared(self, store: str) -> datetime | None:
        """Return when somebody was cleared in a store last whom backups may hold; `None`: nobody was."""
        ...

    def copies_left(self, requests: Collection[str]) -> Mapping[str, CopiesLeft]:
        """Return what backups hold of erased requests, as graded last; absent for one that is purged or
        was never erased."""
        ...

    def purgeable(self, limit: int = 5_000) -> Sequence[str]:
        """Return erased requests, none of whose stores' backups holds them any more, as graded last."""
        ...

    def requests_by_id(self, requests: Collection[str]) -> Mapping[str, RequestRecord]:
        """Return requests by the ledger's own id, as far as they are known."""
        ...

    def expired_periods(self, before: datetime) -> Mapping[str, Sequence[str]]:
        """Return the months all of whose requests were purged before an instant, or never erased anybody
        and ended before it, with these requests. The month of `now` is never among them, nor is any since
        the oldest legal request was registered that is open.
        """
        ...

    def forgotten_until(self, namespace: str) -> datetime | None:
        """Return when the last of those was erased of whom nothing is known any more; `None`: nobody is.

        Their tombstones ended with the last backup that could hold them (`TombstonesExpired`).
        """
        ...

    def verify(self) -> LedgerPosition:
        """Walk the whole chain and every payload that still exists. Raises `ChainBroken`."""
        ...

    def close(self) -> None:
        """Checkpoint and close the database."""
        ...
