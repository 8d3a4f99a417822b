"""How a person is reached, out of tables as sites really have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devtools.servers import PostgresServer
from lethe.adapters.stores.sql import finding
from lethe.domain.identifiers import Identifier, IdentifierKind, PersonalText, email_identifier
from lethe.domain.mapping import ClearRule, ClearTo, PiiKind
from lethe.domain.tombstones import match_unchanged_rows
from lethe.ports.stores import AnswerUntrusted, Contact, StoreError, StoreUnreachable, Wanted
from tests.adapters.stores.sql.conftest import MAPPING, SCHEMA, HmacKeyring, Site, store_of
from tests.adapters.stores.sql.test_failures import all_that_is_shown
from tests.contracts.store_contract import Person, somebody


def by_key(key: str) -> Identifier:
    return Identifier(IdentifierKind.PRIMARY_KEY, PersonalText(key))


def shown(contacts: Sequence[Contact]) -> list[tuple[str | None, ...]]:
    """Return address, locale, time zone and name of each, as plain texts."""
    return [
        (
            None if one.email is None else one.email.reveal(),
            one.locale,
            one.time_zone,
            None if one.name is None else one.name.reveal(),
        )
        for one in contacts
    ]


def reach(site: Site, *identifiers: Identifier, settings: Any = None, **mapping: Any) -> Sequence[Contact]:
    """Return how a person is reached by a store of another mapping, or with other settings."""
    store = store_of(site.url, replace(MAPPING, **mapping), **(settings or {}))
    try:
        return store.contacts([Wanted("r", identifiers)]).get("r", ())
    finally:
        store.close()


@pytest.fixture
def person(site: Site) -> Person:
    person = somebody()
    site.enter(person)
    return person


def test_language_and_time_zone_are_those_of_the_person(site: Site, person: Person) -> None:
    expected = [(person.email, "de", "Europe/Berlin", f"{person.first_name} {person.last_name}")]
    assert shown(site.reach(email_identifier(person.email))) == expected
    assert shown(site.reach(by_key(site.key_of(person)))) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("locale = NULL", (None, "Europe/Berlin", "Ada Doe")),
        ("locale = ' ', time_zone = ''", (None, None, "Ada Doe")),
        ("locale = 'de_AT.UTF-8', time_zone = '+02:00'", ("de_AT.UTF-8", "+02:00", "Ada Doe")),
        ("first_name = '  ', last_name = E'\\t'", ("de", "Europe/Berlin", None)),
        ("first_name = NULL, last_name = NULL", ("de", "Europe/Berlin", None)),
        ("first_name = NULL", ("de", "Europe/Berlin", "Doe")),
        ("last_name = ''", ("de", "Europe/Berlin", "Ada")),
        (
            "first_name = ' Ada ', last_name = E'van\\r\\n der  Doe'",
            ("de", "Europe/Berlin", "Ada van der Doe"),
        ),
    ],
)
def test_what_a_row_does_not_say_is_none(
    site: Site, person: Person, change: str, expected: tuple[str | None, ...]
) -> None:
    site.sql.execute("ALTER TABLE users ALTER locale DROP NOT NULL")
    site.sql.execute("UPDATE users SET first_name = 'Ada', last_name = 'Doe'")
    site.sql.execute(f"UPDATE users SET {change}")
    assert shown(site.reach(email_identifier(person.email))) == [(person.email, *expected)]


@pytest.mark.parametrize(
    "address",
    [
        "nobody",
        "",
        "two@at@example.org",
        "a b@example.org",
        "a@example.org\r\nBcc: x",
        "@example.org",
        "deleted-4711@users.INVALID",
    ],
)
def test_what_is_no_address_to_write_to_is_none(site: Site, person: Person, address: str) -> None:
    key = site.key_of(person)
    site.sql.execute("UPDATE users SET email = %s", (address,))
    (contact,) = site.reach(by_key(key))
    assert (contact.key, contact.email, contact.cleared) == (key, None, False)
    assert contact.name is not None


def test_blanks_around_an_address_are_not_part_of_it(site: Site, person: Person) -> None:
    key = site.key_of(person)
    site.sql.execute("UPDATE users SET email = '  ' || email || ' '")
    assert shown(site.reach(by_key(key)))[0][0] == person.email


def test_two_rows_of_one_address_are_two_contacts(site: Site) -> None:
    site.sql.execute("ALTER TABLE users DROP CONSTRAINT users_email_key")
    for name in ("One", "Two"):
        site.enter(Person("shared@example.org", name, "Doe"))
    contacts = site.reach(email_identifier("Shared@example.org"))
    assert [name for *_, name in shown(contacts)] == ["One Doe", "Two Doe"]


def test_of_too_many_records_as_many_as_are_allowed_are_contacts(site: Site) -> None:
    site.sql.execute("ALTER TABLE users DROP CONSTRAINT users_email_key")
    for _ in range(9):
        site.enter(Person("shared@example.org", "f", "l"))
    found = reach(site, email_identifier("shared@example.org"), settings={"max_records": 3})
    assert len(found) == 3


def test_a_record_that_address_and_key_name_is_one_contact(site: Site, person: Person) -> None:
    assert len(site.reach(email_identifier(person.email), by_key(site.key_of(person)))) == 1


def test_a_key_reaches_somebody_in_the_primary_only(site: Site, person: Person) -> None:
    key = by_key(site.key_of(person))
    assert len(reach(site, key)) == 1
    assert not reach(site, key, settings={"primary": False})


def test_a_key_that_the_column_can_not_hold_reaches_nobody_and_stops_nobody(
    site: Site, person: Person
) -> None:
    odd = ("4711x", "", "١", "0" + site.key_of(person), "1 OR 1=1", "9" * 30, "\0", person.email)
    wanted = [Wanted(f"odd {n}", (by_key(key),)) for n, key in enumerate(odd)]
    wanted.append(Wanted("fine", (by_key(site.key_of(person)),)))
    assert set(site.store.contacts(wanted)) == {"fine"}


class TestErased:
    def test_a_cleared_record_says_nothing_but_that(self, site: Site, person: Person) -> None:
        (tombstone,) = site.tombstones_of(person)
        site.erase([tombstone])
        cleared = [Contact("users", tombstone.key, None, cleared=True)]
        assert site.reach(by_key(tombstone.key)) == tuple(cleared)

    @pytest.mark.parametrize("change", ["locale = 'fr'", "first_name = 'Back'", "email = upper(email)"])
    def test_a_placeholder_is_no_address_although_the_record_was_written_to_since(
        self, site: Site, person: Person, change: str
    ) -> None:
        template = ClearRule("email", PiiKind.EMAIL, ClearTo.TEMPLATE, "gone-{token}@example.org")
        clear = (template, *(rule for rule in MAPPING.clear if rule.column != "email"))
        site.store = site.with_mapping(clear=clear)
        site.store.prove()
        (tombstone,) = site.tombstones_of(person)
        site.erase([tombstone])
        site.sql.execute(f"UPDATE users SET {change}")
        assert site.find(by_key(tombstone.key))[0].cleared is False
        assert site.reach(by_key(tombstone.key)) == (Contact("users", tombstone.key, None, cleared=True),)
        site.store.close()

    @pytest.mark.parametrize(
        ("template", "cleared"), [("gone-{key}@example.org", False), ("gone-{token}@example.org", True)]
    )
    def test_a_placeholder_of_an_earlier_mapping_is_no_address(
        self, site: Site, person: Person, template: str, *, cleared: bool
    ) -> None:
        rule = ClearRule("email", PiiKind.EMAIL, ClearTo.TEMPLATE, template)
        clear = (rule, *(other for other in MAPPING.clear if other.column != "email"))
        old = site.with_mapping(clear=clear)
        earlier = old.prove().proved
        (tombstone,) = site.tombstones_of(person)
        matcher, by_old = match_unchanged_rows(site.fingerprints), replace(tombstone, mapping=earlier.version)
        old.erase([by_old], matcher, move=site.move())
        old.close()
        assert site.find(by_key(tombstone.key))[0].cleared is False
        site.store.prove([earlier])
        (contact,) = site.reach(by_key(tombstone.key))
        assert (contact.email, contact.cleared) == (None, cleared)

    def test_a_name_that_an_erasure_wrote_is_nobodys_name(self, site: Site, person: Person) -> None:
        clear = tuple(
            replace(rule, to=ClearTo.VALUE, text="erased") if rule.column == "first_name" else rule
            for rule in MAPPING.clear
        )
        site.sql.execute("UPDATE users SET first_name = 'erased', last_name = NULL")
        (contact,) = reach(site, email_identifier(person.email), clear=clear)
        assert (contact.name, contact.cleared) == (None, False)


class TestMappings:
    def rules(self, *kinds: PiiKind) -> tuple[ClearRule, ...]:
        return tuple(rule for rule in MAPPING.clear if rule.holds in kinds)

    def test_a_kind_that_is_not_mapped_or_a_dependents_only_is_none(self, site: Site, person: Person) -> None:
        contacts = reach(site, email_identifier(person.email), clear=self.rules(PiiKind.EMAIL))
        assert shown(contacts) == [(person.email, None, None, None)]

    def test_a_table_without_addresses_is_reached_by_key_without_one(
        self, site: Site, person: Person
    ) -> None:
        clear = self.rules(PiiKind.LOCALE, PiiKind.TIME_ZONE)
        contacts = reach(site, by_key(site.key_of(person)), identifiers={}, clear=clear)
        assert shown(contacts) == [(None, "de", "Europe/Berlin", None)]

    def test_a_column_that_holds_both_names_is_the_name(self, site: Site, person: Person) -> None:
        site.sql.execute("UPDATE users SET first_name = 'Ada Doe'")
        email = self.rules(PiiKind.EMAIL)
        first = ClearRule("first_name", PiiKind.FIRST_NAME, ClearTo.SET_NULL)
        for clear in ((*email, first), (*email, first, replace(first, holds=PiiKind.LAST_NAME))):
            contacts = reach(site, email_identifier(person.email), clear=clear)
            assert shown(contacts) == [(person.email, None, None, "Ada Doe")]

    def test_the_order_of_the_rules_is_not_the_order_of_the_names(self, site: Site, person: Person) -> None:
        contacts = reach(site, email_identifier(person.email), clear=MAPPING.clear[::-1])
        assert shown(contacts) == shown(site.reach(email_identifier(person.email)))

    def test_columns_that_are_not_text_are_read_as_their_text(self, site: Site, person: Person) -> None:
        site.sql.execute(
            "CREATE TYPE language AS ENUM ('de', 'en');"
            "ALTER TABLE users ALTER locale DROP DEFAULT, ALTER locale TYPE language USING locale::language,"
            " ALTER first_name TYPE char(40), ALTER time_zone DROP DEFAULT,"
            " ALTER time_zone TYPE interval USING '2 hours'"
        )
        name = f"{person.first_name} {person.last_name}"
        expected = [(person.email, "de", "PT2H", name)]
        clear = tuple(replace(rule, to=ClearTo.SET_NULL) for rule in self.rules(*PiiKind))
        found = reach(site, email_identifier(person.email), clear=clear)
        assert shown(found) == expected


def test_contacts_are_not_trusted_where_a_living_row_is_not_found(
    site: Site, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "spellings", lambda text: {f"x{text}"})
    with pytest.raises(AnswerUntrusted, match="does not find a row that is there"):
        site.reach(email_identifier(person.email))


class TestACastOfTheSites:
    """A column of the site's own type: its cast is run by the search, and sees what the search is."""

    def reach(self, site: Site, person: Person, body: str) -> Sequence[Contact]:
        site.sql.execute(
            "CREATE TYPE tongue AS (code text); CREATE TABLE looks (n int);"
            f"CREATE FUNCTION spoken(tongue) RETURNS text LANGUAGE plpgsql AS $$ BEGIN {body}; END $$;"
            "CREATE CAST (tongue AS text) WITH FUNCTION spoken(tongue);"
            "ALTER TABLE users ADD tongue tongue; UPDATE users SET tongue = ROW(email)"
        )
        rule = ClearRule("tongue", PiiKind.LOCALE, ClearTo.SET_NULL)
        clear = (rule, *(one for one in MAPPING.clear if one.holds is not PiiKind.LOCALE))
        key = by_key(site.key_of(person))
        return reach(site, email_identifier(person.email), key, clear=clear)

    def test_can_write_nothing(self, site: Site, person: Person) -> None:
        with pytest.raises(StoreUnreachable, match="read-only"):
            self.reach(site, person, "INSERT INTO looks VALUES (1); RETURN $1.code")

    def test_sees_nobody_in_the_list_of_running_statements(self, site: Site, person: Person) -> None:
        running = "RETURN (SELECT string_agg(query, ' ') FROM pg_stat_activity)"
        (contact,) = self.reach(site, person, running)
        assert contact.locale is not None
        assert "lethe_wanted" in contact.locale
        assert person.email.lower() not in contact.locale.lower().replace(" ", "")

    def test_shows_nobody_by_its_own_error(self, site: Site, person: Person) -> None:
        with pytest.raises(StoreError) as refused:
            self.reach(site, person, "RAISE EXCEPTION 'row %', $1.code USING DETAIL = $1.code")
        assert not any(text.lower() in all_that_is_shown(refused.value).lower() for text in person.texts)


