"""Hosts as text: whether it is the name of one, and to which of them Lethe may connect."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_LONGEST_NAME = 254  # with the dot at its end
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits
# What clouds tell every machine about itself, credentials included, at addresses that are not link-local.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)


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


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, by its name or address: only there nobody else can listen."""
    return host == "localhost" or (is_ip_address(host) and _plain(host).is_loopback)


def port_of(text: str) -> int | None:
    """Return the port that a text is; `None`: it is none."""
    # No more digits than a port has: int() refuses thousands of them in words of its own.
    if not text.isascii() or not text.isdecimal() or len(text) > 5:
        return None
    port = int(text)
    return port if 1 <= port <= 65535 else None


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """To which hosts Lethe may connect because of what a manifest, Secret or setting says.

    `names` are exact, or `*.example.org` for all below it, or `*`; each with the one port that is meant, or
    `None`. A name allows whatever it leads to but this machine, its links and clouds' metadata services: to
    reach these takes a network that holds them.
    """

    names: Sequence[tuple[str, int | None]] = (("*", None),)
    networks: Sequence[tuple[_Network, int | None]] = ()

    @classmethod
    def parse(cls, text: str) -> AllowedHosts:
        """Parse a list with commas of names, addresses and networks, each with or without `:port`.

        Raises `ValueError`, which quotes the entry that is none of them.
        """
        names = list[tuple[str, int | None]]()
        networks = list[tuple[_Network, int | None]]()
        for entry in filter(None, (part.strip() for part in text.split(","))):
            host, port = _split(entry)
            try:
                networks.append((ipaddress.ip_network(host), port))
            except ValueError:
                if not (host == "*" or is_host(host.removeprefix("*."))) or is_ip_address(host):
                    raise ValueError(entry) from None
                names.append((host.lower().rstrip("."), port))
        return cls(names, networks)

    def permits(self, host: str, port: int, address: str) -> bool:
        """Tell whether Lethe may connect to an address that a host leads to."""
        ip = _plain(address)
        if any(ip in network and only in (None, port) for network, only in self.networks):
            return True
        known = host.lower().rstrip(".")
        return not _is_near(ip) and any(
            only in (None, port) and (known == name or (name[:1] == "*" and known.endswith(name[1:])))
            for name, only in self.names
        )


def _split(entry: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", entry)
    host, port = bracketed.groups() if bracketed else (entry, None)
    if not bracketed and entry.count(":") == 1:
        host, _, port = entry.partition(":")
    number = None if port is None else port_of(port)
    if port is not None and number is None:
        raise ValueError(entry)
    return host, number


def _plain(address: str) -> _Address:
    """Return an address as it is reached: an IPv4 one is one also where it is written as IPv6."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        return inner or ipaddress.ip_address(address.partition("%")[0])
    return ip


def _is_near(ip: _Address) -> bool:
    return (
        ip.is_loopback
        or ip.is_link_local
        or ip.is_unspecified  # which leads to this machine
        or ip.is_multicast
        or ip in _METADATA
        or ip == ipaddress.IPv4Address("255.255.255.255")
    )
