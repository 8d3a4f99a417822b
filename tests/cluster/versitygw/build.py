"""The real versitygw, an S3 server over a folder, built from the Go module that go.mod names.

About two minutes, once per machine. Run `python -m tests.cluster.versitygw.build` to have it built, or
call `versitygw()`.
"""

import hashlib
import re
from pathlib import Path

from tests.cache import cached
from tests.cluster.build import build, progress

MODULE = Path(__file__).parent
PACKAGE = "github.com/versity/versitygw/cmd/versitygw"


def versitygw() -> Path:
    """Return the program, building it if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when the build fails; its output has been shown by then.
    """
    version = _version()
    digest = hashlib.sha256((MODULE / "go.sum").read_bytes()).hexdigest()[:12]
    return cached(f"versitygw-{version}-{digest}", lambda folder: _build(version, folder)) / "versitygw"


def _build(version: str, folder: Path) -> None:
    with progress(f"Building versitygw {version} (once per machine)"):
        build(PACKAGE, folder / "versitygw", module=MODULE, ldflags=f"-s -w -X main.Version={version}")


def _version() -> str:
    required = re.search(
        r"^\s*github\.com/versity/versitygw (v\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE
    )
    if required is None:
        raise LookupError(f"{MODULE / 'go.mod'} requires no github.com/versity/versitygw")
    return required[1]


if __name__ == "__main__":
    print(versitygw())
