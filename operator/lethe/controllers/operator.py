"""The controllers of all kinds, put together: in which order they take stock, and how they end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from lethe.controllers.backupsnapshot import BackupSnapshotController, SnapshotObjects
from lethe.controllers.backupsource import BackupSourceController, ConnectBackend
from lethe.controllers.datastore import StoreController
from lethe.controllers.datastore_connect import ConnectStore
from lethe.controllers.datastore_status import StoreStatus
from lethe.controllers.deletionrequest import RequestCompletion, RequestQueue
from lethe.controllers.deletionrequest_status import RequestStatusController
from lethe.controllers.early_warning import EarlyWarning
from lethe.controllers.gate import GateController
from lethe.controllers.last_copies import LastCopies, TombstoneExpiry
from lethe.controllers.legalrequest import LegalRequestController
from lethe.controllers.legalrequest_records import LegalRecords
from lethe.controllers.legalrequest_status import LegalRequestStatus
from lethe.controllers.notices import NoticeSender
from lethe.controllers.restoredrill import ConnectDrill, RestoreDrillController
from lethe.controllers.restoreevent import RestoreEventController
from lethe.controllers.runtime.cache import ObjectCache, ObjectKey
from lethe.controllers.runtime.clock import SteadyClock, TwoClocks
from lethe.controllers.runtime.controller import Controller, RepeatedWork
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.secrets import Secrets
from lethe.controllers.runtime.status_writer import StatusWriter
from lethe.controllers.runtime.supervisor import Supervisor
from lethe.domain.periods import Period
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Manifest, OthersObjects
from lethe.ports.keys import Keyring
from lethe.ports.ledger import Ledger
from lethe.ports.notices import NoticeRenderer
from lethe.workflows.legal.notify import Mailer
from lethe.workflows.pass_context import PassContext

log = logging.getLogger("lethe.operator")

RESYNC_SECONDS = 300
MEASURE_SECONDS = 2
EXPIRY_SCANS = 12
"""After how many scan intervals (an hour, by default) it is looked whether tombstones have expired."""

WIND_DOWN_SECONDS = 20
"""How long the end waits for what can't be interrupted; less than Kubernetes waits for a pod."""


class Kind(Protocol):
    """A controller as the watch of its kind sees it."""

    def observe(self, manifest: Manifest, *, gone: bool = False) -> None:
        """Take in the newest manifest of an object; `gone`: the last one."""
        ...


