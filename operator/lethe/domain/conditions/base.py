"""From what is recorded and seen to conditions: pure functions, one for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from lethe.domain.restores import RestoreEpisode


class ConditionStatus(StrEnum):
    """A condition is true, false, or not known yet."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"

    @classmethod
    def of(cls, truth: bool) -> ConditionStatus:
        """Return the status that stands for a truth."""
        return cls.TRUE if truth else cls.FALSE


TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. `since` is when it came about, where the ledger knows that (`None`: when it is
    first shown).
    """

    type: str
    status: ConditionStatus
    reason: str
    message: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConditionSet:
    """Where an object stands: `state` in one word (`None` for kinds without), and its conditions."""

    state: str | None
    conditions: tuple[Condition, ...]

    @property
    def ready(self) -> Condition:
        """Return the condition that everybody waits for."""
        return next(condition for condition in self.conditions if condition.type == "Ready")


def with_progress(ready: Condition, *, stalled: bool = False, working: bool = False) -> tuple[Condition, ...]:
    """Add `Stalled` or `Reconciling` with Ready's reason; they exist only while they are true (kstatus)."""
    if stalled:
        return (ready, Condition("Stalled", TRUE, ready.reason, ready.message))
    if working:
        return (ready, Condition("Reconciling", TRUE, ready.reason, ready.message))
    return (ready,)


# DataStore


@dataclass(frozen=True, slots=True)
class StoreObservation:
    """What is known of a store now, for its conditions. `trouble` is `(reason, message)`; `None` is well.

    `proved` tells whether the mapping was proved since the process began; `replay` is `(reason, message)`
    of an open restore. `sources` names the BackupSources that cover it, `snapshots_seen`
    tells whether any of them has ever shown a snapshot.
    """

    third_party: bool
    proved: bool
    trouble: tuple[str, str] | None
    kinds_unmapped: Sequence[str]
    lookalikes: Sequence[str]
    journal: str
    journal_message: str
    without_backups: bool
    looked: bool
    replay: tuple[str, str] | None
    notes: Sequence[str] = ()
    sources: Sequence[str] = ()
    snapshots_seen: bool = False


STALLING_STORE_REASONS = frozenset(
    {"MappingInvalid", "DuplicatePrimary", "LedgerOnSameServer", "LedgerBehind"}
)


def conditions_of_store(observed: StoreObservation) -> ConditionSet:
    """Say where a DataStore stands."""
    if observed.third_party:
        message = "belongs to a third party; nothing is ever sent to it"
        return ConditionSet(None, (Condition("Ready", TRUE, "ThirdParty", message),))
    if observed.trouble is not None:
        reason, message = observed.trouble
        ready = Condition("Ready", FALSE, reason, message)
    elif not observed.proved:
        ready = Condition("Ready", UNKNOWN, "Pending", "not reached yet")
    else:
        message = "; ".join(("connected, and its mapping fits the schema", *observed.notes))
        ready = Condition("Ready", TRUE, "Available", message)
    stalled = ready.reason in STALLING_STORE_REASONS
    conditions = [*with_progress(ready, stalled=stalled, working=ready.status is not TRUE and not stalled)]
    if observed.proved:
        conditions += [
            _mapping_complete(observed),
            Condition(
                "Journaled",
                ConditionStatus.of(observed.journal == "Kept"),
                observed.journal,
                observed.journal_message,
            ),
        ]
    conditions.append(
        Condition("BackupsCovered", TRUE, "NoBackupsDeclared", "the store has no backups")
        if observed.without_backups
        else Condition("BackupsCovered", TRUE, "Covered", f"by {', '.join(sorted(observed.sources))}")
        if observed.sources and observed.snapshots_seen
        else Condition(
            "BackupsCovered",
            FALSE,
            "NothingSeen",
            f"no snapshot has been seen in {', '.join(sorted(observed.sources))}; are place and name right?",
        )
        if observed.sources
        else Condition(
            "BackupsCovered",
            FALSE,
            "NoSource",
            "no BackupSource names this store; an unknown backup is a broken promise",
        )
    )
    if observed.replay is not None:
        conditions.append(Condition("SafeToServe", FALSE, *observed.replay))
    elif observed.looked and observed.trouble is None:
        conditions.append(Condition("SafeToServe", TRUE, "Verified", "every erasure is in place"))
    return ConditionSet(None, tuple(conditions))


def _mapping_complete(observed: StoreObservation) -> Condition:
    if observed.kinds_unmapped:
        message = "no column is said to hold " + ", ".join(sorted(observed.kinds_unmapped))
        return Condition("MappingComplete", FALSE, "KindsUnmapped", message)
    if observed.lookalikes:
        named = ", ".join(observed.lookalikes[:8])
        message = f"{named} look like personal data; map them, or name them in ignore"
        return Condition("MappingComplete", FALSE, "LookalikesUnmapped", message)
    return Condition("MappingComplete", TRUE, "Complete", "every kind of personal data is mapped")


# RestoreEvent


def conditions_of_restore(
    episode: RestoreEpisode | None,
    *,
    reason: str,
    replay: tuple[
        Literal[
            "Waiting",
            "Replaying",
            "IdentityUnclear",
            "HeldRowsReturned",
            "AwaitingRelease",
            "MappingDoesNotFit",
        ],
        str,
    ]
    | None,
) -> ConditionSet:
    """Say where a RestoreEvent stands; `episode` is `None` while no restore has been seen yet."""
    permitted = (
        Condition("Permitted", FALSE, "Undeclared", "nobody has given a reason; set spec.reason")
        if reason == "Undeclared"
        else Condition("Permitted", TRUE, reason, "the reason was given")
    )
    if episode is None:
        message = "declared; the store has not been seen to go back in time"
        ready = Condition("Ready", FALSE, "Declared", message)
        waiting = Condition("Replayed", FALSE, "Waiting", message)
        safe = Condition("SafeToServe", FALSE, "Declared", message)
        return ConditionSet(
            "Declared", (*with_progress(ready, stalled=False, working=True), permitted, waiting, safe)
        )
    if episode.superseded_by is not None:
        message = f"the store went back once more; RestoreEvent {episode.superseded_by} goes on from there"
        return ConditionSet(
            "Superseded",
            (
                Condition("Ready", TRUE, "Superseded", message),
                permitted,
                Condition("Replayed", FALSE, "Superseded", message),
                Condition("SafeToServe", FALSE, "Superseded", message),
            ),
        )
    if not episode.open:
        since = episode.safe_at
        summary = f"{episode.re_erased} erased again, {episode.left_alone} left alone"
        if episode.released_because is not None:
            summary = f"released by a person; {summary}"
        return ConditionSet(
            "SafeToServe",
            (
                Condition("Ready", TRUE, "SafeToServe", summary, since),
                permitted,
                Condition("Replayed", TRUE, "AllReErased", summary, since),
                Condition("SafeToServe", TRUE, "Verified", summary, since),
            ),
        )
    kind, message = replay or ("Replaying", "the store went back in time; its erasures are applied again")
    shown = "Replaying" if kind == "Waiting" else kind
    ready = Condition("Ready", FALSE, shown, message)
    stalled = kind == "MappingDoesNotFit"
    asks = kind in ("IdentityUnclear", "HeldRowsReturned", "AwaitingRelease")
    return ConditionSet(
        "Stalled" if stalled else shown,
        (
            *with_progress(ready, stalled=stalled, working=not stalled and not asks),
            permitted,
            Condition("Replayed", FALSE, "Waiting" if kind == "Waiting" else "Replaying", message),
            Condition("SafeToServe", FALSE, shown, message),
        ),
    )
