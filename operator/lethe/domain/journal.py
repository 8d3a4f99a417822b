"""The journal in each SQL store: how its head moves, and what it tells when it has moved back.

Protocol, with the numbers that recur in the code:

1. the ledger durably notes the move that is about to happen (`pending`);
2. the store commits `UPDATE head … WHERE digest = expected` together with the erasure;
3. the ledger settles the move.

A crash between 2 and 3 is resolved by looking: the head *is* the pending move, or it is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

_T = TypeVar("_T")

MOST_NAMES = 20_000
"""How many tables and partitions, or sequences, are remembered of one store: each look may show others."""

GENESIS = "0" * 64
"""The digest that the first move of a head follows."""


class TooMuchToRemember(ValueError):
    """What a store shows is another thing each time; nothing of it can be compared with what was."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a journal stands: `move` counts moves (ticks too), `digest` commits to all before it.

    `positions` are the highest key of each mapped table and the last value of each sequence behind it,
    as `table:public.users` and `sequence:public.users_id_seq`. `at` is when the store took that move, by
    its own clock (`None`: not told).
    """

    move: int
    digest: str
    positions: Mapping[str, int] = field(default_factory=dict)
    at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class HeadMove:
    """One step of the head: only a store that stands at `expected` may take it.

    `expected` is `None` where the store has no head yet, or none any more.
    """

    expected: str | None
    move: int
    digest: str
    token: int


def next_move(expected: Head | None, *, after_move: int, token: int, nonce: bytes) -> HeadMove:
    """Return the move that follows `expected` (`None`: no head in the store), numbered above `after_move`.

    `nonce` is random, so that a rewound head which moves again never repeats a digest.
    """
    before = expected.digest if expected else GENESIS
    number = max(after_move, expected.move if expected else 0) + 1
    digest = hashlib.sha256(b"|".join((before.encode(), str(number).encode(), nonce))).hexdigest()
    return HeadMove(expected.digest if expected else None, number, digest, token)


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """What makes a store itself: its server (system identifier, timeline), its tables (oid, relfilenode).

    A dump that is older than the journal, or a single table, can be restored while the head stays as it
    is; then these change. `server` and `tables` map a name to a text; up to its colon that of a table says
    which one it is, and after it where its rows lie.
    """

    server: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KnownHead:
    """What the ledger knows of a store's journal.

    `head` is the last settled move (`None`: the store was never journaled), `pending` a move whose fate
    is not known, `positions` the highest that any head ever recorded, `last_number` the highest journal
    number ever allotted, `identity` the store as it was last accepted, `settled_at` when `head` was
    settled, by the ledger's clock (`None`: not known).
    """

    head: Head | None = None
    pending: HeadMove | None = None
    positions: Mapping[str, int] = field(default_factory=dict)
    last_number: int = 0
    identity: StoreIdentity | None = None
    settled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Filling:
    """Somebody who is filling a store right now: `what` they do or hold, in words that are fit to print.

    `since` is when they began (`None`: the server does not tell). `elsewhere` says that it is in no mapped
    table: then it matters only while a restore is open, whose turn at the mapped ones may yet come.
    """

    what: str
    since: datetime | None = None
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class JournalObservation:
    """What a look at a store shows: its head (`None`: no journal there), its identity, and who is filling it
    (`None`: nobody)."""

    head: Head | None
    identity: StoreIdentity
    filling: Filling | None = None


class HeadFinding(StrEnum):
    """What the comparison of a store's head with the ledger says."""

    NEVER_JOURNALED = "NeverJournaled"
    """Neither side knows a journal: the first one is to be made."""
    IN_STEP = "InStep"
    PENDING_COMMITTED = "PendingCommitted"
    """The move that was in doubt did commit."""
    PENDING_LOST = "PendingLost"
    """The move that was in doubt did not commit."""
    REWOUND = "Rewound"
    """The store went back in time, or its journal is gone."""
    IDENTITY_CHANGED = "IdentityChanged"
    """The head is in step, but the server or a table is another one."""
    LEDGER_BEHIND = "LedgerBehind"
    """The store has moves that the ledger does not know: the ledger itself went back in time."""


WENT_BACK = frozenset({HeadFinding.REWOUND, HeadFinding.IDENTITY_CHANGED})


def compare(known: KnownHead, observed: JournalObservation) -> HeadFinding:
    """Compare what the ledger knows of a journal with what the store shows."""
    if known.head is None and known.pending is None:
        return HeadFinding.NEVER_JOURNALED if observed.head is None else HeadFinding.LEDGER_BEHIND
    if observed.head is None:
        never_settled = known.head is None
        return HeadFinding.PENDING_LOST if never_settled else HeadFinding.REWOUND
    if known.pending is not None and observed.head.digest == known.pending.digest:
        return HeadFinding.PENDING_COMMITTED
    if known.head is not None and observed.head.digest == known.head.digest:
        if known.identity is not None and changed_identity(known.identity, observed.identity):
            return HeadFinding.IDENTITY_CHANGED
        return HeadFinding.IN_STEP if known.pending is None else HeadFinding.PENDING_LOST
    return HeadFinding.LEDGER_BEHIND if is_ahead(known, observed) else HeadFinding.REWOUND


def is_ahead(known: KnownHead, observed: JournalObservation) -> bool:
    """Tell whether the store has moves that the ledger does not know: the ledger itself went back in time."""
    highest_known = max(known.head.move if known.head else 0, known.pending.move if known.pending else 0)
    return observed.head is not None and observed.head.move > highest_known


def changed_identity(known: StoreIdentity, seen: StoreIdentity) -> bool:
    """Tell whether the server or a table that is known to both has become another one.

    A table that only one side knows (a mapping that was widened) is no change.
    """
    return _differ(known.server, seen.server) or changed_tables(known, seen)


def changed_tables(known: StoreIdentity, seen: StoreIdentity) -> bool:
    """Tell whether a table that is known to both was made or filled anew."""
    return _differ(known.tables, seen.tables)


def _differ(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    return any(name in after and after[name] != text for name, text in before.items())


def is_same_table(known: StoreIdentity | None, seen: StoreIdentity, table: str) -> bool:
    """Tell whether a table (`schema.table`) is the one that was known, wherever its rows lie by now.

    What it lacks then was taken from it: a restore that has not ended would have made it anew.
    """
    if known is None or changed_identity(replace(known, tables={}), seen):
        return False
    before, after = known.tables.get(table, ""), seen.tables.get(table)
    return after is not None and before.partition(":")[0] == after.partition(":")[0]


def remembered_identity(known: StoreIdentity | None, seen: StoreIdentity) -> StoreIdentity:
    """Return the identity to compare with from now on: what is seen, and what was known of anything else.

    A table, or a partition, that is dropped and comes back under its name is another one, also where a look
    fell between the two.
    """
    if known is None:
        return seen
    return StoreIdentity(_bounded({**known.server, **seen.server}), _bounded({**known.tables, **seen.tables}))


def merged_positions(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Return the highest position of each name: what was given out once is never given out again."""
    return _bounded({name: max(one.get(name, 0), other.get(name, 0)) for name in {*one, *other}})


def _bounded(remembered: dict[str, _T]) -> dict[str, _T]:
    if len(remembered) > MOST_NAMES:
        raise TooMuchToRemember(f"a store has shown more than {MOST_NAMES} tables, partitions or sequences")
    return remembered
