"""Snapshots by the ten thousand: scans, prunes, their objects, and who is still in them.

Each limit is measured in the same run: the bare calls of the kernel, of SQLite, of S3 and of the API server.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from bench.company import CRDS, NAMESPACE, MeasuredOperator
from bench.figures import Figure
from bench.measuring import Stopwatch, peak_resident, processor_seconds, resident
from devtools.company import Api, eventually
from devtools.dumps import PATTERN, dump_name, leave_dump
from devtools.servers.controlplane import ControlPlane
from devtools.servers.versitygw import VersityServer
from lethe.adapters.backups.directory import DirectoryBackend
from lethe.adapters.backups.s3 import S3Backend
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.domain.facts import Accepted, Completed, Fact, ListedSnapshot, NotFound, Outcome, SnapshotsSeen
from lethe.domain.periods import Period
from lethe.domain.snapshot_names import NamePattern
from lethe.ports.backups import Backend
from lethe.ports.ledger import Ledger
from lethe.workflows.backup import last_copy
from lethe.workflows.backup.last_copy import Coverage
from lethe.workflows.backup.scan import AT_ONCE, KnownSource, Scan, SourceDescription, scan

BENCH = "backups"
STORE = f"{NAMESPACE}/site"
_NIGHT = timedelta(minutes=20)
_BY_HAND = 500
_CALLS_AT_ONCE = 16
_PATIENCE = 900


def bench_backups(
    *, snapshots: int, prune: int, erased: int, holding: int, objects: bool = True
) -> list[Figure]:
    """Measure a source of `snapshots`, of which `prune` expire at once, in a directory and in S3, its
    `objects` in the API server, and the grading of `erased` requests with `holding` snapshots.
    """
    figures: list[Figure] = []
    measures: list[Callable[[Path], list[Figure]]] = [
        lambda folder: _directory(folder, snapshots, prune),
        lambda folder: _listing_of_s3(folder, snapshots),
        lambda folder: _grading(folder, erased, holding),
    ]
    if objects:
        measures.append(lambda folder: _objects(folder, snapshots))
    for measure in measures:
        with tempfile.TemporaryDirectory(prefix="lethe-bench-") as folder:
            figures += measure(Path(folder))
    return figures


def _nights(count: int, newest: datetime) -> list[datetime]:
    """Return the moments of that many snapshots, the oldest first."""
    return [newest - n * _NIGHT for n in range(count - 1, -1, -1)]


@contextmanager
def _ledger(folder: Path) -> Iterator[Ledger]:
    (folder / "keys").mkdir()
    ledger = open_ledger(f"sqlite:///{folder / 'ledger.db'}", FileKeyring(folder / "keys"))
    try:
        ledger.take_over()
        yield ledger
    finally:
        ledger.close()


def _timed(act: Callable[[], object]) -> float:
    watch = Stopwatch()
    act()
    return watch.lap()


# Scans of a directory


def _directory(folder: Path, count: int, prune: int) -> list[Figure]:
    dumps, twin = folder / "dumps", folder / "twin"
    now = datetime.now(UTC).replace(microsecond=0)
    for place in (dumps, twin):
        place.mkdir()
        for moment in _nights(count, now - _NIGHT):
            leave_dump(place, moment)
    before = resident()
    with _ledger(folder) as ledger:
        backend = DirectoryBackend(str(dumps), PATTERN, [dumps])
        known = _source(backend, most=prune)

        def scanned(at: datetime) -> Scan:
            return scan(known, ledger, now=lambda: at, clocks=lambda _: None)

        bare = min(_timed(lambda: _look_at_all(dumps)) for _ in range(3))
        rows = _bare_rows(folder / "bare.db", count)
        listing = _timed(backend.list)
        first = _timed(lambda: scanned(now))
        held = resident() - before
        still = min(_timed(lambda: scanned(now)) for _ in range(3))
        leave_dump(dumps, now)
        one_new = _timed(lambda: scanned(now))
        restarted = _timed(
            lambda: scan(_source(backend, most=prune), ledger, now=lambda: now, clocks=lambda _: None)
        )
        # A little after the last of those that are to go has expired, and before the next one does.
        due = known.snapshots[dump_name(_nights(count, now - _NIGHT)[prune - 1])]
        expired = due.expires_at(Period.parse("P6M")) + timedelta(seconds=1)
        watch = Stopwatch()
        done = scanned(expired)
        pruning = watch.lap()
        by_hand = _delete_by_hand(sorted(twin.iterdir())[: len(done.purged)], twin)
    if not abs(len(done.purged) - prune) <= prune * 0.05:
        raise AssertionError(f"{len(done.purged)} of {prune} were pruned: {done.plan.message}")
    limit = bare + rows
    return [
        Figure(BENCH, f"scandir and stat of {count} files", bare, "s"),
        Figure(BENCH, f"bare SQLite, {count} rows", rows, "s"),
        Figure(BENCH, "listing alone / scandir and stat", listing / bare, "×"),
        Figure(BENCH, "first scan", first, "s"),
        Figure(BENCH, "first scan / bare calls and rows", first / limit, "×"),
        Figure(BENCH, "scan, nothing changed", still, "s"),
        Figure(BENCH, "scan, nothing changed / scandir and stat", still / bare, "×", aim=3),
        Figure(BENCH, "scan, one new / nothing changed", one_new / still, "×"),
        Figure(BENCH, "scan after a restart", restarted, "s"),
        Figure(BENCH, f"scan that prunes {len(done.purged)}", pruning, "s"),
        Figure(BENCH, "of it above a scan / unlink and sync", (pruning - still) / by_hand, "×"),
        Figure(BENCH, "memory of the scan's process for them", max(0.0, held), "MiB"),
    ]


def _source(backend: Backend, *, most: int) -> KnownSource:
    description = SourceDescription(NAMESPACE, "nightly", (STORE,), "P6M", most_per_run=2 * most)
    return KnownSource(description, backend)


def _look_at_all(directory: Path) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            entry.stat(follow_symlinks=False)


def _delete_by_hand(files: list[Path], directory: Path) -> float:
    """Delete files and sync as often as a prune does; return the seconds."""
    watch = Stopwatch()
    opened = os.open(directory, os.O_RDONLY)
    for number, file in enumerate(files, 1):
        file.unlink()
        if number % AT_ONCE == 0:
            os.fsync(opened)
    os.fsync(opened)
    os.close(opened)
    return watch.lap()


def _bare_rows(path: Path, rows: int) -> float:
    """Return the seconds of that many rows in one synced transaction."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE snapshots (source TEXT, ref TEXT, doc BLOB, PRIMARY KEY (source, ref))")
    watch = Stopwatch()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "INSERT INTO snapshots VALUES ('nightly', ?, ?)", [(str(n), b"x" * 300) for n in range(rows)]
    )
    connection.execute("COMMIT")
    seconds = watch.lap()
    connection.close()
    return seconds


