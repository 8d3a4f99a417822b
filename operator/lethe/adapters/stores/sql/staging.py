"""Tombstones in a temporary table, and the expressions that compare them with the live rows.

Columns of the staged table `s`: `ix` counts the distinct keys, `key` has the type of the subjects' key,
`v0`, `v1`, … hold what each rule that differs per record writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from lethe.adapters.stores.sql.catalog import Column, Shape, Table
from lethe.adapters.stores.sql.postgres import Cursor, compose, copy_in, listed, name, raw
from lethe.adapters.stores.sql.values import CANONICAL, Tokens, constant_text, encodable, rules_that_differ
from lethe.domain.identifiers import masked_as_personal
from lethe.domain.mapping import ClearRule, Dependent
from lethe.domain.tombstones import Identity, IdentityMatcher, SeenRecord, Tombstone

STAGED = name("pg_temp", "lethe_staged")


@dataclass(frozen=True, slots=True)
class Batch:
    """Tombstones of one mapping version, by distinct key. `unfit` name keys that the type can't hold."""

    keys: tuple[str, ...]
    tombstones: tuple[tuple[Tombstone, ...], ...]
    unfit: tuple[Tombstone, ...]

    @classmethod
    def of(cls, tombstones: Iterable[Tombstone], shape: Shape, encoding: str) -> Batch:
        """Group tombstones by key, in the order in which the keys come first."""
        canonical, is_text = CANONICAL[shape.key.base], shape.key.is_text
        by_key: dict[str, list[Tombstone]] = {}
        unfit: list[Tombstone] = []
        for one in tombstones:
            if one.key in by_key:
                by_key[one.key].append(one)
            elif canonical(one.key) and not (is_text and not encodable(one.key, encoding)):
                by_key[one.key] = [one]
            else:
                unfit.append(one)
        return cls(tuple(by_key), tuple(tuple(group) for group in by_key.values()), tuple(unfit))


def stage(cursor: Cursor, batch: Batch, shape: Shape, tokens: Tokens) -> None:
    """Put a batch into the staged table, which ends with the transaction."""
    differing = rules_that_differ(shape.mapping)
    columns = [compose("ix integer NOT NULL"), compose("key {type} NOT NULL", type=shape.key.staged)]
    columns += [
        compose("{value} {type}", value=name(f"v{n}"), type=shape.tables[table].columns[rule.column].staged)
        for n, (table, rule) in enumerate(differing)
    ]
    cursor.execute("DROP TABLE IF EXISTS pg_temp.lethe_staged")
    cursor.execute(
        compose("CREATE TEMP TABLE lethe_staged ({columns}) ON COMMIT DROP", columns=listed(columns))
    )
    rules = [rule for _, rule in differing]
    wants_token = any(rule.bears_token for rule in rules)

    def rows() -> Iterator[list[object]]:
        for ix, key in enumerate(batch.keys):
            token = tokens.of(batch.tombstones[ix][0].table, key) if wants_token else ""
            yield [ix, key, *(rule.value_for(key, token) for rule in rules)]

    copy_in(cursor, STAGED, ["ix", "key", *(f"v{n}" for n in range(len(rules)))], rows())
    cursor.execute("ANALYZE pg_temp.lethe_staged (ix, key)")


def value(shape: Shape, table: str, rule: ClearRule) -> sql.Composable:
    """Return, as SQL, what a rule writes to the record that is staged as `s`."""
    if rule.differs_per_record:
        number = rules_that_differ(shape.mapping).index((table, rule))
        return compose("s.{value}", value=name(f"v{number}"))
    text = constant_text(rule)
    if text is None:
        return raw("NULL")
    column = shape.tables[table].columns[rule.column]
    return compose("CAST({text} AS {type})", text=text, type=raw(column.cast))


def uncleared(shape: Shape, table: str, rules: Sequence[ClearRule], alias: str) -> sql.Composed:
    """Return the condition that a row does not hold what its erasure writes."""
    if not rules:
        return compose("false")  # of an earlier mapping nothing may be left here
    return compose("({any})", any=listed((_differs(shape, table, rule, alias) for rule in rules), " OR "))


def _differs(shape: Shape, table: str, rule: ClearRule, alias: str) -> sql.Composed:
    """Return the condition that a column does not hold what a rule writes to it."""
    column = name(alias, rule.column)
    if not rule.differs_per_record and constant_text(rule) is None:
        return compose("{column} IS NOT NULL", column=column)
    as_text = shape.tables[table].columns[rule.column].compared_as_text
    return compose(
        "{column}::text IS DISTINCT FROM ({value})::text" if as_text else "{column} IS DISTINCT FROM {value}",
        column=column,
        value=value(shape, table, rule),
    )


