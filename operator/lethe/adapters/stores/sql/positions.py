"""How far keys and sequences have been given out, and moving sequences there again after a restore."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg import sql

from lethe.adapters.stores.sql import catalog
from lethe.adapters.stores.sql.catalog import INTEGER_TYPES, Shape
from lethe.adapters.stores.sql.postgres import Cursor, compose, listed, name


def positions(cursor: Cursor, shape: Shape) -> dict[str, int]:
    """Return the highest integer key of each mapped table and the last value of each sequence behind one.

    An empty table's is 0: that no key had been given out tells more than nothing.
    """
    parts: list[sql.Composed] = []
    for table, column in keyed_columns(cursor, shape):
        if table.columns[column].readable:
            parts.append(
                compose(
                    "SELECT {called}, (SELECT coalesce(pg_catalog.max({column}), 0)::bigint FROM {table})",
                    called=f"table:{table.full_name}",
                    column=name(column),
                    table=table.sql,
                )
            )
        parts += [
            compose(
                "SELECT {called}, pg_catalog.pg_sequence_last_value({oid}::regclass)",
                called=f"sequence:{sequence.full_name}",
                oid=sequence.oid,
            )
            for sequence in catalog.sequences_of(cursor, table, [column])
            if sequence.readable
        ]
    if not parts:
        return {}
    rows = cursor.execute(listed(parts, " UNION ALL ")).fetchall()
    return {called: position for called, position in rows if position is not None}


def keyed_columns(cursor: Cursor, shape: Shape) -> list[tuple[catalog.Table, str]]:
    """Return the integer keys of the mapped tables: the mapping's own, and the dependents' primary keys."""
    others = [table for written, table in shape.tables.items() if written != shape.mapping.table]
    keys = catalog.integer_keys(cursor, others)
    if shape.key.base in INTEGER_TYPES:
        keys.insert(0, (shape.subjects, shape.mapping.key))
    return keys


def advance(cursor: Cursor, shape: Shape, wanted: Mapping[str, int]) -> None:
    """Move every sequence behind a mapped key to at least its position; never back, never past its end."""
    for table, column in keyed_columns(cursor, shape):
        for sequence in catalog.sequences_of(cursor, table, [column]):
            target = wanted.get(f"sequence:{sequence.full_name}")
            if target is None or not sequence.movable:
                continue
            # Inserts draw their key under this table's lock; they wait until the sequence has moved.
            cursor.execute(compose("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE", table=table.sql))
            cursor.execute(
                compose(
                    "SELECT pg_catalog.setval({oid}::regclass, LEAST({target}, d.seqmax))"
                    " FROM {sequence} s CROSS JOIN pg_catalog.pg_sequence d"
                    " WHERE d.seqrelid = {oid} AND d.seqincrement > 0 AND s.last_value < {target}",
                    oid=sequence.oid,
                    target=target,
                    sequence=name(sequence.schema, sequence.name),
                )
            )
