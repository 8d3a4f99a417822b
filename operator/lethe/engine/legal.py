"""Legal requests: taken down at once, held before anything else, and told of in a task of its own.

A mail server that hangs holds up no hold. What is due is read from the ledger at each turn, so a turn that
was cut off is made up for by the next.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from lethe.api.parse import InvalidManifest, parse
from lethe.api.translation import legal_order
from lethe.api.v1alpha1.legalrequest import LegalRequest
from lethe.controllers.runtime.cache import LegalView, ObjectCache, ObjectKey, key_of
from lethe.controllers.runtime.clock import TwoClocks
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.secrets import Secrets, UnusableSecret, content_of, identifier_in
from lethe.domain.identifiers import Identifier
from lethe.domain.legal import LegalRecord
from lethe.domain.legal_facts import (
    HoldEnded,
    HoldPlaced,
    LegalDecided,
    LegalFact,
)
from lethe.domain.trust import Blocker, BlockReason
from lethe.engine.legal_reporting import LegalReporting, letters_settled_since
from lethe.engine.telling import NoticeSender
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Manifest, SecretContent
from lethe.ports.ledger import Ledger, LedgerError
from lethe.workflows.legal.contact import SubjectContact
from lethe.workflows.legal.holds import take_effect
from lethe.workflows.legal.register import LegalOrder, Registration, end_holds, register
from lethe.workflows.pass_context import PassContext

log = logging.getLogger("lethe.legal")

TURN_SECONDS = 5.0
"""How often it is looked whether something has become due that nobody rings for."""
GATHER_SECONDS = 0.05
RETRY_SECONDS = 5.0

NamedSecret = tuple[str, SecretContent]


class Legal:
    """The queue of LegalRequests, and the loop that sees that each gets what the policy promises."""

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        context: Callable[[], PassContext],
        cluster: Cluster,
        metrics: Metrics,
        secrets: Secrets,
        notices: NoticeSender,
        clocks: TwoClocks,
        ring_store: Callable[[ObjectKey], None],
        scan_soon: Callable[[ObjectKey], None],
    ) -> None:
        self._ring_store, self._scan_soon = ring_store, scan_soon
        self._cache, self._ledger, self._context = cache, ledger, context
        self._cluster, self._metrics, self._secrets = cluster, metrics, secrets
        self._notices, self._clocks = notices, clocks
        self._reporting = LegalReporting(cache, cluster, metrics, clocks.now)
        self._dirty: dict[ObjectKey, Manifest] = {}
        self._retry_at: dict[ObjectKey, float] = {}
        self._records: dict[str, LegalRecord] = {}
        self._placed: dict[str, tuple[object, float]] = {}
        self._wake = asyncio.Event()
        self._registering = asyncio.Lock()

    # doorbells

    def ring(self, manifest: Manifest, *, gone: bool) -> None:
        """A LegalRequest was seen, or is gone: what was registered goes on all the same."""
        key = key_of(manifest)
        if gone:
            self._cache.legal.pop(key, None)
            self._dirty.pop(key, None)
        elif not self._is_echo(key, manifest):
            self._dirty[key] = manifest
            self._wake.set()

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """Take down every LegalRequest that there is, before anything that a hold of theirs forbids."""
        async for manifest in self._cluster.list("legalrequests", namespaces):
            self._dirty[key_of(manifest)] = manifest
        async with self._registering:
            await self._register(list(self._dirty))
        self._wake.set()

    def _is_echo(self, key: ObjectKey, manifest: Manifest) -> bool:
        """Tell whether a request was taken down as it stands, with nothing left to try again."""
        view, metadata = self._cache.legal.get(key), manifest["metadata"]
        return (
            view is not None
            and (view.uid, view.generation) == (metadata.get("uid"), metadata.get("generation", 1))
            and view.blocker is None
            and view.document_problem is None
        )

    def contacts_found(self, found: Mapping[str, SubjectContact]) -> None:
        """A visit to a Primary has looked for subjects, and tells how to reach some."""
        self._notices.contacts_found(found)
        self._wake.set()

    # the loop

    async def run(self) -> None:
        """Take down, hold, tell and report, for ever."""
        for record in await asyncio.to_thread(self._ledger.legal_requests):
            self._records[record.legal] = record
        while True:
            try:
                await self._turn()
            except LedgerError:
                raise
            except (ClusterUnavailable, ClusterRefused) as away:
                log.warning("legal requests wait: %s", away)
            except Exception:
                log.exception("a turn over the legal requests failed; it is tried again")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TURN_SECONDS)
            await asyncio.sleep(GATHER_SECONDS)
            self._wake.clear()

    async def _turn(self) -> None:
        now = time.monotonic()
        for key in [key for key, moment in self._retry_at.items() if moment <= now]:
            del self._retry_at[key]
            view = self._cache.legal.get(key)
            if view is not None:
                self._dirty.setdefault(key, view.manifest)
        if self._dirty:
            async with self._registering:
                await self._register(list(self._dirty))
        await self._reread()
        if any(record.open or self._notices.may_retry(record) for record in self._records.values()):
            await self._follow_holds()
            if await self._notices.turn(list(self._records.values()), self._wake.set):
                await self._reread(retried=True)
        self._reporting.measure(self._records.values())
        await self._reporting.report(self._records.values())

    async def _reread(self, *, retried: bool = False) -> None:
        """Read from the ledger what has become of the open requests, and tell what was sent of them.

        `retried`: of those as well that had ended with nobody told, and may have been tried again.
        """
        before = {
            legal: record
            for legal, record in self._records.items()
            if record.open or (retried and self._notices.may_retry(record))
        }
        current = await asyncio.to_thread(self._ledger.legal_requests, open_only=True)
        ended = before.keys() - {record.legal for record in current}
        if ended:
            keys = {before[legal].key for legal in ended}
            current = [*current, *(await asyncio.to_thread(self._ledger.legal_named, keys)).values()]
        for record in current:
            known = self._records.get(record.legal)
            self._records[record.legal] = record
            if known is not None:
                await self._reporting.tell(record, letters_settled_since(known, record))

    # taking down

    async def _register(self, keys: Sequence[ObjectKey]) -> None:
        orders: list[LegalOrder] = []
        identifiers: dict[ObjectKey, NamedSecret] = {}
        taken = {key: self._dirty.get(key) for key in keys}
        for key, read in zip(keys, await asyncio.gather(*map(self._read, keys)), strict=True):
            if read is not None:
                order, secret = read
                orders.append(order)
                if secret is not None:
                    identifiers[key] = secret
        registered = await asyncio.to_thread(register, orders, self._context())
        for key in keys:
            if self._dirty.get(key) is taken[key]:  # else it was changed meanwhile
                self._dirty.pop(key, None)
        for key, registration in registered.items():
            try:
                await self._note(key, registration, identifiers.get(key))
            except (ClusterUnavailable, ClusterRefused) as away:
                self._try_again(key, away)

    async def _read(self, key: ObjectKey) -> tuple[LegalOrder, NamedSecret | None] | None:
        """Read what one request asks. One whose Secrets can't be read keeps none of the others waiting."""
        manifest = self._dirty.get(key)
        try:
            return await self._order(key, manifest) if manifest is not None else None
        except (ClusterUnavailable, ClusterRefused) as away:
            self._try_again(key, away)
            return None

    def _try_again(self, key: ObjectKey, away: Exception) -> None:
        log.warning("LegalRequest %s/%s waits: %s", *key, away)
        self._retry_at[key] = time.monotonic() + RETRY_SECONDS

    async def _order(
        self, key: ObjectKey, manifest: Manifest
    ) -> tuple[LegalOrder, NamedSecret | None] | None:
        view = self._view(key, manifest)
        try:
            request = parse(LegalRequest, manifest)
        except InvalidManifest as invalid:
            log.warning("%s", invalid)
            return None
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

    def _view(self, key: ObjectKey, manifest: Manifest) -> LegalView:
        metadata, known = manifest["metadata"], self._cache.legal.get(key)
        status: dict[str, Any] = dict(manifest.get("status") or {})
        if known is not None and known.uid == metadata.get("uid"):
            known.manifest, known.generation = manifest, metadata.get("generation", 1)
            return known
        view = LegalView(manifest, metadata.get("uid", ""), metadata.get("generation", 1), status)
        self._cache.legal[key] = view
        return view

    async def _note(self, key: ObjectKey, registration: Registration, secret: NamedSecret | None) -> None:
        view = self._cache.legal.get(key)
        record = registration.record
        if view is not None:
            view.blocker = registration.blocker
        if record is not None and registration.blocker is None:
            self._records[record.legal] = record
            await self._tell_news(record, registration.news)
            if secret is not None:
                blocker = await self._secrets.delete(key[0], *secret, meanwhile="the request goes on")
                if view is not None:
                    view.blocker = blocker
        reused = registration.blocker is not None and _is_reused(registration.blocker)
        if view is not None and (view.blocker or view.document_problem) and not reused:
            self._retry_at[key] = time.monotonic() + RETRY_SECONDS

    async def _tell_news(self, record: LegalRecord, news: Sequence[LegalFact]) -> None:
        """Let what is new have its effect: stores are visited, sources scanned, decisions counted."""
        if any(isinstance(fact, HoldPlaced | HoldEnded) for fact in news):
            self._wake_stores(record)
        primary = self._cache.primary_of(record.registered.namespace)
        if primary is not None and record.resolved_at is None:
            self._ring_store(primary.key)
        for fact in news:
            if isinstance(fact, LegalDecided):
                level = record.registered.level
                self._metrics.legal_requests.labels(level, fact.outcome.value).inc()
        await self._reporting.tell(record, news)

    def _wake_stores(self, record: LegalRecord) -> None:
        for managed in self._cache.stores_of(record.registered.namespace):
            self._ring_store(managed.key)
        for source in self._cache.sources.values():
            if source.description.namespace == record.registered.namespace:
                self._scan_soon(source.key)

    # holds

    async def _follow_holds(self) -> None:
        held = [record for record in self._records.values() if record.holding]
        effective = [record for record in held if self._has_taken_effect(record)]
        if effective:
            await asyncio.to_thread(take_effect, effective, self._context())
            await self._reread()
        if not self._over():
            return
        disagreement = await self._clocks.disagreement()
        if disagreement is not None:
            log.warning("no hold is ended: %s", disagreement)
            return
        async with self._registering:  # a resync may take down a prolongation meanwhile
            ended = await asyncio.to_thread(end_holds, self._over(), self._context())
            await self._reread()
        for record in ended:
            current = self._records[record.legal]
            self._wake_stores(current)
            if current.hold is not None and current.hold.ended is not None:
                await self._reporting.tell(current, [current.hold.ended])

    def _over(self) -> list[LegalRecord]:
        """Return those whose hold has come to its day, by this host's clock."""
        now = self._clocks.now()
        held = [one for one in self._records.values() if one.holding]
        return [one for one in held if one.hold and one.hold.until is not None and one.hold.until <= now]

    def _has_taken_effect(self, record: LegalRecord) -> bool:
        """Tell whether nothing can erase any more what is held: whatever had begun before has ended.

        What begins after the hold was first seen here reads all of it. What an earlier process had begun has
        ended in a store, or is refused there, once this one has visited it.
        """
        hold, namespace = record.hold, record.registered.namespace
        if hold is None or hold.effective_at is not None or record.resolved_at is None:
            return False
        held = hold, record.keys, record.emails
        known, since = self._placed.get(record.legal, (None, 0.0))
        if known != held:
            since = time.monotonic()
            self._placed[record.legal] = held, since
        stores = self._cache.stores_of(namespace)
        if not {one.name for one in stores}.issuperset(hold.stores):
            return False
        concerned = [one for one in stores if not hold.stores or one.name in hold.stores]
        if any(one.earlier_work_may_go_on for one in concerned):
            return False
        began = [one.pass_began_at for one in concerned]
        began += [
            moment
            for source, moment in self._cache.scans.values()
            if not source.listing  # what follows a listing reads the holds anew
            and (
                (not hold.stores and source.description.namespace == namespace)
                or not source.stores.isdisjoint(hold.stores)
            )
        ]
        return all(moment is None or moment > since for moment in began)


def _is_reused(blocker: Blocker) -> bool:
    return blocker.reason is BlockReason.NAME_REUSED
