"""The gates of pods: a pod serves if every store that selects it lets it.

Set at once when what a store says has changed, and each interval besides: pods come and go, and none must
wait for a pass that takes long, or for a store that can't even be connected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from lethe.api.v1alpha1.datastore import WhenAway
from lethe.controllers.datastore_connect import SUSPENDED
from lethe.controllers.datastore_status import StoreStatus
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


class GateController(Controller[ObjectKey]):
    """Sets the condition `lethe.dev/safe-to-serve` on the pods that each DataStore selects."""

    name = "gate"
    at_once = 16

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        cluster: Cluster,
        metrics: Metrics,
        status: StoreStatus,
        *,
        every: float,
    ) -> None:
        super().__init__()
        self._cache, self._ledger, self._cluster, self._metrics = cache, ledger, cluster, metrics
        self._status, self._every = status, every
        self._set: dict[ObjectKey, GateVerdict] = {}

    async def heed(self, managed: ManagedStore) -> None:
        """Set the gate now if a store says something else than when it was set last."""
        if managed.gate is None or self._set.get(managed.key) == self._verdict_of(managed):
            return
        try:
            await self._set_gate(managed)
        except (ClusterUnavailable, ClusterRefused) as refused:
            log.warning("gate of store %s can't be set: %s", managed.name, refused)
            self.queue.add(managed.key)  # which says so

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Set the gate of one store's pods, also of those that have come since."""
        managed = self._cache.stores.get(key)
        if managed is None or managed.gate is None:
            self._set.pop(key, None)
        else:
            await self._set_gate(managed)
        if managed is None:
            return None
        await self._show(managed, None)
        return self._every if managed.gate is not None else None

    async def show_trouble(self, key: ObjectKey, trouble: Trouble) -> None:
        """Say in a DataStore's status that its gate can't be set."""
        managed = self._cache.stores.get(key)
        if managed is not None:
            await self._show(managed, trouble)

    async def _show(self, managed: ManagedStore, trouble: Trouble | None) -> None:
        if managed.gate_trouble != trouble:
            managed.gate_trouble = trouble
            await self._status.write(managed)

    async def _set_gate(self, managed: ManagedStore) -> None:
        namespace, verdict = managed.description.namespace, self._verdict_of(managed)
        self._set.pop(managed.key, None)

        def of_pod(labels: Mapping[str, str]) -> GateVerdict:
            """Asked right before a pod is written: a store may have gone back while others were."""
            return for_pod(
                [
                    self._verdict_of(one)
                    for one in self._cache.stores_of(namespace)
                    if one is managed or (one.gate is not None and one.gate.pod_selector.selects(labels))
                ]
            )

        try:
            changed = await self._cluster.set_gate(
                namespace,
                managed.manifest["spec"]["gate"]["podSelector"],
                of_pod,
                confirm=lambda: asyncio.to_thread(self._ledger.confirm),
            )
        except ClusterRefused as refused:
            message = f"the gate of its pods can't be set: {refused}"
            await self._show(managed, Trouble(TroubleReason.MISCONFIGURED, message))
            raise
        self._set[managed.key] = verdict
        if changed:
            self._metrics.api_writes.labels("gate").inc(len(changed))
            log.info(
                "gate of store %s: %d pods were set, the store says %s",
                managed.name,
                len(changed),
                verdict.state.name,
            )

    def _verdict_of(self, managed: ManagedStore) -> GateVerdict:
        if managed.description.owner is StoreOwner.THIRD_PARTY:
            return GateVerdict(GateState.OPEN, "ThirdParty", "nothing is ever sent to the store")
        seen = managed.session is not None and managed.session.last_observed_at is not None
        counts = managed.gate is not None and managed.gate.when_away is WhenAway.LAST_VERIFIED
        suspended = (SUSPENDED.reason.value, SUSPENDED.message) if managed.suspended else None
        return verdict_of(
            managed.description.short_name,
            suspended or self._cache.why_unsafe(managed),
            managed.trouble,
            in_place=released(managed.release) or VERIFIED,
            seen=seen,
            was_safe=counts and (seen or bool(managed.was_safe)),
        )
