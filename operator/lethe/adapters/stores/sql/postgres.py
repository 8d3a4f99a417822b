"""PostgreSQL through psycopg: composing statements, COPY, rows in chunks.

Statements are composed, with every name and value quoted by the driver (`compose`), and have no
parameters; only names and values of the *mapping* are ever composed. What identifies a person goes in
by COPY: so it is in no literal, and not in the server's log of statements.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, LiteralString

import psycopg
from psycopg import sql

Cursor = psycopg.Cursor[tuple[Any, ...]]

_TO_ESCAPE = re.compile(r"[\\\t\n\r\b\f\v]")
_ESCAPED = str.maketrans(
    {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r", "\b": r"\b", "\f": r"\f", "\v": r"\v"}
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
