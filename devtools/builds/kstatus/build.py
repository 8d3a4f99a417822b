"""What GitOps tools make of objects, by what they link: kstatus, Flux's CEL, Argo CD's Lua interpreter.

A small Go program (main.go), built once per machine. Run `python -m devtools.builds.kstatus.build` to have
it built, or call `kstatus()`.
"""

import hashlib
from pathlib import Path

from devtools.builds.go import build, progress
from devtools.cache import cached

HERE = Path(__file__).parent


def kstatus() -> Path:
    """Return the program, building it if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when the build fails; its output has been shown by then.
    """
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in ("go.sum", "main.go")))
    return cached(f"kstatus-{digest.hexdigest()[:12]}", _make) / "kstatus"


def _make(folder: Path) -> None:
    with progress("Building kstatus (once per machine)"):
        build(".", folder / "kstatus", module=HERE, ldflags="-s -w")


if __name__ == "__main__":
    print(kstatus())
