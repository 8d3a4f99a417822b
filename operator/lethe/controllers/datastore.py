"""Looking after each store: when to visit it, in a thread of its own, and what follows from the visit.

`reconcile` never waits for a store: it begins a pass and returns, and the end of the pass rings. So a store
that hangs holds up nobody else; its own repair or deletion cuts the pass off.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from lethe.api.parse import InvalidManifest
from lethe.controllers.datastore_connect import (
    SUSPENDED,
    ConnectStore,
    has_other_secret,
    managed_store,
    open_session,
)
from lethe.controllers.datastore_questions import CONTACT_SECONDS, StoreBusy
from lethe.controllers.datastore_status import StoreStatus, records_named
from lethe.controllers.deletionrequest import RequestCompletion
from lethe.controllers.deletionrequest_status import RequestStatusController
from lethe.controllers.gate import GateController
from lethe.controllers.restoreevent import RestoreEventController
from lethe.controllers.runtime.cache import (
    ManagedStore,
    ObjectCache,
    ObjectKey,
    StoreQuestion,
    StoreWork,
    key_of,
    version_of,
)
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.status_writer import ShownStatus
from lethe.controllers.runtime.threads import BoundedThreads, in_daemon
from lethe.domain.conditions.datastore import LET_GO
from lethe.domain.mapping import StoreOwner
from lethe.domain.requests import RequestRecord
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.ports.cluster import Cluster, ClusterUnavailable, Event, Manifest
from lethe.ports.ledger import Ledger
from lethe.ports.stores import StoreError
from lethe.workflows import store_pass
from lethe.workflows.erasure import third_party
from lethe.workflows.legal.contact import SubjectContact, find_contacts
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.episode import open_episode_of
from lethe.workflows.store_pass import PassPlan, StorePass
from lethe.workflows.store_session import StoreSession

log = logging.getLogger("lethe.datastore")

T = TypeVar("T")

MAX_PAUSE = 60.0
RECONNECT_SECONDS = 5.0
"""How often a store that can't be connected at all is tried again: nobody tells when a Secret changes."""
SECRET_SECONDS = 10.0
"""How often the Secret of a store in trouble is read again."""
STEADY_THREADS, DOUBTFUL_THREADS = 32, 8
"""Threads of one namespace for stores that answered last, and for those that did not, or never yet."""
LOOK_SECONDS, SET_SECONDS, RECORD_SECONDS = 300.0, 4200.0, 0.01
"""How long a store may take for all answers of one pass: for a look; where it is asked for sets, of which one
statement may last an hour; and for each person who is asked for, or was erased."""
LATER_SWEEP_INTERVALS = 3
CLOSING_SECONDS = 5.0
"""How long to let go of a store waits for its connections to be closed."""
TIDY_SECONDS, TIDY_AGAIN_SECONDS = 15.0, 3600.0
"""How long after an erasure statistics are renewed, together with those of the next ones; and how often where
some of them can't be."""


