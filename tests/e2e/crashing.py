"""An operator that kills itself with SIGKILL right before or right after its Nth side effect.

`python -m tests.e2e.crashing N|NAME COUNT_FILE`: side effects are each append to the ledger, each writing
call of a store, each call of a backend, each letter, and each write to the API server; each has a moment
before and one after, numbered from 1 in the order in which they come about in this process. N of 0 never
kills; COUNT_FILE then says how many there were. The Nth is not always the same one, since effects run side
by side; who wants a certain kind of moment gives its name instead (`after send`).
"""

import asyncio
import inspect
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lethe.bootstrap import run_operator
from lethe.logs import set_up_logs
from lethe.settings import read_settings

LEDGER = {"append", "take_over"}
STORE = {"erase", "tick", "advance_sequences"}
CLUSTER = {"create_secret", "delete_secret", "write_status", "create", "delete"}
BACKEND = {"list", "delete", "gone"}
CHANNEL = {"send"}


Fatal = int | str
"""The number of the moment to die at (0: never), or the name of a kind of which the first one is meant."""


class Moments:
    """Counts moments, and kills the process at the one that was asked for."""

    def __init__(self, fatal: Fatal, count_file: Path) -> None:
        self._fatal, self._file, self._count = fatal, count_file, 0
        self._lock = threading.Lock()

    def pass_by(self, what: str) -> None:
        """Count a moment; the fatal one is the last thing that this process does."""
        with self._lock:
            self._count += 1
            with self._file.open("a") as log:
                log.write(f"{self._count} {what}\n")
            if self._fatal in (self._count, what):
                os.kill(os.getpid(), signal.SIGKILL)


class Fragile:
    """Stands before an adapter, and lets a moment pass before and after each of its side effects."""

    def __init__(self, adapter: Any, effects: set[str], moments: Moments) -> None:
        self._adapter, self._effects, self._moments = adapter, effects, moments

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the adapter, guarded where it has side effects."""
        found = getattr(self._adapter, name)
        if name not in self._effects:
            return found
        return (
            self._asynchronous(name, found)
            if inspect.iscoroutinefunction(found)
            else self._plain(name, found)
        )

    def _plain(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self._moments.pass_by(f"before {name}")
            result = call(*args, **kwargs)
            self._moments.pass_by(f"after {name}")
            return result

        return guarded

    def _asynchronous(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            self._moments.pass_by(f"before {name}")
            result = await call(*args, **kwargs)
            self._moments.pass_by(f"after {name}")
            return result

        return guarded


def run_forked(environment: Mapping[str, str], fatal: Fatal, count_file: Path, log: Path) -> None:
    """Run the fragile operator in a process that was forked from one that has imported everything."""
    # Nobody else ends it, should the tests be killed.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    sys.exit(main(fatal, count_file))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)


def main(fatal: Fatal, count_file: Path) -> int:
    """Run the fragile operator."""
    settings = read_settings(os.environ)
    set_up_logs(settings.log_level, settings.log_format)
    moments = Moments(fatal, count_file)
    return asyncio.run(
        run_operator(
            settings,
            wrap_ledger=lambda ledger: Fragile(ledger, LEDGER, moments),
            wrap_cluster=lambda cluster: Fragile(cluster, CLUSTER, moments),
            wrap_store=lambda store: Fragile(store, STORE, moments),
            wrap_backend=lambda backend: Fragile(backend, BACKEND, moments),
            wrap_channel=lambda channel: Fragile(channel, CHANNEL, moments),
        )
    )


if __name__ == "__main__":
    moment = sys.argv[1]
    sys.exit(main(int(moment) if moment.isdecimal() else moment, Path(sys.argv[2])))
