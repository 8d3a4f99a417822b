"""The facts that the ledger records, one dataclass each. None of them holds anything personal.

A fact is what happened, said once; requests, tombstones and restores are what follows from the facts
(`requests.py`, `restores.py`). Facts are stored for years: fields may be added with a default, never renamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import get_args

from lethe.domain.drill_facts import DrillFact
from lethe.domain.legal_facts import LegalFact
from lethe.domain.mapping import ProvedMapping
from lethe.domain.tombstones import Tombstone


class Outcome(StrEnum):
    """How a request ended."""

    ERASED = "Erased"
    PLANNED = "Planned"


class DetectedBy(StrEnum):
    """What told that a store went back in time."""

    JOURNAL = "Journal"
    TABLE_IDENTITY = "TableIdentity"
    PROBE = "Probe"
    SWEEP = "Sweep"
    DECLARATION = "Declaration"


@dataclass(frozen=True, slots=True)
class TookOver:
    """An operator process became the one that acts; `token` fences out every earlier one."""

    token: int


@dataclass(frozen=True, slots=True)
class MappingProved:
    """A store's live schema accepted this mapping."""

    store: str
    proved: ProvedMapping


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request was taken on: from here on the erasure will happen.

    `spec_digest` and `identifier_digest` are keyed digests by which the same manifest is recognised
    when it is applied again. `subject_id` is the opaque key, `None` where the person is named by a
    Secret. `stores` are the DataStores of the namespace at that moment.
    """

    request: str
    namespace: str
    name: str
    spec_digest: str
    accepted_at: datetime
    requested_at: datetime
    due_at: datetime
    subject_id: str | None = None
    identifier_digest: str | None = None
    reference: str | None = None
    dry_run: bool = False
    stores: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A person answered a question of the status in `spec.confirmed`."""

    request: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Intended:
    """What is about to be erased in one store; the first thing that a crash must not lose.

    `addresses` are keyed fingerprints of what else she was looked for by, and that showed nothing: an older
    backup may hold an account of hers that is no more.
    """

    request: str
    store: str
    tombstones: tuple[Tombstone, ...]
    addresses: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class IntentAbandoned:
    """An intent that the store did not carry out: refused, or the record turned out not to be the
    person's.
    """

    request: str
    store: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verified:
    """The erasure in one store was read back in a new transaction. `counts` are rows by table."""

    request: str
    store: str
    at: datetime
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotFound:
    """A store proved that it holds nothing of the person; `proof` says how (`canary`, `row-security`, …).

    `addresses` are keyed fingerprints of what she was looked for by: an older backup may still hold her.
    """

    request: str
    store: str
    at: datetime
    proof: str
    addresses: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundAgain:
    """A restore brought back whom a store had not held when it was asked, as the address tells.

    The `tombstones` count from now on; one without fingerprints waits until a person says whose the row is.
    A request that has not ended is looked for anew instead, and has none.
    """

    request: str
    store: str
    at: datetime
    tombstones: tuple[Tombstone, ...]


@dataclass(frozen=True, slots=True)
class NotAsked:
    """A store of a third party, to which no identifier is ever sent (promise P4)."""

    request: str
    store: str


