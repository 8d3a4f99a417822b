"""How the store says that a party is reached."""

import pytest

from lethe.adapters.stores.tryton import TrytonStore
from lethe.domain.identifiers import Identifier, IdentifierKind, PersonalText
from lethe.ports.stores import AnswerUntrusted, Contact, Wanted
from tests.adapters.stores.tryton.conftest import CANARY, Crm, Opened, wanted
from tests.adapters.stores.tryton.liar import Liar, result_of


def test_the_language_of_a_party_is_its_locale(crm: Crm, store: TrytonStore) -> None:
    (german,) = crm.rpc("model.ir.lang.search", [["code", "=", "de"]], 0, 1, None)
    person, silent = crm.person(lang=german), crm.person(lang=None)
    contacts = store.contacts([wanted(person.email), wanted(silent.email, request="silent")])
    assert [(one.key, one.locale, one.time_zone) for one in contacts["r1"]] == [
        (str(person.party), "de", None)
    ]
    assert [(one.key, one.locale) for one in contacts["silent"]] == [(str(silent.party), None)]


def test_a_name_of_blanks_is_none_and_a_line_break_is_a_blank(crm: Crm, store: TrytonStore) -> None:
    blank, broken = crm.person(), crm.person()
    for text, person in (("  ", blank), (" Ada\n Doe ", broken)):
        crm.sql("UPDATE party_party SET name = ? WHERE id = ?", text, person.party)
    contacts = store.contacts([wanted(blank.email), wanted(broken.email, request="broken")])
    assert contacts["r1"][0].name is None
    name = contacts["broken"][0].name
    assert name is not None
    assert name.reveal() == "Ada Doe"


def test_every_party_of_an_address_is_a_contact_up_to_maxrecords(crm: Crm, opened: Opened) -> None:
    keys = [str(crm.person("many.times@people.example").party) for _ in range(4)]
    contacts = opened(max_records=2).contacts([wanted("Many.Times@people.example")])
    assert [one.key for one in contacts["r1"]] == keys[:2]


def test_of_several_addresses_the_one_that_was_searched_for_is_written_to(
    crm: Crm, store: TrytonStore
) -> None:
    crm.person("at.home@people.example", "At.Work@people.example")
    (contact,) = store.contacts([wanted("at.work@people.example")])["r1"]
    assert contact.email is not None
    assert contact.email.reveal() == "At.Work@people.example"


def test_whom_trytons_wizard_erased_is_not_written_to_at_the_copy_that_it_leaves(
    crm: Crm, store: TrytonStore
) -> None:
    person = crm.person()
    crm.sql("UPDATE party_contact_mechanism SET value = '****' WHERE party = ?", person.party)
    contacts = store.contacts([wanted(person.email)])
    assert contacts["r1"] == (Contact("party.party", str(person.party), None, cleared=True),)


def test_a_request_by_key_alone_reaches_nobody_here(crm: Crm, store: TrytonStore) -> None:
    key = Identifier(IdentifierKind.PRIMARY_KEY, PersonalText(crm.person().email))
    assert store.contacts([Wanted("r1", (key,))]) == {}


def test_contacts_are_not_trusted_without_the_canary(crm: Crm, opened: Opened) -> None:
    person = crm.person()
    with pytest.raises(AnswerUntrusted):
        opened(canary="no.canary@site.example").contacts([wanted(person.email)])


@pytest.mark.parametrize(("model", "field"), [("party.party", "lang"), ("ir.lang", "code")])
def test_a_language_that_was_not_asked_for_is_not_believed(
    crm: Crm, liar: Liar, opened: Opened, model: str, field: str
) -> None:
    person = crm.person()

    def lie(question, ask):  # type: ignore[no-untyped-def]
        answer = ask(question)
        if question["method"] != f"model.{model}.search_read" or question["params"][4] != ["id", field]:
            return answer
        return [row | {"id": row["id"] + 1_000} for row in result_of(answer)]

    liar.lie = lie
    with pytest.raises(AnswerUntrusted, match="not asked for"):
        opened(liar.url).contacts([wanted(person.email)])


def test_sixty_persons_take_as_many_questions_about_languages_as_two_batches(
    crm: Crm, liar: Liar, opened: Opened
) -> None:
    persons = [crm.person() for _ in range(60)]
    contacts = opened(liar.url).contacts([wanted(one.email, request=one.mark) for one in persons])
    assert {mark: one.locale for mark, (one,) in contacts.items()} == {one.mark: "en" for one in persons}
    asked = [(question["method"], question["params"][4:5]) for question in liar.questions]
    assert asked.count(("model.party.party.search_read", [["id", "lang"]])) == 2
    assert asked.count(("model.ir.lang.search_read", [["id", "code"]])) == 2


def test_no_address_reaches_trytons_log_at_the_level_info(crm: Crm, store: TrytonStore) -> None:
    person = crm.person()
    store.observe()
    before = crm.server.log_path.stat().st_size
    assert store.contacts([wanted(person.email)])
    log = crm.server.log_path.read_bytes()[before:].decode()
    assert "ir.lang.search_read" in log
    for text in (person.email, person.mark, CANARY):
        assert text[:8].lower() not in log.lower()
