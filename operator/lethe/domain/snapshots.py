"""Snapshots of stores: what is known of each, when it dies, and whom it holds.

A snapshot that was seen once counts until its bytes were proven gone: that it is missing from a listing,
or that its source was deleted, proves nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import assert_never

from lethe.domain.clocks import TOLERANCE
from lethe.domain.facts import (
    ListedSnapshot,
    PruneIntended,
    PrunesConfirmed,
    RewriteIntended,
    SnapshotDeclared,
    SnapshotFact,
    SnapshotRewritten,
    SnapshotsDeleted,
    SnapshotsPurged,
    SnapshotsSeen,
    SnapshotsVanished,
    SourceDescribed,
)
from lethe.domain.periods import Period

UNKNOWN_START = datetime.min.replace(tzinfo=UTC)
"""Before any erasure: a snapshot that began then holds everybody."""

CLOCK_SKEW = TOLERANCE
"""How far the clocks of a store and of its backups are taken to be apart at most, unless a setting says."""

EASTERNMOST = timedelta(hours=14)
"""How far a name may be ahead that tells the local time of some zone, and says that it is UTC."""

LONG_UNFINISHED = timedelta(days=1)
"""After how long what is unfinished is told, and what a backup is taken to last whose start nothing tells."""

TOLD_IN = timedelta(seconds=1)
"""What the dates of backups are told in: one tells of any moment until the next second begins."""

LONGEST_REF, LARGEST_SNAPSHOT = 1024, 1024 * 1024
"""How many characters the name of a snapshot may have, and all that makes it itself."""
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """What the ledger knows of a BackupSource in one place. `stores` are `namespace/name`, `source` is that
    and the place (`known_as`): one that looks elsewhere is another source.

    `longest_duration` is how long a snapshot may have begun before its stamp, `skew` how far the clock that
    dates it may be apart (seconds). `used_confirmations`
    are the values of `spec.confirmPrunes` that were used up. `seen_at` is when a listing showed something
    new last: two clocks had agreed on that moment.
    """

    source: str
    stores: tuple[str, ...]
    retention: str
    longest_duration: float = 0.0
    used_confirmations: frozenset[int] = frozenset()
    seen_at: datetime | None = field(default=None, compare=False)
    skew: float = 0.0
    place: str = ""
    names: str = ""

    @property
    def doubt(self) -> timedelta:
        """Return how long before its stamp a snapshot may have begun."""
        return timedelta(seconds=self.longest_duration + self.skew)

    def beginning_of(self, snapshot: SnapshotRecord) -> datetime:
        """Return the earliest moment at which one of its snapshots can have begun."""
        return snapshot.began_at(self.doubt, ahead=max(CLOCK_SKEW, timedelta(seconds=self.skew)))


def known_as(name: str, place: str) -> str:
    """Return under which name the ledger knows a source (`namespace/name`) that looks in this place."""
    return f"{name}@{hashlib.sha256(place.encode()).hexdigest()[:16]}"


def name_of(source: str) -> str:
    """Return the name (`namespace/name`) of a source that the ledger knows by `known_as`."""
    return source.partition("@")[0]


class SnapshotState(StrEnum):
    """Where a snapshot stands, in one word."""

    PRESENT = "Present"
    OVERDUE = "Overdue"
    HELD = "Held"
    DELETED = "Deleted"
    PURGED = "Purged"
    MISSING = "Missing"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A snapshot's replacement by a dump of its cleaned copy, see `RewriteIntended`; `at` is when it was
    made, or intended, `former` are the pieces that the snapshot had before."""

    at: datetime
    store: str
    pieces: tuple[str, ...]
    size: int | None
    cleaned_until: datetime
    kept: tuple[datetime, ...] = ()
    former: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """One snapshot as the ledger knows it.

    `pieces` are what makes it itself (a restic id; size and modification time; each version of an
    object), empty for one that was only declared. `taken_at` is what its name or backend says,
    `evidence` every other date that speaks of it, `declared_at` the `takenAt` that somebody applied.
    `first_seen_at` is when these pieces were first seen. `replaced` says that its content was replaced
    while its dates stayed as old as they were. `rewrite` is what Lethe replaced it by, `intended_rewrite`
    what it was about to.
    """

    source: str
    ref: str
    stores: tuple[str, ...]
    first_seen_at: datetime
    taken_at: datetime
    evidence: tuple[datetime, ...] = ()
    pieces: tuple[str, ...] = ()
    size: int | None = None
    declared_at: datetime | None = None
    replaced: bool = False
    vanished_at: datetime | None = None
    intended_at: datetime | None = None
    deleted_at: datetime | None = None
    purged_at: datetime | None = None
    rewrite: Rewrite | None = None
    intended_rewrite: Rewrite | None = None

    @property
    def former(self) -> tuple[str, ...]:
        """Return the pieces that it had before it was rewritten, or was to be: copies elsewhere have them."""
        rewrites = [one for one in (self.rewrite, self.intended_rewrite) if one is not None]
        return tuple(dict.fromkeys(piece for one in rewrites for piece in (*one.former, *one.pieces)))

    @property
    def live(self) -> bool:
        """Tell whether its bytes may still exist."""
        return self.purged_at is None

    @property
    def present(self) -> bool:
        """Tell whether the newest listing shows it."""
        return self.live and bool(self.pieces) and self.vanished_at is None

    @property
    def latest(self) -> datetime:
        """Return the latest moment at which it can have been taken: no evidence speaks for a later one.

        Nothing that was seen was taken after it was seen, whatever its dates say.
        """
        dates = [self.taken_at, *self.evidence]
        if self.declared_at is not None:
            dates.append(self.declared_at)
        return self.first_seen_at if self.replaced else min(max(dates), self.first_seen_at)

    def expires_at(self, retention: Period) -> datetime:
        """Return from when on it may not exist any more, in UTC."""
        return retention.after(self.latest.astimezone(UTC))

    def began_at(self, longest_duration: timedelta, *, ahead: timedelta = CLOCK_SKEW) -> datetime:
        """Return the earliest moment at which it can have begun.

        Where every date lies after the snapshot was seen, by more than clocks may be `ahead`, each is wrong,
        and nothing tells: `UNKNOWN_START`. What somebody applied does not make up for that.
        """
        stamped = min((self.taken_at, *self.evidence))
        if stamped == UNKNOWN_START or stamped > self.first_seen_at + ahead:
            return UNKNOWN_START
        return earlier(min(stamped, self.first_seen_at, self.declared_at or stamped), longest_duration)


