"""Whom an SQL store finds by an address, however it stands there, and whom it does not."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devtools.servers.postgres import PostgresServer
from lethe.adapters.stores.sql.store import SqlStore
from lethe.domain.identifiers import (
    Identifier,
    IdentifierKind,
    PersonalText,
    email_identifier,
    normalised_email,
    same_email,
)
from lethe.ports.stores import Wanted
from tests.adapters.stores.sql.conftest import SCHEMA, Site, store_of
from tests.contracts.addresses import ONE_PERSONS, TWO_PERSONS
from tests.contracts.store_contract import Person
from tests.search.drawing import examples

Located = Callable[..., Callable[[str], int]]


def _enter(site: Site, *emails: str) -> list[str]:
    for email in emails:
        site.enter(Person(email, "First", "Last"))
    return [site.key_of(Person(email, "First", "Last")) for email in emails]


def _keys(site: Site, email: str) -> list[str]:
    return sorted((one.key for one in site.find_by_email(email)), key=int)


def test_a_request_never_finds_the_person_of_another_address(site: Site) -> None:
    addresses = sorted({one for pair in TWO_PERSONS for one in pair})
    key_of = dict(zip(addresses, _enter(site, *addresses), strict=True))
    for address in addresses:
        if " " not in address:
            assert _keys(site, address) == [key_of[address]], ascii(address)


def test_a_person_is_found_in_every_spelling_of_the_address(site: Site) -> None:
    store = store_of(site.url, max_records=100)
    store.prove()
    for one, other in ONE_PERSONS:
        site.sql.execute("DELETE FROM sessions; DELETE FROM comments; DELETE FROM users")
        spelt = {one, other, *(unicodedata.normalize("NFD", held) for held in (one, other))}
        keys = _enter(site, *sorted(spelt), *(f"\t{held}\u00a0" for held in sorted(spelt)))
        for asked in (one, other):
            records = store.find([Wanted("r", (email_identifier(asked),))]).records["r"]
            assert {record.key for record in records} == set(keys), ascii(asked)
    store.close()


@pytest.mark.parametrize("column", ["text", "varchar(255)", "char(60)"])
@pytest.mark.parametrize("indexed", [True, False])
def test_blanks_around_a_stored_address_do_not_hide_a_person(
    site: Site, column: str, *, indexed: bool
) -> None:
    site.sql.execute(f"ALTER TABLE users ALTER email TYPE {column}")
    if not indexed:
        site.sql.execute("ALTER TABLE users DROP CONSTRAINT users_email_key; DROP INDEX users_lower_idx")
    keys = _enter(
        site,
        *(" ada@x.example", "Ada@x.example\t", "\u00a0ADA@x.example\r\n", "\ufeffada@x.example"),
        "\u3000ada@x.example\u200b",
    )
    _enter(site, "ada@x.exampl", "xada@x.example", "a da@x.example", "ada@x.example b")
    assert _keys(site, "ada@x.example") == keys


@pytest.fixture
def located(postgres: PostgresServer) -> Iterator[Located]:
    """Make a database of an encoding and a locale, in which some addresses stand."""

    def make(encoding: str, locale: str, *addresses: str) -> Callable[[str], int]:
        with psycopg.connect(postgres.url("postgres"), autocommit=True) as sql:
            sql.execute(f"CREATE DATABASE located TEMPLATE template0 ENCODING '{encoding}' LOCALE '{locale}'")
        with psycopg.connect(postgres.url("located"), autocommit=True) as sql:
            sql.execute(SCHEMA)
            for held in addresses:
                sql.execute("INSERT INTO users (email) VALUES (%s)", (held,))
        store = store_of(postgres.url("located"))
        store.prove()
        stores.append(store)

        def count(email: str) -> int:
            finding = store.find([Wanted("r", (email_identifier(email),))])
            return len(finding.records.get("r", ()))

        return count

    stores: list[SqlStore] = []
    yield make
    for store in stores:
        store.close()
    postgres.drop_database("located")


@pytest.mark.parametrize("locale", ["C", "C.utf8"])
def test_capitals_beyond_ascii_are_found_under_every_locale(located: Located, locale: str) -> None:
    count = located("UTF8", locale, "Éva.ŐRy@people.example", "éVA.őry@BüCHER.example")
    assert count("éva.őry@people.example") == 1
    assert count("ÉVA.ŐRY@xn--bcher-kva.example") == 1


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "EUC_JP", "SQL_ASCII"])
def test_blanks_hide_nobody_in_a_database_of_another_encoding(located: Located, encoding: str) -> None:
    count = located(encoding, "C", " Ada@x.example\r\n", "bob@x.example")
    assert count("ada@x.example") == 1
    assert count("bob@x.example") == 1
    assert count("éva@bücher.example") == 0


@pytest.fixture
def site_with_icu(site: Site) -> Site:
    """A site whose PostgreSQL knows the locales of ICU, as distributions build it."""
    if not site.sql.execute("SELECT FROM pg_collation WHERE collname = 'und-x-icu'").rowcount:
        pytest.skip("this PostgreSQL is built without ICU")
    return site


def test_turkish_small_letters_hide_nobody(site_with_icu: Site) -> None:
    site_with_icu.sql.execute('ALTER TABLE users ALTER email TYPE text COLLATE "tr-x-icu"')
    keys = _enter(site_with_icu, "IDA.Ilk@people.example", "ıda.ılk@people.example", "İDA.ilk@people.example")
    assert _keys(site_with_icu, "ida.ilk@people.example") == keys[:1]
    assert _keys(site_with_icu, "ıda.ılk@people.example") == keys[1:2]


def test_a_column_that_takes_letters_for_others_finds_only_the_address(site_with_icu: Site) -> None:
    site_with_icu.sql.execute(
        "CREATE COLLATION careless (provider = icu, locale = 'und-u-ks-level1', deterministic = false);"
        "ALTER TABLE users ALTER email TYPE text COLLATE careless;"
    )
    keys = _enter(site_with_icu, "eva@people.example")
    assert _keys(site_with_icu, "éva@people.example") == []
    assert _keys(site_with_icu, "EVA@people.example") == keys


@pytest.mark.parametrize("rows", [9, 3_000])
def test_too_many_records_are_told_and_all_are_found_when_all_are_wanted(site: Site, rows: int) -> None:
    site.sql.execute("ALTER TABLE users DROP CONSTRAINT users_email_key")
    site.sql.execute(
        "INSERT INTO users (email) SELECT 'shared@example.org' FROM generate_series(1, %s)", (rows,)
    )
    _enter(site, "alone@example.org")
    asked = [Wanted(one, (email_identifier(f"{one}@example.org"),)) for one in ("shared", "alone")]
    for most in (5, 1_000):
        store = store_of(site.url, max_records=most)
        store.prove()
        finding = store.find(asked)
        assert finding.too_many == ({"shared"} if rows > most else set())
        assert len(finding.records["shared"]) == min(rows, most)
        every = store.find([replace(one, every=True) for one in asked])
        assert (len(every.records["shared"]), every.too_many) == (rows, frozenset())
        store.close()


def test_a_record_that_a_key_finds_too_is_not_one_of_an_address_alone(site: Site) -> None:
    key, other = _enter(site, "Ada@example.org", " ada@example.org")
    by_both = (email_identifier("ada@example.org"), Identifier(IdentifierKind.PRIMARY_KEY, PersonalText(key)))
    for identifiers in (by_both, by_both[::-1]):
        found = site.store.find([Wanted("r", identifiers)]).records["r"]
        assert {one.key: one.by_key for one in found} == {key: True, other: False}


_LETTERS = st.text("abcIiKkSsΣσςßẞéÉøıİжЖÅåﬁ.-+_%'0", min_size=1, max_size=6)
_ADDRESSES = st.builds("{}@{}.example".format, _LETTERS, st.text("abKéßжΣς", min_size=1, max_size=4))


def _written(address: str, random: Random) -> str:
    """Return an address as an application may have stored it."""
    text = "".join(random.choice((one, one.lower(), one.upper())) for one in address)
    local, _, domain = text.rpartition("@")
    if random.random() < 0.3:
        domain = normalised_email(f"a@{domain}").rpartition("@")[2]
    text = unicodedata.normalize(random.choice(("NFC", "NFD")), f"{local}@{domain}")
    before, after = random.choices(("", "", " ", "\t ", "\u00a0"), k=2)
    return f"{before}{text}{random.choice(('', '.'))}{after}"


def test_whatever_is_the_same_address_is_found_and_nothing_else(site: Site) -> None:
    store = store_of(site.url, max_records=1_000)
    store.prove()
    site.sql.execute("ALTER TABLE users DROP CONSTRAINT users_email_key")

    @given(st.lists(_ADDRESSES, min_size=1, max_size=8), st.randoms(use_true_random=False))
    @examples(12)
    def compared(addresses: list[str], random: Random) -> None:
        held = [_written(one, random) for one in addresses for _ in range(4)]
        asked = [*addresses, *(_written(one, random) for one in addresses)]
        with site.sql.transaction(force_rollback=False):
            site.sql.execute("DELETE FROM users")
            site.sql.cursor().executemany("INSERT INTO users (email) VALUES (%s)", [(one,) for one in held])
        rows = dict(site.sql.execute("SELECT id::text, email FROM users").fetchall())
        finding = store.find([Wanted(str(ix), (email_identifier(one),)) for ix, one in enumerate(asked)])
        for ix, one in enumerate(asked):
            found = {record.key for record in finding.records.get(str(ix), ())}
            same = {key for key, email in rows.items() if same_email(one, email)}
            assert found == same, [ascii(rows[key]) for key in found ^ same] + [ascii(one)]

    compared()
    store.close()
