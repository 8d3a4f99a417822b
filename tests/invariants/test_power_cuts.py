"""A pass that dies before or after any of its side effects goes on, and its counts are exact."""

from __future__ import annotations

import itertools

import pytest

from lethe.ports.stores import JournalEntry
from lethe.workflows.store_session import LONGEST_PAUSE
from tests.invariants.company import STORE, Company
from tests.invariants.conftest import MakeCompany


@pytest.mark.parametrize("way", ["volume", "new-database"])
def test_a_replay_that_dies_at_any_moment_goes_on_and_counts_exactly(company: Company, way: str) -> None:
    people = [company.sign_up(f"p{n}@x.example") for n in range(3)]
    stays = company.sign_up("stays@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    for n, person in enumerate(people):
        company.request(f"r{n}", key=company.key_of(person))
    company.visit_until_safe()
    untouched = company.row_of(stays)
    names: list[str] = []
    for moment in itertools.count(1):
        company.restore(before, way)
        cut = company.cut_at(moment, company.visit_until_safe)
        company.visit_until_safe()
        episode = company.last_episode()
        assert (episode.missing, episode.re_erased, episode.unclear) == (3, 3, 0), company.fuse.names
        assert episode.rows == {"users": 3, "sessions": 3, "comments": 3}
        assert len(company.real_ledger.episodes()) == moment, "a crash is no further restore"
        assert all(company.is_cleared(person) for person in people)
        assert company.row_of(stays) == untouched
        if not cut:
            names = company.fuse.names
            break
    assert "after erase" in names
    assert "after tick" in names
    company.real_ledger.verify()


def test_an_erasure_that_dies_at_any_moment_goes_on_and_counts_exactly(company: Company) -> None:
    company.visit_until_safe()
    for moment in itertools.count(1):
        email = f"p{moment}@x.example"
        person = company.sign_up(email)
        company.request(f"r{moment}", email=email)
        cut = company.cut_at(moment, company.visit)
        company.visit_until_safe()
        company.visit_until_safe()
        record = company.record(f"r{moment}")
        assert str(record.outcome) == "Erased"
        assert record.stores[STORE].counts == {"users": 1, "sessions": 1, "comments": 1}
        assert company.is_cleared(person)
        assert not company.real_ledger.episodes(), "a crash is no restore"
        if not cut:
            break
    assert moment > 8


@pytest.mark.parametrize("moment", range(1, 13))
def test_a_restore_while_the_operator_lies_dead_in_an_erasure_is_told_from_a_crash(
    company: Company, moment: int
) -> None:
    ada, bob = company.sign_up("ada@x.example"), company.sign_up("bob@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.visit_until_safe()
    company.request("ada", key=company.key_of(ada))
    company.cut_at(moment, company.visit)
    company.restore(before, "volume")
    for _ in range(8):
        company.visit()
    assert len(company.real_ledger.episodes()) == 1
    assert company.erased("ada")
    assert company.full_scan() == {ada: True, bob: False}


def test_one_poisoned_request_of_many_does_not_stop_the_others(make_company: MakeCompany) -> None:
    company = make_company()
    company.sql(
        "ALTER TABLE users ADD CONSTRAINT stubborn CHECK (email NOT LIKE 'erased-%' OR last_name IS NOT NULL "
        "OR id <> 3)"
    )
    people = [company.sign_up(f"p{n}@x.example") for n in range(1, 9)]
    for n, person in enumerate(people, 1):
        company.request(f"r{n}", key=company.key_of(person))
    for _ in range(3):
        company.visit()
    assert [company.erased(f"r{n}") for n in range(1, 9)] == [n != 3 for n in range(1, 9)]
    blocker = company.store.blockers["uid-r3"]
    assert (blocker.reason.value, "stubborn" in blocker.message) == ("ValueRefused", True)
    assert "p3@" not in blocker.message
    assert not company.is_cleared(people[2])
    company.sql("ALTER TABLE users DROP CONSTRAINT stubborn")
    company.now += LONGEST_PAUSE
    company.visit()
    assert company.erased("r3")


def test_one_poisoned_person_of_a_replay_keeps_the_gate_closed_and_stops_nobody_else(
    company: Company,
) -> None:
    people = [company.sign_up(f"p{n}@x.example") for n in range(1, 6)]
    company.visit_until_safe()
    before = company.snapshot()
    for n, person in enumerate(people, 1):
        company.request(f"r{n}", key=company.key_of(person))
    company.visit_until_safe()
    company.restore(before, "volume")
    company.sql("ALTER TABLE users ADD CONSTRAINT stubborn CHECK (email NOT LIKE 'erased-%' OR id <> 3)")
    for _ in range(6):
        assert not company.visit().safe
    assert [company.is_cleared(person) for person in people] == [n != 3 for n in range(1, 6)]
    company.sql("ALTER TABLE users DROP CONSTRAINT stubborn")
    company.visit_until_safe()
    assert company.is_cleared(people[2])
    assert company.last_episode().re_erased == 5


def test_the_same_person_asked_for_twice_is_erased_once(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.request("by-id", key=company.key_of(ada))
    company.request("by-email", email="ADA@x.example")
    company.visit_until_safe()
    company.visit_until_safe()
    company.request("again", key=company.key_of(ada))
    company.request("again-by-email", email="ada@x.example")
    company.visit_until_safe()
    names = ("by-id", "by-email", "again", "again-by-email")
    assert all(company.erased(name) for name in names)
    counted = [company.record(name).stores[STORE].counts.get("users", 0) for name in names]
    assert counted == [1, 0, 0, 0]
    wired = company.journal.journaled_numbers()
    assert sum(len(chunk) for chunk in wired) == 1
    assert company.journal.entries_of(0) == tuple[JournalEntry, ...]()