def _unknown(source: str) -> SourceRecord:
    """Return what is taken for granted of a source that nobody describes."""
    return SourceRecord(source, (), "P6M", skew=CLOCK_SKEW.total_seconds())


def is_recordable(listed: ListedSnapshot) -> bool:
    """Tell whether what a backend shows of a snapshot is of a size and of characters that can be kept."""
    texts = (listed.ref, *listed.pieces)
    return (
        len(listed.ref) <= LONGEST_REF
        and sum(map(len, texts)) <= LARGEST_SNAPSHOT
        and not any(map(_UNKEEPABLE.search, texts))
        and (listed.size is None or 0 <= listed.size < 2**63)
    )


def seen_in(record: SourceRecord, at: datetime) -> SourceRecord:
    """Return what a source becomes when a listing has shown something new, or a snapshot is rewritten."""
    return replace(record, seen_at=max(at, record.seen_at or at))


def evolve_source(record: SourceRecord | None, fact: SourceDescribed | PrunesConfirmed) -> SourceRecord:
    """Return what a source becomes by one more fact."""
    used_confirmations = record.used_confirmations if record is not None else frozenset[int]()
    if isinstance(fact, SourceDescribed):
        seen_at = record.seen_at if record is not None else None
        return SourceRecord(
            fact.source,
            fact.stores,
            fact.retention,
            fact.longest_duration,
            used_confirmations,
            seen_at,
            fact.skew,
            fact.place,
            fact.names,
        )
    if record is None:
        return replace(_unknown(fact.source), used_confirmations=frozenset({fact.count}))
    return replace(record, used_confirmations=used_confirmations | {fact.count})


def succeeded(before: SnapshotRecord, known: SnapshotRecord | None, source: str) -> SnapshotRecord:
    """Return what a snapshot becomes when another source takes over. `known`: what that knew of its ref."""
    if known is None or not known.live:
        return replace(before, source=source)
    stores = tuple(dict.fromkeys((*known.stores, *before.stores)))
    dates = {*known.evidence, *before.evidence, before.taken_at, before.began_at(timedelta(0))}
    return replace(known, stores=stores, evidence=tuple(sorted(dates)))


