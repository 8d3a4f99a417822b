"""Writing status: rebuilt from the ledger, compared with what stands there, written as seldom as possible.

A request that is erased within `FIRST_REPORT_SECONDS` gets one status write in its life until `Erased`;
one that waits gets two.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from lethe.api.status import differs, replacing, request_status, store_status
from lethe.domain.conditions import (
    BackupsObservation,
    ConditionSet,
    ConditionStatus,
    StoreObservation,
    conditions_of_request,
    conditions_of_store,
)
from lethe.domain.facts import Outcome
from lethe.domain.mapping import StoreOwner
from lethe.domain.requests import RequestRecord
from lethe.domain.trust import Blocker, BlockReason
from lethe.engine.cache import ManagedSource, ManagedStore, ObjectCache, ObjectKey, RequestView, request_at
from lethe.engine.copies import Copies, last_copy_gone_at
from lethe.engine.metrics import Metrics
from lethe.engine.schedule import Schedule
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Event

log = logging.getLogger("lethe.reporting")

FIRST_REPORT_SECONDS = 1.5
CONCURRENT_WRITES = 8
SAME_REASON_SECONDS = 60.0
"""How long a message that changes under the same reason may stay as it was."""
LAST_SEEN_SECONDS = 300
"""How old `lastSeenAt` of a DataStore may grow before a write only for its sake."""


class Reporting:
    """Decides when a status is due, and writes it."""

    def __init__(
        self,
        cache: ObjectCache,
        cluster: Cluster,
        metrics: Metrics,
        clock: Callable[[], datetime],
        copies: Copies,
    ) -> None:
        self._cache, self._cluster, self._metrics, self._clock = cache, cluster, metrics, clock
        self._copies = copies
        self._due: Schedule[ObjectKey] = Schedule()
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(CONCURRENT_WRITES)
        self._ended: Counter[str] = Counter()
        self._swept: dict[str, datetime] = {}
        self._writing: set[ObjectKey] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def want(self, key: ObjectKey) -> None:
        """Let a request's status be looked at: at once if it has ended, else when it has been waiting
        a while.
        """
        view = self._cache.views.get(key)
        if view is None:
            return
        record = self._cache.records.get(key) if view.claimed else None
        now = time.monotonic()
        ended = record is not None and not record.open and view.blocker is None
        self._due.at(now if ended else max(now, view.first_seen + FIRST_REPORT_SECONDS), key)
        self._wake.set()

    async def run(self) -> None:
        """Write what is due, for ever."""
        while True:
            moment = self._due.next_moment()
            timeout = None if moment is None else max(0.0, moment - time.monotonic())
            try:
                await asyncio.wait_for(self._wake.wait(), timeout)
            except TimeoutError:
                pass
            self._wake.clear()
            for key in self._due.pop_due(time.monotonic()):
                if key in self._writing:  # one write at a time, so that the newest is the last
                    self._due.at(time.monotonic() + 0.1, key)
                    continue
                self._writing.add(key)
                task = asyncio.create_task(self._write_request(key))
                self._tasks.add(task)
                task.add_done_callback(partial(self._written, key))

    def _written(self, key: ObjectKey, task: asyncio.Task[None]) -> None:
        self._writing.discard(key)
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("a status could not be made (%s)", type(task.exception()).__name__)

    async def _write_request(self, key: ObjectKey) -> None:
        view = self._cache.views.get(key)
        if view is None:
            return
        async with self._slots:
            record = self._cache.records.get(key) if view.claimed else None
            blockers, attempts = self._blockers(record)
            own = [h for h in (view.blocker, view.ending) if h is not None]
            everything = [*blockers.values(), *own]
            held_up = record is not None and not record.open and view.blocker is not None
            erased = record is not None and record.outcome is Outcome.ERASED
            observed = (
                self._copies.observed(record) if record is not None and erased else BackupsObservation()
            )
            condition_set = conditions_of_request(
                None if held_up else record,
                everything,
                backups=observed,
                now=self._clock(),
            )
            status = request_status(
                record,
                condition_set,
                blockers,
                attempts,
                view.status,
                generation=view.generation,
                now=self._clock(),
                last_copy_gone_at=last_copy_gone_at(record, observed) if record is not None else None,
            )
            told_lately = time.monotonic() - view.written_at < SAME_REASON_SECONDS
            if not _worth_writing(status, view.status, told_lately=told_lately):
                if _message(status) != _message(view.status):
                    self._due.at(view.written_at + SAME_REASON_SECONDS, key)
                self._let_go(key, record, view)
                return
            try:
                self._metrics.api_writes.labels("status").inc()
                written = await self._cluster.write_status(
                    "deletionrequests",
                    key[0],
                    key[1],
                    uid=view.uid,
                    status=replacing(status, view.status),
                )
            except (ClusterUnavailable, ClusterRefused) as away:
                log.warning("status of a DeletionRequest waits: %s", away)
                self._due.at(time.monotonic() + 2, key)
                return
            if written:
                view.status, view.written_at = status, time.monotonic()
                await self._tell(key, view, condition_set.ready.reason, condition_set.ready.message)
            self._let_go(key, record, view)

    async def _tell(self, key: ObjectKey, view: RequestView, reason: str, message: str) -> None:
        """Write an event for what a person would want to see; waiting for a store is not among that."""
        if reason in (
            BlockReason.ERASING.value,
            BlockReason.STORE_UNREACHABLE.value,
            BlockReason.PENDING.value,
        ):
            return
        warning = reason not in ("Erased", "Planned")
        await self._cluster.record_event(Event(request_at(key, view.uid), reason, message, warning))

    def _let_go(self, key: ObjectKey, record: RequestRecord | None, view: RequestView) -> None:
        """Forget a request that has ended and says so; the field selector keeps it away from now on."""
        if record is not None and not record.open and view.blocker is None and view.claimed:
            self._cache.views.pop(key, None)
            self._cache.records.pop(key, None)
            self._ended[view.status.get("state", "Erased")] += 1

    def _blockers(self, record: RequestRecord | None) -> tuple[dict[str, Blocker], dict[str, int]]:
        """Return what blocks an open request, by store, and how often it was tried."""
        if record is None or not record.open:
            return {}, {}
        namespace = record.accepted.namespace
        stores = {managed.name: managed for managed in self._cache.stores_of(namespace)}
        blockers: dict[str, Blocker] = {}
        attempts: dict[str, int] = {}
        for name in sorted({*record.stores, *stores}):
            if record.progress(name).state.settled:
                continue
            blocker = _blocker_at(stores.get(name), name, record)
            if blocker is not None:
                blockers[name] = blocker
            managed = stores.get(name)
            if managed is not None and managed.store is not None:
                attempts[name] = managed.store.attempts.get(record.request, 0)
        return blockers, attempts

    async def write_store(self, managed: ManagedStore) -> None:
        """Write a DataStore's status, if it says something new."""
        store, proof = managed.store, managed.store.proof if managed.store else None
        trouble = managed.trouble
        if store is not None and store.trouble is not None:
            trouble = store.trouble
        lookalikes = proof.lookalikes if proof else ()
        mapping = proof.proved.mapping if proof else None
        primary = managed.description.role == "Primary"
        sources = self._cache.sources_of(managed.name)
        observed = StoreObservation(
            third_party=managed.description.owner == "ThirdParty",
            proved=proof is not None,
            trouble=trouble,
            kinds_unmapped=[kind.value for kind in mapping.kinds_unmapped()] if mapping and primary else [],
            lookalikes=lookalikes,
            journal=proof.journal.value if proof else "NotSupported",
            journal_message=_journal_message(proof.journal.value, proof.journal_ddl) if proof else "",
            without_backups=managed.without_backups,
            looked=store is not None and store.last_observed_at is not None,
            replay=managed.replay,
            notes=[f"keys may repeat: {', '.join(proof.keys_may_repeat)}"]
            if proof and proof.keys_may_repeat
            else [],
            sources=[source.description.short_name for source in sources],
            snapshots_seen=any(_may_have_snapshots(source) for source in sources),
        )
        now = self._clock()
        generation = managed.manifest["metadata"].get("generation", 1)
        condition_set = conditions_of_store(observed)
        self._measure_mapping(managed.name, condition_set)
        status = store_status(
            condition_set,
            managed.status,
            generation=generation,
            now=now,
            seen_at=store.last_observed_at if store else None,
            swept_at=store.last_sweep_at if store else None,
            applied=managed.applied,
            missing=managed.missing,
            journal_number=managed.journal_number,
            lookalikes=lookalikes,
        )
        stale = time.monotonic() - managed.status_written > LAST_SEEN_SECONDS and store is not None
        if not differs(status, managed.status) and not stale:
            return
        metadata = managed.manifest["metadata"]
        try:
            self._metrics.api_writes.labels("status").inc()
            written = await self._cluster.write_status(
                "datastores",
                metadata["namespace"],
                metadata["name"],
                uid=managed.uid,
                status=replacing(status, managed.status),
            )
        except (ClusterUnavailable, ClusterRefused) as away:
            log.warning("status of DataStore %s waits: %s", managed.name, away)
            return
        if written:
            managed.status, managed.status_written = status, time.monotonic()

    def measure(self, queued: int) -> None:
        """Refresh the gauges that follow from what is in memory."""
        now = self._clock()
        self._metrics.queue_depth.set(queued)
        by_state = Counter(self._ended)
        open_records = [record for record in self._cache.records.values() if record.open]
        for view in self._cache.views.values():
            by_state[view.status.get("state") or "Pending"] += 1
        for state in ("Pending", "Planned", "Held", "Erasing", "Stalled", "Erased", "Purged"):
            self._metrics.requests.labels(state).set(by_state[state])
        held = self._held()  # their clock stands still
        due = [record.accepted.due_at for record in open_records if record.request not in held]
        self._metrics.overdue.set(sum(moment < now for moment in due))
        nearest = (min(due) - now).total_seconds() if due else math.nan
        self._metrics.nearest_deadline.set(nearest)
        self._measure_stores(now)

    def _measure_stores(self, now: datetime) -> None:
        """Refresh who owns the stores, and how long ago each was swept: since it was met, if it never was.

        By store and not by guard: a guard is made anew each time that a store can't be connected.
        """
        stores = self._cache.stores.values()
        owners = Counter(managed.description.owner for managed in stores)
        for owner in StoreOwner:
            self._metrics.stores.labels(owner.value).set(owners[owner])
        before, self._swept = self._swept, {}
        for managed in stores:
            if managed.description.owner is StoreOwner.THIRD_PARTY:
                if managed.name in before:  # it was the company's own until now
                    self._metrics.forget_store(managed.name)
                continue
            swept = managed.store.last_sweep_at if managed.store else None
            self._swept[managed.name] = since = swept or before.get(managed.name, now)
            self._metrics.sweep_age.labels(managed.name).set((now - since).total_seconds())

    def _measure_mapping(self, store: str, condition_set: ConditionSet) -> None:
        """Show a store's MappingComplete; while it is not proved there is none, and no sample."""
        statuses = [c.status for c in condition_set.conditions if c.type == "MappingComplete"]
        if statuses:
            self._metrics.mapping_complete.labels(store).set(statuses == [ConditionStatus.TRUE])
        else:
            with suppress(KeyError):
                self._metrics.mapping_complete.remove(store)

    def _held(self) -> frozenset[str]:
        """Return the requests whose persons are held, openly or not."""
        return frozenset(
            request
            for managed in self._cache.stores.values()
            if managed.store is not None
            for request, blocker in list(managed.store.blockers.items())
            if blocker.reason in (BlockReason.HELD, BlockReason.PENDING)
        )


