"""What is told of a BackupSource: status, metrics, and an event for what a person would want to see."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from lethe.api.status import differs, replacing, source_status
from lethe.domain.backup_conditions import Difficulty, SourceObservation, conditions_of_source
from lethe.domain.periods import Period, instant
from lethe.domain.pruning import RetentionHold
from lethe.domain.snapshots import SnapshotState
from lethe.engine.metrics import Metrics
from lethe.engine.snapshots import SnapshotObjects, difficulty_of
from lethe.engine.world import SourceGuard, World
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Notice
from lethe.workflows.scanning import Scan

log = logging.getLogger("lethe.backups")

LAST_SCAN_SECONDS = 300
"""How old `lastScanAt` of a BackupSource may grow before a write only for its sake."""


class SourceReporting:
    """Tells of sources, as seldom as possible."""

    def __init__(
        self,
        world: World,
        cluster: Cluster,
        metrics: Metrics,
        objects: SnapshotObjects,
        clock: Callable[[], datetime],
    ) -> None:
        self._world, self._cluster, self._metrics = world, cluster, metrics
        self._objects, self._clock = objects, clock

    async def tell_of(self, guard: SourceGuard, scan: Scan) -> None:
        """Tell what a scan has pruned."""
        count = self._metrics.prunes.labels
        count(guard.name, "deleted").inc(len(scan.deleted))
        count(guard.name, "purged").inc(len(scan.purged))
        count(guard.name, "failed").inc(scan.failed)
        if scan.deleted or scan.purged:
            told = f"{len(scan.deleted)} snapshots deleted, {len(scan.purged)} proven gone"
            log.info("source %s: %s", guard.name, told)
            await self._cluster.tell(Notice(guard.manifest, "Pruned", told))

    def measure(self, guard: SourceGuard) -> None:
        """Count the snapshots of a source by their states."""
        known, now = guard.known, self._clock()
        if known is None or not known.loaded:
            return
        retention = Period.parse(guard.description.retention)
        held = guard.scan.plan.held if guard.scan else {}
        states: Counter[str] = Counter()
        overdue, oldest = 0, None
        for record in known.snapshots.values():
            state = self._objects.condition_set(guard, record, now).state
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

    def measure_ages(self) -> None:
        """Refresh how long ago each source was scanned: since it was met, if it never was."""
        now = self._clock()
        for guard in self._world.sources.values():
            scanned = guard.known.scanned_at if guard.known else None
            age = (now - (scanned or guard.met_at)).total_seconds()
            self._metrics.source_scan_age.labels(guard.name).set(age)

    def _observed(self, guard: SourceGuard) -> SourceObservation:
        scan, known = guard.scan, guard.known
        held = list(scan.plan.held.values()) if scan else []
        upcoming = scan.next if scan else None
        told = f"next: {upcoming[0].ref} at {instant(upcoming[1])}" if upcoming else ""
        stores = {guard_.name for guard_ in self._world.guards.values()}
        return SourceObservation(
            longest=guard.description.retention,
            ever_seen=known is not None and bool(known.snapshots),
            unknown_stores=sorted(
                name.rpartition("/")[2] for name in guard.description.stores if name not in stores
            ),
            scanned=known is not None and known.scanned_at is not None,
            trouble=guard.trouble,
            too_long=guard.description.too_long,
            unparsable=scan.listing.unparsable if scan else (),
            waits=scan.plan.waits if scan else None,
            waits_message=scan.plan.message if scan else "",
            difficulties=self._difficulties(guard),
            held_last=RetentionHold.LAST_SNAPSHOT in held,
            held_legally=held.count(RetentionHold.LEGAL_HOLD),
            next_told=told,
        )

    def _difficulties(self, guard: SourceGuard) -> list[Difficulty]:
        if guard.scan is None:
            return []
        found = ((ref, difficulty_of(deletion)) for ref, deletion in sorted(guard.scan.problems.items()))
        return [Difficulty(one.reason, f"{ref}: {one.message}") for ref, one in found]

    async def report(self, guard: SourceGuard) -> None:
        """Write a BackupSource's status, if it says something new, and an event for what is."""
        await asyncio.to_thread(self.measure, guard)
        self._metrics.source_up.labels(guard.name).set(guard.trouble is None)
        scan, known = guard.scan, guard.known
        condition_set = conditions_of_source(self._observed(guard))
        upcoming = scan.next if scan else None
        status = source_status(
            condition_set,
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
            written = await self._cluster.write_status(
                "backupsources", namespace, name, uid=guard.uid, status=replacing(status, guard.status)
            )
        except (ClusterUnavailable, ClusterRefused) as away:
            log.warning("status of BackupSource %s waits: %s", guard.name, away)
            return
        if not written:
            return
        before, guard.status, guard.status_written = guard.status, status, time.monotonic()
        for condition in condition_set.conditions:
            told = (c for c in before.get("conditions", ()) if c.get("type") == condition.type)
            reason = next(told, {"reason": None})["reason"]
            warning = condition.status.value == "False"
            news = reason != condition.reason and (warning or reason not in (None, "Pending"))
            if news and condition.type in ("Ready", "RetentionEffective"):
                await self._cluster.tell(Notice(guard.manifest, condition.reason, condition.message, warning))
                break
