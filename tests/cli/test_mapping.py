"""`kubectl lethe map` on live schemas: what it proposes fits, and what it misses is told in the docs."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from devtools.servers.postgres import PostgresServer
from lethe.adapters.stores.sql.store import SqlStore
from lethe.api.parse import parse
from lethe.api.translation import subject_mapping
from lethe.api.v1alpha1.datastore import DataStore
from lethe.cli import kubectl
from lethe.domain.mapping_proposal import Reading
from tests.adapters.stores.sql.conftest import HmacKeyring
from tests.cli.known_schemas import KNOWN_SCHEMAS, KnownSchema

PAGE = Path(__file__).parents[2] / "docs" / "mapping.md"


@dataclass
class Proposed:
    """What the command printed."""

    documents: list[dict[str, Any]]
    text: str
    said: str

    @property
    def subjects(self) -> dict[str, Any]:
        subjects: dict[str, Any] = self.documents[0]["spec"]["sql"]["subjects"]
        return subjects

    def mapped(self) -> tuple[set[str], set[str]]:
        """Return the columns that are cleared, as `table.column`, and the tables whose rows go."""
        columns, rows = set[str](), set[str]()
        for one in (document["spec"]["sql"]["subjects"] for document in self.documents):
            columns |= {f"{one['table']}.{rule['column']}" for rule in one["clear"]}
            for dependent in one.get("dependents", ()):
                rows |= {dependent["table"]} if dependent.get("delete") else set()
                columns |= {f"{dependent['table']}.{rule['column']}" for rule in dependent.get("clear", ())}
        return columns, rows

    def told_of(self, column: str) -> bool:
        """Tell whether a person is told to look at a column: by itself, or at all of its table."""
        table, _, name = column.partition(".")
        heading = ""
        for line in self.text.splitlines():
            if line.startswith("# - "):
                heading = line[4:].rstrip(":")
            item = re.fullmatch(r"#   - (\S+)(?: \((.*)\))?", line)
            if item is None:
                continue
            about, detail = item[1], item[2] or ""
            if about == column or (about == table and heading in _OF_WHOLE_TABLES):
                return True
            if about == table and heading == Reading.FREE_TEXT.value and name in detail.split(", "):
                return True
        return False


_OF_WHOLE_TABLES = {
    one.value for one in (Reading.UNREACHED, Reading.ABOVE, Reading.INDIRECT, Reading.RECORDS)
}


class Mapper:
    """Makes databases, and runs the command on them."""

    def __init__(self, postgres: PostgresServer, capsys: pytest.CaptureFixture[str]) -> None:
        self._postgres, self._capsys = postgres, capsys
        self.made: list[str] = []

    def database(self, ddl: str) -> str:
        """Return the URL of a new database with these tables."""
        name = f"map_{secrets.token_hex(4)}"
        with psycopg.connect(self._postgres.url("postgres"), autocommit=True) as server:
            server.execute(f"CREATE DATABASE {name}")
        self.made.append(name)
        url = self._postgres.url(name)
        with psycopg.connect(url, autocommit=True) as database:
            database.execute(ddl)
        return url

    def propose(self, url: str, *arguments: str, rc: int = 0) -> Proposed:
        self._capsys.readouterr()
        assert kubectl.main(["map", url, *arguments]) == rc
        out, err = self._capsys.readouterr()
        return Proposed(list(yaml.safe_load_all(out)), out, err)

    def drop(self) -> None:
        with psycopg.connect(self._postgres.url("postgres"), autocommit=True) as server:
            for name in self.made:
                server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def mapper(postgres: PostgresServer, capsys: pytest.CaptureFixture[str]) -> Iterator[Mapper]:
    found = Mapper(postgres, capsys)
    yield found
    found.drop()


def row_of(known: KnownSchema, found: Proposed) -> str:
    """Return the line of the page's table."""
    columns, rows = found.mapped()
    mapped = {one for one in known.columns if one in columns or one.partition(".")[0] in rows}
    told = {one for one in known.columns - mapped if found.told_of(one)}
    missed = known.columns - mapped - told
    wrong = {one for one in columns if one not in known.columns}
    wrong |= {one for one in rows if one not in known.personal}
    shown = [", ".join(f"`{one}`" for one in sorted(some)) or "–" for some in (missed, wrong)]
    return (
        f"| {known.title} | `{found.subjects['table']}` | {len(known.columns)} | {len(mapped)} | {len(told)} "
        f"| {' | '.join(shown)} |"
    )


@pytest.mark.parametrize("known", KNOWN_SCHEMAS, ids=lambda one: one.file.removesuffix(".sql"))
def test_what_is_proposed_for_a_known_schema_is_proved_and_is_as_the_page_says(
    mapper: Mapper, known: KnownSchema
) -> None:
    url = mapper.database(known.ddl)
    found = mapper.propose(url, "--namespace", "privacy")
    assert found.subjects["table"] == known.persons
    assert row_of(known, found) in PAGE.read_text().splitlines()
    for n, document in enumerate(found.documents):
        store = parse(DataStore, document)
        subjects = store.spec.sql.subjects if store.spec.sql else None
        assert subjects is not None
        proved = SqlStore(
            url,
            subject_mapping(subjects),
            ledger_id="l",
            store=f"privacy/{document['metadata']['name']}",
            keyring=HmacKeyring(b"k"),
            primary=n == 0,
        )
        try:
            assert not proved.prove().pointing, "all of it is mapped or ignored"
        finally:
            proved.close()


