"""Reading back: who of the erased is not cleared (any more), and what an erasure would change."""

from __future__ import annotations

from dataclasses import dataclass, field

from lethe.adapters.stores.sql.catalog import Shape
from lethe.adapters.stores.sql.postgres import Cursor, compose, fetch_in_chunks, name, raw
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
from lethe.domain.tombstones import Identity, IdentityMatcher
from lethe.ports.stores import Residue

_JUDGED_AT_ONCE = 20_000


@dataclass(slots=True)
class ReadBack:
    """What the chunks of one check showed so far."""

    uncleared: list[int] = field(default_factory=list)
    left_alone: int = 0
    unclear: list[tuple[str, str]] = field(default_factory=list)
    absent: list[int] = field(default_factory=list)

    def residue(self) -> Residue:
        """Return the sum."""
        return Residue(
            tuple(sorted(self.uncleared)), self.left_alone, tuple(self.unclear), tuple(sorted(self.absent))
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
                "SELECT DISTINCT s.ix FROM {staged} AS s JOIN {table} AS d ON {left}",
                staged=STAGED,
                table=shape.tables[dependent.table].sql,
                left=dependent_left(shape, dependent),
            )
            for (ix,) in cursor.execute(query):
                if ix not in spared:
                    blamed.setdefault(ix, batch.tombstones[ix][-1].number)
        self.uncleared += blamed.values()

    def _subjects(
        self, cursor: Cursor, shape: Shape, batch: Batch, matcher: IdentityMatcher
    ) -> tuple[dict[int, int], set[int]]:
        """Return the number to blame by uncleared `ix`, and the `ix` of rows that are another person's."""
        mapping = shape.mapping
        left = uncleared(shape, mapping.table, mapping.clear, "u")
        query = compose(
            "SELECT s.ix, u.{key} IS NULL, {left}, {seen}, {marked}"
            " FROM {staged} AS s LEFT JOIN {table} AS u ON u.{key} = s.key"
            " WHERE u.{key} IS NULL OR {asked}",
            key=name(mapping.key),
            left=left,
            seen=seen_columns(shape, "u"),
            marked=marked(shape, "u"),
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
            uncleared_now = {row[0] for row in chunk if row[2]}
            standing = [(row[0], seen_record(row[3:])) for row in chunk if not row[1]]
            for ix, verdicts in matched(batch, standing, matcher).items():
                same = [one.number for one, verdict in verdicts if verdict is Identity.SAME]
                if same and ix in uncleared_now:
                    blamed[ix] = same[0]
                if same:
                    continue
                spared.add(ix)
                if ix not in uncleared_now:
                    continue
                if any(verdict is Identity.UNCLEAR for _, verdict in verdicts):
                    self.unclear.append((batch.tombstones[ix][0].table, batch.keys[ix]))
                else:
                    self.left_alone += 1
        return blamed, spared


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
