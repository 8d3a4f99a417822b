"""Which of others' objects may bring back whose data."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from lethe.controllers.early_warning_kinds import WATCHED, Restoring, basics
from lethe.ports.cluster import ClusterRefused, Manifest, OthersKind, Seen

SHOP = {"namespace": "shop-db", "cloudNativePG": "shop", "claims": ["data-0"]}
HIDDEN = object()


class Known:
    """Others' objects that may be read, by plural and name; those that are `HIDDEN` may not."""

    def __init__(self, objects: Mapping[tuple[str, str], Any]) -> None:
        self._objects = objects

    async def read(self, kind: OthersKind, namespace: str, name: str) -> Manifest | None:
        """Return an object."""
        found: Any = self._objects.get((kind.plural, name))
        if found is HIDDEN:
            raise ClusterRefused("the API server refused it", 403)
        return None if found is None else {"spec": found}

    async def follow(self, kind: OthersKind, namespace: str) -> AsyncIterator[Seen | None]:
        """Nothing is followed here."""
        yield None


def read(plural: str, spec: Any, *, others: Any = None, **metadata: Any) -> Restoring | None:
    """Return what is kept of an object that has just been made in `shop-db`; `None`: nothing."""
    watched = WATCHED[plural]
    named = {"name": "one", "namespace": "shop-db", "uid": "u", "creationTimestamp": "2026-11-29T10:00:00Z"}
    manifest = {"metadata": {**named, **metadata}, "spec": spec}
    if watched.has_ended(manifest):
        return None

    async def reading() -> Mapping[str, Any] | None:
        return await watched.read(manifest, Known(others or {}))

    kept = asyncio.run(reading())
    return None if kept is None else Restoring(**basics(watched.kind, manifest), **kept)


def concerns(found: Restoring | None, place: Any = SHOP, home: str = "shop") -> bool:
    return found is not None and found.concerns(place, home, set())


NIGHTLY = ("backups", "nightly")


@pytest.mark.parametrize(
    ("restore", "backup", "concerned"),
    [
        ({}, {}, True),
        ({"includedNamespaces": ["*"]}, {}, True),
        ({"includedNamespaces": ["shop-db"]}, {}, True),
        ({"includedNamespaces": ["shop-*"]}, {}, True),
        ({"includedNamespaces": ["crm"]}, {}, False),
        ({"excludedNamespaces": ["shop-db"]}, {}, False),
        ({"includedNamespaces": ["*"]}, {"includedNamespaces": ["crm"]}, False),
        ({"includedNamespaces": ["*"]}, {"includedNamespaces": ["crm", "shop-db"]}, True),
        ({"includedNamespaces": None}, {"excludedNamespaces": ["shop-db"]}, False),
        ({"includedNamespaces": ["*"]}, HIDDEN, True),
        # into a namespace of another name, and out of one
        ({"includedNamespaces": ["shop-db"], "namespaceMapping": {"shop-db": "drill"}}, {}, False),
        ({"includedNamespaces": ["old"], "namespaceMapping": {"old": "shop-db"}}, {}, True),
        ({"includedNamespaces": ["crm"], "namespaceMapping": {"old": "shop-db"}}, {}, False),
    ],
)
def test_a_velero_restore_concerns_the_namespaces_that_it_writes_to(
    restore: Any, backup: Any, *, concerned: bool
) -> None:
    found = read("restores", {"backupName": "nightly", **restore}, others={NIGHTLY: backup})
    assert concerns(found) is concerned
    assert not concerns(found, None), "a store that says nothing of where it runs"


