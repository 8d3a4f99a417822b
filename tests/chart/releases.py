"""Releases in a real cluster, and who the operator is there."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path

from devtools.chart.copies import CHART
from devtools.chart.helm import NAMESPACE, Helm
from devtools.servers import ControlPlane

SECOND = str(CHART / "ci" / "second-release-values.yaml")
"""A second release brings neither CRDs nor policies, and serves the namespace hrm only."""


def install(helm: Helm, *arguments: str, chart: Path = CHART) -> str:
    """Install the release `lethe`, and return what helm says. No pods run here: none is awaited."""
    return helm("install", "lethe", str(chart), "--namespace", NAMESPACE, "--no-hooks", *arguments)


def keys_of(cluster: ControlPlane, name: str = "lethe-keys", namespace: str = NAMESPACE) -> dict[str, str]:
    """Return the content of the keys' Secret, in base64."""
    secret = json.loads(cluster.kubectl("get", "secret", name, "-n", namespace, "-o", "json"))
    return dict(secret["data"])


def mount_keys(keys: Mapping[str, str], folder: Path) -> None:
    """Lay the keys of a Secret where an operator looks for them, as a kubelet does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, encoded in keys.items():
        (folder / name).write_bytes(base64.b64decode(encoded))


def kubeconfig_of(cluster: ControlPlane, account: str, file: Path) -> Path:
    """Write and return the kubeconfig of a ServiceAccount in the release's namespace."""
    content = json.loads(cluster.kubeconfig.read_text())
    content["users"][0]["user"] = {
        "token": cluster.kubectl("create", "token", account, "-n", NAMESPACE).strip()
    }
    file.write_text(json.dumps(content))
    return file
