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
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Figure, median_figure
from bench.ledgers import CHUNK, record_erasures
from bench.measuring import forget_peak, peak_resident, processor_seconds, resident
from bench.population import MAPPING, Population, warm
from devtools.servers.postgres import PostgresServer
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.adapters.stores.sql.store import SqlStore
from lethe.domain.facts import MappingProved
from lethe.domain.legal import Holds
from lethe.domain.mapping import StoreOwner, StoreRole
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.detect import Detection, detect_restore, sweep
from lethe.workflows.restore.replay import ReplayState, replay
from lethe.workflows.store_session import StoreDescription, StoreSession, fingerprints_of

BENCH = "replay"
STORE = "bench/site"
_MOST_PASSES = 10
SERVER = {"shared_buffers": "256MB", "max_wal_size": "4GB", "autovacuum": "off"}


class NotReplayed(Exception):
    """Lethe did not do what was to be measured."""


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds by the clock, and of processor: of the database's server and of the process that asks it.

    On a machine that others use too, the clock tells more of them than of this; the processor does not.
    """

    seconds: float
    server: float
    client: float

    @property
    def processor(self) -> float:
        """Return the seconds of processor in all."""
        return self.server + self.client


@dataclass(frozen=True, slots=True)
class Timing:
    """What one replay took. `grown` is the peak's MiB above what was in memory before."""

    detection: Work
    replay: Work
    sweep: Work
    peak: float
    grown: float


