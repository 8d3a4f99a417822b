"""What a BackupSnapshot and a BackupSource say of themselves: the states and reasons of the contract."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lethe.domain.backup_conditions import (
    Difficulty,
    SourceObservation,
    conditions_of_snapshot,
    conditions_of_source,
)
from lethe.domain.conditions import ConditionSet
from lethe.domain.periods import Period
from lethe.domain.pruning import PruneBlock, RetentionHold
from lethe.domain.snapshots import SnapshotRecord
from lethe.domain.trouble import Trouble, TroubleReason

TAKEN = datetime(2026, 8, 31, 3, tzinfo=UTC)
EXPIRY = datetime(2027, 2, 28, 3, tzinfo=UTC)
SEEN, SECOND = TAKEN + timedelta(hours=1), timedelta(seconds=1)
SIX_MONTHS = Period(6, 0)


def snapshot(**more: object) -> SnapshotRecord:
    fields = {"pieces": ("v1",), **more}
    return SnapshotRecord("shop/nightly", "one", ("shop/site",), SEEN, TAKEN, **fields)  # type: ignore[arg-type]


def told(condition_set: ConditionSet) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status.value, one.reason) for one in condition_set.conditions}


def message_of(condition_set: ConditionSet, kind: str) -> str:
    return next(one.message for one in condition_set.conditions if one.type == kind)


LOCKED, MISMATCH = Difficulty("ObjectLocked", "locked"), Difficulty("IdentityMismatch", "another")


@pytest.mark.parametrize(
    ("record", "now", "held", "difficulty", "state", "ready", "further"),
    [
        (snapshot(), SEEN, None, None, "Present", ("True", "Retained"), ("Purged", "False", "NotDue")),
        (
            snapshot(),
            EXPIRY - SECOND,
            None,
            None,
            "Present",
            ("True", "Retained"),
            ("Held", "False", "NoHold"),
        ),
        (snapshot(), EXPIRY, None, None, "Overdue", ("False", "Overdue"), ("Reconciling", "True", "Overdue")),
        (
            snapshot(),
            EXPIRY,
            None,
            LOCKED,
            "Overdue",
            ("False", "Overdue"),
            ("Purged", "False", "ObjectLocked"),
        ),
        (
            snapshot(),
            EXPIRY,
            None,
            MISMATCH,
            "Overdue",
            ("False", "IdentityMismatch"),
            ("Stalled", "True", "IdentityMismatch"),
        ),
        (
            snapshot(),
            EXPIRY,
            RetentionHold.LAST_SNAPSHOT,
            None,
            "Held",
            ("True", "Retained"),
            ("Held", "True", "LastSnapshot"),
        ),
        (
            snapshot(),
            SEEN,
            RetentionHold.LEGAL_HOLD,
            None,
            "Held",
            ("True", "Retained"),
            ("Held", "True", "LegalHold"),
        ),
        (
            snapshot(vanished_at=SEEN),
            EXPIRY,
            None,
            None,
            "Missing",
            ("False", "Vanished"),
            ("Stalled", "True", "Vanished"),
        ),
        (
            snapshot(pieces=()),
            SEEN,
            None,
            None,
            "Missing",
            ("False", "Vanished"),
            ("Purged", "False", "NotDue"),
        ),
        (
            snapshot(deleted_at=EXPIRY),
            EXPIRY,
            None,
            None,
            "Deleted",
            ("False", "Overdue"),
            ("Purged", "False", "DeletedUnproven"),
        ),
        (
            snapshot(deleted_at=EXPIRY, purged_at=EXPIRY),
            EXPIRY,
            None,
            None,
            "Purged",
            ("True", "Purged"),
            ("Purged", "True", "Verified"),
        ),
        (
            snapshot(replaced=True),
            SEEN,
            None,
            None,
            "Present",
            ("False", "IdentityMismatch"),
            ("Stalled", "True", "IdentityMismatch"),
        ),
    ],
)
def test_a_snapshot_says_where_it_stands(
    record: SnapshotRecord,
    now: datetime,
    held: RetentionHold | None,
    difficulty: Difficulty | None,
    state: str,
    ready: tuple[str, str],
    further: tuple[str, str, str],
) -> None:
    condition_set = conditions_of_snapshot(record, SIX_MONTHS, now=now, held=held, difficulty=difficulty)
    conditions = told(condition_set)
    assert (condition_set.state, conditions["Ready"]) == (state, ready)
    assert conditions[further[0]] == further[1:]
    assert conditions["Purged"][0] == ("True" if record.purged_at else "False")
    assert ("Reconciling" in conditions, "Stalled" in conditions) != (True, True)


def test_only_proof_is_called_purged() -> None:
    for record in (snapshot(), snapshot(deleted_at=EXPIRY), snapshot(vanished_at=SEEN)):
        for now in (SEEN, EXPIRY + timedelta(days=400)):
            assert told(conditions_of_snapshot(record, SIX_MONTHS, now=now))["Purged"][0] == "False"


def test_a_snapshot_tells_its_last_day_and_what_to_do_about_the_last_one() -> None:
    day = "2027-02-28T03:00:00Z"
    assert day in message_of(conditions_of_snapshot(snapshot(), SIX_MONTHS, now=SEEN), "Ready")
    vanished = conditions_of_snapshot(snapshot(vanished_at=SEEN), SIX_MONTHS, now=SEEN)
    assert day in message_of(vanished, "Ready")
    held = conditions_of_snapshot(snapshot(), SIX_MONTHS, now=EXPIRY, held=RetentionHold.LAST_SNAPSHOT)
    assert "spec.lastSnapshot of the BackupSource to Prune" in message_of(held, "Held")


SIGHT = SourceObservation(scanned=True)


@pytest.mark.parametrize(
    ("observed", "ready", "effective"),
    [
        (SIGHT, ("True", "Scanned"), ("True", "WithinRetention")),
        (SourceObservation(scanned=False), ("Unknown", "Pending"), None),
        (
            SourceObservation(True, trouble=Trouble(TroubleReason.UNREACHABLE, "away")),
            ("False", "Unreachable"),
            ("False", "BackendUnavailable"),
        ),
        (
            SourceObservation(False, trouble=Trouble(TroubleReason.SECRET_MISSING, "create it")),
            ("False", "SecretMissing"),
            ("False", "BackendUnavailable"),
        ),
        (
            SourceObservation(True, too_long=True, waits=PruneBlock.RETENTION_TOO_LONG),
            ("False", "RetentionTooLong"),
            ("False", "RetentionTooLong"),
        ),
        (
            SourceObservation(True, unparsable=["a", "b"]),
            ("False", "NameUnparsable"),
            ("False", "NameUnparsable"),
        ),
        (
            SourceObservation(True, waits=PruneBlock.CLOCKS_DISAGREE),
            ("True", "Scanned"),
            ("False", "ClocksDisagree"),
        ),
        (SourceObservation(True, waits=PruneBlock.SUSPENDED), ("True", "Scanned"), ("False", "Suspended")),
        (
            SourceObservation(True, waits=PruneBlock.AWAITING_CONFIRMATION),
            ("True", "Scanned"),
            ("False", "AwaitingConfirmation"),
        ),
        (
            SourceObservation(True, difficulties=[MISMATCH, LOCKED]),
            ("True", "Scanned"),
            ("False", "ObjectLocked"),
        ),
        (
            SourceObservation(True, difficulties=[MISMATCH]),
            ("True", "Scanned"),
            ("False", "IdentityMismatch"),
        ),
        (
            SourceObservation(True, difficulties=[Difficulty("DeletedUnproven", "versions")]),
            ("True", "Scanned"),
            ("False", "VersionsRemain"),
        ),
        (SourceObservation(True, held_last=True), ("True", "Scanned"), ("False", "LastSnapshotHeld")),
        (SourceObservation(True, held_legally=2), ("True", "Scanned"), ("False", "LegalHold")),
    ],
)
def test_a_source_says_where_it_stands(
    observed: SourceObservation, ready: tuple[str, str], effective: tuple[str, str] | None
) -> None:
    conditions = told(conditions_of_source(observed))
    assert conditions["Ready"] == ready
    assert conditions.get("RetentionEffective") == effective
    assert ("Stalled" in conditions) is (ready[1] in ("RetentionTooLong", "NameUnparsable"))
    assert ("Reconciling" in conditions, "Stalled" in conditions) != (True, True)


def test_a_source_names_some_of_what_it_does_not_understand_and_counts_all() -> None:
    observed = SourceObservation(True, unparsable=[f"name-{n}" for n in range(9)])
    message = message_of(conditions_of_source(observed), "Ready")
    assert message.startswith("9 names")
    assert "name-3" in message
    assert "name-4" not in message
