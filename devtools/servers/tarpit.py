"""Servers that are there and never answer."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Self

from devtools.servers.children import Server


class Tarpit(Server):
    """A port on which every connection is accepted, read from, and never answered; `port` is where.

    `accepts=False`: nobody accepts, and the queue of those who want to be accepted is full: packets that ask
    for a connection are dropped, as by a wall.
    """

    def __init__(self, *, accepts: bool = True) -> None:
        self._accepts = accepts
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._waiting: list[socket.socket] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._swallow, name="tarpit", daemon=True)

    def start(self) -> Self:
        """Listen."""
        if self._accepts:
            self._listener.listen(1024)
            self._thread.start()
            return self
        self._listener.listen(0)
        while self._is_connected():
            pass
        return self

    def stop(self) -> None:
        """Cut everybody off."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        for one in (*self._waiting, self._listener):
            one.close()

    def _is_connected(self) -> bool:
        """Take one more place in the queue; tell whether there was one."""
        waiting = socket.socket()
        self._waiting.append(waiting)
        waiting.settimeout(0.3)
        try:
            waiting.connect(("127.0.0.1", self.port))
        except TimeoutError:
            return False
        return True

    def _swallow(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stopped.is_set():
                for key, _ in selector.select(timeout=0.1):
                    if key.fileobj is self._listener:
                        selector.register(self._listener.accept()[0], selectors.EVENT_READ)
                    elif isinstance(key.fileobj, socket.socket):
                        self._read(selector, key.fileobj)
            for key in list(selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()

    @staticmethod
    def _read(selector: selectors.BaseSelector, visitor: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if visitor.recv(65536):
                return
        selector.unregister(visitor)
        visitor.close()
