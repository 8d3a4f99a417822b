"""Looking after each BackupSource: scan it each interval, and keep one BackupSnapshot for each snapshot."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime
from typing import Protocol

from lethe.api.parse import InvalidManifest, parse
from lethe.api.translation import source_description
from lethe.api.v1alpha1.backupsource import BackupSource
from lethe.domain.periods import InvalidPeriod, Period
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.engine.cache import ManagedSource, ObjectCache, ObjectKey, key_of
from lethe.engine.clock import TwoClocks
from lethe.engine.metrics import Metrics
from lethe.engine.snapshots import PURGED_SHOWN, SnapshotObjects
from lethe.engine.source_reporting import SourceReporting
from lethe.engine.threads import in_daemon
from lethe.ports.backups import Backend, BackendError, BackendMisconfigured
from lethe.ports.cluster import (
    Cluster,
    ClusterRefused,
    ClusterUnavailable,
    Manifest,
    SecretContent,
)
from lethe.ports.ledger import Ledger, LedgerError
from lethe.workflows.backup.last_copy import expire_tombstones
from lethe.workflows.backup.scan import KnownSource, Scan, scan

log = logging.getLogger("lethe.backups")

LONG_LISTING_SECONDS = 120
"""After how long a backend that has not answered is said to be silent."""
STOP_SECONDS = 10
"""How long the end of a scan is waited for when its source is changed or gone."""
MAX_PAUSE = 60.0
FORGET_SCANS = 12
"""After how many scan intervals (an hour, by default) it is looked whether tombstones have ended."""


class ConnectBackend(Protocol):
    """Makes the port to a backend from its manifest and the Secret that holds its credentials."""

    def __call__(self, source: BackupSource, secret: SecretContent | None) -> Backend:
        """Raises `ValueError` with a printable message, and `BackendError`."""
        ...

    def secret_name(self, source: BackupSource) -> str | None:
        """Return the name of the Secret that the manifest names; `None` if it names none."""
        ...


class Backups:
    """A task for each source, which scans it each interval and whenever something was applied."""

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        cluster: Cluster,
        connect: ConnectBackend,
        metrics: Metrics,
        *,
        clocks: TwoClocks,
        retention: Period,
        scan_interval: float,
        regrade: Callable[[], None],
    ) -> None:
        self._cache, self._ledger, self._cluster, self._connect = cache, ledger, cluster, connect
        self._metrics, self._clocks, self._clock, self._retention = metrics, clocks, clocks.now, retention
        self._scan_interval, self._regrade = scan_interval, regrade
        self._locks: dict[ObjectKey, asyncio.Lock] = {}
        self.objects = SnapshotObjects(cluster, metrics, clocks.now)
        self._reporting = SourceReporting(cache, cluster, metrics, self.objects, clocks.now)
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # sources

    async def meet(self, manifest: Manifest) -> None:
        """Look after a source as its newest manifest says."""
        key = key_of(manifest)
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self._cache.sources.get(key)
            uid, generation = manifest["metadata"].get("uid"), manifest["metadata"].get("generation", 1)
            if known is not None and known.uid == uid and known.generation >= generation:
                return
            try:
                source = parse(BackupSource, manifest)
                description = source_description(source, self._retention)
            except (InvalidManifest, InvalidPeriod) as invalid:
                log.warning("%s", invalid)
                return
            if known is not None:
                await self._stop(known)
            managed = ManagedSource(
                manifest=manifest,
                source=source,
                description=description,
                uid=uid or "",
                generation=generation,
                status=known.status if known else dict(manifest.get("status") or {}),
            )
            self._cache.sources[key] = managed
            managed.task = asyncio.create_task(self._look_after(managed), name=f"source {managed.name}")
            self._wake_stores({*description.stores, *(known.description.stores if known else ())})

    async def forget(self, key: ObjectKey) -> None:
        """Stop looking after a source that is gone. Its snapshots stay in the ledger: they still exist."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            managed = self._cache.sources.pop(key, None)
            if managed is not None:
                await self._stop(managed)
                self._metrics.forget_source(managed.name)
                self._wake_stores(managed.description.stores)
                self._regrade()

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """Meet every source and every BackupSnapshot that there is."""
        before, seen = set(self._cache.sources), set()
        await self.objects.take_stock(namespaces)
        async for manifest in self._cluster.list("backupsources", namespaces):
            seen.add(key_of(manifest))
            await self.meet(manifest)
        for key in before - seen:
            await self.forget(key)
        await self.objects.disown(self._cache.sources)

    async def meet_snapshot(self, manifest: Manifest, *, gone: bool) -> None:
        """Take notice of a BackupSnapshot that was seen, or is gone: that deletes nothing, it comes back."""
        if self.objects.note(manifest, gone=gone):
            namespace, _ = key_of(manifest)
            managed = self._cache.sources.get((namespace, (manifest.get("spec") or {}).get("source", "")))
            if managed is not None:
                managed.wake.set()
            else:
                await self.objects.disown(self._cache.sources)

    async def expire_tombstones(self) -> None:
        """Destroy what is kept of persons of whom nothing can be restored any more."""
        while True:
            await asyncio.sleep(FORGET_SCANS * self._scan_interval)
            disagreement = await self._clocks.disagreement()
            if disagreement is not None:
                log.warning("no tombstone is ended: %s", disagreement)
                continue
            now = self._clock()
            ended = await asyncio.to_thread(expire_tombstones, self._ledger, now=now)
            if await asyncio.to_thread(self._ledger.forget_purged, now - PURGED_SHOWN):
                for managed in self._cache.sources.values():
                    if managed.known is not None:
                        managed.known.loaded = False
            for period in ended:
                log.info("the tombstones of %s have ended: their keys are destroyed", period)

    def _wake_stores(self, stores: Collection[str]) -> None:
        """Let DataStores say anew who covers their backups."""
        for managed in self._cache.stores.values():
            if managed.name in stores:
                managed.wake.set()

    async def close(self) -> None:
        """Stop every task."""
        for managed in self._cache.sources.values():
            if managed.task:
                managed.task.cancel()

    def measure(self) -> None:
        """Refresh how long ago each source was scanned."""
        self._reporting.measure_ages()

    async def _stop(self, managed: ManagedSource) -> None:
        if managed.task is not None:
            managed.task.cancel()
            with suppress(asyncio.CancelledError):
                await managed.task
        self._disconnect(managed)

    async def _look_after(self, managed: ManagedSource) -> None:
        try:
            while True:
                pause = await self._scan_whatever_happens(managed)
                with suppress(TimeoutError):
                    await asyncio.wait_for(managed.wake.wait(), pause)
                if managed.wake.is_set():
                    managed.wake.clear()
                    await asyncio.sleep(0.2)  # a set of applied snapshots is one scan
        except LedgerError as fatal:
            if not self.failed.done():
                self.failed.set_exception(fatal)

    async def _scan_whatever_happens(self, managed: ManagedSource) -> float:
        """Scan a source and tell of it; return the seconds until the next scan."""
        began = time.monotonic()
        try:
            await self._connected(managed)
            if managed.known is not None:
                await self._scan(managed, managed.known)
                managed.trouble, managed.retries = None, 0
        except LedgerError:
            raise
        except BackendError as unusable:
            wrong = isinstance(unusable, BackendMisconfigured)
            managed.trouble = Trouble(
                TroubleReason.MISCONFIGURED if wrong else TroubleReason.UNREACHABLE, str(unusable)
            )
            if wrong:
                self._disconnect(managed)  # the Secret may be another one by now
        except (ClusterUnavailable, ClusterRefused) as away:
            managed.trouble = Trouble(TroubleReason.UNREACHABLE, str(away))
        except Exception as defect:
            log.exception("a scan of source %s failed; it is tried again", managed.name)
            managed.trouble = Trouble.of_defect(defect)
        await self._reporting.report(managed)
        self._regrade()
        if managed.trouble is not None:
            managed.retries += 1
            await self._reconnect_if_rotated(managed)
            return min(MAX_PAUSE, self._scan_interval, 2.0 ** min(managed.retries, 6))
        return max(0.05, self._scan_interval - (time.monotonic() - began))

    async def _connected(self, managed: ManagedSource) -> None:
        if managed.known is not None:
            return
        wanted, secret = self._connect.secret_name(managed.source), None
        duplicate = self._duplicate_of(managed)
        if duplicate is not None:
            message = f"BackupSource {duplicate} lists the same place by the same names"
            managed.trouble = Trouble(
                TroubleReason.DUPLICATE_SOURCE, f"{message}; name all stores in that one, and remove this"
            )
            return
        if wanted is not None:
            try:
                secret = await self._cluster.secret(managed.description.namespace, wanted)
            except ClusterRefused as refused:
                managed.trouble = Trouble(TroubleReason.SECRET_MISSING, str(refused))
                return
            if secret is None:
                managed.trouble = Trouble(
                    TroubleReason.SECRET_MISSING, f"Secret {wanted} does not exist; create it"
                )
                return
            managed.secret_version = secret.resource_version
        try:
            backend = await asyncio.to_thread(self._connect, managed.source, secret)
        except ValueError as unusable:
            managed.trouble = Trouble(
                TroubleReason.SECRET_MISSING if wanted else TroubleReason.UNREACHABLE, str(unusable)
            )
            return
        managed.known = KnownSource(managed.description, backend)

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
            managed.wake.set()

    async def _scan(self, managed: ManagedSource, known: KnownSource) -> None:
        offset = await self._clocks.offset_of_server()

        def clocks(backend_date: datetime | None) -> str | None:
            return self._clocks.compare(offset, backend_date)

        declared = self.objects.declared(managed.key)
        work = in_daemon(
            f"source {managed.name}",
            lambda: scan(known, self._ledger, now=self._clock, clocks=clocks, declared=declared),
        )
        self._cache.scans[work] = known, time.monotonic()
        work.add_done_callback(self._cache.scans.pop)
        managed.scan = await self._result(managed, known, work)
        if managed.scan.changed:
            self._wake_stores(managed.description.stores)
        await self._reporting.tell_of(managed, managed.scan)
        await self.objects.reconcile(managed, known)

    async def _result(self, managed: ManagedSource, known: KnownSource, work: asyncio.Future[Scan]) -> Scan:
        """Wait for a scan; say meanwhile if its backend does not answer. Pruning may well take hours."""
        try:
            while True:
                done, _ = await asyncio.wait([work], timeout=LONG_LISTING_SECONDS)
                if done:
                    return work.result()
                if known.listing:
                    managed.trouble = Trouble(
                        TroubleReason.UNREACHABLE,
                        "the backend has been asked for a listing and is silent",
                    )
                    await self._reporting.report(managed)
        except asyncio.CancelledError:
            # A thread can't be interrupted. One that hangs is left alone: it concludes nothing any more.
            known.abandoned = True
            await asyncio.wait([work], timeout=STOP_SECONDS)
            raise


def _location(managed: ManagedSource) -> str:
    """Return where a source lists, by which names; two that say the same are the same place."""
    spec = managed.manifest.get("spec") or {}
    backends = ("directory", "s3", "restic", "plugin")
    where = {
        kind: {k: v for k, v in spec[kind].items() if k != "credentialsSecretRef"}
        for kind in backends
        if kind in spec
    }
    return json.dumps(where, sort_keys=True)


def _age(managed: ManagedSource) -> tuple[str, str]:
    return str(managed.manifest["metadata"].get("creationTimestamp", "")), managed.name
