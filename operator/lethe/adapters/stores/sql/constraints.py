"""Questions about types, indexes and constraints that decide whether a value may be written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lethe.adapters.stores.sql.catalog import Column, Shape, Table
from lethe.adapters.stores.sql.postgres import Cursor, compose, listed, name, raw
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


def castable(cursor: Cursor, column: Column, text: str | None) -> bool:
    """Tell whether a text (`None`: NULL) is a value of the column's type, and domain, to compare with."""
    cast = compose("CAST({text} AS {type})", text=text, type=raw(column.cast))
    if column.compared_as_text:
        cast = compose("{cast}::text", cast=cast)
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


def inheriting(cursor: Cursor, table: Table) -> list[str]:
    """Return the tables that inherit from one that is not partitioned: its unique keys are not theirs."""
    rows = cursor.execute(
        compose(
            "SELECT i.inhrelid::regclass::text FROM pg_catalog.pg_inherits i"
            " JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = {oid} AND NOT c.relispartition ORDER BY 1",
            oid=table.oid,
        )
    )
    return [child for (child,) in rows]


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


def that_stop_a_delete(cursor: Cursor, table: Table) -> list[tuple[str, str, str]]:
    """Return `(constraint, its table, the table it points at)` of the foreign keys that stop a DELETE here,
    or one that it goes on to by ON DELETE CASCADE."""
    return [(key, other, at) for key, other, at, stops, *_ in _after_a_delete(cursor, table) if stops]


def unpublishable(cursor: Cursor, table: Table, columns: Sequence[str]) -> list[str]:
    """Return the tables in which a publication refuses an UPDATE of these columns (none: a DELETE, with what
    it goes on to), for lack of a replica identity. Nothing is carried out."""
    assignments = listed(compose("{c} = {c}", c=name(column)) for column in columns)
    change = (
        compose("UPDATE {table} SET {assignments}", table=table.sql, assignments=assignments)
        if columns
        else compose("DELETE FROM {table}", table=table.sql)
    )
    changes = {table.written: change}
    for _, other, _, stops, cascades, column in () if columns else _after_a_delete(cursor, table):
        if not stops:
            after = "DELETE FROM {table}" if cascades else "UPDATE {table} SET {c} = {c}"
            changes.setdefault(other, compose(after, table=raw(other), c=name(column)))
    return [called for called, change in changes.items() if _refused(cursor, change) in _UNPUBLISHABLE]


def _after_a_delete(cursor: Cursor, table: Table) -> list[tuple[str, str, str, bool, bool, str]]:
    version = cursor.connection.info.server_version
    query = compose(
        _AFTER_A_DELETE,
        oid=table.oid,
        enforced=raw("k.conenforced" if version >= 180000 else "true"),
        set_columns=raw("coalesce(k.confdelsetcols, k.conkey)" if version >= 150000 else "k.conkey"),
    )
    return cursor.execute(query).fetchall()


def _refused(cursor: Cursor, change: sql.Composed) -> str | None:
    """Return the SQLSTATE by which a statement would be refused before its first row, if it would."""
    try:
        with cursor.connection.transaction():
            cursor.execute(compose("EXPLAIN {change}", change=change))
    except psycopg.DatabaseError as error:
        if error.sqlstate is None or error.sqlstate[:2] in {"08", "57"}:
            raise
        return error.sqlstate
    return None


def made_of(cursor: Cursor, table: Table, column: Column) -> frozenset[str]:
    """Return the columns of its table that a generated column is made of."""
    rows = cursor.execute(compose(_MADE_OF, oid=table.oid, number=column.number)).fetchall()
    return frozenset(name for (name,) in rows)


def generated_value(
    cursor: Cursor, table: Table, column: Column, written: Mapping[str, str | None], *, live: bool
) -> tuple[bool, bool]:
    """Return whether a generated column takes what it becomes where these values are written, and whether
    that is NULL anywhere: in some `live` rows, or in one that has nothing else."""
    query = compose(
        _GENERATED_LIVE if live else _GENERATED,
        expression=raw(column.default or "NULL"),
        type=raw(column.cast),
        values=_as_json(table, written),
        **_named(table),
    )
    rows = tried(cursor, query)
    null, longest = rows[0] if rows else (False, 0)
    return rows is not None and (longest or 0) <= (column.length or longest or 0), bool(null)


def _as_json(table: Table, written: Mapping[str, str | None]) -> str:
    """Return values as the members of a row: those of json columns as they are, not as a string in it."""
    members = {
        called: json.loads(text)
        if text is not None and table.columns[called].base in {"json", "jsonb"}
        else text
        for called, text in written.items()
    }
    return json.dumps(members, ensure_ascii=True)