def _may_have_snapshots(source: ManagedSource) -> bool:
    """Tell whether a source has ever shown a snapshot; of one that was not read yet, nobody says no."""
    known = source.known
    return known is None or not known.loaded or bool(known.snapshots)


def _blocker_at(managed: ManagedStore | None, name: str, record: RequestRecord) -> Blocker | None:
    short = name.rpartition("/")[2]
    if managed is None:
        return Blocker(
            BlockReason.STORE_UNREACHABLE, f"DataStore {short} does not exist any more; apply it again"
        )
    if managed.trouble is not None:
        return Blocker(BlockReason.STORE_UNREACHABLE, f"waits for {short}: {managed.trouble.message}")
    if managed.store is None:
        return None
    if managed.replay is not None:
        message = f"{short} was restored, and its missing erasures come first: {managed.replay[1]}"
        return Blocker(BlockReason.ERASING, message)
    if managed.store.trouble is not None:
        return Blocker(BlockReason.STORE_UNREACHABLE, f"waits for {short}: {managed.store.trouble.message}")
    return managed.store.blockers.get(record.request)


def _journal_message(journal: str, ddl: str) -> str:
    match journal:
        case "Kept":
            return "any restore of this store shows within LETHE_JOURNAL_INTERVAL"
        case "NotPermitted":
            return f"Lethe may not create its journal; have a DBA run: {ddl}"
        case _:
            return "this kind of store keeps no journal; a restore shows at the next probe or sweep"


def _worth_writing(status: Mapping[str, Any], before: Mapping[str, Any], *, told_lately: bool) -> bool:
    """Tell whether a status says something new; another message alone can wait."""
    if _essence(status) != _essence(before):
        return True
    return not told_lately and _message(status) != _message(before)


def _message(status: Mapping[str, Any]) -> str | None:
    return next((c.get("message") for c in status.get("conditions", ()) if c.get("type") == "Ready"), None)


def _essence(status: Mapping[str, Any]) -> Any:
    conditions = [(c.get("type"), c.get("status"), c.get("reason")) for c in status.get("conditions", ())]
    stores = [(s.get("name"), s.get("state")) for s in status.get("stores", ())]
    final = status.get("ledger") if status.get("erasedAt") else None
    return (
        status.get("state"),
        status.get("observedGeneration"),
        conditions,
        stores,
        status.get("erasedAt"),
        final,
    )
