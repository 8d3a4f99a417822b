"""A server that hangs or never comes to an end: every call into it ends, and closing waits for nobody."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Self

import pytest

from devtools.servers.children import wait_until
from devtools.servers.tarpit import Tarpit
from lethe.adapters import hosts
from lethe.adapters.stores.tryton import TrytonStore, jsonrpc
from lethe.adapters.stores.tryton.connection import CONNECT_SECONDS, READ_SECONDS, WHOLE_SECONDS
from lethe.adapters.stores.tryton.jsonrpc import JsonRpc
from lethe.ports.stores import AnswerUntrusted, StoreUnreachable

pytestmark = pytest.mark.slow  # not each test, but all of them together

BOUNDS: dict[str, Any] = {"connect_seconds": 1.0, "read_seconds": 0.5, "whole_seconds": 1.5}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LOGIN = b'{"id": 1, "result": [1, "token"]}'


def answer(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Script:
    """A server that says what it is told to, piece by piece, on each connection from the beginning."""

    def __init__(self, pieces: Callable[[], Iterator[bytes]], *, every: float = 0.05) -> None:
        self._pieces, self._every = pieces, every
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            for piece in self._pieces():
                client.sendall(piece)
                if self._ended.wait(self._every):
                    return
            self._ended.wait()


def rpc_to(url: str, **bounds: Any) -> JsonRpc:
    return JsonRpc(url, "crm", "admin", "a password", **{**BOUNDS, **bounds})


def require_soon(
    ask: Callable[[], object], *kinds: type[Exception], match: str = ".", within: float = 3
) -> None:
    began = time.monotonic()
    with pytest.raises(kinds or StoreUnreachable, match=match):
        ask()
    assert time.monotonic() - began < within


def test_the_bounds_let_a_server_be_told_unreachable_within_a_minute() -> None:
    assert CONNECT_SECONDS + READ_SECONDS <= 45
    assert WHOLE_SECONDS <= 60


@pytest.mark.parametrize("accepts", [True, False])
def test_a_server_that_says_nothing_is_left_in_time(*, accepts: bool) -> None:
    with Tarpit(accepts=accepts) as tarpit:
        for scheme in ("http", "https"):
            rpc = rpc_to(f"{scheme}://127.0.0.1:{tarpit.port}")
            require_soon(partial(rpc.call, "system.listMethods"), match="TimeoutError")
            rpc.close()


def dripping_head() -> Iterator[bytes]:
    yield from (HEAD[n : n + 1] for n in range(len(HEAD)))
    yield from itertools.repeat(b"X")


def dripping_headers() -> Iterator[bytes]:
    yield HEAD
    yield from (b"X-%d: y\r\n" % n for n in itertools.count())


def dripping_body() -> Iterator[bytes]:
    yield HEAD + b"Content-Length: 1000000\r\n\r\n"
    yield from itertools.repeat(b" ")


def dripping_chunks() -> Iterator[bytes]:
    yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    yield from itertools.repeat(b"1\r\n \r\n")


def dripping_to_the_end() -> Iterator[bytes]:
    yield HEAD + b"Connection: close\r\n\r\n"
    yield from itertools.repeat(b" ")


def patient() -> Iterator[bytes]:
    yield from itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n")


DRIPPING = [dripping_head, dripping_headers, dripping_body, dripping_chunks, dripping_to_the_end, patient]


@pytest.mark.parametrize("drips", DRIPPING, ids=lambda drips: str(drips.__name__))
def test_a_server_that_drips_is_left_after_the_whole_bound(drips: Callable[[], Iterator[bytes]]) -> None:
    with Script(drips, every=0.03) as server:
        require_soon(lambda: rpc_to(server.url).call("system.listMethods"))


def test_a_server_that_floods_is_left_after_the_bound_of_bytes() -> None:
    def flood() -> Iterator[bytes]:
        yield HEAD + b"Connection: close\r\n\r\n"
        yield from itertools.repeat(b" " * 1_000_000)

    with Script(flood, every=0) as server:
        rpc = rpc_to(server.url, whole_seconds=30)
        require_soon(lambda: rpc.call("system.listMethods"), AnswerUntrusted, match="too long", within=20)


def test_an_answer_that_ends_with_its_connection_is_read_to_the_end() -> None:
    numbers = itertools.count(1)

    def old() -> Iterator[bytes]:
        result = b'{"id": 1, "result": [1, "token"]}' if next(numbers) == 1 else b'{"id": 2, "result": [7]}'
        yield b"HTTP/1.0 200 OK\r\n\r\n"
        yield result[:9]
        yield result[9:]

    class Ending(Script):
        def _serve(self, client: socket.socket) -> None:
            with client:
                while not client.recv(65536).endswith(b"}"):
                    pass
                for piece in self._pieces():
                    client.sendall(piece)
                    time.sleep(0.05)

    with Ending(old) as server:
        assert rpc_to(server.url).call("any") == [7]


def test_closing_waits_only_for_a_moment_that_a_session_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonrpc, "CLOSE_SECONDS", 0.5)

    def logs_in() -> Iterator[bytes]:
        yield answer(LOGIN)

    with Script(logs_in) as server:
        rpc = rpc_to(server.url, read_seconds=30)
        assert rpc.user == 1
        began = time.monotonic()
        rpc.close()
        assert time.monotonic() - began < 2


def test_closing_ends_what_another_thread_waits_for() -> None:
    with Tarpit() as tarpit, ThreadPoolExecutor() as others:
        rpc = rpc_to(f"http://127.0.0.1:{tarpit.port}", read_seconds=30, whole_seconds=30)
        waits = others.submit(rpc.call, "system.listMethods")
        time.sleep(0.3)
        began = time.monotonic()
        rpc.close()
        assert time.monotonic() - began < 0.2
        require_soon(waits.result, match="closed", within=1)
        require_soon(lambda: rpc.call("system.listMethods"), match="closed", within=1)


def test_a_store_is_not_waited_for_when_it_is_closed(store: TrytonStore) -> None:
    store.observe()
    store.close()
    require_soon(store.observe, match="closed")


def test_a_host_whose_name_is_not_looked_up_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        looked_up.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    require_soon(lambda: rpc_to("https://slow.example").call("any"), match="nobody answers which address")
    looked_up.set()
    wait_until(lambda: not hosts._pending, what="the lookup to end")


def test_a_host_that_nobody_knows_is_told_as_such() -> None:
    rpc = rpc_to("https://nowhere.invalid", connect_seconds=20)
    require_soon(lambda: rpc.call("any"), match="is not known", within=25)
