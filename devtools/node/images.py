"""Images built without a daemon: buildah, in a storage of its own in the project's cache.

Where no registry is at hand, the base that the Dockerfile asks for is made of Debian packages.
"""

import contextlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

from devtools.builds.go import build as build_go
from devtools.builds.go import progress
from devtools.cache import cache, cached
from devtools.servers.children import CommandFailed, run

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
LAYERS_KEPT = 60
"""How many unnamed layers stay: each line of the Dockerfile leaves one, and two builds are worth keeping."""

PAUSE = "localhost/lethe-node/pause:1"

BASE = """
FROM scratch
ADD rootfs.tar /
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY pip-*.whl /tmp/
ENV PIP_ROOT_USER_ACTION=ignore
RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED \\
 && PYTHONPATH=$(echo /tmp/pip-*.whl) python3 -m pip install --no-index /tmp/pip-*.whl \\
 && ln -s /usr/bin/python3 /usr/local/bin/python && rm /tmp/pip-*.whl
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["python3"]
"""
PAUSE_IMAGE = 'FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n'


def python_image() -> str:
    """Return the base to build on: what `PYTHON_IMAGE` says, else one like python:slim, made here."""
    return os.environ.get("PYTHON_IMAGE") or _base_of_debian_packages()


def operator_image(tag: str) -> str:
    """Build the Dockerfile as `tag`, which is returned; what has not changed comes from earlier layers."""
    base = python_image()
    with progress(f"Building the image {tag} on {base}"):
        _build(tag, CHECKOUT, "--layers", "--build-arg", f"PYTHON_IMAGE={base}")
    _forget_old_layers()
    return tag


def _forget_old_layers() -> None:
    """Remove what builds before the last two left for the next ones: half a gigabyte for each."""
    unnamed = [one for one in json.loads(_buildah("images", "--all", "--json")) if not one["names"]]
    unnamed.sort(key=lambda one: one["created"], reverse=True)
    for one in unnamed[LAYERS_KEPT:]:
        with contextlib.suppress(CommandFailed):  # one that a newer one stands on stays
            _buildah("rmi", one["id"])


def pause_image() -> str:
    """Build what holds a pod's namespaces open: a program that waits to be told to end."""
    if not _known(PAUSE):
        folder = cached("node-pause", lambda folder: build_go("./pause", folder / "pause", module=HERE))
        context = _empty(cache() / "node-pause-context")
        shutil.copy2(folder / "pause", context / "pause")
        (context / "Dockerfile").write_text(PAUSE_IMAGE)
        _build(PAUSE, context)
    return PAUSE


def export(tag: str, file: Path) -> Path:
    """Write an image into a file that `ctr images import` and `kind load image-archive` read."""
    file.unlink(missing_ok=True)
    _buildah("push", "--quiet", tag, f"docker-archive:{file}:{tag}")
    return file


def megabytes(tag: str) -> float:
    """Return how large an image's layers are, unpacked; buildah tells three digits."""
    said = json.loads(_buildah("images", "--json", tag))[0]["size"]
    number, unit = said.split()
    return float(number) * {"KB": 0.001, "MB": 1, "GB": 1000}[unit]


def _base_of_debian_packages() -> str:
    release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if release is None:
        raise LookupError("/etc/os-release names no Debian release to make a base image of: set PYTHON_IMAGE")
    tag = f"localhost/lethe-node/python:{release[1]}-slim"
    if _known(tag):
        return tag
    context = _empty(cache() / "node-base-context")
    with progress(f"Making a base image of Debian {release[1]}'s packages (once per machine)"):
        run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,ca-certificates"),
                *(release[1], context / "rootfs.tar", _mirror()),
            ]
        )
        run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", context, "pip"])
        # Whoever this machine trusts when it fetches packages, the build trusts; what is made of it doesn't.
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", context)
        (context / "Dockerfile").write_text(BASE)
        _build(tag, context)
    shutil.rmtree(context)
    return tag


def _mirror() -> str:
    for file in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        text = file.read_text() if file.exists() else ""
        for found in re.finditer(r"^(?:URIs:|deb) *(https?://\S+)", text, re.MULTILINE):
            return found[1]
    raise LookupError("/etc/apt names no mirror to make a base image from: set PYTHON_IMAGE")


def _build(tag: str, context: Path, *options: str) -> None:
    here = ("--quiet", "--isolation=chroot", "--network=host")
    _buildah("build", *here, f"--tag={tag}", *options, str(context))


def _known(tag: str) -> bool:
    return tag in _buildah("images", "--format", "{{.Name}}:{{.Tag}}").split()


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _buildah(*arguments: str) -> str:
    storage = cache() / "buildah"
    return run(["buildah", f"--root={storage / 'root'}", f"--runroot={storage / 'run'}", *arguments])


if __name__ == "__main__":
    sys.stdout.write(f"{operator_image(sys.argv[1])}\n")
