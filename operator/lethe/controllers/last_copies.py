"""Which day the last copy of an erased person dies: graded after scans, told where it has changed."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from lethe.api.status.deletionrequest import deletionrequest_status
from lethe.controllers.backupsnapshot import PURGED_SHOWN
from lethe.controllers.runtime.cache import ObjectCache
from lethe.controllers.runtime.clock import TwoClocks
from lethe.controllers.runtime.controller import Controller, RepeatedWork
from lethe.controllers.runtime.status_writer import ShownStatus, Status, StatusKind, StatusWriter, Written
from lethe.domain.conditions.base import ConditionStatus
from lethe.domain.conditions.deletionrequest import BackupsObservation, deletionrequest_conditions
from lethe.domain.periods import instant
from lethe.domain.pruning import RetentionHold
from lethe.domain.requests import RequestRecord, StoreState
from lethe.domain.snapshots import CopiesLeft, CopyStep
from lethe.domain.trouble import Trouble
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Event, Manifest
from lethe.ports.ledger import Ledger
from lethe.workflows.backup import last_copy
from lethe.workflows.backup.last_copy import Coverage

log = logging.getLogger("lethe.copies")

GATHER_SECONDS = 0.3
"""How long the scans of several sources may gather: grading is for all of them."""
RETRY_SECONDS = 10.0
FIRST_RETRY_SECONDS = 0.5
"""After how long it is looked again whether a request is said to be erased: at the most, and at first."""
CALLS_AT_ONCE = 8
TRIES = 9
_HELD = frozenset({StoreState.VERIFIED, StoreState.NOT_FOUND})


def _shown(status: Status) -> object:
    """Return what a person reads of backups in a status: a message alone is not worth a write."""
    conditions = status.get("conditions")
    listed = conditions if isinstance(conditions, list) else []
    purged = [(c.get("status"), c.get("reason")) for c in listed if c.get("type") == "Purged"]
    return status.get("state"), status.get("backups"), purged


LAST_COPY = StatusKind("deletionrequests", "DeletionRequest", essence=_shown)


class LastCopies(Controller[str]):
    """Knows by store what backups hold (`grading`), and tells each erased request what that means for it."""

    name = "last copies"
    batch = 500

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        cluster: Cluster,
        statuses: StatusWriter,
        clock: Callable[[], datetime],
    ) -> None:
        super().__init__()
        self._cache, self._ledger, self._cluster = cache, ledger, cluster
        self._statuses, self._clock = statuses, clock
        self.grading = RepeatedWork("grading of last copies", self.grade, every=None, gather=GATHER_SECONDS)
        self._steps: Mapping[str, Sequence[CopyStep]] = {}
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self._tries: dict[str, int] = {}
        self._overdue: frozenset[str] = frozenset()

    def regrade(self) -> None:
        """A source was scanned, or is gone; a store's word on its backups has changed."""
        self.grading.ring()

    async def grade(self) -> None:
        """Look at all that was erased and is not proven gone from every backup."""
        changed = await asyncio.to_thread(self._grade, self._coverage())
        for managed in self._cache.stores.values():
            managed.snapshots_remain = any(step.gone_at for step in self._steps.get(managed.name, ()))
        for request in changed:
            self._tries.pop(request, None)
            self.queue.add(request)

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

    def observe(self, record: RequestRecord, left: CopiesLeft | None = None) -> BackupsObservation:
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
        found = left or self._left(record, asked)
        # That a store has no backups is somebody's word; snapshots that were seen are known to exist.
        return BackupsObservation(found, without and found.none_left and not record.shredded, held)

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

    def rehearsed_at(self, record: RequestRecord) -> datetime | None:
        """Return when a drill passed in which a request's erasure was in; `None`: none has.

        One that passed after the last copy had gone shows nothing of it.
        """
        passed = [
            rehearsal.passed_at
            for name, progress in record.stores.items()
            if progress.state is StoreState.VERIFIED and progress.at is not None
            if (rehearsal := self._cache.rehearsals.get(name)) is not None
            if progress.at < rehearsal.replayed_from
            if record.purged_at is None or rehearsal.passed_at < record.purged_at
        ]
        return max(passed, default=None)

    async def tell_rehearsed(self, store: str, since: datetime, until: datetime) -> None:
        """Tell who was erased in a store meanwhile that it was rehearsed; the others were told before."""
        for request in await asyncio.to_thread(self._ledger.cleared_between, store, since, until):
            self.queue.add(request)

    async def reconcile(self, key: str) -> float | None:
        """Tell one request what backups hold; return after how many seconds to try again."""
        return (await self.reconcile_set([key]))[key]

    async def reconcile_set(self, keys: Sequence[str]) -> Mapping[str, float | None]:
        """Tell requests what backups hold."""
        records = await asyncio.to_thread(self._ledger.requests_by_id, keys)
        left = await asyncio.to_thread(self._ledger.copies_left, keys)
        pauses = await asyncio.gather(*(self._tell(key, records.get(key), left.get(key)) for key in keys))
        return dict(zip(keys, pauses, strict=True))

    async def show_trouble(self, key: str, trouble: Trouble) -> None:
        """Say in `Purged` that Lethe failed to tell what backups hold: that it has erased stays true."""
        record = (await asyncio.to_thread(self._ledger.requests_by_id, [key])).get(key)
        manifest = await self._manifest(record) if record is not None else None
        if record is None or manifest is None or not _says_erased(manifest):
            return
        before, generation = manifest["status"], manifest["metadata"].get("generation", 1)
        purged = {
            "type": "Purged",
            "status": ConditionStatus.UNKNOWN.value,
            "reason": trouble.reason.value,
            "message": trouble.message,
            "observedGeneration": generation,
            "lastTransitionTime": instant(self._clock()),
        }
        others = [said for said in before.get("conditions", ()) if said.get("type") != "Purged"]
        await self._write(record, manifest, {**before, "conditions": [*others, purged]})

    async def _tell(
        self, request: str, record: RequestRecord | None, left: CopiesLeft | None
    ) -> float | None:
        """Tell a request; return after how many seconds to try again."""
        if record is None:
            return None
        async with self._calls:
            try:
                manifest = await self._manifest(record)
            except (ClusterUnavailable, ClusterRefused) as away:
                log.warning("a DeletionRequest's last copy can't be told of yet: %s", away)
                return RETRY_SECONDS
            if manifest is not None and not _says_erased(manifest):
                return self._later(request)
            self._tries.pop(request, None)
            if manifest is None:
                return None
            before = manifest["status"]
            status = self._status(record, left, before, manifest["metadata"].get("generation", 1))
            written = await self._write(record, manifest, status)
            if written is Written.WRITTEN and status["state"] == "Purged" != before.get("state"):
                message = "no backup holds this person any more"
                await self._cluster.record_event(Event(manifest, "Purged", message))
        return RETRY_SECONDS if written is Written.WAITS else None

    async def _manifest(self, record: RequestRecord) -> Manifest | None:
        """Return a request's object; `None` where it is gone."""
        accepted = record.accepted
        return await self._cluster.get("deletionrequests", accepted.namespace, accepted.name)

    def _later(self, request: str) -> float | None:
        """Return when to look again at what is another's, or does not say yet that it is erased."""
        tries = self._tries[request] = self._tries.get(request, 0) + 1
        if tries > TRIES:
            del self._tries[request]
            return None
        return min(RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** (tries - 1))

    async def _write(self, record: RequestRecord, manifest: Manifest, status: Status) -> Written:
        key = record.accepted.namespace, record.accepted.name
        shown = ShownStatus(manifest["metadata"]["uid"], manifest["status"])
        return await self._statuses.write(LAST_COPY, key, shown, status)

    def _status(
        self, record: RequestRecord, left: CopiesLeft | None, before: Status, generation: int
    ) -> dict[str, Any]:
        now = self._clock()
        observed = self.observe(record, left or CopiesLeft())
        condition_set = deletionrequest_conditions(record, [], backups=observed, now=now)
        status = deletionrequest_status(
            record,
            condition_set,
            {},
            {},
            before,
            generation=generation,
            now=now,
            last_copy_gone_at=last_copy_gone_at(record, observed),
            rehearsed_at=self.rehearsed_at(record),
        )
        if record.shredded and "stores" in before:
            status["stores"] = before["stores"]
        return status


