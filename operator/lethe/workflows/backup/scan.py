"""One scan of a backup source: list, remember, prune what is due, prove that it is gone.

Steps, with the numbers that recur in the code:

1. list everything that lies in the backend;
2. record what is new, changed or not there any more;
3. decide what dies now;
4. record the intent, delete, record that the backend said yes;
5. look for the bytes, and record what is proven gone.

A scan may be cut off anywhere and run again. Whatever was deleted and not recorded is found by its intent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock

from lethe.domain.chunks import chunked
from lethe.domain.facts import (
    Fact,
    ListedSnapshot,
    PruneIntended,
    PrunesConfirmed,
    SnapshotDeclared,
    SnapshotFact,
    SnapshotsDeleted,
    SnapshotsPurged,
    SnapshotsSeen,
    SnapshotsVanished,
    SourceDescribed,
    SourceSucceeded,
)
from lethe.domain.periods import Period
from lethe.domain.pruning import PrunePlan, PruneRules, prune_plan
from lethe.domain.snapshots import (
    CLOCK_SKEW,
    UNKNOWN_START,
    SnapshotRecord,
    SourceRecord,
    evolve_snapshots,
    evolve_source,
    is_recordable,
    known_as,
    name_of,
    needs_recording,
)
from lethe.ports.backups import (
    Backend,
    BackendError,
    BackendUnavailable,
    Deletion,
    DeletionResult,
    Listing,
    Pin,
    rewritable,
)
from lethe.ports.ledger import Ledger
from lethe.workflows.legal.holds import stores_under_hold

IN_ONE_FACT = 2_000
"""How many snapshots one entry of the ledger names."""

AT_ONCE = 100
"""How many snapshots are deleted before what was done is recorded."""


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """What a BackupSource says, apart from how to reach it. Names are `namespace/name`.

    `longest_duration` and `skew`, how far its clock may be apart, are in seconds. `too_long` says that it
    asks for more than `LETHE_RETENTION`. `place` is where it looks, `names` what it takes there for a
    snapshot: both as a person reads them.
    """

    namespace: str
    short_name: str
    stores: tuple[str, ...]
    retention: str
    longest_duration: float = 0.0
    hold_last: bool = True
    most_per_run: int = 10
    confirm_prunes: int | None = None
    suspended: bool = False
    too_long: bool = False
    skew: float = CLOCK_SKEW.total_seconds()
    place: str = ""
    names: str = ""

    @property
    def name(self) -> str:
        """Return the name under which metrics and people know the source."""
        return f"{self.namespace}/{self.short_name}"

    @property
    def known_as(self) -> str:
        """Return the name under which the ledger knows the source in this place."""
        return known_as(self.name, self.place)


@dataclass(slots=True)
class KnownSource:
    """A source and what is known of its snapshots; all of it is in the ledger and the backend.

    `elsewhere` are the snapshots of where the source of this name looked before; `places` says by the source
    of each (as the ledger knows it) where that is.
    `scanned_at` is when the newest successful listing began, `proven_until` up to when it tells of every
    snapshot that began (`None`: it proves nothing, for no listing of this source has ever shown a snapshot).
    `partial_since` are the names that it showed and that may be snapshots nobody knows, unfinished ones and
    unparsable ones, with the last listing that did not show them, or when they can have begun by their own
    dates. `listing` tells that the backend is being
    asked; a source that was `abandoned` meanwhile concludes nothing from the answer. Who changes what lies
    there has the `turn`. `tidied` tells that what an earlier process had staged is gone.
    """

    description: SourceDescription
    backend: Backend
    record: SourceRecord | None = None
    snapshots: dict[str, SnapshotRecord] = field(default_factory=dict)
    elsewhere: Sequence[SnapshotRecord] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    loaded: bool = False
    scanned_at: datetime | None = None
    proven_until: datetime | None = None
    partial_since: dict[str, datetime] = field(default_factory=dict)
    listing: bool = False
    abandoned: bool = False
    tidied: bool = False
    turn: Lock = field(default_factory=Lock, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Return the name under which the ledger knows the source."""
        return self.description.known_as

    @property
    def all_snapshots(self) -> dict[str, SnapshotRecord]:
        """Return by ref what is known here, and of what lies elsewhere whatever has no namesake here."""
        return {one.ref: one for one in self.elsewhere} | self.snapshots

    @property
    def stores(self) -> frozenset[str]:
        """Return every store of which one of its snapshots holds something, by what is known of each."""
        known = [one.stores for one in list(self.snapshots.values())]
        return frozenset(self.description.stores).union(*known)


