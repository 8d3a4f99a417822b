"""A DeletionRequest as the ledger knows it, and how facts change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import assert_never

from lethe.domain.facts import (
    Accepted,
    Completed,
    Confirmed,
    FoundAgain,
    Intended,
    IntentAbandoned,
    NotAsked,
    NotFound,
    Outcome,
    Planned,
    RequestFact,
    Verified,
)
from lethe.domain.tombstones import Tombstone

UNCONFIRMED = "unconfirmed"
"""The proof of a `ThirdParty` where an erasure had begun of which nobody saw whether it was carried out."""


class StoreState(StrEnum):
    """Where a request stands in one store, by what the ledger has recorded."""

    PENDING = "Pending"
    INTENDED = "Intended"
    VERIFIED = "Verified"
    NOT_FOUND = "NotFound"
    THIRD_PARTY = "ThirdParty"
    PLANNED = "Planned"

    @property
    def settled(self) -> bool:
        """Tell whether nothing more is to be done in this store for this request."""
        return self not in (StoreState.PENDING, StoreState.INTENDED)


@dataclass(frozen=True, slots=True)
class StoreProgress:
    """One request in one store. `counts` are rows by table, `tombstones` and `addresses` the intent that is
    under way."""

    state: StoreState = StoreState.PENDING
    counts: Mapping[str, int] = field(default_factory=dict)
    at: datetime | None = None
    proof: str | None = None
    tombstones: tuple[Tombstone, ...] = ()
    addresses: tuple[bytes, ...] = ()


class IllegalTransition(Exception):
    """A fact that can't follow what is recorded. Nothing was changed; this is a defect of Lethe."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What the ledger's facts say of one request. Rebuilt from them at any time (`evolve`).

    `purged_at` is when it was recorded that no backup holds the person any more. `shredded` says that its
    tombstones have ended: nothing tells any more who it was, only that it was asked and done.
    """

    accepted: Accepted
    sequence: int = 0
    digest: str = ""
    stores: Mapping[str, StoreProgress] = field(default_factory=dict)
    confirmed: frozenset[str] = frozenset()
    completed_at: datetime | None = None
    outcome: Outcome | None = None
    purged_at: datetime | None = None
    shredded: bool = False

    @property
    def request(self) -> str:
        """Return the ledger's own id of this request."""
        return self.accepted.request

    @property
    def open(self) -> bool:
        """Tell whether the request still has something to do."""
        return self.completed_at is None

    def progress(self, store: str) -> StoreProgress:
        """Return where this request stands in a store; `Pending` for one that it has not met yet."""
        return self.stores.get(store, StoreProgress())


_MAY_FOLLOW: Mapping[type[RequestFact], frozenset[StoreState]] = {
    Intended: frozenset({StoreState.PENDING, StoreState.INTENDED}),
    IntentAbandoned: frozenset({StoreState.INTENDED}),
    Verified: frozenset({StoreState.INTENDED, StoreState.VERIFIED}),
    NotFound: frozenset({StoreState.PENDING, StoreState.NOT_FOUND}),
    FoundAgain: frozenset({StoreState.NOT_FOUND}),
    NotAsked: frozenset({StoreState.PENDING, StoreState.INTENDED, StoreState.THIRD_PARTY}),
    Planned: frozenset({StoreState.PENDING, StoreState.PLANNED}),
}
"""The transition table: from which states of a store each fact may follow."""


def evolve(record: RequestRecord | None, fact: RequestFact) -> RequestRecord:
    """Return what a request becomes by one more fact.

    Raises `IllegalTransition` for a fact that can't follow, and leaves everything as it was.
    """
    if isinstance(fact, Accepted):
        if record is not None:
            raise IllegalTransition(f"request {fact.request} was accepted already")
        return RequestRecord(fact, stores={store: StoreProgress() for store in fact.stores})
    if record is None:
        raise IllegalTransition(f"{type(fact).__name__} for request {fact.request}, which was never accepted")
    if isinstance(fact, Confirmed):
        return replace(record, confirmed=record.confirmed | set(fact.answers))
    if isinstance(fact, FoundAgain) and not record.open:
        return record
    if not record.open:
        raise IllegalTransition(f"{type(fact).__name__} for request {fact.request}, which has ended")
    if isinstance(fact, Completed):
        stores = {
            name: replace(progress, tombstones=(), addresses=()) for name, progress in record.stores.items()
        }
        return replace(record, completed_at=fact.at, outcome=fact.outcome, stores=stores)
    before = record.progress(fact.store)
    if before.state not in _MAY_FOLLOW[type(fact)]:
        raise IllegalTransition(f"{type(fact).__name__} can't follow {before.state} (request {fact.request})")
    return replace(record, stores={**record.stores, fact.store: _progressed(before, fact)})


def _progressed(
    before: StoreProgress,
    fact: Intended | IntentAbandoned | Verified | NotFound | FoundAgain | NotAsked | Planned,
) -> StoreProgress:
    match fact:
        case Intended(tombstones=tombstones, addresses=addresses):
            return StoreProgress(StoreState.INTENDED, tombstones=tombstones, addresses=addresses)
        case IntentAbandoned() | FoundAgain():
            return StoreProgress(StoreState.PENDING)
        case Verified(counts=counts, at=at):
            return replace(before, state=StoreState.VERIFIED, counts=counts, at=at)
        case NotFound(at=at, proof=proof):
            return StoreProgress(StoreState.NOT_FOUND, at=at, proof=proof)
        case NotAsked():
            began = before.state is StoreState.INTENDED
            return StoreProgress(StoreState.THIRD_PARTY, proof=UNCONFIRMED if began else before.proof)
        case Planned(counts=counts):
            return StoreProgress(StoreState.PLANNED, counts=counts)
        case _:
            assert_never(fact)


def erased_again(record: RequestRecord, store: str, at: datetime) -> RequestRecord:
    """Return what an open request becomes whose person was written back into a store and erased again.

    The clearing that counts is the last one: what was copied before it may hold the person.
    """
    progress = record.progress(store)
    if progress.state is not StoreState.VERIFIED or (progress.at is not None and progress.at >= at):
        return record
    return replace(record, stores={**record.stores, store: replace(progress, at=at)})


def shred(record: RequestRecord) -> RequestRecord:
    """Return what is left of an ended request when its tombstones end: that it was made, and what came of it.

    Name and digest of its spec stay, so that the same manifest is recognised when it is applied again.
    """
    accepted = replace(record.accepted, subject_id=None, identifier_digest=None, reference=None)
    stores = {
        name: replace(progress, tombstones=(), addresses=()) for name, progress in record.stores.items()
    }
    return replace(record, accepted=accepted, stores=stores, shredded=True)
