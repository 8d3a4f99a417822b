"""Calendar arithmetic over all month ends and leap days."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.periods import InvalidPeriod, Period, parse_duration

MOMENTS = st.integers(631_152_000, 7_258_118_400).map(lambda second: datetime.fromtimestamp(second, UTC))
EVERY_MONTH_END = [
    datetime(year, month, calendar.monthrange(year, month)[1], 23, 59, tzinfo=UTC)
    for year in (2023, 2024, 2100)
    for month in range(1, 13)
]


@given(MOMENTS, st.integers(1, 240))
def test_months_land_in_the_month_that_the_calendar_says(moment: datetime, months: int) -> None:
    later = Period(months, 0).after(moment)
    assert (later.year * 12 + later.month) - (moment.year * 12 + moment.month) == months
    assert later.day == min(moment.day, calendar.monthrange(later.year, later.month)[1])
    assert later.timetz() == moment.timetz()


@given(MOMENTS, MOMENTS, st.integers(0, 60), st.integers(0, 60))
def test_who_asked_later_is_never_due_earlier(one: datetime, other: datetime, months: int, days: int) -> None:
    period = Period(months, days)
    assert (one <= other) <= (period.after(one) <= period.after(other))


@pytest.mark.parametrize("end", EVERY_MONTH_END, ids=str)
def test_six_months_after_a_months_end_are_never_the_month_after(end: datetime) -> None:
    later = Period.parse("P6M").after(end)
    assert later.month == (end.month + 5) % 12 + 1


def test_leap_days() -> None:
    leap = datetime(2024, 2, 29, tzinfo=UTC)
    assert Period.parse("P1Y").after(leap) == datetime(2025, 2, 28, tzinfo=UTC)
    assert Period.parse("P4Y").after(leap) == datetime(2028, 2, 29, tzinfo=UTC)
    assert Period.parse("P6M").after(datetime(2023, 8, 31, tzinfo=UTC)) == leap
    assert Period.parse("P1M1D").after(datetime(2023, 1, 31, tzinfo=UTC)) == datetime(2023, 3, 1, tzinfo=UTC)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_a_period_is_what_its_text_says(years: int, months: int, weeks: int, days: int) -> None:
    text = f"P{years}Y{months}M{weeks}W{days}D"
    if years or months or weeks or days:
        assert Period.parse(text) == Period(years * 12 + months, weeks * 7 + days)
    else:
        with pytest.raises(InvalidPeriod):
            Period.parse(text)


@pytest.mark.parametrize("text", ["", "P", "6M", "P-1M", "PT1H", "P1.5M", "P0D", "p6m", "P6M ", "P1M1Y"])
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(InvalidPeriod):
        Period.parse(text)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_a_duration_is_what_its_text_says(hours: int, minutes: int, seconds: int) -> None:
    expected = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == expected


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "0s", "5 s", "5s ", "1y", "999999999999999d", "0.0000001ms"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidPeriod):
        parse_duration(text)


@pytest.mark.parametrize(
    ("asked", "allowed", "exceeds"),
    [
        ("P6M", "P6M", False),
        ("P7M", "P6M", True),
        ("P180D", "P6M", False),
        ("P181D", "P6M", False),
        ("P182D", "P6M", True),  # from September on, six months can be 181 days
        ("P26W", "P6M", True),
        ("P1Y", "P12M", False),
        ("P5M30D", "P6M", True),
    ],
)
def test_a_period_exceeds_another_if_it_does_so_from_any_day_on(
    asked: str, allowed: str, exceeds: bool
) -> None:
    assert Period.parse(asked).exceeds(Period.parse(allowed)) is exceeds


@pytest.mark.parametrize("text", ["P6M", "P1Y6M10D", "P26W"])
def test_a_period_is_written_as_one_that_means_the_same(text: str) -> None:
    assert Period.parse(str(Period.parse(text))) == Period.parse(text)
