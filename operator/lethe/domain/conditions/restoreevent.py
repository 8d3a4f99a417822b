"""Where a RestoreEvent stands."""

from __future__ import annotations

from typing import Literal

from lethe.domain.conditions.base import (
    FALSE,
    TRUE,
    UNKNOWN,
    Condition,
    ConditionSet,
    ConditionStatus,
    with_progress,
)
from lethe.domain.restores import RestoreEpisode

VERIFIED = ("Verified", "every erasure is in place")
"""Reason and message of `SafeToServe` where everything was read back."""


UNDER_REPLAY = (
    "the store went back in time; its erasures are applied again",
    "a person says that the store was restored; what was erased in it is looked for and erased again",
)
"""What is said of a replay at first: of a restore that was found, and of one that is taken at a word."""


Shown = Literal[
    "Waiting", "Replaying", "IdentityUnclear", "HeldRowsReturned", "AwaitingRelease", "MappingDoesNotFit"
]
"""Where a replay stands, as its conditions say it."""


def released(episode: RestoreEpisode | None) -> tuple[str, str] | None:
    """Return reason and message of `SafeToServe` after a restore whose glass a person broke; else `None`."""
    if episode is None or episode.released_because is None:
        return None
    left = (
        "and not all of its erasures are known to be in place"
        if episode.left is None
        else f"{episode.left} erased persons stand in it, or may"
        if episode.left
        else "and every erasure is in place"
    )
    by = f"RestoreEvent {episode.released_by}" if episode.released_by else "a person"
    said = f"the glass was broken: {by} let the store be served ({episode.released_because})"
    return "Released", f"{said}; {left}"


def restoreevent_conditions(  # noqa: PLR0911 - one return for each state
    episode: RestoreEpisode | None,
    *,
    reason: str,
    expired: bool = False,
    underway: str | None = None,
    expected: tuple[str, bool] | None = None,
    replay: tuple[Shown, str] | None,
) -> ConditionSet:
    """Say where a RestoreEvent stands; `episode` is `None` while no restore has been seen yet.

    `expired` tells that none has been seen for so long that this declaration counts for none any more,
    `underway` what is waited for while the event tells of one that is under way. `expected` is what is said
    of an event that tells of an object of others, and whether no restore is expected any more.
    """
    permitted = (
        Condition("Permitted", FALSE, "Undeclared", "nobody has given a reason; set spec.reason")
        if reason == "Undeclared"
        else Condition("Permitted", TRUE, reason, "the reason was given")
    )
    if underway is not None:
        return _ahead("Underway", underway, permitted)
    if episode is None and expected is not None:
        if reason == "Undeclared":
            permitted = Condition("Permitted", UNKNOWN, "NothingRestored", "no restore was seen")
        return (_ended if expected[1] else _ahead)(
            "Expired" if expected[1] else "Expected", expected[0], permitted
        )
    if episode is None and expired:
        message = (
            "no restore was seen within a day of this declaration, and it counts for none any more; declare "
            "the next one by another RestoreEvent"
        )
        return _ended("Expired", message, permitted)
    if episode is None:
        return _ahead("Declared", "declared; the store has not been seen to go back in time", permitted)
    if episode.superseded_by is not None:
        message = f"the store went back once more; RestoreEvent {episode.superseded_by} goes on from there"
        return _ended("Superseded", message, permitted)
    if not episode.open:
        since = episode.safe_at
        summary = f"{episode.re_erased} erased again, {episode.left_alone} left alone"
        if episode.same_address:
            summary += f" ({episode.same_address} of them with the address of who was erased there)"
        if episode.never_found:
            summary += (
                f"; {episode.never_found} addresses were not found here when asked for, and can't be looked "
                "for again: a copy from before may hold them"
            )
        by_a_person = released(episode)
        if by_a_person is not None:
            in_place = ConditionStatus.of(episode.left == 0)
            summary = f"{by_a_person[1]}; {summary}"
            return ConditionSet(
                "Released",
                (
                    Condition("Ready", TRUE, "Released", summary, since),
                    permitted,
                    Condition("Replayed", in_place, "Released", summary, since),
                    Condition("SafeToServe", in_place, "Released", summary, since),
                ),
            )
        state = "SafeToServe"
        if episode.nothing_came_back:
            state = "NothingCameBack"
            summary = f"the store shows no restore, and nobody was back who had been erased; {summary}"
        return ConditionSet(
            state,
            (
                Condition("Ready", TRUE, state, summary, since),
                permitted,
                Condition("Replayed", TRUE, "AllReErased", summary, since),
                Condition("SafeToServe", TRUE, "Verified", summary, since),
            ),
        )
    kind, message = replay or ("Replaying", UNDER_REPLAY[0])
    shown = "Replaying" if kind == "Waiting" else kind
    ready = Condition("Ready", FALSE, shown, message)
    stalled = kind == "MappingDoesNotFit"
    asks = kind in ("IdentityUnclear", "HeldRowsReturned", "AwaitingRelease")
    return ConditionSet(
        "Stalled" if stalled else shown,
        (
            *with_progress(ready, stalled=stalled, working=not stalled and not asks),
            permitted,
            Condition("Replayed", FALSE, "Waiting" if kind == "Waiting" else "Replaying", message),
            Condition("SafeToServe", FALSE, shown, message),
        ),
    )


def _ahead(reason: str, message: str, permitted: Condition) -> ConditionSet:
    """Say that no restore has been seen yet."""
    return ConditionSet(
        reason,
        (
            *with_progress(Condition("Ready", FALSE, reason, message), working=True),
            permitted,
            Condition("Replayed", FALSE, "Waiting", message),
            Condition("SafeToServe", FALSE, reason, message),
        ),
    )


def _ended(reason: str, message: str, permitted: Condition) -> ConditionSet:
    """Say that nothing more comes of it, and that nothing was verified by it."""
    return ConditionSet(
        reason,
        (
            Condition("Ready", TRUE, reason, message),
            permitted,
            Condition("Replayed", FALSE, reason, message),
            Condition("SafeToServe", FALSE, reason, message),
        ),
    )
