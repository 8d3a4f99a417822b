"""Columns that look like personal data and that the mapping does not mention: second copies get forgotten."""

from __future__ import annotations

import re

from psycopg import sql

from lethe.adapters.stores.sql.catalog import Column, Shape, Table
from lethe.adapters.stores.sql.postgres import Cursor, compose
from lethe.domain.mapping import SubjectMapping

# Parts of words, in several tongues of schemas; a false alarm is silenced once, by `ignore`.
_PARTS = re.compile(
    r"name|mail|phone|mobile|fax|address|street|city|zip|postal|postcode|birth|passw|passwd|secret|locale|lang"
    r"|time_?zone|nick|gender|avatar|signature|iban|passport|social_security|latitude|longitude|vorname|anschrift"
)
_WORDS = frozenset(
    {"tz", "ip", "dob", "tel", "pwd", "ssn", "sex", "age", "bio", "geo", "lat", "lng", "plz", "ort"}
)
# What a flag or a number of rows is called after is not itself the thing (email_verified, names_count).
_SELDOM = frozenset(
    {"bool", "int2", "int4", "int8", "timestamp", "timestamptz", "numeric", "float4", "float8"}
)
_TELLING_ANYWAY = re.compile(
    r"birth|phone|mobile|zip|postal|latitude|longitude|iban|passport|social_security"
)


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
            if column.name not in mentioned and _looks_personal(column)
        ]
    return tuple(sorted(found))


def pointing(cursor: Cursor, shape: Shape) -> tuple[str, ...]:
    """Return `table.column` of the foreign keys to the subjects that nobody mapped or ignored."""
    mapping, oid = shape.mapping, shape.subjects.oid
    ours = {(shape.tables[one.table].oid, one.foreign_key) for one in mapping.dependents}
    mapped = sql.Literal([table.oid for table in shape.tables.values()])
    found: list[str] = []
    for other, written, full_name, column in cursor.execute(compose(_POINTING, oid=oid, mapped=mapped)):
        names = {f"{written}.{column}", f"{full_name}.{column}"}
        if (other, column) not in ours and not names & set(mapping.ignore):
            found.append(f"{written}.{column}")
    return tuple(sorted(found))


# A row of the subjects that points at another one (who invited whom) holds but a key. A partition of a mapped
# table may have the foreign key instead of it.
_POINTING = """
SELECT c.oid::bigint,
       CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN '' ELSE n.nspname || '.' END || c.relname,
       n.nspname || '.' || c.relname, a.attname
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
 WHERE k.contype = 'f' AND k.confrelid = {oid} AND k.conrelid <> {oid} AND k.conparentid = 0
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i
                    WHERE i.inhrelid = c.oid AND i.inhparent = ANY ({mapped}))
"""


def _looks_personal(column: Column) -> bool:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.name).lower()
    if column.base in _SELDOM:
        return bool(_TELLING_ANYWAY.search(snake)) and column.base != "bool"
    return (
        column.base == "inet" or bool(_PARTS.search(snake)) or bool(_WORDS & set(re.split(r"[^a-z]+", snake)))
    )


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
