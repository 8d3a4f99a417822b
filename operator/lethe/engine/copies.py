"""Which day the last copy of an erased person dies: graded after scans, told where it has changed."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from lethe.api.status import replacing, request_status
from lethe.domain.chunks import chunked
from lethe.domain.conditions import BackupsObservation, conditions_of_request
from lethe.domain.pruning import RetentionHold
from lethe.domain.requests import RequestRecord, StoreState
from lethe.domain.snapshots import CopiesLeft, CopyStep
from lethe.engine.cache import ObjectCache
from lethe.engine.metrics import Metrics
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Event
from lethe.ports.ledger import Ledger, LedgerError
from lethe.workflows.backup import last_copy
from lethe.workflows.backup.last_copy import Coverage

log = logging.getLogger("lethe.copies")

GATHER_SECONDS = 0.3
"""How long the scans of several sources may gather: grading is for all of them."""
RETRY_SECONDS = 10.0
CALLS_AT_ONCE = 8
TRIES = 6
_HELD = frozenset({StoreState.VERIFIED, StoreState.NOT_FOUND})


class Copies:
    """Knows by store what backups hold, and writes what that means for each erased request."""

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        cluster: Cluster,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._cache, self._ledger, self._cluster = cache, ledger, cluster
        self._metrics, self._clock = metrics, clock
        self._steps: Mapping[str, Sequence[CopyStep]] = {}
        self._wake = asyncio.Event()
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self._untold: dict[str, int] = {}
        self._overdue: frozenset[str] = frozenset()

    def regrade(self) -> None:
        """A source was scanned, or is gone; a store's word on its backups has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Grade after scans, and tell, for ever."""
        while True:
            timeout = RETRY_SECONDS if self._untold else None
            try:
                await asyncio.wait_for(self._wake.wait(), timeout)
            except TimeoutError:
                pass
            await asyncio.sleep(GATHER_SECONDS)
            self._wake.clear()
            try:
                await self.grade()
            except LedgerError:
                raise
            except Exception:
                log.exception("what backups still hold could not be told; it is tried after the next scan")

    async def grade(self) -> None:
        """Look at all that was erased and is not proven gone from every backup."""
        coverage = self._coverage()
        self._untold.update(dict.fromkeys(await asyncio.to_thread(self._grade, coverage), 0))
        for some in chunked(list(self._untold), 500):
            await self._tell(some)

    def _grade(self, coverage: Mapping[str, Coverage]) -> frozenset[str]:
        stores = {*coverage, *self._ledger.cleared_stores()}
        self._steps = last_copy.steps_of(self._ledger, coverage, stores)
        changed = last_copy.grade(self._ledger, coverage, now=self._clock(), steps=self._steps)
        return changed | self._newly_overdue()

    def _newly_overdue(self) -> frozenset[str]:
        """Return the requests whose last copy was to be gone since the last look, and is not.

        Their snapshots are past their time, which is rare: what they were told of it is remembered.
        """
        now = self._clock()
        dates = [step.gone_at for steps in self._steps.values() for step in steps if step.gone_at is not None]
        overdue = self._ledger.outlived(now) if dates and min(dates) <= now else frozenset()
        fresh, self._overdue = overdue - self._overdue, overdue
        return fresh

    def _coverage(self) -> dict[str, Coverage]:
        """Return how each store's backups are known now."""
        found = {}
        for managed in self._cache.stores.values():
            sources = self._cache.sources_of(managed.name)
            scans = [s.known.proven_until if s.known is not None else None for s in sources]
            proven = [scan for scan in scans if scan is not None]
            found[managed.name] = Coverage(
                covered=bool(sources),
                # A source that has never shown a snapshot proves nothing: it may look in the wrong place.
                scanned_at=min(proven) if proven and len(proven) == len(scans) else None,
                no_backups=managed.without_backups and not sources,
            )
        return found

    def observed(self, record: RequestRecord, left: CopiesLeft | None = None) -> BackupsObservation:
        """Return what is known of the backups of an erased person.

        `left` is what the ledger says; without, it follows from what the last scans have shown.
        """
        asked = [name for name, progress in record.stores.items() if progress.state in _HELD]
        stores = {managed.name: managed for managed in self._cache.stores_of(record.accepted.namespace)}
        without = bool(asked) and all(
            name in stores and stores[name].without_backups and not self._cache.sources_of(name)
            for name in asked
        )
        held = any(
            source.scan is not None and not {*source.scan.plan.held.values()} <= {RetentionHold.UNSAID}
            for name in asked
            for source in self._cache.sources_of(name)
        )
        return BackupsObservation(left or self._left(record, asked), without and not record.shredded, held)

    def _left(self, record: RequestRecord, asked: Sequence[str]) -> CopiesLeft:
        dates, unproven = [], []
        for name in asked:
            cleared = record.progress(name).at
            step = _step_at(self._steps.get(name, ()), cleared) if cleared else None
            if step is None or not step.proven:
                unproven.append(name)
            if step is not None and step.gone_at is not None:
                dates.append(step.gone_at)
        return CopiesLeft(max(dates, default=None), tuple(unproven))

    async def _tell(self, requests: Sequence[str]) -> None:
        records = await asyncio.to_thread(self._ledger.requests_by_id, requests)
        left = await asyncio.to_thread(self._ledger.copies_left, requests)
        await asyncio.gather(
            *(self._tell_one(records.get(request), request, left.get(request)) for request in requests)
        )

    async def _tell_one(self, record: RequestRecord | None, request: str, left: CopiesLeft | None) -> None:
        if record is None:
            self._untold.pop(request, None)
            return
        namespace, name = record.accepted.namespace, record.accepted.name
        async with self._calls:
            try:
                manifest = await self._cluster.get("deletionrequests", namespace, name)
                before = (manifest or {}).get("status") or {}
                if manifest is None or before.get("state") not in ("Erased", "Purged"):
                    # Gone, another's, or not told of its erasure yet: then this follows a little later.
                    self._untold[request] = self._untold.get(request, 0) + 1
                    if manifest is None or self._untold[request] > TRIES:
                        self._untold.pop(request, None)
                    return
                status = self._status(record, left, before, manifest["metadata"].get("generation", 1))
                if _shown(status) != _shown(before):
                    self._metrics.api_writes.labels("status").inc()
                    await self._cluster.write_status(
                        "deletionrequests",
                        namespace,
                        name,
                        uid=manifest["metadata"]["uid"],
                        status=replacing(status, before),
                    )
                    if status["state"] == "Purged" != before.get("state"):
                        message = "no backup holds this person any more"
                        await self._cluster.record_event(Event(manifest, "Purged", message))
                self._untold.pop(request, None)
            except (ClusterUnavailable, ClusterRefused) as away:
                log.warning("a DeletionRequest's last copy can't be told of yet: %s", away)

    def _status(
        self, record: RequestRecord, left: CopiesLeft | None, before: Mapping[str, object], generation: int
    ) -> dict[str, object]:
        now = self._clock()
        observed = self.observed(record, left or CopiesLeft())
        condition_set = conditions_of_request(record, [], backups=observed, now=now)
        status = request_status(
            record,
            condition_set,
            {},
            {},
            before,
            generation=generation,
            now=now,
            last_copy_gone_at=last_copy_gone_at(record, observed),
        )
        if record.shredded and "stores" in before:
            status["stores"] = before["stores"]
        return status


def last_copy_gone_at(record: RequestRecord, observed: BackupsObservation) -> datetime | None:
    """Return the day to show: none where a store's backups are not known at all."""
    return None if observed.without_backups or record.purged_at is not None else observed.left.gone_at


def _step_at(steps: Sequence[CopyStep], cleared: datetime) -> CopyStep | None:
    position = bisect_right(steps, cleared, key=lambda step: step.since)
    return steps[position - 1] if position else None


def _shown(status: Mapping[str, object]) -> object:
    """Return what a person reads of backups in a status: a message alone is not worth a write."""
    conditions = status.get("conditions")
    listed = conditions if isinstance(conditions, list) else []
    purged = [(c.get("status"), c.get("reason")) for c in listed if c.get("type") == "Purged"]
    return status.get("state"), status.get("backups"), purged
