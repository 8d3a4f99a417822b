"""Others' objects that may bring a store's data back: what is kept of them, and what they concern."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from lethe.ports.cluster import ClusterRefused, Manifest, OthersKind, OthersObjects

_VELERO, _CNPG, _CORE = "/apis/velero.io/v1", "/apis/postgresql.cnpg.io/v1", "/api/v1"
_SNAPSHOTS = "/apis/snapshot.storage.k8s.io/v1"
_BY_ITSELF = frozenset(
    {"CronJob", "RestoreDrill", "Job", "ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"}
)
"""Whose Jobs and Pods nobody has applied by hand: backups, drills, workloads. A Job's Pods are the Job's."""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Which namespaces a Velero Restore writes to: those that all `filters` (included, excluded) take in."""

    filters: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    renamed: Mapping[str, str]

    def __contains__(self, namespace: str) -> bool:
        origins = [old for old, new in self.renamed.items() if new == namespace]
        if namespace not in self.renamed:
            origins.append(namespace)
        return any(
            all(
                _matches(one, included) and not _matches(one, excluded) for included, excluded in self.filters
            )
            for one in origins
        )


@dataclass(frozen=True, slots=True)
class Restoring:
    """An object of others that may bring data back, and has not ended.

    `namespaces` are those that a Velero Restore writes to. Of the others `names` are the CloudNativePG
    clusters or claims of its own namespace that it is, that its data comes from, or that it mounts;
    `any_name` tells that where its data comes from can't be read, so that it may be from any.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    created_at: datetime
    namespaces: Namespaces | None = None
    names: frozenset[str] = frozenset()
    any_name: bool = False

    def concerns(
        self, place: Mapping[str, Any] | None, home: str, mounts: Collection[tuple[str, str]]
    ) -> bool:
        """Tell whether it may bring back the data of a store.

        `place` is the `spec.runsIn` of its DataStore in the namespace `home`; `mounts` are namespace and
        claim of the directories in which its backups lie.
        """
        if self.kind in ("Job", "Pod"):
            return any((self.namespace, name) in mounts for name in self.names)
        if place is None:
            return False
        there = place.get("namespace", home)
        if self.namespaces is not None:
            return there in self.namespaces
        own = [place.get("cloudNativePG")] if self.kind == "Cluster" else place.get("claims", ())
        ours = {name for name in own if name}
        return self.namespace == there and bool(ours) and (self.any_name or not ours.isdisjoint(self.names))


@dataclass(frozen=True, slots=True)
class Watched:
    """A kind that is watched where the setting `by` says so.

    `has_ended` tells of an object that nothing comes of it any more, or never would; `read` returns what is
    to be kept of one that has not.
    """

    by: str
    kind: str
    what: OthersKind
    has_ended: Callable[[Manifest], bool]
    read: Callable[[Manifest, OthersObjects], Awaitable[Mapping[str, Any] | None]]


def basics(kind: str, manifest: Manifest) -> Mapping[str, Any]:
    """Return what every `Restoring` has."""
    metadata = manifest["metadata"]
    return {
        "kind": kind,
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "created_at": datetime.fromisoformat(metadata["creationTimestamp"]),
    }


def _phase(manifest: Manifest) -> str:
    return str(_part(manifest, "status").get("phase") or "")


def _part(manifest: Manifest, *path: str) -> Mapping[str, Any]:
    found: Any = manifest
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _matches(namespace: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(namespace, pattern) for pattern in patterns)


# Velero


async def _read_restore(manifest: Manifest, others: OthersObjects) -> Mapping[str, Any] | None:
    spec = _part(manifest, "spec")
    filters = [_namespaces_of(spec)]
    backup = spec.get("backupName")
    if backup:  # most Restores take all that their Backup has
        found, known = await _ask(others, OthersKind(_VELERO, "backups"), manifest, backup)
        if known:
            filters.append(_namespaces_of(_part(found, "spec")))
    return {"namespaces": Namespaces(tuple(filters), dict(_part(spec, "namespaceMapping")))}


def _namespaces_of(spec: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    included = tuple(spec.get("includedNamespaces") or ("*",))
    return included, tuple(spec.get("excludedNamespaces") or ())


_VELERO_ENDED = frozenset({"FailedValidation", "Completed", "PartiallyFailed", "Failed"})

# CloudNativePG

_CLUSTER_ENDED = frozenset(
    {"Cluster in healthy state", "Cluster is in an unrecoverable state, needs manual intervention"}
)


async def _read_cluster(manifest: Manifest, others: OthersObjects) -> Mapping[str, Any] | None:
    recovery = _part(manifest, "spec", "bootstrap", "recovery")
    names, any_name = {manifest["metadata"]["name"]}, False
    source, backup = recovery.get("source"), _part(recovery, "backup").get("name")
    if source:
        names.add(source)
        for external in _part(manifest, "spec").get("externalClusters") or ():
            if external.get("name") == source:
                stores = (_part(external, "barmanObjectStore"), _part(external, "plugin", "parameters"))
                names |= {one["serverName"] for one in stores if one.get("serverName")}
    if backup:
        found, known = await _ask(others, OthersKind(_CNPG, "backups"), manifest, backup)
        names.add(_part(found, "spec", "cluster").get("name", ""))
        any_name = not known
    elif not source:  # of snapshots, which may be anybody's
        any_name = True
    return {"names": frozenset(names), "any_name": any_name}


# claims


def _snapshot_of(manifest: Manifest) -> str | None:
    spec = _part(manifest, "spec")
    for source in (_part(spec, "dataSourceRef"), _part(spec, "dataSource")):
        if source.get("kind") == "VolumeSnapshot":
            return str(source.get("name"))
    return None


async def _read_claim(manifest: Manifest, others: OthersObjects) -> Mapping[str, Any] | None:
    snapshot = _snapshot_of(manifest) or ""
    found, known = await _ask(others, OthersKind(_SNAPSHOTS, "volumesnapshots"), manifest, snapshot)
    origin = _part(found, "spec", "source").get("persistentVolumeClaimName")
    names = frozenset(name for name in (manifest["metadata"]["name"], origin) if name)
    return {"names": names, "any_name": not known}


# Jobs and Pods


def _made_by_itself(manifest: Manifest) -> bool:
    return any(owner["kind"] in _BY_ITSELF for owner in manifest["metadata"].get("ownerReferences") or ())


def _job_has_ended(manifest: Manifest) -> bool:
    conditions = _part(manifest, "status").get("conditions") or ()
    return _made_by_itself(manifest) or any(
        one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions
    )


def _mounted(pod: Mapping[str, Any]) -> Mapping[str, Any] | None:
    claims = [_part(volume, "persistentVolumeClaim").get("claimName") for volume in pod.get("volumes") or ()]
    names = frozenset(claim for claim in claims if claim)
    return {"names": names} if names else None


async def _read_job(manifest: Manifest, _: OthersObjects) -> Mapping[str, Any] | None:
    return _mounted(_part(manifest, "spec", "template", "spec"))


async def _read_pod(manifest: Manifest, others: OthersObjects) -> Mapping[str, Any] | None:
    metadata = manifest["metadata"]
    return _mounted(_part(await others.read(PODS, metadata["namespace"], metadata["name"]) or {}, "spec"))


PODS = OthersKind(_CORE, "pods", selector="status.phase!=Succeeded,status.phase!=Failed", bare=True)


async def _ask(
    others: OthersObjects, kind: OthersKind, manifest: Manifest, name: str
) -> tuple[Manifest, bool]:
    """Return an object beside another (empty: there is none), and whether it may be read at all."""
    try:
        return await others.read(kind, manifest["metadata"]["namespace"], name) or {}, True
    except ClusterRefused:
        return {}, False


WATCHED: Mapping[str, Watched] = {
    one.what.plural: one
    for one in (
        Watched(
            "velero",
            "Restore",
            OthersKind(_VELERO, "restores"),
            lambda manifest: _phase(manifest) in _VELERO_ENDED,
            _read_restore,
        ),
        Watched(
            "cloudNativePG",
            "Cluster",
            OthersKind(_CNPG, "clusters"),
            lambda manifest: (
                "recovery" not in _part(manifest, "spec", "bootstrap") or _phase(manifest) in _CLUSTER_ENDED
            ),
            _read_cluster,
        ),
        Watched(
            "volumeSnapshots",
            "PersistentVolumeClaim",
            OthersKind(_CORE, "persistentvolumeclaims"),
            lambda manifest: _snapshot_of(manifest) is None or _phase(manifest) in ("Bound", "Lost"),
            _read_claim,
        ),
        Watched("jobs", "Job", OthersKind("/apis/batch/v1", "jobs"), _job_has_ended, _read_job),
        Watched("jobs", "Pod", PODS, _made_by_itself, _read_pod),
    )
}
"""What is watched, by plural."""
