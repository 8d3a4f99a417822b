"""What other sessions of a database do while Lethe looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg


class _Enough(Exception):
    """A COPY has gone on for long enough."""


@contextmanager
def copying(url: str, statement: str, rows: str = "") -> Iterator[None]:
    """Let a session be in the midst of a COPY, in or (without `rows`) out, and break it off at the end."""
    with psycopg.connect(url) as session:
        try:
            with session.cursor().copy(statement) as copy:
                if rows:
                    copy.write(rows * 20_000)
                else:
                    copy.read()
                yield
                raise _Enough
        except (_Enough, psycopg.errors.QueryCanceled):
            session.rollback()


def waits_for_a_lock(session: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Tell whether anybody in a session's database waits for a lock."""
    row = session.execute(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock')"
    ).fetchone()
    return bool(row and row[0])
