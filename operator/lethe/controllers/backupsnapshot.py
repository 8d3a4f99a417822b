"""The BackupSnapshot objects: one for each snapshot, whoever applied it; written as seldom as possible."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from lethe.api.parse import InvalidManifest, parse
from lethe.api.status.backupsnapshot import backupsnapshot_status, unowned_backupsnapshot_status
from lethe.api.status.base import troubled_status
from lethe.api.v1alpha1.backupsnapshot import BackupSnapshot
from lethe.controllers.runtime.cache import ManagedSource, ObjectCache, ObjectKey, key_of
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.status_writer import (
    ShownDigest,
    ShownStatus,
    Status,
    StatusKind,
    StatusWriter,
    Written,
    digest_of,
)
from lethe.domain.chunks import chunked
from lethe.domain.conditions.backupsnapshot import (
    Difficulty,
    backupsnapshot_conditions,
    unowned_backupsnapshot_conditions,
)
from lethe.domain.conditions.base import ConditionSet
from lethe.domain.periods import Period, instant
from lethe.domain.pruning import RetentionHold
from lethe.domain.snapshots import SnapshotRecord
from lethe.domain.trouble import Trouble
from lethe.ports.backups import Deletion, DeletionResult
from lethe.ports.cluster import OURS, Cluster, ClusterRefused, ClusterUnavailable, Manifest
from lethe.workflows.backup.scan import Declared, KnownSource

log = logging.getLogger("lethe.snapshots")

PURGED_SHOWN = timedelta(days=30)
"""How long the object of a purged snapshot stays to be seen; the ledger's facts stay for good."""

CALLS_AT_ONCE = 16
STATUS = StatusKind("backupsnapshots", "BackupSnapshot", essence=lambda status: status)

Basis = tuple[SnapshotRecord, str, RetentionHold | None, Deletion | None, bool, int]
Objects = dict[ObjectKey, dict[str, list["SnapshotObject"]]]


@dataclass(slots=True, kw_only=True)
class SnapshotObject(ShownDigest):
    """A BackupSnapshot as the API server last showed it, reduced to what is needed of it.

    `own` tells whether Lethe made it. `basis` is what its status was made of last: while that is the same,
    nothing has to be made of it again.
    """

    name: str
    generation: int
    taken_at: datetime
    own: bool
    basis: Basis | None = None