@dataclass(frozen=True, slots=True)
class UnfinishedSnapshot:
    """What is being written in a backend, or was left behind unfinished.

    `taken_at` is what its name says, `changed_at` when it was written last, or an upload began; `None`:
    nothing tells. All instants are UTC.
    """

    name: str
    changed_at: datetime | None = None
    taken_at: datetime | None = None

    def began_at(self, doubt: timedelta) -> datetime:
        """Return the earliest moment at which it can have begun, whose dates may be wrong by `doubt`."""
        if self.changed_at is None:
            return UNKNOWN_START
        if self.taken_at is None:
            return earlier(self.changed_at, max(LONG_UNFINISHED, doubt))
        seen = ListedSnapshot(self.name, (), self.taken_at, (self.changed_at,))
        return earlier(min(self.taken_at, *_evidence_of(seen)), doubt)

    def is_left_behind(self, now: datetime) -> bool:
        """Tell whether it has been unfinished for so long that a person should look."""
        return self.changed_at is None or self.changed_at + LONG_UNFINISHED < now

    def is_overdue(self, retention: Period, now: datetime) -> bool:
        """Tell whether it would be past its time if it were finished."""
        return self.changed_at is not None and retention.after(self.changed_at) <= now


def is_misdated(seen: ListedSnapshot) -> bool:
    """Tell whether a name is later than the content was written: then neither date tells the start."""
    return any(seen.taken_at > date + CLOCK_SKEW for date in seen.evidence)


def _evidence_of(seen: ListedSnapshot) -> tuple[datetime, ...]:
    """Return what speaks of a snapshot beside its name, and when it may have begun if that can't be right."""
    if not is_misdated(seen):
        return seen.evidence
    ahead = seen.taken_at - min(seen.evidence)
    began = earlier(seen.taken_at, EASTERNMOST) if ahead <= EASTERNMOST else UNKNOWN_START
    return tuple(sorted({*seen.evidence, began}))


def evolve_snapshots(  # noqa: PLR0911 - one return for each kind of fact
    records: Mapping[str, SnapshotRecord], fact: SnapshotFact
) -> Mapping[str, SnapshotRecord]:
    """Return what the snapshots that a fact names become, by ref. `records` has those that are known.

    What a fact says of a snapshot that nobody knows is nothing.
    """
    match fact:
        case SnapshotsSeen():
            return {
                seen.ref: _seen(records.get(seen.ref), seen, fact.source, fact.stores, fact.at)
                for seen in fact.listed
            }
        case SnapshotDeclared():
            return {fact.ref: _declared(records.get(fact.ref), fact)}
        case SnapshotsVanished(refs=refs, at=at):
            return {ref: replace(records[ref], vanished_at=at) for ref in refs if ref in records}
        case PruneIntended(refs=refs, at=at):
            return {ref: replace(records[ref], intended_at=at) for ref in refs if ref in records}
        case SnapshotsDeleted(refs=refs, at=at):
            return {ref: replace(records[ref], deleted_at=at) for ref in refs if ref in records}
        case SnapshotsPurged(refs=refs, at=at):
            return {ref: replace(records[ref], purged_at=at) for ref in refs if ref in records}
        case RewriteIntended(ref=ref):
            before = records.get(ref)
            if before is None:
                return {}
            former = tuple(dict.fromkeys((*before.former, *before.pieces)))
            said = (fact.at, fact.store, fact.pieces, fact.size, fact.cleaned_until, fact.kept, former)
            return {ref: replace(before, intended_rewrite=Rewrite(*said))}
        case SnapshotRewritten(ref=ref, at=at):
            return {ref: _rewritten(records[ref], at)} if ref in records else {}
        case _:
            assert_never(fact)


def _rewritten(before: SnapshotRecord, at: datetime) -> SnapshotRecord:
    """Return what a snapshot becomes when its replacement lies there; a listing may have told before."""
    intended = before.intended_rewrite
    if intended is None:
        return before
    done = replace(intended, at=at)
    return replace(before, pieces=done.pieces, size=done.size, rewrite=done, intended_rewrite=None)