class Worked:
    """Measures the work between two calls of `lap`. `server` is the id of the database's first process."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._before = self._now()

    def lap(self) -> Work:
        """Return the work since the last lap, and begin another."""
        now = self._now()
        work = Work(*(after - before for after, before in zip(now, self._before, strict=True)))
        self._before = self._now()
        return work

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), processor_seconds(self._server), time.process_time()


def bench_replay(*, tombstones: int, users: int, repeat: int) -> list[Figure]:
    """Measure `repeat` replays and sweeps, taking turns with the raw SQL."""
    population = Population(users, tombstones)
    with (
        tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder,
        PostgresServer(Path(folder) / "postgres", settings=SERVER) as server,
    ):
        before = server.create_database("before")
        population.settle(before)
        tell(f"{users:,} users are there")
        origin = Path(folder) / "lethe"
        facts, seconds = erase_on_paper(before, population, origin)
        tell(f"{tombstones:,} tombstones are recorded")
        by_hand, checks, timings = list[Work](), list[Work](), list[Timing]()
        for turn in range(repeat):
            hand, check = _by_hand(server, population)
            by_hand.append(hand)
            checks.append(check)
            timings.append(_by_lethe(server, origin, Path(folder) / f"turn-{turn}", tombstones))
            tell(f"turn {turn + 1}: by hand {hand.seconds:.1f} s, Lethe {timings[-1].replay.seconds:.1f} s")
    pairs = list(zip(timings, by_hand, strict=True))
    sweeps = list(zip(timings, checks, strict=True))
    return [
        Figure(BENCH, "ledger filled", facts / seconds, "facts/s"),
        *_work("raw SQL", by_hand),
        *_work("replay", [one.replay for one in timings]),
        _ratio("replay / raw SQL", [one.replay.seconds / hand.seconds for one, hand in pairs], aim=2),
        _ratio("replay / raw SQL, processor", [one.replay.processor / hand.processor for one, hand in pairs]),
        median_figure(BENCH, "replayed", [tombstones / one.replay.seconds for one in timings], "people/s"),
        *_work("detection", [one.detection for one in timings]),
        *_work("raw check", checks),
        *_work("sweep", [one.sweep for one in timings]),
        _ratio("sweep / raw check", [one.sweep.seconds / check.seconds for one, check in sweeps]),
        _ratio("sweep / raw check, processor", [s.sweep.processor / check.processor for s, check in sweeps]),
        median_figure(BENCH, "peak memory", [one.peak for one in timings], "MiB"),
        median_figure(BENCH, "peak above start", [one.grown for one in timings], "MiB"),
    ]


def _work(name: str, works: Sequence[Work]) -> list[Figure]:
    return [
        median_figure(BENCH, name, [one.seconds for one in works], "s"),
        median_figure(BENCH, f"{name}, processor of server", [one.server for one in works], "s"),
        median_figure(BENCH, f"{name}, processor of client", [one.client for one in works], "s"),
    ]


def _ratio(name: str, ratios: Sequence[float], *, aim: float | None = None) -> Figure:
    return median_figure(BENCH, name, ratios, "×", aim=aim)


def erase_on_paper(url: str, population: Population, directory: Path) -> tuple[int, float]:
    """Meet the store as it is, then record erasures in the ledger alone; return facts and seconds."""
    (directory / "keys").mkdir(parents=True)
    with opened(directory, url) as (store, context):
        proof = store.port.prove()
        store.note_proof(proof)
        context.ledger.append([MappingProved(STORE, proof.proved)])
        detect_restore(store, context)
        return record_erasures(
            context.ledger,
            context.keyring,
            store.fingerprints,
            population.to_erase(url, CHUNK),
            store=STORE,
            version=proof.proved.version,
            token=context.token,
        )


def _by_hand(server: PostgresServer, population: Population) -> tuple[Work, Work]:
    url = server.create_database("by_hand", template="before")
    warm(url)
    work = Worked(_pid_of(server))
    population.erase_by_hand(url)
    erased = work.lap()
    population.check_by_hand(url)
    checked = work.lap()
    server.drop_database("by_hand")
    return erased, checked


def _by_lethe(server: PostgresServer, origin: Path, directory: Path, tombstones: int) -> Timing:
    url = server.create_database("by_lethe", template="before")
    warm(url)
    shutil.copytree(origin, directory)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as another:
        timing = another.submit(time_replay, directory, url, tombstones, _pid_of(server)).result()
    server.drop_database("by_lethe")
    shutil.rmtree(directory)
    return timing


def _pid_of(server: PostgresServer) -> int:
    return int((server.data_directory / "postmaster.pid").read_text().splitlines()[0])


def time_replay(directory: Path, url: str, tombstones: int, server: int) -> Timing:
    """Replay and sweep in this process. Raises `NotReplayed` where Lethe did something else."""
    with opened(directory, url) as (store, context):
        store.note_proof(store.port.prove(context.ledger.mappings(STORE).values()))
        forget_peak()
        before = resident()
        work = Worked(server)
        found = detect_restore(store, context)
        detection = work.lap()
        if found is not Detection.RESTORED:
            raise NotReplayed(f"the store is {found}")
        _replay(store, context)
        replayed = work.lap()
        (episode,) = context.ledger.episodes(store=STORE)
        if episode.re_erased != tombstones:
            raise NotReplayed(f"{episode.re_erased} of {tombstones} were erased again")
        work.lap()
        swept = sweep(store, context, Holds())
        sweeping = work.lap()
        if swept.re_erased or swept.left_alone or swept.unclear:
            raise NotReplayed(f"the sweep after it found {swept}")
        peak = peak_resident()
        return Timing(detection, replayed, sweeping, peak, peak - before)


def _replay(store: StoreSession, context: PassContext) -> None:
    for _ in range(_MOST_PASSES):
        (episode,) = context.ledger.episodes(store=STORE, open_only=True)
        step = replay(store, episode, context, Holds())
        if step.state is ReplayState.SAFE:
            return
        if step.state is not ReplayState.WAITING:
            raise NotReplayed(f"{step.state}: {step.message}")
    raise NotReplayed("the store did not come to rest")


@contextmanager
def opened(directory: Path, url: str) -> Iterator[tuple[StoreSession, PassContext]]:
    """Open the ledger and keys in a directory, and the store over a database; take the ledger over."""
    keyring = FileKeyring(directory / "keys")
    ledger = open_ledger(f"sqlite:///{directory / 'ledger.db'}", keyring)
    port = SqlStore(url, MAPPING, ledger_id=ledger.ledger_id, store=STORE, keyring=keyring, primary=True)
    try:
        description = StoreDescription("bench", "site", StoreRole.PRIMARY, StoreOwner.SELF)
        guarded = StoreSession(description, port, fingerprints_of(keyring, STORE))
        yield guarded, PassContext(ledger, keyring, ledger.take_over(), lambda: datetime.now(UTC))
    finally:
        port.close()
        ledger.close()


def tell(what: str) -> None:
    """Say on stderr how far a bench is."""
    sys.stderr.write(f"  {what}\n")