@dataclass(frozen=True, slots=True)
class Declared:
    """A BackupSnapshot that somebody applied."""

    ref: str
    taken_at: datetime


@dataclass(slots=True)
class Scan:
    """What a scan came to.

    `problems` say for each snapshot why it could not be deleted or proven gone. `changed` tells whether
    the ledger knows other snapshots than before, `purged` and `deleted` which went in this scan. `next`
    is what goes next after it, with the moment.
    """

    listing: Listing
    plan: PrunePlan = field(default_factory=PrunePlan)
    problems: dict[str, Deletion] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    purged: list[str] = field(default_factory=list)
    changed: bool = False
    next: tuple[SnapshotRecord, datetime] | None = None

    @property
    def failed(self) -> int:
        """Return how many deletions were not accepted."""
        return sum(one.result is not DeletionResult.ACCEPTED for one in self.problems.values())


ReadClocks = Callable[[datetime | None], str | None]
"""Compares the clocks, given the backend's own date; returns why none can be relied upon, else `None`."""


def load(source: KnownSource, ledger: Ledger) -> None:
    """Read from the ledger what is known of a source."""
    source.record = ledger.sources().get(source.name)
    source.snapshots = {record.ref: record for record in ledger.snapshots(source.name)}
    _look_elsewhere(source, ledger)
    source.loaded = True


def _look_elsewhere(source: KnownSource, ledger: Ledger) -> None:
    """Read what is known of where the source looked before: others may have proven it gone meanwhile."""
    source.places = {
        name: record.place
        for name, record in ledger.sources().items()
        if name != source.name and name_of(name) == source.description.name
    }
    source.elsewhere = [one for name in source.places for one in ledger.snapshots(name)]


def scan(
    source: KnownSource,
    ledger: Ledger,
    *,
    now: Callable[[], datetime],
    clocks: ReadClocks,
    declared: Sequence[Declared] = (),
    watched: Collection[str] = (),
) -> Scan:
    """Scan a source once. Raises `BackendUnavailable`, `BackendMisconfigured`, and the ledger's errors.

    `watched` are all sources that there are, as the ledger knows them. One that looks where a source did
    that is no more takes over what that knew: snapshots don't die by the name of an object.
    While the clocks disagree nothing is concluded from any date: neither recorded nor pruned.
    """
    with source.turn:
        return _scan(source, ledger, now=now, clocks=clocks, declared=declared, watched=watched)


def _scan(
    source: KnownSource,
    ledger: Ledger,
    *,
    now: Callable[[], datetime],
    clocks: ReadClocks,
    declared: Sequence[Declared],
    watched: Collection[str],
) -> Scan:
    succeeds = _succeed(source, ledger, watched, now())
    if succeeds or not source.loaded:
        load(source, ledger)
    elif source.elsewhere:
        _look_elsewhere(source, ledger)
    described = _describe(source, ledger) or succeeds
    began = now()
    source.listing = True
    try:
        backend = rewritable(source.backend)
        if backend is not None and not source.tidied:
            with suppress(BackendError):  # then it is listed as unfinished, and nothing is proven since
                backend.unstage()  # whoever was cut off there has verified nothing of it
        listing = source.backend.list()
        source.tidied = True
    finally:
        source.listing = False
    _require_not_abandoned(source)
    _require_recordable(listing)
    done = Scan(listing, changed=described)
    disagreement = clocks(listing.date)
    # The clock may have been set while the listing went on. What the clocks agree upon is `ended`, and
    # whichever is earlier lets nothing die too soon and proves nothing too much.
    ended = now()
    moment = min(began, ended)
    rules = _rules(source)
    if disagreement is None:
        _refuse_empty(source, listing)
        done.changed |= _record(source, ledger, listing, declared, ended)
        _note_proof(source, listing, moment)

    def decide() -> PrunePlan:
        return prune_plan(
            source.snapshots.values(),
            rules,
            now=moment,
            held_stores=stores_under_hold(ledger, source.stores, moment),
            clocks_disagree=disagreement,
        )

    done.plan = decide()
    done.changed |= _intend(source, ledger, done.plan, rules, now)
    accepted: list[str] = []
    for some in chunked(done.plan.to_delete, AT_ONCE):
        _require_not_abandoned(source)
        held = stores_under_hold(ledger, source.stores, moment).keys()  # a hold may have come since
        accepted += _delete(source, ledger, [one for one in some if held.isdisjoint(one.stores)], done, now)
    if accepted:
        _prove(source, ledger, accepted, done, now)
    done.next = decide().next if done.plan.to_delete else done.plan.next
    return done