class SnapshotObjects:
    """Keeps one BackupSnapshot for each snapshot of each source."""

    def __init__(
        self, cluster: Cluster, metrics: Metrics, statuses: StatusWriter, clock: Callable[[], datetime]
    ) -> None:
        self._cluster, self._metrics, self._statuses, self._clock = cluster, metrics, statuses, clock
        self._objects: Objects = {}
        self._meanwhile: list[tuple[Manifest, bool]] | None = None
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)

    def note(self, manifest: Manifest, *, gone: bool) -> bool:
        """Take notice of an object; return whether its source should be scanned because of it."""
        if self._meanwhile is not None:
            self._meanwhile.append((manifest, gone))
        return self._note(self._objects, manifest, gone=gone)

    def _note(self, all_objects: Objects, manifest: Manifest, *, gone: bool) -> bool:
        namespace, name = key_of(manifest)
        if gone:  # whatever is wrong with it
            spec = manifest.get("spec") or {}
            of_source = all_objects.get((namespace, spec.get("source", "")), {})
            objects = of_source.get(spec.get("ref", ""), [])
            known = next((one for one in objects if one.name == name), None)
            if known is not None:
                objects.remove(known)
            return known is not None
        try:
            snapshot = parse(BackupSnapshot, manifest)
        except InvalidManifest as invalid:
            log.warning("%s", invalid)
            return False
        source, ref = (namespace, snapshot.spec.source), snapshot.spec.ref
        objects = all_objects.setdefault(source, {}).setdefault(ref, [])
        known = next((one for one in objects if one.name == name), None)
        uid = manifest["metadata"].get("uid", "")
        seen = SnapshotObject(
            uid,
            digest_of(manifest.get("status") or {}),
            name=name,
            generation=manifest["metadata"].get("generation", 1),
            taken_at=snapshot.spec.taken_at,
            own=_is_own(manifest),
        )
        if known is not None:
            objects[objects.index(known)] = seen
            return known.uid != seen.uid
        objects.append(seen)
        return not seen.own

    async def take_stock(self, namespaces: Collection[str], failed: Callable[[Manifest], None]) -> None:
        """Take notice of every object that there is, and of those that are not there any more.

        Of what can't be noted, for whatever reason, `failed` is told.
        """
        listed: Objects = {}
        self._meanwhile = []
        try:
            async for manifest in self._cluster.list("backupsnapshots", namespaces):
                try:
                    self._note(listed, manifest, gone=False)
                except Exception:  # noqa: BLE001 - one object must not hold up all others
                    failed(manifest)
            for manifest, gone in self._meanwhile:
                self._note(listed, manifest, gone=gone)
            self._objects = listed
        finally:
            self._meanwhile = None

    def declared(self, source: ObjectKey) -> list[Declared]:
        """Return what people and jobs have applied for a source."""
        return [
            Declared(ref, one.taken_at)
            for ref, objects in self._objects.get(source, {}).items()
            for one in objects
            if not one.own
        ]

    def name_of(self, source: ObjectKey, ref: str) -> str | None:
        """Return the name of a snapshot's object; `None` while there is none."""
        objects = self._objects.get(source, {}).get(ref)
        return objects[0].name if objects else None

    def condition_set(self, managed: ManagedSource, record: SnapshotRecord, now: datetime) -> ConditionSet:
        """Say where a snapshot stands, by the last scan of its source."""
        scan = managed.scan
        problem = scan.problems.get(record.ref) if scan else None
        return backupsnapshot_conditions(
            record,
            Period.parse(managed.description.retention),
            now=now,
            held=scan.plan.held.get(record.ref) if scan else None,
            difficulty=difficulty_of(problem) if problem else None,
            elsewhere=managed.known.places.get(record.source) if managed.known else None,
        )

    async def reconcile(
        self, managed: ManagedSource, known: KnownSource, *, outdated: Callable[[], bool]
    ) -> None:
        """Let there be an object for each snapshot, and let its status say what is known.

        It is left at that where the source is `outdated` meanwhile: what follows says it anew.
        """
        now = self._clock()
        objects = self._objects.setdefault(managed.key, {})
        work = await asyncio.to_thread(self._work, managed, known, now)
        unseen = (
            "no listing of its BackupSource has shown this ref: a file's name, the key behind the prefix, a "
            "restic id. Nothing is concluded from it"
        )
        work += [
            partial(self._disown_one, managed.key, ref, one, "NotSeen", unseen)
            for ref, applied in objects.items()
            if ref not in known.all_snapshots
            for one in applied
        ]
        for some in chunked(work, 500):
            if outdated():
                return
            await asyncio.gather(*(act() for act in some))

    async def disown_others(self, sources: Collection[ObjectKey]) -> None:
        """Say of all objects of other sources that no source is theirs."""
        for key in [key for key in self._objects if key not in sources]:
            await self.disown(key)

    async def disown(self, source: ObjectKey) -> None:
        """Say of the objects of a source that there is none."""
        message = f"there is no BackupSource {source[1]} in this namespace; apply it, or correct spec.source"
        for ref, objects in list(self._objects.get(source, {}).items()):
            for one in list(objects):
                await self._disown_one(source, ref, one, "SourceMissing", message)

    async def _disown_one(
        self, source: ObjectKey, ref: str, one: SnapshotObject, reason: str, message: str
    ) -> None:
        status = unowned_backupsnapshot_status(
            unowned_backupsnapshot_conditions(reason, message), generation=one.generation, since=one.taken_at
        )
        async with self._calls:
            await self._write(source, ref, one, status)

    def _work(
        self, managed: ManagedSource, known: KnownSource, now: datetime
    ) -> list[Callable[[], Awaitable[None]]]:
        """Return what has to be written; in a worker thread, for there may be many that need nothing."""
        objects = self._objects.get(managed.key, {})
        work: list[Callable[[], Awaitable[None]]] = []
        for record in known.all_snapshots.values():
            shown = objects.get(record.ref, [])
            if record.purged_at is not None and now - record.purged_at > PURGED_SHOWN:
                work += [partial(self._remove, managed, record.ref, one) for one in shown if one.own]
            elif self._has_changed(managed, record, shown, now):
                work.append(partial(self._keep, managed, record, now))
        return work

    def _has_changed(
        self, managed: ManagedSource, record: SnapshotRecord, shown: Sequence[SnapshotObject], now: datetime
    ) -> bool:
        """Tell whether there is anything to do; one that went before anybody saw it is shown as well."""
        if len(shown) != 1:
            return True
        return shown[0].basis != self._basis(managed, record, shown[0], now)

    def _basis(
        self, managed: ManagedSource, record: SnapshotRecord, one: SnapshotObject, now: datetime
    ) -> Basis:
        scan, retention = managed.scan, managed.description.retention
        held = scan.plan.held.get(record.ref) if scan else None
        problem = scan.problems.get(record.ref) if scan else None
        overdue = record.live and record.expires_at(Period.parse(retention)) <= now
        return record, retention, held, problem, overdue, one.generation

    async def _keep(self, managed: ManagedSource, record: SnapshotRecord, now: datetime) -> None:
        objects = self._objects.setdefault(managed.key, {}).setdefault(record.ref, [])
        async with self._calls:
            if not objects:
                await self._create(managed, record)
            applied = [one for one in objects if not one.own]
            own = [one for one in objects if one.own]
            # A job or GitOps has applied one itself: theirs stays, and one is enough.
            for surplus in own if applied else own[1:]:
                await self._remove_alone(managed, record.ref, surplus)
            condition_set = self.condition_set(managed, record, now)
            retention = Period.parse(managed.description.retention)
            for one in objects:
                status = backupsnapshot_status(record, condition_set, retention, generation=one.generation)
                if await self._write(managed.key, record.ref, one, status):
                    one.basis = self._basis(managed, record, one, now)

    async def _create(self, managed: ManagedSource, record: SnapshotRecord) -> None:
        namespace, source = managed.key
        for name in _names(source, record):
            manifest: dict[str, Any] = {
                "apiVersion": "lethe.dev/v1alpha1",
                "kind": "BackupSnapshot",
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": OURS,
                    "ownerReferences": [
                        {
                            "apiVersion": "lethe.dev/v1alpha1",
                            "kind": "BackupSource",
                            "name": source,
                            "uid": managed.uid,
                        }
                    ],
                },
                "spec": {"source": source, "ref": record.ref, "takenAt": instant(record.taken_at)},
            }
            try:
                self._metrics.api_writes.labels("create").inc()
                created = await self._cluster.create("backupsnapshots", namespace, manifest)
                if created is None:  # the name is taken: by this snapshot's own object, or by another's
                    taken = await self._cluster.get("backupsnapshots", namespace, name)
                    created = taken if taken and _is_about(taken, source, record.ref) else None
            except (ClusterUnavailable, ClusterRefused) as away:
                log.warning("a BackupSnapshot of source %s waits: %s", managed.name, away)
                return
            if created is not None:
                # What is wrong with the object is its own key's, to which its event comes, not the source's.
                with suppress(Exception):
                    self.note(created, gone=False)
                return

    async def _write(self, source: ObjectKey, ref: str, one: SnapshotObject, status: Status) -> bool:
        """Let an object's status say this; return whether it does."""
        written = await self._statuses.write(STATUS, (source[0], one.name), one, status)
        if written is Written.GONE:  # or another one by now: the next scan makes it anew
            self._drop(source, ref, one)
        return written in (Written.SAME, Written.WRITTEN)

    async def _remove(self, managed: ManagedSource, ref: str, one: SnapshotObject) -> None:
        async with self._calls:
            await self._remove_alone(managed, ref, one)

    async def _remove_alone(self, managed: ManagedSource, ref: str, one: SnapshotObject) -> None:
        try:
            self._metrics.api_writes.labels("delete").inc()
            await self._cluster.delete("backupsnapshots", managed.key[0], one.name, uid=one.uid)
        except (ClusterUnavailable, ClusterRefused) as away:
            log.warning("a BackupSnapshot of source %s waits: %s", managed.name, away)
            return
        self._drop(managed.key, ref, one)

    def _drop(self, source: ObjectKey, ref: str, one: SnapshotObject) -> None:
        objects = self._objects.get(source, {}).get(ref, [])
        if one in objects:
            objects.remove(one)


