"""Mapping versions that the schema has left behind: tombstones name them for as long as a backup lives."""

from __future__ import annotations

from lethe.adapters.stores.sql import constraints
from lethe.adapters.stores.sql.catalog import Column, read_tables, tables_of
from lethe.adapters.stores.sql.postgres import Cursor
from lethe.adapters.stores.sql.values import CANONICAL
from lethe.domain.mapping import LONGEST_TOKEN, ClearRule, SubjectMapping, what_is_left


def mapping_left(cursor: Cursor, earlier: SubjectMapping, present: SubjectMapping) -> SubjectMapping | None:
    """Return what is left of an earlier mapping in the live schema, which the present one fits."""
    names = dict.fromkeys((*tables_of(earlier), *tables_of(present)))
    tables = {name: one for name, one in read_tables(cursor, names).items() if one.kind in {"r", "p"}}
    if present.table not in tables:
        return present  # the caller sees what is missing
    subjects = tables.get(earlier.table) or tables[present.table]
    columns = {written: set(table.columns) for written, table in tables.items()}
    key = subjects.columns.get(earlier.key) or tables[present.table].columns[present.key]
    if key.base not in CANONICAL:
        columns[subjects.written].discard(key.name)
    for rule in earlier.clear:
        if not _takes(cursor, subjects.columns.get(rule.column), rule):
            columns[subjects.written].discard(rule.column)
    for one in earlier.dependents:
        if (table := tables.get(one.table)) is None:
            continue
        reference = table.columns.get(one.foreign_key)
        if reference and not constraints.comparable(cursor, reference, key):
            columns[one.table].discard(one.foreign_key)
        for rule in one.clear:
            if not _takes(cursor, table.columns.get(rule.column), rule):
                columns[one.table].discard(rule.column)
    return what_is_left(earlier, present, columns)


def _takes(cursor: Cursor, column: Column | None, rule: ClearRule) -> bool:
    """Tell whether a column can still hold what a rule writes: types and constraints change."""
    text = rule.value_for("1", "a" * LONGEST_TOKEN)
    if column is None or column.generated or column.identity or (text is None and column.not_null):
        return False
    if text is not None and column.length is not None and len(text) > column.length:
        return False
    return constraints.castable(cursor, column, text)
