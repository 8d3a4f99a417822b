"""The GitOps examples: they build, are accepted and permitted; what is not ours has no unknown field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools.builds.kstatus.build import kstatus
from devtools.chart.helm import Helm, of_kind
from devtools.servers.children import CommandFailed, run, wait_until
from devtools.servers.controlplane import ControlPlane
from lethe.api.v1alpha1 import KINDS
from lethe.controllers.runtime.secrets import IDENTIFIER_TYPE

CHECKOUT = Path(__file__).resolve().parents[2]
GITOPS = CHECKOUT / "examples" / "gitops"
FOLDERS = sorted(file.parent for file in GITOPS.rglob("kustomization.yaml"))
LONE = [GITOPS / "secrets" / "external-secret.yaml"]
OURS = {"lethe.dev/v1alpha1", "v1", "rbac.authorization.k8s.io/v1"}
ACCOUNTS = ["system:serviceaccount:flux-system:lethe-gitops", "system:serviceaccount:privacy:lethe-gitops"]

# What these may hold (Argo CD 3, External Secrets 2), as far as the examples use it. Else: a typing error.
ANY = object()
APPLICATION: Any = {
    "project": ANY,
    "source": {
        "repoURL": ANY,
        "targetRevision": ANY,
        "path": ANY,
        "helm": {"releaseName": ANY, "valuesObject": ANY},
    },
    "destination": {"server": ANY, "namespace": ANY},
    "syncPolicy": {
        "automated": {"prune": ANY, "selfHeal": ANY},
        "syncOptions": ANY,
        "retry": {"limit": ANY, "backoff": {"duration": ANY, "factor": ANY, "maxDuration": ANY}},
    },
    "ignoreDifferences": [{"group": ANY, "kind": ANY, "jsonPointers": ANY}],
}
SYNC_OPTIONS = {"CreateNamespace=true", "ServerSideApply=true", "SkipDryRunOnMissingResource=true"}
EXTERNAL_SECRET: Any = {
    "refreshPolicy": ANY,
    "secretStoreRef": {"kind": ANY, "name": ANY},
    "target": {"name": ANY, "creationPolicy": ANY, "deletionPolicy": ANY, "template": {"type": ANY}},
    "data": [{"secretKey": ANY, "remoteRef": {"key": ANY, "property": ANY}}],
}


def documents(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one]


def built(control_plane: ControlPlane, folder: Path) -> list[dict[str, Any]]:
    return documents(control_plane.kubectl("kustomize", str(folder)))


def everything(control_plane: ControlPlane) -> list[dict[str, Any]]:
    return [one for folder in FOLDERS for one in built(control_plane, folder)] + [
        one for file in LONE for one in documents(file.read_text())
    ]


def of_group(control_plane: ControlPlane, group: str) -> list[dict[str, Any]]:
    return [one for one in everything(control_plane) if group in one["apiVersion"]]


def unknown(given: Any, known: Any, path: str) -> Iterator[str]:
    """Return the path of each field that is not known."""
    if known is ANY:
        return
    if isinstance(known, list):
        for number, one in enumerate(given):
            yield from unknown(one, known[0], f"{path}[{number}]")
        return
    for name, inner in given.items():
        if name in known:
            yield from unknown(inner, known[name], f"{path}.{name}")
        else:
            yield f"{path}.{name}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(GITOPS)))
def test_a_folder_builds_and_the_api_server_accepts_what_is_ours(
    control_plane: ControlPlane, folder: Path
) -> None:
    found = built(control_plane, folder)
    assert found
    ours = [one for one in found if one["apiVersion"] in OURS]
    for namespace in {one["metadata"].get("namespace") for one in ours} - {None}:
        if not control_plane.kubectl("get", "namespace", namespace, "--ignore-not-found"):
            control_plane.kubectl("create", "namespace", namespace)
    if ours:
        stream = "\n".join(json.dumps(one) for one in ours)
        said = control_plane.kubectl(
            "apply", "--server-side", "--dry-run=server", "--filename=-", input=stream
        )
        assert said.count("serverside-applied (server dry run)") == len(ours)


def test_no_file_of_the_examples_is_left_out() -> None:
    used = {file for folder in FOLDERS for file in _resources(folder)} | set(LONE)
    used |= {folder / "kustomization.yaml" for folder in FOLDERS}
    assert set(GITOPS.rglob("*.yaml")) == used
    assert len(FOLDERS) == 6


def _resources(folder: Path) -> Iterator[Path]:
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text()).get("resources", ()):
        if (folder / name).is_file():  # else a folder, with a kustomization of its own
            yield folder / name


def test_argo_cd_is_given_the_same_script_for_each_of_our_kinds(control_plane: ControlPlane) -> None:
    (settings,) = [one for one in built(control_plane, GITOPS / "argocd") if one["kind"] == "ConfigMap"]
    assert settings["metadata"]["name"] == "argocd-cm"
    assert settings["metadata"]["namespace"] == "argocd"
    assert settings["metadata"]["labels"]["app.kubernetes.io/part-of"] == "argocd"
    script = (GITOPS / "argocd" / "health.lua").read_text()
    kinds = {kind.definition.kind for kind in KINDS}
    assert settings["data"] == {f"resource.customizations.health.lethe.dev_{kind}": script for kind in kinds}


def test_its_keys_are_added_to_the_argocd_cm_that_is_there(control_plane: ControlPlane) -> None:
    (settings,) = [one for one in built(control_plane, GITOPS / "argocd") if one["kind"] == "ConfigMap"]
    settings["metadata"]["namespace"] = "default"
    control_plane.kubectl("create", "configmap", "argocd-cm", "--namespace=default", "--from-literal=url=x")
    control_plane.kubectl(
        *("apply", "--server-side", "--field-manager=lethe-gitops", "--filename=-"),
        input=json.dumps(settings),
    )
    kept = json.loads(
        control_plane.kubectl("get", "configmap", "argocd-cm", "--namespace=default", "--output=json")
    )
    assert kept["data"] == {"url": "x", **settings["data"]}


@pytest.mark.stage2
def test_flux_s_own_kinds_are_decoded_without_an_unknown_field(control_plane: ControlPlane) -> None:
    flux = of_group(control_plane, "toolkit.fluxcd.io")
    assert {one["kind"] for one in flux} == {"GitRepository", "Kustomization", "HelmRelease"}
    run([kstatus(), "-strict"], input="".join(json.dumps(one) + "\n" for one in flux))
    misspelt = {**flux[0], "spec": {**flux[0]["spec"], "intervall": "1m"}}
    with pytest.raises(CommandFailed, match="intervall"):
        run([kstatus(), "-strict"], input=json.dumps(misspelt))


def test_applications_and_the_external_secret_have_no_unknown_field(control_plane: ControlPlane) -> None:
    applications = of_group(control_plane, "argoproj.io")
    assert len(applications) == 4
    for one in applications:
        assert (one["apiVersion"], one["kind"]) == ("argoproj.io/v1alpha1", "Application")
        assert list(unknown(one["spec"], APPLICATION, "spec")) == []
        assert set(one["spec"]["syncPolicy"]["syncOptions"]) <= SYNC_OPTIONS
    (secret,) = of_group(control_plane, "external-secrets.io")
    assert (secret["apiVersion"], secret["kind"]) == ("external-secrets.io/v1", "ExternalSecret")
    assert list(unknown(secret["spec"], EXTERNAL_SECRET, "spec")) == []
    assert list(unknown({"source": {"pth": 1}}, APPLICATION, "spec")) == ["spec.source.pth"]


def test_what_they_point_at_is_there(control_plane: ControlPlane) -> None:
    paths = [one["spec"]["source"]["path"] for one in of_group(control_plane, "argoproj.io")]
    syncs = of_group(control_plane, "kustomize.toolkit.fluxcd.io")
    paths += [one["spec"]["path"] for one in syncs]
    paths += [
        one["spec"]["chart"]["spec"]["chart"] for one in of_group(control_plane, "helm.toolkit.fluxcd.io")
    ]
    assert len(paths) == 8
    for path in paths:
        assert (CHECKOUT / path).is_dir(), path
    account = next(one for one in built(control_plane, GITOPS / "flux") if one["kind"] == "ServiceAccount")
    applied_as = {one["spec"].get("serviceAccountName") for one in syncs}
    assert applied_as == {None, account["metadata"]["name"]}  # None: who brings the namespaces, and the CRDs
    named = {one["metadata"]["name"] for one in syncs}
    awaited = {one["name"] for sync in syncs for one in sync["spec"].get("dependsOn", ())}
    assert awaited == {"lethe", "privacy-stores"}
    assert named == {"lethe", "privacy-stores", "privacy-requests"}


def test_nothing_of_ours_is_ever_pruned_replaced_or_waited_for_in_a_wave(control_plane: ControlPlane) -> None:
    for one in everything(control_plane):
        annotations: Mapping[str, str] = one["metadata"].get("annotations", {})
        assert "argocd.argoproj.io/sync-wave" not in annotations
        of_privacy = one["kind"] == "Namespace" and one["metadata"]["name"] == "privacy"
        if one["apiVersion"] == "lethe.dev/v1alpha1" or of_privacy:
            assert annotations["kustomize.toolkit.fluxcd.io/prune"] == "disabled"
            assert annotations["argocd.argoproj.io/sync-options"] == "Prune=false,Delete=false"
        if "kustomize.toolkit" in one["apiVersion"]:
            assert one["spec"]["prune"] is False
            assert not one["spec"].get("force")
        if one["kind"] == "Application":
            assert one["spec"]["syncPolicy"]["automated"]["prune"] is False


def values_of_lethe(control_plane: ControlPlane) -> list[dict[str, Any]]:
    """Return the chart's values as Argo CD has them, and as Flux has them."""
    (argo,) = [one for one in of_group(control_plane, "argoproj.io") if one["metadata"]["name"] == "lethe"]
    (flux,) = of_group(control_plane, "helm.toolkit.fluxcd.io")
    return [argo["spec"]["source"]["helm"]["valuesObject"], flux["spec"]["values"]]