# Listings of S3


def _listing_of_s3(folder: Path, count: int) -> list[Figure]:
    with VersityServer(folder / "s3") as server:
        bucket = server.bucket("backups")
        with ThreadPoolExecutor(4) as threads:
            put = [
                threads.submit(server.client.put_object, Bucket=bucket, Key=f"site/{dump_name(at)}", Body=b"")
                for at in _nights(count, datetime.now(UTC))
            ]
            for one in put:
                one.result()
        backend = S3Backend(
            server.endpoint,
            server.region,
            bucket,
            "site/",
            NamePattern.parse(PATTERN),
            server.access_key,
            server.secret_key,
        )
        bare = min(_timed(lambda: _list_by_hand(server, bucket)) for _ in range(2))
        listed = min(_timed(backend.list) for _ in range(2))
        backend.close()
    return [
        Figure(BENCH, f"S3: bare listing of {count} keys", bare, "s"),
        Figure(BENCH, "S3: listing / bare listing", listed / bare, "×", aim=3),
    ]


def _list_by_hand(server: VersityServer, bucket: str) -> None:
    for page in server.client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix="site/"):
        page.get("Versions")


# Who is still in them


def _grading(folder: Path, erased: int, holding: int) -> list[Figure]:
    now = datetime.now(UTC).replace(microsecond=0)
    with _ledger(folder) as ledger:
        _record_erasures(ledger, erased, now)
        nights = [now - n * timedelta(days=180) / holding for n in range(holding - 1, -1, -1)]
        _see(ledger, nights)
        figures = [Figure(BENCH, f"bare UPDATE of {erased} rows", bare := _bare_update(folder, erased), "s")]

        def graded(at: datetime) -> float:
            return _timed(lambda: last_copy.grade(ledger, {STORE: Coverage(True, at)}, now=at))

        def add(name: str, seconds: float) -> None:
            figures.append(Figure(BENCH, f"grading, {name}", seconds, "s"))

        first = graded(now + timedelta(hours=1))
        add("first", first)
        figures.append(Figure(BENCH, "grading, first / bare UPDATE", first / bare, "×", aim=3))
        add("nothing changed", graded(now + timedelta(hours=2)))
        _see(ledger, [now + timedelta(hours=3)])
        add("one new snapshot", graded(now + timedelta(hours=4)))
        many = 10 * holding
        _see(ledger, [now - n * timedelta(days=180) / many for n in range(many - 1, -1, -1)])
        graded(now + timedelta(hours=5))
        seconds = graded(now + timedelta(hours=6))
        figures.append(Figure(BENCH, "grading, nothing changed, per snapshot", seconds / many * 1000, "ms"))
    return figures


