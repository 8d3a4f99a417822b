"""Requests and restores as what follows from facts; a fact that can't follow changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.facts import (
    Accepted,
    Completed,
    Confirmed,
    DetectedBy,
    IdentitiesDecided,
    Intended,
    IntentAbandoned,
    NotAsked,
    NotFound,
    Outcome,
    Planned,
    Released,
    Replayed,
    RequestFact,
    RestoreDetected,
    RestoreFact,
    SafeToServe,
    Verified,
)
from lethe.domain.requests import UNCONFIRMED, IllegalTransition, RequestRecord, StoreState, evolve
from lethe.domain.restores import RestoreEpisode, evolve_episode
from lethe.domain.tombstones import Identity, Tombstone

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TOMBSTONE = Tombstone(1, "r", "users", "1", "v")
ACCEPTED = Accepted("r", "ns", "n", "digest", NOW, NOW, NOW, stores=("ns/a",))
STORE = st.sampled_from(["ns/a", "ns/b"])
REQUEST_FACTS = st.one_of(
    st.just(ACCEPTED),
    st.builds(Confirmed, st.just("r"), st.just(("NothingFound",))),
    st.builds(Intended, st.just("r"), STORE, st.just((TOMBSTONE,))),
    st.builds(IntentAbandoned, st.just("r"), STORE, st.just("changed")),
    st.builds(Verified, st.just("r"), STORE, st.just(NOW), st.just({"users": 1})),
    st.builds(NotFound, st.just("r"), STORE, st.just(NOW), st.just("canary")),
    st.builds(NotAsked, st.just("r"), STORE),
    st.builds(Planned, st.just("r"), STORE, st.just({"users": 1})),
    st.builds(Completed, st.just("r"), st.just(NOW), st.sampled_from(Outcome)),
)


@given(st.lists(REQUEST_FACTS, max_size=12))
def test_whatever_comes_a_request_keeps_what_it_settled(facts: list[RequestFact]) -> None:
    record: RequestRecord | None = None
    for fact in facts:
        before = repr(record)
        try:
            after = evolve(record, fact)
        except IllegalTransition:
            assert repr(record) == before, "nothing was changed"
            continue
        assert repr(record) == before, "a record is never changed in place"
        if record is not None:
            assert after.accepted == record.accepted
            assert after.confirmed >= record.confirmed
            if not record.open:
                assert after.completed_at == record.completed_at
                assert after.outcome is record.outcome
                assert after.stores == record.stores
            for name, progress in record.stores.items():
                if progress.state is StoreState.VERIFIED:
                    assert after.progress(name).state is StoreState.VERIFIED
        record = after


@pytest.mark.parametrize(
    ("state", "fact"),
    [
        (None, IntentAbandoned("r", "ns/a", "x")),
        (None, Verified("r", "ns/a", NOW)),
        (Intended("r", "ns/a", (TOMBSTONE,)), NotFound("r", "ns/a", NOW, "canary")),
        (NotFound("r", "ns/a", NOW, "canary"), NotAsked("r", "ns/a")),
        (Intended("r", "ns/a", (TOMBSTONE,)), Planned("r", "ns/a")),
        (NotFound("r", "ns/a", NOW, "canary"), Intended("r", "ns/a", (TOMBSTONE,))),
        (Completed("r", NOW, Outcome.ERASED), Completed("r", NOW, Outcome.ERASED)),
        (Completed("r", NOW, Outcome.ERASED), Intended("r", "ns/a", (TOMBSTONE,))),
        (None, ACCEPTED),
    ],
)
def test_what_cant_follow_is_refused(state: RequestFact | None, fact: RequestFact) -> None:
    record = evolve(None, ACCEPTED)
    if state is not None:
        record = evolve(record, state)
    with pytest.raises(IllegalTransition):
        evolve(record, fact)


def test_an_erasure_in_a_store_that_is_given_up_ends_unconfirmed() -> None:
    record = evolve(evolve(None, ACCEPTED), Intended("r", "ns/a", (TOMBSTONE,)))
    progress = evolve(record, NotAsked("r", "ns/a")).progress("ns/a")
    assert (progress.state, progress.proof, progress.tombstones) == (StoreState.THIRD_PARTY, UNCONFIRMED, ())
    never_begun = evolve(evolve(None, ACCEPTED), NotAsked("r", "ns/a")).progress("ns/a")
    assert (never_begun.state, never_begun.proof) == (StoreState.THIRD_PARTY, None)
    assert evolve(evolve(record, NotAsked("r", "ns/a")), NotAsked("r", "ns/a")).progress("ns/a") == progress


def test_a_request_that_was_never_accepted_takes_no_fact() -> None:
    with pytest.raises(IllegalTransition):
        evolve(None, Completed("r", NOW, Outcome.ERASED))


DETECTED = RestoreDetected("s", "e", NOW, DetectedBy.JOURNAL, {"table:public.users": 10}, 3)


def _after(*facts: RestoreFact) -> RestoreEpisode:
    episode: RestoreEpisode | None = None
    for fact in facts:
        episode = evolve_episode(episode, fact)
    assert episode is not None
    return episode


def test_what_was_erased_again_adds_up_over_passes() -> None:
    episode = _after(
        DETECTED, Replayed("s", "e", NOW, 2, 0, 0), Replayed("s", "e", NOW, 3, 1, 1, (("users", "7"),))
    )
    assert (episode.re_erased, episode.left_alone, episode.unclear) == (5, 1, 1)
    assert episode.unclear_keys == (("users", "7"),)


def test_the_newest_decision_on_a_row_counts_and_one_on_a_row_beats_one_on_all() -> None:
    def decided(*decisions: tuple[str, str, str]) -> RestoreEpisode:
        return _after(DETECTED, *(IdentitiesDecided("s", "e", (one,)) for one in decisions))

    row, table, everything = ("users", "7"), ("users", "*"), ("*", "*")
    episode = decided((*everything, "Erase"), (*row, "LeaveAlone"))
    assert episode.decision_on("users", "7") is Identity.OTHER
    assert episode.decision_on("users", "8") is Identity.SAME
    episode = decided((*table, "LeaveAlone"), (*everything, "Erase"))
    assert episode.decision_on("users", "7") is Identity.OTHER
    assert episode.decision_on("people", "7") is Identity.SAME
    episode = decided((*row, "Erase"), (*row, "LeaveAlone"))
    assert episode.decision_on("users", "7") is Identity.OTHER
    episode = decided((*row, "Erase"), (*row, "LeaveAlone"), (*row, "Erase"))
    assert episode.decision_on("users", "7") is Identity.SAME
    assert _after(DETECTED).decision_on("users", "7") is None


def test_a_further_restore_in_an_episode_never_raises_the_position_keys_went_back_to() -> None:
    further = RestoreDetected("s", "e", NOW, DetectedBy.JOURNAL, {"table:public.users": 12}, 4)
    assert _after(DETECTED, further).positions == {"table:public.users": 10}
    lower = RestoreDetected("s", "e", NOW, DetectedBy.JOURNAL, {"table:public.users": 2}, 4)
    assert _after(DETECTED, lower).positions == {"table:public.users": 2}


def test_a_restore_that_has_ended_is_not_detected_again() -> None:
    for end in (SafeToServe("s", "e", NOW), Released("s", "e", NOW, "because")):
        with pytest.raises(IllegalTransition):
            evolve_episode(_after(DETECTED, end), DETECTED)
    with pytest.raises(IllegalTransition):
        evolve_episode(None, SafeToServe("s", "e", NOW))
