"""The readiness gate of real pods, as far as an API server goes without a node."""

import json
from collections.abc import AsyncIterator
from unittest.mock import patch

import pytest

from devtools.servers import ControlPlane
from lethe.adapters.cluster.api import KubernetesCluster, connect
from lethe.ports.ledger import Fenced

GATE = "lethe.dev/safe-to-serve"
SITE = {"matchLabels": {"app": "site"}}


@pytest.fixture
async def cluster(control_plane: ControlPlane) -> AsyncIterator[KubernetesCluster]:
    connected = await connect(str(control_plane.kubeconfig_of("operator")))
    yield connected
    await connected.close()


@pytest.fixture
def pod(control_plane: ControlPlane, namespace: str) -> str:
    control_plane.kubectl("create", "serviceaccount", "default", "-n", namespace)
    control_plane.kubectl("run", "site", "-n", namespace, "--image=site", "--labels=app=site")
    return "site"


def gate(control_plane: ControlPlane, namespace: str, pod: str) -> str:
    """Return the condition's status; empty if it has none."""
    found = json.loads(control_plane.kubectl("get", "pod", pod, "-n", namespace, "-o", "json"))
    conditions = found["status"].get("conditions", ())
    return next((one["status"] for one in conditions if one["type"] == GATE), "")


async def set_to(
    cluster: KubernetesCluster, namespace: str, open_: bool, confirm: object = None
) -> list[str]:
    async def nobody_took_over() -> None:
        return

    called = confirm if callable(confirm) else nobody_took_over
    return list(
        await cluster.set_gate(namespace, SITE, open_=open_, reason="Test", message="a test", confirm=called)
    )


async def test_it_is_opened_and_closed_and_left_alone_where_it_stands_so(
    cluster: KubernetesCluster, control_plane: ControlPlane, namespace: str, pod: str
) -> None:
    assert await set_to(cluster, namespace, open_=True) == [pod]
    assert gate(control_plane, namespace, pod) == "True"
    assert await set_to(cluster, namespace, open_=True) == []
    assert await set_to(cluster, namespace, open_=False) == [pod]
    assert gate(control_plane, namespace, pod) == "False"


async def test_whoever_was_fenced_opens_none_and_may_close_them(
    cluster: KubernetesCluster, control_plane: ControlPlane, namespace: str, pod: str
) -> None:
    async def somebody_took_over() -> None:
        raise Fenced("another operator writes this ledger")

    with pytest.raises(Fenced):
        await set_to(cluster, namespace, open_=True, confirm=somebody_took_over)
    assert gate(control_plane, namespace, pod) == ""
    assert await set_to(cluster, namespace, open_=False, confirm=somebody_took_over) == [pod]
    assert gate(control_plane, namespace, pod) == "False"


async def test_a_pod_that_somebody_else_has_closed_meanwhile_stays_closed(
    cluster: KubernetesCluster, control_plane: ControlPlane, namespace: str, pod: str
) -> None:
    """The slow one has read the pod, and another operator closes it before the slow one writes."""

    async def meanwhile() -> None:
        await set_to(cluster, namespace, open_=False)

    assert await set_to(cluster, namespace, open_=True, confirm=meanwhile) == []
    assert gate(control_plane, namespace, pod) == "False"
    assert await set_to(cluster, namespace, open_=True) == [pod]


async def test_a_pod_that_changes_while_it_is_closed_is_closed(
    cluster: KubernetesCluster, control_plane: ControlPlane, namespace: str, pod: str
) -> None:
    """As a kubelet does, which writes a pod's status whenever a probe says something else."""
    assert await set_to(cluster, namespace, open_=True) == [pod]
    call = cluster._call

    async def with_a_kubelet(verb: str, *args: object, **more: object) -> object:
        if verb == "PATCH":
            control_plane.kubectl("label", "pod", pod, "-n", namespace, "written=meanwhile")
        return await call(verb, *args, **more)  # type: ignore[arg-type]

    with patch.object(cluster, "_call", with_a_kubelet):
        assert await set_to(cluster, namespace, open_=False) == [pod]
    assert gate(control_plane, namespace, pod) == "False"
