"""One HTTP connection to Tryton, on which every exchange ends, whatever the server does.

A server that is frozen accepts connections and says nothing; one that means ill sends a byte now and then,
or never stops. So an exchange has three bounds: for connecting (names, TCP and TLS together), for a silence,
and for all of it, however much comes. None of them is the socket's own: that one begins anew with each byte.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lethe.adapters.hosts import (
    ANYWHERE,
    HostRefused,
    NameNotAnswered,
    NameUnknown,
    Resolver,
    require_encryption,
)
from lethe.domain.hosts import is_host
from lethe.ports.stores import AnswerUntrusted, StoreUnreachable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
WHOLE_SECONDS = 60.0
MOST_BYTES = 16 * 1024 * 1024
_ATTEMPT_SECONDS = 5.0
_LOOK_SECONDS = 0.25
"""How soon it is noticed that another thread has closed the connection."""
_READ_AT_ONCE = 64 * 1024

URL = "correct spec.tryton.url"
_LIKE = f"{URL}: https://tryton.example.org"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Tryton is: `path` is what its databases' names are appended to, with a slash at its end."""

    encrypted: bool
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Place:
        """Parse the URL of a server. Raises `ValueError` with what is wrong and what to do."""
        # Before it is parsed: urlsplit overlooks line breaks and tabs.
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError(
                f"spec.tryton.url is not printable ASCII; write a host as xn--… and a blank as %20; {_LIKE}"
            )
        host, port = None, None
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts = None  # its text quotes the URL
        if parts is None or parts.scheme not in ("http", "https") or not host or not is_host(host):
            raise ValueError(f"spec.tryton.url is not an http or https URL with a host and a port; {_LIKE}")
        if port == 0 or "@" in url or parts.query or parts.fragment:
            raise ValueError(f"spec.tryton.url has credentials, a query, a fragment or the port 0; {_LIKE}")
        encrypted = parts.scheme == "https"
        return cls(encrypted, host, port or (443 if encrypted else 80), f"{parts.path.rstrip('/')}/")


