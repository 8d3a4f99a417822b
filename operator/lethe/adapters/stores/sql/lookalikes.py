"""Columns that look like personal data and that the mapping does not mention: second copies get forgotten."""

from __future__ import annotations

from psycopg import sql

from lethe.adapters.stores.sql.catalog import INTEGER_TYPES, Shape, Table
from lethe.adapters.stores.sql.postgres import Cursor, compose
from lethe.domain.mapping import SubjectMapping
from lethe.domain.personal_columns import looks_personal


def lookalikes(shape: Shape) -> tuple[str, ...]:
    """Return `table.column` of the columns that nobody mapped or ignored and that look like personal data."""
    found: list[str] = []
    for written, table in shape.tables.items():
        if any(one.delete for one in shape.mapping.dependents if one.table == written):
            continue  # whole rows go
        mentioned = _mentioned(shape.mapping, table)
        found += [
            f"{written}.{column.name}"
            for column in table.columns.values()
            if column.name not in mentioned and looks_personal(column.name, column.base)
        ]
    return tuple(sorted(found))


def pointing(cursor: Cursor, shape: Shape) -> tuple[str, ...]:
    """Return `table.column` of what points at the subjects and nobody mapped or ignored: by a foreign key,
    or by its name and type."""
    mapping, key = shape.mapping, shape.key
    ours = {(shape.tables[one.table].oid, one.foreign_key) for one in mapping.dependents}
    subjects = shape.subjects.name
    called = {f"{name}_{mapping.key}" for name in (subjects, subjects.removesuffix("s"))}
    query = compose(
        _POINTING,
        oid=shape.subjects.oid,
        mapped=sql.Literal([table.oid for table in shape.tables.values()]),
        called=sql.Literal(sorted(called | {one.foreign_key for one in mapping.dependents})),
        types=sql.Literal(sorted(INTEGER_TYPES if key.base in INTEGER_TYPES else {key.base})),
        schema=shape.subjects.schema,
    )
    found: list[str] = []
    for other, written, full_name, column in cursor.execute(query):
        names = {f"{written}.{column}", f"{full_name}.{column}"}
        if (other, column) not in ours and not names & set(mapping.ignore):
            found.append(f"{written}.{column}")
    return tuple(sorted(found))


# A row of the subjects that points at another one (who invited whom) holds but a key. A partition of a mapped
# table may have the foreign key instead of it.
_POINTING = """
SELECT DISTINCT c.oid::bigint,
       CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN '' ELSE n.nspname || '.' END || c.relname,
       n.nspname || '.' || c.relname, a.attname
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_constraint k
    ON k.conrelid = c.oid AND k.contype = 'f' AND k.confrelid = {oid} AND k.conparentid = 0
   AND a.attnum = ANY (k.conkey)
 WHERE c.relkind IN ('r', 'p') AND c.oid <> {oid}
   AND (k.oid IS NOT NULL OR (a.attname = ANY ({called}) AND t.typname = ANY ({types})
                              AND n.nspname = {schema} AND NOT c.relispartition))
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i
                    WHERE i.inhrelid = c.oid AND i.inhparent = ANY ({mapped}))
"""


def _mentioned(mapping: SubjectMapping, table: Table) -> set[str]:
    written = table.written
    mentioned: set[str] = set()
    for ignored in mapping.ignore:
        of_table, _, column = ignored.rpartition(".")
        if of_table in {written, table.name, table.full_name} or (not of_table and written == mapping.table):
            mentioned.add(column)
    if written == mapping.table:
        mentioned |= {mapping.key, *mapping.identifiers.values(), *(rule.column for rule in mapping.clear)}
        mentioned |= {one for one in (mapping.created_at, mapping.email_column) if one is not None}
        if mapping.quarantine is not None:
            mentioned.add(mapping.quarantine.column)
    for dependent in mapping.dependents:
        if dependent.table == written:
            mentioned |= {dependent.foreign_key, *(rule.column for rule in dependent.clear)}
    return mentioned
