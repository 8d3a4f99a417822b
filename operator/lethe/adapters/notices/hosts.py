"""Whether a host is this machine: only there may secrets and notices travel unencrypted."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address and without asking DNS."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