@dataclass(frozen=True, slots=True)
class Planned:
    """A dry run: what would be erased in one store."""

    request: str
    store: str
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Completed:
    """The request ended; what was sealed for it is destroyed with this entry."""

    request: str
    at: datetime
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class RestoreDetected:
    """A store went back in time; the gate of the store closes.

    `positions` are the highest keys that the rewound head recorded: keys above them may be given out
    again, and may mean somebody else by now. Not `whole`: the tables may have gone back further than the
    head, and then every key may. `missing_since` is when the store was last seen in step: no erasure before
    it can be missing for longer. `back_to` is the moment that the rewound head tells.
    """

    store: str
    episode: str
    at: datetime
    detected_by: DetectedBy
    positions: Mapping[str, int] = field(default_factory=dict)
    missing: int = 0
    missing_since: datetime | None = None
    back_to: datetime | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Reerased:
    """Persons that a restore or a write-back had brought back, erased again: their tombstones' numbers.

    Each one gets a new journal number, `first_number` onwards, in the order of `numbers`.
    """

    store: str
    episode: str | None
    at: datetime
    first_number: int
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rejoined:
    """A person said that whoever was erased in this row has consented anew, at `since`; `because` is theirs.

    The tombstones' `numbers` are of requests from before that. They say no more of the row as it stands `at`
    the moment that this was recorded, and still all of what an older copy brings back.
    """

    store: str
    table: str
    key: str
    since: datetime
    at: datetime
    because: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replay ended a pass over everything, with these findings.

    `rows` are the rows, by table, that were cleared or deleted again in it.
    `same_address` of those `left_alone` have the address of the person who was erased under their key.
    `never_found` counts the addresses by which the store held nobody when it was asked, and that can't be
    looked for again in this kind of store.
    """

    store: str
    episode: str
    at: datetime
    re_erased: int
    left_alone: int
    unclear: int
    unclear_keys: tuple[tuple[str, str], ...] = ()
    same_address: int = 0
    never_found: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IdentitiesDecided:
    """A person said whose rows are: `(table, key, Erase | LeaveAlone)`; table and key `*` for all."""

    store: str
    episode: str
    decisions: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Released:
    """A person broke the glass: the store is served although the restore had not been dealt with.

    `by` is the RestoreEvent in which they said why (`because`) and named its `uid`; `who` is how the API
    server knows them, empty where no policy had it filled in. `left` counts the erased persons who stand in
    it all the same, or may (`None`: not known, or not to be said), and `in_place_at` is when it was first
    seen to hold none. It is recorded again when that number changes.
    """

    store: str
    episode: str
    at: datetime
    because: str
    by: str = ""
    left: int | None = None
    in_place_at: datetime | None = None
    uid: str = ""
    who: str = ""


@dataclass(frozen=True, slots=True)
class SafeToServe:
    """Journal equals ledger, read after the verification: the gate opens.

    Where a person had to let it, `by` is the RestoreEvent in which they said so, with `because` and `who`.
    """

    store: str
    episode: str
    at: datetime
    by: str = ""
    because: str = ""
    who: str = ""


@dataclass(frozen=True, slots=True)
class Superseded:
    """The store went back once more before a restore had been dealt with; `by` is the episode that follows.

    What a person decided about the rows of the first one says nothing about those of the next.
    """

    store: str
    episode: str
    at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class RestoreExplained:
    """A RestoreEvent gave the reason for a restore.

    `released_ahead` tells that it held a release already, which was not written for this restore.
    """

    store: str
    episode: str
    event: str
    reason: str
    released_ahead: bool = False


@dataclass(frozen=True, slots=True)
class ListedSnapshot:
    """A snapshot as a listing of its backend showed it. `ref` is what the source calls it.

    `pieces` are what makes it itself: a restic id; a file's size and modification time; every version of
    an object. `taken_at` is what its name or the backend says, `evidence` every other date that speaks
    of it (modification times). All instants are UTC. `size` is in bytes.
    """

    ref: str
    pieces: tuple[str, ...]
    taken_at: datetime
    evidence: tuple[datetime, ...] = ()
    size: int | None = None


@dataclass(frozen=True, slots=True)
class SourceDescribed:
    """A BackupSource says whose snapshots it holds, and for how long.

    `longest_duration` and `skew`, how far the clock that dates them may be apart, are in seconds. `place` is
    where it looks, `names` what it takes there for a snapshot: both as a person reads them.
    """

    source: str
    stores: tuple[str, ...]
    retention: str
    longest_duration: float = 0.0
    skew: float = 0.0
    place: str = ""
    names: str = ""


@dataclass(frozen=True, slots=True)
class SourceSucceeded:
    """A BackupSource looks where another one did that is no more: what `before` knew is known to it."""

    source: str
    before: str
    at: datetime


@dataclass(frozen=True, slots=True)
class SnapshotsSeen:
    """A listing showed snapshots that were not known, or not like this."""

    source: str
    at: datetime
    stores: tuple[str, ...]
    listed: tuple[ListedSnapshot, ...]


@dataclass(frozen=True, slots=True)
class SnapshotDeclared:
    """Somebody applied a BackupSnapshot. Its `taken_at` can only make the snapshot live longer."""

    source: str
    ref: str
    at: datetime
    taken_at: datetime
    stores: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotsVanished:
    """A listing did not show these any more, and it was not Lethe that deleted them."""

    source: str
    at: datetime
    refs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PruneIntended:
    """These are about to be deleted: should they be gone at the next listing, it was Lethe."""

    source: str
    at: datetime
    refs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SnapshotsDeleted:
    """The backend accepted the deletion of these; nothing is proven yet."""

    source: str
    at: datetime
    refs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SnapshotsPurged:
    """The bytes of these were looked for and are gone."""

    source: str
    at: datetime
    refs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RewriteIntended:
    """A snapshot is about to be replaced by a dump of its cleaned copy: `pieces` and `size` are that one's.

    Of whom was erased in `store` it holds then only whom requests cleared from `cleaned_until` on, or at one
    of the moments in `kept`: who could not be looked for.
    """

    source: str
    ref: str
    at: datetime
    store: str
    pieces: tuple[str, ...]
    size: int | None
    cleaned_until: datetime
    kept: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotRewritten:
    """A snapshot was replaced, as it was intended."""

    source: str
    ref: str
    at: datetime
    store: str
    cleaned_until: datetime


@dataclass(frozen=True, slots=True)
class PrunesConfirmed:
    """A person's consent to prune many at once (`spec.confirmPrunes`) was used up."""

    source: str
    at: datetime
    count: int


@dataclass(frozen=True, slots=True)
class CopiesGone:
    """No snapshot holds the persons of these requests any more, as listings since then have proven."""

    at: datetime
    requests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TombstonesExpired:
    """Nothing can be restored any more that these requests of a month erased: their keys were destroyed.

    `period` is the month, as `2026-11`, whose payloads can't be read any more.
    """

    at: datetime
    period: str
    requests: tuple[str, ...]


RequestFact = (
    Accepted
    | Confirmed
    | Intended
    | IntentAbandoned
    | Verified
    | NotFound
    | FoundAgain
    | NotAsked
    | Planned
    | Completed
)
RestoreFact = (
    RestoreDetected | Replayed | IdentitiesDecided | Released | SafeToServe | Superseded | RestoreExplained
)
SnapshotFact = (
    SnapshotsSeen
    | SnapshotDeclared
    | SnapshotsVanished
    | PruneIntended
    | SnapshotsDeleted
    | SnapshotsPurged
    | RewriteIntended
    | SnapshotRewritten
)
SourceFact = SourceDescribed | PrunesConfirmed | SourceSucceeded
Fact = (
    TookOver
    | MappingProved
    | Reerased
    | Rejoined
    | CopiesGone
    | TombstonesExpired
    | RequestFact
    | RestoreFact
    | SnapshotFact
    | SourceFact
    | LegalFact
    | DrillFact
)

FACT_KINDS: Mapping[str, type[Fact]] = {kind.__name__: kind for kind in get_args(Fact)}
