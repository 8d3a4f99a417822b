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
from typing import Any, Protocol

from lethe.api.parse import InvalidManifest, parse
from lethe.api.translation import store_description
from lethe.api.v1alpha1.datastore import DataStore
from lethe.domain.periods import Period
from lethe.engine.backups import Backups, ConnectBackend
from lethe.engine.copies import Copies
from lethe.engine.guarding import Guarding
from lethe.engine.intake import Taking
from lethe.engine.legal import Legal
from lethe.engine.metrics import Metrics
from lethe.engine.reporting import Reporting
from lethe.engine.restores import Restores
from lethe.engine.schedule import Schedule
from lethe.engine.secrets import Secrets
from lethe.engine.steady import SteadyClock, TwoClocks
from lethe.engine.telling import Telling
from lethe.engine.world import Place, StoreGuard, World, place_of
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Manifest, SecretContent
from lethe.ports.keys import Keyring
from lethe.ports.ledger import Ledger
from lethe.ports.notices import Writer
from lethe.ports.stores import MappingInvalid, StoreError
from lethe.workflows.guarded import GuardedStore
from lethe.workflows.notifying import Post

log = logging.getLogger("lethe.engine")

OPEN_REQUESTS = "status.state!=Erased,status.state!=Purged,status.state!=Planned"
"""The field selector of requests that still need work.

Leaving it arrives as DELETED: never read that as gone.
"""

RESYNC_SECONDS = 300
WIND_DOWN_SECONDS = 20
"""How long the end waits for what can't be interrupted; less than Kubernetes waits for a pod."""
SECRET_SECONDS = 10
"""How often the Secret of a store in trouble is read again."""


