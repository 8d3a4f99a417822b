"""The application's schema changes under Lethe: by migrations, not by restores."""

from __future__ import annotations

import pytest

from lethe.workflows.restore.replay import ReplayState
from tests.invariants.company import SCHEMA, Company
from tests.invariants.conftest import MakeCompany

REWRITTEN = "VACUUM FULL users; VACUUM FULL sessions"


def rewrite(company: Company) -> None:
    for statement in REWRITTEN.split(";"):
        company.sql(statement)


@pytest.mark.parametrize(
    "migration",
    [
        "ALTER TABLE users RENAME CONSTRAINT users_email_key TO one_address",
        "ALTER TABLE users RENAME CONSTRAINT users_pkey TO persons",
        (
            "ALTER TABLE sessions DROP CONSTRAINT sessions_user_id_fkey;"
            "ALTER TABLE sessions ADD CONSTRAINT whose FOREIGN KEY (user_id) REFERENCES users (id)"
        ),
        "ALTER TABLE users DROP CONSTRAINT users_email_key; CREATE UNIQUE INDEX one_each ON users (email)",
        "ALTER TABLE users DROP CONSTRAINT users_email_key",
        "ALTER TABLE sessions DROP CONSTRAINT sessions_user_id_fkey",
    ],
)
def test_the_gate_opens_after_a_migration_of_keys_and_a_rewrite(company: Company, migration: str) -> None:
    ada = company.sign_up("ada@x.example")
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.sql(migration)
    rewrite(company)
    company.visit_until_safe(most=8)
    assert company.is_cleared(ada)


def test_the_gate_opens_after_a_partition_was_detached_and_a_rewrite(make_company: MakeCompany) -> None:
    schema = SCHEMA.replace("email varchar(254) NOT NULL UNIQUE", "email varchar(254) NOT NULL").replace(
        "person uuid NOT NULL\n);",
        """person uuid NOT NULL) PARTITION BY RANGE (id);
        CREATE TABLE first PARTITION OF users FOR VALUES FROM (0) TO (1000);
        CREATE TABLE later PARTITION OF users FOR VALUES FROM (1000) TO (2000);""",
    )
    company = make_company(schema=schema)
    ada = company.sign_up("ada@x.example")
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.sql("ALTER TABLE users DETACH PARTITION later")
    company.sql("VACUUM FULL first")
    company.visit_until_safe(most=8)
    assert company.is_cleared(ada)


def test_a_table_that_was_made_anew_is_awaited_until_it_has_its_keys(company: Company) -> None:
    company.visit_until_safe()
    company.sql("DROP TABLE sessions; CREATE TABLE sessions (id serial PRIMARY KEY, user_id int, token text)")
    steps = [company.visit().step for _ in range(6)]
    assert {step.state for step in steps if step} == {ReplayState.WAITING}
    message = steps[-1].message if steps[-1] else ""
    assert "foreign key to public.users of public.sessions (user_id)" in message
    assert "spec.release" in message
    company.sql("ALTER TABLE sessions ADD CONSTRAINT other FOREIGN KEY (user_id) REFERENCES users")
    company.visit_until_safe()


def test_a_person_may_say_that_a_key_will_not_come_back(company: Company) -> None:
    company.visit_until_safe()
    company.sql("DROP TABLE sessions; CREATE TABLE sessions (id serial PRIMARY KEY, user_id int, token text)")
    company.visit_until(ReplayState.WAITING)
    company.visit(release="sessions have no foreign key any more")
    company.visit_until_safe()
    company.sql("VACUUM FULL users")
    company.visit_until_safe()
