"""In which language, and in whose time, somebody reads."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_time, get_timezone_location, get_timezone_name

ENGLISH = Locale("en")
# They turn the letters after them around: a name could make the sentence around it say something else.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant as somebody reads it: `Sunday, November 22, 2026`, `11:00 AM`, and the zone by its name."""

    date: str
    time: str
    zone: str


def parse_locale(text: str | None) -> Locale | None:
    """Return the locale that `de-CH`, `pt_BR` or `fr_FR.UTF-8` means; `None`: none that is known.

    A country that nobody knows in this language is left out: `de-XX` is German.
    """
    parts = (text or "").partition(".")[0].partition("@")[0].replace("-", "_").split("_")
    while parts:
        try:
            return Locale.parse("_".join(parts))
        except (UnknownLocaleError, ValueError, TypeError):
            parts.pop()
    return None


def choose_language(recipient: Locale | None, offered: Collection[str]) -> str:
    """Return which of the `offered` languages (`pt_BR`) the reader reads; `en` if none."""
    if recipient is None:
        return str(ENGLISH)
    language, script, country = recipient.language, recipient.script, recipient.territory
    wanted = [
        "_".join(filter(None, (language, script, country))),
        "_".join(filter(None, (language, country))),
        "_".join(filter(None, (language, script))),
        language,
        # Portuguese of another country is nearer than English.
        *sorted(one for one in offered if one.partition("_")[0] == language),
    ]
    return next((one for one in wanted if one in offered), str(ENGLISH))


def in_words(at: datetime, zone: tzinfo, locale: Locale) -> Moment:
    """Return an instant in the reader's zone and language.

    The zone is told by its name and its distance from UTC, as an hour comes twice when summer time ends.
    """
    try:
        local = at.astimezone(zone)
    except OverflowError:  # within hours of year 1 or 9999
        local = at.astimezone(UTC)
    shown = local.tzinfo or UTC
    distance = _distance(local)
    # Babel takes "UTC" for a name only from a ZoneInfo.
    name = get_timezone_name(
        local if zone is not UTC else local.replace(tzinfo=ZoneInfo("UTC")), locale=locale
    )
    if name.startswith(("GMT", "UTC")):
        # CLDR has no name for it: the place says more, if the language has a word for places unknown.
        with suppress(KeyError):
            name = get_timezone_location(shown, locale=locale, return_city=True)
    return Moment(
        date=format_date(local, "full", locale=locale),
        # CLDR puts a narrow blank before AM that older mail programs show as a box.
        time=format_time(local, "short", tzinfo=shown, locale=locale).replace("\u202f", "\u00a0"),
        zone=f"{name}, {distance}" if distance else name,
    )


def _distance(local: datetime) -> str:
    offset = local.utcoffset()
    if not offset and isinstance(local.tzinfo, ZoneInfo) and local.tzinfo.key not in {"UTC", "Etc/UTC"}:
        return "UTC+00:00"
    if not offset:
        return ""
    seconds = int(offset.total_seconds())
    minutes = abs(seconds) // 60
    # A minus, not a hyphen: no line ends after it.
    return f"UTC{'−' if seconds < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"


def country_name(code: str, locale: Locale) -> str:
    """Return a country's name; the code itself if it has none."""
    return str(locale.territories.get(code.upper(), code))


def one_line(text: str) -> str:
    """Return text in one line, without control characters and signs that turn the writing around."""
    kept = (
        " " if character.isspace() else character
        for character in str.__str__(text)
        if character.isspace()
        or (unicodedata.category(character) not in {"Cc", "Cs"} and character not in _TURNING)
    )
    return " ".join("".join(kept).split())
