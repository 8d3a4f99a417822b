"""What a BackupSnapshot says of itself: the states and reasons of the contract."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lethe.domain.conditions.backupsnapshot import Difficulty, backupsnapshot_conditions
from lethe.domain.periods import Period
from lethe.domain.pruning import RetentionHold
from lethe.domain.snapshots import SnapshotRecord
from tests.domain.conditions.reading import message_of, shown

TAKEN = datetime(2026, 8, 31, 3, tzinfo=UTC)
EXPIRY = datetime(2027, 2, 28, 3, tzinfo=UTC)
SEEN, SECOND = TAKEN + timedelta(hours=1), timedelta(seconds=1)
SIX_MONTHS = Period(6, 0)


def snapshot(**more: object) -> SnapshotRecord:
    fields = {"pieces": ("v1",), **more}
    return SnapshotRecord("shop/nightly", "one", ("shop/site",), SEEN, TAKEN, **fields)  # type: ignore[arg-type]


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
    condition_set = backupsnapshot_conditions(record, SIX_MONTHS, now=now, held=held, difficulty=difficulty)
    conditions = shown(condition_set)
    assert (condition_set.state, conditions["Ready"]) == (state, ready)
    assert conditions[further[0]] == further[1:]
    assert conditions["Purged"][0] == ("True" if record.purged_at else "False")
    assert ("Reconciling" in conditions, "Stalled" in conditions) != (True, True)


def test_only_proof_is_called_purged() -> None:
    for record in (snapshot(), snapshot(deleted_at=EXPIRY), snapshot(vanished_at=SEEN)):
        for now in (SEEN, EXPIRY + timedelta(days=400)):
            assert shown(backupsnapshot_conditions(record, SIX_MONTHS, now=now))["Purged"][0] == "False"


def test_a_snapshot_tells_its_last_day_and_what_to_do_about_the_last_one() -> None:
    day = "2027-02-28T03:00:00Z"
    assert day in message_of(backupsnapshot_conditions(snapshot(), SIX_MONTHS, now=SEEN), "Ready")
    vanished = backupsnapshot_conditions(snapshot(vanished_at=SEEN), SIX_MONTHS, now=SEEN)
    assert day in message_of(vanished, "Ready")
    held = backupsnapshot_conditions(snapshot(), SIX_MONTHS, now=EXPIRY, held=RetentionHold.LAST_SNAPSHOT)
    assert "spec.lastSnapshot of the BackupSource to Prune" in message_of(held, "Held")
