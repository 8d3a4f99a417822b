"""NetworkPolicies and Poolers as a real API server keeps them: what is somebody else's stays theirs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from devtools.servers import ControlPlane
from lethe.adapters.cluster.api import KubernetesCluster, connect
from lethe.ports.cluster import ClusterRefused

BY = "lethe-gate-site"
PODS = {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]}
ALLOWED = {**PODS, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "lethe"}}}]}]}
POOLER_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "poolers.postgresql.cnpg.io"},
    "spec": {
        "group": "postgresql.cnpg.io",
        "names": {"kind": "Pooler", "plural": "poolers"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["cluster", "pgbouncer"],
                                "properties": {
                                    "cluster": {"type": "object", "properties": {"name": {"type": "string"}}},
                                    "instances": {"type": "integer", "default": 1},
                                    "pgbouncer": {
                                        "type": "object",
                                        "properties": {
                                            "poolMode": {"type": "string", "default": "session"},
                                            "paused": {"type": "boolean", "default": False},
                                        },
                                    },
                                },
                            }
                        },
                    }
                },
            }
        ],
    },
}
"""As far as the gate goes; of the project's own only the names and types of these fields."""


@pytest.fixture
async def cluster(control_plane: ControlPlane) -> AsyncIterator[KubernetesCluster]:
    connected = await connect(str(control_plane.kubeconfig_of("operator")))
    yield connected
    await connected.close()


@pytest.fixture(scope="module")
def poolers(control_plane: ControlPlane) -> Iterator[None]:
    """The kind Pooler."""
    control_plane.kubectl("apply", "--filename=-", input=json.dumps(POOLER_CRD))
    name = f"crd/{POOLER_CRD['metadata']['name']}"  # type: ignore[index]
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", name)
    yield
    control_plane.kubectl("delete", name)


class Namespace:
    """What a person sees and does in a namespace."""

    def __init__(self, control_plane: ControlPlane, name: str) -> None:
        self._control_plane, self.name = control_plane, name

    def kubectl(self, *arguments: str, manifest: object = None) -> str:
        """Do something as an administrator."""
        text = json.dumps(manifest) if manifest is not None else None
        return self._control_plane.kubectl(*arguments, f"--namespace={self.name}", input=text)

    def paused(self, name: str) -> bool:
        """Tell whether a Pooler is paused."""
        return bool(
            json.loads(self.kubectl("get", "pooler", name, "-o", "json"))["spec"]["pgbouncer"]["paused"]
        )

    def pooler(self, name: str, **pgbouncer: Any) -> None:
        """Apply a Pooler as its owner does."""
        spec = {"cluster": {"name": "db"}, "pgbouncer": {"poolMode": "transaction", **pgbouncer}}
        manifest = {
            "apiVersion": "postgresql.cnpg.io/v1",
            "kind": "Pooler",
            "metadata": {"name": name},
            "spec": spec,
        }
        self.kubectl("apply", "--filename=-", manifest=manifest)

    def policies(self) -> dict[str, Any]:
        """Return the specs of all NetworkPolicies by name."""
        items = json.loads(self.kubectl("get", "networkpolicies", "-o", "json"))["items"]
        return {one["metadata"]["name"]: one["spec"] for one in items}


@pytest.fixture
def place(control_plane: ControlPlane, namespace: str) -> Namespace:
    return Namespace(control_plane, namespace)


async def test_a_networkpolicy_is_there_as_long_as_it_is_wanted_and_as_it_is_wanted(
    cluster: KubernetesCluster, place: Namespace
) -> None:
    for spec in (PODS, ALLOWED, ALLOWED, None, None):
        await cluster.set_network_policy(place.name, BY, spec)
        assert place.policies() == ({BY: spec} if spec else {})


async def test_somebody_elses_networkpolicy_is_neither_changed_nor_deleted(
    cluster: KubernetesCluster, place: Namespace
) -> None:
    theirs = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": BY}}
    place.kubectl("apply", "--filename=-", manifest={**theirs, "spec": PODS})
    with pytest.raises(ClusterRefused, match="is somebody else's"):
        await cluster.set_network_policy(place.name, BY, ALLOWED)
    await cluster.set_network_policy(place.name, BY, None)
    assert place.policies() == {BY: PODS}


@pytest.mark.usefixtures("poolers")
async def test_a_pooler_is_paused_and_goes_on_and_nothing_else_of_it_changes(
    cluster: KubernetesCluster, place: Namespace
) -> None:
    place.pooler("rw")
    place.pooler("explicit", paused=False)
    for name in ("rw", "explicit"):
        await cluster.pause_pooler(place.name, name, BY, paused=False)
        assert not place.paused(name)
        for _ in range(2):
            await cluster.pause_pooler(place.name, name, BY, paused=True)
            assert place.paused(name)
        place.kubectl(
            "patch", "pooler", name, "--type=merge", "-p", '{"spec":{"pgbouncer":{"paused":false}}}'
        )
        await cluster.pause_pooler(place.name, name, BY, paused=True)
        assert place.paused(name), "whoever resumes it by hand does so until the next look"
        await cluster.pause_pooler(place.name, name, BY, paused=False)
        assert not place.paused(name)
        spec = json.loads(place.kubectl("get", "pooler", name, "-o", "json"))["spec"]
        assert spec["pgbouncer"] == {"poolMode": "transaction", "paused": False}


@pytest.mark.usefixtures("poolers")
async def test_a_pooler_that_somebody_else_has_paused_is_never_resumed(
    cluster: KubernetesCluster, place: Namespace
) -> None:
    place.pooler("theirs", paused=True)
    for paused in (False, True, False):
        await cluster.pause_pooler(place.name, "theirs", BY, paused=paused)
        assert place.paused("theirs")


@pytest.mark.usefixtures("poolers")
async def test_a_pooler_of_two_stores_goes_on_once_both_are_safe(
    cluster: KubernetesCluster, place: Namespace
) -> None:
    place.pooler("rw")
    other = "lethe-gate-crm"
    await cluster.pause_pooler(place.name, "rw", BY, paused=True)
    await cluster.pause_pooler(place.name, "rw", other, paused=True)
    await cluster.pause_pooler(place.name, "rw", BY, paused=False)
    assert place.paused("rw")
    await cluster.pause_pooler(place.name, "rw", other, paused=False)
    assert not place.paused("rw")


@pytest.mark.usefixtures("poolers")
async def test_a_pooler_that_is_not_there_is_named_and_not_made(
    cluster: KubernetesCluster, place: Namespace
) -> None:
    for paused in (True, False):
        with pytest.raises(
            ClusterRefused, match=r"no Pooler gone of .*: correct spec\.gate\.cnpgPooler\.names"
        ):
            await cluster.pause_pooler(place.name, "gone", BY, paused=paused)
    assert json.loads(place.kubectl("get", "poolers", "-o", "json"))["items"] == []


async def test_a_right_that_is_missing_is_said(cluster: KubernetesCluster, place: Namespace) -> None:
    cluster._client.set_default_header("Impersonate-User", "nobody")  # type: ignore[no-untyped-call]
    with pytest.raises(ClusterRefused, match="check the operator's RBAC"):
        await cluster.set_network_policy(place.name, BY, PODS)
    with pytest.raises(ClusterRefused, match="check the operator's RBAC"):
        await cluster.pause_pooler(place.name, "rw", BY, paused=True)
