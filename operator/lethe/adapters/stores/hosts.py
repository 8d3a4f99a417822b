"""Names of servers: whether a text is one, and to which addresses it leads, within a bound of time.

The resolver of the C library waits for name servers that do not answer, one search domain after the other,
for minutes, and can't be interrupted. So it runs in a thread that nobody waits for longer than agreed; all
who look for the same name meanwhile share it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from concurrent.futures import Future

MOST_LOOKUPS = 32
"""How many names are looked up at the same time; more than that fail as if they were not answered."""

_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_LONGEST_NAME = 254  # with the dot at its end
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")

_lock = threading.Lock()
_pending: dict[tuple[str, int], Future[tuple[str, ...]]] = {}


class NameUnknown(Exception):
    """No address is known for the name."""


class NameNotAnswered(Exception):
    """Nobody said in time which address the name has."""


def is_host(text: str) -> bool:
    """Tell whether a text is the name of a host or an IP address; an IPv6 one has no brackets here."""
    return is_ip_address(text) or (len(text) <= _LONGEST_NAME and _NAME.fullmatch(text) is not None)


def is_ip_address(text: str) -> bool:
    """Tell whether a text is an IP address, which needs no looking up."""
    if _ADDRESS.fullmatch(text) is None:
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def port_of(text: str) -> int | None:
    """Return the port that a text is; `None`: it is none."""
    # No more digits than a port has: int() refuses thousands of them in words of its own.
    if not text.isascii() or not text.isdecimal() or len(text) > 5:
        return None
    port = int(text)
    return port if 1 <= port <= 65535 else None


def addresses_of(host: str, port: int, *, seconds: float) -> tuple[str, ...]:
    """Return the IP addresses of a host, those first that the system prefers.

    Raises `NameUnknown`, and `NameNotAnswered` after `seconds`.
    """
    if is_ip_address(host):
        return (host,)
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
