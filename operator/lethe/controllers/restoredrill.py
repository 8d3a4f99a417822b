"""Looking after each RestoreDrill: begin it when it is due, one after the other on each scratch server."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import Any, Protocol

from lethe.api.parse import InvalidManifest, parse
from lethe.api.status.base import troubled_status
from lethe.api.status.restoredrill import restoredrill_status
from lethe.api.translation import place_and_name
from lethe.api.v1alpha1.backupsource import Rewriting as SourceRewriting
from lethe.api.v1alpha1.datastore import DataStore
from lethe.api.v1alpha1.restoredrill import Restore, RestoreDrill, SameServer
from lethe.controllers.restoredrill_job import RestoreJob
from lethe.controllers.runtime.cache import (
    DrillRun,
    ManagedDrill,
    ManagedSource,
    ManagedStore,
    ObjectCache,
    ObjectKey,
    key_of,
)
from lethe.controllers.runtime.clock import TwoClocks
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.status_writer import ShownStatus, StatusKind, StatusWriter
from lethe.controllers.runtime.threads import in_daemon
from lethe.domain.conditions.restoredrill import DrillObservation, restoredrill_conditions
from lethe.domain.drill_facts import DrillEnded, DrillResult, RewriteResult
from lethe.domain.drills import (
    DATABASE_PREFIX,
    DrillRecord,
    InvalidSchedule,
    chosen_snapshot,
    due_at,
    period_of,
)
from lethe.domain.periods import parse_duration
from lethe.domain.snapshots import SnapshotRecord
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.ports.backups import Pin
from lethe.ports.cluster import Cluster, ClusterRefused, Event, Manifest, SecretContent
from lethe.ports.drills import RestoreOrder, Restorer, ScratchServer
from lethe.ports.ledger import Ledger
from lethe.workflows.backup.rewrite import still_holding
from lethe.workflows.drill.conduct import DrillPlan, Halt, conduct, end_interrupted
from lethe.workflows.drill.rewrite import Rewriting, next_name
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import StoreSession

log = logging.getLogger("lethe.drills")

LOOK_SECONDS = 1.0
"""How often it is looked, while a drill goes on, whether the store itself is being restored."""
LONGEST_WAIT_SECONDS = 60.0
"""The longest that a schedule is not looked at: a clock may be set meanwhile."""
RETRY_SECONDS = 5.0
TURN_SECONDS = 0.1
FIRST = datetime(1970, 1, 1, tzinfo=UTC)

STATUS = StatusKind("restoredrills", "RestoreDrill", essence=lambda status: status)


class ConnectDrill(Protocol):
    """Makes what a drill needs from its manifest and the Secret that it names. Raises `ValueError`."""

    def scratch(self, drill: RestoreDrill, secret: SecretContent | None) -> ScratchServer:
        """Return the scratch server."""
        ...

    def command(self, name: str) -> Restorer:
        """Return what restores by a command."""
        ...

    def session(self, store: DataStore, drill: RestoreDrill, url: str) -> StoreSession:
        """Return the session of a store with the port to its copy."""
        ...


class RestoreDrillController(Controller[ObjectKey]):
    """Begins drills in threads, for which nothing waits: the end of each rings."""

    name = "restoredrill"
    at_once = 8

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        context: Callable[[], PassContext],
        cluster: Cluster,
        connect: ConnectDrill,
        metrics: Metrics,
        statuses: StatusWriter,
        clock: Callable[[], datetime],
        *,
        tell_rehearsed: Callable[[str, datetime, datetime], Awaitable[None]],
        clocks: TwoClocks,
        scan_soon: Callable[[ObjectKey], None],
    ) -> None:
        super().__init__()
        self._cache, self._ledger, self._context, self._cluster = cache, ledger, context, cluster
        self._connect, self._metrics, self._statuses, self._clock = connect, metrics, statuses, clock
        self._tell_rehearsed, self._clocks, self._scan_soon = tell_rehearsed, clocks, scan_soon
        self._turns = _Turns()
        self._draw = random.SystemRandom()
        self._warned_of: set[str] = set()

    # what rings

    def observe(self, manifest: Manifest, *, gone: bool = False) -> None:
        """Take in the newest manifest of a drill."""
        key, known = key_of(manifest), self._cache.drills.get(key_of(manifest))
        if gone:
            self.forget(key)
            return
        try:
            drill = parse(RestoreDrill, manifest)
        except InvalidManifest as invalid:
            log.warning("%s", invalid)
            return
        uid = manifest["metadata"].get("uid") or ""
        if known is not None and known.shown.uid == uid:
            known.manifest, known.drill, known.gone = manifest, drill, False
        elif known is None or known.run is None:
            shown = ShownStatus(uid, dict(manifest.get("status") or {}))
            self._cache.drills[key] = ManagedDrill(manifest, drill, shown, self._clock())
        self.queue.add(key)

    def forget(self, key: ObjectKey) -> None:
        """A drill is gone: one that goes on ends, and what it has made goes."""
        managed = self._cache.drills.get(key)
        if managed is not None:
            managed.gone = True
            self.queue.add(key)

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """Meet every drill that there is, and what the ledger knows of each; drop what is gone."""
        before, seen = set(self._cache.drills), set()
        async for manifest in self._cluster.list("restoredrills", namespaces):
            seen.add(key_of(manifest))
            self.observe(manifest)
        for key in before - seen:
            self.forget(key)
        self._warn_of_what_is_left(await self._read_records(), namespaces)

    def _warn_of_what_is_left(self, records: Mapping[str, DrillRecord], namespaces: Collection[str]) -> None:
        """Say which copy nobody drops: its drill was deleted while no process ran that knew it to go on."""
        for name, record in sorted(records.items()):
            namespace, _, short_name = name.partition("/")
            served = not namespaces or namespace in namespaces
            gone = served and (namespace, short_name) not in self._cache.drills
            left = record.ended is None or record.ended.left
            if gone and left and name not in self._warned_of:
                self._warned_of.add(name)
                log.warning(
                    "drill %s is gone and had not ended: drop database %s on its scratch server",
                    name,
                    record.started.database,
                )

    async def _read_records(self) -> Mapping[str, DrillRecord]:
        records = await asyncio.to_thread(self._ledger.drills)
        for managed in self._cache.drills.values():
            managed.record = records.get(managed.name)
        for record in records.values():
            for store, rehearsal in record.rehearsed.items():
                known = self._cache.rehearsals.get(store)
                if known is None or known.passed_at < rehearsal.passed_at:
                    self._cache.rehearsals[store] = rehearsal
        return records

    def measure(self) -> None:
        """Refresh when each drill passed last, and how often it is to."""
        now = self._clock()
        self._metrics.forget_drills()
        for managed in self._cache.drills.values():
            record, spec = managed.record, managed.drill.spec
            ended = record.ended if record is not None else None
            failed = ended is not None and ended.result.counts_as_failure
            self._metrics.drill_failed.labels(managed.name).set(failed)
            if spec.suspend:
                continue
            try:
                period = period_of(spec.schedule, spec.time_zone, now)
            except InvalidSchedule:
                continue
            passed = record.passed_at if record is not None else None
            age = now - (passed or managed.created_at)
            self._metrics.drill_age.labels(managed.name).set(age.total_seconds())
            self._metrics.drill_period.labels(managed.name).set(period.total_seconds())

    async def close(self) -> None:
        """Let every drill end: its database goes, and the next process begins it once more."""
        for managed in self._cache.drills.values():
            if managed.run is not None:
                in_daemon(f"ending {managed.name}", partial(managed.run.halt.now, DrillResult.INTERRUPTED))

    @property
    def under_way(self) -> list[asyncio.Future[Any]]:
        """Return what goes on in threads."""
        return [one.run.future for one in self._cache.drills.values() if one.run is not None]

    async def show_trouble(self, key: ObjectKey, trouble: Trouble) -> None:
        """Say in the status of a drill that Lethe failed over it."""
        managed = self._cache.drills.get(key)
        if managed is not None:
            generation = managed.manifest["metadata"].get("generation", 1)
            status = troubled_status(trouble, managed.shown.status, generation=generation, now=self._clock())
            await self._statuses.write(STATUS, key, managed.shown, status)

    # one step of one drill

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Begin a drill that is due, look after one that goes on, or tell what came of it."""
        managed = self._cache.drills.get(key)
        if managed is None:
            return None
        if managed.run is not None:
            if not managed.run.future.done():
                await self._halt_if_need_be(managed, managed.run)
                await self._report(managed)
                return LOOK_SECONDS
            await self._take_in(managed, managed.run)
        if managed.gone:
            del self._cache.drills[key]
            self.queue.discard(key)
            return None
        pause = await self._begin_if_due(managed)
        await self._report(managed)
        return pause

    async def _halt_if_need_be(self, managed: ManagedDrill, run: DrillRun) -> None:
        because = None
        if managed.gone:
            because = DrillResult.INTERRUPTED
        elif await self._was_restored(run):
            because = DrillResult.GAVE_WAY
        if because is not None and run.halt.because is None and not run.clears:
            in_daemon(f"ending {managed.name}", partial(run.halt.now, because))

    async def _was_restored(self, run: DrillRun) -> bool:
        """Tell whether the store is being restored, or was since the drill began: that may be soon over."""
        if any(self._is_restored(one) for one in self._cache.stores.values() if one.name == run.store):
            return True
        episodes = await asyncio.to_thread(self._ledger.episodes, store=run.store)
        return any(one.detected_at >= run.began_at for one in episodes)

    def _is_restored(self, store: ManagedStore) -> bool:
        """Tell whether a store is being restored in earnest, as its looks or its RestoreEvents say.

        What is merely expected is no restore yet, and may be what the drill's own Job has made: it goes on.
        """
        ahead = self._cache.ahead_of(store)
        return store.replay is not None or (ahead is not None and ahead.begun_at is not None)

    async def _take_in(self, managed: ManagedDrill, run: DrillRun) -> None:
        """Tell what a drill came to. Raises what it failed over, once it is not under way any more."""
        managed.run = None
        before = self._cache.rehearsals.get(run.store)
        await self._read_records()  # of one that failed, too: it has begun, and what it made is to go
        ended = run.future.result()
        if run.clears and ended.result is not DrillResult.INTERRUPTED:
            return  # it was told when it ended
        failed = ended.result.counts_as_failure
        log.log(logging.WARNING if failed else logging.INFO, "drill %s: %s", managed.name, ended.result.value)
        await self._cluster.record_event(Event(managed.manifest, ended.result.value, ended.message, failed))
        if ended.result is DrillResult.PASSED and ended.replayed_from is not None:
            since = before.replayed_from if before is not None else FIRST
            await self._tell_rehearsed(run.store, since, ended.replayed_from)
        if ended.rewrite is RewriteResult.REWRITTEN:
            self._scan_soon((managed.key[0], managed.drill.spec.source))  # what follows is told after a scan

    async def _begin_if_due(self, managed: ManagedDrill) -> float:
        """Begin a drill if it is due; return after how many seconds to look again."""
        record, spec = managed.record, managed.drill.spec
        by_job = any(one is not None and one.job_template is not None for one in (spec.restore, spec.dump))
        if by_job and record is not None and managed.tidied != record.started.database:
            of_restore = record.started.database
            made = (of_restore, again := next_name(of_restore), next_name(again))
            jobs = [RestoreJob(self._cluster, managed.manifest, one) for one in made[: 3 if spec.dump else 1]]
            if all([await job.take_away() for job in jobs]):
                managed.tidied = of_restore
        if record is not None and (record.ended is None or self._is_left(managed, record.ended)):
            await self._clear_away(managed)
            return LOOK_SECONDS
        token = record.started.token if record is not None else None
        asked = spec.run_now is not None and spec.run_now != token
        due = self._next_at(managed)
        if not asked and (due is None or due > self._clock()):
            managed.trouble = self._blocker(managed)
            seconds = inf if due is None else (due - self._clock()).total_seconds()
            return max(0.05, min(LONGEST_WAIT_SECONDS, seconds))
        managed.trouble = self._blocker(managed) or await self._begin(managed)
        return RETRY_SECONDS if managed.trouble is not None else LOOK_SECONDS

    def _is_left(self, managed: ManagedDrill, ended: DrillEnded) -> bool:
        """Tell whether it is time to try once more to drop what a drill has left."""
        since = self._clock() - managed.tried_at
        return ended.left and since.total_seconds() >= LONGEST_WAIT_SECONDS

    def _next_at(self, managed: ManagedDrill) -> datetime | None:
        spec = managed.drill.spec
        if spec.suspend:
            return None
        try:
            return due_at(managed.record, spec.schedule, spec.time_zone, managed.created_at)
        except InvalidSchedule:
            return None

    def _blocker(self, managed: ManagedDrill) -> Trouble | None:
        """Return why no drill can begin, as far as that is known without asking anybody."""
        spec = managed.drill.spec
        try:
            period_of(spec.schedule, spec.time_zone, self._clock())
        except InvalidSchedule as wrong:
            return Trouble(TroubleReason.MISCONFIGURED, f"spec.schedule: {wrong}")
        except ValueError:
            return Trouble(TroubleReason.MISCONFIGURED, "spec.timeZone is none that is known here")
        found = self._what_is_restored(managed)
        return found if isinstance(found, Trouble) else None

    def _what_is_restored(  # noqa: PLR0911 - one return for each blocker
        self, managed: ManagedDrill
    ) -> tuple[ManagedSource, ManagedStore, SnapshotRecord] | Trouble:
        spec, (namespace, _) = managed.drill.spec, managed.key
        source = self._cache.sources.get((namespace, spec.source))
        if source is None:
            return Trouble(TroubleReason.MISCONFIGURED, f"no BackupSource is called {spec.source}; apply it")
        stores = source.description.stores
        if spec.store is None and len(stores) != 1:
            return Trouble(
                TroubleReason.MISCONFIGURED,
                f"BackupSource {spec.source} holds several stores; set spec.store",
            )
        name = f"{namespace}/{spec.store}" if spec.store is not None else stores[0]
        if name not in stores:
            return Trouble(
                TroubleReason.MISCONFIGURED, f"BackupSource {spec.source} does not hold {spec.store}"
            )
        store = next((one for one in self._cache.stores.values() if one.name == name), None)
        if store is None:
            return Trouble(TroubleReason.MISCONFIGURED, f"no DataStore is called {name.partition('/')[2]}")
        if "sql" not in store.manifest.get("spec", {}):
            return Trouble(
                TroubleReason.MISCONFIGURED, "only stores in SQL can be restored into a scratch database"
            )
        if self._cache.why_unsafe(store) is not None:
            message = f"it waits: DataStore {store.key[1]} is being restored, or may be soon"
            return Trouble(TroubleReason.RESTORE_UNDERWAY, message)
        if store.session is None or store.session.proof is None:
            return Trouble(TroubleReason.UNREACHABLE, f"DataStore {store.key[1]} has not been looked at yet")
        known = list(source.known.snapshots.values()) if source.known is not None else []
        snapshot = chosen_snapshot(known, name, spec.snapshot, self._draw)
        if snapshot is None:
            return Trouble(TroubleReason.UNREACHABLE, f"BackupSource {spec.source} shows no snapshot of it")
        return source, store, snapshot

    async def _scratch(self, managed: ManagedDrill) -> ScratchServer | Trouble:
        named = managed.drill.spec.scratch.url_secret_ref
        try:
            secret = await self._cluster.secret(managed.key[0], named.name)
            if secret is None:
                return Trouble(TroubleReason.SECRET_MISSING, f"Secret {named.name} does not exist; create it")
            return self._connect.scratch(managed.drill, secret)
        except ClusterRefused as refused:
            return Trouble(TroubleReason.SECRET_MISSING, str(refused))
        except ValueError as unusable:
            return Trouble(TroubleReason.SECRET_MISSING, str(unusable))

    async def _clear_away(self, managed: ManagedDrill) -> None:
        """End what an earlier process had begun."""
        managed.tried_at = self._clock()
        scratch = await self._scratch(managed)
        record, context = managed.record, self._context()
        if record is None:
            return
        server, uid = None if isinstance(scratch, Trouble) else scratch, managed.shown.uid
        self._start(managed, lambda: end_interrupted(record, context, server, uid), Halt(inf), clears=True)

    async def _begin(self, managed: ManagedDrill) -> Trouble | None:
        """Begin a drill; return what hinders it."""
        found, scratch = self._what_is_restored(managed), await self._scratch(managed)
        if isinstance(found, Trouble):
            return found
        if isinstance(scratch, Trouble):
            return scratch
        source, store, snapshot = found
        database = f"{DATABASE_PREFIX}{secrets.token_hex(5)}"
        rewritten = await self._rewriting(managed, source, store, snapshot, database)
        if isinstance(rewritten, Trouble):
            return rewritten
        snapshot, rewriting = rewritten
        proof = store.session.proof if store.session is not None else None
        if proof is None:
            return Trouble(TroubleReason.UNREACHABLE, f"DataStore {store.key[1]} has not been looked at yet")
        mapping, spec = proof.proved.mapping, managed.drill.spec
        place, called = place_and_name(source.source.spec, snapshot.ref)
        sessions = {one.name: one.session for one in self._cache.stores.values()}
        proofs = {name: one.proof if one is not None else None for name, one in sessions.items()}
        plan = DrillPlan(
            drill=managed.name,
            store=store.name,
            source=source.name,
            snapshot=snapshot.ref,
            taken_at=snapshot.taken_at,
            place=place,
            called=called,
            database=database,
            table=mapping.table,
            tables=(mapping.table, *(one.table for one in mapping.dependents)),
            servers={name: one.server if one is not None else None for name, one in proofs.items()},
            same_server=spec.scratch.same_server is SameServer.ALLOWED,
            token=spec.run_now,
            uid=managed.shown.uid,
            rewriting=rewriting,
            rewritten=snapshot.rewrite is not None,
        )
        limit, context, halt = parse_duration(spec.time_limit).total_seconds(), self._context(), Halt(inf)
        restorer = self._restorer(managed, managed.drill.spec.restore, plan.database)
        manifest = parse(DataStore, store.manifest)
        drill, connect = managed.drill, self._connect

        def work() -> DrillEnded:
            with self._turns.turn(scratch, halt):
                halt.until = time.monotonic() + limit
                return conduct(
                    plan, context, scratch, restorer, lambda url: connect.session(manifest, drill, url), halt
                )

        self._start(managed, work, halt, store=store.name)
        return None

    async def _rewriting(
        self,
        managed: ManagedDrill,
        source: ManagedSource,
        store: ManagedStore,
        snapshot: SnapshotRecord,
        database: str,
    ) -> tuple[SnapshotRecord, Rewriting | None] | Trouble:
        """Return what a drill has besides that rewrites a snapshot, and which; or why none can be rewritten.

        It is one that holds somebody who was erased; where none does, none is rewritten.
        """
        spec, loop = managed.drill.spec, asyncio.get_running_loop()
        if not spec.rewrite or spec.dump is None:
            return snapshot, None
        known = source.known
        if known is None:
            return Trouble(TroubleReason.UNREACHABLE, f"BackupSource {spec.source} is being connected anew")
        there = list(known.snapshots.values())
        holding = await asyncio.to_thread(still_holding, self._ledger, there, store.name)
        chosen = chosen_snapshot(there, store.name, spec.snapshot, self._draw, holding)
        again = next_name(database)
        rewriting = Rewriting(
            known,
            Pin(chosen.ref, chosen.pieces) if chosen is not None else Pin(snapshot.ref, snapshot.pieces),
            source.source.spec.rewrite is SourceRewriting.ALLOWED,
            self._restorer(managed, spec.dump, next_name(again)),
            self._restorer(managed, spec.restore, again),
            lambda: asyncio.run_coroutine_threadsafe(self._clocks.disagreement(), loop).result(),
            chosen is None,
        )
        if refusal := rewriting.refusal(store.name):
            return Trouble(TroubleReason.MISCONFIGURED, refusal)
        return chosen or snapshot, rewriting

    def _restorer(self, managed: ManagedDrill, chosen: Restore, database: str) -> Restorer:
        if chosen.command is not None or chosen.job_template is None:
            return self._connect.command(chosen.command or "")
        job, loop = RestoreJob(self._cluster, managed.manifest, database), asyncio.get_running_loop()
        spec, limit = chosen.job_template.spec, parse_duration(managed.drill.spec.time_limit).total_seconds()

        def restore(order: RestoreOrder, halted: Callable[[], bool]) -> None:
            waiting = job.restore(spec, order, halted, seconds=limit)
            asyncio.run_coroutine_threadsafe(waiting, loop).result()

        return restore

    def _start(
        self,
        managed: ManagedDrill,
        work: Callable[[], DrillEnded],
        halt: Halt,
        *,
        store: str = "",
        clears: bool = False,
    ) -> None:
        future = in_daemon(f"drill {managed.name}", work)
        managed.run, managed.trouble = DrillRun(future, halt, self._clock(), store, clears), None
        future.add_done_callback(lambda _: self.queue.add(managed.key))

    async def _report(self, managed: ManagedDrill) -> None:
        """Write a drill's status, if it says something new."""
        record, run = managed.record, managed.run
        next_at = self._next_at(managed)
        running = None
        if run is not None:
            running = "what an earlier process left is cleared away" if run.clears else "a drill goes on"
            next_at = None
        condition_set = restoredrill_conditions(
            DrillObservation(
                trouble=managed.trouble,
                running=running,
                suspended=bool(managed.drill.spec.suspend),
                ended=record.ended if record is not None else None,
                next_at=next_at,
            )
        )
        status = restoredrill_status(
            record,
            condition_set,
            managed.shown.status,
            generation=managed.manifest["metadata"].get("generation", 1),
            now=self._clock(),
            next_at=next_at,
            history=managed.drill.spec.history,
        )
        await self._statuses.write(STATUS, managed.key, managed.shown, status)


class _Turns:
    """One drill after the other on each scratch server, by what that says it is."""

    def __init__(self) -> None:
        self._lock, self._busy = threading.Lock(), set[str]()

    @contextmanager
    def turn(self, scratch: ScratchServer, halted: Callable[[], bool]) -> Iterator[None]:
        """Wait for one's turn; who is to end meanwhile waits no longer."""
        servers = self._servers(scratch)
        while not (taken := self._take(servers)) and not halted():
            time.sleep(TURN_SECONDS)
        try:
            yield
        finally:
            with self._lock:
                self._busy -= servers if taken else frozenset()

    def _servers(self, scratch: ScratchServer) -> frozenset[str]:
        try:
            return scratch.place().servers
        except Exception:  # noqa: BLE001 - the drill finds the same, and says so
            return frozenset()

    def _take(self, servers: frozenset[str]) -> bool:
        with self._lock:
            if self._busy & servers:
                return False
            self._busy |= servers
            return True
