"""DeletionRequests: taken in as a set, and ended once no store has anything left to do for them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from lethe.api.parse import InvalidManifest, parse
from lethe.api.translation import erasure_order
from lethe.api.v1alpha1.deletionrequest import DeletionRequest
from lethe.controllers.deletionrequest_status import RequestStatusController
from lethe.controllers.runtime.cache import ObjectCache, ObjectKey, RequestView, key_of, request_at
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.queue import FairQueue
from lethe.controllers.runtime.secrets import Secrets, UnusableSecret, identifier_in
from lethe.controllers.runtime.status_writer import ShownStatus
from lethe.controllers.runtime.supervisor import take_apart
from lethe.domain.periods import Period
from lethe.domain.trouble import Trouble
from lethe.domain.trust import Blocker, BlockReason
from lethe.ports.cluster import Cluster, Event, Manifest, SecretContent
from lethe.ports.ledger import Ledger
from lethe.workflows.erasure import erase
from lethe.workflows.erasure.accept import ErasureOrder, Intake, accept
from lethe.workflows.pass_context import PassContext

log = logging.getLogger("lethe.intake")

BATCH = 500
GATHER_SECONDS = 0.02
"""How long a burst may gather: a set costs little more than one."""
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 5.0, 60.0

OPEN_REQUESTS = "status.state!=Erased,status.state!=Purged,status.state!=Planned"
"""The field selector of requests that still need work.

Leaving it arrives as DELETED: never read that as gone.
"""

NamedSecret = tuple[str, SecretContent]


class RequestQueue(Controller[ObjectKey]):
    """Takes requests in: from the queue into the ledger; then their Secrets are deleted."""

    name = "deletionrequest"
    at_once = 8
    batch = BATCH
    gather = GATHER_SECONDS

    def __init__(
        self,
        cache: ObjectCache,
        context: Callable[[], PassContext],
        cluster: Cluster,
        secrets: Secrets,
        statuses: RequestStatusController,
        completion: RequestCompletion,
        *,
        clock: Callable[[], datetime],
        deadline: Period,
        ring_stores: Callable[[Collection[str]], None],
    ) -> None:
        super().__init__()
        # One set of each namespace at a time: thousands of broken requests are their own namespace's matter.
        self.queue = FairQueue(lambda key: key[0], at_once=1)
        self._cache, self._context, self._cluster = cache, context, cluster
        self._secrets, self._statuses, self._completion = secrets, statuses, completion
        self._clock, self._deadline, self._ring_stores = clock, deadline, ring_stores

    def observe(self, manifest: Manifest, *, gone: bool = False, listed: bool = False) -> None:
        """Queue a request; the newest of its manifests counts.

        One that was `listed` is always looked at. The watch also brings back each status that Lethe writes
        itself: to read the Secret and visit every store anew for these would be most of the work.
        """
        if gone:
            self.forget(key_of(manifest))
            return
        if not listed and self._is_echo(manifest):
            return
        key = key_of(manifest)
        self._cache.requests[key] = manifest
        self.queue.add(key)

    def forget(self, key: ObjectKey) -> None:
        """Forget a request that was deleted, or has ended and left the selector: nobody waits for its status.

        What was accepted goes on all the same; the ledger knows it.
        """
        self._cache.views.pop(key, None)

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """Look at every request that still needs work."""
        async for manifest in self._cluster.list("deletionrequests", namespaces, OPEN_REQUESTS):
            self.observe(manifest, listed=True)

    def _is_echo(self, manifest: Manifest) -> bool:
        """Tell whether a request was taken in as it stands, with nothing left to try again."""
        key, metadata = key_of(manifest), manifest["metadata"]
        view = self._cache.views.get(key)
        return (
            view is not None
            and (view.shown.uid, view.generation) == (metadata.get("uid"), metadata.get("generation", 1))
            and view.claimed
            and view.blocker is None
            and key in self._cache.records
            and key not in self._cache.requests
        )

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Take one request in."""
        return (await self.reconcile_set([key])).get(key)

    async def reconcile_set(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, float | None]:
        """Take a set of requests in; return which are to be looked at again, and when."""
        manifests = {key: await self._manifest(key) for key in keys}
        try:
            return await self._accept([one for one in manifests.values() if one is not None])
        except BaseException:
            for key, manifest in manifests.items():  # whatever failed, nothing that was asked is lost
                if manifest is not None:
                    self._cache.requests.setdefault(key, manifest)
            raise

    async def _manifest(self, key: ObjectKey) -> Manifest | None:
        """Return what was asked; a request whose Secret was missing, or stayed, is read once more."""
        queued = self._cache.requests.pop(key, None)
        if queued is not None:
            return queued
        namespace, name = key
        async for manifest in self._cluster.list("deletionrequests", [namespace], f"metadata.name={name}"):
            return manifest
        return None

    async def show_trouble(self, key: ObjectKey, trouble: Trouble) -> None:
        """Say in a request's status that taking it in failed."""
        queued = self._cache.requests.get(key)
        if queued is not None:
            self._see(queued)  # it may have failed before that
        view = self._cache.views.get(key)
        if view is not None:
            view.blocker = Blocker(BlockReason.INTERNAL_ERROR, trouble.message)
            self._statuses.want(key)

    async def _accept(self, manifests: Sequence[Manifest]) -> Mapping[ObjectKey, float | None]:
        orders: list[ErasureOrder] = []
        secrets: dict[ObjectKey, NamedSecret] = {}
        for read in await asyncio.gather(*(self._order(manifest) for manifest in manifests)):
            if read is not None:
                order, secret = read
                orders.append(order)
                if secret is not None:
                    secrets[order.namespace, order.name] = secret
        if not orders:
            return {}
        namespaces = {order.namespace for order in orders}
        now = self._clock()
        intakes = await asyncio.to_thread(
            accept,
            orders,
            self._context(),
            deadline=self._deadline,
            stores={ns: [store.name for store in self._cache.stores_of(ns)] for ns in namespaces},
        )
        noted = await asyncio.gather(
            *(self._note(key, intake, secrets.get(key), now) for key, intake in intakes.items())
        )
        self._ring_stores(namespaces)
        self._completion.consider([key for key, intake in intakes.items() if intake.record])
        return dict(zip(intakes, noted, strict=True))

    async def _order(self, manifest: Manifest) -> tuple[ErasureOrder, NamedSecret | None] | None:
        """Return what a manifest asks for and the Secret that it names; `None` for what is not ours to do."""
        self._see(manifest)
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
            secret = await self._secrets.read(key_of(manifest)[0], reference.name)
            identifier = identifier_in(secret, reference.name, reference.key)
        except UnusableSecret as unusable:
            return erasure_order(request, None, str(unusable)), None
        return erasure_order(request, identifier, None), (reference.name, secret)

    async def _note(
        self, key: ObjectKey, intake: Intake, secret: NamedSecret | None, now: datetime
    ) -> float | None:
        """Keep in memory what became of a request, and delete its Secret once the ledger has its content.

        Returns after how many seconds it is looked at again, whose Secret is missing or stays.
        """
        view = self._cache.views.get(key)
        if view is None:  # deleted meanwhile: nobody waits for its status, and what was accepted goes on
            view = RequestView(ShownStatus(""), generation=1)
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
                await self._warn_of_returned(key, view.shown.uid, secret[0])
        self._statuses.want(key)
        if view.blocker is None or not view.claimed:
            return None
        # What has been wrong for long is looked at seldom: there may be very many of them.
        return min(LONGEST_RETRY_SECONDS, max(RETRY_SECONDS, (time.monotonic() - view.first_seen) / 4))

    async def _warn_of_returned(self, key: ObjectKey, uid: str, name: str) -> None:
        """Say that somebody's tool brings a person's identifier back, which Lethe deletes again and again."""
        message = (
            f"Secret {name} came back, and was deleted again; take it out of what applies it, such as Git"
        )
        log.warning("DeletionRequest %s/%s: %s", *key, message)
        await self._cluster.record_event(Event(request_at(key, uid), "SecretReturned", message, warning=True))

    def _see(self, manifest: Manifest) -> None:
        key, metadata = key_of(manifest), manifest["metadata"]
        known = self._cache.views.get(key)
        if known is not None and known.shown.uid == metadata.get("uid"):
            known.generation = metadata.get("generation", 1)
            return
        self._cache.views[key] = RequestView(
            ShownStatus(metadata.get("uid", ""), dict(manifest.get("status") or {})),
            generation=metadata.get("generation", 1),
            first_seen=time.monotonic(),
        )


