"""Instants, days and counts, as they stand in custom resources."""

from datetime import UTC, date, datetime
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, AwareDatetime, Field
from pydantic_core import PydanticCustomError

from lethe.api.rules import FORBIDDEN, INT32, INT64, Keywords, Rule


def _in_utc(instant: datetime) -> datetime:
    try:
        return instant.astimezone(UTC)
    except OverflowError:  # the first and last hours that a datetime can hold, in another zone
        raise PydanticCustomError("instant", "is too far in the past or the future") from None


Instant = Annotated[AwareDatetime, AfterValidator(_in_utc), Keywords({"maxLength": 64})]
"""RFC 3339 with a time zone; UTC in Python."""

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
GivenInstant = Annotated[
    Instant,
    Rule(
        rule="self >= timestamp('1970-01-01T00:00:00Z') && self < timestamp('2200-01-01T00:00:00Z')",
        message="must be between the years 1970 and 2199",
        reason=FORBIDDEN,
        holds=lambda instant: _FIRST <= instant < _LAST,
    ),
]
"""An `Instant` that a person gives: one with which others can be reckoned."""

Day = Annotated[date, Keywords({"maxLength": 10})]
"""A calendar day, without a time zone."""


def _is_time_zone(name: str) -> bool:
    if name != "UTC" and "/" not in name:
        return False
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


TimeZone = Annotated[
    str,
    Field(min_length=1, max_length=64),
    Rule(
        rule="(self == 'UTC' || self.contains('/')) && timestamp('2026-01-01T00:00:00Z').getHours(self) >= 0",
        reason=FORBIDDEN,
        message="must be an IANA time zone such as America/New_York",
        holds=_is_time_zone,
    ),
]
"""The IANA name of a time zone."""

Count32 = Annotated[int, Field(ge=0), INT32]
Count = Annotated[int, Field(ge=0), INT64]
"""A number of things, for what may grow beyond two billion."""

MaxRecords = Annotated[int, Field(ge=1, le=1000), INT32]
"""How many records one person may have in a store before a person has to look."""

MAX_RECORDS = 5
