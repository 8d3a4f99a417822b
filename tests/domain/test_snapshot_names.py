"""Names tell when a snapshot was taken, exactly or not at all."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.snapshot_names import InvalidName, NamePattern, fits

MOMENTS = st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001
EVENING = datetime(2026, 5, 22, 21, 30, 15, tzinfo=UTC)


def taken_at(pattern: str, name: str) -> datetime | None:
    return NamePattern.parse(pattern).taken_at(name)


@pytest.mark.parametrize(
    ("written", "precision"),
    [
        ("%Y%m%dT%H%M%SZ", timedelta(seconds=1)),
        ("%Y-%m-%d_%H-%M-%S.%f", timedelta(microseconds=1)),
        ("%d.%m.%Y %H:%M", timedelta(minutes=1)),
        ("%Y%j", timedelta(days=1)),
        ("%G-W%V-%uT%H%M", timedelta(minutes=1)),
        ("%Y/%m/%d/%Y%m%dT%H", timedelta(hours=1)),
        ("100%%-%d%b%Y", timedelta(days=1)),
    ],
)
@given(moment=MOMENTS)
def test_a_moment_that_is_written_is_read_back(written: str, precision: timedelta, moment: datetime) -> None:
    pattern = NamePattern.parse(f"site-{{takenAt:{written}}}.dump")
    rounded = moment - (moment - datetime(1, 1, 1, tzinfo=UTC)) % precision
    assert pattern.taken_at(f"site-{moment.strftime(written)}.dump") == rounded


@given(MOMENTS, st.integers(-23 * 60, 23 * 60))
def test_a_zone_in_the_name_is_honoured(moment: datetime, minutes: int) -> None:
    local = moment.replace(microsecond=0, year=max(moment.year, 1002)).astimezone(
        timezone(timedelta(minutes=minutes))
    )
    for written in (
        local.strftime("%Y%m%d%H%M%S%z"),
        local.strftime("%Y%m%d%H%M%S") + local.isoformat()[-6:],
    ):
        read = taken_at("{takenAt:%Y%m%d%H%M%S%z}", written)
        assert read == local
        assert read is not None
        assert read.tzinfo is UTC


@pytest.mark.parametrize(
    ("pattern", "name", "moment"),
    [
        ("site-{takenAt:%Y%m%d}.dump", "site-20260522.dump", datetime(2026, 5, 22, tzinfo=UTC)),
        ("{takenAt:%y%m%d}", "690101", datetime(1969, 1, 1, tzinfo=UTC)),
        ("{takenAt:%y%m%d}", "680101", datetime(2068, 1, 1, tzinfo=UTC)),
        ("{takenAt:%s}.gz", "1779485415.gz", EVENING),
        ("{takenAt:%s.%f}.gz", "1779485415.5.gz", EVENING.replace(microsecond=500_000)),
        ("{takenAt:%d-%b-%Y}", "22-MAY-2026", datetime(2026, 5, 22, tzinfo=UTC)),
        ("{takenAt:%Y%m%dT%H%M%S%Z}", "20260522T213015UTC", EVENING),
        ("{takenAt:%Y%m%dT%H%M%S%z}", "20260522T213015Z", EVENING),
        ("{takenAt:%Y%m%dT%H%M%S%z}", "20260522T233015+0200", EVENING),
        ("{takenAt:%Y-%j}", "2024-366", datetime(2024, 12, 31, tzinfo=UTC)),
        ("*-{takenAt:%Y%m%dT%H%M%SZ}.*", "db-3-20260522T213015Z.sql.gz", EVENING),
        ("**-{takenAt:%Y%m%dT%H%M%SZ}", "-20260522T213015Z", EVENING),
        ("*/{takenAt:%Y/%m/%d}/site.dump", "nightly/2026/05/22/site.dump", datetime(2026, 5, 22, tzinfo=UTC)),
        ("a.b-{takenAt:%Y%m%d}", "a.b-20260522", datetime(2026, 5, 22, tzinfo=UTC)),
        ("site-{takenAt:%Y%m}.sql.gz", "site-202605.sql.gz", datetime(2026, 5, 1, tzinfo=UTC)),
        ("site-{takenAt:%G%V}.sql.gz", "site-202601.sql.gz", datetime(2025, 12, 29, tzinfo=UTC)),
        ("site-{takenAt:%G%V}.sql.gz", "site-202053.sql.gz", datetime(2020, 12, 28, tzinfo=UTC)),
        ("{takenAt:%G-W%V-%uT%H%MZ}", "2026-W21-5T2130Z", datetime(2026, 5, 22, 21, 30, tzinfo=UTC)),
    ],
)
def test_a_name_tells_its_moment(pattern: str, name: str, moment: datetime) -> None:
    assert taken_at(pattern, name) == moment


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("site-{takenAt:%Y%m%d}.dump", "site-20260522.dump.tmp"),
        ("site-{takenAt:%Y%m%d}.dump", "xsite-20260522.dump"),
        ("site-{takenAt:%Y%m%d}.dump", "site-20260522.dump\n"),
        ("site-{takenAt:%Y%m%d}.dump", "site-20260522xdump"),
        ("site-{takenAt:%Y%m%d}.dump", "SITE-20260522.dump"),
        ("site-{takenAt:%Y%m%d}.dump", "site-2026522.dump"),
        ("site-{takenAt:%Y%m%d}.dump", "site-٢٠٢٦٠٥٢٢.dump"),
        ("{takenAt:%Y%m%d}", "20260229"),
        ("{takenAt:%Y%m%d}", "20261301"),
        ("{takenAt:%Y%m%d}", "00000101"),
        ("{takenAt:%Y-%j}", "2026-366"),
        ("{takenAt:%G%V}", "202500"),
        ("{takenAt:%G%V}", "202553"),
        ("{takenAt:%Y%m}", "202613"),
        ("{takenAt:%Y-%j}", "2026-000"),
        ("{takenAt:%Y%m%d%H%M%S}", "20260522240000"),
        ("{takenAt:%Y%m%d%H%M%S}", "20260522235960"),
        ("{takenAt:%Y%m%d%H%M%S%z}", "20260522235959+2400"),
        ("{takenAt:%Y%m%d%H%M%S%z}", "20260522235959+0060"),
        ("{takenAt:%Y%m%d%H%M%S%z}", "00010101000000+0100"),
        ("{takenAt:%Y%m%d}*", "a/20260522"),
        ("*{takenAt:%Y%m%d}", "a/20260522"),
        ("{takenAt:%Y%m%d}*", "20260522/a"),
        ("{takenAt:%s}", "123456789012"),
        ("{takenAt:%s}*", "177948541512"),
        ("{takenAt:%s.%f}*", "1779485415.1234567"),
        ("{takenAt:%Y%m%d}", "2" * 5000),
        ("{takenAt:%Y%m%d}*", "20260522" + "x" * 5000),
        ("{takenAt:%Y%m%d}", ""),
    ],
)
def test_a_name_that_is_not_exactly_like_the_pattern_tells_nothing(pattern: str, name: str) -> None:
    assert taken_at(pattern, name) is None


@pytest.mark.parametrize(
    ("pattern", "name", "like"),
    [
        ("site.dump", "site.dump", True),
        ("site.dump", "site.dump2", False),
        ("*/site.*", "last/site.dump", True),
        ("*/site.*", "a/b/site.dump", False),
        ("*", "x" * 5000, False),
    ],
)
def test_a_name_without_a_date_is_like_its_pattern_or_not(pattern: str, name: str, like: bool) -> None:
    assert fits(pattern, name) is like


def test_a_name_that_could_mean_two_moments_tells_none() -> None:
    assert taken_at("*{takenAt:%Y%m%d}*", "from-20260522-to-20260523") is None
    assert taken_at("*{takenAt:%s}", "1779485415") is None
    assert taken_at("*{takenAt:%Y%m%d}*", "20260522-of-20260522") == datetime(2026, 5, 22, tzinfo=UTC)


def test_parts_of_a_name_that_contradict_each_other_tell_nothing() -> None:
    pattern = "{takenAt:%Y/%m/%Y%m%d}"
    assert taken_at(pattern, "2026/05/20260522") == datetime(2026, 5, 22, tzinfo=UTC)
    assert taken_at(pattern, "2026/06/20260522") is None
    assert taken_at("{takenAt:%Y%m%d-%j}", "20260522-142") == datetime(2026, 5, 22, tzinfo=UTC)
    assert taken_at("{takenAt:%Y%m%d-%j}", "20260522-143") is None


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "site.dump",
        "site-{takenAt}.dump",
        "site-{takenAt:}.dump",
        "site-{takenAt:plain}.dump",
        "{takenAt:%Y%m%d}-{takenAt:%Y%m%d}",
        "{store}-{takenAt:%Y%m%d}",
        "{takenAt:%Y%m%d}}",
        "{takenAt:%Y%m%d*}",
        "{takenAt:%Y}",
        "{takenAt:%Y%d}",
        "{takenAt:%Y%m%H}",
        "{takenAt:%Y%m%z}",
        "{takenAt:%Y%V}",
        "{takenAt:%G}",
        "{takenAt:%G%u}",
        "{takenAt:%G%V%m}",
        "{takenAt:%G%V%H}",
        "{takenAt:%m%d}",
        "{takenAt:%H%M%S}",
        "{takenAt:%Y%m%d%M}",
        "{takenAt:%Y%m%d%H%f}",
        "{takenAt:%Y%m%d%p}",
        "{takenAt:%Y%m%d%}",
        "{takenAt:%c}",
        "{takenAt:%s%Y}",
        "{takenAt:%Y%m%d%z%Z}",
        "{TAKENAT:%Y%m%d}",
    ],
)
def test_a_pattern_that_tells_no_moment_is_refused_with_an_example(pattern: str) -> None:
    with pytest.raises(InvalidName, match=re.escape("site-{takenAt:%Y%m%dT%H%M%SZ}.dump")):
        NamePattern.parse(pattern)


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_refused(text: str) -> None:
    for pattern in (text, f"{{takenAt:{text}}}", f"{text}{{takenAt:%Y%m%d}}"):
        try:
            parsed = NamePattern.parse(pattern)
        except InvalidName:
            continue
        assert parsed.text == pattern


@given(st.text(alphabet="0123456789a*-/.TZ", max_size=60), st.text(alphabet="0123456789a-/.TZ", max_size=60))
def test_matching_agrees_with_a_plain_expression(around: str, name: str) -> None:
    before, after = around[:2], around[2:4]
    expression = "[^/]*".join(map(re.escape, before.split("*")))
    expression += r"\d{8}" + "[^/]*".join(map(re.escape, after.split("*")))
    for candidate in (name, before.replace("*", "a") + "20260522" + after.replace("*", "-")):
        if taken_at(before + "{takenAt:%Y%m%d}" + after, candidate) is not None:
            assert re.fullmatch(expression, candidate)
    whole = before.replace("*", "a") + "20260522" + after.replace("*", "-")
    if not any(one.isdigit() for one in before + after):
        assert taken_at(before + "{takenAt:%Y%m%d}" + after, whole) == datetime(2026, 5, 22, tzinfo=UTC)


def test_no_pattern_and_name_keep_it_busy() -> None:
    # A backtracking expression would need more steps here than there are atoms.
    pattern = NamePattern.parse("*a" * 100 + "{takenAt:%Y%m%d}" + "a*" * 100)
    assert pattern.taken_at("a" * 4000) is None
    assert pattern.taken_at("a" * 1000 + "20260522" + "a" * 1000) == datetime(2026, 5, 22, tzinfo=UTC)