def _record_erasures(ledger: Ledger, count: int, now: datetime) -> None:
    """Record people who were cleared in the last half year, evenly."""
    chunk = 500
    for first in range(0, count, chunk):
        facts: list[Fact] = []
        for number in range(first, min(first + chunk, count)):
            name, at = f"request-{number}", now - timedelta(days=180) * (1 - number / count)
            facts += [
                Accepted(
                    name,
                    NAMESPACE,
                    name,
                    "0" * 64,
                    at,
                    at,
                    at + timedelta(days=30),
                    subject_id=str(number),
                    stores=(STORE,),
                ),
                NotFound(name, STORE, at, "canary"),
                Completed(name, at, Outcome.ERASED),
            ]
        ledger.append(facts)


def _see(ledger: Ledger, nights: list[datetime]) -> None:
    listed = tuple(ListedSnapshot(dump_name(night), (f"{night}",), night, (night,), 1) for night in nights)
    ledger.append([SnapshotsSeen(f"{NAMESPACE}/nightly", nights[-1], (STORE,), listed)])


def _bare_update(folder: Path, rows: int) -> float:
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE c (request TEXT, store TEXT, at INT, gone INT, proven INT, "
                       "PRIMARY KEY (request, store)) WITHOUT ROWID")  # fmt: skip
    connection.execute("CREATE INDEX i ON c (store, at, proven, gone)")
    values = ((f"request-{n}", STORE, n) for n in range(rows))
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO c VALUES (?, ?, ?, NULL, 0)", values)
    connection.execute("COMMIT")
    seconds = _timed(lambda: connection.execute("UPDATE c SET gone = at + 1, proven = 1"))
    connection.close()
    return seconds


# Objects in the API server


def _objects(folder: Path, count: int) -> list[Figure]:
    control_plane = ControlPlane(folder / "control-plane")
    control_plane.add_user("operator", ["system:masters"])
    with control_plane:
        control_plane.kubectl("apply", "--server-side", "--filename", str(CRDS))
        control_plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        control_plane.kubectl("create", "namespace", NAMESPACE)
        by_hand = asyncio.run(_by_hand(control_plane))
        return [
            Figure(BENCH, "by hand: create and status, 16 at once", by_hand, "objects/s"),
            *_with_operator(folder, control_plane, count, by_hand),
        ]


