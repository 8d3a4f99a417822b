"""The application's schema changes under Lethe: by migrations, not by restores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from lethe.domain.mapping import ClearRule, ClearTo, Dependent, PiiKind, SubjectMapping
from lethe.domain.trouble import TroubleReason
from lethe.workflows.restore import catch_up
from lethe.workflows.restore.replay import ReplayState
from tests.invariants.company import MAPPING, SCHEMA, Company
from tests.invariants.conftest import MakeCompany
from tests.invariants.court import Court

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


def rules(change: Callable[[ClearRule], ClearRule | None]) -> tuple[ClearRule, ...]:
    """Return the rules of the company's mapping, each changed or left out."""
    changed = (change(rule) for rule in MAPPING.clear)
    return tuple(rule for rule in changed if rule is not None)


def without(column: str) -> tuple[ClearRule, ...]:
    return rules(lambda rule: None if rule.column == column else rule)


def with_rule(of: str, **changes: object) -> tuple[ClearRule, ...]:
    return rules(lambda rule: replace(rule, **changes) if rule.column == of else rule)  # type: ignore[arg-type]


ONLY_SESSIONS = MAPPING.dependents[:1]
MAIL: dict[str, object] = {"identifiers": {"email": "mail"}, "clear": with_rule("email", column="mail")}
BEHIND: dict[str, tuple[str, dict[str, object]]] = {
    "a column is dropped": ("ALTER TABLE users DROP locale", {"clear": without("locale")}),
    "a column is renamed": ("ALTER TABLE users RENAME email TO mail", MAIL),
    "a column becomes NOT NULL": (
        (
            "UPDATE users SET last_name = '' WHERE last_name IS NULL;"
            "ALTER TABLE users ALTER last_name SET NOT NULL"
        ),
        {"clear": with_rule("last_name", to=ClearTo.VALUE, text="")},
    ),
    "a column becomes a number": (
        "ALTER TABLE users ALTER password_hash DROP DEFAULT, ALTER password_hash TYPE int USING 0",
        {"clear": with_rule("password_hash", text="0")},
    ),
    "a column becomes too short": (
        "UPDATE users SET email = left(email, 20); ALTER TABLE users ALTER email TYPE varchar(20)",
        {"clear": with_rule("email", text="{token:20}")},
    ),
    "a column becomes a generated one": (
        (
            "ALTER TABLE users DROP locale;"
            "ALTER TABLE users ADD locale text GENERATED ALWAYS AS (lower(time_zone)) STORED"
        ),
        {"clear": without("locale")},
    ),
    "createdAt is dropped": ("ALTER TABLE users DROP created_at", {"created_at": None}),
    "createdAt is renamed": ("ALTER TABLE users RENAME created_at TO since", {"created_at": "since"}),
    "the key is renamed": ("ALTER TABLE users RENAME id TO uid", {"key": "uid"}),
    "a dependent's table is dropped": ("DROP TABLE comments", {"dependents": ONLY_SESSIONS}),
    "a dependent's column is dropped": (
        "ALTER TABLE comments DROP signature",
        {"dependents": ONLY_SESSIONS},
    ),
    "a dependent's key is renamed": (
        "ALTER TABLE sessions RENAME user_id TO whose",
        {"dependents": (Dependent("sessions", "whose", delete=True), MAPPING.dependents[1])},
    ),
    "the table is renamed": ("ALTER TABLE users RENAME TO members", {"table": "members"}),
    "the table is renamed behind a view": (
        "ALTER TABLE users RENAME TO members; CREATE VIEW users AS SELECT * FROM members",
        {"table": "members"},
    ),
}


def migrated(company: Company, sql: str, changes: dict[str, object]) -> SubjectMapping:
    """Migrate the schema, apply a DataStore that fits it, and return its mapping."""
    company.sql(sql)
    company.mapping = replace(MAPPING, **changes)  # type: ignore[arg-type]
    company.power_cut()
    return company.mapping


@pytest.mark.parametrize("case", BEHIND.values(), ids=BEHIND)
def test_who_was_erased_before_a_migration_does_not_hold_up_who_comes_after(
    company: Company, case: tuple[str, dict[str, object]]
) -> None:
    ada, bob, cleo = (company.sign_up(f"{name}@x.example") for name in ("ada", "bob", "cleo"))
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    key = company.key_of(bob)
    migrated(company, *case)
    company.visit_until_safe()
    assert company.store.proof is not None
    company.request("bob", key=key)
    company.visit_until_safe()
    assert company.erased("bob")
    everything = b" ".join(company.everything().values())
    assert b"First-bob" not in everything
    assert b"First-cleo" in everything
    assert not company.real_ledger.episodes(store=company.store.name)[1:], "at most that of a rewrite"
    assert cleo


