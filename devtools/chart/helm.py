"""The real helm as the tests call it: with neither plugins nor settings of the person who runs them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from devtools.builds.helm.build import helm
from devtools.chart.copies import CHART
from devtools.servers.children import run

NAMESPACE = "lethe-system"
Manifest = dict[str, Any]


class Helm:
    """helm, its files in `home`; `kubeconfig` may be missing where no cluster is asked."""

    def __init__(self, home: Path, kubeconfig: Path | None = None) -> None:
        self._program = helm()
        self._environment = {
            "HOME": str(home),
            "KUBECONFIG": str(kubeconfig or home / "no-kubeconfig"),
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
        }

    def __call__(self, *arguments: str) -> str:
        """Return what helm printed; raises `CommandFailed` with what it complained of."""
        return run([self._program, *arguments], env=self._environment)

    def rendered(self, *arguments: str) -> list[Manifest]:
        """Return the objects of the chart, rendered without a cluster."""
        text = self("template", "lethe", str(CHART), "--namespace", NAMESPACE, *arguments)
        return [document for document in yaml.safe_load_all(text) if document]


def of_kind(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    """Return the objects of a kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def the(manifests: Sequence[Manifest], kind: str) -> Manifest:
    """Return the only object of a kind."""
    (only,) = of_kind(manifests, kind)
    return only
