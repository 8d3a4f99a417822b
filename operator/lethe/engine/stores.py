"""Meeting stores: each that is declared gets a guard that is connected as its newest manifest says."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Protocol

from lethe.api.parse import InvalidManifest, parse
from lethe.api.translation import store_description
from lethe.api.v1alpha1.datastore import DataStore
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.engine.cache import ManagedStore, ObjectCache, ObjectKey, key_of
from lethe.engine.datastore import StoreController
from lethe.engine.schedule import Schedule
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Manifest, SecretContent
from lethe.ports.stores import MappingInvalid, StoreError
from lethe.workflows.store_session import StoreSession

log = logging.getLogger("lethe.engine")

SECRET_SECONDS = 10
"""How often the Secret of a store in trouble is read again."""


class ConnectStore(Protocol):
    """Makes the port to a store from its manifest and the Secret that holds its credentials."""

    def __call__(self, store: DataStore, secret: SecretContent | None) -> StoreSession:
        """Raises `ValueError` with a printable message where manifest or Secret can't be used."""
        ...

    def secret_name(self, store: DataStore) -> str | None:
        """Return the name of the Secret that the manifest names; `None` if it names none."""
        ...


class Stores:
    """The stores of the world, and those among them that could not be connected yet."""

    def __init__(
        self,
        cache: ObjectCache,
        cluster: Cluster,
        connect: ConnectStore,
        controller: StoreController,
        *,
        regrade: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, Any]], None],
    ) -> None:
        self._cache, self._cluster, self._connect, self._controller = cache, cluster, connect, controller
        self._regrade, self._spawn = regrade, spawn
        self._failed: Schedule[ObjectKey] = Schedule()
        self._locks: dict[ObjectKey, asyncio.Lock] = {}

    async def meet(self, manifest: Manifest, *, again: bool = False) -> None:
        """Guard a store as its newest manifest says; one at a time for each place."""
        async with self._locks.setdefault(key_of(manifest), asyncio.Lock()):
            await self._meet_alone(manifest, again=again)

    async def _meet_alone(self, manifest: Manifest, *, again: bool) -> None:
        key = key_of(manifest)
        known = self._cache.stores.get(key)
        if known is not None and _version(manifest) < _version(known.manifest):
            return  # a list or an event that was overtaken
        same_spec = known is not None and known.manifest.get("spec") == manifest.get("spec")
        same_object = known is not None and known.uid == manifest["metadata"].get("uid")
        if known is not None and same_spec and same_object and not again:
            return
        managed = await self._new_guard(manifest, known)
        if managed is None:
            return
        if known is not None:
            await self._controller.stop(known)
        self._cache.stores[key] = managed
        self._regrade()  # what it says of its backups may be new
        if managed.trouble is not None:
            self._failed.at(time.monotonic() + 5, key)
        self._controller.start(managed)

    async def _new_guard(self, manifest: Manifest, known: ManagedStore | None) -> ManagedStore | None:
        try:
            store = parse(DataStore, manifest)
        except InvalidManifest as invalid:
            log.warning("%s", invalid)
            return None
        gate = (manifest.get("spec") or {}).get("gate")
        managed = ManagedStore(
            manifest=manifest,
            description=store_description(store),
            without_backups=store.spec.backups.value == "None",
            manual_release=bool(store.spec.gate and store.spec.gate.release.value == "Manual"),
            gate=gate.get("podSelector") if gate else None,
            uid=manifest["metadata"].get("uid", ""),
            status=known.status if known else dict(manifest.get("status") or {}),
        )
        if store.spec.owner.value == "ThirdParty":
            return managed
        secret = None
        wanted = self._connect.secret_name(store)
        try:
            if wanted is not None:
                secret = await self._cluster.secret(managed.description.namespace, wanted)
                if secret is None:
                    managed.trouble = Trouble(
                        TroubleReason.SECRET_MISSING, f"Secret {wanted} does not exist; create it"
                    )
                    return managed
                managed.secret_version = secret.resource_version
            managed.store = await asyncio.to_thread(self._connect, store, secret)
        except ValueError as unusable:
            managed.trouble = Trouble(
                TroubleReason.SECRET_MISSING if wanted else TroubleReason.MAPPING_INVALID, str(unusable)
            )
        except MappingInvalid as invalid:
            managed.trouble = Trouble(TroubleReason.MAPPING_INVALID, str(invalid))
        except StoreError as unusable:
            managed.trouble = Trouble(TroubleReason.UNREACHABLE, str(unusable))
        except (ClusterRefused, ClusterUnavailable) as refused:
            managed.trouble = Trouble(TroubleReason.SECRET_MISSING, str(refused))
        return managed

    async def run(self) -> None:
        """Try stores again whose Secret was missing or wrong: nobody tells when a Secret changes."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(1)
            for key in self._failed.pop_due(time.monotonic()):
                managed = self._cache.stores.get(key)
                if managed is not None:
                    self._spawn(self.meet(managed.manifest, again=True))
            if time.monotonic() - looked < SECRET_SECONDS:
                continue
            looked = time.monotonic()
            for managed in list(self._cache.stores.values()):
                if managed.store is not None and managed.store.trouble is not None:
                    self._spawn(self._meet_rotated(managed))

    async def _meet_rotated(self, managed: ManagedStore) -> None:
        """Connect anew where the Secret of a store in trouble is another one by now: a rotated password."""
        store = parse(DataStore, managed.manifest)
        wanted = self._connect.secret_name(store)
        if wanted is None:
            return
        secret = await self._cluster.secret(managed.description.namespace, wanted)
        if secret is not None and secret.resource_version != managed.secret_version:
            await self.meet(managed.manifest, again=True)

    async def forget(self, key: ObjectKey) -> None:
        """Guard a store no more; returns when its last visit has ended."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            managed = self._cache.stores.get(key)
            if managed is not None:
                await self._controller.stop(managed)  # until its visit has ended, no hold may count on it
                self._cache.stores.pop(key, None)
                self._controller.forget(managed)

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """Meet every store that there is, and forget those that are gone."""
        before = set(self._cache.stores)
        seen = set()
        async for manifest in self._cluster.list("datastores", namespaces):
            seen.add(key_of(manifest))
            await self.meet(manifest)
        for key in before - seen:
            await self.forget(key)


def _version(manifest: Manifest) -> int:
    """Return how new a manifest is; resourceVersions are numbers that grow (Kubernetes 1.35 promises it)."""
    version = manifest["metadata"].get("resourceVersion", "")
    return int(version) if version.isdecimal() else 0
