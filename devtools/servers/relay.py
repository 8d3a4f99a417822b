"""What stands between two who talk, and can stop passing on what they say."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

from devtools.servers.children import Server


class Relay(Server):
    """A port that leads to another one, until it is held: then everybody is let in and nothing passes."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self._listener.getsockname()[1])
        self._passing = threading.Event()
        self._passing.set()
        self._ends: list[socket.socket] = []

    def start(self) -> Self:
        """Listen."""
        threading.Thread(target=self._accept, name="relay", daemon=True).start()
        return self

    def stop(self) -> None:
        """Cut everybody off."""
        self._passing.set()
        for one in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def hold(self) -> None:
        """Pass nothing on from now on."""
        self._passing.clear()

    def let_go(self) -> None:
        """Pass on what has waited, and what comes."""
        self._passing.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += (near, far)
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                self._passing.wait()
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)
