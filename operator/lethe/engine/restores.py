"""RestoreEvents: each restore has one, whether a person declared it or Lethe found it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from lethe.api.parse import InvalidManifest, parse
from lethe.api.status import differs, replacing, restore_status
from lethe.api.v1alpha1.restoreevent import RestoreEvent
from lethe.domain.conditions import conditions_of_restore
from lethe.domain.facts import DetectedBy
from lethe.domain.periods import instant
from lethe.domain.restores import RestoreEpisode
from lethe.domain.snapshots import restored_snapshot
from lethe.engine.cache import ManagedStore, ObjectCache, ObjectKey
from lethe.engine.metrics import Metrics
from lethe.engine.snapshots import SnapshotObjects
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Event, Manifest
from lethe.ports.ledger import Ledger
from lethe.ports.stores import JournalSupport
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.episode import decide_identities, explain, open_episode
from lethe.workflows.restore.replay import ReplayState, ReplayStep

log = logging.getLogger("lethe.restores")

EXPLAINABLE_AFTERWARDS = timedelta(hours=24)
"""How long after a restore has been dealt with a RestoreEvent may still give its reason."""

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


class Restores:
    """Ties RestoreEvents to the restores that the ledger knows, and reports."""

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        context: Callable[[], PassContext],
        cluster: Cluster,
        metrics: Metrics,
        clock: Callable[[], datetime],
        objects: SnapshotObjects,
        journal_interval: float,
    ) -> None:
        self._cache, self._ledger, self._context, self._cluster = cache, ledger, context, cluster
        self._metrics, self._clock, self._objects = metrics, clock, objects
        self._one_tick = timedelta(seconds=2 * journal_interval)
        self._steps: dict[str, ReplayStep] = {}
        self._counted: set[tuple[str, str, str]] = set()
        self._undeclared: Counter[str] = Counter()
        self._read_at = -1

    async def meet(self, manifest: Manifest) -> None:
        """Take in a RestoreEvent: which restore it explains, and what a person decided in it."""
        try:
            event = parse(RestoreEvent, manifest)
        except InvalidManifest as invalid:
            log.warning("%s", invalid)
            return
        namespace, name = event.metadata.namespace or "", event.metadata.name or ""
        self._cache.restore_events[(namespace, name)] = manifest
        managed = self._cache.stores.get((namespace, event.spec.store))
        if managed is None:
            await self._report((namespace, name), None)
            return
        episode = await self._episode_for(managed, name, event.spec.reason.value)
        if episode is not None:
            await self._record(managed, episode, event)
            episodes = await asyncio.to_thread(self._ledger.episodes, store=managed.name)
            episode = next(e for e in episodes if e.episode == episode.episode)
        await self._report((namespace, name), episode)

    async def _episode_for(self, managed: ManagedStore, event: str, reason: str) -> RestoreEpisode | None:
        """Return the restore that an event is about: its own, the open one, or a recent one without a
        reason.
        """
        episodes = await asyncio.to_thread(self._ledger.episodes, store=managed.name)
        for episode in episodes:
            if event in episode.events:
                return episode
        for episode in episodes:
            if episode.open:
                return episode
        now = self._clock()
        for episode in reversed(episodes):
            if episode.undeclared and episode.safe_at and now - episode.safe_at < EXPLAINABLE_AFTERWARDS:
                return episode
        store = managed.store
        if store is None or store.proof is None or reason == "Undeclared":
            return None
        if store.proof.journal is JournalSupport.KEPT:
            return None  # the journal will tell when the store goes back
        # Nothing in such a store tells a restore: a declaration is taken at its word.
        episode = await asyncio.to_thread(open_episode, store, self._context(), DetectedBy.DECLARATION)
        managed.wake.set()
        return episode

    async def _record(self, managed: ManagedStore, episode: RestoreEpisode, event: RestoreEvent) -> None:
        name, reason = event.metadata.name or "", event.spec.reason.value
        await self._explain(managed, episode, name, reason)
        decisions = [(one.table, one.key, one.decision.value) for one in event.spec.identities]
        await asyncio.to_thread(decide_identities, episode, self._context(), decisions)
        if event.spec.release is not None and episode.open:
            managed.release = episode.episode, event.spec.release.because
            managed.wake.set()

    async def follow(
        self, managed: ManagedStore, episode: RestoreEpisode, step: ReplayStep | None, *, opened: bool
    ) -> None:
        """Tell about a restore as it goes on: event object, conditions of the store, metrics."""
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
        if not episode.events and episode.open:
            await self._adopt_or_create(managed, episode)
            episodes = await asyncio.to_thread(self._ledger.episodes, store=managed.name)
            episode = next(e for e in episodes if e.episode == episode.episode)
        for name in episode.events:
            await self._report((managed.description.namespace, name), episode)

    async def _adopt_or_create(self, managed: ManagedStore, episode: RestoreEpisode) -> None:
        namespace, store = managed.description.namespace, managed.description.short_name
        for (ns, name), manifest in sorted(self._cache.restore_events.items()):
            spec = manifest.get("spec", {})
            about_this = ns == namespace and spec.get("store") == store
            if about_this and (manifest.get("status") or {}).get("state") in (None, "Pending", "Declared"):
                reason = spec.get("reason", "Undeclared")
                await self._explain(managed, episode, name, reason)
                return
        manifest = {
            "apiVersion": "lethe.dev/v1alpha1",
            "kind": "RestoreEvent",
            "metadata": {"name": episode.episode, "namespace": namespace},
            "spec": {"store": store, "reason": "Undeclared"},
        }
        try:
            self._metrics.api_writes.labels("create").inc()
            await self._cluster.create("restoreevents", namespace, manifest)
        except (ClusterUnavailable, ClusterRefused) as away:
            log.warning("RestoreEvent for store %s waits: %s", managed.name, away)
            return
        log.warning("store %s went back in time and nobody declared a restore", managed.name)
        await self._explain(managed, episode, episode.episode, "Undeclared")
        async for created in self._cluster.list(
            "restoreevents", [namespace], f"metadata.name={episode.episode}"
        ):
            self._cache.restore_events[(namespace, episode.episode)] = created

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

    async def _explain(self, managed: ManagedStore, episode: RestoreEpisode, event: str, reason: str) -> None:
        context = self._context()
        if await asyncio.to_thread(explain, episode, context, event=event, reason=reason):
            self._count(managed, event, reason)

    def _shown(self, episode: RestoreEpisode) -> tuple[Shown, str]:
        step = self._steps.get(episode.episode)
        if step is None or step.state not in _SHOWN:
            return "Replaying", "the store went back in time; its erasures are applied again"
        return _SHOWN[step.state], step.message

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
            source = next(s for s in sources if s.name == snapshot.source)
            name = self._objects.name_of(source.key, snapshot.ref)
            if name is not None:
                origin = {"snapshot": name, "takenAt": instant(snapshot.taken_at)}
        return origin

    async def _report(self, key: ObjectKey, episode: RestoreEpisode | None) -> None:
        manifest = self._cache.restore_events.get(key)
        if manifest is None:
            return
        metadata = manifest["metadata"]
        before: Mapping[str, Any] = manifest.get("status") or {}
        condition_set = conditions_of_restore(
            episode,
            reason=manifest.get("spec", {}).get("reason", "Undeclared"),
            replay=self._shown(episode) if episode is not None and episode.open else None,
        )
        status = restore_status(
            episode,
            condition_set,
            before,
            generation=metadata.get("generation", 1),
            now=self._clock(),
            origin=self._origin(manifest, episode),
        )
        if not differs(status, before):
            return
        try:
            self._metrics.api_writes.labels("status").inc()
            written = await self._cluster.write_status(
                "restoreevents",
                key[0],
                key[1],
                uid=metadata["uid"],
                status=replacing(status, before),
            )
        except (ClusterUnavailable, ClusterRefused) as away:
            log.warning("status of a RestoreEvent waits: %s", away)
            return
        if written:
            self._cache.restore_events[key] = {**manifest, "status": status}
            if status.get("state") != before.get("state"):
                ready = condition_set.ready
                warning = status.get("state") not in ("SafeToServe", "Declared")
                await self._cluster.record_event(Event(manifest, ready.reason, ready.message, warning))