class TombstoneExpiry(RepeatedWork):
    """Destroys what is kept of persons of whom nothing can be restored any more."""

    def __init__(self, cache: ObjectCache, ledger: Ledger, clocks: TwoClocks, *, every: float) -> None:
        super().__init__("tombstone expiry", self.expire, every=every)
        self._cache, self._ledger, self._clocks = cache, ledger, clocks
        self.ring(after=every)

    async def expire(self) -> None:
        """Destroy it now, if the clocks agree: it can't be undone."""
        disagreement = await self._clocks.disagreement()
        if disagreement is not None:
            log.warning("no tombstone is ended: %s", disagreement)
            return
        now = self._clocks.now()
        ended = await asyncio.to_thread(last_copy.expire_tombstones, self._ledger, now=now)
        if await asyncio.to_thread(self._ledger.forget_purged, now - PURGED_SHOWN):
            for managed in self._cache.sources.values():
                if managed.known is not None:
                    managed.known.loaded = False
        for period in ended:
            log.info("the tombstones of %s have ended: their keys are destroyed", period)


def _says_erased(manifest: Manifest) -> bool:
    return (manifest.get("status") or {}).get("state") in ("Erased", "Purged")


def last_copy_gone_at(record: RequestRecord, observed: BackupsObservation) -> datetime | None:
    """Return the day to show: none where a store's backups are not known at all."""
    return None if observed.without_backups or record.purged_at is not None else observed.left.gone_at


def _step_at(steps: Sequence[CopyStep], cleared: datetime) -> CopyStep | None:
    position = bisect_right(steps, cleared, key=lambda step: step.since)
    return steps[position - 1] if position else None
