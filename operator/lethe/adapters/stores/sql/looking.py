"""A look at the store, every few seconds: head, identity, is it being filled; in one statement."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import errors, sql

from lethe.adapters.stores.sql.catalog import quoted_table
from lethe.adapters.stores.sql.journal import Journal, head_of
from lethe.adapters.stores.sql.postgres import compose, listed, raw
from lethe.adapters.stores.sql.sessions import Session
from lethe.domain.journal import JournalObservation, StoreIdentity
from lethe.ports.stores import StoreUnreachable

_SETTLE_SECONDS = 95.0
"""How long writers are waited for: a little longer than the server lets it."""


def look(
    connection: Session, journal: Journal, tables: Sequence[str], *, has_identifier: bool, settle: bool
) -> JournalObservation:
    """Return what the store shows. Raises `StoreUnreachable` on a standby, whose head proves nothing.

    `has_identifier` is what `shows_its_identifier` said: it is part of one statement, which it would make
    fail.
    """
    if settle:
        _wait_for_writers(connection, journal)
    try:
        row = connection.execute(
            _query(connection, journal.head_columns(), tables, has_identifier=has_identifier)
        ).fetchone()
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedColumn):
        row = None
    if row is None:  # outside of the handler: no journal there, which the ledger will find strange or not
        absent = raw(
            "(SELECT 0::bigint AS move, ''::text AS digest, NULL::text AS positions,"
            " NULL::timestamptz AS ticked_at WHERE false)"
        )
        row = connection.execute(_query(connection, absent, tables, has_identifier=has_identifier)).fetchone()
    if row is None:
        raise StoreUnreachable("the server gave no answer", "it is tried again")
    move, digest, noted, ticked_at, standby, server, identities, filled = row
    if standby:
        raise StoreUnreachable(
            "the server is a standby, whose journal proves nothing",
            "let the Secret that spec.sql.urlSecretRef names lead to the primary"
            " (target_session_attrs=read-write with several hosts)",
        )
    head = None if noted is None else head_of((move, digest, noted, ticked_at))
    return JournalObservation(head, StoreIdentity(dict(server), dict(identities or {})), bool(filled))


def shows_its_identifier(connection: Session) -> bool:
    """Tell whether the user may read the server's system identifier, as everybody may by default."""
    row = connection.execute(
        "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')"
    ).fetchone()
    return bool(row and row[0])


def system_identifier(connection: Session) -> str | None:
    """Return the server's system identifier as text."""
    row = connection.execute(compose("SELECT {system}", system=_system(has_identifier=True))).fetchone()
    return str(row[0]) if row else None


def _system(*, has_identifier: bool) -> sql.Composable:
    """Return the expression of the system identifier; without the privilege, of something as lasting.

    The fallback is a digest of the server's address and port, as the server itself sees them: after a
    failover to another address it changes, which costs a sweep, never an erasure.
    """
    if has_identifier:
        return raw("(SELECT system_identifier::text FROM pg_catalog.pg_control_system())")
    return raw(
        "pg_catalog.md5(pg_catalog.concat_ws(':',"
        " pg_catalog.inet_server_addr(), pg_catalog.inet_server_port()))"
    )


def _query(
    connection: Session, head: sql.Composable, tables: Sequence[str], *, has_identifier: bool
) -> sql.Composed:
    version = connection.info.server_version
    quoted = listed(sql.Literal(quoted_table(table).as_string(connection)) for table in tables)
    being_built = (
        "EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p"
        " WHERE p.datname = pg_catalog.current_database() AND p.pid <> pg_catalog.pg_backend_pid())"
        if version >= 120000
        else "false"
    )
    # What another user's session copies is hidden from us; that it copies is not. When in doubt it fills.
    being_copied = (
        "EXISTS (SELECT FROM pg_catalog.pg_stat_progress_copy p"
        " WHERE p.datname = pg_catalog.current_database() AND p.pid <> pg_catalog.pg_backend_pid()"
        " AND coalesce(p.command, 'COPY FROM') = 'COPY FROM')"
        if version >= 140000
        else "false"
    )
    return compose(
        _LOOK,
        head=head,
        system=_system(has_identifier=has_identifier),
        tables=quoted,
        being_built=raw(being_built),
        being_copied=raw(being_copied),
    )


def _wait_for_writers(connection: Session, journal: Journal) -> None:
    """Wait until no transaction in doubt can still commit a move, a first one (an INSERT) included."""
    try:
        with connection.within(_SETTLE_SECONDS), connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '60s'")
            connection.execute("SET LOCAL statement_timeout = '90s'")
            connection.execute(compose("LOCK TABLE {head} IN SHARE ROW EXCLUSIVE MODE", head=journal.head))
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        pass  # no journal: then nothing is in doubt in it


# Partitions count one by one: each can be restored, or swapped, alone.
_LOOK = """
SELECT h.move, h.digest, h.positions, h.ticked_at, f.standby,
       CASE WHEN f.standby THEN NULL ELSE pg_catalog.jsonb_build_object(
            'system', {system},
            'timeline', pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8),
            'database', (SELECT oid::text FROM pg_catalog.pg_database
                          WHERE datname = pg_catalog.current_database()))
       END,
       (SELECT pg_catalog.jsonb_object_agg(n.nspname || '.' || c.relname,
                                           c.oid::text || ':' || c.relfilenode::text)
          FROM pg_catalog.unnest(ARRAY[{tables}]) AS w (quoted)
         CROSS JOIN LATERAL (
               WITH RECURSIVE parts (relid) AS (
                 SELECT pg_catalog.to_regclass(w.quoted)::oid
                 UNION SELECT i.inhrelid FROM parts p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.relid)
               SELECT relid FROM parts) AS t
          JOIN pg_catalog.pg_class c ON c.oid = t.relid
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace),
       {being_copied} OR {being_built}
       OR EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datname = pg_catalog.current_database()
                     AND a.application_name LIKE 'pg\\_restore%' AND a.pid <> pg_catalog.pg_backend_pid())
       OR EXISTS (SELECT FROM pg_catalog.pg_locks l
                   WHERE l.locktype = 'relation' AND l.pid <> pg_catalog.pg_backend_pid()
                     AND l.relation >= 16384
                     AND l.mode IN ('AccessExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock')
                     AND l.database = (SELECT oid FROM pg_catalog.pg_database
                                        WHERE datname = pg_catalog.current_database()))
  FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby) AS f
  LEFT JOIN {head} AS h ON true
"""