class StoreController(Controller[ObjectKey]):
    """Connects each store, visits it each interval and whenever there is work, and tells what came of it."""

    name = "datastore"
    at_once = 64

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        context: Callable[[], PassContext],
        cluster: Cluster,
        metrics: Metrics,
        connect: ConnectStore,
        status: StoreStatus,
        requests: RequestStatusController,
        completion: RequestCompletion,
        restores: RestoreEventController,
        gates: GateController,
        *,
        clock: Callable[[], datetime],
        journal_interval: float,
        sweep_interval: float,
        regrade: Callable[[], None],
        ring_open_legal: Callable[[], None],
    ) -> None:
        super().__init__()
        self._cache, self._ledger, self._context = cache, ledger, context
        self._cluster, self._metrics, self._connect, self._clock = cluster, metrics, connect, clock
        self._status, self._requests, self._completion = status, requests, completion
        self._gates = gates
        self._restores, self._regrade, self._ring_open_legal = restores, regrade, ring_open_legal
        self._journal_interval, self._sweep_interval = journal_interval, sweep_interval
        self._last_look: dict[str, float] = {}
        self._last_sweep: dict[str, float] = {}
        self._tidy: dict[str, float] = {}
        self._later_sweeps: dict[str, float] = {}
        self._steady, self._doubtful = BoundedThreads(STEADY_THREADS), BoundedThreads(DOUBTFUL_THREADS)

    # what rings

    def observe(self, manifest: Manifest, *, gone: bool = False) -> None:
        """Take in the newest manifest of a DataStore."""
        if gone:
            self.forget(key_of(manifest))
            return
        key = key_of(manifest)
        known = self._cache.datastores.get(key)
        if known is not None and version_of(manifest) < version_of(known):
            return  # a list or an event that was overtaken
        self._cache.datastores[key] = manifest
        if key not in self._cache.stores:
            with suppress(InvalidManifest):  # `reconcile` says so
                self._cache.stores[key] = managed_store(manifest, _shown(manifest))
        if known is None or _is_other(manifest, known):
            self.queue.add(key)

    def forget(self, key: ObjectKey) -> None:
        """A DataStore is gone."""
        self._cache.datastores.pop(key, None)
        self.queue.add(key)

    def ring(self, namespaces: Collection[str]) -> None:
        """Let every store of these namespaces be visited soon."""
        for namespace, name in self._cache.stores:
            if namespace in namespaces:
                self.queue.add((namespace, name))

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """Take in every DataStore that there is, and let go of those that are gone."""
        before = set(self._cache.datastores)
        listed = set[ObjectKey]()
        async for manifest in self._cluster.list("datastores", namespaces):
            listed.add(key_of(manifest))
            self.observe(manifest)
        for key in before - listed:
            self.forget(key)
        self._regrade()

    # what is asked

    async def find_contacts(self, namespace: str, legals: Collection[str]) -> Mapping[str, SubjectContact]:
        """Ask the Primary how subjects of legal requests are reached. Raises `StoreBusy`."""
        managed = self._cache.primary_of(namespace)
        if managed is None:
            message = "this namespace has no DataStore with role Primary, which holds the address; apply one"
            raise StoreBusy(message)
        wanted = frozenset(legals)
        return await self._ask(managed, lambda session: find_contacts(session, self._context(), wanted))

    async def _ask(self, managed: ManagedStore, ask: Callable[[StoreSession], T]) -> T:
        """Ask a store in its thread, between two passes. Raises `StoreBusy` if it does not answer in time."""
        name = managed.description.short_name
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        managed.questions.append(StoreQuestion(ask, answer))
        self.queue.add(managed.key)
        try:
            return await asyncio.wait_for(answer, CONTACT_SECONDS)
        except TimeoutError:
            raise StoreBusy(f"waits for DataStore {name}, which has not answered yet") from None
        except StoreError as wrong:
            raise StoreBusy(f"waits for DataStore {name}: {wrong}") from None

    # one key

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Take one store one step further; return the seconds until the next (`None`: its work rings)."""
        managed = self._cache.stores.get(key)
        pause: float | None = None
        if managed is not None and managed.work is not None:
            if not managed.work.future.done():
                managed.rung = True
                self._give_up_if_outdated(key, managed)
                return self._give_up_if_late(managed, managed.work)
            pause = await self._finish(managed)
        manifest = self._cache.datastores.get(key)
        if manifest is None:
            await self._let_go(key, managed)
            return None
        if managed is None or _is_other(manifest, managed.manifest):
            managed = await self._meet(manifest, managed)
            if managed is None:
                return None
        elif pause is not None and self._kept_off(managed) is None:
            return pause
        return await self._begin(managed)

    def _give_up_if_outdated(self, key: ObjectKey, managed: ManagedStore) -> None:
        """Cut off the work on a store that is gone, another one by now, or being restored: it ends soon, as
        unreachable.

        What it leaves half done is found by whoever looks next, as after a crash.
        """
        manifest = self._cache.datastores.get(key)
        outdated = manifest is None or _is_other(manifest, managed.manifest) or self._kept_off(managed)
        if managed.given_up or not outdated:
            return
        managed.given_up = True
        _close(managed)

    def _give_up_if_late(self, managed: ManagedStore, work: StoreWork) -> float | None:
        """Cut off work for which a store takes too long; return the seconds until then.

        Each of its answers ends in time, but one that has many to give could take a day.
        """
        if managed.given_up:
            return None
        left = work.ends_at - time.monotonic()
        if left > 0:
            return min(left, LOOK_SECONDS)
        managed.given_up = True
        _close(managed)
        return None

    async def show_trouble(self, key: ObjectKey, trouble: Trouble) -> None:
        """Say in a DataStore's status that Lethe failed over it."""
        managed = self._cache.stores.get(key)
        if managed is None:
            return
        if managed.session is not None:
            managed.session.note_trouble(trouble)
        else:
            managed.unusable = trouble
        # What only begins a pass counts as well for the runtime: so it is put off here.
        managed.retries += 1
        managed.retry_after = time.monotonic() + min(MAX_PAUSE, 2.0 ** min(managed.retries, 6))
        self._metrics.store_up.labels(managed.name).set(0)
        await self._status.write(managed)

    async def close(self) -> None:
        """Tell what the passes have done that ended while the operator was ending."""
        for managed in self._cache.stores.values():
            work = managed.work
            if work is not None and work.is_pass and work.future.done() and managed.session is not None:
                with suppress(Exception):
                    await self._after(managed, managed.session, work.future.result(), work.records)

    async def _meet(self, manifest: Manifest, known: ManagedStore | None) -> ManagedStore | None:
        """Look after a store as its newest manifest says."""
        try:
            managed = managed_store(manifest, known.shown if known is not None else _shown(manifest))
        except InvalidManifest as invalid:
            log.warning("%s", invalid)
            return None
        if known is not None:
            _close(known)
            managed.questions, managed.snapshots_remain = known.questions, known.snapshots_remain
        uid = manifest["metadata"].get("uid", "")
        managed.shown.uid = uid
        self._cache.stores[managed.key] = managed
        self._regrade()  # what it says of its backups may be new
        return managed

    async def _let_go(self, key: ObjectKey, managed: ManagedStore | None) -> None:
        """Look after a store no more. Its last pass has ended: before, no hold may count on its absence."""
        if managed is None:
            return
        _close(managed)
        _refuse_questions(managed, "it is gone")
        self._cache.stores.pop(key, None)
        for moments in (self._tidy, self._later_sweeps, self._last_look, self._last_sweep):
            moments.pop(managed.name, None)
        self._metrics.forget_store(managed.name)

    async def _begin(self, managed: ManagedStore) -> float | None:
        """Begin a pass, if the store can be visited; else say why it can't, and when it is tried again."""
        if managed.was_safe is None:
            await self._recall(managed)
        records = self._cache.open_records(managed.description.namespace)
        if managed.description.owner is StoreOwner.THIRD_PARTY:
            _refuse_questions(managed, "it belongs to a third party, and is asked nothing")
            await self._mark_third_party(managed, records)
            managed.unusable = None
            await self._status.write(managed)
            return self._journal_interval
        kept_off = self._kept_off(managed)
        if kept_off is not None:
            if managed.session is not None:  # what the gate closes there takes a connection
                await self._gates.heed(managed)
            await self._keep_off(managed, kept_off, records)
            await self._show_safety(managed)
            await self._status.write(managed)
            return self._journal_interval
        refused = self._refuse_namesake(managed) or self._refuse_second_primary(managed)
        if refused or not await self._connected(managed):
            self._metrics.store_up.labels(managed.name).set(0)
            _refuse_questions(managed, managed.trouble.message if managed.trouble else "it is not connected")
            await self._status.write(managed)
            return RECONNECT_SECONDS
        now = time.monotonic()
        if managed.trouble is not None:
            _refuse_questions(managed, managed.trouble.message)
            if now < managed.retry_after:
                return managed.retry_after - now
        if not self._begin_question(managed):
            self._begin_pass(managed, records, now)
        return LOOK_SECONDS

    def _kept_off(self, managed: ManagedStore) -> Trouble | None:
        """Return why a person wants Lethe to keep off a store; `None`: nobody does."""
        ahead = self._cache.ahead_of(managed)
        if ahead is None or ahead.begun_at is None:
            return SUSPENDED if managed.suspended else None
        return Trouble(TroubleReason.RESTORE_UNDERWAY, ahead.message)

    async def _keep_off(self, managed: ManagedStore, why: Trouble, records: Sequence[RequestRecord]) -> None:
        """Let go of a store. What was verified of it counts no more: another takes its place."""
        if managed.session is not None:  # who is told so may drop the database the next moment
            closing = in_daemon(f"closing {managed.name}", managed.session.port.close)
            await asyncio.wait([closing], timeout=CLOSING_SECONDS)
        managed.session, managed.let_go, managed.given_up = None, True, False
        managed.retries, managed.retry_after = 0, 0.0
        self._last_look.pop(managed.name, None)
        _refuse_questions(managed, why.message)
        self._metrics.store_up.labels(managed.name).set(0)
        if managed.unusable != why:
            managed.unusable = why
            for record in records:
                self._requests.want(_key_of(record))

    async def _recall(self, managed: ManagedStore) -> None:
        """Take in what the ledger knows of a store that this process has not looked at yet."""
        restores = [episode for episode in await self._restores.recall(managed) if episode.open]
        for episode in restores:
            self._restores.note(managed, episode, None, opened=False)
        # A mapping is recorded only when a look has shown that no restore goes on.
        proved = await asyncio.to_thread(self._ledger.mappings, managed.name)
        managed.was_safe = bool(proved) and not restores
        # Whoever took it up again while no process was there: nobody has looked at it since.
        managed.let_go = managed.let_go or _was_let_go(managed.shown.status)
        self._gates.queue.add(managed.key)

    async def _connected(self, managed: ManagedStore) -> bool:
        """Open the session where there is none; anew where the Secret of a store in trouble has changed."""
        now = time.monotonic()
        in_trouble = managed.session is not None and managed.trouble is not None
        if in_trouble and now - managed.secret_read > SECRET_SECONDS:
            managed.secret_read = now
            with suppress(ClusterUnavailable):  # its present credentials may still do
                if await has_other_secret(managed, self._cluster, self._connect):
                    _close(managed)
                    managed.session, managed.retry_after = None, 0.0
        managed.unusable = None
        late = managed.trouble if managed.given_up else None
        if managed.given_up:
            managed.session, managed.given_up = None, False
        if managed.session is None:
            await open_session(managed, self._cluster, self._connect)
        opened = managed.session
        if opened is not None and late is not None:
            opened.note_trouble(late)  # until a pass has ended
        return opened is not None

    def _begin_question(self, managed: ManagedStore) -> bool:
        """Let the first question that still waits be answered; tell whether there is one."""
        session = managed.session
        while managed.questions and session is not None and session.proof is not None:
            question = managed.questions.popleft()
            if question.answer.done():
                continue

            def work(question: StoreQuestion = question, session: StoreSession = session) -> object:
                if open_episode_of(session, self._context()) is not None:
                    raise StoreError("it was restored, and its missing erasures come first")
                return question.ask(session)

            self._run(managed, work, is_pass=False).add_done_callback(partial(_answer, question))
            return True
        return False

    def _begin_pass(self, managed: ManagedStore, records: Sequence[RequestRecord], began: float) -> None:
        session = managed.session
        assert session is not None  # noqa: S101 - `_connected` has seen to it
        primary = self._cache.primary_of(managed.description.namespace)
        primary_name, plan = primary.name if primary else None, self._plan(managed, began)

        def work() -> StorePass:
            return self._pass(managed, session, records, primary_name, plan)

        sets = bool(records or plan.sweep or plan.tidy or plan.releases or managed.replay or session.catch_up)
        seconds = SET_SECONDS + RECORD_SECONDS * (len(records) + managed.applied) if sets else 0.0
        self._run(managed, work, records=records, is_pass=True, seconds=LOOK_SECONDS + seconds)

    def _run(
        self,
        managed: ManagedStore,
        work: Callable[[], T],
        *,
        is_pass: bool,
        records: Sequence[RequestRecord] = (),
        seconds: float = LOOK_SECONDS,
    ) -> asyncio.Future[T]:
        """Do work in the store's thread, which does one thing at a time; its end rings."""
        steady = managed.pass_ended_well and managed.trouble is None
        threads = self._steady if steady else self._doubtful
        turn: list[float] = []

        def begin() -> T:
            turn.append(time.monotonic())
            return work()

        future = threads.run(managed.description.namespace, f"store {managed.name}", begin)
        managed.work = StoreWork(future, time.monotonic(), is_pass, records, turn, seconds)
        future.add_done_callback(lambda _: self.queue.add(managed.key))
        return future

    async def _finish(self, managed: ManagedStore) -> float | None:
        """Tell what came of the work that has ended; return the seconds until the next pass."""
        work, session, rung = managed.work, managed.session, managed.rung
        managed.work, managed.rung = None, False
        if work is None or session is None or not work.is_pass:
            return 0.0 if rung else self._next_look(managed)
        done: StorePass = work.future.result()
        if managed.given_up and time.monotonic() >= work.ends_at:
            session.note_trouble(_late(work))
        self._note_moments(managed, done, work.began)
        managed.let_go = managed.let_go and not (done.looked and session.trouble is None)
        await self._after(managed, session, done, work.records)
        if done.looked and session.trouble is None and not done.episodes:
            self._restores.count_look(managed, work.began)
        if session.trouble is not None:
            managed.retries += 1
            pause: float = min(MAX_PAUSE, self._journal_interval, 0.5 * 2 ** min(managed.retries, 10))
            managed.retry_after = time.monotonic() + pause
            return pause
        managed.retries, managed.retry_after, managed.pass_ended_well = 0, 0.0, True
        return 0.0 if rung else self._next_pause(managed, done)

    def _next_pause(self, managed: ManagedStore, done: StorePass) -> float:
        served = done.served
        if served is not None and served.settled and served.retry:
            return 0.05
        if done.head_moved or (served is not None and served.head_moved):
            self._last_look.pop(managed.name, None)
            return 0.1
        return self._next_look(managed)

    def _next_look(self, managed: ManagedStore) -> float:
        waited = time.monotonic() - self._last_look.get(managed.name, float("-inf"))
        return max(0.02, self._journal_interval - waited)

    def _pass(
        self,
        managed: ManagedStore,
        session: StoreSession,
        records: Sequence[RequestRecord],
        primary: str | None,
        plan: PassPlan,
    ) -> StorePass:
        """Visit a store, in its thread."""
        done = store_pass.reconcile_store(
            session,
            records,
            self._context(),
            plan,
            primary=primary,
        )
        managed.journal_number = self._ledger.known_head(session.name).last_number
        managed.applied = self._ledger.tombstone_count(session.name)
        return done

    def _plan(self, managed: ManagedStore, began: float) -> PassPlan:
        """Say what the next visit is to do, by what is due."""
        name = managed.name
        look = began - self._last_look.get(name, -1e9) >= self._journal_interval - 0.01
        releases = self._cache.releases_of(managed) if managed.replay is not None else {}
        watched = self._cache.watched_stores()
        ahead = self._cache.ahead_of(managed)
        ended = ahead is not None and bool(ahead.ended)
        if not look and not ended and not any(one.uid for one in releases.values()):
            return PassPlan(look=False, watched=watched)
        sweep = began - self._last_sweep.get(name, -1e9) >= self._sweep_interval
        return PassPlan(
            look=True,
            sweep=sweep or began >= self._later_sweeps.get(name, float("inf")),
            tidy=began >= self._tidy.get(name, float("inf")),
            manual_release=managed.manual_release,
            restore_ended=ended,
            releases=releases,
            watched=watched,
        )

    def _note_moments(self, managed: ManagedStore, done: StorePass, began: float) -> None:
        """Remember what was done when, and what is due because of it."""
        name = managed.name
        if done.looked and not done.head_moved:
            if (
                managed.applied and name not in self._last_look
            ):  # the process before this one may have ended before it was tidied
                self._tidy.setdefault(name, began + TIDY_SECONDS)
            self._last_look[name] = began
        if done.swept:
            self._last_sweep[name] = began
            if began >= self._later_sweeps.get(name, float("inf")):
                del self._later_sweeps[name]
        if done.tidied:
            del self._tidy[name]
            if managed.session is not None and managed.session.samples_left:
                self._tidy[name] = began + TIDY_AGAIN_SECONDS
        if done.gate_opened:
            self._later_sweeps[name] = began + LATER_SWEEP_INTERVALS * self._journal_interval
        if done.gate_opened or done.re_erased or (done.served is not None and done.served.verified):
            self._tidy[name] = min(self._tidy.get(name, float("inf")), began + TIDY_SECONDS)

    async def _after(
        self, managed: ManagedStore, session: StoreSession, done: StorePass, records: Sequence[RequestRecord]
    ) -> None:
        self._metrics.store_up.labels(managed.name).set(session.trouble is None)
        # Also by none: an alert sees a counter rise only from a sample that was there before.
        self._metrics.resurrected.labels(managed.name).inc(done.re_erased)
        if done.re_erased:
            log.warning(
                "store %s: %d erased people had been written back; erased again",
                session.name,
                done.re_erased,
            )
        await self._follow_restores(managed, done)
        self._metrics.glass_breaks.labels(managed.name).inc(done.released)
        if done.resolved:
            self._ring_open_legal()
        await self._show_safety(managed)
        await self._status.write(managed)
        if done.served is not None:
            verified, refused = len(done.served.verified), done.served.refused
            self._metrics.erasures.labels(session.name, "verified").inc(verified)
            self._metrics.erasures.labels(session.name, "refused").inc(refused)
            now = self._clock()
            for record in done.served.verified:
                waited = (now - record.accepted.accepted_at).total_seconds()
                self._metrics.erasure_seconds.labels(managed.name).observe(waited)
            if done.touched:
                # Before the next pass: it must not be given requests as they were before this one.
                await self._completion.settle({_key_of(record) for record in done.touched})
                for other in self._cache.stores_of(managed.description.namespace):
                    if other is not managed and done.served.settled:
                        self.queue.add(other.key)
        elif session.trouble is not None:
            for record in records:
                self._requests.want(_key_of(record))
        await self._tell_written_back(managed, session)

    async def _tell_written_back(self, managed: ManagedStore, session: StoreSession) -> None:
        """Say once of each record that it was written back: it will be again, until somebody sees to it."""
        told = list(session.untold)
        if not told:
            return
        message = f"{records_named(told)} were written back; they are erased again, as often as it happens"
        with suppress(ClusterUnavailable):  # else by the next pass
            await self._cluster.record_event(
                Event(managed.manifest, "WrittenBackAgain", message, warning=True)
            )
            session.note_told(told)

    async def _follow_restores(self, managed: ManagedStore, done: StorePass) -> None:
        """Set the gate by what a pass has found, and only then tell: pods must not serve meanwhile."""
        for episode in done.episodes:
            self._restores.note(managed, episode, done.step, opened=done.opened)
        if done.knows_releases:
            managed.looked_in = managed.session
        await self._gates.heed(managed)
        await self._restores.tell(managed, done.episodes)
        await self._restores.follow_release(managed, done)

    async def _mark_third_party(self, managed: ManagedStore, records: Sequence[RequestRecord]) -> None:
        new = await asyncio.to_thread(third_party.not_asked, records, managed.name, self._context())
        await self._completion.settle({_key_of(record) for record in new})

    def _refuse_namesake(self, managed: ManagedStore) -> bool:
        """Refuse a store that takes over the name of one that is still there."""
        twins = [one for one in self._cache.stores.values() if one.name == managed.name]
        refused = len(twins) > 1 and managed.description.formerly is not None
        if refused:
            name = managed.description.formerly
            message = f"DataStore {name} is still there; delete it, or correct spec.formerly"
            managed.unusable = Trouble(TroubleReason.OTHER_NAME, message)
        return refused

    def _refuse_second_primary(self, managed: ManagedStore) -> bool:
        primary = self._cache.primary_of(managed.description.namespace)
        second = managed.description.role == "Primary" and primary is not None and primary is not managed
        if second and primary is not None:
            name = primary.description.short_name
            message = f"DataStore {name} is the Primary of this namespace already; change spec.role"
            managed.unusable = Trouble(TroubleReason.DUPLICATE_PRIMARY, message)
        return second

    async def _show_safety(self, managed: ManagedStore) -> None:
        """Measure whether the store may be served, and let its pods know."""
        trouble, session = managed.trouble, managed.session
        if trouble is not None and trouble.reason is TroubleReason.IN_RECOVERY:
            managed.replay = managed.replay or (trouble.reason.value, trouble.message)
        elif (
            trouble is None and managed.replay is not None and managed.replay[0] == TroubleReason.IN_RECOVERY
        ):
            managed.replay = None  # not by its restart in between, which shows nothing
        seen = session is not None and session.last_observed_at is not None
        unsafe = self._cache.why_unsafe(managed)
        if not (seen or managed.suspended or unsafe is not None):
            return
        safe = unsafe is None and managed.trouble is None
        left = managed.release.left if managed.release is not None else None
        self._metrics.safe.labels(managed.name).set(safe)
        self._metrics.missing.labels(managed.name).set(managed.missing + (left or 0))
        self._metrics.glass_broken.labels(managed.name).set(managed.release is not None and left != 0)
        await self._gates.heed(managed)


