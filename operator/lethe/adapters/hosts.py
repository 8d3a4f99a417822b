"""To which addresses a host leads, within a bound of time, and whether Lethe may connect to them.

The resolver of the C library waits for name servers that do not answer, one search domain after the other,
for minutes, and can't be interrupted. So it runs in a thread that nobody waits for longer than agreed; all
who look for the same name meanwhile share it.

Whoever may write a Secret or a name server's zone says where a name leads. So it is the addresses that are
held against `LETHE_STORE_HOSTS`, and these very addresses that are connected to.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from lethe.domain.hosts import AllowedHosts, is_ip_address, is_loopback

MOST_LOOKUPS = 32
"""How many names are looked up at the same time; more than that fail as if they were not answered."""

_lock = threading.Lock()
_pending: dict[tuple[str, int], Future[tuple[str, ...]]] = {}

T = TypeVar("T")


class NameUnknown(OSError):
    """No address is known for the name."""


class NameNotAnswered(OSError):
    """Nobody said in time which address the name has."""


class HostRefused(Exception):
    """Lethe does not connect there; `problem` and `remedy` are fit to print and quote nothing."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(f"{problem}; {remedy}")


NOT_ALLOWED = (
    "its host leads to an address that LETHE_STORE_HOSTS does not allow",
    "correct the host, or have who runs Lethe allow it there",
)


class Resolver:
    """Finds the addresses of hosts, those only that are allowed; `None`: all are."""

    def __init__(self, allowed: AllowedHosts | None = None) -> None:
        self._allowed = allowed

    def addresses_of(self, host: str, port: int, *, seconds: float) -> tuple[str, ...]:
        """Return the IP addresses of a host, those first that the system prefers.

        One that is not allowed refuses the host: no attempt is to be had until a name leads elsewhere.
        Raises `NameUnknown`, `HostRefused`, and `NameNotAnswered` after `seconds`.
        """
        found = (host,) if is_ip_address(host) else _looked_up(host, port, seconds)
        if self._allowed is not None and not all(self._allowed.permits(host, port, one) for one in found):
            raise HostRefused(*NOT_ALLOWED)
        return found


ANYWHERE = Resolver()


def require_encryption(addresses: Sequence[str], field: str) -> None:
    """Refuse to speak without TLS to any but this machine; `field` is what would allow it.

    Raises `HostRefused`.
    """
    if not all(map(is_loopback, addresses)):
        raise HostRefused(
            "without TLS, credentials and what is asked could be read on the way",
            f"use TLS, or set {field}: true",
        )


def resolving(connection: type[T], addresses_of: Callable[[str, int], Sequence[str]]) -> type[T]:
    """Return a class of urllib3's connections that connects to what `addresses_of` returns of host and port.

    Through a proxy it does not: who runs Lethe has set that, and it decides where it connects to.
    """
    from urllib3.exceptions import HTTPError, NewConnectionError  # noqa: PLC0415 - only who has one loads it

    class Resolving(connection):  # type: ignore[misc, valid-type]
        def _new_conn(self) -> Any:
            if self.proxy is not None:
                return super()._new_conn()
            host: str = self._dns_host  # type: ignore[has-type]
            failure: HTTPError = NewConnectionError(self, "its host has no address")
            try:
                for address in addresses_of(host, self.port):
                    self._dns_host = address  # what urllib3 would look up
                    try:
                        return super()._new_conn()
                    except HTTPError as error:
                        failure = error
            except (NameUnknown, NameNotAnswered):
                pass
            finally:
                self._dns_host = host  # a certificate is held against the name
            raise failure

    return Resolving


def _looked_up(host: str, port: int, seconds: float) -> tuple[str, ...]:
    try:
        found = _lookup(host, port).result(seconds)
    except TimeoutError:
        raise NameNotAnswered from None
    if not found:
        raise NameUnknown
    return found


def _lookup(host: str, port: int) -> Future[tuple[str, ...]]:
    """Return the lookup of a name that is under way, or begin one."""
    with _lock:
        if (host, port) in _pending:
            return _pending[host, port]
        if len(_pending) >= MOST_LOOKUPS:
            raise NameNotAnswered
        lookup = Future[tuple[str, ...]]()
        work = threading.Thread(target=_look_up, args=(host, port, lookup), name="name lookup", daemon=True)
        work.start()
        _pending[host, port] = lookup
        return lookup


def _look_up(host: str, port: int, lookup: Future[tuple[str, ...]]) -> None:
    found: tuple[str, ...] = ()
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found = tuple(dict.fromkeys(str(address[0]) for *_, address in answers))
    except (OSError, ValueError):  # ValueError: a name that no encoding of names takes
        pass
    with _lock:
        del _pending[host, port]
    lookup.set_result(found)
