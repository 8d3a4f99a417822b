"""Two clocks that agree, else nothing that can't be undone is done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.clocks import TOLERANCE, Clocks

NOW = datetime(2026, 11, 3, 9, tzinfo=UTC)
YEAR, SECOND = timedelta(days=365), timedelta(seconds=1)
OFFSETS = st.timedeltas(-2 * YEAR, 2 * YEAR) | st.sampled_from([TOLERANCE, -TOLERANCE, timedelta(0)])


def test_clocks_that_are_within_two_minutes_agree() -> None:
    for offset in (timedelta(0), TOLERANCE, -TOLERANCE):
        assert Clocks(NOW, {"the API server": NOW + offset}, NOW - offset).disagreement() is None


@given(OFFSETS, OFFSETS, OFFSETS)
def test_any_clock_that_is_off_is_a_disagreement(
    server: timedelta, backend: timedelta, own: timedelta
) -> None:
    told = Clocks(NOW, {"the API server": NOW + server, "the backend": NOW + backend}, NOW + own)
    assert (told.disagreement() is None) is all(abs(one) <= TOLERANCE for one in (server, backend, own))


def test_one_clock_alone_is_not_relied_upon() -> None:
    assert "no second clock" in (Clocks(NOW, {}, NOW).disagreement() or "")


def test_the_clock_that_differs_is_named_with_what_it_says() -> None:
    others = {"the API server": NOW, "the backend": NOW - YEAR}
    message = Clocks(NOW, others, NOW).disagreement() or ""
    assert "this host says 2026-11-03T09:00:00Z and the backend says 2025-11-03T09:00:00Z" in message


def test_a_clock_that_was_set_together_with_the_others_shows_against_the_steady_one() -> None:
    message = Clocks(NOW + YEAR, {"the API server": NOW + YEAR}, NOW).disagreement() or ""
    assert "was set from about 2026-11-03T09:00:00Z to 2027-11-03T09:00:00Z" in message
    assert Clocks(NOW, {"the API server": NOW}, NOW + TOLERANCE + SECOND).disagreement() is not None
