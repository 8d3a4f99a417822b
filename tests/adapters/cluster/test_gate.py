"""The readiness gate of real pods, as far as an API server goes without a node."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from unittest.mock import patch

import pytest

from devtools.servers import ControlPlane
from lethe.adapters.cluster.api import KubernetesCluster, connect
from lethe.api.v1alpha1.datastore import PodSelector
from lethe.domain.gates import GateState, GateVerdict
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


def condition(control_plane: ControlPlane, namespace: str, pod: str) -> dict[str, str]:
    """Return the gate's condition; empty if there is none."""
    found = json.loads(control_plane.kubectl("get", "pod", pod, "-n", namespace, "-o", "json"))
    conditions = found["status"].get("conditions", ())
    return next((dict(one) for one in conditions if one["type"] == GATE), {})


def gate(control_plane: ControlPlane, namespace: str, pod: str) -> str:
    """Return the condition's status; empty if it has none."""
    return condition(control_plane, namespace, pod).get("status", "")


def by_verdict(said: GateVerdict) -> Callable[[Mapping[str, str]], GateVerdict]:
    """Return what says the same of every pod."""
    return lambda _: said


async def nothing() -> None:
    """Nobody has taken over."""


async def set_to(
    cluster: KubernetesCluster, namespace: str, open_: bool, confirm: object = None
) -> list[str]:
    called = confirm if callable(confirm) else nothing
    verdict = GateVerdict(GateState.OPEN if open_ else GateState.CLOSED, "Test", "a test")
    return list(await cluster.set_gate(namespace, SITE, lambda _: verdict, confirm=called))


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


async def test_a_pod_that_is_closed_for_another_reason_says_so_and_stays_closed(
    cluster: KubernetesCluster, control_plane: ControlPlane, namespace: str, pod: str
) -> None:
    """Written once more, so that who has read it before can't open it by what it knew then."""
    assert await set_to(cluster, namespace, open_=False) == [pod]
    before = condition(control_plane, namespace, pod)

    async def meanwhile() -> None:
        said = GateVerdict(GateState.CLOSED, "Replaying", "DataStore crm: the store went back in time")
        await cluster.set_gate(namespace, SITE, lambda _: said, confirm=nothing)

    assert await set_to(cluster, namespace, open_=True, confirm=meanwhile) == []
    now = condition(control_plane, namespace, pod)
    assert (now["status"], now["reason"]) == ("False", "Replaying")
    assert now["lastTransitionTime"] == before["lastTransitionTime"]


async def test_who_serves_goes_on_and_nobody_begins_while_nothing_can_be_told(
    cluster: KubernetesCluster, control_plane: ControlPlane, namespace: str, pod: str
) -> None:
    assert await set_to(cluster, namespace, open_=True) == [pod]
    control_plane.kubectl("run", "new", "-n", namespace, "--image=site", "--labels=app=site")
    said = GateVerdict(GateState.AS_IT_IS, "StoreAway", "DataStore site can't be looked at: it is away")
    assert await cluster.set_gate(namespace, SITE, lambda _: said, confirm=nothing) == ["new"]
    assert gate(control_plane, namespace, pod) == "True"
    assert condition(control_plane, namespace, "new")["message"] == said.message
    assert await cluster.set_gate(namespace, SITE, lambda _: said, confirm=nothing) == []


LABELS = ({"app": "site"}, {"app": "site", "tier": "web"}, {"tier": "web"}, {"app": ""}, {"other": "x"})
SELECTORS: tuple[Mapping[str, Any], ...] = (
    {"matchLabels": {"app": "site"}},
    {"matchLabels": {"app": "site", "tier": "web"}},
    {"matchLabels": {"app": ""}},
    {"matchExpressions": [{"key": "app", "operator": "In", "values": ["site", "x"]}]},
    {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["site"]}]},
    {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
    {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]},
    {"matchLabels": {"app": "site"}, "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]},
)


async def test_a_selector_takes_in_the_pods_that_the_api_server_says(
    cluster: KubernetesCluster, control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.kubectl("create", "serviceaccount", "default", "-n", namespace)
    for number, labels in enumerate(LABELS):
        written = ",".join(f"{key}={value}" for key, value in labels.items())
        control_plane.kubectl("run", f"pod{number}", "-n", namespace, "--image=site", f"--labels={written}")
    for number, selector in enumerate(SELECTORS):
        said = GateVerdict(GateState.CLOSED, f"Test{number}", "a test")
        changed = await cluster.set_gate(namespace, selector, by_verdict(said), confirm=nothing)
        mine = PodSelector.model_validate(selector)
        assert sorted(changed) == [f"pod{n}" for n, labels in enumerate(LABELS) if mine.selects(labels)]
        assert 0 < len(changed) < len(LABELS)