def assignments(shape: Shape, table: str, rules: Sequence[ClearRule]) -> sql.Composed:
    """Return the SET list of an erasure."""
    return listed(
        compose("{column} = {value}", column=name(rule.column), value=value(shape, table, rule))
        for rule in rules
    )


def dependent_left(shape: Shape, dependent: Dependent) -> sql.Composed:
    """Return the condition under which a dependent's row `d` of a staged person is still to be erased."""
    belongs = compose("d.{column} = s.key", column=name(dependent.foreign_key))
    if dependent.delete:
        return belongs
    left = uncleared(shape, dependent.table, dependent.clear, "d")
    return compose("{belongs} AND {left}", belongs=belongs, left=left)


def seen_columns(shape: Shape, alias: str) -> sql.Composed:
    """Return the columns that tell who a subject is: key, `createdAt` as canonical text, e-mail."""
    mapping, columns = shape.mapping, shape.subjects.columns
    created, email = mapping.created_at, mapping.email_column
    return compose(
        "{key}::text, {created}, {email}",
        key=name(alias, mapping.key),
        created=raw("NULL::text") if created is None else canonical_instant(columns[created], alias),
        email=raw("NULL::text") if email is None else compose("{c}::text", c=name(alias, email)),
    )


def canonical_instant(column: Column, alias: str) -> sql.Composed:
    """Return the text under which a moment is fingerprinted: UTC, microseconds, `…Z`; texts as such."""
    at: sql.Composable = name(alias, column.name)
    if column.base not in {"timestamp", "timestamptz"}:
        return compose("{at}::text", at=at)
    utc = compose("{at} AT TIME ZONE 'UTC'", at=at) if column.base == "timestamptz" else at
    return compose(
        "CASE WHEN pg_catalog.isfinite({at})"
        ' THEN pg_catalog.to_char({utc}, \'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\') ELSE {at}::text END',
        at=at,
        utc=utc,
    )


def marked(shape: Shape, alias: str) -> sql.Composed:
    """Return the condition that a row still holds the token that an erasure wrote for its very key."""
    rules = [rule for rule in shape.mapping.clear if rule.bears_token]
    held = (compose("NOT ({d})", d=_differs(shape, shape.mapping.table, rule, alias)) for rule in rules)
    return compose("({any})", any=listed(held, " OR ")) if rules else compose("false")


def seen_record(row: Sequence[Any]) -> SeenRecord:
    """Return a record from the columns of `seen_columns` and `marked`."""
    key, created_at, email, bears_token = row
    return SeenRecord(key or "", created_at, masked_as_personal(email), bool(bears_token))


def matched(
    batch: Batch, rows: Sequence[tuple[int, SeenRecord]], matcher: IdentityMatcher
) -> dict[int, list[tuple[Tombstone, Identity]]]:
    """Judge a chunk of uncleared rows in one call: the verdicts on every tombstone of each row's key."""
    if not rows:
        return {}
    pairs = [(tombstone, seen) for ix, seen in rows for tombstone in batch.tombstones[ix]]
    verdicts: dict[int, list[tuple[Tombstone, Identity]]] = {ix: [] for ix, _ in rows}
    of_pairs = (ix for ix, _ in rows for _ in batch.tombstones[ix])
    for ix, (tombstone, _), verdict in zip(of_pairs, pairs, matcher(pairs), strict=True):
        verdicts[ix].append((tombstone, verdict))
    return verdicts


def mapped_tables(shape: Shape) -> list[Table]:
    """Return every mapped table once, in an order that all sessions share, so that locks don't cross."""
    return sorted({table.oid: table for table in shape.tables.values()}.values(), key=lambda one: one.oid)


def lock_tables(cursor: Cursor, shapes: Iterable[Shape], *, to_write: bool) -> None:
    """Keep every other writer out of the mapped tables until the transaction ends."""
    tables = {table.oid: table for shape in shapes for table in mapped_tables(shape)}
    if not tables:
        return
    quoted = listed(tables[oid].sql for oid in sorted(tables))
    mode = raw("SHARE ROW EXCLUSIVE" if to_write else "SHARE")
    cursor.execute(compose("LOCK TABLE {tables} IN {mode} MODE", tables=quoted, mode=mode))


def hold(cursor: Cursor, tables: Iterable[Table]) -> None:
    """Take at once what reading these tables locks, so that none is waited for later in the transaction.

    Whoever reads one table for a while and then waits for the next can be what an `ALTER` of both waits for:
    the server ends whichever of the two looks first, and that would be the restore.
    """
    held = (
        one for one in tables if one.kind in "rp" and any(column.readable for column in one.columns.values())
    )
    parts = [compose("(SELECT 1 FROM {table} LIMIT 0)", table=one.sql) for one in held]
    if parts:
        cursor.execute(listed(parts, " UNION ALL "))
