"""Looking after each store: prove, look, replay, serve, probe, sweep; one thread at a time on each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from lethe.domain.facts import MappingProved, NotAsked
from lethe.domain.mapping import StoreOwner
from lethe.domain.requests import RequestRecord
from lethe.domain.restores import RestoreEpisode
from lethe.engine.metrics import Metrics
from lethe.engine.reporting import Reporting
from lethe.engine.restores import Restores
from lethe.engine.schedule import Schedule
from lethe.engine.world import Place, StoreGuard, World
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable
from lethe.ports.keys import Keyring
from lethe.ports.ledger import Ledger, LedgerError
from lethe.ports.stores import (
    AnswerUntrusted,
    HeadMoved,
    JournalNotPermitted,
    MappingInvalid,
    StoreError,
    StoreUnreachable,
)
from lethe.workflows import erasing, replaying, watching
from lethe.workflows.guarded import GuardedStore

log = logging.getLogger("lethe.guarding")

MAX_PAUSE = 60.0
LATER_SWEEP_INTERVALS = 3
TIDY_SECONDS = 30.0


@dataclass(slots=True)
class Visit:
    """What one visit to a store came to."""

    served: erasing.PassResult | None = None
    episode: RestoreEpisode | None = None
    step: replaying.ReplayStep | None = None
    opened: bool = False
    resurrected: int = 0
    left_alone: int = 0
    touched: list[RequestRecord] = field(default_factory=list)


class Guarding:
    """A task for each store, which visits it each interval and whenever there is work."""

    def __init__(
        self,
        world: World,
        ledger: Ledger,
        keyring: Keyring,
        cluster: Cluster,
        metrics: Metrics,
        reporting: Reporting,
        restores: Restores,
        *,
        clock: Callable[[], datetime],
        journal_interval: float,
        sweep_interval: float,
    ) -> None:
        self._world, self._ledger, self._keyring = world, ledger, keyring
        self._cluster, self._metrics, self._clock = cluster, metrics, clock
        self._reporting, self._restores = reporting, restores
        self._journal_interval, self._sweep_interval = journal_interval, sweep_interval
        self._completing = asyncio.Lock()
        self._last_look: dict[str, float] = {}
        self._last_sweep: dict[str, float] = {}
        self._tidy: Schedule[str] = Schedule()
        self._later_sweeps: Schedule[str] = Schedule()
        self.token = 0
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, guard: StoreGuard) -> None:
        """Begin to look after a store."""
        guard.task = asyncio.create_task(self._look_after(guard), name=f"guard {guard.name}")

    async def stop(self, guard: StoreGuard) -> None:
        """Stop looking after a store, after the visit that is under way."""
        if guard.task is not None:
            guard.task.cancel()
            with suppress(asyncio.CancelledError):
                await guard.task
        if guard.store is not None:
            await asyncio.to_thread(guard.store.port.close)

    async def _look_after(self, guard: StoreGuard) -> None:
        try:
            while True:
                pause = await self._visit_whatever_happens(guard)
                with suppress(TimeoutError):
                    await asyncio.wait_for(guard.wake.wait(), pause)
                guard.wake.clear()
        except LedgerError as fatal:
            # Without its ledger the operator must not act; it is started anew and looks again.
            if not self.failed.done():
                self.failed.set_exception(fatal)

    async def _visit_whatever_happens(self, guard: StoreGuard) -> float:
        """Visit a store; a defect of Lethe there is said loudly, and never ends the looking after it."""
        try:
            return await self._visit_and_report(guard)
        except LedgerError:
            raise
        except Exception as defect:
            log.exception("a visit to store %s failed; it is tried again", guard.name)
            if guard.store is not None:
                guard.store.trouble_reason = "Unreachable"
                guard.store.trouble = (
                    f"Lethe failed here ({type(defect).__name__}); see its log and report it"
                )
                self._metrics.store_up.labels(guard.name).set(0)
            guard.retries += 1
            return min(MAX_PAUSE, 2.0 ** min(guard.retries, 6))

    async def _visit_and_report(self, guard: StoreGuard) -> float:
        """Visit a store once, tell what came of it, and return the seconds until the next visit."""
        began = time.monotonic()
        records = self._world.open_records(guard.description.namespace)
        if guard.description.owner is StoreOwner.THIRD_PARTY:
            await self._mark_third_party(guard, records)
            await self._reporting.write_store(guard)
            return self._journal_interval
        store = guard.store
        if store is None or self._refused_as_second_primary(guard):
            await self._reporting.write_store(guard)
            return self._journal_interval
        if began < guard.retry_after and store.trouble is not None:
            return guard.retry_after - began
        work = asyncio.ensure_future(asyncio.to_thread(self._visit, guard, store, records, began))
        try:
            visit = await asyncio.shield(work)
        except asyncio.CancelledError:
            with suppress(Exception):
                await work  # a thread can't be interrupted: let it end before the store is closed
            raise
        await self._after(guard, store, visit, records)
        if store.trouble is not None:
            guard.retries += 1
            pause: float = min(MAX_PAUSE, self._journal_interval, 0.5 * 2 ** min(guard.retries, 10))
            guard.retry_after = time.monotonic() + pause
            return pause
        guard.retries, guard.retry_after = 0, 0.0
        return self._next_pause(guard, visit)

    def _next_pause(self, guard: StoreGuard, visit: Visit) -> float:
        served = visit.served
        if served is not None and served.settled and served.retry:
            return 0.05
        if served is not None and served.head_moved:
            self._last_look.pop(guard.name, None)
            return 0.1
        waited = time.monotonic() - self._last_look.get(guard.name, 0.0)
        return max(0.02, self._journal_interval - waited)

    # in a worker thread

    def _visit(
        self, guard: StoreGuard, store: GuardedStore, records: Sequence[RequestRecord], began: float
    ) -> Visit:
        """Gather, decide, act and record on one store. Errors of the store become its trouble."""
        visit = Visit()
        try:
            if store.proof is None:
                self._prove(store)
            store.trouble, store.trouble_reason = None, None
            if began - self._last_look.get(store.name, -1e9) >= self._journal_interval - 0.01:
                self._look(guard, store, visit, began)
            if store.ledger_behind:
                store.trouble_reason = "LedgerBehind"
                store.trouble = (
                    "the store's journal is ahead of the ledger: the ledger went back in time. Restore the "
                    "newest "
                    "ledger (see docs/operations.md, 'The ledger went back'); until then nothing is erased "
                    "here"
                )
            elif not self._open_episode(store):
                self._serve(store, records, visit)
        except StoreUnreachable as away:
            store.trouble, store.trouble_reason = str(away), "Unreachable"
        except AnswerUntrusted as strange:
            store.trouble, store.trouble_reason = str(strange), "Unreachable"
        except LedgerOnSameServer as same:
            store.trouble, store.trouble_reason = str(same), "LedgerOnSameServer"
        except MappingInvalid as invalid:
            store.trouble, store.trouble_reason = str(invalid), "MappingInvalid"
            store.proof = None
        except JournalNotPermitted as refused:
            store.trouble, store.trouble_reason = str(refused), "Unreachable"
        except HeadMoved:
            self._last_look.pop(store.name, None)
        known = self._ledger.known_head(store.name)
        guard.journal_number = known.last_number
        guard.applied = self._ledger.tombstone_count(store.name)
        return visit

    def _prove(self, store: GuardedStore) -> None:
        mappings = self._ledger.mappings(store.name)
        store.port.remember(mappings.values())
        episode = self._open_episode(store)
        try:
            proof = store.port.prove()
        except MappingInvalid as invalid:
            known = self._ledger.known_head(store.name)
            if known.head is None or episode is not None:
                raise
            # A mapping that was fine and is not: in the middle of a restore tables are missing.
            raise StoreUnreachable(
                f"its schema is not as it was ({invalid})", "is it being restored?"
            ) from None
        if self._ledger.server is not None and proof.server == self._ledger.server:
            raise LedgerOnSameServer
        if mappings.get(proof.proved.version) != proof.proved and episode is None:
            self._ledger.append([MappingProved(store.name, proof.proved)])
        store.port.remember([proof.proved])
        store.proof = proof

    def _look(self, guard: StoreGuard, store: GuardedStore, visit: Visit, began: float) -> None:
        now = self._clock()
        self._last_look[store.name] = began
        episode = self._open_episode(store)
        if episode is None:
            outcome = watching.look(store, self._ledger, token=self.token, now=now)
            if outcome is watching.Look.LEDGER_BEHIND:
                return
            episode = self._open_episode(store)
            visit.opened = episode is not None
        if episode is None:
            self._check_erasures(store, visit, began, now)
            episode = self._open_episode(store)
            visit.opened = visit.opened or episode is not None
        elif not visit.opened:
            if guard.release_because is not None:
                replaying.release(
                    store, episode, self._ledger, because=guard.release_because, token=self.token, now=now
                )
                guard.release_because = None
            else:
                visit.step = replaying.replay(
                    store,
                    episode,
                    self._ledger,
                    token=self.token,
                    now=now,
                    manual_release=guard.manual_release,
                )
            if visit.step is None or visit.step.state is replaying.ReplayState.SAFE:
                self._later_sweeps.at(began + LATER_SWEEP_INTERVALS * self._journal_interval, store.name)
                store.last_sweep_at = now
        visit.episode = self._episode_of(store, episode)

    def _check_erasures(self, store: GuardedStore, visit: Visit, began: float, now: datetime) -> None:
        found = watching.probe(store, self._ledger, token=self.token, now=now)
        due = began - self._last_sweep.get(store.name, -1e9) >= self._sweep_interval
        due = due or store.name in self._later_sweeps.pop_due(began)
        if due or store.sweep_wanted:
            self._last_sweep[store.name] = began
            swept = watching.sweep(store, self._ledger, token=self.token, now=now)
            visit.left_alone = swept.left_alone
            visit.resurrected += swept.re_erased
        visit.resurrected += found.re_erased
        if store.name in self._tidy.pop_due(began):
            store.port.tidy()

    def _serve(self, store: GuardedStore, records: Sequence[RequestRecord], visit: Visit) -> None:
        primary = self._world.primary_of(store.description.namespace)
        waiting = [r for r in records if not r.progress(store.name).state.settled]
        if not waiting:
            return
        visit.touched = waiting
        visit.served = erasing.serve(
            store,
            waiting,
            self._ledger,
            self._keyring,
            primary=primary.name if primary else None,
            token=self.token,
            now=self._clock(),
        )
        if visit.served.verified:
            self._tidy.at(time.monotonic() + TIDY_SECONDS, store.name)

    def _open_episode(self, store: GuardedStore) -> RestoreEpisode | None:
        return next(iter(self._ledger.episodes(store=store.name, open_only=True)), None)

    def _episode_of(self, store: GuardedStore, episode: RestoreEpisode | None) -> RestoreEpisode | None:
        if episode is None:
            return None
        return next(e for e in self._ledger.episodes(store=store.name) if e.episode == episode.episode)

    # back in the event loop

    async def _after(
        self, guard: StoreGuard, store: GuardedStore, visit: Visit, records: Sequence[RequestRecord]
    ) -> None:
        self._metrics.store_up.labels(store.name).set(store.trouble is None)
        self._metrics.left_alone.labels(store.name).set(visit.left_alone)
        if visit.resurrected:
            self._metrics.resurrected.labels(store.name).inc(visit.resurrected)
            log.warning(
                "store %s: %d erased people had been written back; erased again",
                store.name,
                visit.resurrected,
            )
        if visit.episode is not None:
            await self._restores.follow(guard, visit.episode, visit.step, opened=visit.opened)
        if store.last_pulse_at is not None:
            safe = guard.replay is None and store.trouble is None
            self._metrics.safe.labels(store.name).set(safe)
            self._metrics.missing.labels(store.name).set(guard.missing)
            await self._set_gate(guard, safe=safe)
        await self._reporting.write_store(guard)
        if visit.served is not None:
            for result, number in (("verified", len(visit.served.verified)),):
                self._metrics.erasures.labels(store.name, result).inc(number)
            now = self._clock()
            for record in visit.served.verified:
                waited = (now - record.accepted.accepted_at).total_seconds()
                self._metrics.erasure_seconds.labels(store.name).observe(waited)
            if visit.served.settled or visit.served.retry:
                await self.complete({_place_of(r) for r in visit.touched})
                for other in self._world.stores_of(guard.description.namespace):
                    if other is not guard and visit.served.settled:
                        other.wake.set()
        elif store.trouble is not None:
            for record in records:
                self._reporting.want(_place_of(record))

    def consider(self, places: Collection[Place]) -> None:
        """Look soon whether requests can end, also where no store has anything to do for them."""
        self._considering = asyncio.ensure_future(self.complete(places))

    async def complete(self, places: Collection[Place]) -> None:
        """End what has nothing left to do, and let its status be written."""
        async with self._completing:
            known = await asyncio.to_thread(self._ledger.requests_named, places)
            open_records = [record for record in known.values() if record.open]
            present = {
                namespace: [guard.description for guard in self._world.stores_of(namespace)]
                for namespace in {record.accepted.namespace for record in open_records}
            }
            endings = await asyncio.to_thread(
                erasing.complete, open_records, self._ledger, present, now=self._clock()
            )
            if any(ending.outcome is not None for ending in endings.values()):
                known = await asyncio.to_thread(self._ledger.requests_named, places)
        for place, record in known.items():
            view = self._world.views.get(place)
            if view is not None:
                ending = endings.get(record.request)
                view.ending = ending.hindrance if ending else None
            if view is not None and not view.claimed:
                continue
            if record.open or view is not None:
                self._world.records[place] = record
            else:
                self._world.records.pop(place, None)
            self._reporting.want(place)

    async def _mark_third_party(self, guard: StoreGuard, records: Sequence[RequestRecord]) -> None:
        waiting = [r for r in records if not r.progress(guard.name).state.settled]
        if waiting:
            await asyncio.to_thread(self._ledger.append, [NotAsked(r.request, guard.name) for r in waiting])
            await self.complete({_place_of(r) for r in waiting})

    def _refused_as_second_primary(self, guard: StoreGuard) -> bool:
        primary = self._world.primary_of(guard.description.namespace)
        second = guard.description.role == "Primary" and primary is not None and primary is not guard
        if second and primary is not None:
            name = primary.description.short_name
            guard.trouble = (
                "DuplicatePrimary",
                f"DataStore {name} is the Primary of this namespace already; change spec.role",
            )
        elif guard.trouble is not None and guard.trouble[0] == "DuplicatePrimary":
            guard.trouble = None
        return second

    async def _set_gate(self, guard: StoreGuard, *, safe: bool) -> None:
        if guard.gate is None or (guard.store and guard.store.trouble is not None):
            return
        reason, message = guard.replay or ("Verified", "every erasure is in place")
        try:
            changed = await self._cluster.set_gate(
                guard.description.namespace, guard.gate, open_=safe, reason=reason, message=message
            )
        except (ClusterUnavailable, ClusterRefused) as refused:
            log.warning("gate of store %s can't be set: %s", guard.name, refused)
            return
        if changed:
            self._metrics.api_writes.labels("gate").inc(len(changed))
            log.info(
                "gate of store %s is %s for %d pods", guard.name, "open" if safe else "closed", len(changed)
            )


class LedgerOnSameServer(StoreError):
    """The ledger lives on the server that it guards: a restore of that server would rewind both."""

    def __init__(self) -> None:
        super().__init__(
            "LETHE_LEDGER_URL leads to the same database server as this store, so one restore would "
            "rewind both",
            "put the ledger on another server, or on a volume",
        )


def _place_of(record: RequestRecord) -> Place:
    return record.accepted.namespace, record.accepted.name