def test_both_render_the_chart_without_keys_a_ledger_or_rights_elsewhere(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    argo, flux = values_of_lethe(control_plane)
    assert argo == flux
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(argo))
    helm = Helm(tmp_path)
    found = helm.rendered("--values", str(values))
    kinds = {one["kind"] for one in found}
    # Keys that a rendering makes up are other ones each time; a second ledger has forgotten all of the first.
    assert not kinds & {"Secret", "PersistentVolumeClaim", "ClusterRole", "ClusterRoleBinding"}
    assert {one["metadata"]["namespace"] for one in of_kind(found, "Role")} == {"lethe-system", "privacy"}
    assert found == helm.rendered("--values", str(values))
    # Both tools make the namespace before: Flux in the folder of the release, Argo CD by another Application.
    beforehand = {
        one["metadata"]["name"]
        for one in built(control_plane, GITOPS / "flux" / "lethe")
        if one["kind"] == "Namespace"
    }
    assert beforehand >= set(argo["namespaces"])


def test_no_failed_upgrade_is_rolled_back_for_the_ledger_goes_forward_only(
    control_plane: ControlPlane,
) -> None:
    (release,) = of_group(control_plane, "helm.toolkit.fluxcd.io")
    for action in ("install", "upgrade"):
        assert release["spec"][action]["strategy"]["name"] == "RetryOnFailure"
        assert "remediation" not in release["spec"][action]


