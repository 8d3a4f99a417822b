"""What the chart's admission policies leave of the rights to close more than pods: only that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from devtools.chart.helm import NAMESPACE, Helm, of_kind
from devtools.company import eventually
from devtools.servers import ControlPlane
from devtools.servers.children import CommandFailed
from tests.adapters.cluster.test_gate_ways import PODS, POOLER_CRD, Namespace, poolers
from tests.chart.test_rights import granted, roles_of

__all__ = ["poolers"]  # a fixture

GATES = ("--set", "gate.networkPolicies=true,gate.cnpgPoolers=true")
LETHE = f"system:serviceaccount:{NAMESPACE}:lethe"
GROUP = POOLER_CRD["spec"]["group"]  # type: ignore[index]


def test_the_rights_to_other_ways_are_there_only_if_enabled(helm: Helm) -> None:
    without, having = (granted(roles_of(helm.rendered(*values))) for values in ((), GATES))
    assert having - without == {
        *((verb, "networking.k8s.io", "networkpolicies") for verb in ("get", "create", "update", "delete")),
        *((verb, GROUP, "poolers") for verb in ("get", "patch")),
    }
    policies = "ValidatingAdmissionPolicy"
    assert len(of_kind(helm.rendered(*GATES), policies)) == len(of_kind(helm.rendered(), policies)) + 2


@pytest.fixture
def place(
    control_plane: ControlPlane, helm: Helm, namespace: str, poolers: None
) -> Iterator[Callable[..., str]]:
    """A namespace, as the operator may act there by the rendered roles and policies."""
    rendered = helm.rendered(*GATES)
    kinds = ("ClusterRole", "ClusterRoleBinding")
    ours = [one for one in rendered if one["kind"] in kinds]
    ours += [one for one in rendered if one["metadata"]["name"].startswith("lethe-only-its-own")]
    control_plane.kubectl(
        "apply", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": ours})
    )
    administrator = Namespace(control_plane, namespace)
    administrator.pooler("rw")

    def attempt(*arguments: str, manifest: object = None) -> str:
        try:
            return administrator.kubectl(*arguments, f"--as={LETHE}", manifest=manifest)
        except CommandFailed as refused:
            return str(refused)

    foreign = policy("other")
    eventually(
        lambda: "no other NetworkPolicies" in attempt("create", "-f-", manifest=foreign), "the policies", 60
    )
    yield attempt
    control_plane.kubectl(
        "delete", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": ours})
    )


def policy(name: str, **labels: str) -> dict[str, object]:
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": PODS}


def test_the_operator_writes_its_own_networkpolicies_and_pauses_poolers_and_no_more(
    place: Callable[..., str],
) -> None:
    ours = policy("lethe-gate-site", **{"app.kubernetes.io/managed-by": "lethe"})
    assert "no other NetworkPolicies" in place("create", "-f-", manifest=policy("lethe-gate-site"))
    assert "created" in place("create", "-f-", manifest=ours)
    assert "deleted" in place("delete", "networkpolicy", "lethe-gate-site")

    def patched(spec: object) -> str:
        body = json.dumps({"spec": spec})
        return place("patch", "pooler", "rw", "--type=merge", "-p", body)

    refused = "may change nothing of a Pooler but spec.pgbouncer.paused"
    for other in ({"instances": 0}, {"pgbouncer": {"poolMode": "session"}}, {"cluster": {"name": "other"}}):
        assert refused in patched(other), other
    assert refused in place(
        "patch", "pooler", "rw", "--type=merge", "-p", '{"metadata":{"labels":{"a":"b"}}}'
    )
    assert "patched" in patched({"pgbouncer": {"paused": True}})
