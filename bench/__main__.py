"""Run benches and print their figures: `python -m bench [replay] [ledger] [idle] [requests] …`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from bench.figures import Figure, as_json, table


def main() -> int:
    """Run the benches that are named, or all; return the exit code."""
    settings = _parser().parse_args()
    figures: list[Figure] = []
    for name in settings.benches or _BENCHES:
        sys.stderr.write(f"{name} (load {os.getloadavg()[0]:.1f})\n")
        figures += _BENCHES[name](settings)
    given = {key: value for key, value in vars(settings).items() if key not in ("json", "page")}
    sys.stdout.write(table(figures) + "\n")
    text = as_json(figures, given)
    if settings.json is None:
        sys.stdout.write(text + "\n")
    else:
        settings.json.write_text(text + "\n")
    return 0


def _replay(settings: argparse.Namespace) -> list[Figure]:
    from bench.replay import bench_replay

    return bench_replay(tombstones=settings.tombstones, users=settings.users, repeat=settings.repeat)


def _drills(settings: argparse.Namespace) -> list[Figure]:
    from bench.drills import bench_drills

    return bench_drills(tombstones=settings.tombstones, users=settings.users, repeat=settings.repeat)


def _ledger(settings: argparse.Namespace) -> list[Figure]:
    from bench.ledger import bench_ledger

    return bench_ledger(tombstones=settings.entries // 4, repeat=settings.repeat)


def _idle(settings: argparse.Namespace) -> list[Figure]:
    from bench.idle import bench_idle

    return bench_idle(starts=settings.starts, rest=settings.rest)


def _requests(settings: argparse.Namespace) -> list[Figure]:
    from bench.requests import bench_requests

    return bench_requests(one_by_one=settings.requests, at_once=settings.burst)


def _backups(settings: argparse.Namespace) -> list[Figure]:
    from bench.backups import bench_backups

    return bench_backups(
        snapshots=settings.snapshots,
        prune=settings.snapshots // 20,
        erased=settings.erased,
        holding=min(200, settings.snapshots),
    )


def _restores(settings: argparse.Namespace) -> list[Figure]:
    from bench.restores import bench_restores, figures, page

    done = bench_restores()
    if settings.page is not None:
        settings.page.write_text(page(done))
    return figures(done)


_BENCHES: dict[str, Callable[[argparse.Namespace], list[Figure]]] = {
    "replay": _replay,
    "drills": _drills,
    "ledger": _ledger,
    "idle": _idle,
    "requests": _requests,
    "backups": _backups,
    "restores": _restores,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=f"{', '.join(_BENCHES)}; default: all")
    parser.add_argument("--tombstones", type=int, default=100_000, help="replay, drills: erased people")
    parser.add_argument("--users", type=int, default=1_000_000, help="replay, drills: people in the table")
    parser.add_argument("--entries", type=int, default=40_000, help="ledger: facts to append")
    parser.add_argument("--repeat", type=int, default=3, help="replay, drills, ledger: measurements (median)")
    parser.add_argument("--starts", type=int, default=5, help="idle: starts (median)")
    parser.add_argument("--rest", type=float, default=15, help="idle: seconds of rest before memory is read")
    parser.add_argument("--requests", type=int, default=200, help="requests: one after the other")
    parser.add_argument("--burst", type=int, default=500, help="requests: at once")
    parser.add_argument("--snapshots", type=int, default=10_000, help="backups: snapshots of one source")
    parser.add_argument("--erased", type=int, default=100_000, help="backups: erased people to grade")
    parser.add_argument(
        "--page", type=Path, help="restores: write the table of docs/restores.md to this file"
    )
    parser.add_argument("--json", type=Path, help="file for the JSON; default: after the table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
