"""A look at the store, every few seconds: head, identity, is it being filled; in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import errors, sql

from lethe.adapters.stores.sql.catalog import quoted_table
from lethe.adapters.stores.sql.journal import LONGEST_NAME, Journal, head_of
from lethe.adapters.stores.sql.postgres import compose, listed, raw
from lethe.adapters.stores.sql.sessions import Session
from lethe.domain.journal import MOST_NAMES, Filling, JournalObservation, StoreIdentity
from lethe.ports.stores import AnswerUntrusted, InRecovery

_SETTLE_SECONDS = 95.0
"""How long writers are waited for: a little longer than the server lets it."""


@dataclass(frozen=True, slots=True)
class ToldByServer:
    """What of its identity a server tells this user. It is part of each look, which it would make fail."""

    system: bool
    timeline: bool


def what_server_tells(connection: Session) -> ToldByServer:
    """Ask a server once what of its identity it tells, as each does by default.

    Managed ones keep this or that to themselves: Aurora has no positions of a write-ahead log (55000).
    """
    return ToldByServer(*(_is_told(connection, told) for told in (_SYSTEM, _TIMELINE)))


def _is_told(connection: Session, expression: sql.Composable) -> bool:
    try:
        rows = connection.ask(compose("SELECT {expression}", expression=expression))
    except (
        errors.InsufficientPrivilege,
        errors.ObjectNotInPrerequisiteState,
        errors.FeatureNotSupported,
        errors.UndefinedFunction,
    ):
        return False
    return rows[0][0] is not None


def look(
    connection: Session, journal: Journal, tables: Sequence[str], *, told: ToldByServer, settle: bool
) -> JournalObservation:
    """Return what the store shows. Raises `InRecovery` on a standby, whose head proves nothing."""
    if settle:
        _wait_for_writers(connection, journal)
    try:
        rows = connection.ask(_query(connection, journal, journal.head_columns(), tables, told))
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedColumn):
        rows = []
    if not rows:  # outside of the handler: no journal there, which the ledger will find strange or not
        absent = raw(
            "(SELECT 0::bigint AS move, ''::text AS digest, NULL::text AS positions,"
            " NULL::timestamptz AS ticked_at WHERE false)"
        )
        rows = connection.ask(_query(connection, journal, absent, tables, told))
    move, digest, noted, ticked_at, standby, server, identities, what, since, elsewhere = rows[0]
    if standby:
        raise InRecovery(
            "the server is a standby, whose journal proves nothing",
            "let the Secret that spec.sql.urlSecretRef names lead to the primary"
            " (target_session_attrs=read-write with several hosts)",
        )
    head = None if noted is None else head_of((move, digest, noted, ticked_at))
    filling = None if what is None else Filling(what, since, elsewhere)
    identity = StoreIdentity(_texts(server), _texts(identities or {}))
    return JournalObservation(head, identity, filling)


def _texts(shown: object) -> dict[str, str]:
    """Return what tells one server, or one table, from another. Raises `AnswerUntrusted` for what can't."""
    if not isinstance(shown, dict) or len(shown) > MOST_NAMES:
        raise AnswerUntrusted(
            f"the server shows more than {MOST_NAMES} partitions of the mapped tables, or none as texts",
            "map tables with fewer",
        )
    texts = {str(called): str(text) for called, text in shown.items()}
    if any(len(called) > LONGEST_NAME or len(text) > LONGEST_NAME for called, text in texts.items()):
        raise AnswerUntrusted("the server shows names that PostgreSQL does not give")
    return texts


def system_identifier(connection: Session) -> str:
    """Return the server's system identifier as text."""
    return str(connection.ask(compose("SELECT {system}", system=_SYSTEM))[0][0])


