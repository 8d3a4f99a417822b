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
from collections.abc import Callable, Collection, Coroutine
from datetime import UTC, datetime
from typing import Any

from lethe.controllers.legalrequest import LegalRequestController
from lethe.controllers.legalrequest_records import LegalRecords
from lethe.controllers.legalrequest_status import LegalRequestStatus
from lethe.controllers.notices import NoticeSender
from lethe.controllers.runtime.cache import ObjectCache, ObjectKey, key_of
from lethe.controllers.runtime.clock import SteadyClock, TwoClocks
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.secrets import Secrets
from lethe.controllers.runtime.status_writer import StatusWriter
from lethe.controllers.runtime.supervisor import Supervisor
from lethe.domain.periods import Period
from lethe.engine.backups import Backups, ConnectBackend
from lethe.engine.contacts import PassQuestions
from lethe.engine.copies import Copies
from lethe.engine.datastore import StoreController
from lethe.engine.intake import RequestQueue
from lethe.engine.reporting import Reporting
from lethe.engine.restores import Restores
from lethe.engine.stores import ConnectStore, Stores
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Manifest
from lethe.ports.keys import Keyring
from lethe.ports.ledger import Ledger
from lethe.ports.notices import NoticeRenderer
from lethe.workflows.notifying import Mailer

log = logging.getLogger("lethe.engine")

OPEN_REQUESTS = "status.state!=Erased,status.state!=Purged,status.state!=Planned"
"""The field selector of requests that still need work.

Leaving it arrives as DELETED: never read that as gone.
"""

