"""Looking after each BackupSource: scan it each interval, and keep one BackupSnapshot for each snapshot."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

from lethe.api.parse import InvalidManifest, parse
from lethe.api.translation import source_description
from lethe.api.v1alpha1.backupsource import BackupSource
from lethe.controllers.backupsnapshot import SnapshotObjects
from lethe.controllers.backupsource_status import SourceStatuses
from lethe.controllers.runtime.cache import ManagedSource, ObjectCache, ObjectKey, key_of
from lethe.controllers.runtime.clock import TwoClocks
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.status_writer import ShownStatus, StatusWriter
from lethe.controllers.runtime.threads import in_daemon
from lethe.domain.periods import InvalidPeriod, Period
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.ports.backups import Backend, BackendError, BackendMisconfigured
from lethe.ports.cluster import (
    Cluster,
    ClusterRefused,
    ClusterUnavailable,
    Manifest,
    SecretContent,
)
from lethe.ports.ledger import Ledger
from lethe.workflows.backup.scan import KnownSource, Scan, scan

log = logging.getLogger("lethe.backups")

LONG_LISTING_SECONDS = 120.0
"""After how long a backend that has not answered is said to be silent."""
STOP_SECONDS = 10.0
"""How long the end of a scan is waited for when its source is changed or gone."""
FIRST_PAUSE = 2.0
MAX_PAUSE = 60.0
"""How long a source in trouble waits, at first and at the most; never longer than the scan interval."""
GATHER_SECONDS = 0.2
"""How long applied snapshots may gather: a set of them is one scan."""


class ConnectBackend(Protocol):
    """Makes the port to a backend from its manifest and the Secret that holds its credentials."""

    def __call__(self, source: BackupSource, secret: SecretContent | None) -> Backend:
        """Raises `ValueError` with a printable message, and `BackendError`."""
        ...

    def secret_name(self, source: BackupSource) -> str | None:
        """Return the name of the Secret that the manifest names; `None` if it names none."""
        ...


class BackupSourceController(Controller[ObjectKey]):
    """Scans each source each interval, and soon after something was applied.

    Backends are only called in threads, for which nothing waits: the end of each rings.
    """

    name = "backupsource"
    at_once = 64

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        cluster: Cluster,
        connect: ConnectBackend,
        metrics: Metrics,
        statuses: StatusWriter,
        objects: SnapshotObjects,
        *,
        clocks: TwoClocks,
        retention: Period,
        scan_interval: float,
        clock_skew: timedelta,
        regrade: Callable[[], None],
        ring_store: Callable[[ObjectKey], None],
    ) -> None:
        super().__init__()
        self._cache, self._ledger, self._cluster, self._connect = cache, ledger, cluster, connect
        self._metrics, self._objects, self._clocks = metrics, objects, clocks
        self._retention, self._scan_interval, self._clock_skew = retention, scan_interval, clock_skew
        self._regrade, self._ring_store = regrade, ring_store
        self._statuses = SourceStatuses(cache, cluster, metrics, statuses, objects, clocks.now)
        self._manifests: dict[ObjectKey, Manifest] = {}
        self._shown: dict[ObjectKey, ShownStatus] = {}
        self._closed = False

    # what rings

    def observe(self, manifest: Manifest, *, gone: bool = False) -> None:
        """Take in the newest manifest of a source."""
        if gone:
            self.forget(key_of(manifest))
            return
        key, known = key_of(manifest), self._manifests.get(key_of(manifest))
        if known is not None and not _is_newer(manifest, known):
            return
        self._manifests[key] = manifest
        uid = manifest["metadata"].get("uid") or ""
        if key not in self._shown or self._shown[key].uid != uid:
            self._shown[key] = ShownStatus(uid, dict(manifest.get("status") or {}))
        self.queue.add(key)

    def forget(self, key: ObjectKey) -> None:
        """A source is gone. Its snapshots stay in the ledger: they still exist."""
        self._manifests.pop(key, None)
        if key in self._cache.sources:
            self.queue.add(key)
        else:
            self._drop(key)

    def scan_soon(self, key: ObjectKey) -> None:
        """Scan a source once more, since something was applied that concerns it."""
        managed = self._cache.sources.get(key)
        if managed is not None:
            managed.rung = True
            self.queue.add(key, after=GATHER_SECONDS)

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """Meet every source that there is, for stores to know which cover them; drop what is gone."""
        before, seen = set(self._manifests), set()
        async for manifest in self._cluster.list("backupsources", namespaces):
            key = key_of(manifest)
            seen.add(key)
            self.observe(manifest)
            if key not in self._cache.sources:
                try:
                    self._follow_manifest(key)
                except Exception as defect:  # noqa: BLE001 - reconciling it fails as well, and says so
                    log.debug("source %s waits: %s", "/".join(key), type(defect).__name__)
        for key in before - seen:
            self.forget(key)
        await self._objects.disown_others(self._cache.sources)

    def measure(self) -> None:
        """Refresh how long ago each source was scanned."""
        self._statuses.measure_ages()

    # one step of one source

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Connect, scan, or tell what a scan came to; return after how many seconds to look again."""
        pause = self._follow_manifest(key)
        managed = self._cache.sources.get(key)
        if pause is not None or managed is None:
            return pause
        if managed.under_way is None:
            pause = managed.scan_due - time.monotonic()
            if pause > 0 and not managed.rung:
                return pause
            managed.began, managed.rung = time.monotonic(), False
        elif not managed.under_way.done():
            return await self._say_if_silent(managed)
        trouble = await self._advance(managed)
        if managed.under_way is not None or self._closed or self._is_outdated(managed):
            return LONG_LISTING_SECONDS
        managed.trouble = trouble
        await self._statuses.report(managed)
        self._regrade()
        return await self._next_pause(managed)

    async def close(self) -> None:
        """Begin no scan any more, and let those under way conclude nothing from their listings."""
        self._closed = True
        for work, (known, _) in self._cache.scans.items():
            known.abandoned = True
            work.add_done_callback(_pass_over)

    async def show_trouble(self, key: ObjectKey, trouble: Trouble) -> None:
        """Say in the status of a source that Lethe failed over it."""
        managed, manifest = self._cache.sources.get(key), self._manifests.get(key)
        if managed is not None:
            managed.trouble = trouble
            self._put_off(managed)
        self._regrade()
        if manifest is not None:
            await self._statuses.show_trouble(manifest, self._shown[key], trouble)

    async def _advance(self, managed: ManagedSource) -> Trouble | None:
        """Take the next step: connect, scan, or take in what a scan came to; return what is wrong."""
        connecting, managed.connecting = managed.connecting, None
        done, managed.scanning = managed.scanning, None
        try:
            if done is not None:
                await self._take_in(managed, done.result())
                return None
            if connecting is not None and (trouble := self._take_backend(managed, connecting)):
                return trouble
            if managed.known is None:
                return await self._begin_to_connect(managed)
            await self._begin_scan(managed, managed.known)
        except BackendError as unusable:
            if isinstance(unusable, BackendMisconfigured):
                self._disconnect(managed)  # the Secret may be another one by now
                return Trouble(TroubleReason.MISCONFIGURED, str(unusable))
            return Trouble(TroubleReason.UNREACHABLE, str(unusable))
        return None

    async def _next_pause(self, managed: ManagedSource) -> float:
        """Return the seconds until the next scan."""
        if managed.trouble is None:
            managed.retries = 0
            managed.scan_due = max(time.monotonic() + 0.05, managed.began + self._scan_interval)
        else:
            await self._reconnect_if_rotated(managed)
            self._put_off(managed)
        return GATHER_SECONDS if managed.rung else managed.scan_due - time.monotonic()

    def _put_off(self, managed: ManagedSource) -> None:
        """Let a source in trouble wait, longer each time: to have begun a scan is no success yet."""
        pause = min(MAX_PAUSE, self._scan_interval, FIRST_PAUSE * 2.0 ** min(managed.retries, 6))
        managed.retries += 1
        managed.scan_due = time.monotonic() + pause

    async def _say_if_silent(self, managed: ManagedSource) -> float:
        """Say if the backend does not answer. Pruning may well take hours."""
        waited = time.monotonic() - managed.began
        if waited >= LONG_LISTING_SECONDS and (managed.known is None or managed.known.listing):
            message = "the backend has been asked for a listing and is silent"
            managed.trouble = Trouble(TroubleReason.UNREACHABLE, message)
            await self._statuses.report(managed)
        return LONG_LISTING_SECONDS - waited % LONG_LISTING_SECONDS

    # its manifest

    def _follow_manifest(self, key: ObjectKey) -> float | None:
        """Let a source be as its newest manifest says; return how long what it was goes on, at the most."""
        managed, manifest = self._cache.sources.get(key), self._manifests.get(key)
        followed = manifest is None if managed is None else not self._is_outdated(managed)
        if followed:
            return None
        try:
            met = None if manifest is None else self._meet(manifest)
        except (InvalidManifest, InvalidPeriod) as invalid:
            log.warning("%s", invalid)
            if managed is not None:  # goes on as it was
                self._manifests[key] = managed.manifest
            else:
                del self._manifests[key], self._shown[key]
            return None
        if managed is not None:
            pause = self._let_go(managed)
            if pause is not None:
                return pause
        self._replace(key, managed, met)
        return None

    def _is_outdated(self, managed: ManagedSource) -> bool:
        manifest = self._manifests.get(managed.key)
        return manifest is None or _is_newer(manifest, managed.manifest)

    def _meet(self, manifest: Manifest) -> ManagedSource:
        key = key_of(manifest)
        source = parse(BackupSource, manifest)
        return ManagedSource(
            manifest=manifest,
            source=source,
            description=source_description(source, self._retention, self._clock_skew),
            generation=manifest["metadata"].get("generation", 1),
            shown=self._shown[key],
        )

    def _replace(self, key: ObjectKey, before: ManagedSource | None, met: ManagedSource | None) -> None:
        if met is not None:
            self._cache.sources[key] = met
        else:
            self._drop(key)
        both = [one.description.stores for one in (before, met) if one is not None]
        self._ring_stores({store for stores in both for store in stores})

    def _drop(self, key: ObjectKey) -> None:
        self._cache.sources.pop(key, None)
        self._shown.pop(key, None)
        self.queue.discard(key)
        self._metrics.forget_source("/".join(key))
        self._regrade()

    def _ring_stores(self, names: Collection[str]) -> None:
        """Let DataStores say anew who covers their backups."""
        for managed in self._cache.stores.values():
            if managed.name in names:
                self._ring_store(managed.key)

    def _let_go(self, managed: ManagedSource) -> float | None:
        """Let nothing come of what is under way; return how long that is waited for, `None` once it is not.

        A thread can't be interrupted. One that lists, or that hangs, is left alone: it concludes nothing.
        """
        scan, known = managed.scanning, managed.known
        if scan is not None and known is not None:
            known.abandoned = True
            if not known.listing and not scan.done():
                now = time.monotonic()
                managed.abandoned_at = managed.abandoned_at or now
                if now < managed.abandoned_at + STOP_SECONDS:
                    return managed.abandoned_at + STOP_SECONDS - now
            scan.add_done_callback(_pass_over)
        if managed.connecting is not None:
            managed.connecting.add_done_callback(_close_unused)
        self._disconnect(managed)
        return None

    # its backend

    async def _begin_to_connect(self, managed: ManagedSource) -> Trouble | None:
        """Begin to connect a source; return what hinders it."""
        duplicate = self._duplicate_of(managed)
        if duplicate is not None:
            message = f"BackupSource {duplicate} lists the same place by the same names"
            return Trouble(
                TroubleReason.DUPLICATE_SOURCE, f"{message}; name all stores in that one, and remove this"
            )
        wanted, secret = self._connect.secret_name(managed.source), None
        if wanted is not None:
            try:
                secret = await self._cluster.secret(managed.description.namespace, wanted)
            except ClusterRefused as refused:
                return Trouble(TroubleReason.SECRET_MISSING, str(refused))
            if secret is None:
                return Trouble(TroubleReason.SECRET_MISSING, f"Secret {wanted} does not exist; create it")
            managed.secret_version = secret.resource_version
        managed.connecting = in_daemon(
            f"connecting {managed.name}", partial(self._connect, managed.source, secret)
        )
        managed.connecting.add_done_callback(lambda _: self.queue.add(managed.key))
        return None

    def _take_backend(self, managed: ManagedSource, connecting: asyncio.Future[Backend]) -> Trouble | None:
        """Take in what connecting came to; return what is wrong. Raises `BackendError`."""
        try:
            managed.known = KnownSource(managed.description, connecting.result())
        except ValueError as unusable:
            wanted = self._connect.secret_name(managed.source)
            reason = TroubleReason.SECRET_MISSING if wanted else TroubleReason.UNREACHABLE
            return Trouble(reason, str(unusable))
        return None

    def _duplicate_of(self, managed: ManagedSource) -> str | None:
        """Return the older source that lists the very same: two would each take the other for a stranger."""
        mine = _location(managed)
        duplicates = [
            other
            for other in self._cache.sources.values()
            if other is not managed and _location(other) == mine and _age(other) < _age(managed)
        ]
        return min((duplicate.name for duplicate in duplicates), default=None)

    def _disconnect(self, managed: ManagedSource) -> None:
        """Give a backend back; one that hangs is left alone."""
        known, managed.known = managed.known, None
        if known is not None:
            known.abandoned = True
        if known is not None and not known.listing:
            in_daemon(f"closing {managed.name}", known.backend.close)

    async def _reconnect_if_rotated(self, managed: ManagedSource) -> None:
        """Connect anew where the Secret of a source in trouble is another one by now."""
        wanted = self._connect.secret_name(managed.source)
        if managed.known is None or wanted is None:
            return
        try:
            secret = await self._cluster.secret(managed.description.namespace, wanted)
        except (ClusterUnavailable, ClusterRefused):
            return
        if secret is not None and secret.resource_version != managed.secret_version:
            self._disconnect(managed)
            managed.rung = True

    # its scans

    async def _begin_scan(self, managed: ManagedSource, known: KnownSource) -> None:
        offset = await self._clocks.offset_of_server()
        if self._closed or self._is_outdated(managed):
            return

        def clocks(backend_date: datetime | None) -> str | None:
            return self._clocks.compare(offset, backend_date)

        declared, now = self._objects.declared(managed.key), self._clocks.now
        watched = frozenset(one.description.known_as for one in self._cache.sources.values())
        managed.scanning = in_daemon(
            f"source {managed.name}",
            lambda: scan(known, self._ledger, now=now, clocks=clocks, declared=declared, watched=watched),
        )
        self._cache.scans[managed.scanning] = known, time.monotonic()
        managed.scanning.add_done_callback(self._cache.scans.pop)
        managed.scanning.add_done_callback(lambda _: self.queue.add(managed.key))

    async def _take_in(self, managed: ManagedSource, scan: Scan) -> None:
        """Tell what a scan came to, and let there be an object for each snapshot."""
        managed.scan = scan
        if scan.changed:
            self._ring_stores(managed.description.stores)
        await self._statuses.tell_of(managed, scan)
        if managed.known is not None:
            await self._objects.reconcile(managed, managed.known, outdated=lambda: self._is_outdated(managed))


def _is_newer(manifest: Manifest, known: Manifest) -> bool:
    """Tell whether a manifest says something else than the one that is known: another object, or edited."""
    new, old = manifest["metadata"], known["metadata"]
    return bool(new.get("uid") != old.get("uid") or new.get("generation", 1) > old.get("generation", 1))


def _pass_over(work: asyncio.Future[Any]) -> None:
    """Take notice of how work ended for which nobody waits any more."""
    if not work.cancelled():
        work.exception()


def _close_unused(connecting: asyncio.Future[Backend]) -> None:
    """Give a backend back that was connected when nobody waited for it any more."""
    if not connecting.cancelled() and connecting.exception() is None:
        in_daemon("closing a backend", connecting.result().close)


def _location(managed: ManagedSource) -> tuple[str, str]:
    """Return where a source lists, by which names; two that say the same are the same place."""
    return managed.description.place, managed.description.names


def _age(managed: ManagedSource) -> tuple[str, str]:
    return str(managed.manifest["metadata"].get("creationTimestamp", "")), managed.name
