"""What a drill costs beside pg_restore of the same dump and the raw SQL that clears the same persons.

Both are done by turns, into new databases of one server. The dump is of the store before the erasures, which
the ledger then records without it: so the drill has everybody to erase again.
"""

from __future__ import annotations

import stat
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench.figures import Figure, median_figure
from bench.measuring import Stopwatch
from bench.population import MAPPING, Population
from bench.replay import SERVER, STORE, NotReplayed, erase_on_paper, opened, tell
from devtools.servers.postgres import PostgresServer
from lethe.adapters.drills.command import Commands
from lethe.adapters.stores.sql.scratch import SqlScratchServer
from lethe.adapters.stores.sql.store import SqlStore
from lethe.domain.drill_facts import DrillEnded, DrillResult
from lethe.workflows.drill.conduct import DrillPlan, Halt, conduct
from lethe.workflows.store_session import StoreSession

BENCH = "drills"
_LIMIT_SECONDS = 4 * 3600


@dataclass(frozen=True, slots=True)
class Turn:
    """The seconds of one turn: restoring and clearing by hand, and a drill, with what it says of itself."""

    restore: float
    raw: float
    drill: float
    ended: DrillEnded

    @property
    def by_hand(self) -> float:
        """Return the seconds of restore and raw SQL."""
        return self.restore + self.raw

    @property
    def parts(self) -> dict[str, float]:
        """Return what the drill's seconds went to."""
        restore, replay = self.ended.restore_seconds or 0.0, self.ended.replay_seconds or 0.0
        verification = self.ended.verification_seconds or 0.0
        rest = self.drill - restore - replay
        return {
            "restore": restore,
            "replay": replay - verification,
            "verification": verification,
            "all else": rest,
        }


def bench_drills(*, tombstones: int, users: int, repeat: int) -> list[Figure]:
    """Measure `repeat` drills, taking turns with the same by hand."""
    population = Population(users, tombstones)
    with (
        tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder,
        PostgresServer(Path(folder) / "postgres", settings=SERVER) as server,
    ):
        home = Path(folder)
        before = server.create_database("before")
        population.settle(before)
        dump = server.dump("before", home / "site.dump")
        tell(f"{users:,} users are in a dump of {dump.stat().st_size / 2**20:.0f} MiB")
        erase_on_paper(before, population, home / "lethe")
        tell(f"{tombstones:,} tombstones are recorded")
        server.psql("CHECKPOINT")
        _lay_command_down(server, home / "commands")
        turns = list[Turn]()
        for number in range(repeat):
            restore, raw = _by_hand(server, population, dump)
            drill, ended = _drill(server, home, dump, number)
            if ended.result is not DrillResult.PASSED or ended.erased_again != tombstones:
                raise NotReplayed(f"{ended.result}: {ended.message}")
            turns.append(Turn(restore, raw, drill, ended))
            tell(f"turn {number + 1}: by hand {turns[-1].by_hand:.1f} s, the drill {drill:.1f} s")
    return [
        median_figure(BENCH, "pg_restore alone", [one.restore for one in turns], "s"),
        median_figure(BENCH, "raw SQL", [one.raw for one in turns], "s"),
        median_figure(BENCH, "drill", [one.drill for one in turns], "s"),
        *(
            median_figure(BENCH, f"drill: {part}", [one.parts[part] for one in turns], "s")
            for part in turns[0].parts
        ),
        median_figure(
            BENCH,
            "drill / restore and raw SQL",
            [one.drill / one.by_hand for one in turns],
            "×",
            aim=1.15,
        ),
        median_figure(
            BENCH,
            "drill but for the replay / restore",
            [(one.parts["restore"] + one.parts["all else"]) / one.restore for one in turns],
            "×",
            aim=1.15,
        ),
    ]


def _lay_command_down(server: PostgresServer, folder: Path) -> None:
    folder.mkdir()
    file = folder / "pg-restore"
    file.write_text(
        f"#!/bin/sh\nexec {server.program('pg_restore')} --exit-on-error"
        ' --dbname="$LETHE_SCRATCH_URL" "$LETHE_SNAPSHOT_PLACE/$LETHE_SNAPSHOT"\n'
    )
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def _by_hand(server: PostgresServer, population: Population, dump: Path) -> tuple[float, float]:
    server.psql("CHECKPOINT")
    watch = Stopwatch()
    url = server.create_database("by_hand")
    server.restore("by_hand", dump)
    restored = watch.lap()
    population.erase_by_hand(url)
    erased = watch.lap()
    server.drop_database("by_hand")
    return restored, erased


def _drill(server: PostgresServer, home: Path, dump: Path, number: int) -> tuple[float, DrillEnded]:
    server.psql("CHECKPOINT")
    with opened(home / "lethe", server.url("before")) as (store, context):
        plan = DrillPlan(
            "bench/sunday",
            STORE,
            "bench/nightly",
            dump.name,
            datetime.now(UTC),
            str(dump.parent),
            dump.name,
            f"lethe_drill_{number:010x}",
            "users",
            ("users", "sessions"),
            {},
            same_server=True,
        )
        restorer = partial(Commands(home / "commands").restore, "pg-restore")
        scratch, halt = SqlScratchServer(server.url()), Halt(time.monotonic() + _LIMIT_SECONDS)

        def session(url: str) -> StoreSession:
            ledger_id, keyring = context.ledger.ledger_id, context.keyring
            port = SqlStore(url, MAPPING, ledger_id=ledger_id, store=STORE, keyring=keyring, primary=True)
            return StoreSession(store.description, port, store.fingerprints)

        watch = Stopwatch()
        ended = conduct(plan, context, scratch, restorer, session, halt)
        return watch.lap(), ended
