"""The real etcd, kube-apiserver and kubectl, built from the Go modules that go.mod names.

Cold, on two cores, that takes about seven minutes, once per machine; it needs Go's module proxy and
nothing else. Run `python -m devtools.cluster.build` to have it done, or call `binaries()`.
"""

import hashlib
from pathlib import Path

from devtools.builds.go import build_kubernetes, kubernetes_version
from devtools.cache import cached

MODULE = Path(__file__).parent
PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}


def binaries() -> Path:
    """Return the folder that holds the programs, building them if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when a build fails; its output has been shown by then.
    """
    digest = hashlib.sha256((MODULE / "go.sum").read_bytes()).hexdigest()[:12]
    return cached(
        f"cluster-{kubernetes_version(MODULE)}-{digest}",
        lambda folder: build_kubernetes(PROGRAMS, folder, module=MODULE),
    )


if __name__ == "__main__":
    print(binaries())