class BackupSnapshotController(Controller[ObjectKey]):
    """Takes in BackupSnapshots as they are applied or deleted; their statuses follow from scans.

    Deleting an object deletes no snapshot: it comes back.
    """

    name = "backupsnapshot"
    batch = 100

    def __init__(
        self,
        cache: ObjectCache,
        objects: SnapshotObjects,
        statuses: StatusWriter,
        clock: Callable[[], datetime],
        *,
        scan_soon: Callable[[ObjectKey], None],
    ) -> None:
        super().__init__()
        self._cache, self._objects, self._statuses, self._clock = cache, objects, statuses, clock
        self._scan_soon = scan_soon
        self._seen: dict[ObjectKey, list[tuple[Manifest, bool]]] = {}
        self._troubled: dict[ObjectKey, ShownStatus] = {}

    def observe(self, manifest: Manifest, *, gone: bool = False) -> None:
        """Take notice of an object that was seen, or is gone."""
        key = key_of(manifest)
        before = self._seen.get(key, ())
        self._seen[key] = [*((seen, went) for seen, went in before if went or not gone), (manifest, gone)]
        self.queue.add(key)

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """Take notice of every object that there is."""
        await self._objects.take_stock(namespaces, failed=self.observe)

    async def reconcile(self, key: ObjectKey) -> None:
        """Take in an object; ring for its source if that has to be scanned because of it."""
        seen = list(self._seen.get(key, ()))
        news = [(manifest, gone) for manifest, gone in seen if self._objects.note(manifest, gone=gone)]
        if key in self._troubled:
            news += seen[-1:]
        for manifest, gone in news:
            source = key[0], (manifest.get("spec") or {}).get("source", "")
            if source in self._cache.sources:
                self._scan_soon(source)
            elif not gone:
                await self._objects.disown(source)
        self._troubled.pop(key, None)
        self._seen[key] = self._seen[key][len(seen) :] if key in self._seen else []
        if not self._seen[key]:
            del self._seen[key]

    async def show_trouble(self, key: ObjectKey, trouble: Trouble) -> None:
        """Say in the status of an object that Lethe failed over it; its other conditions stay."""
        manifest, gone = self._seen[key][-1]
        if gone:
            return
        before = dict(manifest.get("status") or {})
        shown = self._troubled.setdefault(key, ShownStatus(manifest["metadata"].get("uid", ""), before))
        generation = manifest["metadata"].get("generation", 1)
        status = troubled_status(trouble, shown.status, generation=generation, now=self._clock())
        await self._statuses.write(STATUS, key, shown, status)