def _query(
    connection: Session, journal: Journal, head: sql.Composable, tables: Sequence[str], told: ToldByServer
) -> sql.Composed:
    quoted = [quoted_table(table).as_string(connection) for table in tables]
    own = [one.as_string(connection) for one in (journal.head, journal.entries)]
    return compose(
        _LOOK,
        head=head,
        # A digest of address and port, as the server sees them, lasts as long: after a failover to another
        # address it changes, which costs a sweep, never an erasure.
        system=_SYSTEM if told.system else _ADDRESS,
        timeline=_TIMELINE if told.timeline else raw("NULL"),
        tables=listed(map(sql.Literal, quoted)),
        journal=listed(map(sql.Literal, own)),
        copying=raw(_COPYING if connection.info.server_version >= 140000 else "SELECT NULL::integer AS pid"),
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
    except errors.ReadOnlySqlTransaction:
        pass  # a standby, which the look tells


_SYSTEM = raw("(SELECT system_identifier::text FROM pg_catalog.pg_control_system())")
_ADDRESS = raw(
    "pg_catalog.md5(pg_catalog.concat_ws(':', pg_catalog.inet_server_addr(), pg_catalog.inet_server_port()))"
)
SERVER_IS = (_SYSTEM, _ADDRESS)
"""By what a look may know a server: as it tells, or does not."""
_TIMELINE = raw(
    "CASE WHEN pg_catalog.pg_is_in_recovery() THEN '' ELSE"
    " pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END"
)
# Of another user's session it is hidden what it copies, and which way: the lock that it holds tells both.
_COPYING = (
    "SELECT pid FROM pg_catalog.pg_stat_progress_copy"
    " WHERE datname = pg_catalog.current_database() AND coalesce(command, 'COPY FROM') = 'COPY FROM'"
)

# Partitions count one by one: each can be restored, or swapped, alone.
_LOOK = """
WITH RECURSIVE mapped (relid) AS (
       SELECT pg_catalog.to_regclass(w.quoted)::oid FROM pg_catalog.unnest(ARRAY[{tables}]) AS w (quoted)
       UNION SELECT i.inhrelid FROM mapped m JOIN pg_catalog.pg_inherits i ON i.inhparent = m.relid),
  watched (relid) AS (
       SELECT relid FROM mapped
       UNION SELECT pg_catalog.to_regclass(w.quoted)::oid
               FROM pg_catalog.unnest(ARRAY[{journal}]) AS w (quoted)),
  copying AS ({copying}),
  held AS (
       SELECT l.pid, l.mode, l.pid IN (SELECT pid FROM copying) AND l.mode = 'RowExclusiveLock' AS copied,
              l.relation IN (SELECT relid FROM watched) AS here,
              pg_catalog.format('%s.%s', n.nspname, c.relname) AS called
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
          AND l.database = (SELECT oid FROM pg_catalog.pg_database
                             WHERE datname = pg_catalog.current_database())
          AND l.relation >= 16384 AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'),
  filling AS (
       SELECT pid, NOT here AS elsewhere,
              coalesce('session ' || pid, 'a prepared transaction')
              || CASE WHEN copied THEN ' fills ' || called || ' by COPY'
                      ELSE ' holds ' || mode || ' on ' || called END AS what
         FROM held
        WHERE copied OR here AND mode IN ('AccessExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock')
       UNION ALL
       SELECT pid, false, 'session ' || pid || ' is a pg_restore' FROM pg_catalog.pg_stat_activity
        WHERE datname = pg_catalog.current_database() AND application_name LIKE 'pg\\_restore%'
          AND pid <> pg_catalog.pg_backend_pid())
SELECT h.move, h.digest, h.positions, h.ticked_at, f.standby,
       CASE WHEN f.standby THEN NULL ELSE pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
            'system', {system},
            'timeline', {timeline},
            'database', (SELECT oid::text FROM pg_catalog.pg_database
                          WHERE datname = pg_catalog.current_database())))
       END,
       (SELECT pg_catalog.jsonb_object_agg(n.nspname || '.' || c.relname,
                                           c.oid::text || ':' || c.relfilenode::text)
          FROM mapped m JOIN pg_catalog.pg_class c ON c.oid = m.relid
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace),
       b.what, b.since, b.elsewhere
  FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby) AS f
  LEFT JOIN {head} AS h ON true
  LEFT JOIN (SELECT one.what, one.elsewhere,
                    (SELECT coalesce(xact_start, backend_start) FROM pg_catalog.pg_stat_activity a
                      WHERE a.pid = one.pid) AS since
               FROM filling one ORDER BY 2, 3, 1 LIMIT 1) AS b ON true
"""
