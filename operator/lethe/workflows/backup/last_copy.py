"""What backups still hold of erased persons: graded as a set after each scan, until no copy is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lethe.domain.facts import CopiesGone, TombstonesExpired
from lethe.domain.requests import IllegalTransition
from lethe.domain.restores import RestoreEpisode
from lethe.domain.snapshots import (
    NO_BACKUPS,
    UNKNOWN_START,
    CopyStep,
    DirtyWindow,
    SourceRecord,
    copy_steps,
    earlier,
    holding_snapshots,
)
from lethe.ports.ledger import Ledger

MARGIN = timedelta(days=30)
"""How long tombstones outlive the last copy: for what nobody knows of, such as a dump on a laptop."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How a store's backups are known.

    `scanned_at` is up to when the newest listings of its sources tell of every snapshot that began: the
    earliest of their `proven_until` (`None`: one of them proves nothing). `no_backups` is what the DataStore
    states.
    """

    covered: bool = False
    scanned_at: datetime | None = None
    no_backups: bool = False


def grade(
    ledger: Ledger,
    coverage: Mapping[str, Coverage],
    *,
    now: datetime,
    steps: Mapping[str, Sequence[CopyStep]] | None = None,
) -> frozenset[str]:
    """Note what backups hold of everybody who was erased; return the requests for which that changed.

    Whose last copy is proven gone is recorded. A store that `coverage` does not name is not covered.
    `steps` are those of every store in which somebody was erased, where they are known already.
    """
    # Two clocks agreed on when each listing began. One that was set back since must not date the proof
    # before it: tombstones end by that date.
    listed = (known.scanned_at for known in coverage.values() if known.scanned_at is not None)
    now = max((now, *listed))
    changed = set[str]()
    if steps is None:
        steps = steps_of(ledger, coverage, ledger.cleared_stores())
    for store, of_store in steps.items():
        changed |= ledger.grade(store, of_store)
    while purgeable := ledger.purgeable():
        try:
            ledger.append([CopiesGone(now, tuple(purgeable))])
        except IllegalTransition:
            break  # somebody was written back at this very moment: graded anew after the next scan
        changed.update(purgeable)
    return frozenset(changed)


def steps_of(
    ledger: Ledger, coverage: Mapping[str, Coverage], stores: Iterable[str]
) -> Mapping[str, Sequence[CopyStep]]:
    """Return for each store when the last copy dies, by the moment of the erasure."""
    snapshots = [snapshot for snapshot in ledger.snapshots() if snapshot.live]
    sources = ledger.sources()
    windows = dirty_windows(ledger.episodes())
    steps: dict[str, Sequence[CopyStep]] = {}
    for store in stores:
        known = coverage.get(store, Coverage())
        holding = holding_snapshots(store, snapshots, sources, windows)
        proven_until = _proven_until(store, known, sources, windows)
        if known.no_backups and not holding:
            steps[store] = NO_BACKUPS
        else:
            steps[store] = copy_steps(holding, covered=known.covered, scanned_at=proven_until)
    return steps


def _proven_until(
    store: str, known: Coverage, sources: Mapping[str, SourceRecord], windows: Sequence[DirtyWindow]
) -> datetime | None:
    """Return of whom the listings prove that no snapshot holds them which they did not show: of those who
    were erased before. `None`: of nobody.

    A dump that takes long began long before it could be listed. One that began while erased persons were
    back holds everybody, so a listing proves nothing until such a dump must have shown.
    """
    if known.scanned_at is None:
        return None
    longest = max((one.longest_duration for one in sources.values() if store in one.stores), default=0.0)
    until = earlier(known.scanned_at, timedelta(seconds=longest))
    back = any(one.store == store and (one.until is None or one.until >= until) for one in windows)
    return None if back else until


def dirty_windows(episodes: Sequence[RestoreEpisode]) -> list[DirtyWindow]:
    """Return when erased persons may have been back in their stores, because of restores; oldest first.

    A store that a person has released holds them until it is seen to hold none, or goes back once more.
    """
    windows: list[DirtyWindow] = []
    followed: dict[str, datetime | None] = {}
    for episode in reversed(episodes):
        end = episode.safe_at if episode.released_because is None else episode.in_place_at
        if end is None and not episode.open:
            end = followed.get(episode.store)
        followed[episode.store] = end
        windows.append(DirtyWindow(episode.store, episode.missing_since or UNKNOWN_START, end))
    return windows[::-1]


def expire_tombstones(ledger: Ledger, *, now: datetime) -> list[str]:
    """Destroy the keys of months in which nothing can be restored any more; return these months.

    To be called only while two clocks agree: it can't be undone.
    """
    ended = ledger.expired_periods(now - MARGIN)
    for period, requests in ended.items():
        ledger.append([TombstonesExpired(now, period, tuple(requests))])
    return list(ended)
