"""Reading a whole live schema, with samples of its values, for a mapping to be proposed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from psycopg import errors, sql

from lethe.adapters.hosts import ANYWHERE, Resolver
from lethe.adapters.stores.sql.errors import reduced
from lethe.adapters.stores.sql.journal import ENTRIES, HEAD
from lethe.adapters.stores.sql.postgres import Cursor, compose, listed, name
from lethe.adapters.stores.sql.proving import prove_mapping
from lethe.adapters.stores.sql.sessions import Sessions
from lethe.domain.mapping import SubjectMapping
from lethe.domain.mapping_proposal import SeenColumn, SeenTable
from lethe.domain.personal_columns import kind_by_values
from lethe.ports.stores import MappingInvalid, MappingProblem

SAMPLED_ROWS = 200
SAMPLED_CHARACTERS = 200
_SAMPLED = frozenset({"text", "varchar", "bpchar", "citext", "inet"})


class LiveSchema:
    """The schema of a PostgreSQL database; implements `Schema` of `lethe.ports.schemas`.

    `url` is what `DatabaseUrl.parse` takes, which raises `ValueError`. Everything is read in transactions
    that are read-only. Values are looked at in this process and let go of.
    """

    def __init__(self, url: str, resolver: Resolver = ANYWHERE, *, allow_plaintext: bool = False) -> None:
        self._sessions = Sessions(url, resolver, allow_plaintext=allow_plaintext)

    @reduced
    def database(self) -> str:
        """See `Schema.database`."""
        with self._sessions.transaction(read_only=True, quick=True) as cursor:
            rows = cursor.execute("SELECT pg_catalog.current_database()").fetchall()
        return str(rows[0][0])

    @reduced
    def closed(self) -> Sequence[str]:
        """Return the schemas with tables that the user may not look into."""
        with self._sessions.transaction(read_only=True, quick=True) as cursor:
            return [str(row[0]) for row in cursor.execute(_CLOSED)]

    @reduced
    def tables(self) -> Mapping[str, SeenTable]:
        """See `Schema.tables`."""
        with self._sessions.transaction(read_only=True) as cursor:
            server_version = cursor.connection.info.server_version
            generated = sql.SQL("a.attgenerated <> ''" if server_version >= 120000 else "false")
            own = sql.Literal([HEAD, ENTRIES])
            found = cursor.execute(compose(_TABLES, own=own)).fetchall()
            columns: dict[int, list[Sequence[Any]]] = {}
            for row in cursor.execute(compose(_COLUMNS, own=own, generated=generated)):
                columns.setdefault(row[0], []).append(row[1:])
            names = {oid: written for oid, written, *_ in found}
            seen = [self._table(cursor, row, columns.get(row[0], ()), names) for row in found]
        return {table.name: table for table in seen}

    def _table(
        self, cursor: Cursor, row: Sequence[Any], columns: Sequence[Sequence[Any]], names: Mapping[int, str]
    ) -> SeenTable:
        oid, written, schema, called, rows, comment, key = row
        asked = [column[0] for column in columns if column[1] in _SAMPLED and column[-1]]
        values = _sample(cursor, name(schema, called), asked) if asked else {}
        seen = {
            column: SeenColumn(
                column,
                base,
                not_null,
                default,
                length,
                generated,
                unique,
                " ".join((told or "").split())[:200],
                kind_by_values(values[column]) if values is not None and column in values else None,
                (names[other], at) if other in names and at is not None and other != oid else None,
            )
            for column, base, not_null, default, length, generated, unique, told, other, at, _ in columns
        }
        sampled = values is not None
        return SeenTable(
            written, seen, tuple(key or ()), rows, " ".join((comment or "").split())[:200], sampled
        )

    @reduced
    def problems(self, mapping: SubjectMapping) -> Sequence[MappingProblem]:
        """See `Schema.problems`."""
        with self._sessions.transaction(quick=True) as cursor:
            try:
                prove_mapping(cursor, mapping)
            except MappingInvalid as invalid:
                return invalid.problems
        return ()

    @reduced
    def close(self) -> None:
        """Give back every connection."""
        self._sessions.close()


def _sample(
    cursor: Cursor, table: sql.Identifier, columns: Sequence[str]
) -> Mapping[str, Sequence[str]] | None:
    """Return some values of each column; `None` where they may not be read, or the table is locked."""
    with suppress(errors.InsufficientPrivilege, errors.LockNotAvailable, errors.QueryCanceled):
        with cursor.connection.transaction():
            asked = listed(
                compose(
                    "pg_catalog.left({column}::text, {most})", column=name(column), most=SAMPLED_CHARACTERS
                )
                for column in columns
            )
            rows = cursor.execute(
                compose(
                    "SELECT {asked} FROM {table} LIMIT {most}", asked=asked, table=table, most=SAMPLED_ROWS
                )
            ).fetchall()
        return {column: list(_told(rows, n)) for n, column in enumerate(columns)}
    return None


def _told(rows: Sequence[Sequence[Any]], at: int) -> Iterator[str]:
    return (str(row[at]) for row in rows if row[at] is not None)


# Of the tables of a database: not the server's own, not an extension's, and a partitioned one as one.
_OF_USERS = """
 c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' AND c.relname <> ALL ({own})
 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
 AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
