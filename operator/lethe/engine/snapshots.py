"""The BackupSnapshot objects: one for each snapshot, whoever applied it; written as seldom as possible."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from lethe.api.parse import InvalidManifest, parse
from lethe.api.status import snapshot_status, unowned_status
from lethe.api.v1alpha1.backupsnapshot import BackupSnapshot
from lethe.domain.backup_conditions import Difficulty, conditions_of_snapshot, conditions_of_unowned
from lethe.domain.chunks import chunked
from lethe.domain.conditions import ConditionSet
from lethe.domain.periods import Period, instant
from lethe.domain.pruning import RetentionHold
from lethe.domain.snapshots import SnapshotRecord
from lethe.engine.cache import ManagedSource, ObjectKey, key_of
from lethe.engine.metrics import Metrics
from lethe.ports.backups import Deletion, DeletionResult
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Manifest
from lethe.workflows.backup.scan import Declared, KnownSource

log = logging.getLogger("lethe.snapshots")

OWN = {"app.kubernetes.io/managed-by": "lethe"}
"""The label of what Lethe made, and may delete again. Deleting an object never deletes a snapshot."""

PURGED_SHOWN = timedelta(days=30)
"""How long the object of a purged snapshot stays to be seen; the ledger's facts stay for good."""

CALLS_AT_ONCE = 16
_encode = msgspec.json.Encoder(order="deterministic").encode


Basis = tuple[SnapshotRecord, str, RetentionHold | None, Deletion | None, bool, int]
Objects = dict[ObjectKey, dict[str, list["SnapshotObject"]]]


@dataclass(slots=True)
class SnapshotObject:
    """A BackupSnapshot as the API server last showed it, reduced to what is needed of it.

    `status_digest` is a digest of its status, `own` whether Lethe made it. `basis` is what its status was
    made of last: while that is the same, nothing has to be made of it again.
    """

    name: str
    uid: str
    generation: int
    taken_at: datetime
    own: bool
    status_digest: bytes
    basis: Basis | None = None


class SnapshotObjects:
    """Keeps one BackupSnapshot for each snapshot of each source."""

    def __init__(self, cluster: Cluster, metrics: Metrics, clock: Callable[[], datetime]) -> None:
        self._cluster, self._metrics, self._clock = cluster, metrics, clock
        self._objects: Objects = {}
        self._meanwhile: list[tuple[Manifest, bool]] | None = None
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)

    def note(self, manifest: Manifest, *, gone: bool) -> bool:
        """Take notice of an object; return whether its source should be scanned because of it."""
        if self._meanwhile is not None:
            self._meanwhile.append((manifest, gone))
        return self._note(self._objects, manifest, gone=gone)

    def _note(self, all_objects: Objects, manifest: Manifest, *, gone: bool) -> bool:
        try:
            snapshot = parse(BackupSnapshot, manifest)
        except InvalidManifest as invalid:
            log.warning("%s", invalid)
            return False
        namespace, name = key_of(manifest)
        source, ref = (namespace, snapshot.spec.source), snapshot.spec.ref
        objects = all_objects.setdefault(source, {}).setdefault(ref, [])
        known = next((one for one in objects if one.name == name), None)
        if gone:
            if known is not None:
                objects.remove(known)
            return known is not None
        seen = SnapshotObject(
            name=name,
            uid=manifest["metadata"].get("uid", ""),
            generation=manifest["metadata"].get("generation", 1),
            taken_at=snapshot.spec.taken_at,
            own=_is_own(manifest),
            status_digest=_digest(manifest.get("status") or {}),
        )
        if known is not None:
            objects[objects.index(known)] = seen
            return known.uid != seen.uid
        objects.append(seen)
        return not seen.own

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """Take notice of every object that there is, and of those that are not there any more."""
        listed: Objects = {}
        self._meanwhile = []
        try:
            async for manifest in self._cluster.list("backupsnapshots", namespaces):
                self._note(listed, manifest, gone=False)
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
        return conditions_of_snapshot(
            record,
            Period.parse(managed.description.retention),
            now=now,
            held=scan.plan.held.get(record.ref) if scan else None,
            difficulty=difficulty_of(problem) if problem else None,
        )

    async def reconcile(self, managed: ManagedSource, known: KnownSource) -> None:
        """Let there be an object for each snapshot, and let its status say what is known."""
        now = self._clock()
        objects = self._objects.setdefault(managed.key, {})
        work = await asyncio.to_thread(self._work, managed, known, now)
        unseen = (
            "no listing of its BackupSource has shown this ref: a file's name, the key behind the prefix, a "
            "restic id. Nothing is concluded from it"
        )
        work += [
            self._disown_one(managed.key, ref, one, "NotSeen", unseen)
            for ref, applied in objects.items()
            if ref not in known.snapshots
            for one in applied
        ]
        for some in chunked(work, 500):
            await asyncio.gather(*some)

    async def disown(self, sources: Collection[ObjectKey]) -> None:
        """Say of objects that no source is theirs."""
        for key, of_source in list(self._objects.items()):
            if key in sources:
                continue
            message = f"there is no BackupSource {key[1]} in this namespace; apply it, or correct spec.source"
            for ref, objects in list(of_source.items()):
                for one in list(objects):
                    await self._disown_one(key, ref, one, "SourceMissing", message)

    async def _disown_one(
        self, source: ObjectKey, ref: str, one: SnapshotObject, reason: str, message: str
    ) -> None:
        status = unowned_status(
            conditions_of_unowned(reason, message), generation=one.generation, since=one.taken_at
        )
        if _digest(status) != one.status_digest:
            async with self._calls:
                await self._write(source, ref, one, status)

    def _work(
        self, managed: ManagedSource, known: KnownSource, now: datetime
    ) -> list[Coroutine[Any, Any, None]]:
        """Return what has to be written; in a worker thread, for there may be many that need nothing."""
        objects = self._objects.get(managed.key, {})
        work = []
        for record in list(known.snapshots.values()):
            shown = objects.get(record.ref, [])
            if record.purged_at is not None and now - record.purged_at > PURGED_SHOWN:
                work += [self._remove(managed, record.ref, one) for one in shown if one.own]
            elif self._has_changed(managed, record, shown, now):
                work.append(self._keep(managed, record, now))
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
                status = snapshot_status(record, condition_set, retention, generation=one.generation)
                if _digest(status) == one.status_digest or await self._write(
                    managed.key, record.ref, one, status
                ):
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
                    "labels": OWN,
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
                self.note(created, gone=False)
                return

    async def _write(
        self, source: ObjectKey, ref: str, one: SnapshotObject, status: Mapping[str, Any]
    ) -> bool:
        try:
            self._metrics.api_writes.labels("status").inc()
            written = await self._cluster.write_status(
                "backupsnapshots", source[0], one.name, uid=one.uid, status=status
            )
        except (ClusterUnavailable, ClusterRefused) as away:
            log.warning("status of a BackupSnapshot of source %s waits: %s", "/".join(source), away)
            return False
        if written:
            one.status_digest = _digest(status)
        else:  # gone, or another one by now: the next scan makes it anew
            self._drop(source, ref, one)
        return written

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
    return all(labels.get(key) == value for key, value in OWN.items())


def _digest(status: Mapping[str, Any]) -> bytes:
    shown = {key: value for key, value in status.items() if value is not None}
    return hashlib.blake2b(_encode(shown), digest_size=16).digest()
