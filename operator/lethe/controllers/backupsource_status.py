"""What is told of a BackupSource: status, metrics, and an event for what a person would want to see."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

from lethe.api.status.backupsource import backupsource_status
from lethe.api.status.base import rendered_conditions
from lethe.api.translation import plaintext_field
from lethe.controllers.backupsnapshot import SnapshotObjects, difficulty_of
from lethe.controllers.runtime.cache import ManagedSource, ObjectCache, key_of
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.status_writer import ShownStatus, Status, StatusKind, StatusWriter, Written
from lethe.domain.conditions.backupsnapshot import Difficulty
from lethe.domain.conditions.backupsource import BackupSourceObservation, backupsource_conditions
from lethe.domain.conditions.base import ConditionSet
from lethe.domain.periods import Period, instant
from lethe.domain.pruning import RetentionHold
from lethe.domain.snapshots import SnapshotState, is_misdated
from lethe.domain.trouble import Trouble
from lethe.ports.cluster import Cluster, Event, Manifest
from lethe.workflows.backup.scan import Scan

log = logging.getLogger("lethe.backups")

LAST_SCAN_SECONDS = 300
"""How old `lastScanAt` of a BackupSource may grow before a write only for its sake."""

BYTES_GO_IN = timedelta(days=1)
"""How long what was deleted may take to be proven gone before it counts as overdue."""

STATUS = StatusKind(
    "backupsources",
    "BackupSource",
    essence=lambda status: {name: said for name, said in status.items() if name != "lastScanAt"},
    detail=lambda status: status,
    patience=LAST_SCAN_SECONDS,
)


class SourceStatuses:
    """Tells of sources, as seldom as possible."""

    def __init__(
        self,
        cache: ObjectCache,
        cluster: Cluster,
        metrics: Metrics,
        statuses: StatusWriter,
        objects: SnapshotObjects,
        clock: Callable[[], datetime],
    ) -> None:
        self._cache, self._cluster, self._metrics, self._statuses = cache, cluster, metrics, statuses
        self._objects, self._clock = objects, clock

    async def tell_of(self, managed: ManagedSource, scan: Scan) -> None:
        """Tell what a scan has pruned."""
        count = self._metrics.prunes.labels
        count(managed.name, "deleted").inc(len(scan.deleted))
        count(managed.name, "purged").inc(len(scan.purged))
        count(managed.name, "failed").inc(scan.failed)
        if scan.deleted or scan.purged:
            summary = f"{len(scan.deleted)} snapshots deleted, {len(scan.purged)} proven gone"
            log.info("source %s: %s", managed.name, summary)
            await self._cluster.record_event(Event(managed.manifest, "Pruned", summary))

    def measure(self, managed: ManagedSource) -> None:
        """Count the snapshots of a source by their states."""
        known, now = managed.known, self._clock()
        if known is None or not known.loaded:
            return
        retention = Period.parse(managed.description.retention)
        held = managed.scan.plan.held if managed.scan else {}
        states: Counter[str] = Counter()
        overdue, oldest = len(_unfinished_overdue(managed, now)), None
        for record in (*known.snapshots.values(), *known.elsewhere):
            state = self._objects.condition_set(managed, record, now).state
            states[state or ""] += 1
            if record.live:
                due = record.ref not in held and record.expires_at(retention) <= now
                # Bytes may go once a day for many snapshots; that they wait says `problems`.
                overdue += due and (record.deleted_at is None or record.deleted_at + BYTES_GO_IN <= now)
                oldest = record.taken_at if oldest is None else min(oldest, record.taken_at)
        managed.counts = {
            "total": sum(count for state, count in states.items() if state != SnapshotState.PURGED),
            "overdue": overdue,
            "held": states[SnapshotState.HELD],
        }
        managed.oldest = oldest
        for state in SnapshotState:
            self._metrics.snapshots.labels(managed.name, state.value).set(states[state])
        self._metrics.snapshots_overdue.labels(managed.name).set(overdue)
        age = (now - oldest).total_seconds() if oldest else float("nan")
        self._metrics.snapshot_oldest_age.labels(managed.name).set(age)

    def measure_ages(self) -> None:
        """Refresh how long ago each source was scanned: since it was met, if it never was."""
        now = self._clock()
        for managed in self._cache.sources.values():
            scanned = managed.known.scanned_at if managed.known else None
            age = (now - (scanned or managed.met_at)).total_seconds()
            self._metrics.source_scan_age.labels(managed.name).set(age)

    def _observed(self, managed: ManagedSource) -> BackupSourceObservation:
        scan, known, now = managed.scan, managed.known, self._clock()
        unfinished = scan.listing.partial if scan else ()
        held = list(scan.plan.held.values()) if scan else []
        upcoming = scan.next if scan else None
        summary = f"next: {upcoming[0].ref} at {instant(upcoming[1])}" if upcoming else ""
        stores = {store.name for store in self._cache.stores.values()}
        return BackupSourceObservation(
            longest=managed.description.retention,
            ever_seen=known is not None and bool(known.snapshots),
            unknown_stores=sorted(
                name.rpartition("/")[2] for name in managed.description.stores if name not in stores
            ),
            scanned=known is not None and known.scanned_at is not None,
            trouble=managed.trouble,
            too_long=managed.description.too_long,
            unparsable=scan.listing.unparsable if scan else (),
            misdated=[one.ref for one in scan.listing.snapshots if is_misdated(one)] if scan else (),
            left_behind=[one.name for one in unfinished if one.is_left_behind(now)],
            unfinished_overdue=_unfinished_overdue(managed, now),
            waits=scan.plan.waits if scan else None,
            waits_message=scan.plan.message if scan else "",
            difficulties=self._difficulties(managed),
            held_last=RetentionHold.LAST_SNAPSHOT in held,
            held_legally=held.count(RetentionHold.LEGAL_HOLD),
            next_message=summary,
            elsewhere=Counter(known.places[one.source] for one in known.elsewhere if one.live)
            if known
            else {},
            plaintext=plaintext_field(managed.source.spec),
        )

    def _difficulties(self, managed: ManagedSource) -> list[Difficulty]:
        if managed.scan is None:
            return []
        found = ((ref, difficulty_of(deletion)) for ref, deletion in sorted(managed.scan.problems.items()))
        return [Difficulty(one.reason, f"{ref}: {one.message}") for ref, one in found]

    async def report(self, managed: ManagedSource) -> None:
        """Write a BackupSource's status, if it says something new, and an event for what is."""
        await asyncio.to_thread(self.measure, managed)
        self._metrics.source_up.labels(managed.name).set(managed.trouble is None)
        scan, known = managed.scan, managed.known
        condition_set = backupsource_conditions(self._observed(managed))
        upcoming = scan.next if scan else None
        status = backupsource_status(
            condition_set,
            managed.shown.status,
            generation=managed.generation,
            now=self._clock(),
            counts=managed.counts,
            oldest=managed.oldest,
            scanned_at=known.scanned_at if known else None,
            next_=(upcoming[0].ref, upcoming[1]) if upcoming else None,
            unparsable=scan.listing.unparsable if scan else (),
            partial=[one.name for one in scan.listing.partial] if scan else (),
        )
        await self._write(managed.manifest, managed.shown, condition_set, status)

    async def show_trouble(self, manifest: Manifest, shown: ShownStatus, trouble: Trouble) -> None:
        """Say that Lethe failed over a source, of which nothing else need be known. The rest stays said."""
        self._metrics.source_up.labels("/".join(key_of(manifest))).set(0)
        scanned = "lastScanAt" in shown.status
        condition_set = backupsource_conditions(BackupSourceObservation(scanned=scanned, trouble=trouble))
        generation = manifest["metadata"].get("generation", 1)
        conditions = rendered_conditions(
            condition_set, shown.status, generation=generation, now=self._clock()
        )
        status = {**shown.status, "observedGeneration": generation, "conditions": conditions}
        await self._write(manifest, shown, condition_set, status)

    async def _write(
        self, manifest: Manifest, shown: ShownStatus, condition_set: ConditionSet, status: Status
    ) -> None:
        reasons = {said.get("type"): said.get("reason") for said in shown.status.get("conditions", ())}
        if await self._statuses.write(STATUS, key_of(manifest), shown, status) is not Written.WRITTEN:
            return
        for condition in condition_set.conditions:
            before = reasons.get(condition.type)
            warning = condition.status.value == "False"
            news = before != condition.reason and (warning or before not in (None, "Pending"))
            if news and condition.type in ("Ready", "RetentionEffective"):
                await self._cluster.record_event(
                    Event(manifest, condition.reason, condition.message, warning)
                )
                break


def _unfinished_overdue(managed: ManagedSource, now: datetime) -> list[str]:
    if managed.scan is None:
        return []
    retention = Period.parse(managed.description.retention)
    return [one.name for one in managed.scan.listing.partial if one.is_overdue(retention, now)]
