"""The bench's site: a table of users of whom some are to be erased, and the same erasure by hand.

The erased are spread evenly over the table, so that they touch as many pages as real ones do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

from lethe.domain.mapping import ClearRule, ClearTo, Dependent, PiiKind, SubjectMapping

SCHEMA = """
CREATE TABLE users (
  id bigserial PRIMARY KEY,
  first_name text,
  last_name text,
  email varchar(255) NOT NULL UNIQUE,
  password_hash text NOT NULL DEFAULT '!',
  locale text NOT NULL DEFAULT 'en-US',
  time_zone text NOT NULL DEFAULT 'UTC',
  created_at timestamptz NOT NULL
);
CREATE TABLE sessions (id bigserial PRIMARY KEY, user_id bigint NOT NULL REFERENCES users (id), token text);
"""

_USERS = """
INSERT INTO users (first_name, last_name, email, password_hash, locale, time_zone, created_at)
SELECT 'First' || n, 'Last' || n, 'person-' || n || '@example.org', md5(n::text) || md5((-n)::text),
       'de-CH', 'Europe/Zurich', timestamptz '2024-01-01' + n * interval '17.000001 seconds'
  FROM generate_series(1, %s) AS n
"""
_SESSIONS = """
INSERT INTO sessions (user_id, token) SELECT id, md5(id::text || s)
  FROM generate_series(%(step)s::bigint, %(last)s::bigint, %(step)s::bigint) AS id, generate_series(1, 2) AS s
"""
_ERASED = """
SELECT id::text, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), email FROM users
 WHERE id %% %(step)s = 0 AND id <= %(last)s ORDER BY id
"""

MAPPING = SubjectMapping(
    table="users",
    key="id",
    identifiers={"email": "email"},
    created_at="created_at",
    clear=(
        ClearRule("first_name", PiiKind.FIRST_NAME, ClearTo.SET_NULL),
        ClearRule("last_name", PiiKind.LAST_NAME, ClearTo.SET_NULL),
        ClearRule("email", PiiKind.EMAIL, ClearTo.TEMPLATE, "erased-{token}@erased.invalid"),
        ClearRule("password_hash", PiiKind.PASSWORD, ClearTo.VALUE, "!"),
        ClearRule("locale", PiiKind.LOCALE, ClearTo.DEFAULT),
        ClearRule("time_zone", PiiKind.TIME_ZONE, ClearTo.DEFAULT),
    ),
    dependents=(Dependent("sessions", "user_id", delete=True),),
)

# The same by hand. `lpad` gives the address the length that a token gives it.
_BY_HAND_STAGE = "CREATE TEMP TABLE wanted (key bigint NOT NULL) ON COMMIT DROP"
_BY_HAND_SESSIONS = "DELETE FROM sessions AS d USING wanted AS w WHERE d.user_id = w.key"
_BY_HAND_USERS = """
UPDATE users AS u SET first_name = NULL, last_name = NULL, password_hash = '!', locale = 'en-US',
       time_zone = 'UTC', email = 'erased-' || lpad(w.key::text, 24, 'x') || '@erased.invalid'
  FROM wanted AS w WHERE u.id = w.key
"""
_BY_HAND_CHECK = """
SELECT (SELECT count(*) FROM wanted AS w JOIN users AS u ON u.id = w.key
         WHERE u.first_name IS NOT NULL OR u.last_name IS NOT NULL OR u.password_hash <> '!'
            OR u.locale <> 'en-US' OR u.time_zone <> 'UTC'
            OR u.email <> 'erased-' || lpad(w.key::text, 24, 'x') || '@erased.invalid')
     + (SELECT count(*) FROM wanted AS w JOIN sessions AS d ON d.user_id = w.key)
"""


class StillThere(Exception):
    """A person is not erased who should be: the bench would measure the wrong thing."""


@dataclass(frozen=True, slots=True)
class Population:
    """`users` people, of whom every `step`-th is erased, `tombstones` in all."""

    users: int
    tombstones: int

    @property
    def step(self) -> int:
        """Return how many keys lie between two of the erased."""
        return self.users // self.tombstones

    @property
    def last(self) -> int:
        """Return the highest erased key."""
        return self.step * self.tombstones

    def settle(self, url: str) -> None:
        """Make the tables and fill them."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SCHEMA)
            connection.execute(_USERS, (self.users,))
            connection.execute(_SESSIONS, {"step": self.step, "last": self.last})
            connection.execute("CREATE INDEX ON sessions (user_id)")
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")

    def to_erase(self, url: str, chunk: int) -> Iterator[list[tuple[str, str, str]]]:
        """Yield key, canonical `created_at` and e-mail of those who are erased."""
        with psycopg.connect(url) as connection, connection.cursor(name="to_erase") as rows:
            rows.execute(_ERASED, {"step": self.step, "last": self.last})
            while some := rows.fetchmany(chunk):
                yield some

    def erase_by_hand(self, url: str) -> None:
        """Erase them as set-based SQL does it, in one transaction, and read back in it."""
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            self._stage(cursor)
            cursor.execute(_BY_HAND_SESSIONS)
            cursor.execute(_BY_HAND_USERS)
            _must_be_zero(cursor)

    def check_by_hand(self, url: str) -> None:
        """Check that they are erased (by hand), in one transaction."""
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            self._stage(cursor)
            _must_be_zero(cursor)

    def _stage(self, cursor: psycopg.Cursor[tuple[object, ...]]) -> None:
        cursor.execute(_BY_HAND_STAGE)
        with cursor.copy("COPY wanted FROM STDIN") as copy:
            for key in range(self.step, self.last + 1, self.step):
                copy.write_row((key,))
        cursor.execute("ANALYZE wanted")


def warm(url: str) -> None:
    """Read the tables once, so that no database is colder than its equal copy."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT sum(hashtext(u::text)) FROM users AS u")
        connection.execute("SELECT sum(hashtext(d::text)) FROM sessions AS d")
        connection.execute("CHECKPOINT")


def _must_be_zero(cursor: psycopg.Cursor[tuple[object, ...]]) -> None:
    row = cursor.execute(_BY_HAND_CHECK).fetchone()
    if row != (0,):
        raise StillThere(f"{row} people are not erased")
