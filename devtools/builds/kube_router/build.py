"""The real kube-router, which makes a node heed NetworkPolicies, built from the Go module that go.mod names.

Two to four minutes, once per machine. Run `python -m devtools.builds.kube_router.build` to have it built, or
call `kube_router()`.
"""

from pathlib import Path

from devtools.builds.go import program

HERE = Path(__file__).parent
MODULE = "github.com/cloudnativelabs/kube-router/v2"


def kube_router() -> Path:
    """Return the program, building it if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when the build fails; its output has been shown by then.
    """
    return program(f"{MODULE}/cmd/kube-router", of=MODULE, module=HERE)


if __name__ == "__main__":
    print(kube_router())
