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
from lethe.domain.facts import DetectedBy, Fact, IdentitiesDecided, RestoreExplained
from lethe.domain.periods import instant
from lethe.domain.restores import RestoreEpisode
from lethe.domain.snapshots import restored_snapshot
from lethe.engine.metrics import Metrics
from lethe.engine.snapshots import SnapshotObjects
from lethe.engine.world import Place, StoreGuard, World
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Manifest, Notice
from lethe.ports.ledger import Ledger
from lethe.ports.stores import JournalSupport
from lethe.workflows import watching
from lethe.workflows.replaying import ReplayState, ReplayStep

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
        world: World,
        ledger: Ledger,
        cluster: Cluster,
        metrics: Metrics,
        clock: Callable[[], datetime],
        objects: SnapshotObjects,
        journal_interval: float,
    ) -> None:
        self._world, self._ledger, self._cluster = world, ledger, cluster
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
        self._world.events[(namespace, name)] = manifest
        guard = self._world.guards.get((namespace, event.spec.store))
        if guard is None:
            await self._report((namespace, name), None)
            return
        episode = await self._episode_for(guard, name, event.spec.reason.value)
        if episode is not None:
            await self._record(guard, episode, event)
            episodes = await asyncio.to_thread(self._ledger.episodes, store=guard.name)
            episode = next(e for e in episodes if e.episode == episode.episode)
        await self._report((namespace, name), episode)

    async def _episode_for(self, guard: StoreGuard, event: str, reason: str) -> RestoreEpisode | None:
        """Return the restore that an event is about: its own, the open one, or a recent one without a
        reason.
        """
        episodes = await asyncio.to_thread(self._ledger.episodes, store=guard.name)
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
        store = guard.store
        if store is None or store.proof is None or reason == "Undeclared":
            return None
        if store.proof.journal is JournalSupport.KEPT:
            return None  # the journal will tell when the store goes back
        # Nothing in such a store tells a restore: a declaration is taken at its word.
        episode = await asyncio.to_thread(
            watching.open_episode, store, self._ledger, DetectedBy.DECLARATION, now=now
        )
        guard.wake.set()
        return episode

    async def _record(self, guard: StoreGuard, episode: RestoreEpisode, event: RestoreEvent) -> None:
        name, reason = event.metadata.name or "", event.spec.reason.value
        facts: list[Fact] = []
        if episode.events.get(name) != reason:
            facts.append(RestoreExplained(guard.name, episode.episode, name, reason))
            self._count(guard, name, reason)
        fresh = tuple(
            decision
            for decision in ((i.table, i.key, i.decision.value) for i in event.spec.identities)
            if decision not in episode.decisions
        )
        if fresh:
            facts.append(IdentitiesDecided(guard.name, episode.episode, fresh))
        if facts:
            await asyncio.to_thread(self._ledger.append, facts)
        if event.spec.release is not None and episode.open:
            guard.release = episode.episode, event.spec.release.because
            guard.wake.set()

    async def follow(
        self, guard: StoreGuard, episode: RestoreEpisode, step: ReplayStep | None, *, opened: bool
    ) -> None:
        """Tell about a restore as it goes on: event object, conditions of the store, metrics."""
        if step is not None and episode.open:
            self._steps[episode.episode] = step
        if episode.open:
            shown = self._shown(episode)
            reason = "RestoreDetected" if opened else shown[0] if shown[0] != "Waiting" else "Replaying"
            guard.replay = (reason, shown[1])
            guard.missing = max(0, episode.missing - episode.re_erased - episode.left_alone)
        else:
            guard.replay, guard.missing = None, 0
            self._steps.pop(episode.episode, None)
            self._metrics.reerased.labels(guard.name).inc(episode.re_erased)
            self._metrics.left_alone.labels(guard.name).inc(episode.left_alone)
            if episode.safe_at is not None:
                took = (episode.safe_at - episode.detected_at).total_seconds()
                self._metrics.reerase_seconds.labels(guard.name).observe(took)
        if not episode.events and episode.open:
            await self._adopt_or_create(guard, episode)
            episodes = await asyncio.to_thread(self._ledger.episodes, store=guard.name)
            episode = next(e for e in episodes if e.episode == episode.episode)
        for name in episode.events:
            await self._report((guard.description.namespace, name), episode)

    async def _adopt_or_create(self, guard: StoreGuard, episode: RestoreEpisode) -> None:
        namespace, store = guard.description.namespace, guard.description.short_name
        for (ns, name), manifest in sorted(self._world.events.items()):
            spec = manifest.get("spec", {})
            about_this = ns == namespace and spec.get("store") == store
            if about_this and (manifest.get("status") or {}).get("state") in (None, "Pending", "Declared"):
                reason = spec.get("reason", "Undeclared")
                await self._explain(guard, episode, name, reason)
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
            log.warning("RestoreEvent for store %s waits: %s", guard.name, away)
            return
        log.warning("store %s went back in time and nobody declared a restore", guard.name)
        await self._explain(guard, episode, episode.episode, "Undeclared")
        async for created in self._cluster.list(
            "restoreevents", [namespace], f"metadata.name={episode.episode}"
        ):
            self._world.events[(namespace, episode.episode)] = created

    async def measure(self, head: int) -> None:
        """Count the restores that nobody has given a reason for; `head` is the ledger's last entry."""
        if head != self._read_at:
            episodes = await asyncio.to_thread(self._ledger.episodes)
            self._undeclared = Counter(episode.store for episode in episodes if episode.undeclared)
            self._read_at = head
        for guard in self._world.guards.values():
            self._metrics.restores_without_reason.labels(guard.name).set(self._undeclared[guard.name])

    def _count(self, guard: StoreGuard, event: str, reason: str) -> None:
        # Whoever makes an event explains it, and so does its doorbell, which may ring first: one restore.
        if (guard.name, event, reason) not in self._counted:
            self._counted.add((guard.name, event, reason))
            self._metrics.restores.labels(guard.name, reason).inc()

    async def _explain(self, guard: StoreGuard, episode: RestoreEpisode, event: str, reason: str) -> None:
        self._count(guard, event, reason)
        fact = RestoreExplained(guard.name, episode.episode, event, reason)
        await asyncio.to_thread(self._ledger.append, [fact])

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
        sources = self._world.sources_of(episode.store)
        known = [s for source in sources if source.known for s in source.known.snapshots.values()]
        snapshot = restored_snapshot(known, episode.back_to, one_tick=self._one_tick)
        if snapshot is not None:
            source = next(s for s in sources if s.name == snapshot.source)
            name = self._objects.name_of(source.place, snapshot.ref)
            if name is not None:
                origin = {"snapshot": name, "takenAt": instant(snapshot.taken_at)}
        return origin

    async def _report(self, place: Place, episode: RestoreEpisode | None) -> None:
        manifest = self._world.events.get(place)
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
                place[0],
                place[1],
                uid=metadata["uid"],
                status=replacing(status, before),
            )
        except (ClusterUnavailable, ClusterRefused) as away:
            log.warning("status of a RestoreEvent waits: %s", away)
            return
        if written:
            self._world.events[place] = {**manifest, "status": status}
            if status.get("state") != before.get("state"):
                ready = condition_set.ready
                warning = status.get("state") not in ("SafeToServe", "Declared")
                await self._cluster.tell(Notice(manifest, ready.reason, ready.message, warning))
