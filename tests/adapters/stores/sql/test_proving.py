"""A mapping is compared with the live schema before anything is written; problems say where and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from devtools.servers import PostgresServer
from lethe.domain.mapping import ClearRule, ClearTo, Constraint, Dependent, PiiKind, Quarantine
from lethe.ports.stores import JournalSupport, MappingInvalid, MappingProblem
from tests.adapters.stores.sql.conftest import MAPPING, SCHEMA, Site, store_of
from tests.contracts.store_contract import somebody

E = PiiKind.EMAIL


def rule(column: str, to: ClearTo = ClearTo.SET_NULL, text: str | None = None) -> ClearRule:
    return ClearRule(column, E, to, text)


def clear(column: str, to: ClearTo = ClearTo.SET_NULL, text: str | None = None) -> dict[str, Any]:
    return {"clear": (rule(column, to, text),)}


def dependent(table: str, foreign_key: str, *rules: ClearRule) -> dict[str, Any]:
    return {"dependents": (Dependent(table, foreign_key, delete=not rules, clear=rules),)}


VALUE, TEMPLATE, DEFAULT = ClearTo.VALUE, ClearTo.TEMPLATE, ClearTo.DEFAULT
TOKEN = "x-{token}@erased.invalid"

# (what is done to the schema, what is changed in the mapping, field, the problem)
CASES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a table that does not exist": ("", {"table": "user"}, "table", "table user does not exist (users does)"),
    "a schema that does not exist": (
        "",
        {"table": "sales.users"},
        "table",
        "table sales.users does not exist",
    ),
    "a view": (
        "CREATE VIEW people AS SELECT * FROM users",
        {"table": "people"},
        "table",
        "people is a view",
    ),
    "a rule that does something else": (
        "CREATE RULE soft AS ON UPDATE TO users DO INSTEAD NOTHING",
        {},
        "table",
        "rule soft of table users does something else than an UPDATE says",
    ),
    "a rule under a condition": (
        "CREATE RULE locked AS ON UPDATE TO users WHERE OLD.locale = 'x' DO INSTEAD NOTHING",
        {},
        "table",
        "rule locked of table users does something else than an UPDATE says",
    ),
    "a rule that keeps what is deleted": (
        "CREATE RULE soft AS ON DELETE TO sessions DO INSTEAD UPDATE sessions SET token = ''",
        {},
        "dependents[0].table",
        "rule soft of table sessions does something else than a DELETE says",
    ),
    "a rule besides, which no part of a statement may have": (
        "CREATE RULE noted AS ON UPDATE TO comments DO ALSO NOTIFY comments",
        {},
        "dependents[1].table",
        "rule noted of table comments does something else than an UPDATE says",
    ),
    "a foreign table": (
        (
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
            "CREATE FOREIGN TABLE far (id bigint) SERVER s"
        ),
        {"table": "far"},
        "table",
        "far is a foreign table",
    ),
    "a column that does not exist": (
        "",
        clear("first_nme"),
        "clear[0].column",
        "column users.first_nme does not exist (first_name does)",
    ),
    "a column in other letters": (
        "",
        clear("First_Name"),
        "clear[0].column",
        "column users.First_Name does not exist (first_name does)",
    ),
    "a key that is not unique": (
        "",
        {"key": "quarantined"},
        "key",
        "column users.quarantined is neither the primary key nor unique and NOT NULL",
    ),
    "a key whose unique index is partial": (
        "ALTER TABLE users ADD n int NOT NULL DEFAULT 0; CREATE UNIQUE INDEX ON users (n) WHERE n > 0",
        {"key": "n"},
        "key",
        "column users.n is neither the primary key nor unique and NOT NULL",
    ),
    "a key that is cleared": (
        "",
        {"key": "email", **clear("email", TEMPLATE, TOKEN)},
        "key",
        "key users.email is cleared, too",
    ),
    "a key of a type without exact text": (
        "ALTER TABLE users ADD f float8 NOT NULL UNIQUE",
        {"key": "f"},
        "key",
        "key users.f is double precision, which Lethe can't compare exactly",
    ),
    "an identifier that does not exist": (
        "",
        {"identifiers": {"email": "mail"}},
        "identifiers.email",
        "column users.mail does not exist (email does)",
    ),
    "an address that is no text": (
        "",
        {"identifiers": {"email": "id"}},
        "identifiers.email",
        "column users.id is bigint, not text",
    ),
    "a createdAt that is no moment": (
        "",
        {"created_at": "id"},
        "createdAt",
        "column users.id is bigint, which is no moment",
    ),
    "a quarantine column that does not exist": (
        "",
        {"quarantine": Quarantine("quarantine", "x")},
        "quarantine.column",
        "column users.quarantine does not exist (quarantined does)",
    ),
    "NULL for NOT NULL": ("", clear("email"), "clear[0].to", "column users.email is NOT NULL"),
    "a value that is no value of the type": (
        "ALTER TABLE users ADD born date",
        clear("born", VALUE, "erased"),
        "clear[0].value",
        "what is written is no date, the type of users.born",
    ),
    "a value that a domain refuses": (
        "CREATE DOMAIN lang AS text CHECK (VALUE ~ '^[a-z]{2}$'); ALTER TABLE users ADD l lang",
        clear("l", VALUE, "erased"),
        "clear[0].value",
        "what is written is no lang, the type of users.l",
    ),
    "a value that is too long": (
        "ALTER TABLE users ADD tag varchar(3)",
        clear("tag", VALUE, "erased"),
        "clear[0].value",
        "what is written takes up to 6 characters, column users.tag 3",
    ),
    "a template that fits short keys only": (
        "ALTER TABLE users ADD tag varchar(10) UNIQUE",
        clear("tag", TEMPLATE, "{key}"),
        "clear[0].template",
        "what is written takes up to 20 characters, column users.tag 10",
    ),
    "a constant for a unique column": (
        "",
        clear("email", VALUE, "erased@erased.invalid"),
        "clear[0].to",
        "column users.email is unique (users_email_key), two erased rows would be alike",
    ),
    "a constant under a unique expression": (
        "CREATE UNIQUE INDEX slug ON users (lower(first_name))",
        clear("first_name", VALUE, "x"),
        "clear[0].to",
        "column users.first_name is unique (slug), two erased rows would be alike",
    ),
    "a constant under a partial unique index": (
        "CREATE UNIQUE INDEX slug ON users (first_name) WHERE first_name <> ''",
        clear("first_name", VALUE, "x"),
        "clear[0].to",
        "column users.first_name is unique (slug), two erased rows would be alike",
    ),
    "NULL where NULLs collide": (
        "CREATE UNIQUE INDEX slug ON users (first_name) NULLS NOT DISTINCT",
        clear("first_name"),
        "clear[0].to",
        "column users.first_name is unique (slug), two erased rows would be alike",
    ),
    "a CHECK on the column": (
        "ALTER TABLE users ADD CONSTRAINT hashed CHECK (length(password_hash) <> 1)",
        clear("password_hash", VALUE, "!"),
        "clear[0]",
        "constraint hashed of users refuses what password_hash becomes",
    ),
    "a CHECK that a live row breaks": (
        (
            "INSERT INTO users (email, quarantined) VALUES ('a@b', 'no');"
            "ALTER TABLE users ADD CONSTRAINT known"
            " CHECK (quarantined IS DISTINCT FROM 'no' OR email NOT LIKE 'x-%')"
        ),
        clear("email", TEMPLATE, TOKEN),
        "clear[0]",
        "constraint known of users refuses what email becomes",
    ),
    "a generated column": (
        "ALTER TABLE users ADD full_name text GENERATED ALWAYS AS (first_name || last_name) STORED",
        clear("full_name"),
        "clear[0].column",
        "column users.full_name is generated",
    ),
    "a default that is another one tomorrow": (
        "ALTER TABLE users ADD seen timestamptz DEFAULT now()",
        clear("seen", DEFAULT),
        "clear[0].to",
        "the default of users.seen is not the same for everybody and at any time",
    ),
    "a default from a volatile function of one's own": (
        (
            "CREATE FUNCTION dice() RETURNS text LANGUAGE sql VOLATILE AS 'SELECT random()::text';"
            "ALTER TABLE users ADD seen text DEFAULT dice()"
        ),
        clear("seen", DEFAULT),
        "clear[0].to",
        "the default of users.seen is not the same for everybody and at any time",
    ),
    "a default from a sequence": (
        "ALTER TABLE users ADD n serial",
        clear("n", DEFAULT),
        "clear[0].to",
        "the default of users.n is not the same for everybody and at any time",
    ),
    "no default for NOT NULL": (
        "",
        clear("email", DEFAULT),
        "clear[0].to",
        "column users.email has no default and is NOT NULL",
    ),
    "a template for a foreign key": (
        "CREATE TABLE l (c text PRIMARY KEY); ALTER TABLE users ADD c text REFERENCES l",
        clear("c", TEMPLATE, "{token}"),
        "clear[0].to",
        "column users.c is a foreign key (users_c_fkey) to l, which has no such row",
    ),
    "a value that the other table does not have": (
        "CREATE TABLE l (c text PRIMARY KEY); ALTER TABLE users ADD c text REFERENCES l",
        clear("c", VALUE, "en"),
        "clear[0].to",
        "column users.c is a foreign key (users_c_fkey) to l, which has no such row",
    ),
    "a column that others point at": (
        "CREATE TABLE mails (u text REFERENCES users (email))",
        clear("email", TEMPLATE, TOKEN),
        "clear[0].column",
        "rows of mails point at users.email (mails_u_fkey)",
    ),
    "a column that is cleared twice": (
        "",
        {"clear": (rule("first_name"), rule("first_name"))},
        "clear[0].column",
        "column users.first_name is cleared twice",
    ),
    "a dependent that does not exist": (
        "",
        dependent("session", "user_id"),
        "dependents[0].table",
        "table session does not exist (sessions does)",
    ),
    "a foreign key that does not exist": (
        "",
        dependent("sessions", "userid"),
        "dependents[0].foreignKey",
        "column sessions.userid does not exist (user_id does)",
    ),
    "a foreign key of another type": (
        "",
        dependent("sessions", "token"),
        "dependents[0].foreignKey",
        "column sessions.token is text, the key bigint",
    ),
    "a column of a dependent that does not exist": (
        "",
        dependent("comments", "author_id", rule("sign")),
        "dependents[0].clear[0].column",
        "column comments.sign does not exist",
    ),
    "a template in a unique column of many rows": (
        "ALTER TABLE comments ADD slug text UNIQUE",
        dependent("comments", "author_id", rule("slug", TEMPLATE, "{token}")),
        "dependents[0].clear[0].to",
        "column comments.slug is unique (comments_slug_key), two erased rows would be alike",
    ),
    "rows that others point at": (
        "CREATE TABLE clicks (s bigint REFERENCES sessions)",
        dependent("sessions", "user_id"),
        "dependents[0].delete",
        "rows of clicks point at sessions (clicks_s_fkey), which stops a DELETE",
    ),
    "a key that tables below it share": (
        "CREATE TABLE archive () INHERITS (users)",
        {},
        "key",
        "archive inherits from users, and its rows can have keys that other persons have in users",
    ),
    "rows that RESTRICT below a CASCADE": (
        (
            "CREATE TABLE orders (id int PRIMARY KEY, s bigint REFERENCES sessions ON DELETE CASCADE);"
            "CREATE TABLE items (o int REFERENCES orders ON DELETE RESTRICT)"
        ),
        dependent("sessions", "user_id"),
        "dependents[0].delete",
        "rows of items point at orders (items_o_fkey), which stops a DELETE on sessions",
    ),
    "rows that can't lose what they point at": (
        "CREATE TABLE clicks (s bigint NOT NULL REFERENCES sessions ON DELETE SET NULL)",
        dependent("sessions", "user_id"),
        "dependents[0].delete",
        "rows of clicks point at sessions (clicks_s_fkey), which stops a DELETE",
    ),
    "a published dependent without a replica identity": (
        ("ALTER TABLE comments DROP CONSTRAINT comments_pkey;CREATE PUBLICATION everything FOR ALL TABLES"),
        dependent("comments", "author_id", rule("signature")),
        "dependents[0].clear",
        "comments is published without a replica identity that fits, which refuses every UPDATE",
    ),
    "a published dependent whose rows are deleted": (
        "ALTER TABLE sessions REPLICA IDENTITY NOTHING; CREATE PUBLICATION feed FOR TABLE sessions",
        dependent("sessions", "user_id"),
        "dependents[0].delete",
        "sessions is published without a replica identity that fits, which refuses every DELETE",
    ),
    "a publication of what a DELETE goes on to": (
        (
            "CREATE TABLE clicks (s bigint REFERENCES sessions ON DELETE CASCADE);"
            "CREATE PUBLICATION feed FOR TABLE clicks"
        ),
        dependent("sessions", "user_id"),
        "dependents[0].delete",
        "clicks is published without a replica identity that fits, which refuses every DELETE",
    ),
    "a publication whose WHERE the replica identity lacks": (
        "CREATE PUBLICATION feed FOR TABLE users WHERE (locale = 'de')",
        clear("first_name"),
        "clear",
        "users is published without a replica identity that fits, which refuses every UPDATE",
    ),
    "a published key that is DEFERRABLE": (
        (
            "CREATE TABLE members (id int PRIMARY KEY DEFERRABLE, name text);"
            "CREATE PUBLICATION everything FOR ALL TABLES"
        ),
        {"table": "members", "identifiers": {}, "created_at": None, "dependents": (), **clear("name")},
        "clear",
        "members is published without a replica identity that fits, which refuses every UPDATE",
    ),
    "a CHECK of a domain below a domain": (
        (
            "CREATE DOMAIN short AS text CHECK (length(VALUE) < 5); CREATE DOMAIN nick AS short;"
            "ALTER TABLE users ADD n nick"
        ),
        clear("n", VALUE, "erased"),
        "clear[0].value",
        "what is written is no nick, the type of users.n",
    ),
    "NULL for a domain below a domain that is NOT NULL": (
        (
            "CREATE DOMAIN named AS text NOT NULL; CREATE DOMAIN nick AS named CHECK (length(VALUE) > 1);"
            "ALTER TABLE users ADD n nick DEFAULT 'xx'"
        ),
        clear("n"),
        "clear[0].to",
        "column users.n is NOT NULL",
    ),
    "NULL for a domain whose CHECK refuses it": (
        (
            "CREATE DOMAIN named AS text CHECK (VALUE IS NOT NULL); CREATE DOMAIN nick AS named;"
            "ALTER TABLE users ADD n nick DEFAULT 'xx'"
        ),
        clear("n"),
        "clear[0].to",
        "column users.n is NOT NULL",
    ),
    "a value that is too long for a domain below a domain": (
        ("CREATE DOMAIN short AS varchar(5); CREATE DOMAIN nick AS short; ALTER TABLE users ADD n nick"),
        clear("n", VALUE, "erased"),
        "clear[0].value",
        "what is written takes up to 6 characters, column users.n 5",
    ),
    "a generated column that may not become NULL": (
        "ALTER TABLE users ADD shown text NOT NULL GENERATED ALWAYS AS (lower(first_name)) STORED",
        clear("first_name"),
        "clear[0]",
        "column users.shown is generated from first_name, and refuses what that becomes",
    ),
    "a generated column that becomes NULL in a live row": (
        (
            "INSERT INTO users (email, first_name, last_name) VALUES ('a@b', 'a', 'b');"
            "ALTER TABLE users ADD shown text NOT NULL GENERATED ALWAYS AS (first_name || last_name) STORED"
        ),
        clear("first_name"),
        "clear[0]",
        "column users.shown is generated from first_name, and refuses what that becomes",
    ),
    "a virtual column that may not become NULL": (
        "ALTER TABLE users ADD shown text NOT NULL GENERATED ALWAYS AS (lower(first_name)) VIRTUAL",
        clear("first_name"),
        "clear[0]",
        "column users.shown is generated from first_name, and refuses what that becomes",
    ),
    "a generated column that becomes too long": (
        (
            "INSERT INTO users (email, first_name) VALUES ('a@b', 'a');"
            "ALTER TABLE users ADD n varchar(3) GENERATED ALWAYS AS (first_name) STORED"
        ),
        clear("first_name", VALUE, "erased"),
        "clear[0]",
        "column users.n is generated from first_name, and refuses what that becomes",
    ),
    "a constant under a unique generated column": (
        "ALTER TABLE users ADD slug text GENERATED ALWAYS AS (lower(first_name)) STORED UNIQUE",
        clear("first_name", VALUE, "x"),
        "clear[0].to",
        "column users.slug is unique (users_slug_key), two erased rows would be alike",
    ),
    "a constant for a unique UUID": (
        "ALTER TABLE users ADD ref uuid NOT NULL UNIQUE",
        clear("ref", VALUE, "00000000-0000-0000-0000-000000000000"),
        "clear[0].to",
        "column users.ref is unique (users_ref_key), two erased rows would be alike",
    ),
    "a token that is too short": (
        "",
        clear("email", TEMPLATE, "{token:7}@erased.invalid"),
        "clear[0].template",
        "{token:7}@erased.invalid has no length from 8 to 24 after {token:",
    ),
    "a quarantine of a type that can't be compared": (
        "ALTER TABLE users ADD flags json",
        {"quarantine": Quarantine("flags", "{}")},
        "quarantine.column",
        "column users.flags is json",
    ),
}


def problems_of(site: Site, **changes: Any) -> Sequence[MappingProblem]:
    with pytest.raises(MappingInvalid) as refused:
        site.prove(**changes)
    return refused.value.problems


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_mapping_is_refused_for(site: Site, case: tuple[str, dict[str, Any], str, str]) -> None:
    schema, changes, field, problem = case
    if schema:
        site.sql.execute(schema)
    found = problems_of(site, **changes)
    assert [
        one for one in found if one.field == f"sql.subjects.{field}" and one.problem.startswith(problem)
    ], found
    assert all(one.remedy for one in found)


UUIDS = ("6f1a0f0e-7a31-4d9b-a6c4-0123456789ab", "6f1a0f0e-7a31-4d9b-a6c4-0123456789ac")
# (type, is it unique, rule, what stood there before in two rows)
FITTING: dict[str, tuple[str, bool, ClearRule, tuple[str, str]]] = {
    "a short text": ("varchar(16)", True, rule("v", TEMPLATE, "x{token:15}"), ("a", "b")),
    "the shortest": ("char(8)", True, rule("v", TEMPLATE, "{token:8}"), ("a", "b")),
    "a UUID": ("uuid", True, rule("v", TEMPLATE, "{uuid}"), UUIDS),
    "a UUID in text": ("varchar(36)", True, rule("v", TEMPLATE, "{uuid}"), UUIDS),
    "a number": ("bigint", True, rule("v", TEMPLATE, "-{key}"), ("41", "42")),
    "bytes": ("bytea", True, rule("v", TEMPLATE, "{token}"), ("a", "b")),
    "a domain below a domain": ("nick", True, rule("v", TEMPLATE, "{token:12}"), ("a", "b")),
    "json": ("json", False, rule("v", VALUE, '{"a": []}'), ('{"phone": 1}', "{}")),
    "jsonb under a CHECK": (
        "jsonb CHECK (jsonb_typeof(v) = 'object')",
        False,
        rule("v", VALUE, "{}"),
        ('{"phone": 1}', '{"phone": 2}'),
    ),
    "a key in json": ("json", False, rule("v", TEMPLATE, '{"was": "{token:9}"}'), ("{}", "[]")),
    "a point": ("point", False, rule("v", VALUE, "(0,0)"), ("(48.2,16.3)", "(1,1)")),
    "a box of the same area": ("box", False, rule("v", VALUE, "(1,1),(0,0)"), ("(3,3),(2,2)", "(5,5),(4,4)")),
    "an address of the net": ("inet", False, rule("v", VALUE, "::"), ("192.0.2.7", "192.0.2.8")),
    "an array": ("text[]", False, rule("v", VALUE, "{}"), ("{a,b}", "{c}")),
    "a range": ("int4range", False, rule("v", VALUE, "empty"), ("[1,3)", "[2,4)")),
    "an enum": ("mood", False, rule("v", VALUE, "none"), ("happy", "sad")),
}


@pytest.mark.parametrize("case", FITTING.values(), ids=FITTING)
def test_a_rule_fits_what_is_not_null(site: Site, case: tuple[str, bool, ClearRule, tuple[str, str]]) -> None:
    """It is proved, taken for two persons, read back as cleared, and missed where it is overwritten."""
    column, unique, fitting, values = case
    persons = [somebody(), somebody()]
    site.sql.execute(
        "CREATE TYPE mood AS ENUM ('none', 'happy', 'sad'); CREATE DOMAIN short AS varchar(12);"
        f"CREATE DOMAIN nick AS short; ALTER TABLE users ADD v {column}"
    )
    for person, value in zip(persons, values, strict=True):
        site.enter(person)
        site.sql.execute("UPDATE users SET v = %s WHERE email = %s", (value, person.email))
    site.sql.execute("ALTER TABLE users ALTER v SET NOT NULL")
    if unique:
        site.sql.execute("ALTER TABLE users ADD UNIQUE (v)")
    store = site.with_mapping(clear=(*MAPPING.clear, fitting))
    world = Site(store, site.keyring, sql=site.sql, url=site.url)
    tombstones = world.tombstones_of(*persons)
    assert len(world.erase(tombstones).entries) == 2
    assert not world.check(tombstones).uncleared
    site.sql.execute("UPDATE users SET v = %s WHERE id = %s", (values[0], tombstones[0].key))
    assert world.check(tombstones).uncleared == (tombstones[0].number,)
    assert len(world.erase_again(tombstones).entries) == 1
    assert not world.check(tombstones).uncleared
    store.close()


def test_a_deferrable_primary_key_is_a_key(site: Site) -> None:
    site.sql.execute(
        "ALTER TABLE comments DROP CONSTRAINT comments_pkey, DROP CONSTRAINT comments_author_id_fkey"
    )
    site.sql.execute("ALTER TABLE sessions DROP CONSTRAINT sessions_user_id_fkey")
    site.sql.execute(
        "ALTER TABLE users DROP CONSTRAINT users_pkey; ALTER TABLE users ADD PRIMARY KEY (id) DEFERRABLE"
    )
    person = somebody()
    site.enter(person)
    tombstones = site.tombstones_of(person)
    assert len(site.erase(tombstones).entries) == 1
    assert not site.check(tombstones).uncleared


def test_what_a_publication_can_follow_is_erased(site: Site) -> None:
    site.sql.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    person = somebody()
    site.enter(person)
    assert len(site.erase(site.tombstones_of(person)).entries) == 1


def test_rows_below_a_cascade_go_with_it(site: Site) -> None:
    site.sql.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, s bigint REFERENCES sessions ON DELETE CASCADE);"
        "CREATE TABLE items (o int REFERENCES orders ON DELETE SET NULL,"
        " s bigint REFERENCES sessions ON DELETE CASCADE)"
    )
    person = somebody()
    site.enter(person)
    site.sql.execute(
        "INSERT INTO orders SELECT id, id FROM sessions; INSERT INTO items SELECT id, s FROM orders"
    )
    assert len(site.erase(site.tombstones_of(person)).entries) == 1
    assert site.sql.execute("SELECT count(*) FROM items").fetchone() == (0,)


def test_every_problem_is_told_at_once(site: Site) -> None:
    changes = {"key": "ident", "clear": (rule("first_nme"), rule("email")), "dependents": ()}
    assert {one.field for one in problems_of(site, **changes)} == {
        "sql.subjects.key",
        "sql.subjects.clear[0].column",
        "sql.subjects.clear[1].to",
    }


def test_a_foreign_key_may_become_null_or_a_value_that_is_there(site: Site) -> None:
    site.sql.execute(
        "CREATE TABLE l (c text PRIMARY KEY); INSERT INTO l VALUES ('en');"
        "ALTER TABLE users ADD a text REFERENCES l, ADD b text REFERENCES l DEFAULT 'en'"
    )
    proved = site.prove(clear=(rule("a"), rule("b", DEFAULT))).proved
    assert proved.mapping.clear[1].text == "en"


def test_a_default_may_read_like_a_function_and_be_none(site: Site) -> None:
    site.sql.execute("ALTER TABLE users ADD a text DEFAULT 'USER it''s now()', ADD b char(5) DEFAULT 'x'")
    clear = site.prove(clear=(rule("a", DEFAULT), rule("b", DEFAULT))).proved.mapping.clear
    assert [one.text for one in clear] == ["USER it's now()", "x"]


def test_a_store_names_its_server_as_a_ledger_does(site: Site) -> None:
    """The ledger must not live on the server that it guards; both ask for the same identifier."""
    row = site.sql.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
    assert row is not None
    assert site.prove().server == row[0]


def test_a_unique_index_that_holds_the_key_too_allows_a_constant(site: Site) -> None:
    site.sql.execute("CREATE UNIQUE INDEX ON users (id, first_name)")
    assert site.prove(**clear("first_name", VALUE, "x")).proved.version


def test_names_that_need_quoting_are_only_names(site: Site) -> None:
    odd = 'we"ird %s {x} :y; DROP TABLE users--'
    quoted = odd.replace('"', '""')
    site.sql.execute(
        f'CREATE SCHEMA "S 1"; CREATE TABLE "S 1"."T%" ("{quoted}" text, "Key" uuid PRIMARY KEY)'
    )
    site.sql.execute('INSERT INTO "S 1"."T%" SELECT \'canary@example.org\', gen_random_uuid()')
    store = site.with_mapping(
        table="S 1.T%",
        key="Key",
        identifiers={"email": odd},
        created_at=None,
        clear=(rule(odd, TEMPLATE, "100%-'{token}' {{x}}\\"),),
        dependents=(),
    )
    world = Site(store, site.keyring, sql=site.sql, url=site.url)
    (tombstone,) = world.tombstones_of(type(somebody())("canary@example.org", "", ""))
    assert len(world.erase([tombstone]).entries) == 1
    assert not world.check([tombstone]).uncleared
    row = site.sql.execute(f'SELECT "{quoted}" FROM "S 1"."T%"'.replace("%", "%%"), ()).fetchone()
    assert row is not None
    assert row[0].startswith("100%-'")
    assert row[0].endswith("' {{x}}\\")
    store.close()


def test_the_same_mapping_has_the_same_version_and_another_when_a_default_changes(site: Site) -> None:
    version = site.prove().proved.version
    assert len(version) == 16
    assert site.prove().proved.version == version
    site.sql.execute("ALTER TABLE users ALTER locale SET DEFAULT 'fr'")
    proved = site.prove().proved
    assert proved.version != version
    assert {one.column: one.text for one in proved.mapping.clear}["locale"] == "fr"


KEYS = (
    Constraint("public.comments", ("author_id",), "public.users"),
    Constraint("public.comments", ("id",)),
    Constraint("public.sessions", ("id",)),
    Constraint("public.sessions", ("user_id",), "public.users"),
    Constraint("public.users", ("email",)),
    Constraint("public.users", ("id",)),
)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE users RENAME CONSTRAINT users_pkey TO persons",
        "ALTER TABLE users DROP CONSTRAINT users_email_key; CREATE UNIQUE INDEX one_each ON users (email)",
        (
            "ALTER TABLE sessions DROP CONSTRAINT sessions_user_id_fkey;"
            "ALTER TABLE sessions ADD CONSTRAINT of FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE"
        ),
    ],
)
def test_keys_that_a_restore_makes_last_are_known_by_what_they_are(site: Site, change: str) -> None:
    assert site.prove().proved.constraints == KEYS
    site.sql.execute(change)
    assert site.prove().proved.constraints == KEYS


def test_columns_that_look_personal_are_warned_of_unless_ignored(site: Site) -> None:
    site.sql.execute(
        "ALTER TABLE users ADD nickname text, ADD last_ip inet, ADD email_verified bool, ADD tz text,"
        " ADD birth_date date, ADD price int;"
        "ALTER TABLE sessions ADD ip text; ALTER TABLE comments ADD phone text"
    )
    assert site.prove(ignore=("tz", "comments.phone")).lookalikes == (
        "users.birth_date",
        "users.last_ip",
        "users.nickname",
    )


def test_tables_that_point_at_persons_are_warned_of_unless_mapped_or_ignored(site: Site) -> None:
    site.sql.execute(
        "CREATE TABLE addresses (user_id bigint REFERENCES users); CREATE TABLE orders (user_id int);"
        "CREATE TABLE devices (users_id text); CREATE TABLE likes (author_id bigint);"
        "CREATE SCHEMA shop; CREATE TABLE shop.carts (owner bigint REFERENCES users);"
        "CREATE TABLE logs (user_id int) PARTITION BY LIST (user_id);"
        "CREATE TABLE logs_1 PARTITION OF logs FOR VALUES IN (1)"
    )
    assert site.prove(ignore=("likes.author_id",)).pointing == (
        "addresses.user_id",
        "logs.user_id",
        "orders.user_id",
        "shop.carts.owner",
    )


def test_materialized_views_of_what_is_cleared_are_warned_of_unless_ignored(site: Site) -> None:
    site.sql.execute(
        "CREATE MATERIALIZED VIEW how_many AS SELECT count(*) FROM users;"
        "CREATE MATERIALIZED VIEW keys AS SELECT id, created_at FROM users;"
        "CREATE MATERIALIZED VIEW search AS SELECT id, lower(email) AS term FROM users;"
        "CREATE VIEW names AS SELECT first_name FROM users;"
        "CREATE MATERIALIZED VIEW upper_names AS SELECT upper(first_name) FROM names;"
        "CREATE MATERIALIZED VIEW whole AS SELECT u::text FROM users u;"
        "CREATE MATERIALIZED VIEW tokens AS SELECT token FROM sessions"
    )
    told = site.prove(ignore=("how_many",)).copies
    assert told == ("search", "tokens", "upper_names", "whole")


def test_a_generator_of_keys_that_lethe_can_not_move_is_named(site: Site) -> None:
    assert site.prove().keys_may_repeat == ()
    site.sql.execute("ALTER TABLE users ALTER id DROP DEFAULT; DROP SEQUENCE users_id_seq")
    assert site.prove().keys_may_repeat == ("users.id",)


def test_proving_writes_nothing_to_the_subjects_and_makes_no_head(site: Site) -> None:
    site.enter(somebody())
    before = site.everything()
    assert site.prove().journal is JournalSupport.KEPT
    assert site.everything() == before
    assert site.head() is None


class TestOfAnotherUser:
    """What a user who does not own the tables may and may not."""

    @pytest.fixture
    def role(self, site: Site) -> str:
        name = f"lethe_{site.url.rsplit('/', 1)[1]}"
        site.sql.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
        site.sql.execute(
            f"DROP TABLE lethe_journal_head, lethe_journal_entries; GRANT USAGE ON SCHEMA public TO {name}"
        )
        return name

    @staticmethod
    def url(site: Site, role: str) -> str:
        scheme, rest = site.url.split("://")
        return f"{scheme}://{role}:pw@{rest.split('@', 1)[1]}"

    def test_missing_privileges_are_told_one_by_one(self, site: Site, role: str) -> None:
        site.sql.execute(f"GRANT SELECT ON users, sessions, comments TO {role}")
        site.sql.execute(f"GRANT UPDATE (first_name, last_name, email, locale, time_zone) ON users TO {role}")
        store = store_of(self.url(site, role))
        with pytest.raises(MappingInvalid) as refused:
            store.prove()
        store.close()
        assert {one.problem for one in refused.value.problems} == {
            "the user may not UPDATE users.password_hash",
            "the user has no DELETE on sessions",
            "the user may not UPDATE comments.signature",
        }

    def test_where_no_table_may_be_made_the_dba_gets_ddl_that_works(self, site: Site, role: str) -> None:
        site.sql.execute(f"GRANT SELECT, UPDATE, DELETE ON users, sessions, comments TO {role}")
        store = store_of(self.url(site, role))
        proof = store.prove()
        assert proof.journal is JournalSupport.NOT_PERMITTED
        site.sql.execute(proof.journal_ddl)
        assert store.prove().journal is JournalSupport.KEPT
        world = Site(store, site.keyring, sql=site.sql, url=site.url)
        person = somebody()
        site.enter(person)
        tombstones = world.tombstones_of(person)
        assert len(world.erase(tombstones).entries) == 1
        store.close()

    def test_a_server_that_keeps_its_identifier_to_itself_is_known_by_its_address(
        self, site: Site, role: str
    ) -> None:
        site.sql.execute(f"GRANT SELECT, UPDATE, DELETE ON users, sessions, comments TO {role}")
        site.sql.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        store = store_of(self.url(site, role))
        assert store.prove().server == site.url.split("@", 1)[1].split("/", 1)[0]
        assert store.observe().identity == store.observe().identity
        assert store.observe().identity.server["system"]
        store.close()

    def test_rows_that_a_policy_hides_are_no_absence(self, site: Site, role: str) -> None:
        site.sql.execute(f"GRANT SELECT, UPDATE, DELETE ON users, sessions, comments TO {role}")
        site.sql.execute("ALTER TABLE users ENABLE ROW LEVEL SECURITY")
        store = store_of(self.url(site, role))
        with pytest.raises(MappingInvalid, match="row level security of table users hides rows"):
            store.prove()
        store.close()

    @pytest.fixture(autouse=True)
    def _drop(self, site: Site, role: str, postgres: PostgresServer) -> Any:
        yield
        site.sql.execute(f"DROP OWNED BY {role}")
        site.sql.execute(f"DROP ROLE {role}")


def test_a_stranger_s_table_of_the_journal_s_name_is_not_taken_over(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(SCHEMA)
        sql.execute("CREATE TABLE lethe_journal_head (ledger text)")
        store = store_of(database, MAPPING)
        with pytest.raises(Exception, match="lethe_journal_head is there, but not as Lethe's journal"):
            store.prove()
        store.close()