def _seen(
    before: SnapshotRecord | None, seen: ListedSnapshot, source: str, stores: tuple[str, ...], at: datetime
) -> SnapshotRecord:
    told = _evidence_of(seen)
    fresh = SnapshotRecord(source, seen.ref, stores, at, seen.taken_at, told, seen.pieces, seen.size)
    if before is None or not before.live:
        return fresh  # what was purged is gone; this is another one under its name
    if before.intended_rewrite is not None and before.intended_rewrite.pieces == seen.pieces:
        before = _rewritten(before, at)  # whoever intended it was cut off before it could say so
    all_stores = tuple(dict.fromkeys((*before.stores, *stores)))
    # Evidence only adds up: a date that is set back later speaks of nothing.
    dates = {*before.evidence, *told}
    if seen.taken_at != before.taken_at:
        dates.add(before.taken_at)
    evidence = tuple(sorted(dates))
    if not before.pieces:
        return replace(fresh, stores=all_stores, declared_at=before.declared_at, evidence=evidence)
    if is_same(before.pieces, seen.pieces):
        if before.began_at(timedelta(0)) == UNKNOWN_START:
            evidence = tuple(
                sorted({UNKNOWN_START, *evidence})
            )  # a date that is corrected later does not tell of it either
        return replace(
            before,
            stores=all_stores,
            pieces=seen.pieces,
            size=seen.size,
            taken_at=seen.taken_at,
            evidence=evidence,
            vanished_at=None,
        )
    # Other content under the same name. Its old dates say nothing of it, so it counts from now on; what
    # the old content held may be in it still, so it began when that did.
    replaced = fresh.latest <= max(before.latest, before.first_seen_at)
    evidence = tuple(sorted({before.began_at(timedelta(0)), *told, at}))
    return replace(
        fresh, stores=all_stores, evidence=evidence, replaced=replaced, declared_at=before.declared_at
    )


def _declared(before: SnapshotRecord | None, fact: SnapshotDeclared) -> SnapshotRecord:
    if before is None or not before.live:
        return SnapshotRecord(
            fact.source, fact.ref, fact.stores, fact.at, fact.taken_at, declared_at=fact.taken_at
        )
    if before.declared_at is None:
        return replace(before, declared_at=fact.taken_at)
    # The later one counts for when it dies; the earlier one still tells when it may have begun.
    earlier, later = sorted((before.declared_at, fact.taken_at))
    nothing_more = earlier == later or before.began_at(timedelta(0)) == UNKNOWN_START
    evidence = before.evidence if nothing_more else tuple(sorted({*before.evidence, earlier}))
    return replace(before, declared_at=later, evidence=evidence)


def is_same(pinned: Iterable[str], found: Iterable[str]) -> bool:
    """Tell whether what is found is nothing but what was pinned: versions may be gone, none may be new."""
    return set(found) <= set(pinned)


def needs_recording(record: SnapshotRecord | None, seen: ListedSnapshot, stores: Sequence[str]) -> bool:
    """Tell whether a sighting says anything that the ledger does not know yet."""
    if record is None or not record.live or record.vanished_at is not None:
        return True
    return (
        record.pieces != seen.pieces
        or record.taken_at != seen.taken_at
        or not set(seen.evidence) <= set(record.evidence)
        or not set(stores) <= set(record.stores)
    )


# Whom a snapshot holds


@dataclass(frozen=True, slots=True)
class DirtyWindow:
    """A time in which erased persons may have been back in a store: from the last look that had shown
    it clean until it was read back clean again (`None`: not yet)."""

    store: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class CopyStep:
    """For persons whose erasure was verified at or after `since` (up to the next step).

    `gone_at` is when the last snapshot dies that still holds them; `None`: no snapshot is known that
    does. `proven` tells whether that can be relied upon: a listing since then has shown it.
    """

    since: datetime
    gone_at: datetime | None
    proven: bool


@dataclass(frozen=True, slots=True)
class HoldingSnapshot:
    """A live snapshot of one store: when it began at the earliest, and when it dies.

    One that was rewritten holds whom the store still held later: as if it had begun then. `kept` are the
    moments of those erasures before that it was not cleaned of.
    """

    began_at: datetime
    expires_at: datetime
    kept: tuple[datetime, ...] = ()


def earlier(moment: datetime, by: timedelta) -> datetime:
    """Return a moment that lies so much before, `UNKNOWN_START` at the earliest."""
    return moment - by if moment - UNKNOWN_START > by else UNKNOWN_START


