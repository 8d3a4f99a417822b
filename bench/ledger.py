"""The ledger alone: how fast it takes facts on and gives tombstones back, against bare SQLite."""

from __future__ import annotations

import sqlite3
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.figures import Figure, median_figure
from bench.ledgers import CHUNK, Person, record_erasures
from bench.measuring import Stopwatch, percentile
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.domain.facts import Accepted
from lethe.workflows.store_session import fingerprints_of

BENCH = "ledger"
STORE = "bench/site"
_SINGLE = 200
_PAYLOAD = b"x" * 600
"""About what an entry takes with its payload, digests and columns."""


def bench_ledger(*, tombstones: int, repeat: int) -> list[Figure]:
    """Measure appends (many facts, and one at a time), streaming and the walk of the chain."""
    filling, singles, streaming, walking, bare_many, bare_single = ([] for _ in range(6))
    for _ in range(repeat):
        with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder:
            many, single = _bare_sqlite(Path(folder) / "bare.db", tombstones * 4)
            bare_many.append(many)
            bare_single += single
            keys = Path(folder) / "keys"
            keys.mkdir()
            keyring = FileKeyring(keys)
            ledger = open_ledger(f"sqlite:///{Path(folder) / 'ledger.db'}", keyring)
            token = ledger.take_over()
            facts, seconds = record_erasures(
                ledger,
                keyring,
                fingerprints_of(keyring, STORE),
                _people(tombstones),
                store=STORE,
                version="v1",
                token=token,
            )
            filling.append(facts / seconds)
            for n in range(_SINGLE):
                fact = _single_fact(n)
                watch = Stopwatch()
                ledger.append([fact])
                singles.append(watch.lap() * 1000)
            watch = Stopwatch()
            read = sum(len(chunk) for chunk in ledger.tombstones(STORE))
            streaming.append(read / watch.lap())
            end = ledger.verify()
            walking.append(end.sequence / watch.lap())
            ledger.close()
    return [
        median_figure(BENCH, f"facts in appends of {CHUNK}", filling, "facts/s"),
        median_figure(BENCH, "the same rows in bare SQLite", bare_many, "rows/s"),
        Figure(BENCH, "append of one fact, median", percentile(singles, 50), "ms"),
        Figure(BENCH, "append of one fact, p99", percentile(singles, 99), "ms"),
        Figure(BENCH, "one row in bare SQLite, median", percentile(bare_single, 50), "ms"),
        median_figure(BENCH, "tombstones streamed", streaming, "tombstones/s"),
        median_figure(BENCH, "chain verified", walking, "entries/s"),
    ]


def _people(count: int) -> list[list[Person]]:
    people = [(str(n), f"2026-01-01T00:00:00.{n % 1_000_000:06}Z", f"p{n}@example.org") for n in range(count)]
    return [people[first : first + CHUNK] for first in range(0, count, CHUNK)]


def _single_fact(number: int) -> Accepted:
    now = datetime.now(UTC)
    name = f"single-{number}"
    return Accepted(name, "bench", name, "0" * 64, now, now, now + timedelta(days=30), subject_id=str(number))


def _bare_sqlite(path: Path, rows: int) -> tuple[float, list[float]]:
    """Return rows a second in transactions of `CHUNK`, and milliseconds of transactions of one row."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE entries (sequence INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
    insert = "INSERT INTO entries (payload) VALUES (?)"
    watch = Stopwatch()
    for _ in range(0, rows, CHUNK):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, [(_PAYLOAD,)] * CHUNK)
        connection.execute("COMMIT")
    many = rows / watch.lap()
    single = []
    for _ in range(_SINGLE):
        watch.lap()
        connection.execute(insert, (_PAYLOAD,))
        single.append(watch.lap() * 1000)
    connection.close()
    return many, single