def rules_instead(cursor: Cursor, table: Table, *, delete: bool, alone: bool) -> list[str]:
    """Return the rules by which the server does something else instead of an UPDATE, or a DELETE, of a table.

    `alone` also counts those that do something besides: in a part of a statement the server takes neither.
    """
    event = "4" if delete else "2"
    rows = cursor.execute(compose(_RULES, oid=table.oid, event=event, besides=raw(str(alone)))).fetchall()
    return [row[0] for row in rows]


def checks_that_refuse(
    cursor: Cursor, table: Table, written: Mapping[str, str | None]
) -> list[tuple[str, set[str]]]:
    """Return `(constraint, its columns)` of CHECKs that the values would break: alone, or on a live row.

    The row is made up by the server, and only true or false comes back.
    """
    if not written:
        return []
    refusing: list[tuple[str, set[str]]] = []
    values = _as_json(table, written)
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
   AND i.indnkeyatts = 1 AND i.indkey[0] = {number}
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

# What a DELETE goes on to by CASCADE is deleted with it: below that, NO ACTION is asked at the end only, when
# rows of a table that goes, too, may be gone. What becomes NULL, or its default, must be allowed to.
_AFTER_A_DELETE = """
WITH RECURSIVE reached (oid) AS (
  SELECT {oid}::oid
  UNION
  SELECT k.conrelid FROM reached r JOIN pg_catalog.pg_constraint k ON k.confrelid = r.oid
   WHERE k.contype = 'f' AND k.confdeltype = 'c' AND k.conparentid = 0 AND {enforced})
SELECT k.conname, k.conrelid::regclass::text, k.confrelid::regclass::text,
       k.confdeltype = 'r'
       OR (k.confdeltype = 'a' AND (k.confrelid = {oid} OR k.conrelid = k.confrelid
                                    OR k.conrelid NOT IN (SELECT oid FROM reached)))
       OR (k.confdeltype IN ('n', 'd') AND s.not_null),
       k.confdeltype = 'c', s.name
  FROM pg_catalog.pg_constraint k
 CROSS JOIN LATERAL (
       SELECT pg_catalog.bool_or(a.attnotnull AND (k.confdeltype = 'n' OR NOT a.atthasdef)) AS not_null,
              pg_catalog.min(a.attname::text) AS name
         FROM pg_catalog.pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY ({set_columns})) s
 WHERE k.contype = 'f' AND k.confrelid IN (SELECT oid FROM reached) AND k.conparentid = 0 AND {enforced}
 ORDER BY 1
"""

# object_not_in_prerequisite_state, and invalid_column_reference: of a publication's WHERE or list of columns.
_UNPUBLISHABLE = frozenset({"55000", "42P10"})

# What depends on the other column is the expression, or (to PostgreSQL 14) the generated column itself.
_MADE_OF = """
SELECT DISTINCT a.attname FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
  LEFT JOIN pg_catalog.pg_attrdef f ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND f.oid = d.objid
 WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = {oid}
   AND d.refobjsubid NOT IN (0, {number})
   AND ((f.adrelid = {oid} AND f.adnum = {number})
        OR (d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = {oid} AND d.objsubid = {number}))
"""

_RULES = """
SELECT rulename FROM pg_catalog.pg_rewrite
 WHERE ev_class = {oid} AND ev_type = {event} AND ev_enabled IN ('O', 'A') AND (is_instead OR {besides})
 ORDER BY 1
"""

_CHECKS = """
SELECT k.conname, pg_catalog.pg_get_expr(k.conbin, k.conrelid),
       ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute
              WHERE attrelid = k.conrelid AND attnum = ANY (k.conkey))
  FROM pg_catalog.pg_constraint k WHERE k.contype = 'c' AND k.conrelid = {oid} ORDER BY 1
"""

_GENERATED = """
SELECT v IS NULL, pg_catalog.length(v) FROM (
  SELECT CAST(({expression}) AS {type})::text AS v FROM (
    SELECT (pg_catalog.jsonb_populate_record(NULL::{table}, {values}::jsonb)).*) AS {alias}) AS made
"""

_GENERATED_LIVE = """
SELECT pg_catalog.bool_or(v IS NULL), pg_catalog.max(pg_catalog.length(v)) FROM (
  SELECT CAST(({expression}) AS {type})::text AS v FROM (
    SELECT (pg_catalog.jsonb_populate_record(r, {values}::jsonb)).* FROM {table} AS r LIMIT 100) AS {alias})
  AS made
"""

_ON_NOTHING = """
SELECT ({check}) IS FALSE FROM (
  SELECT (pg_catalog.jsonb_populate_record(NULL::{table}, {values}::jsonb)).*) AS {alias}
"""

_ON_A_LIVE_ROW = """
SELECT ({check}) IS FALSE FROM (
  SELECT (pg_catalog.jsonb_populate_record(r, {values}::jsonb)).* FROM {table} AS r LIMIT 1) AS {alias}
"""
