"""The real restic, built from the Go module that go.mod names: about a minute and a half, once per machine.

Debian's is older and lacks what the adapter asks for. Run `python -m tests.cluster.restic.build` to have
it built, or call `restic()`.
"""

import hashlib
import re
from pathlib import Path

from tests.cache import cached
from tests.cluster.build import build, progress

MODULE = Path(__file__).parent
PACKAGE = "github.com/restic/restic/cmd/restic"


def restic() -> Path:
    """Return the program, building it if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when the build fails; its output has been shown by then.
    """
    version = _version()
    digest = hashlib.sha256((MODULE / "go.sum").read_bytes()).hexdigest()[:12]
    return cached(f"restic-{version}-{digest}", lambda folder: _build(version, folder)) / "restic"


def _build(version: str, folder: Path) -> None:
    with progress(f"Building restic {version} (once per machine)"):
        build(PACKAGE, folder / "restic", module=MODULE, ldflags="-s -w")


def _version() -> str:
    required = re.search(
        r"^\s*github\.com/restic/restic (v\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE
    )
    if required is None:
        raise LookupError(f"{MODULE / 'go.mod'} requires no github.com/restic/restic")
    return required[1]


if __name__ == "__main__":
    print(restic())
