"""How much a server may answer: so many bytes at once, and all servers together so many at the same time.

libpq takes a whole row, and all rows of an answer, into memory before anybody sees one of them; a server that
sends a row of gigabytes, or rows without end, would end the process. So what the kernel has received for a
connection is looked at whenever a wait is woken, and a wait that has received too much ends.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from lethe.adapters.stores.sql.errors import AnswerTooLong

MOST_BYTES = 16 * 1024 * 1024
"""Of one answer. The largest for good reason, fifty thousand entries of a journal, is less than half."""
MOST_TOGETHER = 32 * 1024 * 1024
"""Of all answers that are larger than `WORTH_COUNTING`: what is made of them takes several times as much."""
WORTH_COUNTING = 1024 * 1024
_HELD_BYTES = 128 * 1024

T = TypeVar("T")
# `tcpi_bytes_received` of Linux' struct tcp_info; other systems don't tell it.
_TCP_INFO, _BYTES_RECEIVED = getattr(socket, "TCP_INFO", None), struct.Struct("@Q")
_OFFSET = 128


class Answer:
    """What arrives on a socket from now on, until it is closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._before = descriptor, _received(descriptor)
        self.cut_off = False

    def is_too_long(self) -> bool:
        """Tell whether it is more than may be waited for, by itself or with those of others."""
        size = _received(self._descriptor) - self._before
        if size > WORTH_COUNTING:
            _TOGETHER.note(self, size)
        return self.cut_off or size > MOST_BYTES

    def close(self) -> None:
        """Count it no more."""
        _TOGETHER.forget(self)


class _Together:
    """The large answers that arrive at the same time; too much of them ends that which is large for longest.

    So it is not the largest: a server that keeps some back for ever must not be in the way of those that
    answer at length and are done.
    """

    def __init__(self) -> None:
        self._sizes: dict[Answer, int] = {}
        self._lock = threading.Lock()

    def note(self, answer: Answer, size: int) -> None:
        with self._lock:
            if answer.cut_off:
                return
            self._sizes[answer] = size
            while sum(self._sizes.values()) > MOST_TOGETHER:
                longest = next(iter(self._sizes))
                longest.cut_off = True
                del self._sizes[longest]

    def forget(self, answer: Answer) -> None:
        with self._lock:
            self._sizes.pop(answer, None)


_TOGETHER = _Together()


def bounded(connecting: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    """Pass on psycopg's steps of a connection that is being made, each of which is `(socket, …)`.

    Raises `AnswerTooLong` for a server that says more than a greeting.
    """
    answers: dict[int, Answer] = {}
    step = next(connecting)
    try:
        while True:
            ready = yield step
            descriptor = step[0]
            if descriptor not in answers:  # one for TLS, another without it
                _let_little_arrive(descriptor)
                answers[descriptor] = Answer(descriptor)
            if answers[descriptor].is_too_long():
                connecting.close()
                raise AnswerTooLong
            step = connecting.send(ready)
    except StopIteration as ended:
        result: T = ended.value
        return result
    finally:
        for answer in answers.values():
            answer.close()


def _received(descriptor: int) -> int:
    """Return how many bytes a connection has received; 0 where the system does not tell."""
    if _TCP_INFO is None:
        return 0
    with _borrowed(descriptor) as connection:
        try:
            told = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _OFFSET + _BYTES_RECEIVED.size)
        except OSError:
            return 0
    return int(_BYTES_RECEIVED.unpack_from(told, _OFFSET)[0]) if len(told) > _OFFSET else 0


def _let_little_arrive(descriptor: int) -> None:
    """Let the kernel hold little, so that libpq, which reads what there is, comes back to be asked often."""
    with _borrowed(descriptor) as connection, suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HELD_BYTES)


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """Lend a socket that is libpq's to close, told what it is: finding that out takes longer than any use."""
    borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()
