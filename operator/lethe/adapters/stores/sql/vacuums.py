"""Who holds the tables that a replay has to lock.

Of autovacuum, whoever waits for its table for `deadlock_timeout` makes the server end it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import LiteralString

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


def holder(cursor: Cursor, written: Iterable[str]) -> str:
    """Say who holds one of these tables for longest, so that writers can't be kept out of it; "": nobody."""
    quoted = listed(sql.Literal(quoted_table(one).as_string(cursor.connection)) for one in written)
    row = cursor.execute(compose(_HOLDER, tables=quoted)).fetchone()
    return str(row[0]) if row else ""


_MAPPED: LiteralString = """
WITH RECURSIVE mapped (relid) AS (
       SELECT pg_catalog.to_regclass(w.quoted)::oid FROM pg_catalog.unnest(ARRAY[{tables}]) AS w (quoted)
       UNION SELECT i.inhrelid FROM mapped m JOIN pg_catalog.pg_inherits i ON i.inhparent = m.relid)"""

_HOLDER: LiteralString = f"""{_MAPPED}
SELECT coalesce('session ' || l.pid, 'a prepared transaction') || ' holds ' || l.mode
       || ' on ' || n.nspname || '.' || c.relname
       || coalesce(pg_catalog.to_char(a.xact_start AT TIME ZONE 'UTC', '" since "YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                   '')
  FROM pg_catalog.pg_locks l JOIN mapped m ON m.relid = l.relation
  JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'relation' AND l.granted AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
 ORDER BY a.xact_start, 1 LIMIT 1
"""  # noqa: S608 - of constants

_HELD: LiteralString = f"""{_MAPPED}
SELECT DISTINCT n.nspname, c.relname,
       (SELECT setting::float FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout')
  FROM pg_catalog.pg_locks l JOIN mapped m ON m.relid = l.relation
  JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'ShareUpdateExclusiveLock'
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND l.pid <> pg_catalog.pg_backend_pid()
 ORDER BY 1, 2
"""  # noqa: S608 - of constants
