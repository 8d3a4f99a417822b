"""A legal office: controllers of legal requests over a real ledger, looked at by hand, without stores."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.adapters.notices.letters import TemplateWriter
from lethe.controllers.datastore_questions import StoreBusy
from lethe.controllers.legalrequest import LegalRequestController
from lethe.controllers.legalrequest_records import LegalRecords
from lethe.controllers.legalrequest_status import LegalRequestStatus
from lethe.controllers.notices import NoticeSender
from lethe.controllers.runtime.cache import ManagedStore, ObjectCache, ObjectKey, StoreWork
from lethe.controllers.runtime.clock import SteadyClock, TwoClocks
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.secrets import Secrets
from lethe.controllers.runtime.status_writer import ShownStatus, StatusWriter
from lethe.controllers.runtime.supervisor import Supervisor
from lethe.domain.identifiers import PersonalText
from lethe.domain.legal import LegalRecord
from lethe.domain.legal_facts import AddressKept, SubjectResolved
from lethe.domain.mapping import StoreOwner, StoreRole
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.ports.cluster import ClusterUnavailable, SecretContent
from lethe.ports.notices import Delivery, DeliveryResult, Letter, NoticeFacts, Recipient, Written
from lethe.ports.stores import Contact
from lethe.workflows.legal.contact import SubjectContact
from lethe.workflows.legal.notify import Mailer
from lethe.workflows.legal.sealed_subject import SealedSubject
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import StoreDescription
from tests.invariants.company import NAMESPACE


class Answers:
    """Answers for the API server; `down` are the calls that fail, once for each time they stand there.

    `defects` are those at which Lethe itself fails, `listed` what a list shows.
    """

    def __init__(self) -> None:
        self.secrets: dict[str, SecretContent] = {}
        self.down: list[str] = []
        self.time = datetime(2026, 3, 1, tzinfo=UTC)
        self.statuses: dict[str, Any] = {}
        self.listed: tuple[Any, ...] = ()
        self.writes = 0
        self.defects: set[str] = set()
        self.defects_met = 0

    def _pass(self, call: str) -> None:
        if call in self.down:
            self.down.remove(call)
            raise ClusterUnavailable("the API server is unavailable (HTTP 500)")
        if call in self.defects:
            self.defects_met += 1
            raise RuntimeError("what nobody has thought of")

    async def list(self, *_: Any) -> AsyncIterator[Any]:
        for manifest in self.listed:
            yield manifest

    async def secret(self, _: str, name: str) -> SecretContent | None:
        self._pass(f"get {name}")
        return self.secrets.get(name)

    async def delete_secret(self, _: str, name: str, **__: Any) -> bool:
        self._pass(f"delete {name}")
        return self.secrets.pop(name, None) is not None

    async def write_status(self, _: str, __: str, name: str, *, uid: str, status: Any) -> bool:
        self.statuses[name] = status
        self.writes += 1
        return bool(uid)

    async def create_secret(self, *_: Any) -> bool:
        return True

    async def server_time(self) -> datetime:
        return self.time

    async def record_event(self, _: Any) -> None:
        return


class Mail:
    """A channel that takes everything, while it does not hang."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.takes = threading.Event()
        self.takes.set()

    def send(self, letters: Sequence[Letter]) -> dict[str, Delivery]:
        self.takes.wait(30)
        self.sent += [one.to.reveal() for one in letters]
        return {one.message_id: Delivery(DeliveryResult.SENT, "250") for one in letters}

    def close(self) -> None:
        return


class Renderer(TemplateWriter):
    """Writes letters, but none about what an authority among `defects` asks."""

    def __init__(self) -> None:
        super().__init__()
        self.defects: set[str] = set()

    def to_user(self, facts: NoticeFacts, recipient: Recipient) -> Written:
        if facts.authority in self.defects:
            raise RuntimeError("what nobody has thought of")
        return super().to_user(facts, recipient)


class Primary:
    """Answers for the Primary: how subjects are reached, by legal request; `busy` is why it can't say.

    `meanwhile` happens while it is being asked.
    """

    def __init__(self) -> None:
        self.contacts: dict[str, SubjectContact] = {}
        self.busy: str | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    async def find_contacts(self, _: str, legals: Collection[str]) -> dict[str, SubjectContact]:
        if self.busy is not None:
            raise StoreBusy(self.busy)
        self.meanwhile()
        return {legal: self.contacts[legal] for legal in legals if legal in self.contacts}


