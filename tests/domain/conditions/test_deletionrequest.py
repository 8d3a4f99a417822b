"""What a DeletionRequest says of itself: nothing is claimed that is not so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.conditions.deletionrequest import BackupsObservation, deletionrequest_conditions, gravest
from lethe.domain.facts import Accepted, Outcome
from lethe.domain.requests import RequestRecord, StoreProgress, StoreState
from lethe.domain.snapshots import CopiesLeft
from lethe.domain.trust import Blocker, BlockReason
from tests.domain.conditions.reading import sound_statuses

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def _record(outcome: Outcome | None) -> RequestRecord:
    accepted = Accepted("r", "ns", "n", "d", NOW, NOW, NOW)
    state = StoreState.PLANNED if outcome is Outcome.PLANNED else StoreState.VERIFIED
    stores = {"ns/site": StoreProgress(state, {"users": 1})}
    return RequestRecord(accepted, stores=stores, completed_at=NOW if outcome else None, outcome=outcome)


def test_every_obstacle_has_its_gravity_and_its_condition() -> None:
    for reason in BlockReason:
        blocker = Blocker(reason, "why")
        assert gravest([blocker, Blocker(BlockReason.ERASING, "x")]) is not None
        for record in (None, _record(None)):
            condition_set = deletionrequest_conditions(record, [blocker], now=NOW)
            seen = sound_statuses(condition_set)
            if reason is BlockReason.PENDING:  # what may not be said looks as if nothing hindered
                assert condition_set == deletionrequest_conditions(record, [], now=NOW)
            else:
                assert condition_set.ready.reason == reason.value
            assert (seen["Ready"], seen["Erased"], seen["Purged"]) == ("False", "False", "False")
    assert gravest([]) is None


@given(st.lists(st.sampled_from(BlockReason), max_size=5), st.sampled_from([None, *Outcome]), st.booleans())
def test_a_request_is_never_shown_as_erased_unless_the_ledger_says_so(
    obstacles: list[BlockReason], outcome: Outcome | None, without_backups: bool
) -> None:
    blockers = [Blocker(one, "why") for one in obstacles]
    backups = BackupsObservation(without_backups=without_backups)
    seen = sound_statuses(deletionrequest_conditions(_record(outcome), blockers, backups=backups, now=NOW))
    assert (seen["Erased"] == "True") is (outcome is Outcome.ERASED)
    assert (seen["Purged"] == "True") is (outcome is Outcome.ERASED and without_backups)


MOMENTS = st.none() | st.sampled_from([NOW - timedelta(days=1), NOW, NOW + timedelta(days=90)])


@given(MOMENTS, st.booleans(), st.booleans(), st.booleans())
def test_purged_is_claimed_only_where_the_ledger_has_recorded_the_proof(
    gone_at: datetime | None, unproven: bool, held: bool, recorded: bool
) -> None:
    record = replace(_record(Outcome.ERASED), purged_at=NOW if recorded else None)
    left = CopiesLeft(gone_at, ("ns/site",) if unproven else ())
    condition_set = deletionrequest_conditions(
        record, [], backups=BackupsObservation(left, held=held), now=NOW
    )
    purged = next(c for c in condition_set.conditions if c.type == "Purged")
    assert (purged.status.value == "True") is recorded
    assert condition_set.state == ("Purged" if recorded else "Erased")
    if not recorded and gone_at is not None and gone_at <= NOW:
        assert purged.reason == ("SnapshotsHeld" if held else "SnapshotsOverdue")
    elif not recorded:
        assert purged.reason == "SnapshotsRemain"