"""

_TABLES = f"""
SELECT c.oid::bigint,
       CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN '' ELSE n.nspname || '.' END || c.relname,
       n.nspname, c.relname, CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint END,
       pg_catalog.obj_description(c.oid, 'pg_class'),
       (SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.at)
          FROM pg_catalog.pg_index i
         CROSS JOIN LATERAL pg_catalog.unnest(i.indkey) WITH ORDINALITY AS k (number, at)
          JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
         WHERE i.indrelid = c.oid AND i.indisprimary)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE {_OF_USERS}
 ORDER BY 2
"""  # noqa: S608 - of constants

_CLOSED = """
SELECT n.nspname FROM pg_catalog.pg_namespace n
 WHERE NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p'))
 ORDER BY 1
"""

# A domain counts as what it is a domain over.
_COLUMNS = f"""
WITH keys AS (
  SELECT DISTINCT ON (k.conrelid, k.conkey[1]) k.conrelid, k.conkey[1] AS number, k.confrelid, b.attname
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = k.confkey[1]
   WHERE k.contype = 'f' AND pg_catalog.cardinality(k.conkey) = 1
   ORDER BY k.conrelid, k.conkey[1], k.confrelid)
SELECT c.oid::bigint, a.attname,
       CASE WHEN t.typtype = 'd'
            THEN (WITH RECURSIVE below (oid, typname, typtype, over) AS (
                    SELECT t.oid, t.typname, t.typtype, t.typbasetype
                    UNION ALL SELECT u.oid, u.typname, u.typtype, u.typbasetype
                      FROM below d JOIN pg_catalog.pg_type u ON u.oid = d.over WHERE d.typtype = 'd')
                  SELECT typname FROM below WHERE typtype <> 'd')
            ELSE t.typname END,
       a.attnotnull OR t.typnotnull,
       a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL,
       CASE WHEN t.typname IN ('varchar', 'bpchar') AND a.atttypmod > 4 THEN a.atttypmod - 4 END,
       {{generated}} OR a.attidentity <> '',
       EXISTS (SELECT FROM pg_catalog.pg_index i
                WHERE i.indrelid = c.oid AND i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL
                  AND i.indkey[0] = a.attnum),
       pg_catalog.col_description(c.oid, a.attnum), k.confrelid::bigint, k.attname,
       pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN keys k ON k.conrelid = c.oid AND k.number = a.attnum
 WHERE {_OF_USERS}
 ORDER BY c.oid, a.attnum
"""  # noqa: S608 - of constants
