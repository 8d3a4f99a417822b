"""What a store does not show counts only while it stands where the ledger knows it."""

from __future__ import annotations

import pytest

from lethe.domain.mapping import ClearRule, ClearTo, PiiKind, SubjectMapping
from lethe.domain.requests import StoreState
from tests.invariants.company import STORE, Company
from tests.invariants.conftest import MakeCompany

CRM = SubjectMapping(
    table="contacts",
    key="id",
    identifiers={"email": "email"},
    clear=(ClearRule("email", PiiKind.EMAIL, ClearTo.SET_NULL),),
)


@pytest.mark.parametrize("state", ["emptied", "rewound"])
def test_who_is_not_found_while_a_restore_is_going_on_is_not_called_absent(
    company: Company, state: str
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    newest = company.snapshot()
    company.request("ada", email="ada@x.example")
    # A restore begins after the last look, and the request is served in the midst of it.
    if state == "emptied":
        company.sql("TRUNCATE users, sessions, comments")
    else:
        company.restore(before, "volume")
    company.visit(look=False)
    assert company.record("ada").progress(STORE).state is StoreState.PENDING
    company.restore(newest, "truncated")
    for _ in range(7):
        company.visit()
    assert company.erased("ada")
    assert company.is_cleared(ada)


def test_a_partly_written_back_row_without_created_at_is_not_called_erased(
    company_without_created_at: Company,
) -> None:
    company = company_without_created_at
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    company.request("ada", key=company.key_of(ada))
    check = company.store.port._inner.check  # type: ignore[attr-defined]

    def written_back_before(*args: object, **options: object) -> object:
        company.store.port._inner.check = check  # type: ignore[attr-defined]
        company.sql("UPDATE users SET first_name = 'Ada' WHERE person = %s", ada)
        return check(*args, **options)

    company.store.port._inner.check = written_back_before  # type: ignore[attr-defined]
    company.visit(look=False)
    assert not company.erased("ada")
    for _ in range(4):
        company.visit()
    assert company.erased("ada")
    assert company.is_cleared(ada)


def test_a_mapped_table_dropped_and_made_anew_between_two_checks_is_a_restore(
    make_company: MakeCompany,
) -> None:
    company = make_company(
        schema="""
        CREATE TABLE users (id serial, first_name text, last_name text, email text NOT NULL,
          password_hash text NOT NULL DEFAULT '!', locale text NOT NULL DEFAULT 'en-US',
          time_zone text NOT NULL DEFAULT 'UTC', created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
          person uuid NOT NULL, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE users_old PARTITION OF users FOR VALUES FROM (1) TO (100);
        CREATE TABLE users_new PARTITION OF users FOR VALUES FROM (100) TO (100000);
        CREATE TABLE sessions (id serial PRIMARY KEY, user_id integer NOT NULL REFERENCES users, token text);
        CREATE TABLE comments (
          id serial PRIMARY KEY, author_id integer NOT NULL REFERENCES users, signature text);
        """
    )
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    rows = company.snapshot().rows["users_old"]
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.sql("DELETE FROM comments; DELETE FROM sessions; ALTER TABLE users DETACH PARTITION users_old")
    company.sql("DROP TABLE users_old")
    company.visit()
    company.sql("CREATE TABLE users_old PARTITION OF users FOR VALUES FROM (1) TO (100)")
    with company.connection.cursor().copy("COPY users_old FROM STDIN") as copied:
        copied.write(rows)
    assert company.visit().opened
    company.visit_until_safe()
    assert company.is_cleared(ada)


@pytest.mark.parametrize("lost", ["journal", "journal and the right to make it"])
def test_a_missing_journal_is_a_restore_to_a_new_process_also_without_rights_to_ddl(
    make_company: MakeCompany, lost: str
) -> None:
    company = make_company()
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    row = company.snapshot()
    name = f"lethe_{company.database}"
    company.sql("DROP TABLE lethe_journal_head, lethe_journal_entries")
    if lost != "journal":
        company.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{company.server.password}' BYPASSRLS")
        company.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}")
        company.sql(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}")
        company.user = name
    company.power_cut()
    for _ in range(3):
        company.visit()
    assert company.episode() is not None
    assert row is not None
    if lost != "journal":
        for _ in range(4):
            assert not company.visit().safe
        company.user = None
        company.power_cut()
    company.visit_until_safe()
    if lost != "journal":
        company.sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_the_ledgers_name_for_a_restore_is_new_also_within_one_second(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    for _ in range(2):
        start = company.now
        company.restore(before, "volume")
        company.visit()
        company.visit(release="go on")
        company.visit_until_safe()
        company.now = start
    names = [episode.episode for episode in company.real_ledger.episodes()]
    assert len(names) == len(set(names)) == 2
    assert company.is_cleared(ada)
