"""Kinds of Velero, CloudNativePG and the snapshotter as far as Lethe reads them, as CRDs of our own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from devtools.company import Api
from devtools.servers.controlplane import ControlPlane

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
TEXTS: Schema = {"type": "array", "items": TEXT, "nullable": True}
NAMES: Schema = {"type": "object", "additionalProperties": TEXT}


def part(**fields: Schema) -> Schema:
    return {"type": "object", "properties": fields}


NAMESPACES = {"includedNamespaces": TEXTS, "excludedNamespaces": TEXTS}
REFERENCE = part(apiGroup=TEXT, kind=TEXT, name=TEXT)
EXTERNAL = part(name=TEXT, barmanObjectStore=part(serverName=TEXT), plugin=part(name=TEXT, parameters=NAMES))
RECOVERY = part(source=TEXT, backup=part(name=TEXT), volumeSnapshots=part(storage=REFERENCE))
KINDS: Mapping[str, tuple[str, str, Schema, bool]] = {
    "restores.velero.io": (
        "Restore",
        "v1",
        part(
            spec=part(
                backupName=TEXT,
                scheduleName=TEXT,
                **NAMESPACES,
                includedResources=TEXTS,
                namespaceMapping=NAMES,
                restorePVs={"type": "boolean", "nullable": True},
            ),
            status=part(phase=TEXT, startTimestamp={**TEXT, "format": "date-time", "nullable": True}),
        ),
        False,
    ),
    "backups.velero.io": (
        "Backup",
        "v1",
        part(spec=part(**NAMESPACES, storageLocation=TEXT), status=part(phase=TEXT)),
        False,
    ),
    "clusters.postgresql.cnpg.io": (
        "Cluster",
        "v1",
        part(
            spec=part(
                instances={"type": "integer"},
                bootstrap=part(recovery=RECOVERY, initdb=part(database=TEXT)),
                externalClusters={"type": "array", "items": EXTERNAL},
            ),
            status=part(phase=TEXT),
        ),
        True,
    ),
    "backups.postgresql.cnpg.io": (
        "Backup",
        "v1",
        part(spec=part(cluster=part(name=TEXT), method=TEXT), status=part(phase=TEXT)),
        True,
    ),
    "volumesnapshots.snapshot.storage.k8s.io": (
        "VolumeSnapshot",
        "v1",
        part(
            spec=part(source=part(persistentVolumeClaimName=TEXT, volumeSnapshotContentName=TEXT)),
            status=part(readyToUse={"type": "boolean"}),
        ),
        True,
    ),
}
"""By name of the CRD: kind, version, schema, and whether the status is a subresource."""


def install(control_plane: ControlPlane, *names: str) -> None:
    """Install kinds; all of them where none is named."""
    chosen = names or tuple(KINDS)
    definitions = [_definition(name) for name in chosen]
    listed = {"apiVersion": "v1", "kind": "List", "items": definitions}
    control_plane.kubectl("apply", "--server-side", "--filename=-", input=json.dumps(listed))
    crds = [f"crd/{name}" for name in chosen]
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", *crds)


def _definition(name: str) -> dict[str, Any]:
    plural, _, group = name.partition(".")
    kind, version, schema, subresource = KINDS[name]
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        **({"subresources": {"status": {}}} if subresource else {}),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": name,
            # The group of the snapshotter is a protected one.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": group,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced",
            "versions": [served],
        },
    }


ROOTS = {
    "Restore": "/apis/velero.io/v1",
    "Cluster": "/apis/postgresql.cnpg.io/v1",
    "PersistentVolumeClaim": "/api/v1",
    "Pod": "/api/v1",
    "Job": "/apis/batch/v1",
    "VolumeSnapshot": "/apis/snapshot.storage.k8s.io/v1",
}


class Others:
    """Whoever restores by other tools than Lethe, and these tools: no controller of theirs runs here."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def create(
        self,
        kind: str,
        name: str,
        spec: Mapping[str, Any],
        *,
        namespace: str = "",
        owners: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Create an object; return its uid."""
        metadata = {"name": name, "ownerReferences": list(owners)}
        version = ROOTS[kind].removeprefix("/apis/").removeprefix("/api/")
        body = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
        status, made = self._api.call("POST", self._path(kind, "", namespace), body)
        assert status == 201, made
        return str(made["metadata"]["uid"])

    def tell(self, kind: str, name: str, status: Mapping[str, Any], *, namespace: str = "") -> None:
        """Write an object's status, as its controller does."""
        path = self._path(kind, name, namespace)
        if kind != "Restore":
            path += "/status"
        code, said = self._api.call("PATCH", path, {"status": status}, "application/merge-patch+json")
        assert code == 200, said

    def delete(self, kind: str, name: str, *, namespace: str = "") -> None:
        """Delete an object."""
        self._api.call("DELETE", self._path(kind, name, namespace))

    def _path(self, kind: str, name: str, namespace: str) -> str:
        where = namespace or self._api.namespace
        return f"{ROOTS[kind]}/namespaces/{where}/{kind.lower()}s" + (f"/{name}" if name else "")