RESYNC_SECONDS = 300
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
        self.cache = ObjectCache()
        self.metrics = metrics
        metrics.tell_settings(
            erasure_deadline=(deadline.after(now := clock()) - now).total_seconds(),
            scan_interval=scan_interval,
            sweep_interval=sweep_interval,
        )
        self._ledger, self._cluster = ledger, cluster
        self._namespaces = namespaces
        self._token = 0
        self.started = asyncio.Event()
        self.quiet = True
        """Whether, once `run` has ended, nothing goes on that it had begun."""
        self._background: set[asyncio.Task[Any]] = set()
        self._controllers: list[Controller[Any]] = []
        self.statuses = StatusWriter(cluster, metrics)
        self.copies = Copies(self.cache, ledger, cluster, metrics, clock)
        self.backups = Backups(
            self.cache,
            ledger,
            cluster,
            connect_backend,
            metrics,
            clocks=clocks,
            retention=retention,
            scan_interval=scan_interval,
            regrade=self.copies.regrade,
        )
        self.reporting = Reporting(self.cache, cluster, metrics, clock, self.copies)
        self.restores = Restores(
            self.cache, ledger, cluster, metrics, clock, self.backups.objects, journal_interval
        )
        legal_status = LegalRequestStatus(self.cache, cluster, metrics, self.statuses, clock)
        legal_records = LegalRecords(self.cache, ledger, legal_status)
        questions = PassQuestions(self.cache, looked=self._ring_open_legal)
        self._notices = NoticeSender(
            self.cache,
            ledger,
            keyring,
            cluster,
            secrets,
            clocks,
            records=legal_records,
            stores=questions,
            renderer=renderer,
            mailer=mailer,
            per_hour=notices_per_hour,
            look_again=self._look_again_at_legal,
            ring_primary=self._ring_primary,
        )
        self.legal = LegalRequestController(
            self.cache,
            ledger,
            keyring,
            cluster,
            metrics,
            secrets,
            clocks,
            records=legal_records,
            status=legal_status,
            notices=self._notices,
            ring_stores=self._ring_stores,
            ring_primary=self._ring_primary,
        )
        self._controllers += [self.legal, self._notices]
        self._controller = StoreController(
            self.cache,
            ledger,
            keyring,
            cluster,
            metrics,
            self.reporting,
            self.restores,
            clock=clock,
            journal_interval=journal_interval,
            sweep_interval=sweep_interval,
            contacts_found=questions.contacts_found,
        )
        self._stores = Stores(
            self.cache, cluster, connect, self._controller, regrade=self.copies.regrade, spawn=self._spawn
        )
        self._requests = RequestQueue(
            self.cache,
            ledger,
            keyring,
            cluster,
            secrets,
            self.reporting,
            clock=clock,
            deadline=deadline,
            consider=self._controller.consider,
        )

    # doorbells

    def ring_request(self, manifest: Manifest, *, listed: bool = False) -> None:
        """A DeletionRequest was seen, by the watch or in a list; it is looked at soon."""
        self._requests.ring(manifest, listed=listed)

    def ring_request_gone(self, manifest: Manifest) -> None:
        """A DeletionRequest was deleted, or has ended and left the selector: nobody waits for its status.

        What was accepted goes on all the same; the ledger knows it.
        """
        self.cache.views.pop(key_of(manifest), None)

    def ring_store(self, manifest: Manifest, *, gone: bool) -> None:
        """A DataStore was seen, or is gone."""
        key = key_of(manifest)
        self._spawn(self._stores.forget(key) if gone else self._stores.meet(manifest))

    def ring_restore(self, manifest: Manifest, *, gone: bool) -> None:
        """A RestoreEvent was seen, or is gone."""
        if gone:
            self.cache.restore_events.pop(key_of(manifest), None)
        else:
            self._spawn(self.restores.meet(manifest))

    def ring_source(self, manifest: Manifest, *, gone: bool) -> None:
        """A BackupSource was seen, or is gone."""
        key = key_of(manifest)
        self._spawn(self.backups.forget(key) if gone else self.backups.meet(manifest))

    def ring_snapshot(self, manifest: Manifest, *, gone: bool) -> None:
        """A BackupSnapshot was seen, or is gone."""
        self._spawn(self.backups.meet_snapshot(manifest, gone=gone))

    def ring_legal(self, manifest: Manifest, *, gone: bool) -> None:
        """A LegalRequest was seen, or is gone."""
        self.legal.ring(manifest, gone=gone)

    @property
    def heartbeat_age(self) -> float:
        """Return the seconds since the engine's loop last turned."""
        return time.monotonic() - self._requests.beat

    # the loops

    async def run(self, stop: asyncio.Event) -> None:
        """Take over the ledger, meet the stores, and keep going. Raises `Fenced`."""
        loops: list[asyncio.Future[Any]] = []
        try:
            await self._begin()
            loops += [
                asyncio.create_task(loop, name=name)
                for name, loop in (
                    ("intake", self._requests.run()),
                    ("reporting", self.reporting.run()),
                    ("failed stores", self._stores.run()),
                    ("resync", self._resync_loop()),
                    ("copies", self.copies.run()),
                    ("forgetting", self.backups.expire_tombstones()),
                    ("measure", self._measure_loop()),
                    ("controllers", Supervisor(self._controllers).run()),
                    ("stop", _until(stop)),
                )
            ]
            watched: list[asyncio.Future[Any]] = [*loops, self._controller.failed, self.backups.failed]
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
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
        self._controller.token = self._token
        self.metrics.leader.set(1)
        for record in await asyncio.to_thread(self._ledger.open_requests):
            self.cache.records[(record.accepted.namespace, record.accepted.name)] = record
        await self.legal.load()
        await self._persevere(self._list_backups)  # first: a store says which sources cover it
        await self._persevere(self._list_legal)  # before any store: what is held must not be erased
        await self._persevere(self._list_stores)
        await self._persevere(self._list_restores)
        self.started.set()

    async def _wind_down(self) -> None:
        """Let end what has begun and can't be interrupted: visits, deletions of snapshots, letters."""
        begun: list[asyncio.Future[Any]] = []
        for managed in self.cache.stores.values():
            if managed.task is not None:
                managed.task.cancel()
                begun.append(managed.task)
        for work, (source, _) in self.cache.scans.items():
            source.abandoned = True  # one that lists only lists
            if not source.listing:
                begun.append(work)
        await self.backups.close()
        if self._notices.under_way is not None:
            begun.append(self._notices.under_way)
        if begun:
            ended, going_on = await asyncio.wait(begun, timeout=WIND_DOWN_SECONDS)
            await asyncio.gather(*ended, return_exceptions=True)
            self.quiet = not going_on

    async def _list_stores(self) -> None:
        await self._stores.take_stock(self._namespaces)

    async def _list_restores(self) -> None:
        async for manifest in self._cluster.list("restoreevents", self._namespaces):
            await self.restores.meet(manifest)

    async def _list_legal(self) -> None:
        await self.legal.take_stock(self._namespaces)

    async def _list_backups(self) -> None:
        await self.backups.take_stock(self._namespaces)

    def _ring_open_legal(self) -> None:
        """A store was looked into for subjects of legal requests."""
        self.legal.ring_open()

    def _look_again_at_legal(self, key: ObjectKey) -> None:
        """Something came of letters about a legal request."""
        self.legal.queue.add(key)

    def _ring_primary(self, namespace: str) -> None:
        """Let the Primary of a namespace be visited soon."""
        primary = self.cache.primary_of(namespace)
        if primary is not None:
            primary.wake.set()

    def _ring_stores(self, namespace: str) -> None:
        """Let the stores and the sources of a namespace be visited soon."""
        for managed in self.cache.stores_of(namespace):
            managed.wake.set()
        for source in self.cache.sources.values():
            if source.description.namespace == namespace:
                source.wake.set()

    async def _resync_loop(self) -> None:
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            try:
                await self._list_legal()
                await self._list_stores()
                await self._list_restores()
                await self._list_backups()
                async for manifest in self._cluster.list("deletionrequests", self._namespaces, OPEN_REQUESTS):
                    self.ring_request(manifest, listed=True)
            except (ClusterUnavailable, ClusterRefused) as away:
                log.warning("resync waits: %s", away)

    async def _measure_loop(self) -> None:
        while True:
            # One that has nothing to write must notice, too, that somebody has taken over.
            await asyncio.to_thread(self._ledger.confirm)
            position = await asyncio.to_thread(self._ledger.position)
            self.metrics.ledger_head.set(position.sequence)
            await self.restores.measure(position.sequence)
            self.reporting.measure(len(self.cache.dirty))
            self.backups.measure()
            self.legal.measure()
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

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            self._controller.note_failure(task.exception())


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()
