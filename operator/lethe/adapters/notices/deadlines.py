"""The most time that a delivery takes, whatever the other side does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self

_AGAIN = 0.5


class Deadline:
    """Cuts connections off once their time is up; a context manager around what waits for them.

    A socket's timeout bounds each wait: a server that says a byte each few seconds never meets it.
    `sockets` returns those that are open by then, and is called in another thread.
    """

    def __init__(self, after: timedelta, sockets: Callable[[], Iterable[socket.socket | None]]) -> None:
        self._after = after.total_seconds()
        self._sockets = sockets
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="deadline of a notice", daemon=True)
        self.passed = False
        """Whether the time was up before the end."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        if self._over.wait(self._after):
            return
        self.passed = True
        while True:
            for one in self._sockets():
                # Not the TLS socket's own method, which takes the encryption from under who reads.
                with contextlib.suppress(OSError):
                    if one is not None:
                        socket.socket.shutdown(one, socket.SHUT_RDWR)
            # Again: one that is being opened, or is just getting its encryption, can't be cut off yet.
            if self._over.wait(_AGAIN):
                return
