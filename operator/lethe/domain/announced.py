"""Restores that are announced before they show: until they have been dealt with, nobody serves the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from lethe.domain.periods import instant
from lethe.domain.restores import RestoreEpisode
from lethe.domain.trouble import TroubleReason


class Underway(StrEnum):
    """What a person says of a restore while it goes on."""

    BEGUN = "Begun"
    ENDED = "Ended"


@dataclass(frozen=True, slots=True)
class Announcement:
    """A RestoreEvent that tells of a restore ahead, as it stands at the API server; `event` is its name.

    Without `underway` Lethe has made it, because of an object of others: `expected` is its kind and name.
    """

    event: str
    declared_at: datetime
    underway: Underway | None
    expected: str = ""


@dataclass(frozen=True, slots=True)
class ClosedAhead:
    """Why a store's gate is closed although nothing has come back there that Lethe knows of.

    `begun_at` is since when Lethe keeps off the store, if it does. `ended` are the RestoreEvents by which the
    restore has ended, once all have: the next look takes it that there was one.
    """

    reason: str
    message: str
    begun_at: datetime | None = None
    ended: frozenset[str] = frozenset()


def closed_ahead(
    announcements: Iterable[Announcement], bound: Mapping[str, datetime | None] | None
) -> ClosedAhead | None:
    """Return why a store is closed ahead of a restore; `None`: for no such reason.

    `bound` are the RestoreEvents that the ledger has tied to a restore of the store (`bound_events`); `None`
    where it has not been asked yet. What has begun closes at once, and never opens by itself.
    """
    announcements = tuple(announcements)
    begun = [one for one in announcements if one.underway is Underway.BEGUN]
    if begun:
        since = min(one.declared_at for one in begun)
        return ClosedAhead(
            TroubleReason.RESTORE_UNDERWAY.value,
            f"a restore is under way since {instant(since)}, says RestoreEvent {_named(begun)}: Lethe let go"
            " of the store, and looks at it once spec.underway is Ended (kubectl lethe restore end)",
            begun_at=since,
        )
    if bound is None:
        return None
    ahead = [one for one in announcements if not is_answered(one, bound)]
    ended = [one for one in ahead if one.underway is Underway.ENDED]
    if ended:
        return ClosedAhead(
            TroubleReason.RESTORE_UNDERWAY.value,
            f"the restore has ended, says RestoreEvent {_named(ended)}, and the store was not looked at"
            " since",
            ended=frozenset(one.event for one in ended),
        )
    if not ahead:
        return None
    first = min(ahead, key=lambda one: (one.declared_at, one.event))
    return ClosedAhead(
        EXPECTED,
        f"{first.expected} may bring its data back, says RestoreEvent {first.event}: the store is looked at,"
        " and not served until a restore has been dealt with, or none is expected any more",
    )


EXPECTED = "RestoreExpected"
"""Reason of a gate that is closed because of an object of others."""
EXPECTED_FOR = timedelta(hours=1)
"""How long a restore is expected at the longest."""


def _named(announcements: Iterable[Announcement]) -> str:
    return ", ".join(sorted(one.event for one in announcements)[:5])


def is_answered(one: Announcement, bound: Mapping[str, datetime | None]) -> bool:
    """Tell whether the restore that an event tells of is known, so that it is the ledger's from now on.

    One that was over before the event was made is another, of a RestoreEvent of the same name.
    """
    if one.event not in bound:
        return False
    over_at = bound[one.event]
    return over_at is None or over_at >= one.declared_at


def bound_events(episodes: Iterable[RestoreEpisode]) -> Mapping[str, datetime | None]:
    """Return the RestoreEvents of a store's restores, with when the last of each was over (`None`: not).

    One that was superseded is not over: what goes on from there is told of by the same words.
    """
    bound: dict[str, datetime | None] = {}
    for episode in (one for one in episodes if one.superseded_by is None):
        bound |= dict.fromkeys(episode.events, episode.safe_at)
    return bound
