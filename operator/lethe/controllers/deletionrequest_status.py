"""The status of DeletionRequests: rebuilt from the ledger, and written as seldom as possible.

A request that is erased within `FIRST_REPORT_SECONDS` gets one status write in its life until `Erased`; one
that waits gets two.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from lethe.api.status.base import troubled_status
from lethe.api.status.deletionrequest import deletionrequest_status
from lethe.controllers.last_copies import LastCopies, last_copy_gone_at
from lethe.controllers.runtime.cache import ManagedStore, ObjectCache, ObjectKey, RequestView, request_at
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.queue import FairQueue
from lethe.controllers.runtime.status_writer import Status, StatusKind, StatusWriter, Written, waits_for
from lethe.domain.conditions.deletionrequest import BackupsObservation, deletionrequest_conditions
from lethe.domain.facts import Outcome
from lethe.domain.requests import RequestRecord
from lethe.domain.trouble import Trouble
from lethe.domain.trust import Blocker, BlockReason
from lethe.ports.cluster import Cluster, Event

FIRST_REPORT_SECONDS = 1.5
CONCURRENT_WRITES = 8
RETRY_SECONDS = 2.0


def _ready_message(status: Status) -> object:
    return next((c.get("message") for c in status.get("conditions", ()) if c.get("type") == "Ready"), None)


def _essence(status: Status) -> object:
    """Return what is news of a request: not attempts, messages, or where the ledger stands meanwhile."""
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


DELETION_REQUEST = StatusKind(
    "deletionrequests",
    "DeletionRequest",
    essence=_essence,
    detail=_ready_message,  # of another message under the same reason nobody need hear within the minute
    patience=60.0,
)
STATES = ("Pending", "Planned", "Held", "Erasing", "Stalled", "Erased", "Purged")


class RequestStatusController(Controller[ObjectKey]):
    """Writes the status of each request that somebody wants to be looked at (`want`)."""

    name = "deletionrequest status"
    at_once = CONCURRENT_WRITES

    def __init__(
        self,
        cache: ObjectCache,
        cluster: Cluster,
        metrics: Metrics,
        writer: StatusWriter,
        copies: LastCopies,
        clock: Callable[[], datetime],
    ) -> None:
        super().__init__()
        self.queue = FairQueue(lambda key: key[0], at_once=3 * CONCURRENT_WRITES // 4)
        self._cache, self._cluster, self._metrics = cache, cluster, metrics
        self._writer, self._copies, self._clock = writer, copies, clock
        self._ended: Counter[str] = Counter()

    def want(self, key: ObjectKey) -> None:
        """Let a status be looked at: at once if its request has ended, else when it has waited a while."""
        view = self._cache.views.get(key)
        if view is None:
            return
        record = self._cache.records.get(key) if view.claimed else None
        ended = record is not None and not record.open and view.blocker is None
        age = time.monotonic() - view.first_seen
        self.queue.add(key, after=0.0 if ended else FIRST_REPORT_SECONDS - age)

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Write one request's status if it says something new."""
        view = self._cache.views.get(key)
        if view is None:
            return None
        record = self._cache.records.get(key) if view.claimed else None
        blockers, attempts = self._blockers(record)
        own = [one for one in (view.blocker, view.ending) if one is not None]
        kept_open = record is not None and not record.open and view.blocker is not None
        erased = record is not None and record.outcome is Outcome.ERASED
        observed = self._copies.observe(record) if record is not None and erased else BackupsObservation()
        now = self._clock()
        condition_set = deletionrequest_conditions(
            None if kept_open else record, [*blockers.values(), *own], backups=observed, now=now
        )
        status = deletionrequest_status(
            record,
            condition_set,
            blockers,
            attempts,
            view.shown.status,
            generation=view.generation,
            now=now,
            last_copy_gone_at=last_copy_gone_at(record, observed) if record is not None else None,
            rehearsed_at=self._copies.rehearsed_at(record) if record is not None and erased else None,
        )
        written = await self._writer.write(DELETION_REQUEST, key, view.shown, status)
        if written is Written.WAITS:
            return RETRY_SECONDS
        if written is Written.WRITTEN:
            await self._record_event(key, view, condition_set.ready.reason, condition_set.ready.message)
        again = waits_for(DELETION_REQUEST, view.shown, status) if written is Written.SAME else None
        self._let_go(key, record, view)
        return again

    async def show_trouble(self, key: ObjectKey, trouble: Trouble) -> None:
        """Say in a request's status that Lethe fails to say where it stands; all else stays said."""
        view = self._cache.views.get(key)
        if view is not None:
            status = troubled_status(
                trouble, view.shown.status, generation=view.generation, now=self._clock()
            )
            await self._writer.write(DELETION_REQUEST, key, view.shown, status)

    async def _record_event(self, key: ObjectKey, view: RequestView, reason: str, message: str) -> None:
        """Write an event for what a person would want to see; waiting for a store is not among that."""
        if reason in (BlockReason.ERASING, BlockReason.STORE_UNREACHABLE, BlockReason.PENDING):
            return
        warning = reason not in ("Erased", "Planned")
        await self._cluster.record_event(Event(request_at(key, view.shown.uid), reason, message, warning))

    def _let_go(self, key: ObjectKey, record: RequestRecord | None, view: RequestView) -> None:
        """Forget a request that has ended and says so; the field selector keeps it away from now on."""
        if record is not None and not record.open and view.blocker is None and view.claimed:
            self._cache.views.pop(key, None)
            self._cache.records.pop(key, None)
            self._ended[view.shown.status.get("state", "Erased")] += 1

    def _blockers(self, record: RequestRecord | None) -> tuple[dict[str, Blocker], dict[str, int]]:
        """Return what blocks an open request, by store, and how often it was tried."""
        if record is None or not record.open:
            return {}, {}
        stores = {store.name: store for store in self._cache.stores_of(record.accepted.namespace)}
        blockers: dict[str, Blocker] = {}
        attempts: dict[str, int] = {}
        for name in sorted({*record.stores, *stores}):
            if record.progress(name).state.settled:
                continue
            store = stores.get(name)
            blocker = blocker_at(store, name, record)
            if blocker is not None:
                blockers[name] = blocker
            if store is not None and store.session is not None:
                attempts[name] = store.session.attempts.get(record.request, 0)
        return blockers, attempts

    def measure(self, queued: int) -> None:
        """Refresh the gauges of requests, from what is in memory."""
        now = self._clock()
        self._metrics.queue_depth.set(queued)
        by_state = Counter(self._ended)
        for view in self._cache.views.values():
            by_state[view.shown.status.get("state") or "Pending"] += 1
        for state in STATES:
            self._metrics.requests.labels(state).set(by_state[state])
        held = self._held()  # their clock stands still
        open_records = [record for record in self._cache.records.values() if record.open]
        due = [record.accepted.due_at for record in open_records if record.request not in held]
        self._metrics.overdue.set(sum(moment < now for moment in due))
        nearest = (min(due) - now).total_seconds() if due else math.nan
        self._metrics.nearest_deadline.set(nearest)

    def _held(self) -> frozenset[str]:
        """Return the requests whose persons are held, openly or not."""
        return frozenset(
            request
            for store in self._cache.stores.values()
            if store.session is not None
            for request, blocker in list(store.session.blockers.items())
            if blocker.reason in (BlockReason.HELD, BlockReason.PENDING)
        )


def blocker_at(store: ManagedStore | None, name: str, record: RequestRecord) -> Blocker | None:
    """Return what keeps a request from being erased in a store; `None`: nothing does."""
    short = name.rpartition("/")[2]
    if store is None:
        message = f"DataStore {short} does not exist any more; apply it again"
        return Blocker(BlockReason.STORE_UNREACHABLE, message)
    if store.unusable is not None:
        return _waits_for(short, store.unusable.message)
    if store.session is None:
        return None
    if store.replay is not None:
        message = f"{short} was restored, and its missing erasures come first: {store.replay[1]}"
        return Blocker(BlockReason.ERASING, message)
    if store.trouble is not None:
        return _waits_for(short, store.trouble.message)
    return store.session.blockers.get(record.request)


def _waits_for(store: str, message: str) -> Blocker:
    return Blocker(BlockReason.STORE_UNREACHABLE, f"waits for {store}: {message}")
