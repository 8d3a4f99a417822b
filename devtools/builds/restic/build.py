"""The real restic, built from the Go module that the image's go.mod names.

About a minute and a half, once per machine. Debian's is older and lacks what the adapter asks for. Run
`python -m devtools.builds.restic.build` to have it built, or call `restic()`.
"""

from pathlib import Path

from devtools.builds.go import program

PINNED = Path(__file__).resolve().parents[3] / "image" / "restic"
"""Its go.mod and go.sum: the tests run the version that the image ships."""

MODULE = "github.com/restic/restic"


def restic() -> Path:
    """Return the program, building it if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when the build fails; its output has been shown by then.
    """
    return program(f"{MODULE}/cmd/restic", of=MODULE, module=PINNED)


if __name__ == "__main__":
    print(restic())
