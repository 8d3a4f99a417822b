"""Invariants 2 and 12: whom a replay, and a request that waited, may touch when keys were given out again."""

from __future__ import annotations

from dataclasses import replace
from typing import LiteralString

import psycopg
import pytest

from lethe.domain.mapping import ClearRule, ClearTo, PiiKind, StoreRole, SubjectMapping
from lethe.domain.trust import BlockReason
from lethe.workflows.restore.replay import ReplayState
from tests.invariants.company import STORE, Company, PowerCut
from tests.invariants.conftest import MakeCompany


def test_who_was_given_an_erased_key_after_a_restore_is_left_alone(company: Company) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    bob = company.sign_up("bob@x.example")
    key = company.key_of(bob)
    company.request("bob", key=key)
    company.visit_until_safe()
    company.restore(before, "volume")
    newcomer = company.sign_up("bob@x.example")
    assert company.key_of(newcomer) == key, "the restored sequence gives the key out again"
    row = company.row_of(newcomer)
    company.visit_until_safe()
    assert company.row_of(newcomer) == row
    assert company.last_episode().left_alone == 1


def test_the_known_attack_x_had_the_key_y_is_erased_with_it_x_comes_back_and_stays(
    company: Company,
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    x = company.sign_up("x@x.example")
    key = company.key_of(x)
    with_x = company.snapshot()
    row = company.row_of(x)
    company.restore(before, "volume")
    y = company.sign_up("y@x.example")
    assert company.key_of(y) == key
    company.visit_until_safe()
    company.request("y", key=key)
    company.visit_until_safe()
    assert company.erased("y")
    company.restore(with_x, "volume")
    company.visit_until_safe()
    assert company.row_of(x) == row
    assert company.last_episode().left_alone == 1


@pytest.mark.parametrize("who", ["one by one", "all"])
@pytest.mark.parametrize("decision", ["Erase", "LeaveAlone"])
def test_without_created_at_a_person_decides_and_the_gate_stays_closed_until_then(
    company_without_created_at: Company, decision: str, who: str
) -> None:
    company = company_without_created_at
    ada = company.sign_up("ada@old.example")
    stays = company.sign_up("stays@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.sql("UPDATE users SET email = 'ada@new.example' WHERE person = %s", ada)
    company.request("ada", email="ada@new.example")
    company.visit_until_safe()
    rows = company.snapshot().rows["users"]
    assert b"ada@" not in rows
    company.restore(before, "truncated")
    visit = company.visit_until(ReplayState.IDENTITY_UNCLEAR)
    assert f"users {company.key_of(ada)}" in (visit.step.message if visit.step else "")
    for _ in range(3):
        assert not company.visit().safe
    assert not company.is_cleared(ada)
    key = company.key_of(ada) if who == "one by one" else "*"
    company.decide(key, decision, table="users" if who == "one by one" else "*")
    company.visit()
    assert company.episode() is None
    assert company.is_cleared(ada) is (decision == "Erase")
    assert not company.is_cleared(stays)


def test_a_person_may_correct_a_decision_before_it_is_acted_upon(
    company_without_created_at: Company,
) -> None:
    company = company_without_created_at
    ada = company.sign_up("ada@old.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.sql("UPDATE users SET email = 'ada@new.example' WHERE person = %s", ada)
    company.request("ada", email="ada@new.example")
    company.visit_until_safe()
    company.restore(before, "truncated")
    company.visit_until(ReplayState.IDENTITY_UNCLEAR)
    company.decide(company.key_of(ada), "Erase")
    company.decide(company.key_of(ada), "LeaveAlone")
    row = company.row_of(ada)
    company.visit()
    assert company.episode() is None
    assert company.row_of(ada) == row


@pytest.mark.parametrize("created_at", ["created_at", None])
def test_another_database_behind_the_same_url_is_not_touched(
    make_company: MakeCompany, created_at: str | None
) -> None:
    mapping = replace(make_company().mapping, created_at=created_at)
    company = make_company(mapping)
    people = [company.sign_up(f"p{n}@x.example") for n in range(4)]
    for n, person in enumerate(people):
        company.request(f"r{n}", key=company.key_of(person))
    company.visit_until_safe()
    staging = make_company(mapping)
    strangers = [staging.sign_up(f"s{n}@staging.example") for n in range(4)]
    copy = staging.snapshot()
    assert [staging.key_of(s) for s in strangers] == [company.key_of(p) for p in people]

    company.restore(copy, "new-database")

    rows = [company.row_of(stranger) for stranger in strangers]
    for _ in range(6):
        company.visit()
    assert [company.row_of(stranger) for stranger in strangers] == rows
    episode = company.last_episode()
    if created_at is None:
        assert episode.open
        assert episode.unclear == 4
    else:
        assert not episode.open
        assert episode.left_alone == 4


def _blocker(company: Company, name: str) -> BlockReason | None:
    blocker = company.store.blockers.get(f"uid-{name}")
    return blocker.reason if blocker else None


@pytest.mark.parametrize("way", ["volume", "new-database", "tables", "before-the-journal"])
def test_a_request_by_id_that_waited_while_the_key_changed_hands_waits_for_a_person(
    company: Company, way: str
) -> None:
    before = company.snapshot()
    company.visit_until_safe()
    if way != "before-the-journal":
        before = company.snapshot()
    x = company.sign_up("x@x.example")
    key = company.key_of(x)
    company.visit_until_safe()
    company.request("x", key=key)
    company.restore(before, "new-database" if way == "before-the-journal" else way)
    y = company.sign_up("y@x.example")
    assert company.key_of(y) == key
    row = company.row_of(y)
    for _ in range(7):
        company.visit()
    assert company.episode() is None
    assert company.row_of(y) == row, "she never asked"
    assert _blocker(company, "x") is BlockReason.KEY_ABOVE_RESTORE
    company.apply("x", "KeyAboveRestore")
    company.visit_until_safe()
    assert company.is_cleared(y), "a person said that it is she"


def test_a_request_by_id_accepted_only_after_the_restore_was_seen_waits_too(
    company: Company,
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    x = company.sign_up("x@x.example")
    key, asked_at = company.key_of(x), company.now
    company.visit_until_safe()
    company.restore(before, "volume")
    y = company.sign_up("y@x.example")
    assert company.key_of(y) == key
    company.visit_until_safe()
    company.request("x", key=key, requested_at=asked_at)
    for _ in range(3):
        company.visit()
    assert not company.is_cleared(y)
    assert _blocker(company, "x") is BlockReason.KEY_ABOVE_RESTORE


def test_a_key_of_two_people_in_turn_is_in_doubt_after_a_restore_to_the_firsts_time(
    company: Company,
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    x = company.sign_up("x@x.example")
    key = company.key_of(x)
    company.visit()
    with_x = company.snapshot()
    company.restore(before, "volume")
    y = company.sign_up("y@x.example")
    assert company.key_of(y) == key
    company.visit_until_safe()
    company.request("y", key=key)
    company.restore(with_x, "volume")
    row = company.row_of(x)
    for _ in range(7):
        company.visit()
    assert company.episode() is None
    assert company.row_of(x) == row, "she never asked"
    assert _blocker(company, "y") is BlockReason.KEY_ABOVE_RESTORE


def test_a_request_by_email_does_not_follow_a_linked_key_that_was_given_out_again(company: Company) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    x = company.sign_up("x@x.example")
    key = company.key_of(x)
    company.visit_until_safe()
    company.request("x", email="x@x.example")
    erase = company.store.port._inner.erase  # type: ignore[attr-defined]

    def cut(*args: object, **options: object) -> None:
        raise PowerCut("before erase")

    company.store.port._inner.erase = cut  # type: ignore[attr-defined]
    with pytest.raises(PowerCut):
        company.visit()
    company.store.port._inner.erase = erase  # type: ignore[attr-defined]
    company.power_cut()
    assert str(company.record("x").progress(STORE).state) == "Intended"
    company.restore(before, "volume")
    y = company.sign_up("y@x.example")
    assert company.key_of(y) == key
    row = company.row_of(y)
    for _ in range(8):
        company.visit()
    assert company.episode() is None
    assert company.row_of(y) == row, "she never asked"


CRM = SubjectMapping(
    table="contacts",
    key="id",
    identifiers={"primaryKey": "user_id"},
    clear=(ClearRule("name", PiiKind.LAST_NAME, ClearTo.SET_NULL),),
)


def test_a_store_linked_by_key_does_not_follow_a_key_that_was_given_out_again(
    company: Company, database: str
) -> None:
    crm_sql = Crm(database)
    crm = company.join("crm", StoreRole.CRM, database, CRM)
    company.prove(crm)
    company.visit_until_safe()
    before = company.snapshot()
    x = company.sign_up("x@x.example")
    key = company.key_of(x)
    company.request("x", key=key)
    company.visit_until_safe()  # the CRM is away meanwhile
    company.restore(before, "volume")
    y = company.sign_up("y@x.example")
    assert company.key_of(y) == key
    company.visit_until_safe()
    crm_sql.run("INSERT INTO contacts (user_id, name) VALUES (%s, 'Y')", key)
    company.prove(crm)
    company.serve(crm)
    assert crm_sql.run("SELECT name FROM contacts") == [("Y",)]
    assert crm.blockers["uid-x"].reason is BlockReason.KEY_ABOVE_RESTORE
    assert company.record("x").open


class Crm:
    """A CRM whose contacts carry the Primary's key."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.run("CREATE TABLE contacts (id serial PRIMARY KEY, user_id integer UNIQUE, name text)")

    def run(self, statement: LiteralString, *values: object) -> list[tuple[object, ...]]:
        with psycopg.connect(self._url, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []


def test_sequences_move_to_the_highest_position_a_head_recorded_and_never_back(
    company: Company,
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    for n in range(5):
        company.sign_up(f"p{n}@x.example")
    company.visit_until_safe()
    highest = company.sql("SELECT last_value FROM users_id_seq")[0][0]
    company.restore(before, "volume")
    assert company.sql("SELECT last_value FROM users_id_seq")[0][0] < highest
    company.visit_until_safe()
    assert company.sql("SELECT last_value FROM users_id_seq")[0][0] == highest
    company.sql("SELECT setval('users_id_seq', %s)", highest + 100)
    company.restore(company.snapshot(), "truncated")
    company.visit_until_safe()
    assert company.sql("SELECT last_value FROM users_id_seq")[0][0] == highest + 100


def test_an_erased_key_that_was_a_typing_error_does_not_end_sign_ups(company: Company) -> None:
    typo = company.sign_up("typo@x.example", key=2_000_000_000)
    company.request("typo", key=2_000_000_000)
    company.visit_until_safe()
    company.restore(company.snapshot(), "truncated")
    company.visit_until_safe()
    assert company.is_cleared(typo)
    assert company.key_of(company.sign_up("next@x.example")) < 1000


@pytest.mark.parametrize(
    "changed",
    [
        "UPDATE users SET created_at = clock_timestamp()",
        "UPDATE users SET created_at = created_at + interval '2 hours'",
        "ALTER TABLE users ALTER created_at TYPE timestamptz(0)",
        "ALTER TABLE users ALTER created_at TYPE text",
    ],
    ids=["trigger", "time-zone", "precision", "type"],
)
@pytest.mark.parametrize("way", ["volume", "truncated", "new-database", "tables"])
def test_an_erased_persons_address_under_her_key_is_asked_about_though_created_at_moved(
    company: Company, way: str, changed: str
) -> None:
    company.visit_until_safe()
    ada, bob = company.sign_up("ada@x.example"), company.sign_up("bob@x.example")
    company.visit()
    company.visit()
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.restore(before, way)
    company.sql(changed)
    row = company.row_of(bob)
    company.visit_until(ReplayState.IDENTITY_UNCLEAR)
    assert not company.is_cleared(ada)
    company.decide("*", "Erase", table="*")
    company.visit_until_safe()
    assert company.is_cleared(ada)
    assert company.row_of(bob) == row, "she never asked"


def test_a_row_whose_created_at_moved_without_a_restore_is_asked_about(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    row = company.row_of(ada)
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    assert row is not None
    company.sql("UPDATE users SET created_at = created_at + interval '1 hour'")
    company.visit_until_safe()
    company.write_back(ada, row)
    assert company.visit().opened
    company.visit_until(ReplayState.IDENTITY_UNCLEAR)


@pytest.mark.parametrize("way", ["volume", "truncated", "new-database"])
def test_who_signs_up_again_under_her_old_key_and_address_is_left_alone_and_told(
    company: Company, way: str
) -> None:
    company.visit_until_safe()
    company.sign_up("somebody@x.example")
    company.visit()
    before = company.snapshot()
    bob = company.sign_up("bob@x.example")
    key = company.key_of(bob)
    company.visit()
    company.request("bob", key=key)
    company.visit_until_safe()
    company.restore(before, way)
    newcomer = company.sign_up("bob@x.example")
    assert company.key_of(newcomer) == key
    row = company.row_of(newcomer)
    company.visit_until_safe()
    assert (company.last_episode().left_alone, company.last_episode().same_address) == (1, 1)
    with_her = company.snapshot()
    for _ in range(3):
        assert company.visit().safe
    company.sign_up("moves-the-head@x.example")
    company.visit()
    company.restore(with_her, way)
    company.visit_until_safe()
    assert company.row_of(newcomer) == row
    assert (company.last_episode().left_alone, company.last_episode().same_address) == (1, 1)
