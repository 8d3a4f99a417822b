"""Where a DataStore stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lethe.domain.conditions.base import (
    FALSE,
    TRUE,
    UNKNOWN,
    Condition,
    ConditionSet,
    ConditionStatus,
    plaintext_allowed,
    with_progress,
)
from lethe.domain.conditions.restoreevent import VERIFIED, released
from lethe.domain.restores import RestoreEpisode
from lethe.domain.trouble import Trouble, TroubleReason


@dataclass(frozen=True, slots=True)
class DataStoreObservation:
    """What is known of a store now, for its conditions. `trouble` `None` is well.

    `proved` tells whether the mapping was proved since the process began; `replay` is `(reason, message)`
    of an open restore, `release` the restore since which it is served because a person says so. `sources`
    names the BackupSources that cover it, `snapshots_seen` tells whether any of them has ever shown a
    snapshot, `snapshots_remain` whether any is not proven gone (`None`: not known yet). `samples_left` says
    which statistics of the server may hold values that were erased (`None`: not known yet). `plaintext` is
    the field that lets it do without TLS.
    `catch_up` says how many that were erased before stand uncleared by the mapping, of how many rows nothing
    tells whose they are, the mapping's version, and whether a person has confirmed it; `uncounted` that
    people were erased by a narrower mapping, and that nobody has looked yet how they stand.
    """

    third_party: bool
    proved: bool
    trouble: Trouble | None
    kinds_unmapped: Sequence[str]
    lookalikes: Sequence[str]
    pointing: Sequence[str]
    copies: Sequence[str]
    possible_copies: Sequence[tuple[str, str]]
    journal: str
    journal_message: str
    without_backups: bool
    looked: bool
    replay: tuple[str, str] | None
    release: RestoreEpisode | None = None
    catch_up: tuple[int, int, str, bool] | None = None
    uncounted: bool = False
    notes: Sequence[str] = ()
    sources: Sequence[str] = ()
    snapshots_seen: bool = False
    snapshots_remain: bool | None = False
    samples_left: Sequence[str] | None = None
    plaintext: str | None = None


def datastore_conditions(observed: DataStoreObservation) -> ConditionSet:
    """Say where a DataStore stands."""
    if observed.third_party and observed.trouble is not None:
        failed = Condition("Ready", FALSE, observed.trouble.reason.value, observed.trouble.message)
        return ConditionSet(None, tuple(with_progress(failed, working=True)))
    if observed.third_party:
        message = "belongs to a third party; nothing is ever sent to it"
        return ConditionSet(None, (Condition("Ready", TRUE, "ThirdParty", message),))
    if observed.trouble is not None:
        ready = Condition("Ready", FALSE, observed.trouble.reason.value, observed.trouble.message)
    elif not observed.proved:
        message = observed.replay[1] if observed.replay is not None else "not reached yet"
        ready = Condition("Ready", UNKNOWN, "Pending", message)
    else:
        message = "; ".join(("connected, and its mapping fits the schema", *observed.notes))
        ready = Condition("Ready", TRUE, "Available", message)
    stalled = observed.trouble is not None and observed.trouble.reason.stalls
    conditions = [*with_progress(ready, stalled=stalled, working=ready.status is not TRUE and not stalled)]
    conditions += plaintext_allowed(observed.plaintext)
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
    if observed.proved and observed.samples_left is not None:
        conditions.append(
            Condition("StatisticsRenewed", FALSE, "SamplesRemain", "; ".join(observed.samples_left[:4]))
            if observed.samples_left
            else Condition(
                "StatisticsRenewed",
                TRUE,
                "Renewed",
                "every statistic is renewed within half a minute of an erasure; the last time none was left",
            )
        )
    conditions.append(
        Condition(
            "BackupsCovered",
            FALSE,
            "SnapshotsRemain",
            "spec.backups says that there are none, and snapshots are known that are not proven gone; apply "
            "their BackupSource until they are",
        )
        if observed.without_backups and observed.snapshots_remain and not observed.sources
        else Condition(
            "BackupsCovered", UNKNOWN, "NotCounted", "it is not known yet which snapshots there are"
        )
        if observed.without_backups and observed.snapshots_remain is None and not observed.sources
        else Condition("BackupsCovered", TRUE, "NoBackupsDeclared", "the store has no backups")
        if observed.without_backups and not observed.sources
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
    if observed.trouble is not None and observed.trouble.reason in LET_GO:
        trouble = observed.trouble
        conditions.append(Condition("SafeToServe", FALSE, trouble.reason.value, trouble.message))
    elif observed.replay is not None:
        conditions.append(Condition("SafeToServe", FALSE, *observed.replay))
    elif observed.looked and observed.trouble is None:
        by_a_person = released(observed.release)
        in_place = ConditionStatus.of(observed.release is None or observed.release.left == 0)
        conditions.append(Condition("SafeToServe", in_place, *(by_a_person or VERIFIED)))
    return ConditionSet(None, tuple(conditions))


LET_GO = frozenset({TroubleReason.SUSPENDED, TroubleReason.RESTORE_UNDERWAY})


_LEFT_OUT = (
    (
        "TablesUnmapped",
        "{} point at persons; map these tables as dependents, or name the columns in ignore",
    ),
    (
        "CopiesUnmapped",
        "{} keep what is cleared until REFRESH MATERIALIZED VIEW; see to that, and ignore them",
    ),
    ("LookalikesUnmapped", "{} look like personal data; map them, or name them in ignore"),
    ("CopiesPossible", "what is cleared may be kept by {}; see to each, and name it in ignore"),
)


def _mapping_complete(observed: DataStoreObservation) -> Condition:
    if observed.kinds_unmapped:
        message = "no column is said to hold " + ", ".join(sorted(observed.kinds_unmapped))
        return Condition("MappingComplete", FALSE, "KindsUnmapped", message)
    if observed.catch_up is not None or observed.uncounted:
        return _catching_up(observed.catch_up)
    possible = [f"{name} ({why})" for name, why in observed.possible_copies]
    for found, (reason, message) in zip(
        (observed.pointing, observed.copies, observed.lookalikes, possible), _LEFT_OUT, strict=True
    ):
        if found:
            named = message.format(", ".join(found[:8]))
            return Condition("MappingComplete", FALSE, reason, named)
    return Condition("MappingComplete", TRUE, "Complete", "every kind of personal data is mapped")


def _catching_up(counted: tuple[int, int, str, bool] | None) -> Condition:
    if counted is None:
        message = (
            "the mapping clears more than the one by which people were erased before; who of them is not "
            "cleared of it is counted once no restore is being dealt with"
        )
        return Condition("MappingComplete", UNKNOWN, "ErasedBefore", message)
    left, unclear, version, confirmed = counted
    parts = []
    if left:
        parts.append(
            f"{left} records of people who were erased before are not cleared as the mapping says by now; "
            + (
                "they are being cleared"
                if confirmed
                else f"to clear them, too, set spec.catchUp to {version}"
            )
        )
    if unclear:
        parts.append(f"of {unclear} rows under erased keys nothing tells whose they are; see to them by hand")
    message = "; ".join(parts) or "people who were erased before have been cleared, and are counted anew"
    return Condition("MappingComplete", FALSE, "ErasedBefore", message)
