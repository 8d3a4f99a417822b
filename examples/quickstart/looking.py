"""Looking for oneself: what really stands in the databases, asked without Lethe."""

import hashlib
import re
import subprocess
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import psycopg

from devtools.servers.tryton import TrytonServer

ERASED_NAME = ("", None)


class SiteSight:
    """The site's database, read by a client of our own. A person is named by her key."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, query: str, **values: object) -> list[tuple[object, ...]]:
        """Return the rows of a query."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def erased(self, keys: Collection[int]) -> bool:
        """Whether every key's row is there without its PII, its comments too, and its sessions are gone."""
        rows = self.ask(
            "SELECT first_name IS NULL AND last_name IS NULL AND email LIKE 'erased-%%@erased.invalid'"
            " AND password_hash = '!' AND locale = 'en-US' AND time_zone = 'UTC'"
            " AND NOT EXISTS (SELECT FROM sessions s WHERE s.user_id = u.id)"
            " AND EXISTS (SELECT FROM comments c WHERE c.author_id = u.id)"
            " AND NOT EXISTS (SELECT FROM comments c WHERE c.author_id = u.id AND c.signature IS NOT NULL)"
            " FROM users u WHERE id = ANY(%(keys)s)",
            keys=list(keys),
        )
        return len(rows) == len(keys) and all(row[0] for row in rows)

    def everything_of(self, key: int) -> str:
        """Return all that the site holds of one person, as text to compare."""
        rows = self.ask(
            "SELECT u::text,"
            " (SELECT string_agg(s::text, '|' ORDER BY id) FROM sessions s WHERE user_id = u.id),"
            " (SELECT string_agg(c::text, '|' ORDER BY id) FROM comments c WHERE author_id = u.id)"
            " FROM users u WHERE id = %(key)s",
            key=key,
        )
        return repr(rows)

    def digest_without(self, keys: Collection[int]) -> tuple[int, str]:
        """Return how many other people there are, and a digest of every row of theirs in every table."""
        digest = hashlib.sha256()
        number = 0
        for table, column in (("users", "id"), ("sessions", "user_id"), ("comments", "author_id")):
            rows = self.ask(
                f"SELECT t::text FROM {table} t WHERE NOT {column} = ANY(%(keys)s) ORDER BY id",
                keys=list(keys),
            )
            number = number or len(rows)
            for row in rows:
                digest.update(str(row[0]).encode() + b"\0")
        return number, digest.hexdigest()


class Watch:
    """Watches a restore from outside: who is back in the database, and what the DataStore says, each when.

    A context manager; moments are `time.monotonic()`. `back_at` and `last_seen_at` are when the first and
    the last look found one of the people `emails` back under her key (`None`: nobody was ever seen back).
    """

    def __init__(
        self, url: str, emails: Mapping[int, str], conditions: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self._url, self._emails = url, emails
        self._command, self._environment = conditions, environment
        self.back_at: float | None = None
        self.last_seen_at: float | None = None
        self.gate: list[tuple[float, str]] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._look_at_site),
            threading.Thread(target=self._follow_gate),
        ]
        self._kubectl: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Watch":
        self._kubectl = subprocess.Popen(
            self._command,
            env=dict(self._environment),
            stdout=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._kubectl is not None:
            self._kubectl.terminate()
            self._kubectl.wait()
        for thread in self._threads:
            thread.join()

    def first(self, said: str, *, after: float) -> float | None:
        """Return when the DataStore's condition SafeToServe first said `said` after a moment."""
        return next((moment for moment, what in self.gate if what == said and moment >= after), None)

    def _look_at_site(self) -> None:
        query = "SELECT id, email FROM users WHERE id = ANY(%s)"
        keys = list(self._emails)
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._stop.wait(0.02):
                asked_at = time.monotonic()
                try:
                    rows = connection.execute(query, [keys]).fetchall()
                except psycopg.errors.UndefinedTable:
                    continue  # pg_restore has dropped it and not made it yet
                if any(self._emails[key] == email for key, email in rows):
                    self.back_at = self.back_at or asked_at
                    self.last_seen_at = asked_at

    def _follow_gate(self) -> None:
        if self._kubectl is None or self._kubectl.stdout is None:
            return
        for line in self._kubectl.stdout:
            self.gate.append((time.monotonic(), line.strip()))


def parties_with(tryton: TrytonServer, database: str, email: str) -> list[int]:
    """Return the parties of a Tryton database that carry an e-mail address, inactive ones too."""
    found = tryton.rpc(
        database,
        "model.party.contact_mechanism.search_read",
        ["OR", ["value", "ilike", email], ["value_compact", "ilike", email]],
        0,
        None,
        None,
        ["party"],
        context={"active_test": False},
    )
    return sorted({row["party"] for row in found})


def party_is_erased(tryton: TrytonServer, database: str, party: int) -> bool:
    """Whether a party is still there, and without a name."""
    rows = tryton.rpc(database, "model.party.party.read", [party], ["name"], context={"active_test": False})
    return len(rows) == 1 and rows[0]["name"] in ERASED_NAME


_WELL = re.compile(r"\S+ \S+ (INFO +|WARNING +(?=lethe))[\w.]+: ")


def is_well(line: str) -> bool:
    """Whether a line of an operator's log, as text, tells of no error and of no trouble of a library.

    What no logger has written, such as a traceback or a Python warning, is trouble.
    """
    return _WELL.match(line) is not None


def holding(files: Sequence[Path], wanted: Sequence[str]) -> list[str]:
    """Return the names of those files whose bytes hold one of the texts, whatever its case."""
    texts = [text.casefold().encode() for text in wanted]
    return [
        file.name for file in files if file.exists() and any(t in file.read_bytes().lower() for t in texts)
    ]
