"""Reading verified tombstones: `tombstones` says where they stand, the chain's payloads hold them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from secrets import SystemRandom
from typing import Any, cast

from sqlalchemy import Connection, Select, func, select

from lethe.adapters.ledger.chain import PeriodKeys, decoded, decrypted
from lethe.adapters.ledger.docs import chunked
from lethe.adapters.ledger.part import PartOfLedger
from lethe.adapters.ledger.schema import (
    absent_addresses,
    entries,
    erased_identifiers,
    period_keys,
    rejoined,
    tombstones,
)
from lethe.domain.facts import FoundAgain, Intended
from lethe.domain.tombstones import Tombstone

_READ_ROWS = 5_000
"""How many tombstones are read at once: a chunk is put together from small reads, so that the rows of
a large one never stand in memory beside the tombstones."""

_READ_NUMBERS = 50_000


class TombstonesInLedger(PartOfLedger):
    """What `SqlLedger` answers about who was erased and verified."""

    def tombstones(self, store: str, *, chunk: int = 50_000) -> Iterator[Sequence[Tombstone]]:
        """Yield every verified tombstone of a store by ascending number, in chunks.

        No transaction stays open between the chunks; what is verified meanwhile may or may not show.
        """
        after, gathered, exhausted = -1, list[Tombstone](), False
        while not exhausted:
            wanted = min(_READ_ROWS, chunk - len(gathered))
            with self._reading() as connection:
                found, after, exhausted = read_after(connection, self._keys, store, after, wanted)
            gathered += found
            if gathered and (exhausted or len(gathered) >= chunk):
                yield gathered
                gathered = []

    def tombstone_numbers(self, store: str) -> Iterator[Sequence[int]]:
        """Yield the numbers of what `tombstones` yields, in chunks, without reading any payload."""
        after = -1
        while True:
            with self._reading() as connection:
                numbers = numbers_after(connection, store, after, _READ_NUMBERS)
            if not numbers:
                return
            yield numbers
            after = numbers[-1]

    def erased_stores(self) -> frozenset[str]:
        """Return the stores that have verified tombstones; a step through the index for each."""
        found, last = set[str](), ""
        with self._reading() as connection:
            while True:
                query = select(func.min(tombstones.c.store)).where(tombstones.c.store > last)
                last = connection.execute(query).scalar_one()
                if last is None:
                    return frozenset(found)
                found.add(last)

    def tombstone_count(self, store: str) -> int:
        """Return how many verified tombstones a store has."""
        with self._reading() as connection:
            query = select(func.count()).select_from(tombstones).where(tombstones.c.store == store)
            return int(connection.execute(query).scalar_one())

    def sample_tombstones(self, store: str, *, newest: int, random: int) -> Sequence[Tombstone]:
        """Return the newest verified tombstones and a random choice of the others."""
        with self._reading() as connection:
            return sampled(connection, self._keys, store, newest=newest, random=random)

    def erased_before(self, digests: Collection[bytes]) -> frozenset[bytes]:
        """Return which of these keyed digests were erased and verified."""
        column = erased_identifiers.c.digest
        with self._reading() as connection:
            return frozenset(
                bytes(digest)
                for chunk in chunked(digests)
                for digest in connection.execute(select(column).where(column.in_(chunk))).scalars()
            )

    def absent_addresses(self, store: str) -> Mapping[bytes, str]:
        """Return the fingerprints of addresses by which a store was searched and held nobody."""
        table = absent_addresses
        query = select(table.c.digest, table.c.request).where(table.c.store == store)
        with self._reading() as connection:
            return {bytes(digest): request for digest, request in connection.execute(query)}

    def rejoined(self, store: str) -> Mapping[int, tuple[datetime, datetime]]:
        """Return of tombstones since when she has consented anew, and when that was recorded."""
        query = select(rejoined).where(rejoined.c.store == store)
        with self._reading() as connection:
            return {
                row.number: (datetime.fromisoformat(row.since), datetime.fromisoformat(row.at))
                for row in connection.execute(query)
            }

    def who_erased(self, digests: Collection[bytes]) -> Mapping[bytes, str]:
        """Return the last request that erased and verified each of these keyed digests."""
        with self._reading() as connection:
            return {
                bytes(digest): request
                for chunk in chunked(digests)
                for digest, request in connection.execute(
                    select(erased_identifiers).where(erased_identifiers.c.digest.in_(chunk))
                )
            }


def read_after(
    connection: Connection, keys: PeriodKeys, store: str, after: int, wanted: int
) -> tuple[list[Tombstone], int, bool]:
    """Return the next tombstones after a number, the last number looked at, and whether there are no more."""
    number = tombstones.c.number
    query = _where_they_stand(store).where(number > after).order_by(number).limit(wanted)
    rows = connection.execute(query).all()
    return list(_read(connection, keys, rows)), rows[-1].number if rows else after, len(rows) < wanted


def numbers_after(connection: Connection, store: str, after: int, wanted: int) -> list[int]:
    """Return the next numbers of tombstones whose payloads are not destroyed. Reads no payload."""
    number = tombstones.c.number
    destroyed = select(period_keys.c.period).where(period_keys.c.wrapped_key.is_(None))
    query = (
        select(number)
        .join(entries, entries.c.sequence == tombstones.c.sequence)
        .where(tombstones.c.store == store, number > after, entries.c.period.not_in(destroyed))
    )
    return list(connection.execute(query.order_by(number).limit(wanted)).scalars().all())


def sampled(
    connection: Connection, keys: PeriodKeys, store: str, *, newest: int, random: int
) -> list[Tombstone]:
    """Return the newest tombstones and a random choice of the others."""
    number = tombstones.c.number
    of_store = select(number).where(tombstones.c.store == store)
    chosen = list(connection.execute(of_store.order_by(number.desc()).limit(newest)).scalars())
    if random and len(chosen) == newest:
        others = of_store.where(number < chosen[-1]) if chosen else of_store
        chosen += _chosen_at_random(connection, others, random)
    found: list[Tombstone] = []
    for chunk in chunked(chosen):
        query = _where_they_stand(store).where(number.in_(chunk)).order_by(number.desc())
        found += _read(connection, keys, connection.execute(query).all())
    return found


def _where_they_stand(store: str) -> Select[Any]:
    return (
        select(
            tombstones.c.number,
            tombstones.c.position,
            tombstones.c.sequence,
            entries.c.kind,
            entries.c.period,
            entries.c.payload,
        )
        .join(entries, entries.c.sequence == tombstones.c.sequence)
        .where(tombstones.c.store == store)
    )


def _read(connection: Connection, keys: PeriodKeys, rows: Sequence[Any]) -> Iterator[Tombstone]:
    """Yield the tombstones of these rows; none for payloads whose key was destroyed."""
    read, intended = 0, tuple[Tombstone, ...]()
    key_of = {period: keys.for_reading(connection, period) for period in {row.period for row in rows}}
    for _, position, sequence, kind, period, payload in rows:
        if sequence != read:
            key = key_of[period]
            if key is None:
                continue
            fact = decoded(kind, sequence, decrypted(key, sequence, payload))
            read, intended = sequence, cast("Intended | FoundAgain", fact).tombstones
        yield intended[position]


_ROUNDS = 4


def _chosen_at_random(connection: Connection, others: Select[int], wanted: int) -> list[int]:
    """Return up to `wanted` of these numbers, each as likely as any other.

    Numbers are drawn from the range, and those that exist are kept: journal numbers leave few gaps, so
    this reads a thousand keys where a shuffle reads a million.
    """
    numbers = others.subquery().c[0]
    lowest, highest = connection.execute(select(func.min(numbers), func.max(numbers))).one()
    if lowest is None:
        return []
    randomness = SystemRandom()
    span = range(lowest, highest + 1)
    if len(span) > wanted * 2 * _ROUNDS:
        found = set[int]()
        column = others.selected_columns[0]
        for _ in range(_ROUNDS):
            for chunk in chunked(randomness.sample(span, wanted * 2)):
                found.update(connection.execute(others.where(column.in_(chunk))).scalars())
            if len(found) >= wanted:
                return randomness.sample(sorted(found), wanted)
    # A short range, or one of gaps mostly.
    return list(connection.execute(others.order_by(func.random()).limit(wanted)).scalars())