def holding_snapshots(
    store: str,
    snapshots: Iterable[SnapshotRecord],
    sources: Mapping[str, SourceRecord],
    windows: Iterable[DirtyWindow],
) -> list[HoldingSnapshot]:
    """Return the live snapshots of a store, by their beginning.

    One that overlaps a time in which erased persons were back holds everybody. Its beginning is the earliest
    that its dates allow: in the second in which such a time ends nothing tells which of the two was first.
    The host that dated a snapshot may be ahead of, or behind, the one that dates what is read back.
    """
    dirty = [window for window in windows if window.store == store]
    found = []
    for snapshot in snapshots:
        if not snapshot.live or store not in snapshot.stores:
            continue
        source = sources.get(snapshot.source) or _unknown(snapshot.source)
        began = source.beginning_of(snapshot)
        ended = snapshot.latest + TOLD_IN + timedelta(seconds=source.skew)
        overlaps = any(
            ended > window.since and (window.until is None or began <= window.until) for window in dirty
        )
        expires = snapshot.expires_at(Period.parse(source.retention))
        cleaned = snapshot.rewrite
        if cleaned is not None and cleaned.store == store:
            # Of whoever was back in the store meanwhile, too: all who were ever erased were erased in it.
            found.append(HoldingSnapshot(max(began, cleaned.cleaned_until), expires, cleaned.kept))
        else:
            found.append(HoldingSnapshot(UNKNOWN_START if overlaps else began, expires))
    return sorted(found, key=lambda snapshot: (snapshot.began_at, snapshot.expires_at))


def copy_steps(
    holding: Sequence[HoldingSnapshot], *, covered: bool, scanned_at: datetime | None
) -> list[CopyStep]:
    """Return, by the moment of the verified erasure, when the last copy in a store's backups dies.

    `holding` is sorted by its beginning. `covered` tells whether some source covers the store;
    `scanned_at` is when the oldest of their newest successful listings began (`None`: one has not been
    listed yet). Who was erased after that may be in a snapshot that no listing has shown yet.
    """
    kept: dict[datetime, datetime] = {}
    for snapshot in holding:
        kept |= {at: max(snapshot.expires_at, kept.get(at, snapshot.expires_at)) for at in snapshot.kept}
    edges = sorted(
        {
            UNKNOWN_START,
            *(snapshot.began_at for snapshot in holding),
            *([scanned_at] if scanned_at else []),
            *kept,
            *(at + timedelta.resolution for at in kept),
        }
    )
    steps: list[CopyStep] = []
    position, latest = 0, None
    for edge in edges:
        # A snapshot holds a person unless it started after the erasure: `began_at` itself counts.
        while position < len(holding) and holding[position].began_at <= edge:
            expires = holding[position].expires_at
            latest = expires if latest is None else max(latest, expires)
            position += 1
        proven = covered and scanned_at is not None and edge < scanned_at
        gone_at = max((at for at in (latest, kept.get(edge)) if at is not None), default=None)
        if not steps or (steps[-1].gone_at, steps[-1].proven) != (gone_at, proven):
            steps.append(CopyStep(edge, gone_at, proven))
    return steps


NO_BACKUPS = (CopyStep(UNKNOWN_START, None, proven=True),)
"""The steps of a store that has no backups."""


@dataclass(frozen=True, slots=True)
class CopiesLeft:
    """What backups still hold of an erased person.

    `gone_at` is when the last of the known snapshots dies; `unproven` are the stores of which no listing
    since the erasure tells.
    """

    gone_at: datetime | None = None
    unproven: tuple[str, ...] = field(default=())

    @property
    def none_left(self) -> bool:
        """Tell whether it is proven that no snapshot holds the person any more."""
        return self.gone_at is None and not self.unproven


def restored_snapshot(
    snapshots: Iterable[SnapshotRecord], back_to: datetime, *, one_tick: timedelta
) -> SnapshotRecord | None:
    """Return the snapshot that a store must have been restored from; `None` where none or several fit.

    The store's head said `back_to` when the snapshot began, and would have said something later after
    `one_tick`. The clocks of store and backup are taken to be within a minute of each other.
    """
    fits = [s for s in snapshots if back_to - CLOCK_SKEW <= s.taken_at <= back_to + one_tick + CLOCK_SKEW]
    return fits[0] if len(fits) == 1 else None
