"""Early warning with the rights that the chart gives for it: get, list and watch, and the verb `warn`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools.chart.helm import Helm, Manifest
from devtools.company import Api, Site
from devtools.operator_process import OperatorProcess
from devtools.servers import ControlPlane
from tests.chart.test_rights import Right, granted, roles_of
from tests.e2e.others_kinds import Others, install
from tests.e2e.test_early_warning import BY, apply_store, begin, everything, velero_of, wait_state

SWITCHES = ("velero", "cloudNativePG", "volumeSnapshots", "jobs")
READING = ("get", "list", "watch")


@pytest.fixture(scope="module")
def without(helm: Helm) -> set[Right]:
    """The rights where nothing is switched on."""
    return granted(roles_of(helm.rendered()))


@pytest.mark.parametrize("on", [(), *((switch,) for switch in SWITCHES), SWITCHES])
def test_the_rights_for_others_objects_are_those_of_what_is_switched_on(
    helm: Helm, without: set[Right], on: tuple[str, ...]
) -> None:
    roles = roles_of(helm.rendered("--set", _switched(on, "backups")))
    more = granted(roles) - without
    velero = {("list", "velero.io", "restores"), ("watch", "velero.io", "restores")}
    expected = {
        "velero": {*velero, ("get", "velero.io", "backups")},
        "cloudNativePG": {
            ("list", "postgresql.cnpg.io", "clusters"),
            ("watch", "postgresql.cnpg.io", "clusters"),
            ("get", "postgresql.cnpg.io", "backups"),
        },
        "volumeSnapshots": {
            ("list", "", "persistentvolumeclaims"),
            ("watch", "", "persistentvolumeclaims"),
            ("get", "snapshot.storage.k8s.io", "volumesnapshots"),
        },
        "jobs": {
            ("list", "batch", "jobs"),
            ("watch", "batch", "jobs"),
            ("get", "", "pods"),
            ("watch", "", "pods"),
        },
    }
    wanted = {right for switch in on for right in expected[switch]}
    assert more == (wanted | {("warn", "lethe.dev", "restoreevents")} if on else set())
    places = {
        role["metadata"].get("namespace")
        for role in roles
        if any(rule["apiGroups"] == ["velero.io"] for rule in role["rules"])
    }
    assert places == ({"backups"} if "velero" in on else set()), "in Velero's namespace, and nowhere else"


@pytest.mark.e2e
@pytest.mark.slow
def test_each_kind_warns_with_the_chart_s_rights_and_uses_all_of_them(
    helm: Helm, control_plane: ControlPlane, namespace: str, database: str, tmp_path: Path
) -> None:
    api = Api(control_plane, namespace)
    install(control_plane)
    control_plane.kubectl("create", "namespace", velero_of(api))
    values = f"{_switched(SWITCHES, velero_of(api))},namespaces={{{namespace}}},fullnameOverride={namespace}"
    rendered = [
        one
        for one in helm.rendered("--set", values)
        if one["kind"] in ("Role", "RoleBinding", "ServiceAccount")
    ]
    release = next(one["metadata"] for one in rendered if one["kind"] == "ServiceAccount")
    control_plane.kubectl(
        "apply", "--filename=-", input=yaml.safe_dump_all(_for_this_cluster(rendered, release, namespace))
    )
    where = ("-n", namespace)
    content = json.loads(control_plane.kubeconfig.read_text())
    content["users"][0]["user"] = {
        "token": control_plane.kubectl("create", "token", release["name"], *where).strip()
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(content))
    operator = OperatorProcess(
        tmp_path / "operator",
        tmp_path / "kubeconfig",
        namespaces=[namespace],
        environment={"LETHE_EARLY_WARNING": everything(api)},
    )
    others, site = Others(api), Site(database)
    try:
        operator.start()
        apply_store(api, site, tmp_path)
        api.wait("datastores", "site", "SafeToServe")
        for kind in BY[:4]:  # of one store four are told at a time
            wait_state(api, begin(others, api, kind, f"by-{kind.lower()}"), "Expected")
        api.delete("restoreevents", api.list("restoreevents")[0]["metadata"]["name"])
        wait_state(api, begin(others, api, "Pod", "by-pod"), "Expected")
    finally:
        operator.stop()
    user = f"system:serviceaccount:{namespace}:{release['name']}"
    calls = [one for one in control_plane.audit_events() if one["user"]["username"] == user]
    asked = {
        (one["verb"], one["objectRef"].get("apiGroup", ""), one["objectRef"]["resource"])
        for one in calls
        if "objectRef" in one
    }
    refused = [one for one in calls if one.get("responseStatus", {}).get("code") == 403]
    assert [one["requestURI"] for one in refused] == []
    of_others = ("velero.io", "postgresql.cnpg.io", "snapshot.storage.k8s.io", "batch")
    given = granted(roles_of(rendered))
    backups = ("get", "postgresql.cnpg.io", "backups")  # of a Cluster that names one
    assert {right for right in given if right[1] in of_others} - {backups} <= asked
    assert {("list", "", "persistentvolumeclaims"), ("watch", "", "pods"), ("get", "", "pods")} <= asked
    assert all(right[0] in (*READING,) for right in given if right[1] in of_others)


def _switched(on: tuple[str, ...], velero: str) -> str:
    return ",".join((*(f"earlyWarning.{one}=true" for one in on), f"earlyWarning.veleroNamespace={velero}"))


def _for_this_cluster(
    rendered: Sequence[Manifest], release: Mapping[str, Any], namespace: str
) -> list[Manifest]:
    """Return the roles with the account in the test's namespace, where the release's is not."""
    there, here = (f"namespace: {where}\n" for where in (release["namespace"], namespace))
    text = yaml.safe_dump_all(rendered).replace(there, here)
    return list(yaml.safe_load_all(text))
