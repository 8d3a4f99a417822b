"""What a store does not show counts only while it stands where the ledger knows it."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest

from devtools.servers.children import wait_until
from lethe.domain.mapping import ClearRule, ClearTo, PiiKind, SubjectMapping
from lethe.domain.requests import StoreState
from lethe.domain.trust import BlockReason
from lethe.workflows.legal.contact import find_contacts
from lethe.workflows.restore.replay import ReplayState
from tests.adapters.stores.sql.others import copying
from tests.invariants.company import STORE, Company
from tests.invariants.conftest import MakeCompany
from tests.invariants.court import Court

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


def test_who_is_not_found_while_a_mapped_table_is_filled_waits_alone(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    company.request("ada", email="ada@x.example")
    company.request("nobody", email="nobody@x.example")
    nobody = company.record("nobody").request
    with copying(
        company.server.url(company.database), "COPY comments (author_id, signature) FROM STDIN", "1\ttext\n"
    ):
        _until_filled(company)
        served = company.visit(look=False).served
        assert served is not None
        assert not served.head_moved
        assert company.erased("ada")
        assert company.is_cleared(ada)
        blocker = company.store.blockers[nobody]
        assert blocker.reason is BlockReason.ERASING
        told = (
            r"site shows nobody, which .* session \d+ fills public.comments by COPY since 20\d\d-.*Z; it is"
        )
        assert re.match(told, blocker.message), blocker.message
        assert company.store.not_before[nobody][0] > company.now
    company.store.unblock(nobody)
    company.visit()
    assert company.record("nobody").progress(STORE).state is StoreState.NOT_FOUND


def test_a_subject_of_a_legal_request_who_is_not_found_holds_up_nobody_else(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    court = Court(company)
    court.hold(email="nobody@x.example")
    company.request("ada", email="ada@x.example")
    with copying(
        company.server.url(company.database), "COPY comments (author_id, signature) FROM STDIN", "1\ttext\n"
    ):
        _until_filled(company)
        company.visit()
        assert court.record().resolved_at is None, "an absence that proves nothing is not recorded"
        assert find_contacts(company.store, company.context, ["legal-le-1"]) == {}
        assert company.erased("ada")
        assert company.is_cleared(ada)
    company.visit()
    assert court.record().resolved_at is not None


@pytest.mark.parametrize("doing", ["a temporary table", "a dump", "an index"])
def test_what_others_do_elsewhere_holds_up_neither_absences_nor_the_gate(
    company: Company, doing: str
) -> None:
    company.sign_up("ada@x.example")
    company.visit_until_safe()
    company.sql("CREATE TABLE padding AS SELECT repeat('x', 500) AS noise FROM generate_series(1, 50000)")
    company.request("nobody", email="nobody@x.example")
    company.sql("VACUUM FULL users")
    url = company.server.url(company.database)
    with psycopg.connect(url) as other, ExitStack() as meanwhile:
        if doing == "a temporary table":
            other.execute("CREATE TEMP TABLE mine (noise text)")
        elif doing == "a dump":
            meanwhile.enter_context(copying(url, "COPY padding TO STDOUT"))
        else:
            other.execute("INSERT INTO padding VALUES ('x')")
            building = meanwhile.enter_context(psycopg.connect(url, autocommit=True))
            built = meanwhile.enter_context(ThreadPoolExecutor()).submit(
                building.execute, "CREATE INDEX CONCURRENTLY ON padding (noise)"
            )
            meanwhile.callback(built.result)
            meanwhile.callback(other.rollback)
        company.visit_until_safe()
        assert company.record("nobody").progress(STORE).state is StoreState.NOT_FOUND


def test_a_replay_that_waits_says_who_fills_the_store(company: Company) -> None:
    company.visit_until_safe()
    company.sql("VACUUM FULL users")
    company.sql("CREATE TABLE padding (noise text)")
    with copying(company.server.url(company.database), "COPY padding FROM STDIN", "text\n"):
        _until_filled(company)
        company.visit()
        step = company.visit_until(ReplayState.WAITING).step
        assert step is not None
        assert re.search(r"session \d+ fills public.padding by COPY since 20", step.message), step.message
    company.visit_until_safe()


def _until_filled(company: Company) -> None:
    wait_until(lambda: company.store.port.observe().filling is not None, what="the COPY to be seen")


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
    assert any(company.visit().opened for _ in range(3))
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