class Office:
    """The controllers of legal requests, with a store that nobody really visits."""

    def __init__(self, directory: Path, per_hour: int = 1) -> None:
        (directory / "keys").mkdir()
        self.keyring = FileKeyring(directory / "keys")
        self.ledger = open_ledger(f"sqlite:///{directory / 'ledger.db'}", self.keyring)
        self.token = self.ledger.take_over()
        self.cluster, self.primary, self.mail = Answers(), Primary(), Mail()
        self.renderer = Renderer()
        self.now = datetime(2026, 3, 1, tzinfo=UTC)
        self.start(per_hour)

    def start(self, per_hour: int = 1) -> None:
        """Start with nothing in memory."""
        self.cache = ObjectCache()
        start = self.now
        steady = SteadyClock(lambda: self.now, lambda: self._since(start))
        cluster: Any = self.cluster
        clocks, self.metrics = TwoClocks(steady, cluster), Metrics()

        def context() -> PassContext:
            return PassContext(self.ledger, self.keyring, self.token, clocks.now)

        secrets, statuses = Secrets(cluster, self.metrics), StatusWriter(cluster, self.metrics)
        mailer = Mailer(self.renderer, self.mail, "smtp", "site.example")
        status = LegalRequestStatus(self.cache, cluster, self.metrics, statuses, clocks.now)
        records = LegalRecords(self.cache, self.ledger, status)
        self.notices = NoticeSender(
            self.cache, context, cluster, secrets, clocks,
            records=records, stores=self.primary, renderer=mailer.renderer, mailer=mailer, per_hour=per_hour,
            look_again=self.look_again, ring_primary=lambda _: None,
        )  # fmt: skip
        self.legal = LegalRequestController(
            self.cache, context, cluster, self.metrics, secrets, clocks,
            records=records, status=status, notices=self.notices,
            ring_stores=lambda _: None, ring_primary=lambda _: None,
        )  # fmt: skip
        self.site = self.store("site")

    def _since(self, start: datetime) -> float:
        return (self.now - start).total_seconds()

    def store(self, name: str) -> ManagedStore:
        manifest = {"metadata": {"namespace": NAMESPACE, "name": name}}
        described = StoreDescription(NAMESPACE, name, StoreRole.PRIMARY, StoreOwner.SELF)
        guard = self.cache.stores[NAMESPACE, name] = ManagedStore(
            manifest, described, ShownStatus(""), unusable=Trouble(TroubleReason.UNREACHABLE, "no store here")
        )
        return guard

    def begin_pass(self) -> None:
        """Let a pass over the store be under way."""
        never: Any = None
        self.site.work = StoreWork(never, time.monotonic(), is_pass=True)

    def apply(self, name: str, *, secret: str | None = None, generation: int = 1, **spec: Any) -> None:
        """Let a LegalRequest be seen by the watch."""
        if secret is not None:
            content = {"email": f"{name}@x.example".encode()}
            self.cluster.secrets[secret] = SecretContent("lethe.dev/identifier", content, "uid", "1")
        self.legal.observe(manifest(name, secret=secret, generation=generation, **spec))

    def look_up(self, name: str, *keys: str) -> None:
        """Let the Primary have been asked."""
        self.ledger.append([SubjectResolved(f"uid-{name}", self.now, keys)])

    def restart(self) -> None:
        """Start anew, and list what is there with the statuses that were written."""
        views = self.cache.legal.values()
        self.cluster.listed = tuple({**view.manifest, "status": view.shown.status} for view in views)
        self.cluster.writes = 0
        self.start()

        async def begin() -> None:
            await self.legal.load()
            await self.legal.take_stock([NAMESPACE])

        asyncio.run(begin())

    def look_again(self, key: ObjectKey) -> None:
        self.legal.queue.add(key)

    def turn(self) -> None:
        """Look at everything, as is done every few seconds."""
        asyncio.run(self.look())

    async def look(self) -> None:
        keys = list(dict.fromkeys([*self.cache.legal, *self.cache.legal_records]))
        await self.legal.reconcile_set(keys)
        await self.notices.reconcile_set(keys)
        await self.legal.reconcile_set(keys)

    def live(self, story: Callable[[], Awaitable[None]]) -> None:
        """Let the controllers run by themselves until a story has ended."""

        async def lived() -> None:
            running = asyncio.create_task(Supervisor([self.legal, self.notices]).run())
            told = asyncio.ensure_future(story())
            await asyncio.wait([running, told], return_when=asyncio.FIRST_COMPLETED)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await told

        asyncio.run(lived())

    def reach(self, name: str, address: str) -> None:
        """Let the Primary know how somebody is reached."""
        found = SubjectContact(Contact("users", name, PersonalText(address)))
        self.primary.contacts[f"uid-{name}"] = found

    def erase(self, name: str, address: str) -> None:
        """Let somebody be erased from the Primary, which seals how they are still reached."""
        contact = Contact("users", name, PersonalText(address))
        self.ledger.append(
            [AddressKept(f"uid-{name}", self.now)], seal={f"uid-{name}": SealedSubject((), contact).text()}
        )
        self.primary.contacts[f"uid-{name}"] = SubjectContact(None, "the person was erased")

    def record(self, name: str) -> LegalRecord | None:
        return self.ledger.legal_named([(NAMESPACE, name)]).get((NAMESPACE, name))

    def is_known(self, name: str) -> bool:
        return self.record(name) is not None

    def is_holding(self, name: str) -> bool:
        record = self.record(name)
        return record is not None and record.hold is not None and record.hold.effective_at is not None

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        return next(dict(one) for one in self.cluster.statuses[name]["conditions"] if one["type"] == kind)

    def says(self, name: str, kind: str, reason: str) -> bool:
        """Tell whether a condition says this now."""
        return name in self.cluster.statuses and self.condition(name, kind)["reason"] == reason


async def until(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110 - what is waited for is in threads, too
            await asyncio.sleep(0.02)


def manifest(name: str, *, secret: str | None = None, generation: int = 1, **spec: Any) -> dict[str, Any]:
    """Return a LegalRequest about the person of a key, or about whom a Secret names."""
    return {
        "apiVersion": "lethe.dev/v1alpha1",
        "kind": "LegalRequest",
        "metadata": {
            "namespace": NAMESPACE,
            "name": name,
            "uid": f"uid-{name}",
            "generation": generation,
        },
        "spec": {
            "type": "Preservation",
            "authority": {"name": "Sheriff", "level": "Local", "country": "US"},
            "receivedAt": "2026-02-27T10:00:00Z",
            "subject": {"identifierSecretRef": {"name": secret, "key": "email"}} if secret else {"id": name},
            **({"preservation": {}} if "type" not in spec else {}),
            **spec,
        },
    }