@pytest.mark.parametrize(
    "case",
    [BEHIND[name] for name in ("a column is renamed", "the table is renamed", "a column is dropped")],
    ids=["a column is renamed", "the table is renamed", "a column is dropped"],
)
def test_who_comes_back_with_an_old_dump_is_erased_again_under_new_names(
    company: Company, case: tuple[str, dict[str, object]]
) -> None:
    ada, cleo = (company.sign_up(f"{name}@x.example") for name in ("ada", "cleo"))
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    migrated(company, *case)
    company.visit_until_safe()
    company.restore(before, "new-database")
    migrated(company, *case)
    company.visit_until_safe(most=20)
    everything = b" ".join(company.everything().values())
    for left in (b"ada@x.example", b"First-ada", b"Last-ada"):
        assert left not in everything
    assert b"First-cleo" in everything
    assert cleo


def test_another_table_under_the_same_keys_is_nobody_s_who_was_erased(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    key = company.key_of(ada)
    company.request("ada", key=key)
    company.visit_until_safe()
    accounts = SCHEMA.partition(";")[0].replace("TABLE users", "TABLE accounts")
    company.sql(f"DROP TABLE comments, sessions, users; {accounts}")
    company.sql("CREATE TABLE sessions (id serial PRIMARY KEY, user_id int REFERENCES accounts, token text)")
    company.sql(
        "INSERT INTO accounts (id, email, locale, person)"
        " VALUES (%s, 'zoe@x.example', 'de', gen_random_uuid())",
        key,
    )
    company.sql("INSERT INTO sessions (user_id, token) VALUES (%s, 'hers')", key)
    company.mapping = replace(MAPPING, table="accounts", dependents=ONLY_SESSIONS)
    company.power_cut()
    for _ in range(8):
        company.visit()
    assert company.sql("SELECT email, locale FROM accounts") == [("zoe@x.example", "de")]
    assert company.sql("SELECT token FROM sessions") == [("hers",)]


def told(company: Company) -> list[str]:
    """Return the columns that the proof says are neither mapped nor ignored."""
    proof = company.store.proof
    return [*proof.lookalikes, *proof.pointing] if proof else ["nothing is proved"]


def test_what_is_added_to_the_schema_is_told_by_the_next_sweep(company: Company) -> None:
    company.visit_until_safe()
    company.sql("ALTER TABLE users ADD phone text")
    company.sql(
        "CREATE TABLE addresses (id serial PRIMARY KEY, user_id int REFERENCES users, street text);"
        "ALTER TABLE comments ADD moderator int REFERENCES users, ADD approver int REFERENCES users;"
        "ALTER TABLE users ADD invited_by int REFERENCES users"
    )
    company.visit(sweep=False)
    assert told(company) == []
    company.visit()
    assert told(company) == ["users.phone", "addresses.user_id", "comments.approver", "comments.moderator"]
    ignored = ("addresses.user_id", "public.comments.approver", "comments.moderator", "phone")
    migrated(company, "SELECT", {"ignore": (*MAPPING.ignore, *ignored)})
    company.visit_until_safe()
    assert told(company) == []


def test_what_is_taken_from_the_schema_is_said_to_be_a_mapping_that_does_not_fit(company: Company) -> None:
    ada, bob = (company.sign_up(f"{name}@x.example") for name in ("ada", "bob"))
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.sql("ALTER TABLE users DROP first_name")
    for _ in range(3):
        company.visit()
        assert company.store.trouble is not None
        assert company.store.trouble.reason is TroubleReason.MAPPING_INVALID
        assert "column users.first_name does not exist" in company.store.trouble.message
    assert company.episode() is None
    assert bob


PHONE = ClearRule("phone", PiiKind.LAST_NAME, ClearTo.SET_NULL)
ADDRESSES = Dependent("addresses", "user_id", delete=True)
WIDER: dict[str, object] = {"clear": (*MAPPING.clear, PHONE), "dependents": (*MAPPING.dependents, ADDRESSES)}
WITH_PHONES = (
    SCHEMA.replace("person uuid", "phone text, person uuid")
    + "CREATE TABLE addresses (id serial PRIMARY KEY, user_id int REFERENCES users (id), street text);"
)


def living(company: Company, name: str) -> str:
    """Let somebody sign up who leaves a phone and an address."""
    person = company.sign_up(f"{name}@x.example")
    company.sql("UPDATE users SET phone = %s WHERE person = %s", f"phone-{name}", person)
    company.sql(
        "INSERT INTO addresses (user_id, street) SELECT id, %s FROM users WHERE person = %s",
        f"street-{name}",
        person,
    )
    return person


@pytest.fixture
def before_widening(make_company: MakeCompany) -> Company:
    """A company in which three of four were erased; nobody had thought of phones and addresses."""
    company = make_company(schema=WITH_PHONES)
    for name in ("ada", "bob", "cleo"):
        company.request(name, key=company.key_of(living(company, name)))
    living(company, "dora")
    company.visit_until_safe()
    return company


def confirm(company: Company) -> None:
    """Set `spec.catchUp` of the DataStore to the version that its status tells."""
    assert company.store.proof is not None
    version = company.store.proof.proved.version
    company.store.description = replace(company.store.description, catch_up=version)


def left(company: Company) -> int:
    return len(company.store.catch_up.left) if company.store.catch_up else 0


def remains(company: Company) -> list[str]:
    """Return of whom phone or address are there."""
    rows = company.sql(
        "SELECT substr(phone, 7) FROM users WHERE phone IS NOT NULL"
        " UNION SELECT substr(street, 8) FROM addresses"
    )
    return sorted(str(row[0]) for row in rows)


def test_a_widened_mapping_waits_for_a_word_about_those_who_were_erased_before(
    before_widening: Company,
) -> None:
    company = before_widening
    migrated(company, "SELECT", WIDER)
    for _ in range(3):
        company.visit()
    assert left(company) == 3
    assert remains(company) == ["ada", "bob", "cleo", "dora"]
    confirm(company)
    for _ in range(3):
        company.visit()
    assert (left(company), remains(company)) == (0, ["dora"])
    assert company.real_ledger.episodes(store=company.store.name) == []
    for name in ("ada", "bob", "cleo"):
        assert company.erased(name)


def test_what_a_restore_brings_back_is_cleared_as_the_widened_mapping_says(before_widening: Company) -> None:
    company = before_widening
    before = company.snapshot()
    migrated(company, "SELECT", WIDER)
    company.visit()
    confirm(company)
    company.visit_until_safe()
    company.visit_until_safe()
    assert remains(company) == ["dora"]
    company.restore(before, "volume")
    company.power_cut()
    company.visit_until_safe()
    assert remains(company) == ["dora"]


def test_a_widened_mapping_asks_nobody_where_there_is_nothing_to_clear(make_company: MakeCompany) -> None:
    company = make_company(schema=WITH_PHONES)
    ada = company.sign_up("ada@x.example")
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    migrated(company, "SELECT", WIDER)
    company.visit()
    assert company.store.catch_up is None
    assert company.store.proof is not None
    assert not company.store.proof.widened
    company.sql("UPDATE users SET phone = 'phone-ada' WHERE person = %s", ada)
    company.visit()
    assert remains(company) == [], "written back"


def test_a_mapping_that_is_narrowed_again_is_another_version(before_widening: Company) -> None:
    company = before_widening
    company.prove()
    assert company.store.proof is not None
    first = company.store.proof.proved.version
    migrated(company, "SELECT", WIDER)
    company.visit()
    confirm(company)
    company.visit_until_safe()
    company.visit_until_safe()
    migrated(company, "SELECT", {})
    company.visit_until_safe()
    assert company.store.proof.proved.version != first
    eve = living(company, "eve")
    company.request("eve", key=company.key_of(eve))
    company.visit_until_safe()
    assert remains(company) == ["dora", "eve"]
    company.sql("UPDATE users SET phone = 'phone-ada' WHERE phone IS NULL AND id = 1")
    company.visit()
    assert remains(company) == ["dora", "eve"]


def test_more_than_a_write_back_are_caught_up_with_in_portions(
    make_company: MakeCompany, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "AT_ONCE", 50)
    company = make_company(schema=WITH_PHONES)
    for number in range(120):
        company.request(f"r{number}", key=company.key_of(living(company, f"r{number}")))
    company.visit_until_safe()
    migrated(company, "SELECT", WIDER)
    company.visit()
    confirm(company)
    progress = []
    for _ in range(4):
        progress.append(left(company))
        company.visit(sweep=False)
    assert progress == [120, 70, 20, 0]
    company.visit()
    assert (left(company), remains(company)) == (0, [])
    assert company.store.proof is not None
    assert not company.store.proof.widened
    assert company.real_ledger.episodes(store=company.store.name) == []


def test_a_catch_up_that_is_cut_off_anywhere_ends_well(before_widening: Company) -> None:
    company = before_widening
    moment = 1
    while True:
        migrated(company, "UPDATE users SET phone = 'phone-bob' WHERE id = 2", WIDER)
        company.store.description = replace(company.store.description, catch_up="any")
        company.prove()
        confirm(company)
        if not company.cut_at(moment, lambda: [company.visit(), company.visit()]):
            break
        moment += 1
    company.visit_until_safe()
    assert moment > 4
    assert remains(company) == ["dora"]


def test_whom_a_hold_preserves_is_caught_up_with_when_it_ends(before_widening: Company) -> None:
    company = before_widening
    court = Court(company)
    court.hold("le-1", key=1)
    migrated(company, "SELECT", WIDER)
    company.visit()
    confirm(company)
    for _ in range(4):
        company.visit(sweep=False)
    assert (left(company), remains(company)) == (1, ["ada", "dora"])
    assert not company.store.sweep_wanted
    court.lift()
    for _ in range(2):
        company.visit()
    assert (left(company), remains(company)) == (0, ["dora"])
