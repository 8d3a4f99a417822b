"""ISO 8601 periods in calendar terms: a month is a month, not thirty days."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_PERIOD = re.compile(r"P(?:(\d{1,3})Y)?(?:(\d{1,3})M)?(?:(\d{1,3})W)?(?:(\d{1,4})D)?")
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|s|m|h|d))")
_LONGEST_SECONDS = 10**12  # what a timedelta can hold, with room to add to it
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class InvalidPeriod(ValueError):
    """The text is not a period or duration that Lethe understands; the message says what one looks like."""


@dataclass(frozen=True, slots=True)
class Period:
    """A calendar period: years and months first, then days, as in `P1Y6M10D`."""

    months: int
    days: int

    def __str__(self) -> str:
        return f"P{self.months}M{self.days}D" if self.days else f"P{self.months}M"

    @classmethod
    @lru_cache(maxsize=64)
    def parse(cls, text: str) -> Period:
        """Parse an ISO 8601 period of years, months, weeks and days that is greater than zero.

        Raises `InvalidPeriod`.
        """
        match = _PERIOD.fullmatch(text)
        parts = [int(part or 0) for part in match.groups()] if match else []
        if not any(parts):
            raise InvalidPeriod(f"{text!r} is not an ISO 8601 period greater than zero, such as P6M or P1Y6M")
        years, months, weeks, days = parts
        return cls(years * 12 + months, weeks * 7 + days)

    def after(self, moment: datetime) -> datetime:
        """Return the instant one period later; a month's end stays a month's end (31 August + P6M is
        28 or 29 February).
        """
        month_index = moment.year * 12 + moment.month - 1 + self.months
        year, month = divmod(month_index, 12)
        last_day = calendar.monthrange(year, month + 1)[1]
        moved = moment.replace(year=year, month=month + 1, day=min(moment.day, last_day))
        return moved + timedelta(days=self.days)

    def exceeds(self, other: Period) -> bool:
        """Tell whether this one ends later than another from any day on: P183D does exceed P6M, in spring."""
        day = datetime(2024, 1, 1)  # noqa: DTZ001 - days of the calendar, of no zone
        return any(
            self.after(start) > other.after(start)
            for start in (day + timedelta(days=n) for n in range(4 * 366))
        )


def instant(moment: datetime) -> str:
    """Return a moment as Kubernetes writes it: whole seconds, UTC."""
    # Not by `strftime`, which leaves out the zeros before a year as early as this one can be.
    return f"{moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat()}Z"


def parse_duration(text: str) -> timedelta:
    """Parse a duration as Go and Kubernetes write it: `500ms`, `10s`, `1h30m`; greater than zero.

    Raises `InvalidPeriod`.
    """
    matches = list(_DURATION.finditer(text))
    if not matches or "".join(m.group(0) for m in matches) != text:
        raise InvalidPeriod(f"{text!r} is not a duration such as 500ms, 10s, 5m or 1h30m")
    seconds = sum(float(m.group(1)) * _UNIT_SECONDS[m.group(2)] for m in matches)
    if not 1e-6 <= seconds < _LONGEST_SECONDS:  # timedelta would round what is shorter to nothing
        raise InvalidPeriod(f"{text!r} is zero, or longer than can be counted")
    return timedelta(seconds=seconds)