class ConnectStore(Protocol):
    """Makes the port to a store from its manifest and the Secret that holds its credentials."""

    def __call__(self, store: DataStore, secret: SecretContent | None) -> GuardedStore:
        """Raises `ValueError` with a printable message where manifest or Secret can't be used."""
        ...

    def secret_name(self, store: DataStore) -> str | None:
        """Return the name of the Secret that the manifest names; `None` if it names none."""
        ...


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
        writer: Writer,
        post: Post | None,
        notices_per_hour: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        # A clock that is set while Lethe runs must not date an erasure before the backups that hold it.
        steady = SteadyClock(clock, lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
        clock = steady.now
        clocks = TwoClocks(steady, cluster)
        secrets = Secrets(cluster, metrics)
        self.world = World()
        self.metrics = metrics
        metrics.tell_settings(
            erasure_deadline=(deadline.after(now := clock()) - now).total_seconds(),
            scan_interval=scan_interval,
            sweep_interval=sweep_interval,
        )
        self._ledger, self._cluster, self._connect = ledger, cluster, connect
        self._namespaces = namespaces
        self._failed_stores: Schedule[Place] = Schedule()
        self._store_locks: dict[Place, asyncio.Lock] = {}
        self._token = 0
        self.started = asyncio.Event()
        self.quiet = True
        """Whether, once `run` has ended, nothing goes on that it had begun."""
        self._background: set[asyncio.Task[Any]] = set()
        self.copies = Copies(self.world, ledger, cluster, metrics, clock)
        self.backups = Backups(
            self.world,
            ledger,
            cluster,
            connect_backend,
            metrics,
            clocks=clocks,
            retention=retention,
            scan_interval=scan_interval,
            regrade=self.copies.regrade,
        )
        self.reporting = Reporting(self.world, cluster, metrics, clock, self.copies)
        self.restores = Restores(
            self.world, ledger, cluster, metrics, clock, self.backups.objects, journal_interval
        )
        self._telling = telling = Telling(
            self.world,
            ledger,
            keyring,
            cluster,
            secrets,
            clocks,
            writer=writer,
            post=post,
            per_hour=notices_per_hour,
        )
        self.legal = Legal(self.world, ledger, keyring, cluster, metrics, secrets, telling, clocks)
        self._guarding = Guarding(
            self.world,
            ledger,
            keyring,
            cluster,
            metrics,
            self.reporting,
            self.restores,
            clock=clock,
            journal_interval=journal_interval,
            sweep_interval=sweep_interval,
            reached=self.legal.reached,
        )
        self._taking = Taking(
            self.world,
            ledger,
            keyring,
            cluster,
            secrets,
            self.reporting,
            clock=clock,
            deadline=deadline,
            consider=self._guarding.consider,
        )

    # doorbells

    def ring_request(self, manifest: Manifest, *, listed: bool = False) -> None:
        """A DeletionRequest was seen, by the watch or in a list; it is looked at soon."""
        self._taking.ring(manifest, listed=listed)

    def ring_request_gone(self, manifest: Manifest) -> None:
        """A DeletionRequest was deleted, or has ended and left the selector: nobody waits for its status.

        What was accepted goes on all the same; the ledger knows it.
        """
        self.world.views.pop(place_of(manifest), None)

    def ring_store(self, manifest: Manifest, *, gone: bool) -> None:
        """A DataStore was seen, or is gone."""
        self._spawn(self._forget_store(place_of(manifest)) if gone else self._meet_store(manifest))

    def ring_restore(self, manifest: Manifest, *, gone: bool) -> None:
        """A RestoreEvent was seen, or is gone."""
        if gone:
            self.world.events.pop(place_of(manifest), None)
        else:
            self._spawn(self.restores.meet(manifest))

    def ring_source(self, manifest: Manifest, *, gone: bool) -> None:
        """A BackupSource was seen, or is gone."""
        place = place_of(manifest)
        self._spawn(self.backups.forget(place) if gone else self.backups.meet(manifest))

    def ring_snapshot(self, manifest: Manifest, *, gone: bool) -> None:
        """A BackupSnapshot was seen, or is gone."""
        self._spawn(self.backups.meet_snapshot(manifest, gone=gone))

    def ring_legal(self, manifest: Manifest, *, gone: bool) -> None:
        """A LegalRequest was seen, or is gone."""
        self.legal.ring(manifest, gone=gone)

    @property
    def heartbeat_age(self) -> float:
        """Return the seconds since the engine's loop last turned."""
        return time.monotonic() - self._taking.beat

    # the loops

    async def run(self, stop: asyncio.Event) -> None:
        """Take over the ledger, meet the stores, and keep going. Raises `Fenced`."""
        loops: list[asyncio.Future[Any]] = []
        try:
            await self._begin()
            loops += [
                asyncio.create_task(loop, name=name)
                for name, loop in (
                    ("intake", self._taking.run()),
                    ("reporting", self.reporting.run()),
                    ("failed stores", self._failed_stores_loop()),
                    ("resync", self._resync_loop()),
                    ("copies", self.copies.run()),
                    ("legal", self.legal.run()),
                    ("forgetting", self.backups.forget_what_ended()),
                    ("measure", self._measure_loop()),
                    ("stop", _until(stop)),
                )
            ]
            watched: list[asyncio.Future[Any]] = [*loops, self._guarding.failed, self.backups.failed]
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
        self._guarding.token = self._token
        self.metrics.leader.set(1)
        for record in await asyncio.to_thread(self._ledger.open_requests):
            self.world.records[(record.accepted.namespace, record.accepted.name)] = record
        await self._persevere(self._list_backups)  # first: a store says which sources cover it
        await self._persevere(self._list_legal)  # before any store: what is held must not be erased
        await self._persevere(self._list_stores)
        await self._persevere(self._list_restores)
        self.started.set()

    async def _wind_down(self) -> None:
        """Let end what has begun and can't be interrupted: visits, deletions of snapshots, letters."""
        begun: list[asyncio.Future[Any]] = []
        for guard in self.world.guards.values():
            if guard.task is not None:
                guard.task.cancel()
                begun.append(guard.task)
        for work, (source, _) in self.world.scans.items():
            source.abandoned = True  # one that lists only lists
            if not source.listing:
                begun.append(work)
        await self.backups.close()
        if self._telling.under_way is not None:
            begun.append(self._telling.under_way)
        if begun:
            ended, going_on = await asyncio.wait(begun, timeout=WIND_DOWN_SECONDS)
            await asyncio.gather(*ended, return_exceptions=True)
            self.quiet = not going_on

    # stores

    async def _meet_store(self, manifest: Manifest, *, again: bool = False) -> None:
        """Guard a store as its newest manifest says; one at a time for each place."""
        async with self._store_locks.setdefault(place_of(manifest), asyncio.Lock()):
            await self._meet_store_alone(manifest, again=again)

    async def _meet_store_alone(self, manifest: Manifest, *, again: bool) -> None:
        place = place_of(manifest)
        known = self.world.guards.get(place)
        if known is not None and _version(manifest) < _version(known.manifest):
            return  # a list or an event that was overtaken
        same_spec = known is not None and known.manifest.get("spec") == manifest.get("spec")
        same_object = known is not None and known.uid == manifest["metadata"].get("uid")
        if known is not None and same_spec and same_object and not again:
            return
        guard = await self._new_guard(manifest, known)
        if guard is None:
            return
        if known is not None:
            await self._guarding.stop(known)
        self.world.guards[place] = guard
        self.copies.regrade()  # what it says of its backups may be new
        if guard.trouble is not None:
            self._failed_stores.at(time.monotonic() + 5, place)
        self._guarding.start(guard)

    async def _new_guard(self, manifest: Manifest, known: StoreGuard | None) -> StoreGuard | None:
        try:
            store = parse(DataStore, manifest)
        except InvalidManifest as invalid:
            log.warning("%s", invalid)
            return None
        gate = (manifest.get("spec") or {}).get("gate")
        guard = StoreGuard(
            manifest=manifest,
            description=store_description(store),
            without_backups=store.spec.backups.value == "None",
            manual_release=bool(store.spec.gate and store.spec.gate.release.value == "Manual"),
            gate=gate.get("podSelector") if gate else None,
            uid=manifest["metadata"].get("uid", ""),
            status=known.status if known else dict(manifest.get("status") or {}),
        )
        if store.spec.owner.value == "ThirdParty":
            return guard
        secret = None
        wanted = self._connect.secret_name(store)
        try:
            if wanted is not None:
                secret = await self._cluster.secret(guard.description.namespace, wanted)
                if secret is None:
                    guard.trouble = ("SecretMissing", f"Secret {wanted} does not exist; create it")
                    return guard
                guard.secret_version = secret.resource_version
            guard.store = await asyncio.to_thread(self._connect, store, secret)
        except ValueError as unusable:
            guard.trouble = ("SecretMissing" if wanted else "MappingInvalid", str(unusable))
        except MappingInvalid as invalid:
            guard.trouble = ("MappingInvalid", str(invalid))
        except StoreError as unusable:
            guard.trouble = ("Unreachable", str(unusable))
        except (ClusterRefused, ClusterUnavailable) as refused:
            guard.trouble = ("SecretMissing", str(refused))
        return guard

    async def _failed_stores_loop(self) -> None:
        """Try stores again whose Secret was missing or wrong: nobody tells when a Secret changes."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(1)
            for place in self._failed_stores.pop_due(time.monotonic()):
                guard = self.world.guards.get(place)
                if guard is not None:
                    self._spawn(self._meet_store(guard.manifest, again=True))
            if time.monotonic() - looked < SECRET_SECONDS:
                continue
            looked = time.monotonic()
            for guard in list(self.world.guards.values()):
                if guard.store is not None and guard.store.trouble is not None:
                    self._spawn(self._meet_rotated(guard))

    async def _meet_rotated(self, guard: StoreGuard) -> None:
        """Connect anew where the Secret of a store in trouble is another one by now: a rotated password."""
        store = parse(DataStore, guard.manifest)
        wanted = self._connect.secret_name(store)
        if wanted is None:
            return
        secret = await self._cluster.secret(guard.description.namespace, wanted)
        if secret is not None and secret.resource_version != guard.secret_version:
            await self._meet_store(guard.manifest, again=True)

    async def _forget_store(self, place: Place) -> None:
        async with self._store_locks.setdefault(place, asyncio.Lock()):
            guard = self.world.guards.get(place)
            if guard is not None:
                await self._guarding.stop(guard)  # until its visit has ended, no hold may count on it
                self.world.guards.pop(place, None)
                self._guarding.forget(guard)

    async def _list_stores(self) -> None:
        before = set(self.world.guards)
        seen = set()
        async for manifest in self._cluster.list("datastores", self._namespaces):
            seen.add(place_of(manifest))
            await self._meet_store(manifest)
        for place in before - seen:
            await self._forget_store(place)

    async def _list_restores(self) -> None:
        async for manifest in self._cluster.list("restoreevents", self._namespaces):
            await self.restores.meet(manifest)

    async def _list_legal(self) -> None:
        await self.legal.take_stock(self._namespaces)

    async def _list_backups(self) -> None:
        await self.backups.take_stock(self._namespaces)

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
            self.reporting.measure(len(self.world.dirty))
            self.backups.measure()
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
            self._guarding.note_failure(task.exception())


def _version(manifest: Manifest) -> int:
    """Return how new a manifest is; resourceVersions are numbers that grow (Kubernetes 1.35 promises it)."""
    version = manifest["metadata"].get("resourceVersion", "")
    return int(version) if version.isdecimal() else 0


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()