def _shown(manifest: Manifest) -> ShownStatus:
    return ShownStatus(manifest["metadata"].get("uid", ""), dict(manifest.get("status") or {}))


def _was_let_go(status: Mapping[str, Any]) -> bool:
    """Tell whether a DataStore's status says that the store was left alone when it was written."""
    return any(one.get("reason") in LET_GO for one in status.get("conditions") or ())


def _is_other(manifest: Manifest, known: Manifest) -> bool:
    """Tell whether a manifest says something else of a store, or is of another object of its name."""
    other_spec = manifest.get("spec") != known.get("spec")
    return other_spec or manifest["metadata"].get("uid") != known["metadata"].get("uid")


def _late(work: StoreWork) -> Trouble:
    message = (
        f"its answers to one pass took longer than {work.seconds / 60:.0f} min together; see what slows it "
        "down, or who answers in its place. Lethe connects anew"
    )
    return Trouble(TroubleReason.UNREACHABLE, message)


def _answer(question: StoreQuestion, work: asyncio.Future[Any]) -> None:
    if question.answer.done():
        return
    error = work.exception()
    if error is not None:
        question.answer.set_exception(error)
    else:
        question.answer.set_result(work.result())


def _refuse_questions(managed: ManagedStore, why: str) -> None:
    while managed.questions:
        answer = managed.questions.popleft().answer
        if not answer.done():
            answer.set_exception(StoreError(why))


def _close(managed: ManagedStore) -> None:
    """Give a store's connections back; one that hangs is left alone."""
    if managed.session is not None:
        in_daemon(f"closing {managed.name}", managed.session.port.close)


def _key_of(record: RequestRecord) -> ObjectKey:
    return record.accepted.namespace, record.accepted.name
