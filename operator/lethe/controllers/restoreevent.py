"""RestoreEvents: each restore has one, whether a person declared it or Lethe found it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

from lethe.api.parse import InvalidManifest, parse
from lethe.api.status.base import troubled_status
from lethe.api.status.restoreevent import restoreevent_status
from lethe.api.v1alpha1.restoreevent import RestoreEvent
from lethe.controllers.runtime.cache import (
    ManagedStore,
    ObjectCache,
    ObjectKey,
    RestoreEventView,
    key_of,
    version_of,
)
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.status_writer import (
    ShownStatus,
    StatusKind,
    StatusWriter,
    Written,
    without_counters,
)
from lethe.domain.announced import EXPECTED_FOR, Underway, bound_events, is_answered
from lethe.domain.conditions.restoreevent import UNDER_REPLAY, Shown, restoreevent_conditions
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

ONE_SECOND = timedelta(seconds=1)
"""How exact a `creationTimestamp` is."""

DECLARED_AHEAD = timedelta(hours=24)
"""How long before a restore is detected a RestoreEvent may declare it: an older one was meant for another."""

STILL_SECONDS = 5.0
"""How often what a restore that has ended waits for is said anew, until the store has been looked at."""

LOOKS_AFTER = 2
"""How many looks have to find nothing after others' object has ended, until no restore is expected by it."""

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
        ring_gate: Callable[[ObjectKey], None],
        journal_interval: float,
    ) -> None:
        super().__init__()
        self._cache, self._ledger, self._context, self._cluster = cache, ledger, context, cluster
        self._metrics, self._writer, self._clock = metrics, writer, clock
        self._name_of_snapshot, self._ring_store, self._ring_gate = name_of_snapshot, ring_store, ring_gate
        self._one_tick = timedelta(seconds=2 * journal_interval)
        self._steps: dict[str, ReplayStep] = {}
        self._counted: set[tuple[str, str, str]] = set()
        self._undeclared: Counter[str] = Counter()
        self._read_at = -1
        self._looks: dict[ObjectKey, tuple[float, int]] = {}
        self.has_ended: Callable[[str, str], bool] = lambda kind, uid: False  # noqa: ARG005 - nobody watches
        """Tells of kind and uid of an object of others that nothing comes of it any more."""

    def observe(self, manifest: Manifest, *, gone: bool = False) -> None:
        """Take in the newest manifest of a RestoreEvent."""
        if gone:
            self.forget(key_of(manifest))
            return
        key, uid = key_of(manifest), manifest["metadata"].get("uid", "")
        known = self._cache.restore_events.get(key)
        if known is not None and version_of(manifest) < version_of(known.manifest):
            return  # a list or an event that was overtaken
        if known is not None and known.shown.uid == uid:
            known.manifest = manifest
        else:
            self._forget_announced(key)
            shown = ShownStatus(uid, dict(manifest.get("status") or {}))
            known = self._cache.restore_events[key] = RestoreEventView(manifest, shown)
        self._take_announced(key, known)
        self.queue.add(key)

    def forget(self, key: ObjectKey) -> None:
        """A RestoreEvent is gone: the restore that it was about goes on."""
        self._forget_announced(key)
        self._looks.pop(key, None)
        self._cache.restore_events.pop(key, None)
        self.queue.discard(key)

    def _take_announced(self, key: ObjectKey, view: RestoreEventView) -> None:
        """Close the gate at once where a restore is told of ahead, and ring the store's looks."""
        announcement, store = view.announcement, view.store
        announced = self._cache.announced.setdefault(store, {})
        if announcement is not None and announced.get(key[1]) != announcement:
            announced[key[1]] = announcement
            self._ring_gate(store)
            self._ring_store(store)

    def _forget_announced(self, key: ObjectKey) -> None:
        view = self._cache.restore_events.get(key)
        if view is not None and self._cache.announced.get(view.store, {}).pop(key[1], None) is not None:
            self._ring_store(view.store)

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """Take in every RestoreEvent that there is, and let go of those that are gone."""
        before, listed = set(self._cache.restore_events), set[ObjectKey]()
        async for manifest in self._cluster.list("restoreevents", namespaces):
            listed.add(key_of(manifest))
            self.observe(manifest)
        for key in before - listed:
            self.forget(key)

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
            episode = await self._newest(managed, episode)
        await self._report(key, episode)
        if view.announcement is None:
            self._forget_announced(key)
        if episode is not None or self._expired(view):
            return None
        if view.announcement is not None:
            return STILL_SECONDS
        return (view.declared_at + DECLARED_AHEAD - self._clock()).total_seconds() + 1.0

    async def _episode_for(
        self, managed: ManagedStore, view: RestoreEventView, reason: str
    ) -> RestoreEpisode | None:
        """Return the restore that an event is about: its own, the open one, or a recent one without a
        reason. It is bound once, and to none that came a day after it or later.
        """
        event, declared_at, now = key_of(view.manifest)[1], view.declared_at, self._clock()
        episodes = await asyncio.to_thread(self._ledger.episodes, store=managed.name)
        announced = view.announcement
        if announced is not None:
            newest = episodes[::-1]
            own = (e for e in newest if is_answered(announced, bound_events([e])))
            # What a person has made is up to a second younger than its moment says.
            surely_after = declared_at if announced.expected else declared_at + ONE_SECOND
            others = (
                e
                for e in newest
                if _may_tell_of(view, e) and (e.open or (e.undeclared and e.detected_at >= surely_after))
            )
            return next(own, None) or next(others, None)
        bound = next((episode for episode in episodes if event in episode.events), None)
        if bound is not None or view.expected is not None:
            return bound
        for episode in reversed(episodes):
            recent = episode.safe_at is not None and now - episode.safe_at < EXPLAINABLE_AFTERWARDS
            explainable = episode.open or (episode.undeclared and recent)
            if explainable and _may_tell_of(view, episode):
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
        long_ago = self._clock() - view.declared_at >= DECLARED_AHEAD
        return view.announcement is None and (long_ago or view.expected is not None)

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

    async def tell(self, managed: ManagedStore, episodes: Sequence[RestoreEpisode]) -> None:
        """Tell about restores as they go on, in their RestoreEvents.

        All are tied first: an event goes on with the restore that superseded its own, and tells of that one.
        """
        if not episodes:
            return
        await self.recall(managed)
        for episode in episodes:
            ahead = self._cache.ahead_of(managed)
            ended = ahead.ended if ahead is not None and episode.open else ()
            for event in sorted(ended):  # they tell of this restore, found by now or taken at their word
                view = self._cache.restore_events[managed.description.namespace, event]
                await self._explain(managed, episode, event, view.manifest["spec"]["reason"], view)
            if not episode.events and episode.open and not ended:
                await self._adopt_or_create(managed, episode)
        for one in self._cache.expected_of(managed):  # this may be theirs, too
            self.queue.add((managed.description.namespace, one.event))
        names = {episode.episode for episode in episodes}
        await self._report_all(managed, [e for e in await self.recall(managed) if e.episode in names])

    async def recall(self, managed: ManagedStore) -> Sequence[RestoreEpisode]:
        """Take in what the ledger knows of a store's restores; return them, oldest first."""
        episodes = await asyncio.to_thread(self._ledger.episodes, store=managed.name)
        managed.bound = bound_events(episodes)
        return episodes

    async def _newest(self, managed: ManagedStore, episode: RestoreEpisode) -> RestoreEpisode:
        return next(e for e in await self.recall(managed) if e.episode == episode.episode)

    async def follow_release(self, managed: ManagedStore, done: StorePass) -> None:
        """Tell about a store that is served because a person says so, for as long as it is."""
        if not done.knows_releases or done.standing_release == managed.release:
            return
        managed.release = done.standing_release
        if managed.release is not None:
            await self._report_all(managed, [managed.release])

    async def _report_all(self, managed: ManagedStore, episodes: Sequence[RestoreEpisode]) -> None:
        """Say in every RestoreEvent of restores, the oldest first, where the last stands that is its."""
        newest = {event: episode for episode in episodes for event in episode.events}
        for event, episode in newest.items():
            await self._report((managed.description.namespace, event), episode)

    async def _adopt_or_create(self, managed: ManagedStore, episode: RestoreEpisode) -> None:
        namespace, store = managed.description.namespace, managed.description.short_name
        episodes = await asyncio.to_thread(self._ledger.episodes, store=managed.name)
        if any(one.events for one in episodes if one.episode == episode.episode):
            return  # whoever applied one was heard meanwhile
        bound, answered = {name for earlier in episodes for name in earlier.events}, bound_events(episodes)
        # What a person has declared rather than what Lethe expects: it has a reason.
        views = self._cache.restore_events.items()
        for (_, name), view in sorted(views, key=lambda one: (one[1].expected is not None, one[0])):
            told = view.announcement
            free = name not in bound or (told is not None and not is_answered(told, answered))
            if view.store == managed.key and free and _may_tell_of(view, episode):
                reason = view.manifest["spec"].get("reason", "Undeclared")
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
        """Count the restores that nobody has given a reason for, and measure since when one is under way.

        `head` is the ledger's last entry.
        """
        if head != self._read_at:
            episodes = await asyncio.to_thread(self._ledger.episodes)
            self._undeclared = Counter(episode.store for episode in episodes if episode.undeclared)
            self._read_at = head
        for managed in self._cache.stores.values():
            self._metrics.restores_without_reason.labels(managed.name).set(self._undeclared[managed.name])
            ahead = self._cache.ahead_of(managed)
            since = self._clock() - ahead.begun_at if ahead is not None and ahead.begun_at else timedelta()
            self._metrics.restore_underway.labels(managed.name).set(since.total_seconds())

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
        ahead = view is not None and bool(view.release) and view.declared_at < episode.detected_at
        context = self._context()
        if await asyncio.to_thread(
            explain, episode, context, event=event, reason=reason, released_ahead=ahead
        ):
            self._count(managed, event, reason)

    def _shown(
        self, episode: RestoreEpisode, event: str | None = None, view: RestoreEventView | None = None
    ) -> tuple[Shown, str]:
        step = self._steps.get(episode.episode)
        if step is None or step.state not in _SHOWN:
            shown: Shown = "Replaying"
            message = UNDER_REPLAY[episode.detected_by is DetectedBy.DECLARATION]
        else:
            shown, message = _SHOWN[step.state], step.message
        if event in episode.released_ahead:
            message += (
                ". spec.release was written before this restore was seen, and does not count for it: to let "
                "the store be served, apply another RestoreEvent that has one"
            )
        elif view is not None and view.names_another_uid:
            message += (
                f". spec.release.uid is not this RestoreEvent's own ({view.shown.uid}), and does not count: "
                "apply another RestoreEvent, and give it its uid"
            )
        return shown, message

    def _underway(self, view: RestoreEventView) -> str | None:
        """Return what is waited for while a restore is under way, or has ended and was not looked at yet."""
        announced, store = view.announcement, view.store
        if announced is None or announced.underway is None:
            return None
        managed, begun = self._cache.stores.get(store), announced.underway is Underway.BEGUN
        if managed is None and begun:
            return (
                f"there is no DataStore {store[1]} in this namespace, so no gate is closed; delete this "
                "RestoreEvent, and apply one that names the store in spec.store"
            )
        if begun:
            return (
                f"the gate of DataStore {store[1]} is closed and Lethe has let go of it; once it is restored,"
                " set spec.underway to Ended (kubectl lethe restore end)"
            )
        if managed is None or is_answered(announced, managed.bound or {}):
            return None
        if managed.trouble is not None:
            return f"the restore has ended; Lethe waits for DataStore {store[1]}: {managed.trouble.message}"
        return f"the restore has ended; Lethe looks at DataStore {store[1]}"

    def count_look(self, managed: ManagedStore, began: float) -> None:
        """Take in that a look, begun then (monotonic), has found no restore.

        After two, none is expected any more by what had ended before them.
        """
        for one in self._cache.expected_of(managed):
            key = managed.description.namespace, one.event
            expected = self._cache.restore_events[key].expected or {}
            if not self.has_ended(expected["kind"], expected["uid"]):
                self._looks.pop(key, None)
                continue
            since, looks = self._looks.setdefault(key, (time.monotonic(), 0))
            if began > since:
                self._looks[key] = since, looks + 1
                self.queue.add(key)

    def _expectation(self, key: ObjectKey, view: RestoreEventView) -> tuple[str, bool] | None:
        """Return what is said of a restore that others announce, and whether it is expected no more."""
        if view.expected is None:
            return None
        announced, release = view.announcement, view.release
        if announced is None:  # as it was said when it ended
            said = (one for one in view.shown.status["conditions"] if one["type"] == "Ready")
            return next(said)["message"], True
        by = announced.expected
        if release:
            return f"{by}: no restore is expected by it, says a person ({release['because']})", True
        if self._looks.get(key, (0.0, 0))[1] >= LOOKS_AFTER:
            return f"{by} has ended, and two looks since have seen no restore", True
        over = announced.declared_at + EXPECTED_FOR
        if self._clock() >= over and self._was_looked_at(view.store, over):
            return f"{by} has brought no restore that was seen within an hour", True
        return (
            f"{by} may bring the store's data back: the gate is closed until a restore was dealt with, until"
            " two looks after that object has ended, or for an hour; spec.release opens it sooner"
        ), False

    def _was_looked_at(self, store: ObjectKey, since: datetime) -> bool:
        """Tell whether a store has answered since a moment: before, no gate opens because time went by."""
        managed = self._cache.stores.get(store)
        if managed is None or managed.session is None:
            return managed is None
        seen_at = managed.session.last_observed_at
        return managed.trouble is None and seen_at is not None and seen_at >= since

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
            replay=self._shown(episode, key[1], view) if episode is not None and episode.open else None,
            underway=self._underway(view),
            expected=self._expectation(key, view),
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
            warning = status.get("state") not in ("SafeToServe", "Declared", "Underway", "Expired")
            await self._cluster.record_event(Event(view.manifest, ready.reason, ready.message, warning))


def _may_tell_of(view: RestoreEventView, episode: RestoreEpisode) -> bool:
    """Tell whether a RestoreEvent that is tied to no restore yet may be about this one.

    What was found before others' object was noticed is another one, which is going on or has been.
    """
    if view.expected is not None:
        return view.announcement is not None and episode.detected_at >= view.declared_at
    return view.announcement is not None or episode.detected_at - view.declared_at < DECLARED_AHEAD
