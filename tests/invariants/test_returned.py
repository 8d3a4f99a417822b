"""Somebody who had deleted her own row before she asked, and whom an older copy brings back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lethe.workflows.restore.replay import ReplayState
from tests.invariants.company import STORE, Company, Snapshot
from tests.invariants.court import Court

ADA = "ada@x.example"
WAYS = ["volume", "truncated", "new-database"]


@pytest.fixture
def company(company: Company) -> Company:
    """Return the company at the time that its database shows: both are compared."""
    company.now = datetime.now(UTC) + timedelta(minutes=10)
    return company


def copy_with_her(company: Company) -> Snapshot:
    """Let Ada sign up, a copy be taken, and Ada delete her own row."""
    company.visit_until_safe()
    ada = company.sign_up(ADA)
    company.sign_up("bob@x.example")
    company.visit()
    company.visit()
    copy = company.snapshot()
    company.visit()
    key = company.key_of(ada)
    for table, column in (("sessions", "user_id"), ("comments", "author_id"), ("users", "id")):
        company.sql(f"DELETE FROM {table} WHERE {column} = %s", key)
    return copy


def people(company: Company) -> dict[str, bool]:
    """Return who stands there, by address, and whether she is cleared."""
    cleared = company.full_scan()
    return {
        email if not cleared[str(person)] else "erased": cleared[str(person)]
        for person, email in company.sql("SELECT person, email FROM users")
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("power", [True, False], ids=["power-fails", "power-stays"])
def test_who_deleted_her_own_row_is_erased_from_an_older_copy(
    company: Company, way: str, power: bool
) -> None:
    copy = copy_with_her(company)
    company.request("ada", email=ADA)
    company.visit()
    company.apply("ada", "NothingFound")
    company.visit_until_safe()
    assert company.erased("ada")
    if power:
        company.power_cut()
    company.restore(copy, way)
    assert people(company) == {ADA: False, "bob@x.example": False}
    company.visit_until_safe()
    assert people(company) == {"erased": True, "bob@x.example": False}
    company.restore(copy, way)
    company.visit_until_safe()
    assert people(company) == {"erased": True, "bob@x.example": False}
    assert company.real_ledger.tombstone_count(STORE) == 1, "she is remembered once"
    company.real_ledger.verify()


@pytest.mark.parametrize("way", WAYS)
def test_who_signs_up_after_the_restore_with_such_an_address_is_left_alone(
    company: Company, way: str
) -> None:
    company.visit_until_safe()
    company.sign_up("bob@x.example")
    company.visit()
    copy = company.snapshot()
    company.request("ada", email=ADA)
    company.visit()
    company.apply("ada", "NothingFound")
    company.visit_until_safe()
    company.restore(copy, way)
    ada = company.sign_up(ADA)
    row = company.row_of(ada)
    company.visit_until_safe()
    assert company.row_of(ada) == row


def test_who_may_have_signed_up_after_she_asked_is_asked_about(company: Company) -> None:
    company.visit_until_safe()
    company.sign_up("bob@x.example")
    company.now = datetime.now(UTC)
    company.request("ada", email=ADA)
    company.visit()
    company.apply("ada", "NothingFound")
    company.visit_until_safe()
    ada = company.sign_up(ADA)
    row = company.row_of(ada)
    company.visit()
    company.visit()
    copy = company.snapshot()
    company.visit()
    company.restore(copy, "volume")
    company.visit_until(ReplayState.IDENTITY_UNCLEAR)
    assert company.row_of(ada) == row
    company.decide(company.key_of(ada), "LeaveAlone")
    company.visit_until_safe()
    for _ in range(3):
        assert company.visit().safe
    assert company.row_of(ada) == row


def test_an_open_request_that_found_nobody_looks_again_in_an_older_copy(company: Company) -> None:
    copy = copy_with_her(company)
    company.request("ada", email=ADA)
    company.visit()
    assert str(company.record("ada").progress(STORE).state) == "NotFound"
    company.restore(copy, "volume")
    company.visit_until_safe()
    company.visit()
    assert company.erased("ada")
    assert people(company) == {"erased": True, "bob@x.example": False}


def test_who_is_held_is_not_erased_from_an_older_copy(company: Company) -> None:
    court = Court(company)
    copy = copy_with_her(company)
    company.request("ada", email=ADA)
    company.visit()
    company.apply("ada", "NothingFound")
    company.visit_until_safe()
    court.hold(email=ADA)
    company.restore(copy, "volume")
    company.visit_until(ReplayState.HELD_ROWS_RETURNED)
    assert people(company) == {ADA: False, "bob@x.example": False}
    court.lift()
    company.visit_until_safe()
    assert people(company) == {"erased": True, "bob@x.example": False}


def test_a_dry_run_remembers_no_address(company: Company) -> None:
    company.visit_until_safe()
    company.request("ada", email=ADA, dry_run=True)
    company.visit()
    assert company.real_ledger.absent_addresses(STORE) == {}
    company.request("bob", email="nobody@x.example")
    company.visit()
    assert list(company.real_ledger.absent_addresses(STORE).values()) == ["uid-bob"]
