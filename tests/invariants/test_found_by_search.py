"""What a random search found (`make search`, or a state machine's first run elsewhere), as plain tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from lethe.domain.trust import Blocker, BlockReason
from tests.invariants.company import Company

FOR_LONG = Blocker(BlockReason.STORE_UNREACHABLE, "as if the store had been away")


class BystanderErased(AssertionError):
    """Somebody who never asked was erased."""


def see_untouched(company: Company, person: str, row: dict[str, Any] | None) -> None:
    now = company.row_of(person)
    if company.is_cleared(person) and now is not None and row is not None:
        raise BystanderErased(sorted(column for column in row if row[column] != now[column]))
    assert now == row, "she never asked"


def test_who_signs_up_after_a_third_restore_is_not_erased_for_another(company: Company) -> None:
    company.visit_until_safe()
    first = company.sign_up("p1@people.example")
    company.visit()
    before = company.snapshot()
    company.visit()
    company.sql("UPDATE users SET email = 'p2@people.example' WHERE person = %s", first)

    # A asks by e-mail, and the data directory goes back to before her; nothing looks until the power fails.
    company.sign_up("p3@people.example")
    company.visit()
    company.request("r4", email="p3@people.example")
    company.restore(before, "volume")
    company.sign_up("p5@people.example")
    company.power_cut()
    company.restore(before, "tables")
    company.visit(look=False, sweep=False)
    assert company.episode() is not None, "a process that begins looks first"

    # B asks by id while that restore is open, and another database takes the place before any visit.
    b = company.sign_up("p6@people.example")
    key = company.key_of(b)
    company.visit()
    company.request("r7", key=key)
    company.restore(before, "new-database")
    company.sign_up("p8@people.example")
    company.visit(sweep=False)

    # C asks by e-mail, and the data directory goes back once more: p11 is given the key that B asked by.
    company.sign_up("p9@people.example")
    company.visit()
    company.request("r10", email="p9@people.example")
    company.restore(before, "volume")
    p11 = company.sign_up("p11@people.example")
    assert company.key_of(p11) == key
    row = company.row_of(p11)
    company.request("r12", key=company.key_of(first))
    company.sign_up("p13@people.example", key=key + 1)

    for _ in range(14):
        company.visit()
        see_untouched(company, p11, row)
    assert company.episode() is None


WAYS = ["volume", "truncated", "new-database", "tables"]


@pytest.mark.parametrize("visited", [True, False], ids=["visited", "not-visited"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", WAYS)
def test_a_request_by_id_during_a_restore_waits_once_the_store_goes_back_again(
    company: Company, first: str, way: str, visited: bool
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    company.sign_up("moves-the-head@people.example")
    company.visit()
    company.restore(before, first)
    company.visit()
    assert company.episode() is not None
    b = company.sign_up("b@people.example")
    key = company.key_of(b)
    if visited:
        company.visit()
    company.request("b", key=key)
    company.restore(before, way)
    newcomer = company.sign_up("newcomer@people.example")
    assert company.key_of(newcomer) == key
    row = company.row_of(newcomer)
    for _ in range(9):
        company.visit()
        see_untouched(company, newcomer, row)
    assert company.episode() is None


@pytest.mark.parametrize("visits", [0, 1, 3, 5])
@pytest.mark.parametrize("power", [True, False], ids=["power-fails", "power-stays"])
def test_tables_that_go_back_further_than_the_head_leave_every_key_in_doubt(
    company: Company, visits: int, power: bool
) -> None:
    company.visit_until_safe()
    early = company.snapshot()
    b = company.sign_up("b@people.example")
    key = company.key_of(b)
    company.visit()
    company.visit()
    late = company.snapshot()
    company.sign_up("c@people.example")
    company.visit()
    company.request("b", key=key)
    company.restore(late, "volume")
    for _ in range(visits):
        company.store.block([company.record("b")], FOR_LONG, company.now + timedelta(days=1))
        company.visit()
    if power:
        company.power_cut()
    company.restore(early, "tables")
    newcomer = company.sign_up("newcomer@people.example")
    assert company.key_of(newcomer) == key
    row = company.row_of(newcomer)
    for _ in range(12):
        company.visit()
        see_untouched(company, newcomer, row)
    assert company.episode() is None