@pytest.mark.parametrize(
    ("spec", "others", "name", "concerned"),
    [
        ({"bootstrap": {"recovery": {"source": "shop"}}}, {}, "shop-2", True),
        ({"bootstrap": {"recovery": {"source": "crm"}}}, {}, "shop", True),
        ({"bootstrap": {"recovery": {"source": "crm"}}}, {}, "crm-2", False),
        (
            {
                "bootstrap": {"recovery": {"source": "origin"}},
                "externalClusters": [{"name": "origin", "barmanObjectStore": {"serverName": "shop"}}],
            },
            {},
            "new",
            True,
        ),
        (
            {
                "bootstrap": {"recovery": {"source": "origin"}},
                "externalClusters": [{"name": "origin", "plugin": {"parameters": {"serverName": "shop"}}}],
            },
            {},
            "new",
            True,
        ),
        (
            {"bootstrap": {"recovery": {"backup": {"name": "b"}}}},
            {("backups", "b"): {"cluster": {"name": "shop"}}},
            "new",
            True,
        ),
        (
            {"bootstrap": {"recovery": {"backup": {"name": "b"}}}},
            {("backups", "b"): {"cluster": {"name": "crm"}}},
            "new",
            False,
        ),
        ({"bootstrap": {"recovery": {"backup": {"name": "b"}}}}, {("backups", "b"): HIDDEN}, "new", True),
        ({"bootstrap": {"recovery": {"volumeSnapshots": {"storage": {"name": "s"}}}}}, {}, "new", True),
        ({"bootstrap": {"initdb": {}}}, {}, "shop", False),
        ({}, {}, "shop", False),
    ],
)
def test_a_cluster_that_is_recovered_concerns_whom_it_is_or_comes_from(
    spec: Any, others: Any, name: str, *, concerned: bool
) -> None:
    found = read("clusters", spec, others=others, name=name)
    assert concerns(found) is concerned
    assert not concerns(found, {**SHOP, "namespace": "elsewhere"})
    assert not concerns(found, {"namespace": "shop-db", "claims": ["data-0"]}), "a store that is no Cluster"


SOURCE = {"kind": "VolumeSnapshot", "name": "s"}
SNAPSHOT = ("volumesnapshots", "s")


@pytest.mark.parametrize(
    ("spec", "others", "name", "concerned"),
    [
        (
            {"dataSource": SOURCE},
            {SNAPSHOT: {"source": {"persistentVolumeClaimName": "data-0"}}},
            "new",
            True,
        ),
        (
            {"dataSourceRef": SOURCE},
            {SNAPSHOT: {"source": {"persistentVolumeClaimName": "data-0"}}},
            "new",
            True,
        ),
        (
            {"dataSource": SOURCE},
            {SNAPSHOT: {"source": {"persistentVolumeClaimName": "other"}}},
            "new",
            False,
        ),
        (
            {"dataSource": SOURCE},
            {SNAPSHOT: {"source": {"persistentVolumeClaimName": "other"}}},
            "data-0",
            True,
        ),
        ({"dataSource": SOURCE}, {}, "new", False),
        ({"dataSource": SOURCE}, {SNAPSHOT: HIDDEN}, "new", True),
        ({"dataSource": {"kind": "PersistentVolumeClaim", "name": "data-0"}}, {}, "data-0", False),
        ({}, {}, "data-0", False),
    ],
)
def test_a_claim_of_a_snapshot_concerns_whose_claim_it_is_or_was_taken_of(
    spec: Any, others: Any, name: str, *, concerned: bool
) -> None:
    assert concerns(read("persistentvolumeclaims", spec, others=others, name=name)) is concerned


@pytest.mark.parametrize(
    ("owner", "kept"),
    [(None, True), ("Workflow", True), ("CronJob", False), ("RestoreDrill", False), ("ReplicaSet", False)],
)
@pytest.mark.parametrize("plural", ["jobs", "pods"])
def test_a_job_or_pod_counts_that_mounts_the_claim_and_that_no_workload_made(
    plural: str, owner: str | None, *, kept: bool
) -> None:
    pod = {"volumes": [{"name": "a"}, {"name": "b", "persistentVolumeClaim": {"claimName": "dumps"}}]}
    owners = [] if owner is None else [{"kind": owner, "name": "o"}]
    spec = {"template": {"spec": pod}} if plural == "jobs" else {}
    found = read(plural, spec, others={("pods", "one"): pod}, ownerReferences=owners)
    assert (found is not None) is kept
    if found is not None:
        assert found.concerns(None, "shop", {("shop-db", "dumps")})
        assert not found.concerns(SHOP, "shop", {("shop", "dumps")}), "a claim of that name elsewhere"


def test_of_what_mounts_no_claim_nothing_is_kept() -> None:
    assert read("jobs", {"template": {"spec": {"volumes": [{"name": "a", "emptyDir": {}}]}}}) is None
    assert read("pods", {}, others={("pods", "one"): {"containers": []}}) is None
    assert read("pods", {}) is None, "one that is gone already"