def _require_recordable(listing: Listing) -> None:
    """Refuse a listing of which something can't be kept: to leave it out would mean that it is not there."""
    strange = next((one for one in listing.snapshots if not is_recordable(one)), None)
    if strange is not None:
        name = strange.ref[:64]
        raise BackendUnavailable(
            f"a snapshot whose name begins with {name!a} has a name, pieces or a size that can't be recorded",
            "rename it, or correct the plugin that lists it",
        )


def _require_not_abandoned(source: KnownSource) -> None:
    if source.abandoned:
        raise BackendUnavailable("nobody waits for this scan any more")


def _rules(source: KnownSource) -> PruneRules:
    description = source.description
    used_confirmations = source.record.used_confirmations if source.record else frozenset[int]()
    confirmed = description.confirm_prunes
    return PruneRules(
        retention=Period.parse(description.retention),
        hold_last=description.hold_last,
        most_per_run=description.most_per_run,
        confirmed=None if confirmed in used_confirmations else confirmed,
        used_confirmations=used_confirmations,
        suspended=description.suspended,
        too_long=description.too_long,
    )


def _describe(source: KnownSource, ledger: Ledger) -> bool:
    """Record what the manifest says of the source, if the ledger knows it otherwise."""
    wanted, known = source.description, source.record
    fact = SourceDescribed(
        source.name,
        wanted.stores,
        wanted.retention,
        wanted.longest_duration,
        wanted.skew,
        wanted.place,
        wanted.names,
    )
    if known is not None and known == evolve_source(known, fact):
        return False
    append(source, ledger, [fact])
    return True


def _succeed(source: KnownSource, ledger: Ledger, watched: Collection[str], now: datetime) -> bool:
    """Take over what sources knew that looked here, for the same names, and are no more."""
    wanted = source.description
    if source.loaded or not wanted.place:
        return False
    before = [
        name
        for name, record in ledger.sources().items()
        if name not in {source.name, *watched}
        and name.partition("/")[0] == wanted.namespace
        and (record.place, record.names) == (wanted.place, wanted.names)
        and any(snapshot.live for snapshot in ledger.snapshots(name))
    ]
    if before:
        ledger.append([SourceSucceeded(source.name, name, now) for name in before])
    return bool(before)


# 1 and 2: list and remember


def _refuse_empty(source: KnownSource, listing: Listing) -> None:
    """Raise for a listing that shows nothing where something was: more likely the wrong place than empty."""
    # Also what Lethe meant to delete: whether it did, or is shown the wrong place, nobody can tell.
    there = [s for s in source.snapshots.values() if s.present and s.deleted_at is None]
    if there and not listing.snapshots:
        raise BackendUnavailable(
            f"the listing is empty, although {len(there)} snapshots were there; nothing is concluded from it",
            "is the right volume mounted, and is the prefix right?",
        )


def _note_proof(source: KnownSource, listing: Listing, began: datetime) -> None:
    """Note what a listing tells that began then: nothing of who may be in a dump that is not finished yet."""
    since, before = source.partial_since, source.scanned_at or UNKNOWN_START
    doubt = source.record.doubt if source.record is not None else CLOCK_SKEW
    unfinished = {one.name: one.began_at(doubt) for one in listing.partial}
    source.partial_since = {
        name: max(since.get(name, before), unfinished.get(name, UNKNOWN_START))
        for name in (*unfinished, *listing.unparsable)
    }
    source.scanned_at = began
    if any(snapshot.pieces for snapshot in source.snapshots.values()):
        source.proven_until = min((began, *source.partial_since.values()))


def _record(
    source: KnownSource, ledger: Ledger, listing: Listing, declared: Sequence[Declared], now: datetime
) -> bool:
    stores, known = source.description.stores, source.snapshots
    # A first sight caps what a snapshot's dates may say. One that was noted by clocks that were all behind
    # would let the snapshot die at once when they are set right.
    now = max((now, *(snapshot.first_seen_at for snapshot in known.values())))
    fresh = [s for s in listing.snapshots if needs_recording(known.get(s.ref), s, stores)]
    facts: list[Fact] = [
        SnapshotsSeen(source.name, now, stores, tuple(some)) for some in chunked(fresh, IN_ONE_FACT)
    ]
    shown = {listed.ref for listed in listing.snapshots}
    vanished = [s.ref for s in known.values() if s.present and s.intended_at is None and s.ref not in shown]
    facts += [SnapshotsVanished(source.name, now, tuple(some)) for some in chunked(vanished, IN_ONE_FACT)]
    new = {listed.ref: listed for listed in fresh}
    facts += [
        SnapshotDeclared(source.name, one.ref, now, one.taken_at, stores)
        for one in declared
        if _says_more(known.get(one.ref), new.get(one.ref), one.taken_at)
    ]
    if facts:
        append(source, ledger, facts)
    return bool(facts)


