"""To which hosts Lethe may connect: by what a list says, and by default to none that only it can reach."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.hosts import AllowedHosts, is_loopback

NEAR = [
    "127.0.0.1",
    "127.8.8.8",
    "::1",
    "0.0.0.0",
    "::",
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
]


@pytest.mark.parametrize("address", NEAR)
@pytest.mark.parametrize("text", ["", "*", "db.example", "10.0.0.0/8, *.example"])
def test_no_name_leads_to_this_machine_its_links_or_a_clouds_metadata(address: str, text: str) -> None:
    allowed = AllowedHosts.parse(text) if text else AllowedHosts()
    assert not allowed.permits("db.example", 5432, address)
    assert not allowed.permits(address, 5432, address)


@pytest.mark.parametrize("address", ["10.2.3.4", "192.168.1.1", "203.0.113.7", "2001:db8::7", "fd00::7"])
def test_by_default_everybody_else_may_be_reached(address: str) -> None:
    assert AllowedHosts().permits("db.example", 5432, address)
    assert AllowedHosts().permits(address, 5432, address)


@pytest.mark.parametrize(
    ("text", "host", "port", "address", "permitted"),
    [
        ("db.example", "db.example", 5432, "10.0.0.7", True),
        ("db.example", "DB.Example.", 5432, "10.0.0.7", True),
        ("db.example", "db.example.evil", 5432, "10.0.0.7", False),
        ("db.example", "evil-db.example", 5432, "10.0.0.7", False),
        ("db.example", "10.0.0.7", 5432, "10.0.0.7", False),
        ("*.example", "db.example", 5432, "10.0.0.7", True),
        ("*.example", "a.b.example", 5432, "10.0.0.7", True),
        ("*.example", "example", 5432, "10.0.0.7", False),
        ("*.example", "evilexample", 5432, "10.0.0.7", False),
        ("db.example:5432", "db.example", 5432, "10.0.0.7", True),
        ("db.example:5432", "db.example", 22, "10.0.0.7", False),
        ("10.0.0.0/8", "whatever", 1, "10.0.0.7", True),
        ("10.0.0.0/8", "whatever", 1, "::ffff:10.0.0.7", True),
        ("10.0.0.0/8", "whatever", 1, "11.0.0.7", False),
        ("10.0.0.7:5432", "whatever", 5432, "10.0.0.7", True),
        ("10.0.0.7:5432", "whatever", 5433, "10.0.0.7", False),
        ("[fd00::/8]:5432", "whatever", 5432, "fd00::7", True),
        ("[fd00::/8]:5432", "whatever", 5433, "fd00::7", False),
        ("fd00::7", "whatever", 1, "fd00::7", True),
        (" , *.a , 127.0.0.1:25 ,", "localhost", 25, "127.0.0.1", True),
        (" , *.a , 127.0.0.1:25 ,", "localhost", 5432, "127.0.0.1", False),
        ("*, 127.0.0.0/8, [::1]", "localhost", 5432, "::1", True),
    ],
)
def test_a_list_allows_what_it_says_and_no_more(
    text: str, host: str, port: int, address: str, *, permitted: bool
) -> None:
    assert AllowedHosts.parse(text).permits(host, port, address) is permitted


@pytest.mark.parametrize(
    "entry",
    [
        "db example",
        "*.",
        "*.*.example",
        "d*b",
        "10.0.0.7/8",
        "10.0.0.0/33",
        "db:0",
        "db:x",
        "[::1]:x",
        "a/b",
        "[db]:x",
    ],
)
def test_what_is_no_entry_is_quoted(entry: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as refused:
        AllowedHosts.parse(f"db.example, {entry}")
    assert str(refused.value) == entry


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:{}", "64:ff9b::{}"]))
def test_an_address_is_the_same_however_it_is_written(ip: ipaddress.IPv4Address, form: str) -> None:
    written = form.format(ip)
    assert AllowedHosts().permits("h", 1, written) == AllowedHosts().permits("h", 1, str(ip))
    assert is_loopback(written) == ip.is_loopback
