"""Invariant 1 over time: what is called erased, absent or safe is dated when that was read.

A snapshot of the store that began before may still hold the person.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from lethe.domain.facts import DetectedBy, Reerased
from lethe.domain.requests import StoreState
from lethe.domain.trust import BlockReason
from lethe.workflows.restore import detect
from lethe.workflows.restore.replay import ReplayState
from tests.invariants.company import STORE, Company

LONG = timedelta(minutes=10)


def take_long(company: Company, what: str) -> None:
    """Let each answer of the store to this call come ten minutes later."""
    inner: Any = company.store.port._inner  # type: ignore[attr-defined]
    quick = getattr(inner, what)

    def slow(*args: object, **options: object) -> object:
        answer = quick(*args, **options)
        company.now += LONG
        return answer

    setattr(inner, what, slow)


def last_reerased(company: Company) -> Reerased:
    facts = [fact for _, _, fact in company.real_ledger.facts() if isinstance(fact, Reerased)]
    return facts[-1]


@pytest.mark.parametrize("what", ["find", "erase", "check"])
def test_an_erasure_is_dated_when_it_was_read_back(company: Company, what: str) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    company.request("ada", key=company.key_of(ada))
    take_long(company, what)
    company.visit(look=False)
    assert company.erased("ada")
    assert company.record("ada").progress(STORE).at == company.now
    assert company.record("ada").completed_at == company.now


def test_an_absence_is_dated_when_the_person_had_been_looked_for(company: Company) -> None:
    company.visit_until_safe()
    company.request("nobody", email="nobody@x.example")
    take_long(company, "find")
    company.visit(look=False)
    progress = company.record("nobody").progress(STORE)
    assert (progress.state, progress.at) == (StoreState.NOT_FOUND, company.now)


@pytest.mark.parametrize("what", ["erase", "check", "observe"])
def test_a_restored_store_is_safe_from_when_it_was_read_back(company: Company, what: str) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.restore(before, "volume")
    assert company.visit().opened
    take_long(company, what)
    company.visit_until_safe()
    assert company.last_episode().safe_at == company.now
    assert what == "observe" or last_reerased(company).at >= company.now - LONG


def test_a_write_back_is_dated_when_it_was_erased_again(company: Company) -> None:
    write_back(company)
    take_long(company, "erase")
    assert company.visit().found == 1
    assert last_reerased(company).at == company.now


def write_back(company: Company) -> None:
    """Erase somebody, and let a stale session write her profile back."""
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    as_she_was = company.row_of(ada)
    assert as_she_was is not None
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.write_back(ada, as_she_was)


def test_an_erasure_in_doubt_is_dated_when_it_is_known_to_have_committed(company: Company) -> None:
    write_back(company)
    moments = iter(range(1, 20))
    while company.fuse.names[-1:] != ["after erase"]:
        assert company.cut_at(next(moments), company.visit)
    began = company.now
    take_long(company, "observe")  # it waits for whoever may still commit
    company.visit()
    assert last_reerased(company).at >= began + LONG


def test_a_restore_that_a_sweep_finds_is_in_doubt_since_the_sweep_before(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "PROBE_NEWEST", 0)
    monkeypatch.setattr(detect, "PROBE_RANDOM", 0)
    monkeypatch.setattr(detect, "WRITE_BACK_LIMIT", 0)
    write_back(company)
    clean_at = company.store.last_sweep_at
    company.now += LONG
    assert company.visit().opened
    episode = company.last_episode()
    assert (episode.detected_by, episode.missing_since) == (DetectedBy.SWEEP, clean_at)


def test_what_the_database_undoes_is_stalled_at_the_third_try_with_its_column(company: Company) -> None:
    ada, bob = company.sign_up("ada@x.example"), company.sign_up("bob@x.example")
    company.visit_until_safe()
    company.sql(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF OLD.email = 'ada@x.example' THEN NEW.last_name = OLD.last_name; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER keep BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    company.request("ada", key=company.key_of(ada))
    company.request("bob", key=company.key_of(bob))
    request = company.record("ada").request
    reasons = []
    for _ in range(3):
        company.now += LONG
        # Each time as it was before: else the trigger would let the second try pass.
        company.sql("UPDATE users SET email = 'ada@x.example' WHERE person = %s", ada)
        company.visit(look=False)
        reasons.append(company.store.blockers[request].reason)
    assert reasons == [BlockReason.ERASING, BlockReason.ERASING, BlockReason.VALUE_REFUSED]
    message = company.store.blockers[request].message
    assert "site: users.last_name was not as it had been erased, 3 times; look for a trigger" in message
    assert company.erased("bob")
    company.sql("DROP TRIGGER keep ON users")
    company.now += LONG
    company.visit(look=False)
    assert company.erased("ada")


def test_a_replay_that_is_undone_says_in_which_column(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.sql(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " NEW.time_zone = OLD.time_zone; RETURN NEW; END $$;"
        "CREATE TRIGGER keep BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    company.restore(before, "truncated")
    step = company.visit_until(ReplayState.AGAIN).step
    assert step is not None
    assert "(users.time_zone), or a trigger or rule undoes their erasure" in step.message
    company.sql("DROP TRIGGER keep ON users")
    company.visit_until_safe()
    assert company.is_cleared(ada)


def test_a_gate_does_not_stay_open_over_a_write_back_whose_erasure_is_undone(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    row = company.row_of(ada)
    assert row is not None
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.write_back(ada, row)
    company.sql(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " NEW.time_zone = OLD.time_zone; RETURN NEW; END $$;"
        "CREATE TRIGGER keep BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    for _ in range(3):
        company.visit()
    assert company.episode() is not None
    step = company.visit_until(ReplayState.AGAIN).step
    assert step is not None
    assert "users.time_zone" in step.message
    company.sql("DROP TRIGGER keep ON users")
    company.visit_until_safe()
    assert company.is_cleared(ada)