def _says_more(record: SnapshotRecord | None, seen: ListedSnapshot | None, taken_at: datetime) -> bool:
    """Tell whether a declared date says anything: it can only let a snapshot live longer.

    Of one that no listing has ever shown it says nothing, whatever somebody has applied; nor of a purged one
    that is still declared in somebody's repository.
    """
    dates = [record.declared_at, record.taken_at] if record is not None and record.live else []
    dates += [seen.taken_at] if seen is not None else []
    return bool(dates) and taken_at > max(date for date in dates if date is not None)


def append(source: KnownSource, ledger: Ledger, facts: Sequence[Fact]) -> None:
    """Record facts, and let what is held in memory follow from them as the ledger's own does."""
    ledger.append(facts)
    for fact in facts:
        if isinstance(fact, SourceDescribed | PrunesConfirmed):
            source.record = evolve_source(source.record, fact)
        elif isinstance(fact, SnapshotFact):
            source.snapshots.update(evolve_snapshots(source.snapshots, fact))


# 4 and 5: delete and prove


def _intend(
    source: KnownSource,
    ledger: Ledger,
    plan: PrunePlan,
    rules: PruneRules,
    now: Callable[[], datetime],
) -> bool:
    """Record what is about to be deleted, and in the same breath that a person's consent is used up by it.

    So a crash leaves neither a consent that can be used twice nor a part of what it was given for.
    """
    intended = [snapshot.ref for snapshot in plan.to_delete if snapshot.intended_at is None]
    facts: list[Fact] = [
        PruneIntended(source.name, now(), tuple(some)) for some in chunked(intended, IN_ONE_FACT)
    ]
    if plan.to_delete and plan.due > rules.most_per_run and rules.confirmed is not None:
        facts.append(PrunesConfirmed(source.name, now(), rules.confirmed))
    if facts:
        append(source, ledger, facts)
    return bool(facts)


def _delete(
    source: KnownSource,
    ledger: Ledger,
    snapshots: Sequence[SnapshotRecord],
    done: Scan,
    now: Callable[[], datetime],
) -> list[str]:
    """Delete snapshots; return the refs of those of which the backend says that it has."""
    if not snapshots:
        return []
    ledger.confirm()
    deletions = source.backend.delete([Pin(s.ref, s.pieces) for s in snapshots])
    accepted = [s for s in snapshots if _was_accepted(deletions, s.ref)]
    # One that had vanished was deleted by somebody else: Lethe only proves it gone.
    by_lethe = tuple(s.ref for s in accepted if s.present and s.deleted_at is None)
    if by_lethe:
        append(source, ledger, [SnapshotsDeleted(source.name, now(), by_lethe)])
        done.deleted += by_lethe
        done.changed = True
    for snapshot in snapshots:
        if not _was_accepted(deletions, snapshot.ref):
            failed = Deletion(DeletionResult.FAILED, "the backend did not say what became of it")
            done.problems[snapshot.ref] = deletions.get(snapshot.ref, failed)
    return [s.ref for s in accepted]


def _prove(
    source: KnownSource, ledger: Ledger, refs: Sequence[str], done: Scan, now: Callable[[], datetime]
) -> None:
    """Look for the bytes of all that was deleted, at once: in a repository that is one prune.

    A scan that was abandoned after it had deleted does so, too: the next one may be suspended.
    """
    remains = source.backend.gone(refs)
    for ref, what in remains.items():
        done.problems[ref] = Deletion(DeletionResult.ACCEPTED, what)
    for some in chunked([ref for ref in refs if ref not in remains], IN_ONE_FACT):
        append(source, ledger, [SnapshotsPurged(source.name, now(), tuple(some))])
        done.purged += some
        done.changed = True


def _was_accepted(deletions: Mapping[str, Deletion], ref: str) -> bool:
    deletion = deletions.get(ref)
    return deletion is not None and deletion.result is DeletionResult.ACCEPTED
