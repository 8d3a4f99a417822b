"""The GitOps examples: they build, the API server accepts what is ours, the rest has no unknown field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lethe.api.v1alpha1 import KINDS
from lethe.engine.secrets import IDENTIFIER_TYPE
from tests.cluster.kstatus.build import kstatus
from tests.servers.children import CommandFailed, run
from tests.servers.controlplane import ControlPlane

CHECKOUT = Path(__file__).resolve().parents[2]
GITOPS = CHECKOUT / "examples" / "gitops"
FOLDERS = sorted(file.parent for file in GITOPS.rglob("kustomization.yaml"))
LONE = [GITOPS / "secrets" / "external-secret.yaml"]
OURS = {"lethe.dev/v1alpha1", "v1"}

# What these may hold (Argo CD 3, External Secrets 2), as far as the examples use it. Else: a typing error.
ANY = object()
APPLICATION: Any = {
    "project": ANY,
    "source": {"repoURL": ANY, "targetRevision": ANY, "path": ANY, "helm": {"releaseName": ANY}},
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
    assert len(FOLDERS) == 5


def _resources(folder: Path) -> Iterator[Path]:
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text()).get("resources", ()):
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
    assert len(applications) == 3
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
    assert len(paths) == 7
    for path in paths:
        assert (CHECKOUT / path).is_dir(), path
    named = {one["metadata"]["name"] for one in syncs}
    awaited = {one["name"] for sync in syncs for one in sync["spec"].get("dependsOn", ())}
    assert awaited == {"lethe", "privacy-stores"}
    assert named == {"lethe", "privacy-stores", "privacy-requests"}


def test_nothing_of_ours_is_ever_pruned_replaced_or_waited_for_in_a_wave(control_plane: ControlPlane) -> None:
    for one in everything(control_plane):
        annotations: Mapping[str, str] = one["metadata"].get("annotations", {})
        assert "argocd.argoproj.io/sync-wave" not in annotations
        if one["apiVersion"] == "lethe.dev/v1alpha1":
            assert annotations["kustomize.toolkit.fluxcd.io/prune"] == "disabled"
            assert annotations["argocd.argoproj.io/sync-options"] == "Prune=false,Delete=false"
        if "kustomize.toolkit" in one["apiVersion"]:
            assert one["spec"]["prune"] is False
            assert not one["spec"].get("force")
        if one["kind"] == "Application":
            assert one["spec"]["syncPolicy"]["automated"]["prune"] is False


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