class RequestCompletion(Controller[ObjectKey]):
    """Ends requests that have nothing left to do, and lets their status be written."""

    name = "deletionrequest completion"
    batch = BATCH

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        context: Callable[[], PassContext],
        statuses: RequestStatusController,
    ) -> None:
        super().__init__()
        self._cache, self._ledger, self._context, self._statuses = cache, ledger, context, statuses
        self._completing = asyncio.Lock()

    def consider(self, keys: Collection[ObjectKey]) -> None:
        """Look soon whether requests can end, also where no store has anything to do for them."""
        for key in keys:
            self.queue.add(key)

    async def settle(self, keys: Collection[ObjectKey]) -> None:
        """See now whether requests have ended; who awaits it finds them in the cache as they are by now."""
        failed = await take_apart(list(keys), self.reconcile_set)
        self.consider(failed)

    async def show_trouble(self, key: ObjectKey, trouble: Trouble) -> None:
        """Say in a request's status that Lethe failed as it looked whether the request has ended."""
        view = self._cache.views.get(key)
        if view is not None:
            view.ending = Blocker(BlockReason.INTERNAL_ERROR, trouble.message)
            self._statuses.want(key)

    async def reconcile(self, key: ObjectKey) -> float | None:
        """See whether one request has ended."""
        return (await self.reconcile_set([key])).get(key)

    async def reconcile_set(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, float | None]:
        """End what has nothing left to do of a set."""
        async with self._completing:
            return await self._complete(keys)

    async def _complete(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, float | None]:
        known = await asyncio.to_thread(self._ledger.requests_named, keys)
        open_records = [record for record in known.values() if record.open]
        present = {
            namespace: [store.description for store in self._cache.stores_of(namespace)]
            for namespace in {record.accepted.namespace for record in open_records}
        }
        endings = await asyncio.to_thread(erase.complete, open_records, self._context(), present)
        if any(ending.outcome is not None for ending in endings.values()):
            known = await asyncio.to_thread(self._ledger.requests_named, keys)
        for key, record in known.items():
            view = self._cache.views.get(key)
            if view is not None:
                ending = endings.get(record.request)
                view.ending = ending.blocker if ending else None
            if view is not None and not view.claimed:
                continue
            if record.open or view is not None:
                self._cache.records[key] = record
            else:
                self._cache.records.pop(key, None)
            self._statuses.want(key)
        return {}
