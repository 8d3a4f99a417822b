"""The gates of stores: a pod serves if every store that selects it lets it.

Set at once when what a store says has changed, and each interval besides: pods come and go, and none must
wait for a pass that takes long, or for a store that can't even be connected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from lethe.api.v1alpha1.datastore import WhenAway
from lethe.controllers.datastore_connect import SUSPENDED, ConnectStore
from lethe.controllers.datastore_status import StoreStatus
from lethe.controllers.gate_ways import OtherWays
from lethe.controllers.runtime.cache import ManagedStore, ObjectCache, ObjectKey
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.metrics import Metrics
from lethe.domain.conditions.restoreevent import VERIFIED, released
from lethe.domain.gates import GateState, GateVerdict, for_pod, verdict_of
from lethe.domain.mapping import StoreOwner
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable
from lethe.ports.ledger import Ledger

log = logging.getLogger("lethe.gate")

UNDONE_SECONDS = 2.0
"""How soon a gate is tried again that was refused, or could not be closed."""


class GateController(Controller[ObjectKey]):
    """Closes and opens what each DataStore names in its gate: the readiness gates of pods, and more."""

    name = "gate"
    at_once = 16

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        cluster: Cluster,
        metrics: Metrics,
        status: StoreStatus,
        connect: ConnectStore,
        *,
        every: float,
    ) -> None:
        super().__init__()
        self._ways = OtherWays(cluster, connect)
        self._one_at_a_time: dict[ObjectKey, asyncio.Lock] = {}
        self._cache, self._ledger, self._cluster, self._metrics = cache, ledger, cluster, metrics
        self._status, self._every = status, every
        self._set: dict[ObjectKey, GateVerdict] = {}

    async def heed(self, managed: ManagedStore) -> None:
        """Set the gate now if a store says something else than when it was set last."""
        if managed.gate is None or self._set.get(managed.key) == self._verdict_of(managed):
            return
        try:
            problem = await self._set_gate(managed)
            if problem is not None:  # the status that is written next must not say that a restore may begin
                managed.gate_trouble = Trouble(TroubleReason.MISCONFIGURED, problem)
        except ClusterUnavailable as away:
            problem = str(away)
        if problem is not None:
            log.warning("gate of store %s can't be set: %s", managed.name, problem)
        if managed.key not in self._set:
            self.queue.add(managed.key)  # which says so, and tries again

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Set the gate of one store's pods, also of those that have come since."""
        managed = self._cache.stores.get(key)
        problem = None
        if managed is None or managed.gate is None:
            self._set.pop(key, None)
            self._one_at_a_time.pop(key, None)
            self._ways.forget(key)
        else:
            problem = await self._set_gate(managed)
        if managed is None:
            return None
        await self._show(managed, Trouble(TroubleReason.MISCONFIGURED, problem) if problem else None)
        if managed.gate is None:
            return None
        return self._every if key in self._set else min(self._every, UNDONE_SECONDS)

    async def show_trouble(self, key: ObjectKey, trouble: Trouble) -> None:
        """Say in a DataStore's status that its gate can't be set."""
        managed = self._cache.stores.get(key)
        if managed is not None:
            await self._show(managed, trouble)

    async def _show(self, managed: ManagedStore, trouble: Trouble | None) -> None:
        if managed.gate_trouble != trouble:
            managed.gate_trouble = trouble
            await self._status.write(managed)

    async def _set_gate(self, managed: ManagedStore) -> str | None:
        """Set all that a gate names; return what keeps it from being set."""
        # Or an opening that is slow could end after the closing that came later.
        async with self._one_at_a_time.setdefault(managed.key, asyncio.Lock()):
            verdict, problems = self._verdict_of(managed), list[str]()
            self._set.pop(managed.key, None)
            away: ClusterUnavailable | None = None
            try:
                await self._set_pods(managed)
            except ClusterRefused as refused:
                problems.append(f"the gate of its pods can't be set: {refused}")
            except ClusterUnavailable as gone:
                away = gone  # to close roles no API server is needed
            others, done = await self._ways.set(
                managed, lambda: self._verdict_of(managed), confirm=self._confirm
            )
            problems += [f"its gate can't be set: {other}" for other in others]
            if away is not None:
                raise away
            if done and not problems:
                self._set[managed.key] = verdict
            return "; ".join(problems) or None

    async def _confirm(self) -> None:
        await asyncio.to_thread(self._ledger.confirm)

    async def _set_pods(self, managed: ManagedStore) -> None:
        namespace, gate = managed.description.namespace, managed.gate
        if gate is None or gate.pod_selector is None:
            return

        def of_pod(labels: Mapping[str, str]) -> GateVerdict:
            """Asked right before a pod is written: a store may have gone back while others were."""
            return for_pod(
                [
                    self._verdict_of(one)
                    for one in self._cache.stores_of(namespace)
                    if one is managed or _selects(one, labels)
                ]
            )

        selector = managed.manifest["spec"]["gate"]["podSelector"]
        changed = await self._cluster.set_gate(namespace, selector, of_pod, confirm=self._confirm)
        if changed:
            self._metrics.api_writes.labels("gate").inc(len(changed))
            log.info(
                "gate of store %s: %d pods were set, the store says %s",
                managed.name,
                len(changed),
                self._verdict_of(managed).state.name,
            )

    def _verdict_of(self, managed: ManagedStore) -> GateVerdict:
        if managed.description.owner is StoreOwner.THIRD_PARTY:
            return GateVerdict(GateState.OPEN, "ThirdParty", "nothing is ever sent to the store")
        session = None if managed.let_go else managed.session
        seen = session is not None and session is managed.looked_in
        counts = managed.gate is not None and managed.gate.when_away is WhenAway.LAST_VERIFIED
        suspended = (SUSPENDED.reason.value, SUSPENDED.message) if managed.suspended else None
        return verdict_of(
            managed.description.short_name,
            suspended or self._cache.why_unsafe(managed),
            managed.trouble,
            in_place=released(managed.release) or VERIFIED,
            seen=seen,
            was_safe=counts and not managed.let_go and (seen or bool(managed.was_safe)),
        )


def _selects(managed: ManagedStore, labels: Mapping[str, str]) -> bool:
    selector = managed.gate.pod_selector if managed.gate is not None else None
    return selector is not None and selector.selects(labels)
