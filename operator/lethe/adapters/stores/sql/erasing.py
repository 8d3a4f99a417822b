"""Erasing a set of persons: set-based, every uncleared row judged under its lock, culprits bisected out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psycopg

from lethe.adapters.stores.sql.catalog import Shape
from lethe.adapters.stores.sql.errors import refusal
from lethe.adapters.stores.sql.postgres import Cursor, compose, copy_in, fetch_in_chunks, name, raw
from lethe.adapters.stores.sql.staging import (
    STAGED,
    Batch,
    assignments,
    dependent_left,
    marked,
    matched,
    seen_columns,
    seen_record,
    stage,
    uncleared,
)
from lethe.adapters.stores.sql.values import Tokens
from lethe.domain.tombstones import Identity, IdentityMatcher, Tombstone
from lethe.ports.stores import ErasureOutcome, JournalEntry, Refusal

_JUDGED_AT_ONCE = 20_000
# Finding each of a thousand culprits costs seventeen attempts; beyond it the cause is not in the records.
_MOST_CULPRITS = 1_000
_SPARED = name("pg_temp", "lethe_spared")


@dataclass(slots=True)
class Done:
    """What was done to the staged keys, by `ix`."""

    counts: dict[int, dict[str, int]] = field(default_factory=dict)
    verdicts: dict[int, list[tuple[Tombstone, Identity]]] = field(default_factory=dict)
    absent: set[int] = field(default_factory=set)
    refused: dict[int, Refusal] = field(default_factory=dict)

    def add(self, other: Done) -> None:
        """Take over what was done to other keys."""
        self.counts |= other.counts
        self.verdicts |= other.verdicts
        self.absent |= other.absent
        self.refused |= other.refused

    def count(self, ix: int, table: str, rows: int) -> None:
        """Note changed rows."""
        of_key = self.counts.setdefault(ix, {})
        of_key[table] = of_key.get(table, 0) + rows


@dataclass(frozen=True, slots=True)
class Erasure:
    """One version's share of an erasure, in a transaction that has moved the head already.

    `again` marks a re-erasure: only then is an unclear row quarantined, since at a first erasure it is a
    living person's row that has just changed.
    """

    cursor: Cursor
    shape: Shape
    batch: Batch
    matcher: IdentityMatcher
    exclusive: bool
    again: bool

    def carry_out(self, tokens: Tokens) -> Done:
        """Stage the batch and erase it."""
        if not self.batch.keys:
            return Done()
        stage(self.cursor, self.batch, self.shape, tokens)
        return self._erase(0, len(self.batch.keys) - 1, [0])

    def _erase(self, first: int, last: int, culprits: list[int]) -> Done:
        """Erase the keys `first` to `last`; what is refused is halved until the culprit is alone."""
        why: Refusal | None = None
        try:
            with self.cursor.connection.transaction():
                return self._attempt(first, last)
        except psycopg.Error as error:
            why = refusal(error)
            if why is None:
                raise
        if first == last or culprits[0] >= _MOST_CULPRITS:
            culprits[0] += 1
            return Done(refused=dict.fromkeys(range(first, last + 1), why))
        if why.retry:  # the halves shall not each wait as long for the same lock
            self.cursor.execute("SET LOCAL lock_timeout = '500ms'")
        middle = (first + last) // 2
        done = self._erase(first, middle, culprits)
        done.add(self._erase(middle + 1, last, culprits))
        return done

    def _attempt(self, first: int, last: int) -> Done:
        done = Done(absent=set(range(first, last + 1)))
        part = compose("s.ix BETWEEN {first} AND {last}", first=first, last=last)
        self._look(done, first, last)
        spared = {
            ix: verdicts
            for ix, verdicts in done.verdicts.items()
            if not any(verdict is Identity.SAME for _, verdict in verdicts)
        }
        if self.shape.stands_in:
            spared |= {ix: [] for ix in done.absent}
        if spared:
            self._spare(spared)
        for dependent in self.shape.mapping.dependents:
            table = self.shape.tables[dependent.table].sql
            left = dependent_left(self.shape, dependent)
            if dependent.delete:
                change = compose(
                    "DELETE FROM {table} AS d USING {staged} AS s WHERE {part} AND {left} RETURNING s.ix",
                    table=table,
                    staged=STAGED,
                    part=part,
                    left=left,
                )
            else:
                change = compose(
                    "UPDATE {table} AS d SET {values} FROM {staged} AS s"
                    " WHERE {part} AND {left} RETURNING s.ix",
                    table=table,
                    values=assignments(self.shape, dependent.table, dependent.clear),
                    staged=STAGED,
                    part=part,
                    left=left,
                )
            counted = compose(
                "WITH changed AS ({change}) SELECT ix, pg_catalog.count(*) FROM changed GROUP BY ix",
                change=change,
            )
            for ix, rows in self.cursor.execute(counted):
                done.count(ix, dependent.table, rows)
        mapping = self.shape.mapping
        if not mapping.clear:
            return done
        changed = self.cursor.execute(
            compose(
                "UPDATE {table} AS u SET {values} FROM {staged} AS s"
                " WHERE {part} AND u.{key} = s.key AND {uncleared} RETURNING s.ix",
                table=self.shape.subjects.sql,
                values=assignments(self.shape, mapping.table, mapping.clear),
                staged=STAGED,
                part=part,
                key=name(mapping.key),
                uncleared=uncleared(self.shape, mapping.table, mapping.clear, "u"),
            )
        )
        for (ix,) in changed:
            done.count(ix, mapping.table, 1)
        return done

    def _look(self, done: Done, first: int, last: int) -> None:
        """Lock the rows, so that no new reference slips in, and judge those that stand uncleared."""
        mapping = self.shape.mapping
        query = compose(
            "SELECT s.ix, {uncleared}, {seen}, {marked}"
            " FROM {staged} AS s JOIN {table} AS u ON u.{key} = s.key"
            " WHERE s.ix BETWEEN {first} AND {last} {locked}",
            uncleared=uncleared(self.shape, mapping.table, mapping.clear, "u"),
            seen=seen_columns(self.shape, "u"),
            marked=marked(self.shape, "u"),
            staged=STAGED,
            table=self.shape.subjects.sql,
            key=name(mapping.key),
            first=first,
            last=last,
            # Where the whole table is locked, a lock on each row would only write it once more.
            locked=raw("")
            if self.exclusive
            else compose("ORDER BY u.{key} FOR UPDATE OF u", key=name(mapping.key)),
        )
        for chunk in fetch_in_chunks(self.cursor, query, size=_JUDGED_AT_ONCE, called="lethe_seen"):
            done.absent.difference_update([row[0] for row in chunk])
            asked = [row for row in chunk if row[1] or self.shape.stands_in]
            standing = [(row[0], seen_record(row[2:])) for row in asked]
            done.verdicts |= matched(self.batch, standing, self.matcher)

    def _spare(self, spared: Mapping[int, list[tuple[Tombstone, Identity]]]) -> None:
        """Take the rows of somebody else, and of nobody knows whom, out of what is erased."""
        self.cursor.execute("DROP TABLE IF EXISTS pg_temp.lethe_spared")
        self.cursor.execute("CREATE TEMP TABLE lethe_spared (ix integer, unclear boolean) ON COMMIT DROP")
        copy_in(
            self.cursor,
            _SPARED,
            ["ix", "unclear"],
            ((ix, any(v is Identity.UNCLEAR for _, v in verdicts)) for ix, verdicts in spared.items()),
        )
        quarantine = self.shape.mapping.quarantine
        if quarantine is not None and self.again:
            column = self.shape.subjects.columns[quarantine.column]
            self.cursor.execute(
                compose(
                    "UPDATE {table} AS u SET {column} = {value}"
                    " FROM {staged} AS s JOIN {spared} AS n USING (ix)"
                    " WHERE n.unclear AND u.{key} = s.key AND u.{column} IS DISTINCT FROM {value}",
                    table=self.shape.subjects.sql,
                    column=name(quarantine.column),
                    value=compose("CAST({v} AS {type})", v=quarantine.value, type=raw(column.cast)),
                    staged=STAGED,
                    spared=_SPARED,
                    key=name(self.shape.mapping.key),
                )
            )
        self.cursor.execute(
            compose(
                "DELETE FROM {staged} AS s USING {spared} AS n WHERE n.ix = s.ix",
                staged=STAGED,
                spared=_SPARED,
            )
        )


def outcome_of(
    tombstones: Sequence[Tombstone], work: Sequence[tuple[Batch, Done]], first_number: int | None
) -> ErasureOutcome:
    """Return what was done, by the tombstones' numbers; entries in the order of `tombstones`."""
    counts: dict[int, Mapping[str, int]] = {}
    left_alone: set[int] = set()
    unclear: set[int] = set()
    absent: set[int] = set()
    refused: dict[int, Refusal] = {}
    done_with: set[int] = set()
    for batch, done in work:
        absent |= {one.number for one in batch.unfit}
        done_with |= {one.number for one in batch.unfit}
        for ix, of_key in enumerate(batch.tombstones):
            numbers = [one.number for one in of_key]
            if ix in done.refused:
                refused.update(dict.fromkeys(numbers, done.refused[ix]))
                continue
            verdicts = done.verdicts.get(ix, [])
            same = [one.number for one, verdict in verdicts if verdict is Identity.SAME]
            if verdicts and not same:
                left_alone |= {one.number for one, verdict in verdicts if verdict is Identity.OTHER}
                unclear |= {one.number for one, verdict in verdicts if verdict is Identity.UNCLEAR}
                continue
            if ix in done.absent:
                absent.update(numbers)
            done_with.update(numbers)
            if ix in done.counts:
                counts[same[0] if same else numbers[-1]] = done.counts[ix]
    if first_number is None:
        entries = [
            JournalEntry(one.number, one.number, counts.get(one.number, {}))
            for one in tombstones
            if one.number in done_with
        ]
    else:
        changed = [one.number for one in tombstones if one.number in counts]
        entries = [JournalEntry(first_number + n, of, counts[of]) for n, of in enumerate(changed)]
    return ErasureOutcome(
        tuple(entries), frozenset(left_alone), frozenset(unclear), frozenset(absent), refused
    )