def difficulty_of(deletion: Deletion) -> Difficulty:
    """Return in a word and a sentence why a snapshot has not gone."""
    if deletion.result is DeletionResult.ACCEPTED:
        return Difficulty("DeletedUnproven", f"deleted, and not proven gone: {deletion.message}")
    until = f" (until {instant(deletion.until)})" if deletion.until else ""
    reason = "Overdue" if deletion.result is DeletionResult.FAILED else deletion.result.value
    return Difficulty(reason, f"{deletion.message}{until}")


def _names(source: str, record: SnapshotRecord) -> Iterable[str]:
    """Yield the names to try for a snapshot's object: its moment, and a digest where that is taken."""
    stem = re.sub(r"[^a-z0-9.-]", "-", source.lower())[:180]
    moment = f"{record.taken_at:%Y%m%dt%H%M%Sz}"
    yield f"{stem}-{moment}"
    yield f"{stem}-{moment}-{hashlib.sha256(record.ref.encode()).hexdigest()[:10]}"


def _is_about(manifest: Manifest, source: str, ref: str) -> bool:
    spec = manifest.get("spec") or {}
    return (spec.get("source"), spec.get("ref")) == (source, ref)


def _is_own(manifest: Manifest) -> bool:
    labels = manifest["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in OURS.items())
