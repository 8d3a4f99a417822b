"""What stands between two who talk, and can stop passing on what they say."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
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
        self._pause = 0.0
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

    def drip(self, pause: float) -> None:
        """Pass on answers a byte at a time from now on, with a pause before each; 0: at once again."""
        self._pause = pause

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += (near, far)
                for ends in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                self._passing.wait()
                while answers and block and self._pause:
                    time.sleep(self._pause)
                    target.sendall(block[:1])
                    block = block[1:]
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)
