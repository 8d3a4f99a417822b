"""The engine: what is asked is taken in, each store is looked after, and status follows from the ledger.

Loops, each a few lines that call a workflow:

- *intake* takes requests from the queue into the ledger, as a set;
- a *guard* for each store looks, replays, serves, probes and sweeps (`guarding.py`);
- *reporting* writes status, as seldom as possible (`reporting.py`);
- *resync* lists everything again every few minutes, since events are hints.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from lethe.controllers.backupsnapshot import BackupSnapshotController, SnapshotObjects
from lethe.controllers.backupsource import BackupSourceController, ConnectBackend
from lethe.controllers.datastore import StoreController
from lethe.controllers.datastore_connect import ConnectStore
from lethe.controllers.datastore_status import StoreStatus
from lethe.controllers.deletionrequest import RequestCompletion, RequestQueue
from lethe.controllers.deletionrequest_status import RequestStatusController
from lethe.controllers.last_copies import LastCopies, TombstoneExpiry
from lethe.controllers.restoreevent import RestoreEventController
from lethe.controllers.runtime.cache import ObjectCache, ObjectKey, key_of
from lethe.controllers.runtime.clock import SteadyClock, TwoClocks
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.secrets import Secrets
from lethe.controllers.runtime.status_writer import StatusWriter
from lethe.controllers.runtime.supervisor import Supervisor
from lethe.domain.periods import Period
from lethe.engine.legal import Legal
from lethe.engine.telling import NoticeSender
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Manifest
from lethe.ports.keys import Keyring
from lethe.ports.ledger import Ledger
from lethe.ports.notices import NoticeRenderer
from lethe.workflows.legal.notify import Mailer
from lethe.workflows.pass_context import PassContext

log = logging.getLogger("lethe.engine")

RESYNC_SECONDS = 300
EXPIRY_SCANS = 12
"""After how many scan intervals (an hour, by default) it is looked whether tombstones have ended."""
WIND_DOWN_SECONDS = 20
"""How long the end waits for what can't be interrupted; less than Kubernetes waits for a pod."""


