"""A restore as the ledger knows it: from detection, over the replay, to the open gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from math import inf
from typing import assert_never

from lethe.domain.facts import (
    DetectedBy,
    IdentitiesDecided,
    Released,
    Replayed,
    RestoreDetected,
    RestoreExplained,
    RestoreFact,
    SafeToServe,
    Superseded,
)
from lethe.domain.requests import IllegalTransition
from lethe.domain.snapshots import CLOCK_SKEW
from lethe.domain.tombstones import Identity, Tombstone


@dataclass(frozen=True, slots=True)
class Release:
    """A person's word in a RestoreEvent that the store may be served, and how the API server knows them.

    With the event's `uid` it breaks the glass; without, it counts only once everything is verified.
    """

    because: str
    uid: str = ""
    who: str = ""


@dataclass(frozen=True, slots=True)
class RestoreEpisode:
    """One time that a store went back. `missing` are the erasures that the journal showed as lost;
    `re_erased`, `left_alone` and `unclear` what the replay found of them (`None` before its first pass),
    `rows` the rows by table that it cleared or deleted.
    `events` are its RestoreEvents with their reasons; the releases of those in `released_ahead` do not count.
    Once released, `left` counts the erased persons who stand in the store, or may (`None`: not known), and
    `in_place_at` is since when there are none.
    """

    store: str
    episode: str
    detected_at: datetime
    detected_by: DetectedBy
    positions: Mapping[str, int] = field(default_factory=dict)
    missing: int = 0
    missing_since: datetime | None = None
    back_to: datetime | None = None
    whole: bool = True
    re_erased: int = 0
    left_alone: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    same_address: int = 0
    never_found: int = 0
    unclear: int | None = None
    unclear_keys: tuple[tuple[str, str], ...] = ()
    decisions: tuple[tuple[str, str, str], ...] = ()
    events: Mapping[str, str] = field(default_factory=dict)
    released_ahead: frozenset[str] = frozenset()
    released_because: str | None = None
    released_by: str = ""
    released_uid: str = ""
    released_who: str = ""
    left: int | None = None
    in_place_at: datetime | None = None
    safe_at: datetime | None = None
    superseded_by: str | None = None

    @property
    def open(self) -> bool:
        """Tell whether the store may not be served yet."""
        return self.safe_at is None and self.superseded_by is None

    @property
    def undeclared(self) -> bool:
        """Tell whether nobody has given a reason for it yet."""
        return set(self.events.values()) <= {"Undeclared"}

    @property
    def nothing_came_back(self) -> bool:
        """Tell whether all that speaks for this restore is a person's word."""
        return self.detected_by is DetectedBy.DECLARATION and not self.missing and not self.re_erased

    @property
    def replayed_once(self) -> bool:
        """Tell whether a pass of the replay has been made, so that the head stands where Lethe left it."""
        return self.unclear is not None or self.re_erased > 0

    def position_of(self, table: str) -> int | None:
        """Return the highest key of a table in the head that went back; `None`: it does not tell."""
        wanted = table.rpartition(".")[2]
        for name, position in self.positions.items():
            kind, _, path = name.partition(":")
            if kind == "table" and path.rpartition(".")[2] == wanted:
                return position
        return None

    def decision_on(self, table: str, key: str) -> Identity | None:
        """Return what a person decided about a row; a decision on the row itself beats one for all (`*`)."""
        for wanted in ((table, key), (table, "*"), ("*", "*")):
            for decided_table, decided_key, decision in self.decisions:
                if (decided_table, decided_key) == wanted:
                    return Identity.SAME if decision == "Erase" else Identity.OTHER
        return None


def given_out_again(episodes: Sequence[RestoreEpisode]) -> Callable[[str, str], bool]:
    """Return what tells of `(table, key)` whether a restore went back, by its head, to before it."""

    @cache
    def lowest(table: str) -> float:
        positions = (episode.position_of(table) for episode in episodes)
        return min((position for position in positions if position is not None), default=inf)

    return lambda table, key: key.isdecimal() and int(key) > lowest(table)


