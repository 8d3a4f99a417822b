"""Questions about types, indexes and constraints that decide whether a value may be written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lethe.adapters.stores.sql.catalog import Column, Shape, Table
from lethe.adapters.stores.sql.postgres import Cursor, compose, name, raw
from lethe.domain.mapping import Constraint


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key of (or, `inward`, to) a column. `target` is the column at the other end, if it is one."""

    name: str
    other: str
    inward: bool
    schema: str
    table: str
    target: str | None


def tried(cursor: Cursor, query: sql.Composed) -> list[tuple[Any, ...]] | None:
    """Return the rows of a query that may fail, `None` if it did; the transaction goes on."""
    try:
        with cursor.connection.transaction():
            return cursor.execute(query).fetchall()
    except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.InternalError):
        return None
    except psycopg.DatabaseError as error:
        if error.sqlstate is None or error.sqlstate[:2] in {"08", "57"}:
            raise
        return None


def castable(cursor: Cursor, column: Column, text: str) -> bool:
    """Tell whether a text is a value of the column's type (and domain) that can be compared."""
    cast = compose("CAST({text} AS {type})", text=text, type=raw(column.cast))
    return tried(cursor, compose("SELECT {cast} IS DISTINCT FROM {cast}", cast=cast)) is not None


def evaluated(cursor: Cursor, column: Column) -> tuple[str | None] | None:
    """Return, as a tuple of one, what a column's default is as text; `None` if it can't be told."""
    # Through the column's type: the default 'x'::text of a char(3) is stored as that type shows it.
    query = compose(
        "SELECT CAST(({default}) AS {type})::text",
        default=raw(column.default or "NULL"),
        type=raw(column.cast),
    )
    rows = tried(cursor, query)
    return None if rows is None else (rows[0][0],)


def comparable(cursor: Cursor, one: Column, other: Column) -> bool:
    """Tell whether two columns can be joined."""
    query = compose("SELECT NULL::{one} = NULL::{other}", one=raw(one.plain), other=raw(other.plain))
    return tried(cursor, query) is not None


def is_unique_key(cursor: Cursor, table: Table, key: Column) -> bool:
    """Tell whether the column alone is the primary key, or unique and NOT NULL; by a valid, whole index."""
    row = cursor.execute(compose(_UNIQUE_KEY, oid=table.oid, number=key.number)).fetchone()
    return bool(row and row[0]) and key.not_null


def unique_indexes(cursor: Cursor, table: Table, column: Column, key_number: int) -> list[tuple[str, bool]]:
    """Return unique (and exclusion) indexes over the column, and whether two NULLs collide in them.

    An index that has the key in it can't collide, and one that only has the column in its WHERE does not
    compare it.
    """
    collide = "i.indnullsnotdistinct" if cursor.connection.info.server_version >= 150000 else "false"
    rows = cursor.execute(
        compose(
            _UNIQUE_INDEXES,
            oid=table.oid,
            number=column.number,
            key_number=key_number,
            nulls_collide=raw(collide),
        )
    ).fetchall()
    return [(index, bool(nulls)) for index, nulls in rows]


def foreign_keys(cursor: Cursor, table: Table, column: Column) -> list[ForeignKey]:
    """Return the foreign keys that a column has part in, from either end."""
    rows = cursor.execute(compose(_FOREIGN_KEYS, oid=table.oid, number=column.number)).fetchall()
    return [ForeignKey(*row) for row in rows]


def is_referable(cursor: Cursor, foreign: ForeignKey, column: Column, text: str) -> bool:
    """Tell whether a constant is a row at the other end of a foreign key."""
    if foreign.target is None:
        return False
    rows = tried(
        cursor,
        compose(
            "SELECT FROM {table} WHERE {target} = CAST({text} AS {type})",
            table=name(foreign.schema, foreign.table),
            target=name(foreign.target),
            text=text,
            type=raw(column.cast),
        ),
    )
    return bool(rows)


def that_stop_a_delete(cursor: Cursor, table: Table) -> list[tuple[str, str]]:
    """Return `(constraint, table)` of the foreign keys by which other rows stop a DELETE here."""
    rows = cursor.execute(compose(_STOPPING, oid=table.oid)).fetchall()
    return [(constraint, other) for constraint, other in rows]


def checks_that_refuse(
    cursor: Cursor, table: Table, written: Mapping[str, str | None]
) -> list[tuple[str, set[str]]]:
    """Return `(constraint, its columns)` of CHECKs that the values would break: alone, or on a live row.

    The row is made up by the server, and only true or false comes back.
    """
    if not written:
        return []
    refusing: list[tuple[str, set[str]]] = []
    values = json.dumps(written, ensure_ascii=True)
    for constraint, expression, columns in cursor.execute(compose(_CHECKS, oid=table.oid)).fetchall():
        touched = set(columns) & set(written)
        if touched and any(
            rows and rows[0][0]
            for rows in (
                tried(cursor, compose(template, check=raw(expression), values=values, **_named(table)))
                for template in (_ON_NOTHING, _ON_A_LIVE_ROW)
            )
        ):
            refusing.append((constraint, touched))
    return refusing