def test_a_thousand_persons_take_as_many_statements_as_one_and_none_names_anybody(tmp_path: Path) -> None:
    settings = {"log_statement": "all", "log_min_duration_statement": "0", "log_parameter_max_length": "-1"}
    with PostgresServer(tmp_path / "pg", fsync=False, settings=settings) as pg:
        url = pg.create_database("site")
        with psycopg.connect(url, autocommit=True) as sql:
            sql.execute("SET log_statement = 'none'; SET log_min_duration_statement = -1")
            sql.execute(SCHEMA)
            site = Site(store_of(url), HmacKeyring(), sql=sql, url=url)
            persons = [somebody() for _ in range(1_000)]
            for person in persons:
                site.enter(person)
            site.store.contacts([])
            wanted = [
                Wanted(one.first_name, (email_identifier(one.email.upper()), by_key(str(n))))
                for n, one in enumerate(persons, start=1)
            ]
            statements = []
            for asked in (wanted[:1], wanted):
                before = pg.log_path.stat().st_size
                contacts = site.store.contacts(asked)
                assert {request: len(found) for request, found in contacts.items()} == {
                    one.request: 1 for one in asked
                }
                log = pg.log_path.read_bytes()[before:].decode().lower()
                statements.append(log.count("statement: "))
                assert "lethe_wanted" in log
                assert not any(text.lower() in log for one in persons for text in one.texts)
            site.store.close()
    assert statements[0] == statements[1] > 0
