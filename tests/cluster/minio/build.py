"""The real MinIO, an S3 server with every kind of lock, built from the Go module that go.mod names.

About four minutes, once per machine; only the tests of the second stage need it. Run
`python -m tests.cluster.minio.build` to have it built, or call `minio()`.
"""

import hashlib
import re
from pathlib import Path

from tests.cache import cached
from tests.cluster.build import build, progress

MODULE = Path(__file__).parent
PACKAGE = "github.com/minio/minio"


def minio() -> Path:
    """Return the program, building it if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when the build fails; its output has been shown by then.
    """
    version = _version()
    digest = hashlib.sha256((MODULE / "go.sum").read_bytes()).hexdigest()[:12]
    return cached(f"minio-{version}-{digest}", lambda folder: _build(version, folder)) / "minio"


def _build(version: str, folder: Path) -> None:
    with progress(f"Building minio {version} (once per machine)"):
        build(PACKAGE, folder / "minio", module=MODULE, ldflags="-s -w")


def _version() -> str:
    # MinIO has no tags that Go knows: its versions are dates and commits.
    required = re.search(r"^\s*github\.com/minio/minio (v\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if required is None:
        raise LookupError(f"{MODULE / 'go.mod'} requires no github.com/minio/minio")
    return required[1]


if __name__ == "__main__":
    print(minio())
