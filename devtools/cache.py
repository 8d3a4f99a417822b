"""The folder outside the checkout that keeps what is slow to make, and how it is filled safely."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def cache() -> Path:
    """Return the project's cache folder, making it where it is missing."""
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("LETHE_CACHE") or Path(user_cache) / "lethe").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class NothingIsBuilt(RuntimeError):
    """A test of the fast lane asked for what is built: it or its fixture must ask for `built_programs`."""


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """Return the cached folder `name`; if it is missing, let `make` fill an empty one first.

    A folder appears under its name only when `make` has ended without an error. Of two who ask at once
    one makes it and the other waits. Raises `NothingIsBuilt` where LETHE_BUILDS is `never`, also when the
    folder is there: what has been built on one machine is missing on the next.
    """
    if os.environ.get("LETHE_BUILDS") == "never":
        raise NothingIsBuilt(name)
    folder = cache() / name
    if folder.is_dir():
        return folder
    with _alone(cache() / f"{name}.lock"):
        if not folder.is_dir():
            for interrupted in cache().glob(f"{name}.*/"):
                shutil.rmtree(interrupted)
            unfinished = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=cache()))
            try:
                make(unfinished)
                unfinished.chmod(0o755)
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
