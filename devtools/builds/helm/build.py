"""The real helm, built from the Go module that go.mod names: about two minutes, once per machine.

It has a module of its own, for Helm and the API server may want different versions of what they share.
Run `python -m devtools.builds.helm.build` to have it built, or call `helm()`.
"""

from pathlib import Path

from devtools.builds.go import program

HERE = Path(__file__).parent
MODULE = "helm.sh/helm/v4"


def helm() -> Path:
    """Return the program, building it if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when the build fails; its output has been shown by then.
    """
    return program(
        f"{MODULE}/cmd/helm",
        of=MODULE,
        module=Path(__file__).parent,
        version_at=f"{MODULE}/internal/version.version",
    )


if __name__ == "__main__":
    print(helm())
