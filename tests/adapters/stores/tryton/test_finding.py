"""Whom the store finds, and when it may say that there is nobody."""

import json
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lethe.adapters.stores.tryton import TrytonStore
from lethe.domain.identifiers import Identifier, IdentifierKind, PersonalText
from lethe.domain.tombstones import match_unchanged_rows
from lethe.ports.stores import AnswerUntrusted, JournalSupport, StoreUnreachable, Wanted
from tests.adapters.stores.tryton.conftest import (
    CANARY,
    FINGERPRINTS,
    Crm,
    Opened,
    found,
    tombstone,
    wanted,
)
from tests.adapters.stores.tryton.liar import Liar
from tests.contracts.addresses import ONE_PERSONS, TWO_PERSONS


def test_a_person_is_found_whatever_the_case_and_unknown_ones_are_proved_absent(
    crm: Crm, store: TrytonStore
) -> None:
    one, other = crm.person(), crm.person()
    questions = [
        wanted(one.email.upper(), request="one"),
        wanted(other.email.lower(), request="other"),
        wanted("nobody@people.example", request="nobody"),
    ]
    finding = store.find(questions)
    assert {request: [r.key for r in found] for request, found in finding.records.items()} == {
        "one": [str(one.party)],
        "other": [str(other.party)],
    }
    assert finding.proof == "canary"
    (record,) = finding.records["one"]
    ((created,),) = crm.sql("SELECT create_date FROM party_party WHERE id = ?", one.party)
    assert record.created_at == created.replace(" ", "T") + "Z"
    assert record.email is not None
    assert record.email.reveal() == one.email
    assert (record.shared, record.cleared) == (False, False)


@pytest.mark.parametrize("stored", ["ÉVA.ŐRY@people.example", "E\u0301va.O\u030bry@People.example"])
def test_letters_beyond_ascii_are_the_same_in_every_case_and_composition(
    crm: Crm, store: TrytonStore, stored: str
) -> None:
    person = crm.person(stored)
    assert str(person.party) in {r.key for r in store.find([wanted("éva.őry@people.example")]).records["r1"]}


def test_signs_that_are_wildcards_to_a_database_match_themselves_only(crm: Crm, store: TrytonStore) -> None:
    person = crm.person("a_b%c@people.example")
    for other in ("axb%c@people.example", "a_byyc@people.example"):
        crm.person(other)
    assert found(store, "A_b%C@people.example").key == str(person.party)
    assert store.find([wanted("%@people.example")]).records == {}


def test_who_is_inactive_is_found_too(crm: Crm, store: TrytonStore) -> None:
    person = crm.person(active=False)
    crm.sql("UPDATE party_contact_mechanism SET active = 0 WHERE party = ?", person.party)
    assert found(store, person.email).key == str(person.party)


def test_an_address_that_is_not_called_an_email_is_the_persons_all_the_same(
    crm: Crm, store: TrytonStore
) -> None:
    person = crm.person()
    crm.sql("UPDATE party_contact_mechanism SET type = 'other' WHERE party = ?", person.party)
    assert found(store, person.email).key == str(person.party)


def test_a_party_with_an_address_that_was_not_asked_for_is_shared(crm: Crm, store: TrytonStore) -> None:
    crm.person("team.a@people.example", "team.b@people.example")
    assert found(store, "team.a@people.example").shared
    (record,) = store.find([wanted("team.a@people.example", "TEAM.B@people.example")]).records["r1"]
    assert not record.shared


def test_many_are_found_in_several_questions_of_which_each_finds_the_canary(
    crm: Crm, store: TrytonStore
) -> None:
    person = crm.person()
    questions = [wanted(f"nobody{i}@people.example", request=f"r{i}") for i in range(120)]
    finding = store.find([*questions, wanted(person.email, request="somebody")])
    assert set(finding.records) == {"somebody"}


def test_more_parties_than_maxrecords_are_told_and_found_when_all_are_wanted(
    crm: Crm, opened: Opened
) -> None:
    for _ in range(4):
        crm.person("again.and.again@people.example")
    asked, store = wanted("again.and.again@people.example"), opened(max_records=2)
    finding = store.find([asked])
    assert (len(finding.records["r1"]), finding.too_many) == (2, frozenset({"r1"}))
    finding = store.find([replace(asked, every=True)])
    assert (len(finding.records["r1"]), finding.too_many) == (4, frozenset())


def _enter_as_it_is(crm: Crm, address: str) -> str:
    """Let an import write an address past Tryton's own tidying; return the party's key."""
    person = crm.person()
    crm.sql(
        "UPDATE party_contact_mechanism SET value = ?, value_compact = ? WHERE party = ?",
        *(address, address, person.party),
    )
    return str(person.party)


def test_a_request_never_finds_the_party_of_another_address(crm: Crm, store: TrytonStore) -> None:
    addresses = sorted({one for pair in TWO_PERSONS for one in pair})
    key_of = {address: _enter_as_it_is(crm, address) for address in addresses}
    asked = [one for one in addresses if " " not in one]
    finding = store.find([wanted(one, request=one) for one in asked])
    assert {one: [r.key for r in finding.records[one]] for one in asked} == {
        one: [key_of[one]] for one in asked
    }


def test_a_party_is_found_in_every_spelling_of_the_address(crm: Crm, opened: Opened) -> None:
    store = opened(max_records=100)
    for one, other in ONE_PERSONS:
        spelt = {one, other, *(unicodedata.normalize("NFD", held) for held in (one, other))}
        keys = {_enter_as_it_is(crm, around) for held in spelt for around in (held, f" {held}\u200b")}
        for asked in (one, other):
            records = store.find([wanted(asked)]).records["r1"]
            assert keys <= {record.key for record in records}, ascii(asked)


