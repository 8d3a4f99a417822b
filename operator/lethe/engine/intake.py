"""Taking requests in: from the queue into the ledger, as a set; then their Secrets are deleted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import datetime

from lethe.api.parse import InvalidManifest, parse
from lethe.api.translation import erasure_order
from lethe.api.v1alpha1.deletionrequest import DeletionRequest
from lethe.domain.periods import Period
from lethe.domain.trust import BlockReason
from lethe.engine.cache import ObjectCache, ObjectKey, RequestView, key_of, request_at
from lethe.engine.reporting import Reporting
from lethe.engine.schedule import Schedule
from lethe.engine.secrets import Secrets, UnusableSecret, identifier_in
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Event, Manifest, SecretContent
from lethe.workflows.erasure.accept import ErasureOrder, Intake, accept
from lethe.workflows.pass_context import PassContext

log = logging.getLogger("lethe.intake")

BATCH = 500
GATHER_SECONDS = 0.02
"""How long a burst may gather: a set costs little more than one."""
RETRY_SECONDS = 5.0

NamedSecret = tuple[str, SecretContent]


class RequestQueue:
    """The queue of requests, and the loop that empties it."""

    def __init__(
        self,
        cache: ObjectCache,
        context: Callable[[], PassContext],
        cluster: Cluster,
        secrets: Secrets,
        reporting: Reporting,
        *,
        clock: Callable[[], datetime],
        deadline: Period,
        consider: Callable[[Collection[ObjectKey]], None],
    ) -> None:
        self._cache, self._context, self._cluster = cache, context, cluster
        self._secrets, self._reporting, self._clock = secrets, reporting, clock
        self._deadline, self._consider = deadline, consider
        self._doorbell = asyncio.Event()
        self._retries: Schedule[ObjectKey] = Schedule()
        self.beat = time.monotonic()

    def ring(self, manifest: Manifest, *, listed: bool = False) -> None:
        """Queue a request; the newest of its manifests counts.

        One that was `listed` is always looked at. The watch also brings back each status that Lethe writes
        itself: to read the Secret and visit every store anew for these would be most of the work.
        """
        if not listed and self._is_echo(manifest):
            return
        self._cache.dirty[key_of(manifest)] = manifest
        self._doorbell.set()

    def _is_echo(self, manifest: Manifest) -> bool:
        """Tell whether a request was taken in as it stands, with nothing left to try again."""
        key, metadata = key_of(manifest), manifest["metadata"]
        view = self._cache.views.get(key)
        return (
            view is not None
            and (view.uid, view.generation) == (metadata.get("uid"), metadata.get("generation", 1))
            and view.claimed
            and view.blocker is None
            and key in self._cache.records
            and key not in self._cache.dirty
        )

    async def run(self) -> None:
        """Take in what is queued, for ever."""
        while True:
            await self._wait()
            for key in self._retries.pop_due(self.beat):
                try:
                    await self._look_again(key)
                except (ClusterUnavailable, ClusterRefused):
                    self._retries.at(time.monotonic() + RETRY_SECONDS, key)
            while self._cache.dirty:
                self.beat = time.monotonic()
                keys = list(self._cache.dirty)[:BATCH]
                batch = [self._cache.dirty.pop(key) for key in keys]
                try:
                    await self._accept(batch)
                except ClusterUnavailable as away:
                    log.warning("intake waits: %s", away)
                    for manifest in batch:
                        self._cache.dirty.setdefault(key_of(manifest), manifest)
                    await asyncio.sleep(1)
                    break

    async def _wait(self) -> None:
        moment = self._retries.next_moment()
        left = 1.0 if moment is None else max(0.0, min(1.0, moment - time.monotonic()))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._doorbell.wait(), timeout=left)
        await asyncio.sleep(GATHER_SECONDS)
        self.beat = time.monotonic()
        self._doorbell.clear()

    async def _look_again(self, key: ObjectKey) -> None:
        """Read a request once more whose Secret was missing or could not be deleted."""
        namespace, name = key
        async for manifest in self._cluster.list("deletionrequests", [namespace], f"metadata.name={name}"):
            self._cache.dirty[key] = manifest

    async def _accept(self, batch: Iterable[Manifest]) -> None:
        orders: list[ErasureOrder] = []
        secrets: dict[ObjectKey, NamedSecret] = {}
        for read in await asyncio.gather(*(self._order(manifest) for manifest in batch)):
            if read is not None:
                order, secret = read
                orders.append(order)
                if secret is not None:
                    secrets[order.namespace, order.name] = secret
        if not orders:
            return
        namespaces = {order.namespace for order in orders}
        now = self._clock()
        intakes = await asyncio.to_thread(
            accept,
            orders,
            self._context(),
            deadline=self._deadline,
            stores={ns: [managed.name for managed in self._cache.stores_of(ns)] for ns in namespaces},
        )
        await asyncio.gather(
            *(self._note(key, intake, secrets.get(key), now) for key, intake in intakes.items())
        )
        for namespace in namespaces:
            for managed in self._cache.stores_of(namespace):
                managed.wake.set()
        self._consider({key for key, intake in intakes.items() if intake.record})

    async def _order(
        self, manifest: Manifest
    ) -> tuple[ErasureOrder, tuple[str, SecretContent] | None] | None:
        """Return what a manifest asks for and the Secret that it names; `None` for what is not ours to do."""
        key = key_of(manifest)
        self._view(manifest)
        try:
            request = parse(DeletionRequest, manifest)
        except InvalidManifest as invalid:
            log.warning("%s", invalid)
            return None
        if request.spec.subject is None:
            return None  # spec.data: another capability
        reference = request.spec.subject.identifier_secret_ref
        if reference is None:
            return erasure_order(request, None, None), None
        try:
            secret = await self._secrets.read(key[0], reference.name)
            identifier = identifier_in(secret, reference.name, reference.key)
        except UnusableSecret as unusable:
            return erasure_order(request, None, str(unusable)), None
        return erasure_order(request, identifier, None), (reference.name, secret)

    async def _note(self, key: ObjectKey, intake: Intake, secret: NamedSecret | None, now: datetime) -> None:
        """Keep in memory what became of a request, and delete its Secret once the ledger has its content."""
        view = self._cache.views.get(key)
        if view is None:  # deleted meanwhile: nobody waits for its status, and what was accepted goes on
            view = RequestView(uid="", generation=1, status={})
        view.blocker = intake.blocker
        view.claimed = intake.blocker is None or intake.blocker.reason is not BlockReason.NAME_REUSED
        if intake.record is not None and (view.claimed or intake.record.open):
            self._cache.records[key] = intake.record
        if intake.blocker is None and secret is not None:
            view.blocker = await self._secrets.delete(key[0], *secret, meanwhile="the erasure goes on")
            accepted = intake.record.accepted.accepted_at if intake.record is not None else now
            made = secret[1].created_at
            # One from before the request is the one whose deletion was cut off.
            if view.blocker is None and made is not None and accepted < min(made, now):
                await self._warn_of_returned(key, view.uid, secret[0])
        if view.blocker is not None and view.claimed:
            self._retries.at(time.monotonic() + RETRY_SECONDS, key)
        self._reporting.want(key)

    async def _warn_of_returned(self, key: ObjectKey, uid: str, name: str) -> None:
        """Say that somebody's tool brings a person's identifier back, which Lethe deletes again and again."""
        message = (
            f"Secret {name} came back, and was deleted again; take it out of what applies it, such as Git"
        )
        log.warning("DeletionRequest %s/%s: %s", *key, message)
        await self._cluster.record_event(Event(request_at(key, uid), "SecretReturned", message, warning=True))

    def _view(self, manifest: Manifest) -> None:
        key, metadata = key_of(manifest), manifest["metadata"]
        known = self._cache.views.get(key)
        if known is not None and known.uid == metadata.get("uid"):
            known.generation = metadata.get("generation", 1)
            return
        self._cache.views[key] = RequestView(
            uid=metadata.get("uid", ""),
            generation=metadata.get("generation", 1),
            status=dict(manifest.get("status") or {}),
            first_seen=time.monotonic(),
        )
