"""What an attack on the protocol found, and what holds since."""

from __future__ import annotations

from lethe.domain.trouble import TroubleReason
from lethe.workflows.restore.replay import ReplayState
from tests.invariants.company import MAPPING, SCHEMA, Company
from tests.invariants.conftest import MakeCompany


def test_a_partial_write_back_without_created_at_is_erased_again(
    company_without_created_at: Company,
) -> None:
    company = company_without_created_at
    ada = company.sign_up("ada@x.example")
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.sql("UPDATE users SET first_name = 'Ada' WHERE person = %s", ada)
    for _ in range(3):
        company.visit()
    assert company.is_cleared(ada)


def test_a_created_at_that_everybody_of_one_day_shares_is_refused(make_company: MakeCompany) -> None:
    schema = SCHEMA.replace("timestamptz NOT NULL DEFAULT clock_timestamp()", "date NOT NULL DEFAULT now()")
    company = make_company(MAPPING, schema=schema)
    company.visit()
    trouble = company.store.trouble
    assert trouble is not None
    assert trouble.reason is TroubleReason.MAPPING_INVALID
    assert "spec.sql.subjects.createdAt" in trouble.message


def test_a_store_that_read_its_journal_can_make_a_lost_one(company: Company) -> None:
    company.visit_until_safe()
    list(company.journal.journaled_numbers())
    company.sql("DROP TABLE lethe_journal_head, lethe_journal_entries")
    company.store.port.prove()


def test_a_decision_does_not_outlive_the_restore_that_it_was_made_about(
    company_without_created_at: Company,
) -> None:
    company = company_without_created_at
    company.visit_until_safe()
    empty = company.snapshot()
    x = company.sign_up("x@old.example")
    key = company.key_of(x)
    company.visit_until_safe()
    with_x = company.snapshot()
    company.sql("UPDATE users SET email = 'x@new.example' WHERE person = %s", x)
    company.request("x", key=key)
    company.visit_until_safe()
    company.restore(with_x, "volume")
    company.visit_until(ReplayState.IDENTITY_UNCLEAR)
    company.decide(key, "Erase")
    company.restore(empty, "volume")
    y = company.sign_up("y@x.example", key=key)
    row = company.row_of(y)
    for _ in range(6):
        company.visit()
    assert company.row_of(y) == row, "she never asked, and nobody has decided about her"


def test_a_process_that_starts_amid_a_restore_still_knows_the_former_constraints(
    company: Company,
) -> None:
    company.visit_until_safe()
    version, proved = next(iter(company.real_ledger.mappings(company.store.name).items()))
    before = company.snapshot()
    company.visit_until_safe()
    company.power_cut()
    company.sql("ALTER TABLE sessions DROP CONSTRAINT sessions_user_id_fkey")
    company.restore(before, "volume")
    company.visit()
    assert set(company.real_ledger.mappings(company.store.name)[version].constraints) == set(
        proved.constraints
    )
