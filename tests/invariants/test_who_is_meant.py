"""Whom a request means: nobody of a like address, all rows of the same one, and a person where in doubt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lethe.domain.requests import StoreState
from lethe.domain.trust import EARLIER_ERASURE, NOTHING_TO_ASK_BY, BlockReason
from tests.contracts.addresses import TWO_PERSONS
from tests.invariants.company import STORE, Company
from tests.invariants.conftest import MakeCrm
from tests.invariants.court import BY_EMAIL, BY_KEY, ONLY_KEY, Court


def _together(company: Company, *emails: str, confirmed: tuple[str, ...] = ()) -> list[str]:
    """Let people share an address, and one of them ask to be erased."""
    company.sql("ALTER TABLE users DROP CONSTRAINT users_email_key")
    people = [company.sign_up(email) for email in emails]
    company.request("r", email=emails[0].strip(), confirmed=confirmed)
    company.visit_until_safe()
    return people


def test_nobody_is_erased_for_an_address_that_only_looks_like_hers(company: Company) -> None:
    pairs = [pair for pair in TWO_PERSONS if " " not in pair[0]]
    people = {}
    for number, (asked, held) in enumerate(pairs):
        if not company.sql("SELECT 1 FROM users WHERE email = %s", held):
            person = company.sign_up(held)
            people[person] = company.row_of(person)
        company.request(f"r{number}", email=asked)
    held_too = {held for _, held in pairs}
    company.visit_until_safe()
    for person, row in people.items():
        assert company.row_of(person) == row
    for number, (asked, _) in enumerate(pairs):
        if asked not in held_too:
            assert company.record(f"r{number}").progress(STORE).state is StoreState.NOT_FOUND


@pytest.mark.parametrize("held", [" ada@x.example", "ada@x.example ", "\tAda@x.example\u00a0"])
def test_blanks_around_a_stored_address_do_not_keep_it_from_being_erased(company: Company, held: str) -> None:
    ada = company.sign_up(held)
    company.request("ada", email="ada@x.example")
    company.visit_until_safe()
    assert company.is_cleared(ada)
    assert company.erased("ada")


def test_a_hold_on_an_address_holds_it_in_every_spelling_and_nobody_else(company: Company) -> None:
    court = Court(company)
    held, other = company.sign_up("\tanna@WAẞERWERK.example"), company.sign_up("anna@wasserwerk.example")
    court.hold("le-1", email="anna@xn--waerwerk-rya.example")
    for name, person in (("held", held), ("other", other)):
        company.request(name, key=company.key_of(person))
    company.visit_until_safe()
    assert not company.is_cleared(held)
    assert company.is_cleared(other)


def test_a_person_who_comes_back_in_another_spelling_is_the_same(company_without_created_at: Company) -> None:
    company = company_without_created_at
    ada = company.sign_up("ada@bücher.example")
    company.request("ada", email="Ada@xn--bcher-kva.example.")
    company.visit_until_safe()
    row = company.row_of(ada)
    assert row is not None
    company.write_back(ada, row | {"first_name": "Ada", "email": " ADA@BU\u0308CHER.example"})
    company.visit()
    assert company.is_cleared(ada)


def test_all_records_of_one_address_are_erased_once_a_person_says_so_or_none(company: Company) -> None:
    people = _together(company, *["noreply@x.example"] * 9)
    rows = [company.row_of(person) for person in people]
    assert company.store.blockers["uid-r"].reason is BlockReason.FIND_UNTRUSTED
    assert [company.row_of(person) for person in people] == rows
    company.apply("r", "TooManyRecords")
    company.visit_until_safe()
    assert all(company.is_cleared(person) for person in people)
    assert company.erased("r")


def test_of_three_thousand_records_of_one_address_none_stays_when_erased(company: Company) -> None:
    company.sql("ALTER TABLE users DROP CONSTRAINT users_email_key")
    company.sql(
        "INSERT INTO users (email, person) SELECT 'many@x.example', gen_random_uuid()"
        " FROM generate_series(1, 3000)"
    )
    company.store.description = replace(company.store.description, max_records=1_000)
    company.request("r", email="many@x.example")
    company.visit_until_safe()
    assert company.store.blockers["uid-r"].reason is BlockReason.FIND_UNTRUSTED
    assert company.sql("SELECT count(*) FROM users WHERE email = 'many@x.example'") == [(3_000,)]
    company.apply("r", "TooManyRecords")
    company.visit_until_safe()
    assert company.erased("r")
    assert company.sql("SELECT count(*) FROM users WHERE email = 'many@x.example'") == [(0,)]


def test_a_family_with_one_address_asks_a_person_and_names_each_row(company: Company) -> None:
    people = _together(company, "family@x.example", "Family@x.example", " family@x.example ")
    rows = [company.row_of(person) for person in people]
    company.visit()
    blocker = company.store.blockers["uid-r"]
    assert blocker.reason is BlockReason.SHARED_RECORD
    assert "users " + ", ".join(str(company.key_of(person)) for person in people) in blocker.message
    assert [company.row_of(person) for person in people] == rows
    company.apply("r", "SharedRecord")
    company.visit_until_safe()
    assert company.erased("r")
    assert all(company.is_cleared(person) for person in people)


def test_where_an_address_has_one_owner_all_its_records_are_erased_unasked(company: Company) -> None:
    company.store.description = replace(company.store.description, one_owner_per_address=True)
    people = _together(company, "ada@x.example", "Ada@x.example")
    assert company.erased("r")
    assert all(company.is_cleared(person) for person in people)


def test_a_row_that_a_key_links_does_not_vouch_for_another_one_of_its_address(
    company: Company, make_crm: MakeCrm
) -> None:
    crm = make_crm("crm", BY_KEY)
    ada, bob = company.sign_up("ada@x.example"), company.sign_up("bob@x.example")
    crm.copy(ada, email="ada@x.example")
    crm.copy(bob, email="ada@x.example")
    bobs = crm.row_of(bob)
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    crm.visit()
    assert crm.store.blockers["uid-ada"].reason is BlockReason.SHARED_RECORD
    assert crm.row_of(bob) == bobs
    assert not company.erased("ada")


@pytest.mark.parametrize("left", [None, "", "deleted", "deleted-1@anonymous.invalid", "anonymous@x.example"])
def test_a_store_that_could_not_be_asked_has_not_confirmed(
    company: Company, make_crm: MakeCrm, left: str | None
) -> None:
    crm = make_crm("crm", BY_EMAIL)
    company.sql("ALTER TABLE users ALTER email DROP NOT NULL, DROP CONSTRAINT users_email_key")
    ada, bob = company.sign_up("ada@x.example"), company.sign_up("anonymous@x.example")
    crm.copy(ada)
    crm.copy(bob)
    hers, bobs = crm.row_of(ada), crm.row_of(bob)
    company.sql("UPDATE users SET email = %s WHERE person = %s", left, ada)
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    crm.visit()
    assert company.is_cleared(ada)
    assert (crm.row_of(ada), crm.row_of(bob)) == (hers, bobs)
    assert company.record("ada").progress(crm.store.name).proof == NOTHING_TO_ASK_BY
    assert not company.erased("ada")
    blocker = company.complete()["uid-ada"].blocker
    assert blocker is not None
    assert blocker.reason is BlockReason.NOTHING_TO_ASK_BY
    assert "crm" in blocker.message
    company.apply("ada", "NothingToAskBy")
    company.complete()
    assert company.erased("ada")


def test_who_was_erased_everywhere_is_not_asked_about_again(company: Company, make_crm: MakeCrm) -> None:
    linked, by_email = make_crm("linked", ONLY_KEY), make_crm("byemail", BY_EMAIL)
    ada = company.sign_up("ada@x.example")
    key = company.key_of(ada)
    for crm in (linked, by_email):
        crm.copy(ada)
    for name, more in (
        ("first", {"key": key}),
        ("by-id", {"key": key}),
        ("by-email", {"email": "Ada@x.example"}),
    ):
        company.request(name, **more)
        company.visit_until_safe()
        for crm in (linked, by_email):
            crm.visit()
        assert company.erased(name), name
    assert company.record("by-id").progress(by_email.store.name).proof == EARLIER_ERASURE
    assert company.record("by-email").progress(linked.store.name).proof == EARLIER_ERASURE
    later = make_crm("later", ONLY_KEY)
    company.request("again", email="ada@x.example")
    company.visit_until_safe()
    for crm in (linked, by_email, later):
        crm.visit()
    assert not company.erased("again"), "nobody has ever looked for her there"
