"""Each bench runs, tiny, and yields its figures. What they measure is no matter here."""

import json
from collections.abc import Sequence

import pytest

from bench.backups import bench_backups
from bench.drills import bench_drills
from bench.figures import Figure, as_json, table
from bench.idle import bench_idle
from bench.ledger import bench_ledger
from bench.replay import bench_replay
from bench.requests import bench_requests

pytestmark = pytest.mark.slow


def named(figures: Sequence[Figure]) -> dict[str, float]:
    assert all(one.value >= 0 for one in figures)
    assert json.loads(as_json(figures, {}))["figures"][0]["name"] == figures[0].name
    assert all(one.name in table(figures) for one in figures)
    return {one.name: one.value for one in figures}


def test_the_replay_bench_erases_everybody_again_and_yields_its_ratios() -> None:
    figures = named(bench_replay(tombstones=50, users=500, repeat=1))
    assert {"replay / raw SQL", "sweep / raw check", "ledger filled", "peak memory"} <= figures.keys()


def test_the_drills_bench_rehearses_and_yields_what_it_costs_beside_restore_and_raw_sql() -> None:
    figures = named(bench_drills(tombstones=50, users=500, repeat=1))
    assert {"drill / restore and raw SQL", "drill: replay", "drill: all else"} <= figures.keys()


def test_the_ledger_bench_yields_its_rates() -> None:
    figures = named(bench_ledger(tombstones=100, repeat=1))
    assert figures["tombstones streamed"] > 0
    assert figures["chain verified"] > 0


@pytest.mark.e2e
def test_the_idle_bench_yields_memory_and_time_to_ready() -> None:
    figures = named(bench_idle(starts=1, rest=0.2))
    assert figures["memory (RSS)"] > 10
    assert figures["start to ready"] > 0


@pytest.mark.e2e
def test_the_requests_bench_erases_in_three_stores_and_reads_each_secret_once() -> None:
    figures = named(bench_requests(one_by_one=2, at_once=3))
    assert figures["one by one, median"] > 0
    assert figures["reads of Secrets"] == 1


@pytest.mark.e2e
def test_the_backups_bench_scans_prunes_and_grades_and_yields_its_ratios() -> None:
    figures = named(bench_backups(snapshots=60, prune=5, erased=200, holding=10, objects=False))
    assert {
        "first scan / bare calls and rows",
        "scan, one new / nothing changed",
        "S3: listing / bare listing",
        "grading, first / bare UPDATE",
    } <= figures.keys()
