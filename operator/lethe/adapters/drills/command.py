"""A command in a folder that whoever runs Lethe has mounted: a `Restorer` of `lethe.ports.drills`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from lethe.ports.drills import RestoreFailed, RestoreOrder

LOOK_SECONDS = 0.05
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]*")
_FULL = re.compile(rb"No space left on device|Disk quota exceeded|53100")
_KEPT_BYTES = 4096
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ")


class Commands:
    """The commands in a folder; `None`: whoever runs Lethe has mounted none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def restore(self, command: str, order: RestoreOrder, halted: Callable[[], bool]) -> None:
        """Run a command until it has ended. See `Restorer`.

        It gets nothing of Lethe's own environment, and nothing that it writes is kept: it may quote rows.
        """
        file = self._file_of(command)
        with tempfile.TemporaryDirectory(prefix="lethe-drill-", ignore_cleanup_errors=True) as home:
            inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
            try:
                process = subprocess.Popen(
                    [file],
                    cwd=home,
                    env={**inherited, "HOME": home, "TMPDIR": home, **order.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as refused:
                raise RestoreFailed(f"the command {command} can't be run ({refused.strerror})") from None
            said = _Listener(process.stderr)
            try:
                while process.poll() is None and not halted():
                    time.sleep(LOOK_SECONDS)
            finally:
                _end(process)
        if process.returncode != 0 and not halted():
            full = said.is_full()
            why = "the disk was full" if full else "see what it writes when it is run by hand"
            raise RestoreFailed(f"the command {command} ended with {process.returncode}: {why}", full=full)

    def _file_of(self, command: str) -> Path:
        if self._folder is None:
            raise RestoreFailed(
                "no folder with commands was given to Lethe; whoever runs it sets LETHE_DRILL_COMMANDS_DIR "
                "(the chart's drills.commands), or name a spec.restore.jobTemplate",
                refused=True,
            )
        file = self._folder / command
        if not _NAME.fullmatch(command) or not file.is_file() or not os.access(file, os.X_OK):
            raise RestoreFailed(
                f"LETHE_DRILL_COMMANDS_DIR holds no executable called {command}; see spec.restore.command",
                refused=True,
            )
        return file


class _Listener:
    """Hears a command out, so that it never waits for a reader, and remembers the end of it only."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self._stream, self._end = stream, b""
        self._thread = threading.Thread(target=self._listen, name="drill command", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        if self._stream is None:
            return
        with self._stream as stream:
            while block := os.read(stream.fileno(), 65536):
                self._end = (self._end + block)[-_KEPT_BYTES:]

    def is_full(self) -> bool:
        """Tell whether it said that a disk is full."""
        self._thread.join(1.0)
        return _FULL.search(self._end) is not None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it has begun."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nothing of it is left
    process.wait()