CRYPTIC = """
CREATE TABLE t1 (
  id bigserial PRIMARY KEY, f1 text NOT NULL, f2 text, f3 text, f4 text, f5 text, made timestamptz);
COMMENT ON COLUMN t1.f5 IS E'what she is called\\nspec: {}';
INSERT INTO t1 (f1, f2, f3, f4, f5)
SELECT 'person' || n || '@canary.example', '$2b$12$abcdefghijklmnopqrstu' || n, 'Europe/Vienna', 'de_AT',
       'Canary'
  FROM generate_series(1, 500) AS n;
"""


def test_values_tell_what_names_do_not_and_none_of_them_is_printed(mapper: Mapper) -> None:
    found = mapper.propose(mapper.database(CRYPTIC))
    kinds = {rule["column"]: rule["holds"] for rule in found.subjects["clear"]}
    assert kinds == {"f1": "Email", "f2": "Password", "f3": "TimeZone", "f4": "Locale"}
    assert found.subjects["identifiers"] == {"email": "f1"}
    assert "by its values" in found.text
    assert not re.search(r"canary|\$2b|Vienna|de_AT", (found.text + found.said).lower())


REFUSING = """
CREATE TABLE users (
  id serial PRIMARY KEY, email text NOT NULL CHECK (email ~ '^.+@.+$'), username varchar(12) NOT NULL UNIQUE,
  first_name text NOT NULL CHECK (length(first_name) > 2),
  phone varchar(9) NOT NULL CHECK (phone ~ '^[0-9]+$'));
CREATE TABLE sessions (id serial PRIMARY KEY, user_id int REFERENCES users, ip inet NOT NULL);
CREATE TABLE uses (id serial PRIMARY KEY, session_id int NOT NULL REFERENCES sessions);
CREATE TABLE tokens (id serial PRIMARY KEY, user_id int REFERENCES users);
CREATE TABLE uses_of_tokens (id serial PRIMARY KEY, token_id int NOT NULL REFERENCES tokens);
"""


def test_what_the_schema_refuses_becomes_the_next_best_thing_or_is_told(mapper: Mapper) -> None:
    found = mapper.propose(mapper.database(REFUSING))
    rules = {rule["column"]: rule.get("template", rule.get("value")) for rule in found.subjects["clear"]}
    assert rules == {
        "email": "erased-{token}@erased.invalid",
        "username": "{token:8}",
        "first_name": "erased",
    }
    assert "users.phone (constraint users_phone_check of users refuses what phone becomes)" in found.text
    assert found.subjects["dependents"] == [
        {"table": "sessions", "foreignKey": "user_id", "clear": [{"column": "ip", "holds": "Other",
                                                                   "to": "Value", "value": "::"}]}
    ]  # fmt: skip
    assert found.subjects["ignore"] == ["tokens.user_id"]
    assert "tokens.user_id (rows of uses_of_tokens point at tokens" in found.text


def test_nothing_that_is_written_in_a_schema_becomes_a_line_of_the_manifest(mapper: Mapper) -> None:
    odd = 'users\n  owner: ThirdParty # "x"'
    quoted = odd.replace('"', '""')
    ddl = f"""
    CREATE TABLE "{quoted}" (id serial PRIMARY KEY, email text, "no" text, "téléphone: phone" text);
    COMMENT ON COLUMN "{quoted}".email IS E'the\\n  owner: ThirdParty';
    CREATE TABLE "odd\n notes" (
      id serial PRIMARY KEY, user_id int REFERENCES "{quoted}", phone text, words text);
    """
    found = mapper.propose(mapper.database(ddl))
    assert found.subjects["table"] == odd
    assert found.documents[0]["spec"]["owner"] == "Self"
    assert {rule["column"] for rule in found.subjects["clear"]} == {"email", "téléphone: phone"}
    assert [one["table"] for one in found.subjects["dependents"]] == ["odd\n notes"]


def test_names_of_any_characters_are_read_as_what_they_are(mapper: Mapper) -> None:
    names = ("phone 😀", "phone\x7f", "phone\x80", "phone\ufeff", 'phone "\\ud83d\\"')
    columns = ", ".join(f'"{one.replace(chr(34), chr(34) * 2)}" text' for one in names)
    found = mapper.propose(mapper.database(f"CREATE TABLE users (id int PRIMARY KEY, email text, {columns})"))
    assert {rule["column"] for rule in found.subjects["clear"]} == {"email", *names}


