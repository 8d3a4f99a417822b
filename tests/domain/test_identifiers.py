"""When two addresses are one, and in which spellings a store is searched for it."""

from __future__ import annotations

import sys
import unicodedata
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.identifiers import BLANKS, email_identifier, normalised_email, same_email, spellings
from tests.contracts.addresses import ONE_PERSONS, TWO_PERSONS
from tests.search.drawing import examples

# Where text goes wrong: case that crosses or expands, composition, dots, quotes, labels.
_AWKWARD = st.text('aAiIsSkß.@"\\\u00a0İıſKÅΣςσẞﬁ\u0301\u0307\u0345é。xn-ᾳ❤\u200d', max_size=12)


@pytest.mark.parametrize(("one", "other"), TWO_PERSONS)
def test_two_persons_addresses_are_never_the_same(one: str, other: str) -> None:
    assert not same_email(one, other)


@pytest.mark.parametrize(("one", "other"), ONE_PERSONS)
def test_one_persons_address_is_the_same_in_every_spelling(one: str, other: str) -> None:
    assert same_email(one, other)


def test_no_letter_is_taken_for_another_one() -> None:
    written: dict[str, list[str]] = defaultdict(list)
    for code in range(0x80, sys.maxunicode + 1):
        sign = chr(code)
        # NFC alone says what is one letter in two codes; the others are looked at.
        if unicodedata.category(sign) in {"Lu", "Ll", "Lt", "Lo"} and unicodedata.is_normalized("NFC", sign):
            written[normalised_email(f"a{sign}b@x.example")].append(sign)
    for signs in written.values():
        assert len({unicodedata.category(one) for one in signs}) == len(signs), ascii(signs)
        assert len({one.upper() for one in signs}) == 1 or "ẞ" in signs, ascii(signs)


@given(st.text(max_size=12) | _AWKWARD)
@examples(500)
def test_normalising_an_address_once_is_enough(text: str) -> None:
    once = normalised_email(text)
    assert normalised_email(once) == once


@given(_AWKWARD)
@examples(500)
def test_an_address_is_among_its_own_spellings(text: str) -> None:
    assert text in spellings(text)
    if "@" in text.strip(BLANKS):
        assert normalised_email(text) in spellings(text)


@pytest.mark.parametrize(("one", "other"), ONE_PERSONS)
def test_a_store_is_searched_for_every_spelling_of_one_address(one: str, other: str) -> None:
    for asked, held in ((one, other), (other, one)):
        bare = unicodedata.normalize("NFC", held.strip(BLANKS))
        assert {held, bare.lower()} & spellings(asked)


def test_an_endless_domain_is_compared_without_being_encoded() -> None:
    endless = "é" * 1_000_000
    assert same_email(f"a@{endless}", f"A@{endless.upper()}")


def test_blanks_of_every_kind_around_an_address_are_not_part_of_it() -> None:
    for blank in (" ", "\t", "\r\n", "\u00a0", "\u200b", "\u202a", "\ufeff", "\u3000"):
        assert email_identifier(f"{blank}ada@x.example{blank}").value.reveal() == "ada@x.example"
        assert same_email(f"{blank}ada@x.example", f"ada@x.example{blank}")
