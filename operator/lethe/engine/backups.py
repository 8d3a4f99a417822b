"""Looking after each BackupSource: scan it each interval, and keep one BackupSnapshot for each snapshot."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol

from lethe.api.parse import InvalidManifest, parse
from lethe.api.status import differs, source_status
from lethe.api.translation import source_description
from lethe.api.v1alpha1.backupsource import BackupSource
from lethe.domain.backup_conditions import Difficulty, SourceSight, standing_of_source
from lethe.domain.periods import InvalidPeriod, Period
from lethe.domain.pruning import Keeps
from lethe.domain.snapshots import SnapshotState
from lethe.engine.metrics import Metrics
from lethe.engine.snapshots import PURGED_SHOWN, SnapshotObjects, difficulty_of
from lethe.engine.steady import SteadyClock
from lethe.engine.world import Place, SourceGuard, World, place_of
from lethe.ports.backups import Backend, BackendError, BackendMisconfigured
from lethe.ports.cluster import (
    Cluster,
    ClusterRefused,
    ClusterUnavailable,
    Manifest,
    Notice,
    SecretContent,
)
from lethe.ports.ledger import Ledger, LedgerError
from lethe.workflows import copies, scanning
from lethe.workflows.scanning import KnownSource, Scan

log = logging.getLogger("lethe.backups")

MOST_SOURCES_AT_ONCE = 16
"""Threads for scans: a backend that hangs keeps its own and nobody else's."""
MAX_PAUSE = 60.0
FORGET_SCANS = 12
"""After how many scan intervals (an hour, by default) it is looked whether tombstones have ended."""
LAST_SCAN_SECONDS = 300
"""How old `lastScanAt` of a BackupSource may grow before a write only for its sake."""


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
        world: World,
        ledger: Ledger,
        cluster: Cluster,
        connect: ConnectBackend,
        metrics: Metrics,
        *,
        steady: SteadyClock,
        retention: Period,
        scan_interval: float,
        scanned: Callable[[], None],
    ) -> None:
        self._world, self._ledger, self._cluster, self._connect = world, ledger, cluster, connect
        self._metrics, self._steady, self._clock, self._retention = metrics, steady, steady.now, retention
        self._scan_interval, self._scanned = scan_interval, scanned
        self._threads = ThreadPoolExecutor(MOST_SOURCES_AT_ONCE, thread_name_prefix="source")
        self._locks: dict[Place, asyncio.Lock] = {}
        self.objects = SnapshotObjects(world, cluster, metrics, steady.now)
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # sources

    async def meet(self, manifest: Manifest) -> None:
        """Look after a source as its newest manifest says."""
        place = place_of(manifest)
        async with self._locks.setdefault(place, asyncio.Lock()):
            known = self._world.sources.get(place)
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
            guard = SourceGuard(
                manifest=manifest,
                source=source,
                description=description,
                uid=uid or "",
                generation=generation,
                status=known.status if known else dict(manifest.get("status") or {}),
            )
            self._world.sources[place] = guard
            guard.task = asyncio.create_task(self._look_after(guard), name=f"source {guard.name}")
            self._wake_stores({*description.stores, *(known.description.stores if known else ())})

    async def forget(self, place: Place) -> None:
        """Stop looking after a source that is gone. Its snapshots stay in the ledger: they still exist."""
        async with self._locks.setdefault(place, asyncio.Lock()):
            guard = self._world.sources.pop(place, None)
            if guard is not None:
                await self._stop(guard)
                self._metrics.forget_source(guard.name)
                self._wake_stores(guard.description.stores)
                self._scanned()

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """Meet every source and every BackupSnapshot that there is."""
        before, seen = set(self._world.sources), set()
        await self.objects.take_stock(namespaces)
        async for manifest in self._cluster.list("backupsources", namespaces):
            seen.add(place_of(manifest))
            await self.meet(manifest)
        for place in before - seen:
            await self.forget(place)

    def ring_snapshot(self, manifest: Manifest, *, gone: bool) -> None:
        """A BackupSnapshot was seen, or is gone: deleting it deletes nothing, it comes back."""
        if self.objects.note(manifest, gone=gone):
            namespace, _ = place_of(manifest)
            guard = self._world.sources.get((namespace, (manifest.get("spec") or {}).get("source", "")))
            if guard is not None:
                guard.wake.set()

    async def forget_what_ended(self) -> None:
        """Destroy what is kept of persons of whom nothing can be restored any more."""
        while True:
            await asyncio.sleep(FORGET_SCANS * self._scan_interval)
            disagreement = self._steady.compare(self._others(await self._offset_of_server()))
            if disagreement is not None:
                log.warning("no tombstone is ended: %s", disagreement)
                continue
            now = self._clock()
            ended = await asyncio.to_thread(copies.end_tombstones, self._ledger, now=now)
            await asyncio.to_thread(self._ledger.forget_purged, now - PURGED_SHOWN)
            for period in ended:
                log.info("the tombstones of %s have ended: their keys are destroyed", period)

    def _wake_stores(self, stores: Collection[str]) -> None:
        """Let DataStores say anew who covers their backups."""
        for guard in self._world.guards.values():
            if guard.name in stores:
                guard.wake.set()

    async def close(self) -> None:
        """Stop every task."""
        for guard in self._world.sources.values():
            if guard.task:
                guard.task.cancel()

    async def _stop(self, guard: SourceGuard) -> None:
        if guard.task is not None:
            guard.task.cancel()
            with suppress(asyncio.CancelledError):
                await guard.task
        if guard.known is not None:
            await asyncio.to_thread(guard.known.backend.close)

    async def _look_after(self, guard: SourceGuard) -> None:
        try:
            while True:
                pause = await self._scan_whatever_happens(guard)
                with suppress(TimeoutError):
                    await asyncio.wait_for(guard.wake.wait(), pause)
                if guard.wake.is_set():
                    guard.wake.clear()
                    await asyncio.sleep(0.2)  # a set of applied snapshots is one scan
        except LedgerError as fatal:
            if not self.failed.done():
                self.failed.set_exception(fatal)

    async def _scan_whatever_happens(self, guard: SourceGuard) -> float:
        """Scan a source and tell of it; return the seconds until the next scan."""
        began = time.monotonic()
        try:
            await self._connected(guard)
            if guard.known is not None:
                await self._scan(guard, guard.known)
                guard.trouble, guard.retries = None, 0
        except LedgerError:
            raise
        except BackendError as unusable:
            guard.trouble = ("Unreachable", str(unusable))
            if isinstance(unusable, BackendMisconfigured):
                await self._disconnect(guard)  # the Secret may be another one by now
        except (ClusterUnavailable, ClusterRefused) as away:
            guard.trouble = ("Unreachable", str(away))
        except Exception as defect:
            log.exception("a scan of source %s failed; it is tried again", guard.name)
            guard.trouble = (
                "Unreachable",
                f"Lethe failed here ({type(defect).__name__}); see its log and report it",
            )
        self._measure(guard)
        await self._report(guard)
        self._scanned()
        if guard.trouble is not None:
            guard.retries += 1
            await self._reconnect_if_rotated(guard)
            return min(MAX_PAUSE, self._scan_interval, 2.0 ** min(guard.retries, 6))
        return max(0.05, self._scan_interval - (time.monotonic() - began))

    async def _connected(self, guard: SourceGuard) -> None:
        if guard.known is not None:
            return
        wanted, secret = self._connect.secret_name(guard.source), None
        if wanted is not None:
            secret = await self._cluster.secret(guard.description.namespace, wanted)
            if secret is None:
                guard.trouble = ("SecretMissing", f"Secret {wanted} does not exist; create it")
                return
            guard.secret_version = secret.resource_version
        try:
            backend = await asyncio.to_thread(self._connect, guard.source, secret)
        except ValueError as unusable:
            guard.trouble = ("SecretMissing" if wanted else "Unreachable", str(unusable))
            return
        guard.known = KnownSource(guard.description, backend)

    async def _disconnect(self, guard: SourceGuard) -> None:
        known, guard.known = guard.known, None
        if known is not None:
            await asyncio.to_thread(known.backend.close)

    async def _reconnect_if_rotated(self, guard: SourceGuard) -> None:
        """Connect anew where the Secret of a source in trouble is another one by now."""
        wanted = self._connect.secret_name(guard.source)
        if guard.known is None or wanted is None:
            return
        try:
            secret = await self._cluster.secret(guard.description.namespace, wanted)
        except (ClusterUnavailable, ClusterRefused):
            return
        if secret is not None and secret.resource_version != guard.secret_version:
            await self._disconnect(guard)
            guard.wake.set()

    async def _scan(self, guard: SourceGuard, known: KnownSource) -> None:
        offset = await self._offset_of_server()

        def clocks(backend_date: datetime | None) -> str | None:
            return self._steady.compare(self._others(offset, backend_date))

        work = asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: scanning.scan(
                known,
                self._ledger,
                now=self._clock,
                clocks=clocks,
                declared=self.objects.declared(guard.place),
            ),
        )
        try:
            scan = await asyncio.shield(work)
        except asyncio.CancelledError:
            with suppress(Exception):  # a thread can't be interrupted: let it end
                await work
            raise
        guard.scan = scan
        self._tell_of(guard, scan)
        await self.objects.reconcile(guard, known)

    def _others(self, offset: timedelta | None, backend_date: datetime | None = None) -> dict[str, datetime]:
        others = {"the API server": self._steady.wall() + offset} if offset is not None else {}
        if backend_date is not None:
            others["the backend"] = backend_date
        return others

    async def _offset_of_server(self) -> timedelta | None:
        """Return how far the API server's clock is ahead of this host's; `None` if it does not say."""
        try:
            told = await self._cluster.server_time()
        except (ClusterUnavailable, ClusterRefused):
            return None
        return None if told is None else told - self._steady.wall()

    def _tell_of(self, guard: SourceGuard, scan: Scan) -> None:
        count = self._metrics.prunes.labels
        count(guard.name, "deleted").inc(len(scan.deleted))
        count(guard.name, "purged").inc(len(scan.purged))
        count(guard.name, "failed").inc(scan.failed)
        if scan.deleted or scan.purged:
            log.info("source %s: %d deleted, %d proven gone", guard.name, len(scan.deleted), len(scan.purged))

    # telling

    def _measure(self, guard: SourceGuard) -> None:
        known, now = guard.known, self._clock()
        if known is None or not known.loaded:
            return
        retention = Period.parse(guard.description.retention)
        held = (guard.scan.plan.held if guard.scan else None) or {}
        states: Counter[str] = Counter()
        overdue, oldest = 0, None
        for record in known.snapshots.values():
            state = self.objects.standing(guard, record, now).state
            states[state or ""] += 1
            if record.live:
                overdue += record.ref not in held and record.expires_at(retention) <= now
                oldest = record.taken_at if oldest is None else min(oldest, record.taken_at)
        guard.counts = {
            "total": sum(count for state, count in states.items() if state != SnapshotState.PURGED),
            "overdue": overdue,
            "held": states[SnapshotState.HELD],
        }
        guard.oldest = oldest
        for state in SnapshotState:
            self._metrics.snapshots.labels(guard.name, state.value).set(states[state])
        self._metrics.snapshots_overdue.labels(guard.name).set(overdue)
        age = (now - oldest).total_seconds() if oldest else float("nan")
        self._metrics.snapshot_oldest_age.labels(guard.name).set(age)

    def measure(self) -> None:
        """Refresh how long ago each source was scanned."""
        now = self._clock()
        for guard in self._world.sources.values():
            scanned = guard.known.scanned_at if guard.known else None
            age = (now - scanned).total_seconds() if scanned else float("nan")
            self._metrics.source_scan_age.labels(guard.name).set(age)

    def _sight(self, guard: SourceGuard) -> SourceSight:
        scan, known = guard.scan, guard.known
        held = list((scan.plan.held or {}).values()) if scan else []
        upcoming = scan.next if scan else None
        told = f"next: {upcoming[0].ref} at {upcoming[1]:%Y-%m-%dT%H:%M:%SZ}" if upcoming else ""
        return SourceSight(
            scanned=known is not None and known.scanned_at is not None,
            trouble=guard.trouble,
            too_long=guard.description.too_long,
            unparsable=scan.listing.unparsable if scan else (),
            waits=scan.plan.waits if scan else None,
            waits_message=scan.plan.message if scan else "",
            overdue=guard.counts.get("overdue", 0) if guard.counts else 0,
            difficulties=self._difficulties(guard),
            held_last=Keeps.LAST_SNAPSHOT in held,
            held_legally=held.count(Keeps.LEGAL_HOLD),
            next_told=told,
        )

    def _difficulties(self, guard: SourceGuard) -> list[Difficulty]:
        if guard.scan is None:
            return []
        found = ((ref, difficulty_of(deletion)) for ref, deletion in sorted(guard.scan.problems.items()))
        return [Difficulty(one.reason, f"{ref}: {one.message}") for ref, one in found]

    async def _report(self, guard: SourceGuard) -> None:
        scan, known = guard.scan, guard.known
        standing = standing_of_source(self._sight(guard))
        upcoming = scan.next if scan else None
        status = source_status(
            standing,
            guard.status,
            generation=guard.generation,
            now=self._clock(),
            counts=guard.counts,
            oldest=guard.oldest,
            scanned_at=known.scanned_at if known else None,
            next_=(upcoming[0].ref, upcoming[1]) if upcoming else None,
            unparsable=scan.listing.unparsable if scan else (),
            partial=scan.listing.partial if scan else (),
        )
        stale = time.monotonic() - guard.status_written > LAST_SCAN_SECONDS
        if not differs(status, guard.status) and not stale:
            return
        namespace, name = guard.place
        try:
            self._metrics.api_writes.labels("status").inc()
            patch = {**dict.fromkeys(guard.status), **status}
            written = await self._cluster.write_status(
                "backupsources", namespace, name, uid=guard.uid, status=patch
            )
        except (ClusterUnavailable, ClusterRefused) as away:
            log.warning("status of BackupSource %s waits: %s", guard.name, away)
            return
        if not written:
            return
        before, guard.status, guard.status_written = guard.status, status, time.monotonic()
        for condition in standing.conditions:
            told = (c for c in before.get("conditions", ()) if c.get("type") == condition.type)
            reason = next(told, {"reason": None})["reason"]
            if reason not in (None, "Pending", condition.reason):
                warning = condition.status.value == "False"
                await self._cluster.tell(Notice(guard.manifest, condition.reason, condition.message, warning))
                break
