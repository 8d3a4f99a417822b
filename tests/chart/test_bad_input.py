"""What a platform engineer gets wrong on the first day ends in one clear line; values: test_values.py."""

import re
from pathlib import Path

import pytest

from devtools.chart.copies import CHART
from devtools.chart.helm import NAMESPACE, Helm
from devtools.servers import CommandFailed, ControlPlane

RELEASE = ("lethe", str(CHART), "--namespace", NAMESPACE)
ALONE = ("--set", "crds.enabled=false,policies.enabled=false")


def refusal(helm: Helm, *arguments: str) -> str:
    """Return the only line that helm complains in."""
    with pytest.raises(CommandFailed) as refused:
        helm(*arguments)
    said = refused.value.stderr.replace("Use --debug flag to render out invalid YAML", "")
    (line,) = (line for line in said.splitlines() if line)
    return line


def test_a_typo_in_a_values_file_is_named(helm: Helm, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("settings:\n  retention: P6M\n  sweepIntervall: 1h\n")
    with pytest.raises(CommandFailed) as refused:
        helm("template", *RELEASE, "--values", str(values))
    (finding,) = (line for line in refused.value.stderr.splitlines() if line.startswith("- "))
    assert finding == "- at '/settings': additional properties 'sweepIntervall' not allowed"


def test_a_values_file_that_is_no_yaml_is_named_with_the_line(helm: Helm, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("settings:\n  retention: P6M\n sweepInterval: 1h\n")
    line = refusal(helm, "template", *RELEASE, "--values", str(values))
    assert "values.yaml" in line
    assert "line 2: did not find expected key" in line  # after which it expects one


def test_a_kubernetes_that_is_too_old_is_refused(helm: Helm) -> None:
    line = refusal(helm, "template", *RELEASE, "--kube-version", "1.31.9")
    assert "chart requires kubeVersion: >=1.32.0-0 which is incompatible with Kubernetes v1.31.9" in line
    helm("template", *RELEASE, "--kube-version", "1.32.0")


def test_a_namespace_to_install_into_must_exist(cluster_helm: Helm) -> None:
    line = refusal(cluster_helm, "install", "lethe", str(CHART), "--namespace", "nowhere", *ALONE)
    assert 'namespaces "nowhere" not found' in line


def test_a_namespace_to_serve_must_exist(cluster_helm: Helm, bare_cluster: ControlPlane) -> None:
    line = refusal(cluster_helm, "install", *RELEASE, *ALONE, "--set", "namespaces={shop,nowhere}")
    assert "namespaces: there is no namespace nowhere; create it first, or correct the name" in line
    assert "lethe" not in bare_cluster.kubectl("get", "deployments,roles", "--all-namespaces")


MISSING = [
    (
        "keys.existingSecret=none",
        [f"Secret {NAMESPACE}/none is missing, which keys.existingSecret names: create it;"],
    ),
    (
        "ledger.urlSecretRef.name=none,ledger.urlSecretRef.key=url",
        [f"Secret {NAMESPACE}/none is missing, which ledger.urlSecretRef names: create it;"],
    ),
    (
        "ledger.urlSecretRef.name=half,ledger.urlSecretRef.key=url",
        [f"Secret {NAMESPACE}/half has no key url, which ledger.urlSecretRef needs: add it;"],
    ),
    ("ledger.urlSecretRef.name=half,ledger.urlSecretRef.key=uri", []),
    (
        "keys.existingSecret=half",
        [
            f"Secret {NAMESPACE}/half has no key {key}, which keys.existingSecret needs: add it;"
            for key in ("fingerprint", "seal")
        ],
    ),
    (
        "notices.smtp.urlSecretRef.name=none,notices.smtp.urlSecretRef.key=url,notices.smtp.from=a@b.example",
        [f"Secret {NAMESPACE}/none is missing, which notices.smtp.urlSecretRef names: create it;"],
    ),
    (
        "extraCA.secretRef.name=none,extraCA.secretRef.key=ca.crt",
        [f"Secret {NAMESPACE}/none is missing, which extraCA.secretRef names: create it;"],
    ),
    ("", []),
]


@pytest.fixture(scope="module")
def half(bare_cluster: ControlPlane) -> None:
    """A Secret that has some of what is looked for."""
    keys = ("--from-literal=uri=sqlite:////x", "--from-literal=sign=x")
    bare_cluster.kubectl("create", "secret", "generic", "half", "-n", NAMESPACE, *keys)


@pytest.mark.usefixtures("half")
@pytest.mark.parametrize(("setting", "lines"), MISSING, ids=[setting for setting, _ in MISSING])
def test_a_secret_that_is_missing_is_told_at_once(cluster_helm: Helm, setting: str, lines: list[str]) -> None:
    said = cluster_helm("install", *RELEASE, *ALONE, "--dry-run=server", "--set", setting)
    notes = said.partition("\nNOTES:\n")[2]
    found = [line for line in notes.splitlines() if re.match(r"Secret ", line)]
    assert found == [f"{line} the pod does not start before." for line in lines]


def test_without_a_cluster_no_secret_is_called_missing(helm: Helm) -> None:
    said = helm("install", *RELEASE, "--dry-run=client", "--set", "keys.existingSecret=none")
    assert "is missing" not in said.partition("\nNOTES:\n")[2]
