"""Autovacuum: whoever waits for one of its tables for `deadlock_timeout` makes the server end it."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from lethe.adapters.stores.sql.catalog import quoted_table
from lethe.adapters.stores.sql.postgres import Cursor, compose, listed, name

_LONGEST_SECONDS = 20.0


def held_tables(cursor: Cursor, written: Iterable[str]) -> tuple[list[sql.Identifier], float]:
    """Return which of these tables, partitions included, something like a vacuum holds, and how many seconds
    one has to wait until the server ends it.
    """
    quoted = listed(sql.Literal(quoted_table(one).as_string(cursor.connection)) for one in written)
    rows = cursor.execute(compose(_HELD, tables=quoted)).fetchall()
    seconds = rows[0][2] / 1000 + 1.0 if rows else 0.0
    return [name(schema, table) for schema, table, _ in rows], min(seconds, _LONGEST_SECONDS)


def wait_for(cursor: Cursor, table: sql.Identifier, *, seconds: float) -> None:
    """Lock a table. Raises `LockNotAvailable` where whoever holds it was not ended, as by its user."""
    cursor.execute(compose("SET LOCAL lock_timeout = {millis}", millis=int(seconds * 1000)))
    cursor.execute(compose("LOCK TABLE ONLY {table} IN SHARE ROW EXCLUSIVE MODE", table=table))


_HELD = """
WITH RECURSIVE mapped (relid) AS (
       SELECT pg_catalog.to_regclass(w.quoted)::oid FROM pg_catalog.unnest(ARRAY[{tables}]) AS w (quoted)
       UNION SELECT i.inhrelid FROM mapped m JOIN pg_catalog.pg_inherits i ON i.inhparent = m.relid)
SELECT DISTINCT n.nspname, c.relname,
       (SELECT setting::float FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout')
  FROM pg_catalog.pg_locks l JOIN mapped m ON m.relid = l.relation
  JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'ShareUpdateExclusiveLock'
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND l.pid <> pg_catalog.pg_backend_pid()
 ORDER BY 1, 2
"""
