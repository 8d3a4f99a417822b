"""The real helm, built from the Go module that go.mod names: about two minutes, once per machine.

It has a module of its own, for Helm and the API server may want different versions of what they share.
Run `python -m tests.cluster.helm.build` to have it built, or call `helm()`.
"""

import hashlib
import re
from pathlib import Path

from tests.cache import cached
from tests.cluster.build import build, progress

MODULE = Path(__file__).parent
PACKAGE = "helm.sh/helm/v4/cmd/helm"


def helm() -> Path:
    """Return the program, building it if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when the build fails; its output has been shown by then.
    """
    version = _version()
    digest = hashlib.sha256((MODULE / "go.sum").read_bytes()).hexdigest()[:12]
    return cached(f"helm-{version}-{digest}", lambda folder: _build(version, folder)) / "helm"


def _build(version: str, folder: Path) -> None:
    with progress(f"Building helm {version} (once per machine)"):
        stamp = f"-s -w -X helm.sh/helm/v4/internal/version.version={version}"
        build(PACKAGE, folder / "helm", module=MODULE, ldflags=stamp)


def _version() -> str:
    required = re.search(r"^\s*helm\.sh/helm/v4 (v\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if required is None:
        raise LookupError(f"{MODULE / 'go.mod'} requires no helm.sh/helm/v4")
    return required[1]


if __name__ == "__main__":
    print(helm())
