"""Where a Tryton is and who asks it: understood, or told in printable words of our own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.adapters.stores.tryton.connection import Place
from lethe.adapters.stores.tryton.jsonrpc import JsonRpc

MISTYPED = {
    "": "is not an http or https URL",
    "tryton.example": "is not an http or https URL",
    "ftp://tryton.example": "is not an http or https URL",
    "http://": "is not an http or https URL",
    "http://:8000": "is not an http or https URL",
    "http://[::1": "is not an http or https URL",
    "http://h:abc": "is not an http or https URL",
    "http://h:99999": "is not an http or https URL",
    f"http://{'h' * 64}/": "is not an http or https URL",
    "http://a..b/": "is not an http or https URL",
    "http://h:0": "the port 0",
    "http://u:p@h": "has credentials",
    "http://h/?database=crm": "a query",
    "http://h/#crm": "a fragment",
    "http://h/ä": "is not printable ASCII",
    "http://bücher.example": "write a host as xn--…",
    "http://h/a b": "a blank as %20",
    "http://h/\ncrm": "is not printable ASCII",
    "http://h/\0": "is not printable ASCII",
    "http://h/\udcff": "is not printable ASCII",
    "http://\u2100.example/": "is not printable ASCII",
}


def require_printable(error: ValueError) -> None:
    assert type(error) is ValueError
    assert error.__cause__ is error.__context__ is None
    assert str(error).isprintable()
    assert "; correct" in str(error)


@pytest.mark.parametrize("url", MISTYPED, ids=ascii)
def test_what_is_mistyped_is_named_with_the_remedy(url: str) -> None:
    with pytest.raises(ValueError, match=r"spec\.tryton\.url") as refused:
        JsonRpc(url, "crm", "admin", "a password")
    require_printable(refused.value)
    assert MISTYPED[url] in str(refused.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://tryton.example", Place(encrypted=True, host="tryton.example", port=443, path="/")),
        ("HTTP://Tryton:8000/a/b/", Place(encrypted=False, host="tryton", port=8000, path="/a/b/")),
        ("http://[::1]", Place(encrypted=False, host="::1", port=80, path="/")),
    ],
)
def test_a_url_says_where_a_server_is(url: str, place: Place) -> None:
    assert Place.of(url) == place


@given(
    st.text(st.characters(codec=None), max_size=30).map("http://{}".format)
    | st.text(st.characters(codec=None)),
    st.text(st.characters(codec=None), max_size=5),
    st.text(st.characters(codec=None), max_size=5),
)
def test_any_texts_make_a_client_or_are_told(url: str, database: str, name: str) -> None:
    try:
        JsonRpc(url, database, name, name).close()
    except ValueError as told:
        refused = told
    else:
        return
    require_printable(refused)
