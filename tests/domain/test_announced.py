"""Why a store is closed ahead of a restore."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.announced import Announcement, Underway, bound_events, closed_ahead
from lethe.domain.facts import DetectedBy
from lethe.domain.restores import RestoreEpisode

NOW = datetime(2026, 11, 29, 3, tzinfo=UTC)
HOUR = timedelta(hours=1)
BEGUN, ENDED = (Announcement("incident-42", NOW, underway) for underway in Underway)
TOLD = st.builds(
    Announcement,
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from([NOW - HOUR, NOW, NOW + HOUR]),
    st.sampled_from(Underway),
)
BOUND = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.sampled_from([None, NOW - HOUR, NOW, NOW + HOUR])
)


def restore(**more: object) -> RestoreEpisode:
    """Return a restore that incident-42 is about."""
    known = RestoreEpisode("s", "e", NOW, DetectedBy.JOURNAL, events={"incident-42": "Drill"})
    return replace(known, **more)  # type: ignore[arg-type]


@given(st.lists(TOLD, unique_by=lambda one: one.event), st.none() | BOUND)
def test_what_has_begun_closes_whatever_else_is_known(
    told: list[Announcement], bound: dict[str, datetime | None] | None
) -> None:
    ahead = closed_ahead(told, bound)
    begun = [one for one in told if one.underway is Underway.BEGUN]
    assert (ahead is not None and ahead.begun_at is not None) == bool(begun)
    if begun and ahead is not None:
        assert ahead.begun_at == min(one.declared_at for one in begun)
        assert ahead.ended == frozenset()
        assert all(one.event in ahead.message for one in begun)


def test_what_has_ended_closes_until_its_restore_is_known() -> None:
    ahead = closed_ahead([ENDED], {})
    assert ahead is not None
    assert ahead.begun_at is None
    assert ahead.ended == {"incident-42"}
    for known in (restore(), restore(safe_at=NOW + HOUR), restore(safe_at=NOW)):
        assert closed_ahead([ENDED], bound_events([known])) is None


def test_an_event_of_a_name_that_was_used_before_is_about_another_restore() -> None:
    before = restore(detected_at=NOW - 2 * HOUR, safe_at=NOW - HOUR)
    assert closed_ahead([ENDED], bound_events([before])) is not None
    superseded = restore(detected_at=NOW - HOUR, superseded_by="e-2")
    assert closed_ahead([ENDED], bound_events([superseded])) is not None
    in_that_second = replace(superseded, detected_at=NOW + HOUR / 3600 / 2)
    assert closed_ahead([ENDED], bound_events([in_that_second])) is not None
    assert closed_ahead([ENDED], bound_events([before, restore(detected_at=NOW)])) is None


def test_before_the_ledger_was_asked_an_ended_restore_of_long_ago_closes_nothing() -> None:
    assert closed_ahead([ENDED], None) is None
    assert closed_ahead([], {}) is None
