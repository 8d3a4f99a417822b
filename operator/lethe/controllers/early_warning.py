"""Early warning: others' objects that may bring a store's data back close its gate before the data is there.

It only warns: a restore is found by the looks, whether anybody was warned or not. So what is missed here
costs the moments until the next look, and what is told for nothing a gate that stays closed for a while.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime

from lethe.controllers.early_warning_kinds import WATCHED, Restoring, Watched, basics
from lethe.controllers.runtime.cache import ManagedStore, ObjectCache, ObjectKey
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.metrics import Metrics
from lethe.domain.announced import EXPECTED_FOR
from lethe.domain.mapping import StoreOwner
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Manifest, OthersObjects, Seen

log = logging.getLogger("lethe.early_warning")

WatchKey = tuple[str, str]
"""Plural of a kind, and the namespace in which it is watched (empty: the whole cluster)."""

AT_ONCE = 4
"""How many expected restores of one store are announced at a time: its gate is closed by the first."""
LOOK_AGAIN_SECONDS = 5.0
"""How often it is seen whether a kind is there that was not, or may be read that might not."""
UNUSED_SECONDS = 2.0
"""How often it is seen whether any DataStore or BackupSource asks for a kind."""


class EarlyWarning(Controller[WatchKey]):
    """Watches others' objects, and makes a RestoreEvent for each store whose data one may bring back."""

    name = "early-warning"

    def __init__(
        self,
        cache: ObjectCache,
        cluster: Cluster,
        others: OthersObjects,
        metrics: Metrics,
        clock: Callable[[], datetime],
        *,
        watch: Mapping[str, str],
        namespaces: Collection[str],
        observe: Callable[[Manifest], None],
    ) -> None:
        super().__init__()
        self._cache, self._cluster, self._others = cache, cluster, others
        self._metrics, self._clock, self._observe = metrics, clock, observe
        self._found: dict[str, tuple[WatchKey, Restoring]] = {}
        self._harmless: dict[str, WatchKey] = {}
        self._listed: dict[WatchKey, bool] = {}
        self._warned: set[tuple[str, ObjectKey]] = set()
        self._keys = [
            (plural, namespace)
            for plural, kind in WATCHED.items()
            if kind.by in watch
            for namespace in ([watch[kind.by]] if watch[kind.by] else namespaces or [""])
        ]
        self.at_once = max(1, len(self._keys))
        for key in self._keys:
            self.queue.add(key)

    async def reconcile(self, key: WatchKey) -> float | None:
        """Watch one kind in one namespace, for as long as that goes well."""
        kind = WATCHED[key[0]]
        if not self._is_asked_for(kind):
            return UNUSED_SECONDS
        try:
            await self._follow(key, kind)
        except ClusterRefused as refused:
            self._note(key, refused)
            return LOOK_AGAIN_SECONDS
        except ClusterUnavailable:
            if not self._listed.get(key):
                raise
        return UNUSED_SECONDS

    def has_ended(self, kind: str, uid: str) -> bool:
        """Tell whether nothing comes of an object any more, as far as its kind can be seen."""
        keys = [key for key in self._keys if WATCHED[key[0]].kind == kind]
        return uid not in self._found and bool(keys) and all(self._listed.get(key) for key in keys)

    async def warn(self) -> None:
        """Make a RestoreEvent for each store and each object that may bring its data back."""
        if not self._found:
            return
        since = self._clock() - EXPECTED_FOR
        recent = sorted(
            (one for _, one in self._found.values() if one.created_at > since), key=lambda one: one.created_at
        )
        for managed in list(self._cache.stores.values()):
            if managed.description.owner is StoreOwner.THIRD_PARTY:
                continue
            mounts = self._mounts_of(managed)
            place, home = managed.manifest["spec"].get("runsIn"), managed.description.namespace
            for one in recent:
                if one.concerns(place, home, mounts):
                    await self._announce(managed, one)

    async def _announce(self, managed: ManagedStore, one: Restoring) -> None:
        pair, store = (one.uid, managed.key), managed.description.short_name
        name = f"{store[:200]}-expected-{one.uid}"
        known = (managed.description.namespace, name) in self._cache.restore_events
        if pair in self._warned or known or len(self._cache.expected_of(managed)) >= AT_ONCE:
            return
        self._warned.add(pair)
        expected = {"kind": one.kind, "namespace": one.namespace, "name": one.name, "uid": one.uid}
        expected["noticedAt"] = self._clock().isoformat()
        manifest = {
            "apiVersion": "lethe.dev/v1alpha1",
            "kind": "RestoreEvent",
            "metadata": {"name": name, "namespace": managed.description.namespace},
            "spec": {"store": store, "reason": "Undeclared", "expected": expected},
        }
        try:
            self._metrics.api_writes.labels("create").inc()
            made = await self._cluster.create("restoreevents", managed.description.namespace, manifest)
        except (ClusterUnavailable, ClusterRefused) as away:
            self._warned.discard(pair)
            log.warning("store %s can't be warned of a restore: %s", managed.name, away)
            return
        if made is not None:
            log.warning(
                "store %s: %s %s/%s may bring its data back", managed.name, one.kind, one.namespace, one.name
            )
            self._observe(made)

    async def _follow(self, key: WatchKey, kind: Watched) -> None:
        listed: set[str] | None = set()
        async for seen in self._others.follow(kind.what, key[1]):
            if seen is not None:
                uid = seen.manifest["metadata"]["uid"]
                if await self._take(key, kind, uid, seen):
                    await self.warn()
                if listed is not None and (uid in self._found or uid in self._harmless):
                    listed.add(uid)
            elif listed is not None:
                for uid in [uid for uid in self._seen_by(key) if uid not in listed]:
                    self._forget(uid)
                listed = None
                self._note(key, None)

    async def _take(self, key: WatchKey, kind: Watched, uid: str, seen: Seen) -> bool:
        """Take in an object as it is now; tell whether it may bring data back and was not known yet."""
        if seen.gone or kind.has_ended(seen.manifest):
            self._forget(uid)
        elif uid not in self._found and uid not in self._harmless:
            kept = await kind.read(seen.manifest, self._others)
            if kept is not None:
                self._found[uid] = key, Restoring(**basics(kind.kind, seen.manifest), **kept)
                return True
            if kind.what.bare:  # else reading it costs no call
                self._harmless[uid] = key
        return False

    def _forget(self, uid: str) -> None:
        self._harmless.pop(uid, None)
        if self._found.pop(uid, None) is not None:
            self._warned = {pair for pair in self._warned if pair[0] != uid}

    def _seen_by(self, key: WatchKey) -> Iterator[str]:
        yield from (uid for uid, (by, _) in self._found.items() if by == key)
        yield from (uid for uid, by in self._harmless.items() if by == key)

    def _note(self, key: WatchKey, refused: ClusterRefused | None) -> None:
        """Remember whether a kind can be seen, and say so once where that is new.

        A kind that is not there has no objects; of one that may not be read nobody knows.
        """
        absent = refused is not None and refused.code == 404
        seen = refused is None or absent
        if absent:
            for uid in list(self._seen_by(key)):
                self._forget(uid)
        if self._listed.get(key) is not seen:
            plural, where = key[0], key[1] or "all namespaces"
            if not seen:
                log.warning("no early warning by %s in %s: %s", plural, where, refused)
            elif absent:
                log.info("early warning by %s waits until the kind is installed", plural)
            else:
                log.info("early warning by %s in %s", plural, where)
        self._listed[key] = seen
        self._metrics.early_warning_up.labels(key[0]).set(
            all(seen for (plural, _), seen in self._listed.items() if plural == key[0])
        )

    def _is_asked_for(self, kind: Watched) -> bool:
        if kind.by == "jobs":
            directories = (source.source.spec.directory for source in self._cache.sources.values())
            return any(one is not None and one.claim_name for one in directories)
        return any(managed.manifest["spec"].get("runsIn") for managed in self._cache.stores.values())

    def _mounts_of(self, managed: ManagedStore) -> set[tuple[str, str]]:
        directories = ((s.key[0], s.source.spec.directory) for s in self._cache.sources_of(managed.name))
        return {(at, one.claim_name) for at, one in directories if one is not None and one.claim_name}
