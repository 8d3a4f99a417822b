"""The URL of a database, as a Secret holds it: what Lethe takes of it, and what it refuses.

Whoever may write a Secret must not get the operator to read or write files of its own (`sslkeylogfile`,
`passfile`, `service`, a socket as host), and what is mistyped must be told by its Secret, not end a process.
So parameters are an allow list, every part is looked at, and nothing but `ValueError` is raised.

No message repeats a part of the URL: a password that is not percent-encoded can be found in any of them.
The one exception is the name of a query parameter, where it looks like one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from lethe.domain.hosts import is_host, is_ip_address, port_of

DEFAULT_PORT = 5432
FORM = "postgresql://user:password@host:5432/database?sslmode=verify-full"

_SCHEME = re.compile(r"postgres(ql)?(\+[a-z0-9_]+)?", re.IGNORECASE)
_LONGEST = 64 * 1024  # tokens of clouds that stand for passwords have some thousands of characters
_MOST_HOSTS = 16
_HALF_ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MOST_SHOWN = 4
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")
_SEARCH_PATH = re.compile(r"(-c\s*|--)search_path=\S+")
_ENCODE = "percent-encode it in user and password"


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """What a URL says: `hosts` with their ports, to be tried in this order, and libpq's other `settings`.

    `connect_seconds` is `None` where the URL does not say how long a host is waited for.
    """

    hosts: tuple[tuple[str, int], ...]
    settings: Mapping[str, str] = field(repr=False)  # the password is among them
    connect_seconds: int | None = None

    @classmethod
    def parse(cls, url: str) -> DatabaseUrl:
        """Parse the URL of a PostgreSQL database, in libpq's form or in SQLAlchemy's.

        Several hosts stand as `h1:5432,h2:5432` before the path, or as `host=` in the query (once with
        commas, or once each, with ports of their own or with one `port=` for all).

        Raises `ValueError` with what is wrong and what to do.
        """
        _require_text(url)
        scheme, found, rest = url.partition("://")
        if not found or not _SCHEME.fullmatch(scheme):
            raise ValueError(f"it is not the URL of a PostgreSQL database; write {FORM}")
        authority, path, query = _parts(rest)
        credentials, at, place = authority.rpartition("@")
        if "@" in credentials:
            raise ValueError(f"it has more than one @; an @ within user or password is %40: {_ENCODE}")
        parameters = _parameters(query)
        hosts = _hosts(place, parameters.pop("host", []), parameters.pop("port", []))
        settings = {name: _checked(name, values) for name, values in parameters.items()}
        _require_harmony(settings)
        user, colon, password = credentials.partition(":")
        if at and not user:
            raise ValueError(f"no user stands before the @; write {FORM}")
        known = {
            "user": _decoded(user, "the user"),
            "password": _decoded(password, "the password") if colon else "",
            "dbname": _decoded(path, "the database's name"),
        }
        seconds = settings.pop("connect_timeout", None)
        return cls(
            tuple(hosts),
            {name: value for name, value in known.items() if value} | settings,
            int(seconds) if seconds is not None else None,
        )


def _require_text(url: str) -> None:
    if len(url) > _LONGEST:
        raise ValueError(f"it is longer than {_LONGEST} characters, which no URL is; write {FORM}")
    if any(ord(one) < 0x20 or ord(one) == 0x7F for one in url):
        raise ValueError(f"it holds a line break, a zero byte or another control character; write {FORM}")
    if any(0xD800 <= ord(one) <= 0xDFFF for one in url):
        raise ValueError(f"it holds what is no character of any text; write {FORM}")


def _parts(rest: str) -> tuple[str, str, str]:
    """Return authority, path and query of what follows the scheme."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    if "@" in tail or "#" in tail:
        raise ValueError(
            "an @ or a # stands behind the host; a / is %2F, a ? is %3F, a # is %23 and an @ is %40:"
            f" {_ENCODE}"
        )
    path, _, query = tail.partition("?")
    return authority, path.removeprefix("/"), query


def _parameters(query: str) -> dict[str, list[str]]:
    """Return the query's parameters, each of which is allowed."""
    parameters: dict[str, list[str]] = {}
    pairs = [pair.partition("=") for pair in query.split("&")] if query else []
    _require_allowed([name for name, _, _ in pairs])
    for name, equals, value in pairs:
        if not equals or not value:
            raise ValueError(f"parameter {name} has no value; give it one, or remove it")
        # As SQLAlchemy reads it; a + itself is %2B.
        parameters.setdefault(name, []).append(_decoded(value.replace("+", " "), f"parameter {name}"))
    return parameters


def _require_allowed(names: Sequence[str]) -> None:
    """Refuse what is not on the list, all of it by name: ORMs have parameters that libpq does not know."""
    strange = list(dict.fromkeys(name for name in names if name not in PARAMETERS))
    if not strange:
        return
    shown = [name for name in strange if _PARAMETER.fullmatch(name)][:_MOST_SHOWN]
    if not shown:
        what, verb, pronoun = "a parameter of the query", "is", "it"
    elif len(strange) == 1:
        what, verb, pronoun = f"parameter {shown[0]}", "is", "it"
    else:
        others = " and others" if len(shown) < len(strange) else ""
        what, verb, pronoun = f"parameters {', '.join(shown)}{others}", "are", "them"
    instead = "; for schema write options=-csearch_path%3D…" if "schema" in shown else ""
    known = ", ".join(sorted(PARAMETERS))
    raise ValueError(f"{what} {verb} not allowed; remove {pronoun}{instead} (allowed: {known})")