def test_no_document_takes_the_place_of_another_when_they_are_applied(mapper: Mapper) -> None:
    long = "subscribers_of_a_letter_with_a_name_as_long_as_can_be_in"
    others = ('"Subs"', "subs", "subs_", f"{long}_1", f"{long}_2")
    ddl = "".join(f"CREATE TABLE {one} (id int PRIMARY KEY, email text);" for one in others)
    found = mapper.propose(
        mapper.database(f"CREATE TABLE users (id int PRIMARY KEY, email text, password text); {ddl}")
    )
    names = [document["metadata"]["name"] for document in found.documents]
    assert len({*names}) == len(names) == 6
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", one) for one in names)
    tables = {document["spec"]["sql"]["subjects"]["table"] for document in found.documents}
    assert tables == {"users", *(one.strip('"') for one in others)}


def test_personal_columns_for_which_there_is_no_room_are_told(mapper: Mapper) -> None:
    phones = [f"phone_{n}" for n in range(70)]
    columns = ", ".join(f"{one} varchar(20)" for one in phones)
    found = mapper.propose(
        mapper.database(
            f"CREATE TABLE users (id int PRIMARY KEY, email text, {columns});"
            f" CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users, {columns})"
        )
    )
    mapped, _ = found.mapped()
    for column in (f"{table}.{one}" for table in ("users", "orders") for one in phones):
        assert column in mapped or column in found.text, column


def test_a_schema_that_the_user_may_not_look_into_is_told_and_stops_nothing(mapper: Mapper) -> None:
    role = f"reader_{secrets.token_hex(4)}"
    url = mapper.database(
        f"CREATE ROLE {role} LOGIN PASSWORD 'lethe-of-tests';"
        "CREATE TABLE users (id int PRIMARY KEY, email text, first_name text);"
        f"GRANT SELECT, UPDATE ON users TO {role}; CREATE SCHEMA closed;"
        "CREATE TABLE closed.subscribers (id int PRIMARY KEY, email text);"
    )
    at = url.partition("@")[2]
    try:
        found = mapper.propose(f"postgresql://{role}:lethe-of-tests@{at}")
    finally:
        with psycopg.connect(url, autocommit=True) as database:
            database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert [one["spec"]["sql"]["subjects"]["table"] for one in found.documents] == ["users"]
    for told in (found.said, found.text):
        assert "may not look into these schemas: closed" in told


def test_what_the_user_may_not_do_is_told_and_leaves_nothing_out(mapper: Mapper) -> None:
    role = f"reader_{secrets.token_hex(4)}"
    url = mapper.database(
        "CREATE TABLE users (id serial PRIMARY KEY, email text, phone text);"
        "INSERT INTO users (email) VALUES ('hers@canary.example');"
        f"CREATE ROLE {role} LOGIN PASSWORD 'password'; GRANT SELECT ON users TO {role};"
        f"CREATE TABLE hidden (id serial PRIMARY KEY, user_id int REFERENCES users, phone text)"
    )
    with psycopg.connect(url, autocommit=True) as database:
        try:
            found = mapper.propose(re.sub(r"//[^@]*@", f"//{role}:password@", url))
        finally:
            database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert found.subjects["table"] == "users"
    assert [one["table"] for one in found.subjects["dependents"]] == ["hidden"]
    for lacking in ("SELECT hidden.user_id", "UPDATE hidden.phone", "UPDATE users.phone"):
        assert f"the user may not {lacking}" in found.text
    assert "hers" not in found.text


@pytest.mark.parametrize(
    ("ddl", "arguments", "said"),
    [
        ("", (), "no table there looks like one of persons"),
        ("CREATE TABLE things (id serial PRIMARY KEY, name text)", (), "no table there looks like"),
        ("CREATE TABLE things (id serial PRIMARY KEY, size int)", ("--table", "things"), "can be cleared"),
        (
            "CREATE TABLE users (a int, b int, email text, PRIMARY KEY (a, b))",
            ("--table", "users"),
            "one column",
        ),
        ("CREATE TABLE users (id serial PRIMARY KEY, email text)", ("--table", "user"), "no table user"),
    ],
)
def test_where_nothing_can_be_proposed_it_is_said_why(
    mapper: Mapper, ddl: str, arguments: tuple[str, ...], said: str
) -> None:
    found = mapper.propose(mapper.database(ddl or "SELECT 1"), *arguments, rc=2)
    assert found.text == ""
    assert said in found.said


def test_a_proposal_that_the_schema_refuses_as_a_whole_says_so_and_fails(mapper: Mapper) -> None:
    ddl = "CREATE TABLE users (id serial PRIMARY KEY, email text); CREATE TABLE guests () INHERITS (users)"
    found = mapper.propose(mapper.database(ddl), rc=1)
    assert "which refuses it" in found.text.splitlines()[0]
    assert "guests inherits from users" in found.text


def test_a_url_that_leads_nowhere_is_told_without_its_password(mapper: Mapper) -> None:
    for url in ("postgresql://u:hunter2@127.0.0.1:1/x", "postgresql://u:hunter2@h@127.0.0.1/x"):
        found = mapper.propose(url, rc=2)
        assert "URL" in found.said
        assert "hunter2" not in found.said
