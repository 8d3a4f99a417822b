"""The same table under another name."""

from __future__ import annotations

import pytest

from lethe.domain.mapping import StoreRole
from lethe.workflows import store_pass
from lethe.workflows.store_pass import KnownByAnotherName
from tests.invariants.company import STORE, Company


@pytest.mark.parametrize("restored", [False, True])
def test_a_table_in_which_somebody_was_erased_is_not_taken_for_a_new_one(
    company: Company, restored: bool
) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    again = company.join("website", StoreRole.PRIMARY, company.url, company.mapping)
    company.prove(again)
    company.request("ada", key=company.key_of(ada))
    company.visit()
    if restored:
        company.restore(before, "new-database")
    store_pass.prove(again, company.context, watched={STORE})
    with pytest.raises(KnownByAnotherName) as refused:
        company.prove(again)
    assert str(refused.value) == (
        "this table was known as shop/site, and 1 records were erased in it under that name; "
        "take them over with spec.formerly: site"
    )
