"""The real restic, built from the Go module that go.mod names: about a minute and a half, once per machine.

Debian's is older and lacks what the adapter asks for. Run `python -m devtools.builds.restic.build` to have
it built, or call `restic()`.
"""

from pathlib import Path

from devtools.builds.go import program

HERE = Path(__file__).parent
MODULE = "github.com/restic/restic"


def restic() -> Path:
    """Return the program, building it if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when the build fails; its output has been shown by then.
    """
    return program(f"{MODULE}/cmd/restic", of=MODULE, module=HERE)


if __name__ == "__main__":
    print(restic())