def _named(table: Table) -> dict[str, sql.Composable]:
    # A CHECK may name its own table; the made-up row goes by the same name.
    return {"table": table.sql, "alias": name(table.name)}


def kept_by(cursor: Cursor, shape: Shape) -> tuple[Constraint, ...]:
    """Return the unique and foreign keys of the mapped tables by what they are: names come and go."""
    oids = sql.Literal([table.oid for table in shape.tables.values()])
    rows = cursor.execute(compose(_KEPT, oids=oids)).fetchall()
    return tuple(sorted({Constraint(table, tuple(columns), other) for table, columns, other in rows}))


# A partition's share of a foreign key (conparentid) goes when it is detached; an index that is not valid
# yet is being built, or lacks that of a partition.
_KEPT = """
SELECT n.nspname || '.' || c.relname,
       ARRAY(SELECT pg_catalog.pg_get_indexdef(i.indexrelid, g, false)
               FROM pg_catalog.generate_series(1, i.indnkeyatts) AS g ORDER BY 1), ''
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE i.indisunique AND i.indisvalid AND c.oid = ANY ({oids})
UNION ALL
SELECT n.nspname || '.' || c.relname,
       ARRAY(SELECT pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) ORDER BY 1),
       o.nspname || '.' || r.relname
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class r ON r.oid = k.confrelid JOIN pg_catalog.pg_namespace o ON o.oid = r.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0 AND c.oid = ANY ({oids})
"""

_UNIQUE_KEY = """
SELECT pg_catalog.bool_or(true) FROM pg_catalog.pg_index i
 WHERE i.indrelid = {oid} AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
   AND i.indnkeyatts = 1 AND i.indkey[0] = {number} AND i.indimmediate
"""

# Plain columns of an index are in indkey; those of its expressions (and of its WHERE) in pg_depend.
_UNIQUE_INDEXES = """
SELECT c.relname, {nulls_collide}
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = {oid} AND (i.indisunique OR i.indisexclusion)
   AND NOT ({key_number} = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
   AND ({number} = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
        OR (i.indexprs IS NOT NULL AND EXISTS (
            SELECT FROM pg_catalog.pg_depend d
             WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.indexrelid
               AND d.refclassid = 'pg_catalog.pg_class'::regclass
               AND d.refobjid = i.indrelid AND d.refobjsubid = {number})))
 ORDER BY 1
"""

_FOREIGN_KEYS = """
SELECT k.conname, k.confrelid::regclass::text, false, n.nspname, c.relname,
       CASE WHEN pg_catalog.cardinality(k.confkey) = 1 THEN
            (SELECT attname FROM pg_catalog.pg_attribute
              WHERE attrelid = k.confrelid AND attnum = k.confkey[1]) END
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class c ON c.oid = k.confrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE k.contype = 'f' AND k.conrelid = {oid} AND {number} = ANY (k.conkey)
UNION ALL
SELECT k.conname, k.conrelid::regclass::text, true, n.nspname, c.relname, NULL
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE k.contype = 'f' AND k.confrelid = {oid} AND {number} = ANY (k.confkey) AND k.conparentid = 0
 ORDER BY 1
"""

_STOPPING = """
SELECT k.conname, k.conrelid::regclass::text FROM pg_catalog.pg_constraint k
 WHERE k.contype = 'f' AND k.confrelid = {oid} AND k.confdeltype IN ('a', 'r') AND k.conparentid = 0
 ORDER BY 1
"""

_CHECKS = """
SELECT k.conname, pg_catalog.pg_get_expr(k.conbin, k.conrelid),
       ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute
              WHERE attrelid = k.conrelid AND attnum = ANY (k.conkey))
  FROM pg_catalog.pg_constraint k WHERE k.contype = 'c' AND k.conrelid = {oid} ORDER BY 1
"""

_ON_NOTHING = """
SELECT ({check}) IS FALSE FROM (
  SELECT (pg_catalog.jsonb_populate_record(NULL::{table}, {values}::jsonb)).*) AS {alias}
"""

_ON_A_LIVE_ROW = """
SELECT ({check}) IS FALSE FROM (
  SELECT (pg_catalog.jsonb_populate_record(r, {values}::jsonb)).* FROM {table} AS r LIMIT 1) AS {alias}
"""