class Operator:
    """Keeps the promises. `run` ends only when `stop` is set, or with what makes going on unsafe."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        keyring: Keyring,
        cluster: Cluster,
        connect: ConnectStore,
        metrics: Metrics,
        namespaces: Collection[str],
        deadline: Period,
        journal_interval: float,
        sweep_interval: float,
        connect_backend: ConnectBackend,
        connect_drill: ConnectDrill,
        retention: Period,
        scan_interval: float,
        clock_skew: timedelta,
        renderer: NoticeRenderer,
        mailer: Mailer | None,
        notices_per_hour: int,
        others: OthersObjects | None = None,
        early_warning: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        # A clock that is set while Lethe runs must not date an erasure before the backups that hold it.
        steady = SteadyClock(clock, lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
        clock, clocks = steady.now, TwoClocks(steady, cluster)
        metrics.tell_settings(
            erasure_deadline=(deadline.after(now := clock()) - now).total_seconds(),
            scan_interval=scan_interval,
            sweep_interval=sweep_interval,
        )
        self._ledger, self._cluster, self._namespaces, self._metrics = ledger, cluster, namespaces, metrics
        self._token = 0
        self.started = asyncio.Event()
        self.quiet = True
        """Whether, once `run` has ended, nothing goes on that it had begun."""
        cache = self._cache = ObjectCache()
        statuses, secrets = StatusWriter(cluster, metrics), Secrets(cluster, metrics)

        def context() -> PassContext:
            return PassContext(ledger, keyring, self._token, clock)

        self._copies = LastCopies(cache, ledger, cluster, statuses, clock)
        objects = SnapshotObjects(cluster, metrics, statuses, clock)
        self._sources = BackupSourceController(
            cache,
            ledger,
            cluster,
            connect_backend,
            metrics,
            statuses,
            objects,
            clocks=clocks,
            retention=retention,
            scan_interval=scan_interval,
            clock_skew=clock_skew,
            regrade=self._copies.regrade,
            ring_store=self._ring_store,
        )
        self._snapshots = BackupSnapshotController(
            cache, objects, statuses, clock, scan_soon=self._sources.scan_soon
        )
        self._restores = RestoreEventController(
            cache,
            ledger,
            context,
            cluster,
            metrics,
            statuses,
            clock,
            name_of_snapshot=objects.name_of,
            ring_store=self._ring_store,
            ring_gate=self._ring_gate,
            journal_interval=journal_interval,
        )
        self._request_status = RequestStatusController(cache, cluster, metrics, statuses, self._copies, clock)
        completion = RequestCompletion(cache, ledger, context, self._request_status)
        self._store_status = StoreStatus(cache, metrics, statuses, clock)
        gates = self._gates = GateController(
            cache, ledger, cluster, metrics, self._store_status, connect, every=journal_interval
        )
        self._stores = StoreController(
            cache,
            ledger,
            context,
            cluster,
            metrics,
            connect,
            self._store_status,
            self._request_status,
            completion,
            self._restores,
            gates,
            clock=clock,
            journal_interval=journal_interval,
            sweep_interval=sweep_interval,
            regrade=self._copies.regrade,
            ring_open_legal=self._ring_open_legal,
        )
        self._drills = RestoreDrillController(
            cache,
            ledger,
            context,
            cluster,
            connect_drill,
            metrics,
            statuses,
            clock,
            tell_rehearsed=self._copies.tell_rehearsed,
            clocks=clocks,
            scan_soon=self._sources.scan_soon,
        )
        self._requests = RequestQueue(
            cache,
            context,
            cluster,
            secrets,
            self._request_status,
            completion,
            clock=clock,
            deadline=deadline,
            ring_stores=self._stores.ring,
        )
        legal_status = LegalRequestStatus(cache, cluster, metrics, statuses, clock)
        legal_records = LegalRecords(cache, ledger, legal_status)
        self._notices = NoticeSender(
            cache,
            context,
            cluster,
            secrets,
            clocks,
            records=legal_records,
            stores=self._stores,
            renderer=renderer,
            mailer=mailer,
            per_hour=notices_per_hour,
            look_again=self._look_again_at_legal,
            ring_primary=self._ring_primary,
        )
        self._legal = LegalRequestController(
            cache,
            context,
            cluster,
            metrics,
            secrets,
            clocks,
            records=legal_records,
            status=legal_status,
            notices=self._notices,
            ring_stores=self._ring_stores_and_sources,
            ring_primary=self._ring_primary,
        )
        self._kinds: Mapping[str, Kind] = {
            "deletionrequests": self._requests,
            "datastores": self._stores,
            "restoreevents": self._restores,
            "backupsources": self._sources,
            "backupsnapshots": self._snapshots,
            "legalrequests": self._legal,
            "restoredrills": self._drills,
        }
        resync = RepeatedWork("resync", self._resync, every=RESYNC_SECONDS)
        resync.ring(after=RESYNC_SECONDS)
        measure = RepeatedWork("measure", self._measure, every=MEASURE_SECONDS)
        measure.ring()
        controllers: list[Controller[Any]] = [
            self._requests,
            completion,
            self._request_status,
            self._stores,
            gates,
            self._restores,
            self._sources,
            self._snapshots,
            self._copies,
            self._copies.grading,
            TombstoneExpiry(cache, ledger, clocks, every=EXPIRY_SCANS * scan_interval),
            self._legal,
            self._notices,
            self._drills,
            resync,
            measure,
        ]
        if others is not None and early_warning:
            warning = EarlyWarning(
                cache,
                cluster,
                others,
                metrics,
                clock,
                watch=early_warning,
                namespaces=namespaces,
                observe=self._restores.observe,
            )
            warn = RepeatedWork("warn", warning.warn, every=journal_interval)
            warn.ring()
            self._restores.has_ended = warning.has_ended
            controllers += [warning, warn]
        self._supervisor = Supervisor(controllers)

    def ring(self, plural: str, manifest: Manifest, *, gone: bool) -> None:
        """An object of a kind was seen; `gone`: it was deleted, or has left the selector of the watch."""
        self._kinds[plural].observe(manifest, gone=gone)

    @property
    def heartbeat_age(self) -> float:
        """Return the seconds since the event loop last turned."""
        return self._supervisor.heartbeat_age

    async def run(self, stop: asyncio.Event) -> None:
        """Take over the ledger, take stock of all kinds, and keep going. Raises `Fenced`, `LedgerError`."""
        tasks: list[asyncio.Future[Any]] = []
        try:
            await self._begin()
            tasks = [asyncio.create_task(self._supervisor.run()), asyncio.create_task(stop.wait())]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._metrics.leader.set(0)
            for task in tasks:
                task.cancel()
            await self._wind_down()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self) -> None:
        self._token = await asyncio.to_thread(self._ledger.take_over)
        self._metrics.leader.set(1)
        for record in await asyncio.to_thread(self._ledger.open_requests):
            self._cache.records[record.accepted.namespace, record.accepted.name] = record
        await self._legal.load()
        await _persevere(self._take_stock)
        self.started.set()

    async def _take_stock(self) -> None:
        """List all kinds but requests, which the watch brings, in the order in which one needs another."""
        await self._snapshots.take_stock(self._namespaces)
        await self._sources.take_stock(self._namespaces)  # before stores: a store says which of them cover it
        await self._legal.take_stock(self._namespaces)  # before stores: what is held must not be erased
        await self._stores.take_stock(self._namespaces)
        await self._restores.take_stock(self._namespaces)
        await self._drills.take_stock(self._namespaces)

    async def _resync(self) -> None:
        """List everything again, since events are hints."""
        await self._take_stock()
        await self._requests.take_stock(self._namespaces)

    async def _measure(self) -> None:
        # One that has nothing to write must notice, too, that somebody has taken over.
        await asyncio.to_thread(self._ledger.confirm)
        position = await asyncio.to_thread(self._ledger.position)
        self._metrics.ledger_head.set(position.sequence)
        await self._restores.measure(position.sequence)
        self._request_status.measure(len(self._cache.requests))
        erased = await asyncio.to_thread(self._ledger.erased_stores)
        self._metrics.stores_unwatched.set(len(erased - self._cache.watched_stores()))
        self._store_status.measure()
        self._sources.measure()
        self._legal.measure()
        self._drills.measure()

    async def _wind_down(self) -> None:
        """Let end what has begun and can't be interrupted: passes, deletions of snapshots, letters."""
        begun: list[asyncio.Future[Any]] = [
            managed.work.future for managed in self._cache.stores.values() if managed.work is not None
        ]
        await self._sources.close()
        # One that lists only lists.
        begun += [work for work, (source, _) in self._cache.scans.items() if not source.listing]
        await self._drills.close()
        begun += self._drills.under_way
        if self._notices.under_way is not None:
            begun.append(self._notices.under_way)
        if begun:
            ended, going_on = await asyncio.wait(begun, timeout=WIND_DOWN_SECONDS)
            await asyncio.gather(*ended, return_exceptions=True)
            self.quiet = not going_on
        await self._stores.close()

    # what one kind asks of another

    def _ring_store(self, key: ObjectKey) -> None:
        self._stores.queue.add(key)

    def _ring_gate(self, key: ObjectKey) -> None:
        self._gates.queue.add(key)

    def _ring_primary(self, namespace: str) -> None:
        primary = self._cache.primary_of(namespace)
        if primary is not None:
            self._stores.queue.add(primary.key)

    def _ring_stores_and_sources(self, namespace: str) -> None:
        self._stores.ring([namespace])
        for key in self._cache.sources:
            if key[0] == namespace:
                self._sources.scan_soon(key)

    def _ring_open_legal(self) -> None:
        self._legal.ring_open()

    def _look_again_at_legal(self, key: ObjectKey) -> None:
        self._legal.queue.add(key)


async def _persevere(act: Callable[[], Awaitable[None]]) -> None:
    pause = 0.2
    while True:
        try:
            return await act()
        except (ClusterUnavailable, ClusterRefused) as away:
            log.warning("start waits: %s", away)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10)
