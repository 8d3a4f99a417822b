"""Looking after each store: when to visit it, in one thread at a time, and what to tell of the visit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime

from lethe.domain.mapping import StoreOwner
from lethe.domain.requests import RequestRecord
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.engine.cache import ManagedStore, ObjectCache, ObjectKey
from lethe.engine.metrics import Metrics
from lethe.engine.reporting import Reporting
from lethe.engine.restores import Restores
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable
from lethe.ports.ledger import Ledger, LedgerError
from lethe.workflows import store_pass
from lethe.workflows.erasure import erase, third_party
from lethe.workflows.legal.contact import SubjectContact
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_pass import PassPlan, StorePass
from lethe.workflows.store_session import StoreSession

log = logging.getLogger("lethe.guarding")

MAX_PAUSE = 60.0
MOST_STORES_AT_ONCE = 128
"""Threads for visits, made as they are needed: a store that hangs keeps its own and nobody else's."""
LATER_SWEEP_INTERVALS = 3
TIDY_SECONDS = 30.0


class StoreController:
    """A task for each store, which visits it each interval and whenever there is work."""

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        context: Callable[[], PassContext],
        cluster: Cluster,
        metrics: Metrics,
        reporting: Reporting,
        restores: Restores,
        *,
        clock: Callable[[], datetime],
        journal_interval: float,
        sweep_interval: float,
        contacts_found: Callable[[Mapping[str, SubjectContact]], None],
    ) -> None:
        self._contacts_found = contacts_found
        self._cache, self._ledger, self._context = cache, ledger, context
        self._cluster, self._metrics, self._clock = cluster, metrics, clock
        self._reporting, self._restores = reporting, restores
        self._journal_interval, self._sweep_interval = journal_interval, sweep_interval
        self._completing = asyncio.Lock()
        self._last_look: dict[str, float] = {}
        self._last_sweep: dict[str, float] = {}
        self._tidy: dict[str, float] = {}
        self._later_sweeps: dict[str, float] = {}
        self._threads = ThreadPoolExecutor(MOST_STORES_AT_ONCE, thread_name_prefix="store")
        self._considering: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, managed: ManagedStore) -> None:
        """Begin to look after a store."""
        managed.task = asyncio.create_task(self._look_after(managed), name=f"guard {managed.name}")

    async def stop(self, managed: ManagedStore) -> None:
        """Stop looking after a store, after the visit that is under way."""
        if managed.task is not None:
            managed.task.cancel()
            with suppress(asyncio.CancelledError):
                await managed.task
        if managed.store is not None:
            await asyncio.to_thread(managed.store.port.close)

    async def _look_after(self, managed: ManagedStore) -> None:
        try:
            while True:
                pause = await self._reconcile_whatever_happens(managed)
                with suppress(TimeoutError):
                    await asyncio.wait_for(managed.wake.wait(), pause)
                managed.wake.clear()
        except LedgerError as fatal:
            # Without its ledger the operator must not act; it is started anew and looks again.
            self.note_failure(fatal)

    async def _reconcile_whatever_happens(self, managed: ManagedStore) -> float:
        """Visit a store; a defect of Lethe there is said loudly, and never ends the looking after it."""
        try:
            return await self._reconcile_and_report(managed)
        except LedgerError:
            raise
        except Exception as defect:
            log.exception("a visit to store %s failed; it is tried again", managed.name)
            if managed.store is not None:
                managed.store.note_trouble(Trouble.of_defect(defect))
                self._metrics.store_up.labels(managed.name).set(0)
            managed.retries += 1
            await self._reporting.write_store(managed)
            return min(MAX_PAUSE, 2.0 ** min(managed.retries, 6))

    async def _reconcile_and_report(self, managed: ManagedStore) -> float:
        """Visit a store once, tell what came of it, and return the seconds until the next visit."""
        began = time.monotonic()
        records = self._cache.open_records(managed.description.namespace)
        if managed.description.owner is StoreOwner.THIRD_PARTY:
            await self._mark_third_party(managed, records)
            await self._reporting.write_store(managed)
            return self._journal_interval
        store = managed.store
        if store is None or self._refused_as_second_primary(managed):
            self._metrics.store_up.labels(managed.name).set(0)
            await self._reporting.write_store(managed)
            return self._journal_interval
        if began < managed.retry_after and store.trouble is not None:
            return managed.retry_after - began
        primary = self._cache.primary_of(managed.description.namespace)
        managed.pass_began_at = began
        work = asyncio.get_running_loop().run_in_executor(
            self._threads,
            self._reconcile,
            managed,
            store,
            records,
            primary.name if primary else None,
            self._plan(managed, began),
        )
        try:
            done = await asyncio.shield(work)
        except asyncio.CancelledError:
            with suppress(Exception):  # a thread can't be interrupted: let it end, and tell what it did
                await self._after(managed, store, await work, records)
            raise
        finally:
            managed.pass_began_at = None
        self._note_moments(managed, done, began)
        await self._after(managed, store, done, records)
        if store.trouble is not None:
            managed.retries += 1
            pause: float = min(MAX_PAUSE, self._journal_interval, 0.5 * 2 ** min(managed.retries, 10))
            managed.retry_after = time.monotonic() + pause
            return pause
        managed.retries, managed.retry_after, managed.pass_ended_well = 0, 0.0, True
        return self._next_pause(managed, done)

    def _next_pause(self, managed: ManagedStore, done: StorePass) -> float:
        served = done.served
        if served is not None and served.settled and served.retry:
            return 0.05
        if done.head_moved or (served is not None and served.head_moved):
            self._last_look.pop(managed.name, None)
            return 0.1
        waited = time.monotonic() - self._last_look.get(managed.name, 0.0)
        return max(0.02, self._journal_interval - waited)

    def _reconcile(
        self,
        managed: ManagedStore,
        store: StoreSession,
        records: Sequence[RequestRecord],
        primary: str | None,
        plan: PassPlan,
    ) -> StorePass:
        """Visit a store, in a worker thread."""
        done = store_pass.reconcile_store(
            store,
            records,
            self._context(),
            plan,
            primary=primary,
        )
        managed.journal_number = self._ledger.known_head(store.name).last_number
        managed.applied = self._ledger.tombstone_count(store.name)
        return done

    def _plan(self, managed: ManagedStore, began: float) -> PassPlan:
        """Say what the next visit is to do, by what is due."""
        name = managed.name
        look = began - self._last_look.get(name, -1e9) >= self._journal_interval - 0.01
        release, managed.release = managed.release, None
        wanted, managed.contacts_of = frozenset(managed.contacts_of), set()
        if not look and release is None:
            return PassPlan(look=False, contacts_of=wanted)
        sweep = began - self._last_sweep.get(name, -1e9) >= self._sweep_interval
        return PassPlan(
            look=True,
            sweep=_is_due(self._later_sweeps, name, began) or sweep,
            tidy=_is_due(self._tidy, name, began),
            manual_release=managed.manual_release,
            release=release,
            contacts_of=wanted,
        )

    def _note_moments(self, managed: ManagedStore, done: StorePass, began: float) -> None:
        """Remember what was done when, and what is due because of it."""
        name = managed.name
        if done.looked and not done.head_moved:
            self._last_look[name] = began
        if done.swept:
            self._last_sweep[name] = began
        if done.gate_opened:
            self._later_sweeps[name] = began + LATER_SWEEP_INTERVALS * self._journal_interval
        if done.gate_opened or done.re_erased or (done.served is not None and done.served.verified):
            self._tidy.setdefault(name, began + TIDY_SECONDS)

    # back in the event loop

    async def _after(
        self, managed: ManagedStore, store: StoreSession, done: StorePass, records: Sequence[RequestRecord]
    ) -> None:
        self._metrics.store_up.labels(store.name).set(store.trouble is None)
        # Also by none: an alert sees a counter rise only from a sample that was there before.
        self._metrics.resurrected.labels(store.name).inc(done.re_erased)
        if done.re_erased:
            log.warning(
                "store %s: %d erased people had been written back; erased again",
                store.name,
                done.re_erased,
            )
        for episode in done.episodes:
            await self._restores.follow(managed, episode, done.step, opened=done.opened)
        if done.resolved or done.contacts:
            self._contacts_found(done.contacts)
        if store.last_observed_at is not None:
            safe = managed.replay is None and store.trouble is None
            self._metrics.safe.labels(store.name).set(safe)
            self._metrics.missing.labels(store.name).set(managed.missing)
            await self._set_gate(managed, safe=safe)
        await self._reporting.write_store(managed)
        if done.served is not None:
            verified, refused = len(done.served.verified), done.served.refused
            self._metrics.erasures.labels(store.name, "verified").inc(verified)
            self._metrics.erasures.labels(store.name, "refused").inc(refused)
            now = self._clock()
            for record in done.served.verified:
                waited = (now - record.accepted.accepted_at).total_seconds()
                self._metrics.erasure_seconds.labels(store.name).observe(waited)
            if done.touched:
                await self.complete({_key_of(r) for r in done.touched})
                for other in self._cache.stores_of(managed.description.namespace):
                    if other is not managed and done.served.settled:
                        other.wake.set()
        elif store.trouble is not None:
            for record in records:
                self._reporting.want(_key_of(record))

    def consider(self, keys: Collection[ObjectKey]) -> None:
        """Look soon whether requests can end, also where no store has anything to do for them."""
        task = asyncio.ensure_future(self.complete(keys))
        self._considering.add(task)
        task.add_done_callback(self._considered)

    def _considered(self, task: asyncio.Task[None]) -> None:
        self._considering.discard(task)
        if not task.cancelled():
            self.note_failure(task.exception())

    def note_failure(self, error: BaseException | None) -> None:
        """End the operator for an error of the ledger; say any other."""
        if isinstance(error, LedgerError) and not self.failed.done():
            self.failed.set_exception(error)
        elif error is not None:
            log.warning("a step failed (%s); the next resync makes up for it", type(error).__name__)

    def forget(self, managed: ManagedStore) -> None:
        """Drop what is kept about a store that is gone: its moments and its metrics."""
        for moments in (self._tidy, self._later_sweeps, self._last_look, self._last_sweep):
            moments.pop(managed.name, None)
        self._metrics.forget_store(managed.name)

    async def complete(self, keys: Collection[ObjectKey]) -> None:
        """End what has nothing left to do, and let its status be written."""
        async with self._completing:
            known = await asyncio.to_thread(self._ledger.requests_named, keys)
            open_records = [record for record in known.values() if record.open]
            present = {
                namespace: [managed.description for managed in self._cache.stores_of(namespace)]
                for namespace in {record.accepted.namespace for record in open_records}
            }
            endings = await asyncio.to_thread(erase.complete, open_records, self._context(), present)
            if any(ending.outcome is not None for ending in endings.values()):
                known = await asyncio.to_thread(self._ledger.requests_named, keys)
        for key, record in known.items():
            view = self._cache.views.get(key)
            if view is not None:
                ending = endings.get(record.request)
                view.ending = ending.blocker if ending else None
            if view is not None and not view.claimed:
                continue
            if record.open or view is not None:
                self._cache.records[key] = record
            else:
                self._cache.records.pop(key, None)
            self._reporting.want(key)

    async def _mark_third_party(self, managed: ManagedStore, records: Sequence[RequestRecord]) -> None:
        new = await asyncio.to_thread(third_party.not_asked, records, managed.name, self._context())
        if new:
            await self.complete({_key_of(record) for record in new})

    def _refused_as_second_primary(self, managed: ManagedStore) -> bool:
        primary = self._cache.primary_of(managed.description.namespace)
        second = managed.description.role == "Primary" and primary is not None and primary is not managed
        if second and primary is not None:
            name = primary.description.short_name
            managed.trouble = Trouble(
                TroubleReason.DUPLICATE_PRIMARY,
                f"DataStore {name} is the Primary of this namespace already; change spec.role",
            )
        elif managed.trouble is not None and managed.trouble.reason is TroubleReason.DUPLICATE_PRIMARY:
            managed.trouble = None
        return second

    async def _set_gate(self, managed: ManagedStore, *, safe: bool) -> None:
        if managed.gate is None or (managed.store and managed.store.trouble is not None):
            return
        reason, message = managed.replay or ("Verified", "every erasure is in place")
        try:
            changed = await self._cluster.set_gate(
                managed.description.namespace,
                managed.gate,
                open_=safe,
                reason=reason,
                message=message,
                confirm=lambda: asyncio.to_thread(self._ledger.confirm),
            )
        except (ClusterUnavailable, ClusterRefused) as refused:
            log.warning("gate of store %s can't be set: %s", managed.name, refused)
            return
        if changed:
            self._metrics.api_writes.labels("gate").inc(len(changed))
            log.info(
                "gate of store %s is %s for %d pods", managed.name, "open" if safe else "closed", len(changed)
            )


def _is_due(moments: dict[str, float], store: str, now: float) -> bool:
    """Tell whether a store's moment has come, and forget it if so."""
    if now < moments.get(store, float("inf")):
        return False
    del moments[store]
    return True


def _key_of(record: RequestRecord) -> ObjectKey:
    return record.accepted.namespace, record.accepted.name