def rejoined(
    moments: Mapping[int, datetime], episodes: Sequence[RestoreEpisode]
) -> Callable[[Tombstone], Identity | None]:
    """Return what tells whose a row is of somebody who has consented anew; `None`: as if she had not.

    `moments` are when that was recorded, by tombstone. Since a restore to before it the row is as it was:
    hers, and erased. Where nothing tells how far a restore went back, a person decides.
    """

    def judge(tombstone: Tombstone) -> Identity | None:
        at = moments.get(tombstone.number)
        if at is None:
            return None
        since = [one for one in episodes if one.detected_at >= at]
        if any(one.back_to is not None and one.back_to + CLOCK_SKEW < at for one in since):
            return None
        doubtful = [
            n
            for n, one in enumerate(since)
            if not one.whole or one.back_to is None or one.back_to - CLOCK_SKEW < at
        ]
        if not doubtful:
            return Identity.OTHER
        said = (one.decision_on(tombstone.table, tombstone.key) for one in since[doubtful[-1] :])
        decided = next((one for one in said if one is not None), Identity.UNCLEAR)
        return None if decided is Identity.SAME else decided

    return judge


def _lowest(one: Mapping[str, int], other: Mapping[str, int]) -> Mapping[str, int]:
    """Return to where the keys went back at most: a further restore within an episode may go back less."""
    both = {**one, **other}
    return {name: min(one.get(name, position), position) for name, position in both.items()}


def evolve_episode(  # noqa: PLR0911 - one return for each kind of fact
    episode: RestoreEpisode | None, fact: RestoreFact
) -> RestoreEpisode:
    """Return what a restore becomes by one more fact.

    Raises `IllegalTransition` for one that can't follow.
    """
    if isinstance(fact, RestoreDetected):
        if episode is not None and not episode.open:
            raise IllegalTransition(f"restore {fact.episode} has ended already")
        earlier = episode or RestoreEpisode(fact.store, fact.episode, fact.at, fact.detected_by)
        told = fact.detected_by is DetectedBy.JOURNAL
        return replace(
            earlier,
            # The head may go back only after something else has: then it tells what nothing else does.
            detected_by=fact.detected_by if told else earlier.detected_by,
            positions=_lowest(earlier.positions, fact.positions),
            missing=fact.missing,
            missing_since=earlier.missing_since or fact.missing_since,
            back_to=fact.back_to or earlier.back_to,
            whole=fact.whole and earlier.whole,
        )
    if episode is None:
        raise IllegalTransition(f"{type(fact).__name__} for restore {fact.episode}, which was never detected")
    match fact:
        case Replayed():
            return replace(
                episode,
                re_erased=episode.re_erased + fact.re_erased,
                rows=dict(Counter(episode.rows) + Counter(fact.rows)),
                left_alone=fact.left_alone,
                same_address=fact.same_address,
                never_found=fact.never_found,
                unclear=fact.unclear,
                unclear_keys=fact.unclear_keys,
            )
        case IdentitiesDecided(decisions=decisions):
            # The newest word on a row counts: a person may correct a mistake before it is acted upon.
            latest = {(table, key): (table, key, said) for table, key, said in decisions}
            kept = tuple(decision for decision in episode.decisions if decision[:2] not in latest)
            return replace(episode, decisions=(*kept, *latest.values()))
        case Released():
            return replace(
                episode,
                released_because=fact.because,
                released_by=fact.by,
                released_uid=fact.uid,
                released_who=fact.who,
                left=fact.left,
                in_place_at=fact.in_place_at,
                safe_at=fact.at,
            )
        case SafeToServe(at=at):
            return replace(episode, safe_at=at)
        case Superseded(by=by):
            return replace(episode, superseded_by=by)
        case RestoreExplained(event=event, reason=reason, released_ahead=ahead):
            releases = episode.released_ahead | ({event} if ahead else set())
            return replace(episode, events={**episode.events, event: reason}, released_ahead=releases)
        case _:
            assert_never(fact)
