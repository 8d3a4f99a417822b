"""Replacing a snapshot by a dump of its cleaned copy, and whom it holds from then on.

Steps, with the numbers that recur in the code:

1. see that nothing forbids it: the snapshot is still the one that was restored, and nobody is held;
2. record the intent: what the snapshot will be, and whom it will still hold;
3. replace it, at once;
4. record that it was.

Cut off after 2, the next listing shows the old snapshot, or the new one by what was intended. From 2 on the
ledger dates no erasure before what the snapshot was cleaned until, whatever the clock says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from lethe.domain.facts import ListedSnapshot, RewriteIntended, SnapshotRewritten
from lethe.domain.pruning import RetentionHold
from lethe.domain.requests import RequestRecord, StoreState
from lethe.domain.snapshots import HoldingSnapshot, SnapshotRecord, holding_snapshots
from lethe.ports.backups import Pin, Rewritable
from lethe.ports.ledger import Ledger
from lethe.workflows.backup.last_copy import dirty_windows
from lethe.workflows.backup.scan import KnownSource, append
from lethe.workflows.legal.holds import stores_under_hold

MOST_KEPT = 1_000
"""How many moments of erasures that a snapshot was not cleaned of one fact names."""


class LeftAsItIs(Exception):
    """A snapshot is not rewritten now, and nothing is wrong; `held`: by counsel, which may be said."""

    def __init__(self, message: str, *, held: bool = False) -> None:
        self.message, self.held = message, held
        super().__init__(message)


def holding(ledger: Ledger, snapshots: Sequence[SnapshotRecord], store: str) -> Mapping[str, HoldingSnapshot]:
    """Return, by ref, since when somebody must have been erased in a store to be in a snapshot."""
    sources, windows = ledger.sources(), dirty_windows(ledger.episodes(store=store))
    there = [one for one in snapshots if one.present and store in one.stores]
    return {one.ref: holding_snapshots(store, [one], sources, windows)[0] for one in there}


def still_holding(ledger: Ledger, snapshots: Sequence[SnapshotRecord], store: str) -> Mapping[str, datetime]:
    """Return the snapshots that hold somebody who was erased, and since when she must have been."""
    last = ledger.last_cleared(store)
    return {
        ref: one.began_at
        for ref, one in holding(ledger, snapshots, store).items()
        if last is not None and one.began_at <= last
    }


def require_no_hold(ledger: Ledger, store: str, now: datetime) -> None:
    """Raise `LeftAsItIs` while somebody is held in a store; of a hold that is a secret nothing is said."""
    kept = stores_under_hold(ledger, [store], now).get(store)
    if kept is RetentionHold.LEGAL_HOLD:
        raise LeftAsItIs("a legal hold preserves the snapshot, which stays as it is", held=True)
    if kept is not None:
        raise LeftAsItIs("the snapshot was left as it is this time")


def replace_snapshot(
    source: KnownSource,
    backend: Rewritable,
    ledger: Ledger,
    store: str,
    place: str,
    pin: Pin,
    new: ListedSnapshot,
    *,
    now: Callable[[], datetime],
    cleaned_until: datetime,
    numbers: Sequence[int],
    absent: Mapping[bytes, str],
) -> None:
    """Replace a snapshot by what lies in a place of `Rewritable.stage`. To be called with the source's turn.

    It was cleaned of the tombstones of these `numbers`, and of whom these `absent` addresses would have
    shown: all that was known at `cleaned_until` or later. Raises `LeftAsItIs`, `RewriteRefused`, and the
    errors of ledger and backend.
    """
    if source.abandoned:
        raise LeftAsItIs("the BackupSource was edited or connected anew meanwhile")
    record = source.snapshots.get(pin.ref)
    if record is None or not record.present or record.pieces != pin.pieces or record.stores != (store,):
        raise LeftAsItIs("the snapshot is another one by now, or gone")
    require_no_hold(ledger, store, now())  # 1
    before = holding(ledger, [record], store)[pin.ref]
    kept: frozenset[datetime] | None = None
    while True:
        found = _not_cleaned(ledger, store, before, cleaned_until, numbers, absent)
        if found == kept:  # and nobody can be added any more
            break
        kept, moments = found, sorted(found)
        until = min((cleaned_until, *moments[MOST_KEPT:]))
        said = tuple(moments[:MOST_KEPT])
        intended = RewriteIntended(source.name, pin.ref, now(), store, new.pieces, new.size, until, said)
        append(source, ledger, [intended])  # 2
    backend.replace(place, pin, new)  # 3
    append(source, ledger, [SnapshotRewritten(source.name, pin.ref, now(), store, until)])  # 4


def _not_cleaned(
    ledger: Ledger,
    store: str,
    before: HoldingSnapshot,
    until: datetime,
    numbers: Sequence[int],
    absent: Mapping[bytes, str],
) -> frozenset[datetime]:
    """Return when those were erased before `until` whom a copy may hold that was cleaned of the others.

    Who was not found and had no address can't be looked for, and while her request has not ended that alone
    looks for her. Who was read back only while the copy was cleaned came too late.
    """
    since, looked_for, known = before.began_at, {*absent.values()}, frozenset(numbers)
    cleared = ledger.cleared_without(store, numbers, since, until)
    moments = {at for request, at in cleared.items() if request not in looked_for}
    for record in ledger.open_requests():
        at = record.progress(store).at
        if at is not None and since <= at < until and not _is_known(record, store, known):
            moments.add(at)
    return frozenset(moments | {at for at in before.kept if at < until})


def _is_known(record: RequestRecord, store: str, numbers: frozenset[int]) -> bool:
    """Tell whether these tombstones are all that an open request has cleared in a store."""
    progress = record.progress(store)
    if progress.state is StoreState.VERIFIED:
        return all(one.number in numbers for one in progress.tombstones)
    return progress.state is not StoreState.NOT_FOUND