def _with_operator(folder: Path, control_plane: ControlPlane, count: int, by_hand: float) -> list[Figure]:
    dumps = folder / "dumps"
    dumps.mkdir()
    for moment in _nights(count, datetime.now(UTC).replace(microsecond=0)):
        leave_dump(dumps, moment)
    api = Api(control_plane, NAMESPACE)
    operator = MeasuredOperator(
        folder / "operator",
        control_plane.kubeconfig_of("operator"),
        namespaces=[NAMESPACE],
        environment={
            "LETHE_SCAN_INTERVAL": "5s",
            "LETHE_BACKUP_DIRECTORIES": str(dumps),
            "LETHE_LOG_LEVEL": "INFO",
        },
    )
    try:
        operator.time_to_ready()
        empty = resident(operator.pid)
        busy = processor_seconds(operator.pid)
        watch = Stopwatch()
        spec = {"stores": ["site"], "directory": {"path": str(dumps), "name": PATTERN}}
        api.create("backupsources", "nightly", spec)
        # The source's own status is written once each of its objects has been told.
        eventually(lambda: _told(api) == count, lambda: f"{count} objects; {_told(api)}", _PATIENCE)
        took = watch.lap()
        busy = processor_seconds(operator.pid) - busy
        time.sleep(10)  # what the watch brings back is taken in
        full, peak = resident(operator.pid), peak_resident(operator.pid)
        writes, before = operator.metric("lethe_api_writes_total"), processor_seconds(operator.pid)
        time.sleep(20)
        idle = (processor_seconds(operator.pid) - before) / 4
        figures = [
            Figure(BENCH, f"operator: {count} objects created and told", took, "s"),
            Figure(BENCH, "operator: its rate / by hand (more is worse)", by_hand * took / count, "×", aim=3),
            Figure(BENCH, "operator: processor for them", busy, "s"),
            Figure(BENCH, "operator: memory before (RSS)", empty, "MiB"),
            Figure(BENCH, "operator: memory with them (RSS)", full, "MiB"),
            Figure(BENCH, "operator: peak", peak, "MiB"),
            Figure(BENCH, "operator: processor of a scan, nothing changed", idle, "s"),
            Figure(
                BENCH,
                "operator: writes of four scans, nothing changed",
                operator.metric("lethe_api_writes_total") - writes,
                "writes",
            ),
        ]
        operator.stop()
        figures.append(Figure(BENCH, "operator: start to ready with them", operator.time_to_ready(), "s"))
        return figures
    finally:
        operator.stop()


def _told(api: Api) -> int:
    source = api.get("backupsources", "nightly") or {}
    return int(source.get("status", {}).get("snapshots", {}).get("total", 0))


async def _by_hand(control_plane: ControlPlane) -> float:
    """Create snapshots' objects with a status, as the operator does; return how many a second."""
    authority = control_plane.directory / "certificates" / "ca.crt"
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=authority), limit=_CALLS_AT_ONCE)
    headers = {"Authorization": f"Bearer {control_plane.admin_token}"}
    path = f"/apis/lethe.dev/v1alpha1/namespaces/{NAMESPACE}/backupsnapshots"
    at_once = asyncio.Semaphore(_CALLS_AT_ONCE)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "status": "True",
        "reason": "Retained",
        "message": f"until {now}",
        "lastTransitionTime": now,
        "observedGeneration": 1,
    }
    conditions = [{"type": kind, **condition} for kind in ("Ready", "Held", "Purged")]
    async with aiohttp.ClientSession(control_plane.url, connector=connector, headers=headers) as session:

        async def call(verb: str, to: str, body: dict[str, Any], kind: str) -> None:
            async with session.request(verb, to, json=body, headers={"Content-Type": kind}) as answer:
                if answer.status >= 400:
                    raise RuntimeError(await answer.text())
                await answer.read()

        async def one(number: int) -> None:
            name = f"hand-{number}"
            body = {
                "apiVersion": "lethe.dev/v1alpha1",
                "kind": "BackupSnapshot",
                "metadata": {"name": name},
                "spec": {"source": "by-hand", "ref": name, "takenAt": now},
            }
            status = {"state": "Present", "expiresAt": now, "conditions": conditions}
            async with at_once:
                await call("POST", path, body, "application/json")
                await call(
                    "PATCH", f"{path}/{name}/status", {"status": status}, "application/merge-patch+json"
                )

        await one(_BY_HAND)  # the first connection, and what the API server compiles for it
        watch = Stopwatch()
        await asyncio.gather(*map(one, range(_BY_HAND)))
        return _BY_HAND / watch.lap()
