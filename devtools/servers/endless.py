"""Servers that speak just enough of PostgreSQL to be asked, and then never stop answering."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

from devtools.servers.children import Server


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", len(body) + 4) + body


_WELCOME = _message(b"R", struct.pack(">I", 0)) + _message(b"S", b"server_version\x0015.0\x00")
_READY = _message(b"Z", b"I")
_COLUMN = b"x\x00" + struct.pack(">IHIhih", 0, 0, 25, -1, -1, 0)
_ROWS = _message(b"T", struct.pack(">H", 1) + _COLUMN)
_NOTHING = _message(b"D", struct.pack(">Hi", 1, -1))
_MEGABYTE = bytes(1024 * 1024)


def rows_without_end(send: Callable[[bytes], object]) -> None:
    """Answer with rows that hold nothing: of all answers those that take most of who reads them."""
    send(_ROWS)
    while True:
        send(_NOTHING * 4096)


def one_row_without_end(send: Callable[[bytes], object]) -> None:
    """Answer with one row of a gigabyte."""
    send(_ROWS + b"D" + struct.pack(">IHi", 1_000_000_010, 1, 1_000_000_000))
    while True:
        send(_MEGABYTE)


def columns_without_end(send: Callable[[bytes], object]) -> None:
    """Describe as many columns as can be counted, again and again."""
    while True:
        send(_message(b"T", struct.pack(">H", 32767) + _COLUMN * 32767))


def greeting_without_end(send: Callable[[bytes], object]) -> None:
    """Tell settings, each of another name, before anything is asked."""
    number = 0
    while True:
        block = b""
        for number in range(number, number + 1000):  # noqa: B020 - it goes on
            block += _message(b"S", b"setting%d\x00" % number + b"x" * 1000 + b"\x00")
        send(block)


def notice_without_end(send: Callable[[bytes], object]) -> None:
    """Begin a notice of a gigabyte before anything is asked."""
    send(b"N" + struct.pack(">I", 1_000_000_004))
    while True:
        send(_MEGABYTE)


_GREETINGS = (greeting_without_end, notice_without_end)
ENDLESS = (rows_without_end, one_row_without_end, columns_without_end, *_GREETINGS)


class EndlessPostgres(Server):
    """A port on which everybody is let in and answered without end, as fast as they read; `port` is where."""

    def __init__(self, answer: Callable[[Callable[[bytes], object]], None] = rows_without_end) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self._listener.getsockname()[1])
        self._visitors: list[socket.socket] = []

    def start(self) -> Self:
        """Listen."""
        threading.Thread(target=self._accept, name="endless", daemon=True).start()
        return self

    def stop(self) -> None:
        """Cut everybody off."""
        for one in (self._listener, *self._visitors):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                visitor = self._listener.accept()[0]
                self._visitors.append(visitor)
                threading.Thread(target=self._serve, args=(visitor,), daemon=True).start()

    def _serve(self, visitor: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error), visitor:  # who leaves before asking anything
            while struct.unpack(">II", visitor.recv(8))[1] != 0x30000:  # asks for TLS first
                visitor.sendall(b"N")
            visitor.recv(65536)
            if self._answer in _GREETINGS:
                visitor.sendall(_WELCOME)
            else:
                visitor.sendall(_WELCOME + _READY)
                visitor.recv(65536)
            self._answer(visitor.sendall)
