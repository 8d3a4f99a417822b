"""LegalRequests: registered at once, held before anything else, and followed until nothing is left to do.

Letters are the `NoticeSender`'s, so that a mail server that hangs holds up no hold. What is due is read from
the ledger at each look, so a look that was cut off is made up for by the next.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from lethe.api.parse import InvalidManifest, parse
from lethe.api.translation import legal_order
from lethe.api.v1alpha1.legalrequest import LegalRequest
from lethe.controllers.holds import HoldEffects
from lethe.controllers.legalrequest_records import LegalRecords, until_next_turn
from lethe.controllers.legalrequest_status import LegalRequestStatus
from lethe.controllers.notices import NoticeSender, may_be_retried
from lethe.controllers.runtime.cache import LegalView, ObjectCache, ObjectKey, key_of
from lethe.controllers.runtime.clock import TwoClocks
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.secrets import Secrets, UnusableSecret, content_of, identifier_in
from lethe.controllers.runtime.status_writer import ShownStatus, Written
from lethe.controllers.runtime.supervisor import take_apart
from lethe.domain.identifiers import Identifier
from lethe.domain.legal import LegalRecord
from lethe.domain.legal_facts import HoldEnded, HoldPlaced, LegalDecided, LegalFact
from lethe.domain.trouble import Trouble
from lethe.domain.trust import BlockReason
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Manifest, SecretContent
from lethe.workflows.legal.holds import take_effect
from lethe.workflows.legal.notify import remind
from lethe.workflows.legal.register import LegalOrder, Registration, end_holds, register
from lethe.workflows.pass_context import PassContext

log = logging.getLogger("lethe.legal")

NamedSecret = tuple[str, SecretContent]
T = TypeVar("T")


class LegalRequestController(Controller[ObjectKey]):
    """Sees that each LegalRequest gets what the policy promises.

    `ring_stores` lets the stores and sources of a namespace be visited soon, `ring_primary` its Primary.
    """

    name = "legal requests"
    batch = 1000
    gather = 0.05

    def __init__(
        self,
        cache: ObjectCache,
        context: Callable[[], PassContext],
        cluster: Cluster,
        metrics: Metrics,
        secrets: Secrets,
        clocks: TwoClocks,
        *,
        records: LegalRecords,
        status: LegalRequestStatus,
        notices: NoticeSender,
        ring_stores: Callable[[str], None],
        ring_primary: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._cache, self._context = cache, context
        self._cluster, self._metrics, self._secrets, self._clocks = cluster, metrics, secrets, clocks
        self._records, self._status, self._notices = records, status, notices
        self._ring_stores, self._ring_primary = ring_stores, ring_primary
        self._effects = HoldEffects(cache)
        self._registering = asyncio.Lock()
        """A resync registers beside the queue, and no hold is to be ended by what was known before."""

    # doorbells

    def observe(self, manifest: Manifest, *, gone: bool = False) -> None:
        """A LegalRequest was seen, or is gone: what was registered goes on all the same."""
        key = key_of(manifest)
        if gone:
            self._cache.legal.pop(key, None)
        elif not self._is_echo(key, manifest):
            self._meet(key, manifest)

    def ring_open(self) -> None:
        """Something may have become of requests that have not ended: subjects were looked for in a store."""
        for record in self._cache.legal_records.values():
            if self._is_followed(record):
                self.queue.add(record.key)

    async def load(self) -> None:
        """Take up what was registered before this process began."""
        for record in await self._records.load():
            if self._is_followed(record):
                self.queue.add(record.key)
                self._notices.queue.add(record.key)

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """Register every LegalRequest that there is, before anything that a hold of theirs forbids."""
        before, seen = dict(self._cache.legal), set()
        async for manifest in self._cluster.list("legalrequests", namespaces):
            key = key_of(manifest)
            seen.add(key)
            self._meet(key, manifest)
        for key in before.keys() - seen:
            if self._cache.legal.get(key) is before[key]:
                del self._cache.legal[key]
        for key, defect in (await take_apart(list(seen), self._register)).items():
            log.error("registering LegalRequest %s/%s failed; it is tried again", *key, exc_info=defect)

    def _is_echo(self, key: ObjectKey, manifest: Manifest) -> bool:
        """Tell whether a request is known as it stands, with nothing left to try again."""
        view, metadata = self._cache.legal.get(key), manifest["metadata"]
        return (
            view is not None
            and (view.shown.uid, _generation(view.manifest)) == (metadata.get("uid"), _generation(manifest))
            and view.blocker is None
            and view.document_problem is None
        )

    def _meet(self, key: ObjectKey, manifest: Manifest) -> None:
        known, uid = self._cache.legal.get(key), manifest["metadata"].get("uid", "")
        if known is not None and known.shown.uid == uid:
            if _generation(manifest) >= _generation(known.manifest):  # else a list that was overtaken
                known.manifest = manifest
        else:
            shown = ShownStatus(uid, dict(manifest.get("status") or {}))
            self._cache.legal[key] = LegalView(manifest, shown, _generation(manifest))
        self.queue.add(key)

    # one look

    async def reconcile(self, key: ObjectKey) -> float | None:
        """See to one request."""
        return (await self.reconcile_set([key]))[key]

    async def reconcile_set(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, float | None]:
        """Register what is asked, let holds begin and end, ring for letters, and say what became of it."""
        before = {key: self._cache.legal_records.get(key) for key in keys}
        await self._register([key for key in keys if not self._is_registered(key)])
        await self._place_holds(keys)
        await self._end_holds(keys)
        await self._remind(keys)
        await self._notices.may_go(keys)  # before any status: also after a restart it says why a notice waits
        for key in keys:
            if self._cache.legal_records.get(key) != before[key]:
                self._notices.queue.add(key)
            if view := self._cache.legal.get(key):
                view.troubles.pop(self.name, None)
        self.measure()  # before: whoever has read a status finds gauges that agree with it
        written = await _all(self._status.write(key) for key in keys)
        return {key: self._next_look(key, status) for key, status in zip(keys, written, strict=True)}

    async def show_trouble(self, key: ObjectKey, trouble: Trouble) -> None:
        """Say in a status that Lethe failed over this request."""
        view = self._cache.legal.get(key)
        if view is not None:
            view.troubles[self.name] = trouble
            await self._status.write(key)

    def measure(self) -> None:
        """Refresh the gauges."""
        self._status.measure()

    def _next_look(self, key: ObjectKey, written: Written) -> float | None:
        record = self._cache.legal_records.get(key)
        followed = record is not None and self._is_followed(record)
        done = not followed and self._is_registered(key) and written is not Written.WAITS
        return None if done else until_next_turn()

    def _is_followed(self, record: LegalRecord) -> bool:
        return record.open or may_be_retried(record, self._clocks.now())

    def _is_registered(self, key: ObjectKey) -> bool:
        view = self._cache.legal.get(key)
        return view is None or view.registered is view.manifest

    # registering

    async def _register(self, keys: Sequence[ObjectKey]) -> None:
        if not keys:
            return
        async with self._registering:
            taken = {key: view.manifest for key in keys if (view := self._cache.legal.get(key)) is not None}
            read = await _all(self._read(key, manifest) for key, manifest in taken.items())
            orders = {order.key: (order, secret) for order, secret in filter(None, read)}
            registered = await asyncio.to_thread(
                register,
                [order for order, _ in orders.values()],
                self._context(),
            )
            await _all(
                self._conclude(key, taken[key], registration, orders[key][1])
                for key, registration in registered.items()
            )

    async def _read(self, key: ObjectKey, manifest: Manifest) -> tuple[LegalOrder, NamedSecret | None] | None:
        """Read what one request asks. One whose Secrets can't be read keeps none of the others waiting."""
        view = self._cache.legal.get(key)
        if view is None:
            return None
        view.generation = _generation(manifest)
        try:
            request = parse(LegalRequest, manifest)
            return await self._order(key, request, view)
        except InvalidManifest as invalid:
            log.warning("%s", invalid)
            view.registered = manifest
        except (ClusterUnavailable, ClusterRefused) as away:
            log.warning("LegalRequest %s/%s waits: %s", *key, away)
        return None

    async def _order(
        self, key: ObjectKey, request: LegalRequest, view: LegalView
    ) -> tuple[LegalOrder, NamedSecret | None]:
        contact = request.spec.authority.contact_secret_ref
        view.contact_secret = (contact.name, contact.key) if contact else None
        identifier: Identifier | None = None
        secret, problem = None, None
        reference = request.spec.subject.identifier_secret_ref
        if reference is not None:
            try:
                found = await self._secrets.read(key[0], reference.name)
                identifier = identifier_in(found, reference.name, reference.key)
                secret = reference.name, found
            except UnusableSecret as unusable:
                problem = str(unusable)
        document = await self._document(key, request, view)
        order = legal_order(request, identifier=identifier, document=document, secret_problem=problem)
        return order, secret

    async def _document(self, key: ObjectKey, request: LegalRequest, view: LegalView) -> str | None:
        """Return the digest of the court order's document; `None`: there is none, or it can't be read."""
        view.document_problem = None
        order = request.spec.court_order
        reference = order.document_secret_ref if order else None
        if reference is None:
            return None
        try:
            secret = await self._secrets.read(key[0], reference.name)
            content = content_of(secret, reference.name, reference.key)
        except UnusableSecret as unusable:
            view.document_problem = str(unusable)
            return None
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    async def _conclude(
        self, key: ObjectKey, manifest: Manifest, registration: Registration, secret: NamedSecret | None
    ) -> None:
        """Let what was registered have its effect; what is left to try again is tried at the next look."""
        record, blocker = registration.record, registration.blocker
        if record is not None and blocker is None:
            await self._records.note(record)
            await self._spread(record, registration.news)
            if secret is not None:
                try:
                    blocker = await self._secrets.delete(key[0], *secret, meanwhile="the request goes on")
                except ClusterUnavailable as away:
                    log.warning("LegalRequest %s/%s waits: %s", *key, away)
                    return
        view = self._cache.legal.get(key)
        if view is not None:
            view.blocker = blocker
            reused = blocker is not None and blocker.reason is BlockReason.NAME_REUSED
            again = (blocker is not None or view.document_problem is not None) and not reused
            view.registered = None if again else manifest

    async def _spread(self, record: LegalRecord, news: Sequence[LegalFact]) -> None:
        """Let what is new be heeded: stores are visited, sources scanned, letters sent, decisions counted."""
        namespace = record.registered.namespace
        if any(isinstance(fact, HoldPlaced | HoldEnded) for fact in news):
            self._ring_stores(namespace)
        if record.resolved_at is None:
            self._ring_primary(namespace)
        self._notices.queue.add(record.key)
        for fact in news:
            if isinstance(fact, LegalDecided):
                level = record.registered.level
                self._metrics.legal_requests.labels(level, fact.outcome.value).inc()
        await self._status.record_events(record, news)

    # holds

    async def _place_holds(self, keys: Sequence[ObjectKey]) -> None:
        """Record of which holds nothing can erase any more what they hold."""
        async with self._registering:
            records = await self._records.refresh(keys)
            effective = [record for record in records if self._effects.has_taken_effect(record)]
            if effective:
                await asyncio.to_thread(take_effect, effective, self._context())
                await self._records.refresh([record.key for record in effective])

    async def _end_holds(self, keys: Sequence[ObjectKey]) -> None:
        """End the holds whose day has come by this host's clock and by the API server's."""
        if not self._over(keys):
            return
        disagreement = await self._clocks.disagreement()
        if disagreement is not None:
            log.warning("no hold is ended: %s", disagreement)
            return
        async with self._registering:
            ended = await asyncio.to_thread(end_holds, self._over(keys), self._context())
            current = await self._records.refresh([record.key for record in ended])
        for record in current:
            self._ring_stores(record.registered.namespace)
            if record.hold is not None and record.hold.ended is not None:
                await self._status.record_events(record, [record.hold.ended])

    def _over(self, keys: Iterable[ObjectKey]) -> list[LegalRecord]:
        """Return those whose hold has come to its day, by this host's clock."""
        now = self._clocks.now()
        held = [one for one in self._known(keys) if one.holding]
        return [one for one in held if one.hold and one.hold.until is not None and one.hold.until <= now]

    def _known(self, keys: Iterable[ObjectKey]) -> list[LegalRecord]:
        known = self._cache.legal_records
        return [known[key] for key in keys if key in known]

    # persons

    async def _remind(self, keys: Sequence[ObjectKey]) -> None:
        """Ask once a month whether an order that names no day is still in force."""
        known = self._known(keys)
        if await asyncio.to_thread(remind, known, self._context()):
            await self._records.refresh([record.key for record in known])


def _generation(manifest: Manifest) -> int:
    generation: int = manifest["metadata"].get("generation", 1)
    return generation


async def _all(work: Iterable[Awaitable[T]]) -> list[T]:
    """Do all of it at the same time, and raise what is raised once all of it has ended."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
