"""What a BackupSource says of itself: the reasons of the contract."""

from __future__ import annotations

import pytest

from lethe.domain.conditions.backupsnapshot import Difficulty
from lethe.domain.conditions.backupsource import BackupSourceObservation, backupsource_conditions
from lethe.domain.pruning import PruneBlock
from lethe.domain.trouble import Trouble, TroubleReason
from tests.domain.conditions.reading import message_of, shown

LOCKED, MISMATCH = Difficulty("ObjectLocked", "locked"), Difficulty("IdentityMismatch", "another")
SCANNED = BackupSourceObservation(scanned=True)


@pytest.mark.parametrize(
    ("observed", "ready", "effective"),
    [
        (SCANNED, ("True", "Scanned"), ("True", "WithinRetention")),
        (BackupSourceObservation(scanned=False), ("Unknown", "Pending"), None),
        (
            BackupSourceObservation(True, trouble=Trouble(TroubleReason.UNREACHABLE, "away")),
            ("False", "Unreachable"),
            ("False", "BackendUnavailable"),
        ),
        (
            BackupSourceObservation(False, trouble=Trouble(TroubleReason.SECRET_MISSING, "create it")),
            ("False", "SecretMissing"),
            ("False", "BackendUnavailable"),
        ),
        (
            BackupSourceObservation(True, too_long=True, waits=PruneBlock.RETENTION_TOO_LONG),
            ("False", "RetentionTooLong"),
            ("False", "RetentionTooLong"),
        ),
        (
            BackupSourceObservation(True, unparsable=["a", "b"]),
            ("False", "NameUnparsable"),
            ("False", "NameUnparsable"),
        ),
        (
            BackupSourceObservation(True, left_behind=["a"], misdated=["b"]),
            ("False", "LeftUnfinished"),
            ("True", "WithinRetention"),
        ),
        (
            BackupSourceObservation(True, left_behind=["a"], unfinished_overdue=["a"]),
            ("False", "LeftUnfinished"),
            ("False", "LeftUnfinished"),
        ),
        (
            BackupSourceObservation(True, misdated=["b"]),
            ("False", "NameAfterContent"),
            ("True", "WithinRetention"),
        ),
        (
            BackupSourceObservation(True, elsewhere={"directory /backups/old": 3}),
            ("True", "Scanned"),
            ("False", "PlaceChanged"),
        ),
        (
            BackupSourceObservation(True, waits=PruneBlock.CLOCKS_DISAGREE),
            ("True", "Scanned"),
            ("False", "ClocksDisagree"),
        ),
        (
            BackupSourceObservation(True, waits=PruneBlock.SUSPENDED),
            ("True", "Scanned"),
            ("False", "Suspended"),
        ),
        (
            BackupSourceObservation(True, waits=PruneBlock.AWAITING_CONFIRMATION),
            ("True", "Scanned"),
            ("False", "AwaitingConfirmation"),
        ),
        (
            BackupSourceObservation(True, difficulties=[MISMATCH, LOCKED]),
            ("True", "Scanned"),
            ("False", "ObjectLocked"),
        ),
        (
            BackupSourceObservation(True, difficulties=[MISMATCH]),
            ("True", "Scanned"),
            ("False", "IdentityMismatch"),
        ),
        (
            BackupSourceObservation(True, difficulties=[Difficulty("DeletedUnproven", "versions")]),
            ("True", "Scanned"),
            ("False", "VersionsRemain"),
        ),
        (BackupSourceObservation(True, held_last=True), ("True", "Scanned"), ("False", "LastSnapshotHeld")),
        (BackupSourceObservation(True, held_legally=2), ("True", "Scanned"), ("False", "LegalHold")),
    ],
)
def test_a_source_says_where_it_stands(
    observed: BackupSourceObservation, ready: tuple[str, str], effective: tuple[str, str] | None
) -> None:
    conditions = shown(backupsource_conditions(observed))
    assert conditions["Ready"] == ready
    assert conditions.get("RetentionEffective") == effective
    assert ("Stalled" in conditions) is (
        ready[1] in ("RetentionTooLong", "NameUnparsable", "LeftUnfinished", "NameAfterContent")
    )
    assert ("Reconciling" in conditions, "Stalled" in conditions) != (True, True)


def test_a_source_names_some_of_what_it_does_not_understand_and_counts_all() -> None:
    observed = BackupSourceObservation(True, unparsable=[f"name-{n}" for n in range(9)])
    message = message_of(backupsource_conditions(observed), "Ready")
    assert message.startswith("9 names")
    assert "name-3" in message
    assert "name-4" not in message
