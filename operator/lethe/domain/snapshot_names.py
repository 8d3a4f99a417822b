"""How a snapshot's name tells when it was taken: `site-{takenAt:%Y%m%dT%H%M%SZ}.dump`.

A name that could mean two moments tells none: what is not understood exactly is reported and kept. Names
are matched in time linear in their length for each piece of the pattern, whatever either of them holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

_EXAMPLE = "site-{takenAt:%Y%m%dT%H%M%SZ}.dump"
_LONGEST_NAME = 4096  # longer than any key of S3 (1024) and any file's name (255)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# English, whatever the operator's locale: strptime would read the names of the process's language.
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DIRECTIVES = {
    "Y": "[0-9]{4}",
    "y": "[0-9]{2}",
    "m": "[0-9]{2}",
    "b": "(?i:" + "|".join(_MONTHS) + ")",
    "d": "[0-9]{2}",
    "j": "[0-9]{3}",
    "G": "[0-9]{4}",
    "V": "[0-9]{2}",
    "u": "[1-7]",
    "H": "[0-9]{2}",
    "M": "[0-9]{2}",
    "S": "[0-9]{2}",
    # A run of digits is taken whole, so that a match has one end only.
    "f": "[0-9]{1,6}(?![0-9])",
    "s": "[0-9]{1,11}(?![0-9])",
    "z": "(?:Z|[+-][0-9]{2}:?[0-9]{2})",
    "Z": "(?:UTC|GMT|Z)",
}
_CLOCK = "HMS"
_TOKEN = re.compile(r"%(.?)|([^%]+)", re.DOTALL)
_STAMP = re.compile(r"\{takenAt:([^{}]*)\}")


class InvalidName(ValueError):
    """The text is not a pattern of names; the message says what one looks like."""

    def __init__(self, pattern: str, problem: str) -> None:
        super().__init__(f"{pattern!r} {problem}; a pattern looks like {_EXAMPLE}")


@dataclass(frozen=True, slots=True)
class NamePattern:
    """Which names are snapshots, and when they were taken."""

    text: str
    _before: tuple[str, ...]
    _stamp: re.Pattern[str]
    _directives: tuple[str, ...]
    _after: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> NamePattern:
        """Parse a pattern with exactly one `{takenAt:FORMAT}`; `*` outside of it stands for any characters
        but `/`.

        FORMAT is strptime's: %Y %y %m %b %d %j %G %V %u (ISO weeks) %H %M %S %f %z %Z (UTC) %s (seconds since
        1970) and %%. It names a month, an ISO week or a day at least; a month or week counts from its first
        day on. A directive that stands there twice must say the same both times.
        Raises `InvalidName`.
        """
        stamps = list(_STAMP.finditer(text))
        if len(stamps) != 1:
            raise InvalidName(text, "must have exactly one {takenAt:FORMAT}")
        before, after = text[: stamps[0].start()], text[stamps[0].end() :]
        if set("{}") & set(before + after):
            raise InvalidName(text, "has braces other than those of {takenAt:FORMAT}")
        stamp, directives = _compile(text, stamps[0][1])
        return cls(text, _pieces(before), stamp, directives, _pieces(after))

    def taken_at(self, name: str) -> datetime | None:
        """Return when the snapshot of this name was taken, in UTC; `None`: the name does not tell."""
        if len(name) > _LONGEST_NAME:
            return None
        begins = _ends(name, self._before)
        # The rest is matched backwards, so that it is looked at once and not once for each beginning.
        backwards = tuple(piece[::-1] for piece in reversed(self._after))
        ends = {len(name) - length for length in _ends(name[::-1], backwards)} if begins else set[int]()
        moments = set()
        for begin in begins:
            match = self._stamp.match(name, begin)
            if match is not None and match.end() in ends:
                moments.add(_moment(self._directives, match.groups()))
        moments.discard(None)
        return moments.pop() if len(moments) == 1 else None


def fits(pattern: str, name: str) -> bool:
    """Tell whether a name is like a pattern without any date; `*` stands for any characters but `/`."""
    return len(name) <= _LONGEST_NAME and len(name) in _ends(name, _pieces(pattern))


def _compile(pattern: str, text: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """Return the expression of a FORMAT and the directives that its groups stand for."""
    expression, directives = "", []
    for directive, literal in _TOKEN.findall(text):
        if literal:
            expression += re.escape(literal)
        elif directive == "%":
            expression += "%"
        elif directive in _DIRECTIVES:
            expression += f"({_DIRECTIVES[directive]})"
            directives.append(directive)
        else:
            known = " ".join(f"%{name}" for name in _DIRECTIVES)
            raise InvalidName(pattern, f"has %{directive} where only {known} are understood")
    named = set(directives)
    if "*" in text:
        raise InvalidName(pattern, "has a * inside of {takenAt:FORMAT}")
    _require_moment(pattern, named)
    return re.compile(expression), tuple(directives)


def _require_moment(pattern: str, named: set[str]) -> None:
    """Raise where these directives name no moment, or a month, a week or a day beside each other."""
    if "s" in named:
        if named - {"s", "f"}:
            raise InvalidName(pattern, "has %s beside other directives")
        return
    if named & set("GVu"):
        if not {"G", "V"} <= named or named & set("Yymbdj"):
            raise InvalidName(
                pattern, "names no ISO week: that takes %G, its year, with %V, and no other day"
            )
    elif not (named & set("Yy") and named & set("jmb")) or ("d" in named and not named & set("mb")):
        raise InvalidName(pattern, "names no month: a year and a month are needed, %G and %V, or %s")
    if not named & set("jdu") and named & set(_CLOCK + "fzZ"):
        raise InvalidName(pattern, "names a time of a day, and no day")
    if {"z", "Z"} <= named:
        raise InvalidName(pattern, "has both %z and %Z")
    # Minutes without the hour would be read as minutes past midnight.
    present = [part in named for part in _CLOCK] + ["f" in named]
    if present != sorted(present, reverse=True):
        raise InvalidName(pattern, "names a part of the time without the greater one before it")


def _pieces(text: str) -> tuple[str, ...]:
    """Split into literals, between which anything may stand; a single one stands for itself."""
    return tuple(re.sub(r"\*+", "*", text).split("*"))


def _ends(name: str, pieces: tuple[str, ...]) -> set[int]:
    """Return at which places a beginning of `name` can end that has these pieces."""
    if not name.startswith(pieces[0]):
        return set()
    reached = {len(pieces[0])}
    for piece in pieces[1:]:
        spread: set[int] = set()
        for place in sorted(reached):
            while place not in spread:
                spread.add(place)
                if place < len(name) and name[place] != "/":
                    place += 1  # noqa: PLW2901  walks on until another walk has been there
        reached = {place + len(piece) for place in spread if name.startswith(piece, place)}
    return reached


def _moment(directives: tuple[str, ...], texts: tuple[str, ...]) -> datetime | None:
    """Return the moment that is told by what matched each directive; `None` where no calendar has it."""
    fields: dict[str, int] = {}
    for directive, text in zip(directives, texts, strict=True):
        field, number = _number(directive, text)
        if fields.setdefault(field, number) != number:
            return None
    microseconds = timedelta(microseconds=fields.get("f", 0))
    try:
        if "s" in fields:
            return _EPOCH + timedelta(seconds=fields["s"]) + microseconds
        if "G" in fields:
            week = datetime.fromisocalendar(fields["G"], fields["V"], fields.get("u", 1))
            day = week.replace(tzinfo=UTC)
        elif "j" in fields:
            day = datetime(fields["Y"], 1, 1, tzinfo=UTC) + timedelta(days=fields["j"] - 1)
            agreed = (fields.get("Y"), fields.get("m", day.month), fields.get("d", day.day))
            if (day.year, day.month, day.day) != agreed:
                return None
        else:
            day = datetime(fields["Y"], fields["m"], fields.get("d", 1), tzinfo=UTC)
        zone = timezone(timedelta(minutes=fields.get("z", 0)))
        local = day.replace(
            hour=fields.get("H", 0), minute=fields.get("M", 0), second=fields.get("S", 0), tzinfo=zone
        )
        return (local + microseconds).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _number(directive: str, text: str) -> tuple[str, int]:
    """Return the field that a directive speaks of and its value."""
    match directive:
        case "y":
            return "Y", int(text) + (1900 if int(text) >= 69 else 2000)  # as POSIX has it
        case "b":
            return "m", _MONTHS.index(text.lower()) + 1
        case "f":
            return "f", int(text.ljust(6, "0"))
        case "z" | "Z":
            return "z", _minutes_east(text)
        case _:
            return directive, int(text)


def _minutes_east(zone: str) -> int:
    if zone[0] not in "+-":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    east = hours * 60 + minutes if minutes < 60 else 24 * 60  # nowhere: timezone() refuses a whole day
    return -east if zone[0] == "-" else east
