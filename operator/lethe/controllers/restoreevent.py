"""RestoreEvents: each restore has one, whether a person declared it or Lethe found it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Literal

from lethe.api.parse import InvalidManifest, parse
from lethe.api.status.base import troubled_status
from lethe.api.status.restoreevent import restoreevent_status
from lethe.api.v1alpha1.restoreevent import RestoreEvent
from lethe.controllers.runtime.cache import ManagedStore, ObjectCache, ObjectKey, RestoreEventView, key_of
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.status_writer import (
    ShownStatus,
    StatusKind,
    StatusWriter,
    Written,
    without_counters,
)
from lethe.domain.conditions.restoreevent import restoreevent_conditions
from lethe.domain.facts import DetectedBy
from lethe.domain.periods import instant
from lethe.domain.restores import RestoreEpisode
from lethe.domain.snapshots import restored_snapshot
from lethe.domain.trouble import Trouble
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Event, Manifest
from lethe.ports.ledger import Ledger
from lethe.ports.stores import JournalSupport
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.episode import decide_identities, explain, open_episode
from lethe.workflows.restore.replay import ReplayState, ReplayStep
from lethe.workflows.store_pass import StorePass

log = logging.getLogger("lethe.restores")

RESTORE_EVENT = StatusKind("restoreevents", "RestoreEvent", essence=without_counters)

EXPLAINABLE_AFTERWARDS = timedelta(hours=24)
"""How long after a restore has been dealt with a RestoreEvent may still give its reason."""

DECLARED_AHEAD = timedelta(hours=24)
"""How long before a restore is detected a RestoreEvent may declare it: an older one was meant for another."""

Shown = Literal[
    "Waiting", "Replaying", "IdentityUnclear", "HeldRowsReturned", "AwaitingRelease", "MappingDoesNotFit"
]
_SHOWN: Mapping[ReplayState, Shown] = {
    ReplayState.WAITING: "Waiting",
    ReplayState.AGAIN: "Replaying",
    ReplayState.IDENTITY_UNCLEAR: "IdentityUnclear",
    ReplayState.HELD_ROWS_RETURNED: "HeldRowsReturned",
    ReplayState.AWAITING_RELEASE: "AwaitingRelease",
    ReplayState.MAPPING_DOES_NOT_FIT: "MappingDoesNotFit",
}


class RestoreEventController(Controller[ObjectKey]):
    """Ties RestoreEvents to the restores that the ledger knows, and says in each what became of it."""

    name = "restoreevent"
    at_once = 8

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        context: Callable[[], PassContext],
        cluster: Cluster,
        metrics: Metrics,
        writer: StatusWriter,
        clock: Callable[[], datetime],
        *,
        name_of_snapshot: Callable[[ObjectKey, str], str | None],
        ring_store: Callable[[ObjectKey], None],
        journal_interval: float,
    ) -> None:
        super().__init__()
        self._cache, self._ledger, self._context, self._cluster = cache, ledger, context, cluster
        self._metrics, self._writer, self._clock = metrics, writer, clock
        self._name_of_snapshot, self._ring_store = name_of_snapshot, ring_store
        self._one_tick = timedelta(seconds=2 * journal_interval)
        self._steps: dict[str, ReplayStep] = {}
        self._counted: set[tuple[str, str, str]] = set()
        self._undeclared: Counter[str] = Counter()
        self._read_at = -1

    def observe(self, manifest: Manifest, *, gone: bool = False) -> None:
        """Take in the newest manifest of a RestoreEvent."""
        if gone:
            self.forget(key_of(manifest))
            return
        key, uid = key_of(manifest), manifest["metadata"].get("uid", "")
        known = self._cache.restore_events.get(key)
        if known is not None and known.shown.uid == uid:
            known.manifest = manifest
        else:
            shown = ShownStatus(uid, dict(manifest.get("status") or {}))
            self._cache.restore_events[key] = RestoreEventView(manifest, shown)
        self.queue.add(key)

    def forget(self, key: ObjectKey) -> None:
        """A RestoreEvent is gone: the restore that it was about goes on."""
        self._cache.restore_events.pop(key, None)
        self.queue.discard(key)

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """Take in every RestoreEvent that there is."""
        async for manifest in self._cluster.list("restoreevents", namespaces):
            self.observe(manifest)

    async def show_trouble(self, key: ObjectKey, trouble: Trouble) -> None:
        """Say in a RestoreEvent's status that Lethe failed over it."""
        view = self._cache.restore_events.get(key)
        if view is None:
            return
        status = troubled_status(trouble, view.shown.status, generation=view.generation, now=self._clock())
        await self._writer.write(RESTORE_EVENT, key, view.shown, status)

    async def reconcile(self, key: ObjectKey) -> float | None:
        """See which restore an event explains, and what a person decided in it."""
        view = self._cache.restore_events.get(key)
        if view is None:
            return None
        try:
            event = parse(RestoreEvent, view.manifest)
        except InvalidManifest as invalid:
            log.warning("%s", invalid)
            return None
        managed, episode = self._cache.stores.get((key[0], event.spec.store)), None
        if managed is not None:
            episode = await self._episode_for(managed, view, event.spec.reason.value)
        if managed is not None and episode is not None:
            await self._record(managed, episode, event, view)
            episodes = await asyncio.to_thread(self._ledger.episodes, store=managed.name)
            episode = next(e for e in episodes if e.episode == episode.episode)
        await self._report(key, episode)
        if episode is None and not self._expired(view):
            return (_declared_at(view) + DECLARED_AHEAD - self._clock()).total_seconds() + 1.0
        return None

    async def _episode_for(
        self, managed: ManagedStore, view: RestoreEventView, reason: str
    ) -> RestoreEpisode | None:
        """Return the restore that an event is about: its own, the open one, or a recent one without a
        reason. It is bound once, and to none that came a day after it or later.
        """
        event, declared_at, now = key_of(view.manifest)[1], _declared_at(view), self._clock()
        episodes = await asyncio.to_thread(self._ledger.episodes, store=managed.name)
        for episode in episodes:
            if event in episode.events:
                return episode
        for episode in reversed(episodes):
            recent = episode.safe_at is not None and now - episode.safe_at < EXPLAINABLE_AFTERWARDS
            explainable = episode.open or (episode.undeclared and recent)
            if explainable and episode.detected_at - declared_at < DECLARED_AHEAD:
                return episode
        session = managed.session
        if session is None or session.proof is None or reason == "Undeclared" or self._expired(view):
            return None
        if session.proof.journal is JournalSupport.KEPT:
            return None  # the journal will tell when the store goes back
        # Nothing in such a store tells a restore: a declaration is taken at its word.
        episode = await asyncio.to_thread(open_episode, session, self._context(), DetectedBy.DECLARATION)
        self._ring_store(managed.key)
        return episode

    def _expired(self, view: RestoreEventView) -> bool:
        return self._clock() - _declared_at(view) >= DECLARED_AHEAD

    async def _record(
        self, managed: ManagedStore, episode: RestoreEpisode, event: RestoreEvent, view: RestoreEventView
    ) -> None:
        name, reason = event.metadata.name or "", event.spec.reason.value
        await self._explain(managed, episode, name, reason, view)
        decisions = [(one.table, one.key, one.decision.value) for one in event.spec.identities]
        await asyncio.to_thread(decide_identities, episode, self._context(), decisions)
        if event.spec.release is not None and episode.open:
            self._ring_store(managed.key)

    def note(
        self, managed: ManagedStore, episode: RestoreEpisode, step: ReplayStep | None, *, opened: bool
    ) -> None:
        """Take in how a restore goes on: from then on the store says whether it is safe to serve."""
        if step is not None and episode.open:
            self._steps[episode.episode] = step
        if episode.open:
            shown = self._shown(episode)
            reason = "RestoreDetected" if opened else shown[0] if shown[0] != "Waiting" else "Replaying"
            managed.replay = (reason, shown[1])
            managed.missing = max(0, episode.missing - episode.re_erased - episode.left_alone)
        else:
            managed.replay, managed.missing = None, 0
            self._steps.pop(episode.episode, None)
            self._metrics.reerased.labels(managed.name).inc(episode.re_erased)
            self._metrics.left_alone.labels(managed.name).inc(episode.left_alone)
            if episode.safe_at is not None:
                took = (episode.safe_at - episode.detected_at).total_seconds()
                self._metrics.reerase_seconds.labels(managed.name).observe(took)

    async def tell(self, managed: ManagedStore, episode: RestoreEpisode) -> None:
        """Tell about a restore as it goes on, in its RestoreEvent."""
        if not episode.events and episode.open:
            await self._adopt_or_create(managed, episode)
            episodes = await asyncio.to_thread(self._ledger.episodes, store=managed.name)
            episode = next(e for e in episodes if e.episode == episode.episode)
        await self._report_all(managed, episode)

    async def follow_release(self, managed: ManagedStore, done: StorePass) -> None:
        """Tell about a store that is served because a person says so, for as long as it is."""
        if not done.knows_releases or done.standing_release == managed.release:
            return
        managed.release = done.standing_release
        if managed.release is not None:
            await self._report_all(managed, managed.release)

    async def _report_all(self, managed: ManagedStore, episode: RestoreEpisode) -> None:
        """Say in every RestoreEvent of a restore where it stands."""
        for name in episode.events:
            await self._report((managed.description.namespace, name), episode)

    async def _adopt_or_create(self, managed: ManagedStore, episode: RestoreEpisode) -> None:
        namespace, store = managed.description.namespace, managed.description.short_name
        episodes = await asyncio.to_thread(self._ledger.episodes, store=managed.name)
        bound = {name for earlier in episodes for name in earlier.events}
        for (ns, name), view in sorted(self._cache.restore_events.items()):
            spec = view.manifest.get("spec", {})
            about_this = ns == namespace and spec.get("store") == store and name not in bound
            if about_this and episode.detected_at - _declared_at(view) < DECLARED_AHEAD:
                reason = spec.get("reason", "Undeclared")
                await self._explain(managed, episode, name, reason, view)
                return
        manifest = {
            "apiVersion": "lethe.dev/v1alpha1",
            "kind": "RestoreEvent",
            "metadata": {"name": episode.episode, "namespace": namespace},
            "spec": {"store": store, "reason": "Undeclared"},
        }
        try:
            self._metrics.api_writes.labels("create").inc()
            created = await self._cluster.create("restoreevents", namespace, manifest)
            created = created or await self._cluster.get("restoreevents", namespace, episode.episode)
        except (ClusterUnavailable, ClusterRefused) as away:
            log.warning("RestoreEvent for store %s waits: %s", managed.name, away)
            return
        log.warning("store %s went back in time and nobody declared a restore", managed.name)
        await self._explain(managed, episode, episode.episode, "Undeclared")
        if created is not None:
            self.observe(created)

    async def measure(self, head: int) -> None:
        """Count the restores that nobody has given a reason for; `head` is the ledger's last entry."""
        if head != self._read_at:
            episodes = await asyncio.to_thread(self._ledger.episodes)
            self._undeclared = Counter(episode.store for episode in episodes if episode.undeclared)
            self._read_at = head
        for managed in self._cache.stores.values():
            self._metrics.restores_without_reason.labels(managed.name).set(self._undeclared[managed.name])

    def _count(self, managed: ManagedStore, event: str, reason: str) -> None:
        # Whoever makes an event explains it, and so does its doorbell, which may ring first: one restore.
        if (managed.name, event, reason) not in self._counted:
            self._counted.add((managed.name, event, reason))
            self._metrics.restores.labels(managed.name, reason).inc()

    async def _explain(
        self,
        managed: ManagedStore,
        episode: RestoreEpisode,
        event: str,
        reason: str,
        view: RestoreEventView | None = None,
    ) -> None:
        # Whoever wrote a release before the restore was seen did not know of it.
        release = view is not None and bool(view.manifest.get("spec", {}).get("release"))
        ahead = view is not None and release and _declared_at(view) < episode.detected_at
        context = self._context()
        if await asyncio.to_thread(
            explain, episode, context, event=event, reason=reason, released_ahead=ahead
        ):
            self._count(managed, event, reason)

    def _shown(self, episode: RestoreEpisode, event: str | None = None) -> tuple[Shown, str]:
        step = self._steps.get(episode.episode)
        if step is None or step.state not in _SHOWN:
            shown: Shown = "Replaying"
            message = "the store went back in time; its erasures are applied again"
        else:
            shown, message = _SHOWN[step.state], step.message
        if event in episode.released_ahead:
            message += (
                ". spec.release was written before this restore was seen, and does not count for it: to let "
                "the store be served, apply another RestoreEvent that has one"
            )
        return shown, message

    def _origin(self, manifest: Manifest, episode: RestoreEpisode | None) -> Mapping[str, str] | None:
        """Return what a store was restored from: what its journal tells, else what was declared."""
        said = (manifest.get("spec") or {}).get("restoredFrom")
        if episode is None or episode.back_to is None:
            return said or None
        origin = {"takenAt": instant(episode.back_to)}
        sources = self._cache.sources_of(episode.store)
        known = [s for source in sources if source.known for s in source.known.snapshots.values()]
        snapshot = restored_snapshot(known, episode.back_to, one_tick=self._one_tick)
        if snapshot is not None:
            source = next(s for s in sources if s.description.known_as == snapshot.source)
            name = self._name_of_snapshot(source.key, snapshot.ref)
            if name is not None:
                origin = {"snapshot": name, "takenAt": instant(snapshot.taken_at)}
        return origin

    async def _report(self, key: ObjectKey, episode: RestoreEpisode | None) -> None:
        view = self._cache.restore_events.get(key)
        if view is None:
            return
        before = view.shown.status.get("state")
        condition_set = restoreevent_conditions(
            episode,
            reason=view.manifest.get("spec", {}).get("reason", "Undeclared"),
            expired=self._expired(view),
            replay=self._shown(episode, key[1]) if episode is not None and episode.open else None,
        )
        status = restoreevent_status(
            episode,
            condition_set,
            view.shown.status,
            generation=view.generation,
            now=self._clock(),
            origin=self._origin(view.manifest, episode),
        )
        written = await self._writer.write(RESTORE_EVENT, key, view.shown, status)
        if written is Written.WRITTEN and status.get("state") != before:
            ready = condition_set.ready
            warning = status.get("state") not in ("SafeToServe", "Declared", "Expired")
            await self._cluster.record_event(Event(view.manifest, ready.reason, ready.message, warning))


def _declared_at(view: RestoreEventView) -> datetime:
    """Return when a RestoreEvent was made, to the second."""
    return datetime.fromisoformat(view.manifest["metadata"]["creationTimestamp"])