@pytest.fixture(scope="module")
def guarded(built_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server of its own with the admission policies and the Role of the examples."""
    with ControlPlane(tmp_path_factory.mktemp("guarded")) as running:
        for folder in (CHECKOUT / "crds", CHECKOUT / "crds" / "policies"):
            running.kubectl("apply", "--server-side", "--filename", str(folder))
        running.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        running.kubectl("apply", "--server-side", "-k", str(GITOPS / "privacy" / "namespace"))
        running.kubectl("create", "namespace", "flux-system")
        yield running


@pytest.mark.parametrize("account", ACCOUNTS)
def test_the_account_may_apply_stores_and_requests_and_needs_each_of_its_rights(
    guarded: ControlPlane, account: str
) -> None:
    folders = [str(GITOPS / "privacy" / name) for name in ("stores", "requests")]

    def applied() -> None:
        for folder in folders:
            guarded.kubectl(
                *("apply", "--server-side", "--dry-run=server", "--field-manager=gitops"),
                *(f"--as={account}", "-k", folder),
            )

    def refuses() -> bool:
        try:
            applied()
        except CommandFailed as refused:
            return "lacks the verb" in refused.stderr or "may not" in refused.stderr
        return False

    role = json.loads(guarded.kubectl("get", "role", "lethe-gitops", "-n", "privacy", "-o", "json"))
    # Policies are in force a moment after they are there: only then does it mean something that they allow.
    without = {**role, "rules": role["rules"][:1]}
    guarded.kubectl("replace", "--filename=-", input=_anew(without))
    wait_until(refuses, what="the policies to be in force")
    for left_out in range(1, len(role["rules"])):
        lacking = [rule for number, rule in enumerate(role["rules"]) if number != left_out]
        guarded.kubectl("replace", "--filename=-", input=_anew({**role, "rules": lacking}))
        wait_until(refuses, what=f"a refusal without {role['rules'][left_out]}")
    guarded.kubectl("replace", "--filename=-", input=_anew(role))
    wait_until(lambda: not refuses(), what="the rights to be known")
    applied()


def test_the_documented_role_of_support_may_ask_for_erasures_and_reads_no_secret(
    guarded: ControlPlane,
) -> None:
    page = (CHECKOUT / "docs" / "install.md").read_text()
    role = page.partition("```yaml\n# support.yaml\n")[2].partition("```")[0]
    guarded.kubectl("apply", "--server-side", "--filename=-", input=role)
    support = ("--as=somebody", "--as-group=support", "--namespace=privacy")
    requests = [
        (GITOPS / "privacy" / "requests" / f"{name}.yaml").read_text()
        for name in ("support-48213", "support-48214")
    ]

    def asked() -> bool:
        try:
            guarded.kubectl(
                *("apply", "--server-side", "--dry-run=server", "--filename=-", *support),
                input="".join(requests),
            )
        except CommandFailed:
            return False
        return True

    wait_until(asked, what="the rights to be known")
    secret = ("create", "secret", "generic", "support-48214", f"--type={IDENTIFIER_TYPE}")
    guarded.kubectl(*secret, "--from-literal=email=x", "--dry-run=server", *support)
    with pytest.raises(CommandFailed, match="forbidden"):
        guarded.kubectl("get", "secrets", *support)
    legal = str(GITOPS / "privacy" / "requests" / "le-2026-0106.yaml")
    with pytest.raises(CommandFailed, match="legalrequests"):
        guarded.kubectl("apply", "--server-side", "--dry-run=server", f"--filename={legal}", *support)


def _anew(manifest: Mapping[str, Any]) -> str:
    metadata = {key: manifest["metadata"][key] for key in ("name", "namespace")}
    return json.dumps({**manifest, "metadata": metadata})


def test_requests_hold_no_address_and_the_secret_with_one_does_not_come_back(
    control_plane: ControlPlane,
) -> None:
    for one in built(control_plane, GITOPS / "privacy" / "requests"):
        assert "@" not in json.dumps(one)
        assert one["kind"] != "Secret"
    (secret,) = of_group(control_plane, "external-secrets.io")
    spec = secret["spec"]
    assert spec["target"]["template"]["type"] == IDENTIFIER_TYPE
    assert (spec["refreshPolicy"], spec["target"]["creationPolicy"]) == ("CreatedOnce", "Orphan")
    request = yaml.safe_load((GITOPS / "privacy" / "requests" / "support-48214.yaml").read_text())
    reference = request["spec"]["subject"]["identifierSecretRef"]
    assert reference == {"name": spec["target"]["name"], "key": spec["data"][0]["secretKey"]}
