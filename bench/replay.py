"""Replay after a restore, and the sweep: Lethe against the raw SQL that does the same to an equal copy.

The database is copied as it stood *before* the erasures: to that state a restore takes it back. The
ledger then records the erasures without the store, so that to Lethe the store went back in time.
Each measurement runs in a new process, on a new copy of database and ledger.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Figure, median_figure
from bench.ledgers import CHUNK, record_erasures
from bench.measuring import Stopwatch, forget_peak, peak_resident, resident
from bench.population import MAPPING, Population, warm
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import SqlLedger, open_ledger
from lethe.adapters.stores.sql.store import SqlStore
from lethe.domain.facts import MappingProved
from lethe.domain.mapping import StoreOwner, StoreRole
from lethe.workflows.guarded import GuardedStore, StoreDescription, fingerprints_of
from lethe.workflows.replaying import ReplayState, replay
from lethe.workflows.watching import Look, look, sweep
from tests.servers.postgres import PostgresServer

BENCH = "replay"
STORE = "bench/site"
_MOST_PASSES = 10
_SERVER = {"shared_buffers": "256MB", "max_wal_size": "4GB", "autovacuum": "off"}


class NotReplayed(Exception):
    """Lethe did not do what was to be measured."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What one replay took. Seconds; `grown` is the peak's MiB above what was in memory before."""

    detection: float
    replay: float
    sweep: float
    peak: float
    grown: float


def bench_replay(*, tombstones: int, users: int, repeat: int) -> list[Figure]:
    """Measure `repeat` replays and sweeps, taking turns with the raw SQL."""
    population = Population(users, tombstones)
    with (
        tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder,
        PostgresServer(Path(folder) / "postgres", settings=_SERVER) as server,
    ):
        before = server.create_database("before")
        population.settle(before)
        _tell(f"{users:,} users are there")
        origin = Path(folder) / "lethe"
        facts, seconds = _erase_on_paper(before, population, origin)
        _tell(f"{tombstones:,} tombstones are recorded")
        by_hand, checks, timings = [], list[float](), list[Timing]()
        for turn in range(repeat):
            hand, check = _by_hand(server, population)
            by_hand.append(hand)
            checks.append(check)
            timings.append(_by_lethe(server, origin, Path(folder) / f"turn-{turn}", tombstones))
            _tell(f"turn {turn + 1}: by hand {hand:.1f} s, Lethe {timings[-1].replay:.1f} s")
    return [
        Figure(BENCH, "ledger filled", facts / seconds, "facts/s"),
        median_figure(BENCH, "raw SQL", by_hand, "s"),
        median_figure(BENCH, "replay", [one.replay for one in timings], "s"),
        median_figure(
            BENCH,
            "replay / raw SQL",
            [one.replay / hand for one, hand in zip(timings, by_hand, strict=True)],
            "×",
            aim=2,
        ),
        median_figure(BENCH, "replayed", [tombstones / one.replay for one in timings], "people/s"),
        median_figure(BENCH, "detection", [one.detection for one in timings], "s"),
        median_figure(BENCH, "raw check", checks, "s"),
        median_figure(BENCH, "sweep", [one.sweep for one in timings], "s"),
        median_figure(
            BENCH,
            "sweep / raw check",
            [one.sweep / check for one, check in zip(timings, checks, strict=True)],
            "×",
        ),
        median_figure(BENCH, "peak memory", [one.peak for one in timings], "MiB"),
        median_figure(BENCH, "peak above start", [one.grown for one in timings], "MiB"),
    ]


def _erase_on_paper(url: str, population: Population, directory: Path) -> tuple[int, float]:
    """Meet the store as it is, then record erasures in the ledger alone; return facts and seconds."""
    (directory / "keys").mkdir(parents=True)
    with opened(directory, url) as (store, ledger, keyring, token):
        proof = store.port.prove()
        store.proof = proof
        ledger.append([MappingProved(STORE, proof.proved)])
        look(store, ledger, token=token, now=datetime.now(UTC))
        return record_erasures(
            ledger,
            keyring,
            store.fingerprints,
            population.to_erase(url, CHUNK),
            store=STORE,
            version=proof.proved.version,
            token=token,
        )


def _by_hand(server: PostgresServer, population: Population) -> tuple[float, float]:
    url = server.create_database("by_hand", template="before")
    warm(url)
    watch = Stopwatch()
    population.erase_by_hand(url)
    erased = watch.lap()
    population.check_by_hand(url)
    checked = watch.lap()
    server.drop_database("by_hand")
    return erased, checked


def _by_lethe(server: PostgresServer, origin: Path, directory: Path, tombstones: int) -> Timing:
    url = server.create_database("by_lethe", template="before")
    warm(url)
    shutil.copytree(origin, directory)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as another:
        timing = another.submit(time_replay, directory, url, tombstones).result()
    server.drop_database("by_lethe")
    shutil.rmtree(directory)
    return timing


def time_replay(directory: Path, url: str, tombstones: int) -> Timing:
    """Replay and sweep in this process. Raises `NotReplayed` where Lethe did something else."""
    with opened(directory, url) as (store, ledger, _, token):
        store.port.remember(ledger.mappings(STORE).values())
        store.proof = store.port.prove()
        forget_peak()
        before = resident()
        watch = Stopwatch()
        found = look(store, ledger, token=token, now=datetime.now(UTC))
        detection = watch.lap()
        if found is not Look.RESTORED:
            raise NotReplayed(f"the store is {found}")
        for _ in range(_MOST_PASSES):
            (episode,) = ledger.episodes(store=STORE, open_only=True)
            step = replay(store, episode, ledger, token=token, now=datetime.now(UTC))
            if step.state is not ReplayState.WAITING:
                break
        replayed = watch.lap()
        (episode,) = ledger.episodes(store=STORE)
        if step.state is not ReplayState.SAFE or episode.re_erased != tombstones:
            raise NotReplayed(f"{step.state}: {episode.re_erased} of {tombstones} erased again")
        watch.lap()
        swept = sweep(store, ledger, token=token, now=datetime.now(UTC))
        sweeping = watch.lap()
        if swept.re_erased or swept.left_alone or swept.unclear:
            raise NotReplayed(f"the sweep after it found {swept}")
        peak = peak_resident()
        return Timing(detection, replayed, sweeping, peak, peak - before)


@contextmanager
def opened(directory: Path, url: str) -> Iterator[tuple[GuardedStore, SqlLedger, FileKeyring, int]]:
    """Open the ledger and keys in a directory, and the store over a database; take the ledger over."""
    keyring = FileKeyring(directory / "keys")
    ledger = open_ledger(f"sqlite:///{directory / 'ledger.db'}", keyring)
    port = SqlStore(
        url, MAPPING, ledger_id=ledger.ledger_id, store=STORE, keyring=keyring, primary=True
    )
    try:
        description = StoreDescription("bench", "site", StoreRole.PRIMARY, StoreOwner.SELF)
        guarded = GuardedStore(description, port, fingerprints_of(keyring, STORE))
        yield guarded, ledger, keyring, ledger.take_over()
    finally:
        port.close()
        ledger.close()


def _tell(what: str) -> None:
    sys.stderr.write(f"  {what}\n")
