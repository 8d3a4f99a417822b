"""The gate's ways other than pods: a NetworkPolicy, Poolers of CloudNativePG, roles of a database's server.

What each has taken is remembered where it was taken, and never in this process: as an object of Lethe's own,
as the owner of a field, in a role's comment. So what somebody else has closed stays closed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import cast

from lethe.controllers.datastore_connect import ConnectStore, open_session
from lethe.controllers.runtime.cache import ManagedStore, ObjectKey
from lethe.controllers.runtime.threads import in_daemon
from lethe.domain.gates import GateState, GateVerdict
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Manifest
from lethe.ports.stores import KeepsRolesOut, MappingInvalid, RoleRefused, StoreError


class OtherWays:
    """Closes and opens what a DataStore's gate names besides pods."""

    def __init__(self, cluster: Cluster, connect: ConnectStore) -> None:
        self._cluster, self._connect = cluster, connect
        self._closed_in_passing: dict[ObjectKey, tuple[str, ...]] = {}

    def forget(self, key: ObjectKey) -> None:
        """A store has no gate any more."""
        self._closed_in_passing.pop(key, None)

    async def set(
        self,
        managed: ManagedStore,
        verdict: Callable[[], GateVerdict],
        *,
        confirm: Callable[[], Awaitable[None]],
    ) -> tuple[list[str], bool]:
        """Set all of them by what the store says, asked right before each.

        Nothing is opened before `confirm`. What can't be looked at stays as it is, as who serves does.
        Returns what is in the way, and whether all has been closed that is to be.
        """
        problems, done, confirmed = list[str](), True, False
        away: ClusterUnavailable | None = None
        ways = {
            "networkPolicy": self._set_policy,
            "cnpgPooler": self._set_poolers,
            "role": self._set_roles,
        }
        for way in (way for name, way in ways.items() if name in _gate_of(managed)):
            if verdict().state is GateState.OPEN and not confirmed:
                await confirm()
                confirmed = True
            state = verdict().state
            if state is GateState.AS_IT_IS:
                continue
            try:
                await way(managed, closed=state is GateState.CLOSED)
            except (ClusterRefused, RoleRefused, MappingInvalid) as refused:
                problems.append(str(refused))
            except ClusterUnavailable as gone:
                away = gone  # and the ways after it need not know of the API server
            except StoreError:  # it is away, or was let go meanwhile; its own trouble says so
                done = done and state is not GateState.CLOSED
        if away is not None:
            raise away
        return problems, done

    async def _set_policy(self, managed: ManagedStore, *, closed: bool) -> None:
        wanted: Manifest | None = _gate_of(managed).get("networkPolicy")
        if wanted is None:
            return
        spec: dict[str, object] = {"podSelector": wanted["podSelector"], "policyTypes": ["Ingress"]}
        if wanted.get("allow"):
            spec["ingress"] = [{"from": wanted["allow"]}]
        namespace, store = managed.key
        await self._cluster.set_network_policy(namespace, f"lethe-gate-{store}", spec if closed else None)

    async def _set_poolers(self, managed: ManagedStore, *, closed: bool) -> None:
        namespace, store = managed.key
        refused: ClusterRefused | None = None
        for pooler in (_gate_of(managed).get("cnpgPooler") or {}).get("names", ()):
            try:
                await self._cluster.pause_pooler(namespace, pooler, f"lethe-gate-{store}", paused=closed)
            except ClusterRefused as one:
                refused = one  # the others are paused all the same
        if refused is not None:
            raise refused

    async def _set_roles(self, managed: ManagedStore, *, closed: bool) -> None:
        gate = managed.gate
        if gate is None or gate.role is None:
            return
        session, names = managed.session, gate.role.names
        if session is not None and not managed.given_up:
            self.forget(managed.key)
            port = cast("KeepsRolesOut", session.port)
            await in_daemon(f"roles of {managed.name}", lambda: port.set_roles(names, closed=closed))
        elif closed and self._closed_in_passing.get(managed.key) != names:
            # Lethe has let go of the store, or is about to: this one connection lasts no longer than that.
            await self._close_in_passing(managed, names)

    async def _close_in_passing(self, managed: ManagedStore, names: tuple[str, ...]) -> None:
        passing = replace(managed, session=None)
        await open_session(passing, self._cluster, self._connect)
        if passing.session is None:
            raise StoreError("it is not connected")
        port = passing.session.port
        try:
            roles = cast("KeepsRolesOut", port)
            await in_daemon(f"roles of {managed.name}", lambda: roles.set_roles(names, closed=True))
        finally:
            port.close()
        self._closed_in_passing[managed.key] = names


def _gate_of(managed: ManagedStore) -> Manifest:
    return managed.manifest.get("spec", {}).get("gate") or {}