class _Clock:
    """When an exchange must have ended, and when it is silent for too long."""

    def __init__(self, silence: float, whole: float, closed: threading.Event | None) -> None:
        self._silence = silence
        self._ends_at = time.monotonic() + whole
        self._closed = closed
        self.note_answer()

    def note_answer(self) -> None:
        """Begin a new silence."""
        self._silent_until = time.monotonic() + self._silence

    def left(self) -> float:
        """Return the seconds that may be waited still. Raises `TimeoutError`, `StoreUnreachable`."""
        if self._closed is not None and self._closed.is_set():
            raise StoreUnreachable("the store was closed meanwhile", "it is tried again")
        left = min(self._ends_at, self._silent_until) - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class Connection:
    """A connection to one server, opened when it is needed and again where the server has closed it.

    Redirects and proxies are not followed, certificates are verified. Used by one thread at a time, but
    `close` may be called by any.
    """

    def __init__(
        self,
        place: Place,
        resolver: Resolver = ANYWHERE,
        *,
        allow_plaintext: bool = False,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        whole_seconds: float = WHOLE_SECONDS,
    ) -> None:
        self._place, self._resolver, self._allow_plaintext = place, resolver, allow_plaintext
        self._tls = ssl.create_default_context() if place.encrypted else None
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._whole_seconds = whole_seconds
        self._http: http.client.HTTPConnection | None = None
        self._closed = threading.Event()
        self._in_use = threading.Lock()

    def post(self, path: str, question: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Return status and body of the answer. Raises `StoreUnreachable`, `AnswerUntrusted`."""
        with self._in_use:
            clock = _Clock(self._read_seconds, self._whole_seconds, self._closed)
            return self._post(path, question, headers, clock)

    def close(self, farewell: tuple[str, bytes, Mapping[str, str]] | None = None, *, seconds: float) -> None:
        """Send a farewell, if the connection is open and idle, and close it, within so many seconds.

        An exchange that another thread waits for ends soon, as unreachable, and closes the connection.
        """
        self._closed.set()
        if not self._in_use.acquire(blocking=False):
            return
        try:
            if farewell is not None and self._http is not None:
                self._send(*farewell, _Clock(seconds, seconds, None))
        except (OSError, http.client.HTTPException, AnswerUntrusted):
            pass  # the session times out on its own
        finally:
            self._hang_up()
            self._in_use.release()

    def _post(
        self, path: str, question: bytes, headers: Mapping[str, str], clock: _Clock
    ) -> tuple[int, bytes]:
        reused = self._http is not None
        try:
            return self._send(path, question, headers, clock)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as gone:
            if not reused:
                raise StoreUnreachable(f"Tryton does not answer ({type(gone).__name__})") from None
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(error) from None
        # A server closes idle connections whenever it likes; every call of this adapter may be repeated.
        try:
            return self._send(path, question, headers, clock)
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(error) from None

    def _send(
        self, path: str, question: bytes, headers: Mapping[str, str], clock: _Clock
    ) -> tuple[int, bytes]:
        """Exchange a question for an answer; the connection is closed unless another can follow."""
        try:
            if self._http is None:
                self._http = self._connect(clock)
            self._http.sock.settimeout(clock.left())
            self._http.response_class = partial(_response, clock)  # type: ignore[assignment]
            self._http.request("POST", self._place.path + path, question, dict(headers))
            answer = self._http.getresponse()
            body = bytearray()
            while piece := answer.read1(_READ_AT_ONCE):
                body += piece
                if len(body) > MOST_BYTES:
                    raise AnswerUntrusted("the answer is too long")
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
            answer.close()  # by `read1` alone, http.client does not see that it was read to its end
        except BaseException:
            self._hang_up()
            raise
        if answer.will_close:
            self._hang_up()
        return answer.status, bytes(body)

    def _connect(self, clock: _Clock) -> http.client.HTTPConnection:
        """Return a connection to the first address that lets us in."""
        host, port = self._place.host, self._place.port
        until = time.monotonic() + min(self._connect_seconds, clock.left())
        plain = self._reached(until)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.settimeout(max(0.001, until - time.monotonic()))
            encrypted = self._tls.wrap_socket(plain, server_hostname=host) if self._tls is not None else None
        except BaseException:
            plain.close()
            raise
        kind = http.client.HTTPConnection if encrypted is None else http.client.HTTPSConnection
        connection = kind(host, port)
        connection.auto_open = 0  # it would connect anew without any of these bounds
        connection.sock = plain if encrypted is None else encrypted
        return connection

    def _reached(self, until: float) -> socket.socket:
        failure: OSError = TimeoutError()
        try:
            addresses = self._resolver.addresses_of(
                self._place.host, self._place.port, seconds=until - time.monotonic()
            )
            if not (self._tls or self._allow_plaintext):
                require_encryption(addresses, "spec.tryton.allowPlaintext")
        except HostRefused as refused:
            raise StoreUnreachable(
                f"spec.tryton.url can't be used: {refused.problem}", refused.remedy
            ) from None
        except NameUnknown:
            raise StoreUnreachable("the name of Tryton's host is not known", URL) from None
        except NameNotAnswered:
            raise StoreUnreachable(
                "nobody answers which address Tryton's host has",
                "look at the cluster's DNS, and at the network policy between Lethe and it",
            ) from None
        for address in addresses:
            left = until - time.monotonic()
            if left <= 0 or self._closed.is_set():
                break
            try:
                return socket.create_connection((address, self._place.port), min(left, _ATTEMPT_SECONDS))
            except OSError as error:
                failure = error
        raise failure

    def _hang_up(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None


def _unreachable(error: Exception) -> StoreUnreachable:
    return StoreUnreachable(f"Tryton can't be reached ({type(error).__name__})")


def _response(
    clock: _Clock, connection: socket.socket, *args: object, **options: object
) -> http.client.HTTPResponse:
    """Return the response that is read from a socket by a clock; called as http.client calls its class."""
    return http.client.HTTPResponse(_Readable(connection, clock), *args, **options)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class _Readable:
    """A socket as far as a response needs it."""

    connection: socket.socket
    clock: _Clock

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Received(self.connection, self.clock))


class _Received(io.RawIOBase):
    """What a socket receives, as long as a clock lets it."""

    def __init__(self, connection: socket.socket, clock: _Clock) -> None:
        self._connection, self._clock = connection, clock
        # http.client closes the socket of an answer that is its last while it is read: not before this one.
        self._keeps_open = connection.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while True:
            self._connection.settimeout(min(self._clock.left(), _LOOK_SECONDS))
            try:
                received = self._connection.recv_into(buffer)
            except TimeoutError:
                continue
            self._clock.note_answer()
            return received

    def close(self) -> None:
        self._keeps_open.close()
        super().close()
