"""PostgreSQL through psycopg: connections, transactions, COPY.

Statements are composed, with every name and value quoted by the driver (`compose`), and have no
parameters; only names and values of the *mapping* are ever composed. What identifies a person goes in
by COPY: so it is in no literal, and not in the server's log of statements.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, LiteralString

import psycopg
from psycopg import IsolationLevel, sql
from sqlalchemy import create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from lethe.ports.stores import MappingInvalid, MappingProblem

Cursor = psycopg.Cursor[tuple[Any, ...]]

_CONNECT_SECONDS = 5
# A look must be over soon; a set of a million takes minutes, and is bounded only against hanging for ever.
# A lock is waited for less long than PostgreSQL's deadlock_timeout (1 s): where Lethe and a pg_restore, or an
# application, wait for each other, it is Lethe that steps back and tries again, not they that fail.
_SESSION = (
    "SELECT pg_catalog.set_config(name, value, false) FROM (VALUES"
    " ('row_security', 'off'),"  # raises where a policy would hide rows: hidden is not absent
    " ('TimeZone', 'UTC'), ('DateStyle', 'ISO, YMD'), ('IntervalStyle', 'iso_8601'),"
    " ('extra_float_digits', '1'), ('bytea_output', 'hex'),"
    " ('lock_timeout', '800ms'), ('statement_timeout', '30s'),"
    " ('idle_in_transaction_session_timeout', '10min')) AS settings (name, value)"
)
_TO_ESCAPE = re.compile(r"[\\\t\n\r\b\f\v]")
_ESCAPED = str.maketrans(
    {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r", "\b": r"\b", "\f": r"\f", "\v": r"\v"}
)
# Said again in each transaction: a pooler may have given it another session than the one that was set up.
_BULK: LiteralString = (
    "SET LOCAL statement_timeout = '60min'; SET LOCAL lock_timeout = '800ms'; SET LOCAL row_security = off;"
    " SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'"
)


def compose(template: LiteralString, **parts: sql.Composable | str | int | None) -> sql.Composed:
    """Return a statement with its parts filled in: text and numbers as quoted literals."""
    return sql.SQL(template).format(
        **{
            name: part if isinstance(part, sql.Composable) else sql.Literal(part)
            for name, part in parts.items()
        }
    )


def name(*parts: str) -> sql.Identifier:
    """Return a quoted, possibly qualified name."""
    return sql.Identifier(*parts)


def listed(parts: Iterable[sql.Composable], between: LiteralString = ", ") -> sql.Composed:
    """Return the parts with something between them."""
    return sql.SQL(between).join(parts)


def raw(text: str) -> sql.SQL:
    """Return text that the server itself quoted (`format_type`, `pg_get_expr`, `quote_ident`) as it is."""
    # Without parameters nothing in it is interpreted; braces have been formatted by then.
    return sql.SQL(text)  # type: ignore[arg-type, unused-ignore]


def url_of_postgres(url: str) -> URL:
    """Return the URL for the driver in use. Raises `MappingInvalid`; the message does not repeat the URL."""
    parsed: URL | None
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise MappingInvalid(
            [
                MappingProblem(
                    "sql.urlSecretRef",
                    "the Secret does not hold the URL of a PostgreSQL database",
                    "give postgresql://user:password@host:5432/database?sslmode=verify-full",
                )
            ]
        )
    return parsed.set(drivername="postgresql+psycopg")


class Sessions:
    """The connections to one database: two of them, opened when needed."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(
            url_of_postgres(url),
            pool_size=2,
            max_overflow=0,
            pool_timeout=_CONNECT_SECONDS,
            hide_parameters=True,
            use_native_hstore=False,
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                "application_name": "lethe",
                "autocommit": True,
                "prepare_threshold": None,  # a pooler like PgBouncer gives each transaction another session
                "keepalives_idle": 30,
            },
        )

    @property
    def address(self) -> str:
        """Return `host:port`, as a ledger names a server that does not tell its identifier."""
        return f"{self._engine.url.host}:{self._engine.url.port or 5432}"

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """Lend a connection in autocommit mode; a broken one is not given back."""
        lent = self._engine.raw_connection()
        connection: psycopg.Connection[tuple[Any, ...]] = lent.driver_connection  # type: ignore[assignment]
        try:
            if not connection.closed:  # whoever had it before may have read only
                connection.read_only = connection.isolation_level = None
            if "lethe" not in lent.info:
                connection.execute(_SESSION)
                lent.info["lethe"] = True
            yield connection
        finally:
            if connection.closed or connection.broken:
                lent.invalidate()
            lent.close()

    @contextmanager
    def alive(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """Lend a connection that has just answered, so that a server's restart costs nobody an attempt."""
        for last in (False, False, True):
            with self.connection() as connection:
                try:
                    connection.execute("SELECT 1")
                except psycopg.OperationalError:
                    if last:
                        raise
                    continue
                yield connection
                return

    @contextmanager
    def transaction(self, *, repeatable: bool = False, read_only: bool = False) -> Iterator[Cursor]:
        """Run one transaction, committed at the end; an exception rolls it back."""
        with self.alive() as connection:
            connection.isolation_level = (
                IsolationLevel.REPEATABLE_READ if repeatable else IsolationLevel.READ_COMMITTED
            )
            # Not `False`: that would override a database which its DBA made read-only.
            connection.read_only = True if read_only else None
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute(_BULK)
                yield cursor


def copy_in(
    cursor: Cursor, table: sql.Identifier, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Bring rows of text, whole numbers, bytes, truths and `None` into a table by COPY."""
    into = compose(
        "COPY {table} ({columns}) FROM STDIN", table=table, columns=listed(name(column) for column in columns)
    )
    with cursor.copy(into) as copy:
        # A thousand lines at a time: a call of the driver for each would be most of what a replay costs.
        lines = ("\t".join([_copied(value) for value in row]) for row in rows)
        while block := list(islice(lines, 1_000)):
            copy.write("\n".join(block) + "\n")


def _copied(value: object) -> str:
    """Return a value in the text format of COPY."""
    if isinstance(value, str):
        return value.translate(_ESCAPED) if _TO_ESCAPE.search(value) else value
    if value is None:
        return r"\N"
    if isinstance(value, bytes):
        return rf"\\x{value.hex()}"
    return str(value)


def fetch_in_chunks(
    cursor: Cursor, query: sql.Composed, *, size: int, called: str
) -> Iterator[list[tuple[Any, ...]]]:
    """Yield a query's rows in chunks, kept on the server meanwhile. Only inside of a transaction."""
    with cursor.connection.cursor(name=called) as rows:
        rows.execute(query)
        while chunk := rows.fetchmany(size):
            yield chunk