def test_blanks_around_an_address_neither_hide_a_party_nor_the_witness(crm: Crm, opened: Opened) -> None:
    keys = [
        _enter_as_it_is(crm, held)
        for held in (" blank@blanks.example", "Blank@blanks.example\u00a0", "\tBLANK@blanks.example\r\n")
    ]
    _enter_as_it_is(crm, "x blank@blanks.example")
    for canary in (CANARY, None):
        records = opened(canary=canary).find([wanted("blank@blanks.example")]).records["r1"]
        assert [record.key for record in records] == keys
    first = crm.sql("SELECT min(id) FROM party_contact_mechanism WHERE type = 'email'")[0][0]
    crm.sql("UPDATE party_contact_mechanism SET value = ' ' || value WHERE id = ?", first)
    assert opened(canary=None).find([wanted("nobody@people.example")]).proof == "witness"
    crm.sql("UPDATE party_contact_mechanism SET value = trim(value) WHERE id = ?", first)


def test_a_search_that_takes_letters_for_others_neither_finds_nor_stops_anybody(
    crm: Crm, opened: Opened, liar: Liar
) -> None:
    plain, accented = _enter_as_it_is(crm, "zoë.é@un.example"), _enter_as_it_is(crm, "zoe.e@un.example")

    def unaccented(question: dict[str, Any], ask: Callable[[Any], Any]) -> Any:
        """Answer as a Tryton on PostgreSQL with the extension unaccent."""
        asked = json.dumps(question, ensure_ascii=False)
        return ask(json.loads(asked.replace("zoë.é@", "zo_._@").replace("zoe.e@", "zo_._@")))

    liar.lie = unaccented
    store = opened(liar.url)
    assert found(store, "zoë.é@un.example").key == plain
    assert found(store, "zoe.e@un.example").key == accented


def test_a_request_by_key_alone_can_not_be_asked_here(store: TrytonStore) -> None:
    by_key = Wanted("r1", (Identifier(IdentifierKind.PRIMARY_KEY, PersonalText("4711")),))
    finding = store.find([by_key, wanted("nobody@people.example", request="r2")])
    assert finding.unaskable == {"r1"}
    assert finding.records == {}


def test_without_the_canary_nobody_is_absent(crm: Crm, opened: Opened) -> None:
    person = crm.person()
    store = opened(canary="no.canary@site.example")
    for email in (person.email, "nobody@people.example"):
        with pytest.raises(AnswerUntrusted):
            store.find([wanted(email)])
    with pytest.raises(AnswerUntrusted):
        store.prove()


def test_where_no_canary_is_named_somebody_who_is_there_must_be_found(crm: Crm, opened: Opened) -> None:
    assert opened(canary=None).find([wanted("nobody@people.example")]).proof == "witness"
    assert opened(canary=None, database="hrm").find([wanted("nobody@people.example")]).proof == "empty"


def test_the_proof_says_what_is_cleared_and_that_there_is_no_journal(store: TrytonStore) -> None:
    proof = store.prove()
    assert proof.journal is JournalSupport.NOT_SUPPORTED
    assert proof.proved.mapping.table == "party.party"
    assert proof.keys_may_repeat == ("party.party.id",)
    # Nobody may delete sent mails in a Tryton as it is installed.
    assert proof.lookalikes == ("ir.email.resource",)
    observed = store.observe()
    assert (observed.head, observed.identity.server, observed.identity.tables) == (None, {}, {})


def test_a_wrong_password_names_the_secret_and_nothing_of_it(opened: Opened) -> None:
    store = opened(password="wrong horse")
    with pytest.raises(StoreUnreachable, match="credentialsSecretRef") as caught:
        store.prove()
    assert "wrong horse" not in repr(caught.value) + repr(store)


def test_a_database_that_is_not_there_and_a_server_that_is_not_there_are_unreachable(opened: Opened) -> None:
    with pytest.raises(StoreUnreachable):
        opened(database="sales").observe()
    with pytest.raises(StoreUnreachable):
        opened("http://127.0.0.1:9").observe()


def test_a_url_that_is_not_one_is_refused(opened: Opened) -> None:
    for url in ("ftp://crm.example", "crm.example", "http://crm.example/?database=crm"):
        with pytest.raises(ValueError, match=r"spec\.tryton\.url"):
            opened(url)


def test_a_session_that_ended_is_renewed(crm: Crm, store: TrytonStore) -> None:
    store.observe()
    restarted = crm.server
    crm.sql("DELETE FROM ir_session")
    restarted.stop()
    restarted.start()
    store.observe()


def test_a_user_who_may_not_erase_is_told_so_before_anything_is_erased(crm: Crm, opened: Opened) -> None:
    crm.rpc("model.res.user.create", [{"name": "Reader", "login": "reader", "password": "reads, only reads"}])
    with pytest.raises(StoreUnreachable, match="Party Administration"):
        opened(username="reader", password="reads, only reads").prove()


def test_no_address_reaches_a_url_or_trytons_log_at_the_level_info(crm: Crm, store: TrytonStore) -> None:
    person = crm.person()
    store.observe()
    before = crm.server.log_path.stat().st_size
    record = found(store, person.email)
    store.erase([tombstone(record)], match_unchanged_rows(FINGERPRINTS), move=None)
    log = crm.server.log_path.read_bytes()[before:].decode()
    assert "party.contact_mechanism.search_read" in log
    for text in (person.email, person.mark, CANARY):
        assert text[:8].lower() not in log.lower()
