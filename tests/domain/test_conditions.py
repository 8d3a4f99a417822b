"""Conditions for every reason: never both Reconciling and Stalled, and nothing claimed that is not so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.conditions import (
    BackupsObservation,
    ConditionSet,
    StoreObservation,
    conditions_of_request,
    conditions_of_restore,
    conditions_of_store,
    gravest,
)
from lethe.domain.facts import Accepted, DetectedBy, Outcome
from lethe.domain.requests import RequestRecord, StoreProgress, StoreState
from lethe.domain.restores import RestoreEpisode
from lethe.domain.snapshots import CopiesLeft
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.domain.trust import Blocker, BlockReason

NOW = datetime(2026, 3, 1, tzinfo=UTC)
Shown = Literal["Waiting", "Replaying", "IdentityUnclear", "AwaitingRelease", "MappingDoesNotFit"]


def _is_sound(condition_set: ConditionSet) -> dict[str, Any]:
    types = [condition.type for condition in condition_set.conditions]
    assert len(types) == len(set(types))
    assert not {"Reconciling", "Stalled"} <= set(types)
    for condition in condition_set.conditions:
        assert condition.reason.isalnum()
        assert condition.reason[0].isupper()
        assert condition.message
        if condition.type in ("Reconciling", "Stalled"):
            assert condition.status.value == "True"
            assert condition_set.ready.status.value != "True"
    return {condition.type: condition.status.value for condition in condition_set.conditions}


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
            condition_set = conditions_of_request(record, [blocker], now=NOW)
            seen = _is_sound(condition_set)
            if reason is BlockReason.PENDING:  # what may not be said looks as if nothing hindered
                assert condition_set == conditions_of_request(record, [], now=NOW)
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
    seen = _is_sound(conditions_of_request(_record(outcome), blockers, backups=backups, now=NOW))
    assert (seen["Erased"] == "True") is (outcome is Outcome.ERASED)
    assert (seen["Purged"] == "True") is (outcome is Outcome.ERASED and without_backups)


MOMENTS = st.none() | st.sampled_from([NOW - timedelta(days=1), NOW, NOW + timedelta(days=90)])


@given(MOMENTS, st.booleans(), st.booleans(), st.booleans())
def test_purged_is_claimed_only_where_the_ledger_has_recorded_the_proof(
    gone_at: datetime | None, unproven: bool, held: bool, recorded: bool
) -> None:
    record = replace(_record(Outcome.ERASED), purged_at=NOW if recorded else None)
    left = CopiesLeft(gone_at, ("ns/site",) if unproven else ())
    condition_set = conditions_of_request(record, [], backups=BackupsObservation(left, held=held), now=NOW)
    purged = next(c for c in condition_set.conditions if c.type == "Purged")
    assert (purged.status.value == "True") is recorded
    assert condition_set.state == ("Purged" if recorded else "Erased")
    if not recorded and gone_at is not None and gone_at <= NOW:
        assert purged.reason == ("SnapshotsHeld" if held else "SnapshotsOverdue")
    elif not recorded:
        assert purged.reason == "SnapshotsRemain"


@pytest.mark.parametrize("reason", ["Undeclared", "Drill", "NaturalDisaster"])
@pytest.mark.parametrize("shown", [None, *get_args(Shown)])
@pytest.mark.parametrize("state", ["unseen", "open", "safe", "released"])
def test_a_restore_is_safe_only_when_it_has_ended(reason: str, shown: Shown | None, state: str) -> None:
    episode = None
    if state != "unseen":
        safe_at = None if state == "open" else NOW
        because = "we looked" if state == "released" else None
        episode = RestoreEpisode(
            *("s", "e", NOW, DetectedBy.JOURNAL), safe_at=safe_at, released_because=because
        )
    replay = (shown, "why") if shown and state == "open" else None
    seen = _is_sound(conditions_of_restore(episode, reason=reason, replay=replay))
    assert (seen["SafeToServe"] == "True") is (state in ("safe", "released"))
    assert (seen["Permitted"] == "True") is (reason != "Undeclared")


TROUBLES = st.none() | st.sampled_from(TroubleReason).map(lambda reason: Trouble(reason, "why"))
SIGHTS = st.builds(
    StoreObservation,
    third_party=st.booleans(),
    proved=st.booleans(),
    trouble=TROUBLES,
    kinds_unmapped=st.just(()) | st.just(("Email",)),
    lookalikes=st.just(()) | st.just(("users.phone",)),
    journal=st.sampled_from(["Kept", "NotPermitted", "NotSupported"]),
    journal_message=st.just("why"),
    without_backups=st.booleans(),
    looked=st.booleans(),
    replay=st.none() | st.just(("Replaying", "why")),
)


@given(SIGHTS)
def test_a_store_is_never_shown_as_safe_in_trouble_or_during_a_replay(observed: StoreObservation) -> None:
    seen = _is_sound(conditions_of_store(observed))
    if seen.get("SafeToServe") == "True":
        assert observed.looked
        assert observed.replay is None
        assert observed.trouble is None
    if seen["Ready"] == "True":
        assert observed.third_party or (observed.proved and observed.trouble is None)