class Engine:
    """Keeps the promises; `run` ends only when `stop` is set, or with the error that makes going on
    unsafe.
    """

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
        retention: Period,
        scan_interval: float,
        renderer: NoticeRenderer,
        mailer: Mailer | None,
        notices_per_hour: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        # A clock that is set while Lethe runs must not date an erasure before the backups that hold it.
        steady = SteadyClock(clock, lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
        clock = steady.now
        clocks = TwoClocks(steady, cluster)
        secrets = Secrets(cluster, metrics)
        self._token = 0
        self._pass_context = lambda: PassContext(ledger, keyring, self._token, clock)
        self.cache = ObjectCache()
        self.metrics = metrics
        metrics.tell_settings(
            erasure_deadline=(deadline.after(now := clock()) - now).total_seconds(),
            scan_interval=scan_interval,
            sweep_interval=sweep_interval,
        )
        self._ledger, self._cluster = ledger, cluster
        self._namespaces = namespaces
        self.started = asyncio.Event()
        self.quiet = True
        """Whether, once `run` has ended, nothing goes on that it had begun."""
        self._controllers: list[Controller[Any]] = []
        self.statuses = StatusWriter(cluster, metrics)
        self.copies = LastCopies(self.cache, ledger, cluster, self.statuses, clock)
        objects = SnapshotObjects(cluster, metrics, self.statuses, clock)
        self.sources = BackupSourceController(
            self.cache,
            ledger,
            cluster,
            connect_backend,
            metrics,
            self.statuses,
            objects,
            clocks=clocks,
            retention=retention,
            scan_interval=scan_interval,
            regrade=self.copies.regrade,
            ring_store=self._ring_store,
        )
        self.snapshots = BackupSnapshotController(
            self.cache, objects, self.statuses, clock, scan_soon=self.sources.scan_soon
        )
        self._store_status = StoreStatus(self.cache, metrics, self.statuses, clock)
        self._request_status = RequestStatusController(
            self.cache, cluster, metrics, self.statuses, self.copies, clock
        )
        completion = RequestCompletion(self.cache, ledger, self._pass_context, self._request_status)
        self.restores = RestoreEventController(
            self.cache,
            ledger,
            self._pass_context,
            cluster,
            metrics,
            self.statuses,
            clock,
            name_of_snapshot=objects.name_of,
            ring_store=self._ring_store,
            journal_interval=journal_interval,
        )
        self._notices = notices = NoticeSender(
            self.cache,
            ledger,
            keyring,
            self._pass_context,
            cluster,
            secrets,
            clocks,
            renderer=renderer,
            mailer=mailer,
            per_hour=notices_per_hour,
            ring_store=self._ring_store,
        )
        self.legal = Legal(
            self.cache,
            ledger,
            self._pass_context,
            cluster,
            metrics,
            secrets,
            notices,
            clocks,
            self._ring_store,
            self.sources.scan_soon,
        )
        self._stores = StoreController(
            self.cache,
            ledger,
            self._pass_context,
            cluster,
            metrics,
            connect,
            self._store_status,
            self._request_status,
            completion,
            self.restores,
            clock=clock,
            journal_interval=journal_interval,
            sweep_interval=sweep_interval,
            regrade=self.copies.regrade,
            contacts_found=self.legal.contacts_found,
        )
        self._requests = RequestQueue(
            self.cache,
            self._pass_context,
            cluster,
            secrets,
            self._request_status,
            completion,
            clock=clock,
            deadline=deadline,
            ring_stores=self._stores.ring,
        )
        self._controllers += [
            self._requests,
            completion,
            self._request_status,
            self._stores,
            self.restores,
            self.sources,
            self.snapshots,
            self.copies,
            self.copies.grading,
            TombstoneExpiry(self.cache, ledger, clocks, every=EXPIRY_SCANS * scan_interval),
        ]
        self._supervisor = Supervisor(self._controllers)
        self._doorbells: Mapping[str, Callable[[Manifest, bool], None]] = {
            "deletionrequests": partial(_ring, self._requests),
            "datastores": partial(_ring, self._stores),
            "restoreevents": partial(_ring, self.restores),
            "backupsources": partial(_ring, self.sources),
            "backupsnapshots": lambda manifest, gone: self.snapshots.observe(manifest, gone=gone),
            "legalrequests": self._ring_legal,
        }

    def _ring_store(self, key: ObjectKey) -> None:
        self._stores.queue.add(key)

    # doorbells

    def ring(self, plural: str, manifest: Manifest, *, gone: bool) -> None:
        """An object of a kind was seen; `gone`: it was deleted, or has left the selector of the watch."""
        self._doorbells[plural](manifest, gone)

    def _ring_legal(self, manifest: Manifest, gone: bool) -> None:
        self.legal.ring(manifest, gone=gone)

    @property
    def heartbeat_age(self) -> float:
        """Return the seconds since the event loop last turned."""
        return self._supervisor.heartbeat_age

    # the loops

    async def run(self, stop: asyncio.Event) -> None:
        """Take over the ledger, meet the stores, and keep going. Raises `Fenced`."""
        loops: list[asyncio.Future[Any]] = []
        try:
            await self._begin()
            loops += [
                asyncio.create_task(loop, name=name)
                for name, loop in (
                    ("resync", self._resync_loop()),
                    ("legal", self.legal.run()),
                    ("measure", self._measure_loop()),
                    ("controllers", self._supervisor.run()),
                    ("stop", _until(stop)),
                )
            ]
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self.metrics.leader.set(0)
            for task in loops:
                task.cancel()
            await self._wind_down()
            await asyncio.gather(*loops, return_exceptions=True)

    async def _begin(self) -> None:
        self._token = await asyncio.to_thread(self._ledger.take_over)
        self.metrics.leader.set(1)
        for record in await asyncio.to_thread(self._ledger.open_requests):
            self.cache.records[(record.accepted.namespace, record.accepted.name)] = record
        await self._persevere(self._list_backups)  # first: a store says which sources cover it
        await self._persevere(self._list_legal)  # before any store: what is held must not be erased
        await self._persevere(self._list_stores)
        await self._persevere(self._list_restores)
        self.started.set()

    async def _wind_down(self) -> None:
        """Let end what has begun and can't be interrupted: visits, deletions of snapshots, letters."""
        begun: list[asyncio.Future[Any]] = []
        begun += [managed.work.future for managed in self.cache.stores.values() if managed.work is not None]
        await self.sources.close()
        # One that lists only lists.
        begun += [work for work, (source, _) in self.cache.scans.items() if not source.listing]
        if self._notices.under_way is not None:
            begun.append(self._notices.under_way)
        if begun:
            ended, going_on = await asyncio.wait(begun, timeout=WIND_DOWN_SECONDS)
            await asyncio.gather(*ended, return_exceptions=True)
            self.quiet = not going_on
        await self._stores.close()

    async def _list_stores(self) -> None:
        await self._stores.take_stock(self._namespaces)

    async def _list_restores(self) -> None:
        await self.restores.take_stock(self._namespaces)

    async def _list_legal(self) -> None:
        await self.legal.take_stock(self._namespaces)

    async def _list_backups(self) -> None:
        await self.snapshots.take_stock(self._namespaces)
        await self.sources.take_stock(self._namespaces)

    async def _resync_loop(self) -> None:
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            try:
                await self._list_legal()
                await self._list_stores()
                await self._list_restores()
                await self._list_backups()
                await self._requests.take_stock(self._namespaces)
            except (ClusterUnavailable, ClusterRefused) as away:
                log.warning("resync waits: %s", away)

    async def _measure_loop(self) -> None:
        while True:
            # One that has nothing to write must notice, too, that somebody has taken over.
            await asyncio.to_thread(self._ledger.confirm)
            position = await asyncio.to_thread(self._ledger.position)
            self.metrics.ledger_head.set(position.sequence)
            await self.restores.measure(position.sequence)
            self._request_status.measure(len(self.cache.requests))
            self._store_status.measure()
            self.sources.measure()
            await asyncio.sleep(2)

    async def _persevere(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        pause = 0.2
        while True:
            try:
                return await act()
            except (ClusterUnavailable, ClusterRefused) as away:
                log.warning("start waits: %s", away)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10)


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


class _Kind(Protocol):
    def observe(self, manifest: Manifest) -> None: ...
    def forget(self, key: ObjectKey) -> None: ...


def _ring(kind: _Kind, manifest: Manifest, gone: bool) -> None:
    if gone:
        kind.forget(key_of(manifest))
    else:
        kind.observe(manifest)
