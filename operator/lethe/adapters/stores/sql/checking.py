"""Reading back: who of the erased is not cleared (any more), and what an erasure would change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from psycopg import sql

from lethe.adapters.stores.sql.catalog import Shape
from lethe.adapters.stores.sql.postgres import Cursor, compose, fetch_in_chunks, listed, name, raw
from lethe.adapters.stores.sql.staging import (
    STAGED,
    Batch,
    dependent_left,
    marked,
    matched,
    seen_columns,
    seen_record,
    stage,
    uncleared,
)
from lethe.adapters.stores.sql.values import Tokens
from lethe.domain.mapping import ClearRule
from lethe.domain.tombstones import Identity, IdentityMatcher
from lethe.ports.stores import Residue

_JUDGED_AT_ONCE = 20_000
_MOST_NAMED = 1_000
"""Of how many uncleared persons it is told what stands there still."""


@dataclass(slots=True)
class ReadBack:
    """What the chunks of one check showed so far."""

    uncleared: list[int] = field(default_factory=list)
    left_alone: int = 0
    unclear: list[tuple[str, str]] = field(default_factory=list)
    absent: list[int] = field(default_factory=list)
    standing: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def residue(self) -> Residue:
        """Return the sum."""
        return Residue(
            tuple(sorted(self.uncleared)),
            self.left_alone,
            tuple(self.unclear),
            tuple(sorted(self.absent)),
            self.standing,
        )

    def read(
        self, cursor: Cursor, shape: Shape, batch: Batch, matcher: IdentityMatcher, tokens: Tokens
    ) -> None:
        """Read one version's share of a chunk."""
        self.absent += [one.number for one in batch.unfit]
        if not batch.keys:
            return
        stage(cursor, batch, shape, tokens)
        blamed, spared = self._subjects(cursor, shape, batch, matcher)
        for dependent in shape.mapping.dependents:
            query = compose(
                "SELECT s.ix{flags} FROM {staged} AS s JOIN {table} AS d ON {left} GROUP BY s.ix",
                flags=_flags(shape, dependent.table, dependent.clear, "d", together=True),
                staged=STAGED,
                table=shape.tables[dependent.table].sql,
                left=dependent_left(shape, dependent),
            )
            for ix, *flags in cursor.execute(query):
                if ix not in spared:
                    number = blamed.setdefault(ix, batch.tombstones[ix][-1].number)
                    self._name(number, dependent.table, dependent.clear, flags)
        self.uncleared += blamed.values()

    def _name(self, number: int, table: str, rules: Sequence[ClearRule], flags: Sequence[bool]) -> None:
        """Note what of an uncleared person stands still in a table, but for too many of them."""
        if number in self.standing or len(self.standing) < _MOST_NAMED:
            columns = [rule.column for rule, stands in zip(rules, flags, strict=True) if stands]
            named = tuple(f"{table}.{column}" for column in columns) if rules else (table,)
            self.standing[number] = (*self.standing.get(number, ()), *named)

    def _subjects(
        self, cursor: Cursor, shape: Shape, batch: Batch, matcher: IdentityMatcher
    ) -> tuple[dict[int, int], set[int]]:
        """Return the number to blame by uncleared `ix`, and the `ix` of rows that are another person's."""
        mapping = shape.mapping
        left = uncleared(shape, mapping.table, mapping.clear, "u")
        query = compose(
            "SELECT s.ix, u.{key} IS NULL, {left}, {seen}, {marked}{flags}"
            " FROM {staged} AS s LEFT JOIN {table} AS u ON u.{key} = s.key"
            " WHERE u.{key} IS NULL OR {asked}",
            key=name(mapping.key),
            left=left,
            seen=seen_columns(shape, "u"),
            marked=marked(shape, "u"),
            flags=_flags(shape, mapping.table, mapping.clear, "u"),
            staged=STAGED,
            table=shape.subjects.sql,
            asked=raw("true") if shape.stands_in else left,
        )
        blamed: dict[int, int] = {}
        spared: set[int] = set()
        for chunk in fetch_in_chunks(cursor, query, size=_JUDGED_AT_ONCE, called="lethe_read_back"):
            for row in chunk:
                if row[1]:
                    self.absent += [one.number for one in batch.tombstones[row[0]]]
                    if shape.stands_in:
                        spared.add(row[0])
            flags = {row[0]: row[7:] for row in chunk if row[2]}
            standing = [(row[0], seen_record(row[3:7])) for row in chunk if not row[1]]
            for ix, verdicts in matched(batch, standing, matcher).items():
                same = [one.number for one, verdict in verdicts if verdict is Identity.SAME]
                if same and ix in flags:
                    blamed[ix] = same[0]
                    self._name(same[0], mapping.table, mapping.clear, flags[ix])
                if same:
                    continue
                spared.add(ix)
                if ix not in flags:
                    continue
                if any(verdict is Identity.UNCLEAR for _, verdict in verdicts):
                    self.unclear.append((batch.tombstones[ix][0].table, batch.keys[ix]))
                else:
                    self.left_alone += 1
        return blamed, spared


def _flags(
    shape: Shape, table: str, rules: Sequence[ClearRule], alias: str, *, together: bool = False
) -> sql.Composed:
    """Return further columns of a query: whether what each rule clears stands, in any row of a group."""
    one = (uncleared(shape, table, [rule], alias) for rule in rules)
    of_group = "pg_catalog.bool_or({flag})" if together else "{flag}"
    return listed((compose(", ") + compose(of_group, flag=flag) for flag in one), "")


def rows_to_change(cursor: Cursor, shape: Shape, batch: Batch, tokens: Tokens) -> dict[int, dict[str, int]]:
    """Return, by tombstone number, the rows by table that an erasure would change."""
    counts: dict[int, dict[str, int]] = {
        one.number: {} for group in (*batch.tombstones, batch.unfit) for one in group
    }
    if not batch.keys:
        return counts
    stage(cursor, batch, shape, tokens)
    mapping = shape.mapping
    sources = [
        (dependent.table, shape.tables[dependent.table], dependent_left(shape, dependent))
        for dependent in mapping.dependents
    ]
    sources.append(
        (
            mapping.table,
            shape.subjects,
            compose(
                "d.{key} = s.key AND {uncleared}",
                key=name(mapping.key),
                uncleared=uncleared(shape, mapping.table, mapping.clear, "d"),
            ),
        )
    )
    for written, table, left in sources:
        query = compose(
            "SELECT s.ix, pg_catalog.count(*) FROM {staged} AS s JOIN {table} AS d ON {left} GROUP BY s.ix",
            staged=STAGED,
            table=table.sql,
            left=left,
        )
        for ix, rows in cursor.execute(query):
            for one in batch.tombstones[ix]:
                of_one = counts[one.number]
                of_one[written] = of_one.get(written, 0) + rows
    return counts