def _hosts(place: str, named: Sequence[str], ports: Sequence[str]) -> list[tuple[str, int]]:
    """Return the hosts and their ports, from before the path or from the query."""
    if place and named:
        raise ValueError("hosts stand both before the path and in the query; leave them in one place")
    texts = [text for one in named for text in one.split(",")] if named else place.split(",")
    if len(texts) > _MOST_HOSTS:
        raise ValueError(f"it names more than {_MOST_HOSTS} hosts; name those that can be the primary")
    hosts = [_host(text) for text in texts]
    listed = [text for one in ports for text in one.split(",")]
    if not listed:
        return [(host, port or DEFAULT_PORT) for host, port in hosts]
    if any(port for _, port in hosts):
        raise ValueError("ports stand both behind the hosts and in port=; leave them in one place")
    if len(listed) not in {1, len(hosts)}:
        raise ValueError("port= names neither one port nor one for each host; correct it")
    return [(host, _port(text)) for (host, _), text in zip(hosts, listed * len(hosts), strict=False)]


def _host(text: str) -> tuple[str, int | None]:
    """Return host and port; `None` where no port stands there."""
    if not text:
        raise ValueError(f"a host is missing; write {FORM}")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        host = _decoded(host, "a host")  # a zone's %25
        if not bracket or not is_ip_address(host) or (rest and not rest.startswith(":")):
            raise ValueError("what stands in brackets is no IPv6 address; write [2001:db8::7]:5432")
        return host, _port(rest[1:]) if rest else None
    if text.count(":") > 1:
        raise ValueError("an IPv6 address needs brackets; write [2001:db8::7]:5432")
    host, colon, port = text.partition(":")
    if not is_host(host):
        raise ValueError(
            "a host is neither a name (in ASCII, as xn--…) nor an address; sockets of this machine are not"
            f" allowed; write {FORM}"
        )
    return host, _port(port) if colon else None


def _port(text: str) -> int:
    port = port_of(text)
    if port is None:
        raise ValueError(
            f"a port is not a number from 1 to 65535; write {FORM}; where it is a part of the password,"
            f" {_ENCODE}"
        )
    return port


def _decoded(text: str, what: str) -> str:
    """Return a part without its percent-encoding."""
    if _HALF_ENCODED.search(text):
        raise ValueError(f"a % in {what} is not followed by two hexadecimal digits; write %25 for a % itself")
    decoded: str | None = None
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        pass  # its text quotes what could not be decoded: not even as the context of what is raised
    if decoded is None:
        raise ValueError(f"{what} is not UTF-8 when it is percent-decoded; correct it")
    if "\0" in decoded:
        raise ValueError(f"{what} holds a zero byte; correct it")
    return decoded


def _one_of(*choices: str) -> Callable[[str], str | None]:
    said = f"must be one of {', '.join(choices)}"
    return lambda value: None if value in choices else said


def _root_certificate(value: str) -> str | None:
    # That it is a file is looked at when it is used: a volume may be mounted later.
    return None if value == "system" or value.startswith("/") else "must be system or the path of a file"


def _seconds(value: str) -> str | None:
    digits = value.isascii() and value.isdecimal() and len(value) < 10
    return None if digits else "must be a whole number of seconds"


def _search_path(value: str) -> str | None:
    return None if _SEARCH_PATH.fullmatch(value) else "may only be -c search_path=…"


PARAMETERS: Mapping[str, Callable[[str], str | None]] = {
    "host": lambda _: None,  # looked at with those before the path
    "port": lambda _: None,
    "sslmode": _one_of("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslrootcert": _root_certificate,
    "ssl_min_protocol_version": _one_of("TLSv1.2", "TLSv1.3"),
    "channel_binding": _one_of("disable", "prefer", "require"),
    "target_session_attrs": _one_of("any", "read-write", "primary"),
    "connect_timeout": _seconds,
    "options": _search_path,
}
"""What each parameter that is allowed says to a value: `None`, or what it must be."""


def _checked(name: str, values: Sequence[str]) -> str:
    if len(values) > 1:
        raise ValueError(f"parameter {name} stands there {len(values)} times; leave one of them")
    problem = PARAMETERS[name](values[0])
    if problem is not None:
        raise ValueError(f"parameter {name} {problem}; correct it")
    return values[0]


def _require_harmony(settings: Mapping[str, str]) -> None:
    """Refuse what libpq would refuse later, in words that tell less."""
    if settings.get("sslrootcert") == "system" and settings.get("sslmode", "verify-full") != "verify-full":
        raise ValueError("sslrootcert=system needs sslmode=verify-full; correct one of them")
