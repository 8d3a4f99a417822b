"""What a node needs beside the API server, built from the Go modules that go.mod names.

It has a module of its own: the kubelet wants more than the API server, and to change this must not have
everybody build that anew. A test keeps both at one version. Cold, on two cores, it takes about three minutes,
once per machine. Run `python -m devtools.node.build` to have it done, or call `node_binaries()`.
"""

import hashlib
import sys
from pathlib import Path

from devtools.builds.go import build_kubernetes, kubernetes_version
from devtools.cache import cached

MODULE = Path(__file__).parent
PROGRAMS = ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")


def node_binaries() -> Path:
    """Return the folder that holds the programs, building them if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when a build fails; its output has been shown by then.
    """
    digest = hashlib.sha256((MODULE / "go.sum").read_bytes()).hexdigest()[:12]
    packages = {name: f"k8s.io/kubernetes/cmd/{name}" for name in PROGRAMS}
    return cached(
        f"node-{kubernetes_version(MODULE)}-{digest}",
        lambda folder: build_kubernetes(packages, folder, module=MODULE),
    )


if __name__ == "__main__":
    sys.stdout.write(f"{node_binaries()}\n")
