"""Legal requests under attack: ways in which somebody was told, held or erased who must not be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.adapters.notices.letters import TemplateWriter
from lethe.controllers.runtime.cache import ManagedStore, ObjectCache, StoreWork
from lethe.controllers.runtime.clock import SteadyClock, TwoClocks
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.secrets import Secrets
from lethe.controllers.runtime.status_writer import ShownStatus
from lethe.domain.identifiers import PersonalText, email_identifier
from lethe.domain.legal import LegalRecord
from lethe.domain.legal_facts import LegalKind, SubjectResolved
from lethe.domain.mapping import StoreOwner, StoreRole
from lethe.domain.periods import Period
from lethe.domain.pruning import PruneRules, RetentionHold, prune_plan
from lethe.domain.snapshots import SnapshotRecord
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.domain.trust import BlockReason
from lethe.engine.legal import Legal
from lethe.engine.telling import NoticeSender
from lethe.ports.cluster import ClusterUnavailable, SecretContent
from lethe.ports.notices import Delivery, DeliveryResult, Letter
from lethe.ports.stores import Contact
from lethe.workflows.backup.scan import KnownSource, SourceDescription
from lethe.workflows.legal.contact import SubjectContact, resolve
from lethe.workflows.legal.holds import stores_under_hold
from lethe.workflows.legal.notify import Mailer
from lethe.workflows.legal.register import LegalOrder, NonDisclosure, PreservationWanted, register
from lethe.workflows.legal.sealed_subject import SealedSubject
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.replay import ReplayState
from lethe.workflows.store_pass import PassPlan, reconcile_store
from lethe.workflows.store_session import StoreDescription
from tests.invariants.company import NAMESPACE, STORE, Company
from tests.invariants.conftest import company, ledger_directory, make_company

__all__ = ["company", "ledger_directory", "make_company"]

ENDLESS = NonDisclosure("18 U.S.C. 2705(b)")


def ask(
    company: Company, name: str, *, key: int | None = None, email: str | None = None, **more: Any
) -> LegalRecord:
    """Apply a LegalRequest about somebody; return what the ledger knows of it."""
    order = LegalOrder(
        namespace=NAMESPACE,
        name=name,
        uid=f"uid-{name}",
        spec_text=f"{name} {key}",
        kind=more.pop("kind", LegalKind.DISCLOSURE),
        authority="County Sheriff's Office",
        level="Local",
        country="US",
        received_at=more.pop("received_at", company.now),
        subject_id=None if key is None else str(key),
        identifier=None if email is None else email_identifier(email),
        **more,
    )
    record = register([order], company.context)[order.key].record
    assert record is not None
    return record


def known(company: Company, name: str) -> LegalRecord:
    """Return what the ledger knows of a legal request."""
    return company.real_ledger.legal_named([(NAMESPACE, name)])[NAMESPACE, name]


def reached(company: Company, name: str, *, look: bool = True) -> SubjectContact | None:
    """Ask the Primary how to reach a subject, as a visit does."""
    company.now += timedelta(seconds=1)
    found = reconcile_store(
        company.store,
        company.real_ledger.open_requests(),
        company.context,
        PassPlan(look=look, contacts_of=frozenset({f"uid-{name}"})),
        primary=STORE,
    )
    return found.contacts.get(f"uid-{name}")


def address(found: SubjectContact | None) -> str | None:
    """Return where a notice would go."""
    contact = found.contact if found else None
    return contact.email.reveal() if contact and contact.email else None


def sealed_address(company: Company, name: str) -> str | None:
    """Return what is sealed for a deferred notice."""
    contact = SealedSubject.read(company.real_ledger.sealed([f"uid-{name}"]).get(f"uid-{name}")).contact
    return contact.email.reveal() if contact and contact.email else None


def test_who_has_the_key_since_a_restore_before_the_lookup_is_not_notified(
    company: Company,
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    key = company.key_of(company.sign_up("x@x.example"))
    company.visit_until_safe()
    ask(company, "le", key=key)
    company.restore(before, "volume")
    assert company.key_of(company.sign_up("y@x.example")) == key
    company.visit_until_safe()
    assert address(reached(company, "le")) is None


def test_whoever_has_the_key_since_a_restore_between_two_looks_is_not_told(company: Company) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    key = company.key_of(company.sign_up("x@x.example"))
    company.visit_until_safe()
    ask(company, "le", key=key)
    company.restore(before, "volume")
    assert company.key_of(company.sign_up("y@x.example")) == key
    assert address(reached(company, "le", look=False)) is None
    company.visit_until_safe()
    assert address(reached(company, "le")) is None


def test_who_has_the_key_since_a_restore_after_the_request_came_is_not_notified(
    company: Company,
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    key, received_at = company.key_of(company.sign_up("x@x.example")), company.now
    company.visit_until_safe()
    company.restore(before, "volume")
    assert company.key_of(company.sign_up("y@x.example")) == key
    company.visit_until_safe()
    ask(company, "le", key=key, received_at=received_at)
    company.visit()
    assert address(reached(company, "le")) is None


def test_nobody_elses_address_is_sealed_for_a_subject_whose_key_was_given_out_again(
    company: Company,
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    key = company.key_of(company.sign_up("x@x.example"))
    company.visit_until_safe()
    ask(company, "le", key=key, gag=ENDLESS)
    company.visit()
    assert known(company, "le").subject_known
    company.restore(before, "volume")
    y = company.sign_up("y@x.example")
    assert company.key_of(y) == key
    company.visit_until_safe()
    company.request("y", email="y@x.example")
    company.visit_until_safe()
    assert company.is_cleared(y)
    assert sealed_address(company, "le") is None


def test_nobody_elses_address_is_sealed_who_has_taken_over_the_subjects_former_one(company: Company) -> None:
    x = company.sign_up("x@x.example")
    company.visit_until_safe()
    ask(company, "le", key=company.key_of(x), gag=ENDLESS)
    company.visit()
    company.sql("UPDATE users SET email = 'new-x@x.example' WHERE person = %s", x)
    z = company.sign_up("x@x.example")
    company.request("z", key=company.key_of(z))
    company.visit_until_safe()
    assert company.is_cleared(z)
    assert sealed_address(company, "le") is None
    assert address(reached(company, "le")) == "new-x@x.example"


def test_who_has_the_key_since_an_unnoticed_restore_is_neither_notified_nor_sealed(
    company: Company,
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    key = company.key_of(company.sign_up("x@x.example"))
    company.visit_until_safe()
    ask(company, "told", key=key)
    ask(company, "kept", key=key, gag=ENDLESS)
    company.visit()
    company.restore(before, "volume")
    assert company.key_of(company.sign_up("y@x.example")) == key
    company.request("y", email="y@x.example")
    assert address(reached(company, "told", look=False)) is None
    company.visit(look=False)
    assert sealed_address(company, "kept") is None
    company.visit_until_safe()
    assert sealed_address(company, "kept") is None


def test_whoever_registered_anew_after_a_restore_is_known_by_the_address_and_told(company: Company) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    key = company.key_of(company.sign_up("x@x.example"))
    company.visit_until_safe()
    ask(company, "le", key=key, gag=ENDLESS)
    company.visit()
    company.restore(before, "volume")
    company.sign_up("y@x.example")
    company.visit_until_safe()
    again = company.sign_up("x@x.example")
    assert company.key_of(again) != key
    company.request("x", email="x@x.example")
    company.visit_until_safe()
    assert company.is_cleared(again)
    assert sealed_address(company, "le") == "x@x.example"


# What counsel relies on: Holding=True


NOT_CONNECTED = Trouble(TroubleReason.UNREACHABLE, "no store here")


class Answers:
    """Answers for the API server; `down` are the calls that fail, once for each time they stand there."""

    def __init__(self) -> None:
        self.secrets: dict[str, SecretContent] = {}
        self.down: list[str] = []
        self.time = datetime(2026, 3, 1, tzinfo=UTC)
        self.statuses: dict[str, Any] = {}

    def _pass(self, call: str) -> None:
        if call in self.down:
            self.down.remove(call)
            raise ClusterUnavailable("the API server is unavailable (HTTP 500)")

    async def list(self, *_: Any) -> AsyncIterator[Any]:
        for manifest in list[Any]():
            yield manifest

    async def secret(self, _: str, name: str) -> SecretContent | None:
        self._pass(f"get {name}")
        return self.secrets.get(name)

    async def delete_secret(self, _: str, name: str, **__: Any) -> bool:
        self._pass(f"delete {name}")
        return self.secrets.pop(name, None) is not None

    async def write_status(self, _: str, __: str, name: str, *, uid: str, status: Any) -> bool:
        self.statuses[name] = status
        return bool(uid)

    async def create_secret(self, *_: Any) -> bool:
        return True

    async def server_time(self) -> datetime:
        return self.time

    async def record_event(self, _: Any) -> None:
        return


class Mail:
    """A channel that takes everything."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, letters: Sequence[Letter]) -> dict[str, Delivery]:
        self.sent += [one.to.reveal() for one in letters]
        return {one.message_id: Delivery(DeliveryResult.SENT, "250") for one in letters}

    def close(self) -> None:
        return


class Office:
    """The engine's loop over legal requests, turned by hand, with a store that nobody really visits."""

    def __init__(self, directory: Path, per_hour: int = 1) -> None:
        (directory / "keys").mkdir()
        self.keyring = FileKeyring(directory / "keys")
        self.ledger = open_ledger(f"sqlite:///{directory / 'ledger.db'}", self.keyring)
        token = self.ledger.take_over()

        def context() -> PassContext:
            return PassContext(self.ledger, self.keyring, token, clocks.now)

        self.cluster = Answers()
        self.cache = ObjectCache()
        self.now = datetime(2026, 3, 1, tzinfo=UTC)
        start = self.now
        steady = SteadyClock(lambda: self.now, lambda: self._since(start))
        cluster: Any = self.cluster
        clocks, metrics = TwoClocks(steady, cluster), Metrics()
        secrets = Secrets(cluster, metrics)
        self.mail = Mail()
        mailer = Mailer(TemplateWriter(), self.mail, "smtp", "site.example")
        telling = self.telling = NoticeSender(
            self.cache, self.ledger, self.keyring, context, cluster, secrets, clocks,
            renderer=mailer.renderer, mailer=mailer, per_hour=per_hour, ring_store=lambda _: None,
        )  # fmt: skip
        self.legal = Legal(
            self.cache,
            self.ledger,
            context,
            cluster,
            metrics,
            secrets,
            telling,
            clocks,
            lambda _: None,
            lambda _: None,
        )
        self.site = self.store("site")

    def _since(self, start: datetime) -> float:
        return (self.now - start).total_seconds()

    def store(self, name: str) -> ManagedStore:
        manifest = {"metadata": {"namespace": NAMESPACE, "name": name}}
        described = StoreDescription(NAMESPACE, name, StoreRole.PRIMARY, StoreOwner.SELF)
        guard = self.cache.stores[NAMESPACE, name] = ManagedStore(
            manifest, described, ShownStatus(""), unusable=NOT_CONNECTED
        )
        return guard

    def begin_pass(self) -> None:
        """Let a pass over the store be under way."""
        never: Any = None
        self.site.work = StoreWork(never, time.monotonic(), is_pass=True)

    def apply(self, name: str, *, secret: str | None = None, generation: int = 1, **spec: Any) -> None:
        if secret is not None:
            content = {"email": f"{name}@x.example".encode()}
            self.cluster.secrets[secret] = SecretContent("lethe.dev/identifier", content, "uid", "1")
        named = {"identifierSecretRef": {"name": secret, "key": "email"}} if secret else {"id": name}
        self.legal.ring(
            {
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
                    "subject": named,
                    **({"preservation": {}} if "type" not in spec else {}),
                    **spec,
                },
            },
            gone=False,
        )

    def look_up(self, name: str, *keys: str) -> None:
        """Let the Primary have been asked."""
        self.ledger.append([SubjectResolved(f"uid-{name}", self.now, keys)])

    def turn(self) -> None:
        asyncio.run(self._turned())

    async def _turned(self) -> None:
        await self.legal._turn()
        if self.telling._task is not None:
            await self.telling._task

    def reach(self, name: str, address: str) -> None:
        """Let the Primary have said how somebody is reached."""
        found = SubjectContact(Contact("users", name, PersonalText(address)))
        self.telling.contacts_found({f"uid-{name}": found})

    def record(self, name: str) -> LegalRecord | None:
        return self.ledger.legal_named([(NAMESPACE, name)]).get((NAMESPACE, name))

    def is_holding(self, name: str) -> bool:
        record = self.record(name)
        return record is not None and record.hold is not None and record.hold.effective_at is not None

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        return next(dict(one) for one in self.cluster.statuses[name]["conditions"] if one["type"] == kind)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """A loop over legal requests."""
    made = Office(tmp_path)
    yield made
    made.ledger.close()


def test_a_hold_waits_for_a_pass_that_had_begun_also_if_the_api_server_failed(
    office: Office,
) -> None:
    office.begin_pass()
    office.apply("a-first", secret="named")
    office.apply("le")
    office.cluster.down = ["delete named"]
    with suppress(ClusterUnavailable):
        office.turn()
    assert office.record("le") is not None
    office.look_up("le", "le")
    office.turn()
    assert not office.is_holding("le")
    office.site.work = None
    office.turn()
    assert office.is_holding("le")


def test_a_hold_waits_for_a_visit_that_began_before_its_subject_was_known(office: Office) -> None:
    office.apply("le", secret="named")
    office.turn()
    office.begin_pass()  # it reads a hold on an address only
    office.look_up("le", "4711")
    office.turn()
    assert not office.is_holding("le")
    office.site.work = None
    office.turn()
    assert office.is_holding("le")


def test_a_hold_waits_for_a_prune_of_a_source_that_is_gone(office: Office) -> None:
    async def live() -> None:
        no_backend: Any = None
        described = SourceDescription(NAMESPACE, "dumps", (STORE,), "P6M")
        scan: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        source: Any = KnownSource(described, no_backend, abandoned=True)
        office.cache.scans[scan] = source, time.monotonic()
        office.apply("le")
        await office.legal._turn()
        office.look_up("le", "le")
        await office.legal._turn()
        assert not office.is_holding("le")
        office.cache.scans.clear()
        await office.legal._turn()
        assert office.is_holding("le")

    asyncio.run(live())


def test_a_hold_in_a_store_that_does_not_exist_holds_nothing_and_says_so(office: Office) -> None:
    office.apply("le", preservation={"stores": ["stie"]})
    office.turn()
    office.look_up("le", "le")
    office.turn()
    assert not office.is_holding("le")
    held = office.condition("le", "Holding")
    assert held["status"] == "False"
    assert "no DataStore stie" in held["message"]
    office.store("stie")
    office.turn()
    assert office.condition("le", "Holding")["status"] == "True"


def test_one_unreadable_secret_keeps_no_other_hold_from_being_placed(office: Office) -> None:
    office.apply("broken", secret="broken")
    office.apply("le")
    office.cluster.down = ["get broken"] * 99
    with suppress(ClusterUnavailable):
        office.turn()
    assert office.record("le") is not None
    office.cluster.down = []
    office.legal._retry_at.update(dict.fromkeys(office.legal._retry_at, 0.0))
    office.turn()
    assert office.record("broken") is not None


def test_a_hold_that_was_prolonged_while_its_end_was_being_decided_goes_on(office: Office) -> None:
    office.apply("le", preservation={"until": "2026-03-02T00:00:00Z"})
    office.turn()
    office.now = office.cluster.time = datetime(2026, 3, 2, 1, tzinfo=UTC)
    record = office.record("le")
    assert record is not None
    telling_the_time = office.cluster.server_time

    async def told_late() -> datetime:
        # The resync has seen the prolongation meanwhile.
        office.apply("le", generation=2, preservation={"until": "2026-05-01T00:00:00Z"})
        await office.legal.take_stock([NAMESPACE])
        return await telling_the_time()

    office.cluster.server_time = told_late  # type: ignore[method-assign]
    office.turn()
    current = office.record("le")
    assert current is not None
    assert current.holding


def test_what_is_changed_while_a_request_is_taken_down_is_taken_down_too(office: Office) -> None:
    async def changed_meanwhile(_: str, __: str) -> None:
        if office.record("le") is None:
            office.apply("le", generation=2, secret=None, preservation={"until": "2026-05-01T00:00:00Z"})

    office.cluster.secret = changed_meanwhile  # type: ignore[assignment, method-assign]
    order = {"court": "C", "docket": "D", "issuedAt": "2026-02-02"}
    office.apply("le", courtOrder={**order, "documentSecretRef": {"name": "order", "key": "pdf"}})
    office.turn()
    office.turn()
    record = office.record("le")
    assert record is not None
    assert record.hold is not None
    assert record.hold.until == datetime(2026, 5, 1, tzinfo=UTC)


# What gives an order away that forbids to tell


def held_and_back(company: Company, **more: Any) -> str:
    """Let somebody be erased, held, and come back by a restore; return the `person`."""
    x = company.sign_up("x@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.request("x", key=company.key_of(x))
    company.visit_until_safe()
    ask(
        company,
        "le",
        key=company.key_of(x),
        kind=LegalKind.PRESERVATION,
        preservation=PreservationWanted(),
        **more,
    )
    company.visit()
    company.restore(before, "volume")
    return x


def test_no_restore_event_says_that_somebody_is_held_in_secret(company: Company) -> None:
    x = held_and_back(company, gag=ENDLESS)
    step = company.visit_until(ReplayState.AWAITING_RELEASE).step
    assert step is not None
    assert "preserved" not in step.message
    assert "hold" not in step.message
    assert not company.is_cleared(x)


def test_a_store_that_was_released_stays_so_whoever_else_is_held_later(company: Company) -> None:
    x = held_and_back(company)
    company.visit_until(ReplayState.HELD_ROWS_RETURNED)
    company.visit(release="counsel has seen it")
    company.visit_until_safe()
    ask(
        company,
        "another",
        key=4711,
        kind=LegalKind.PRESERVATION,
        preservation=PreservationWanted(),
    )
    company.visit()
    company.visit()
    assert company.episode() is None
    assert not company.is_cleared(x)


def test_a_lapsed_order_is_given_away_by_nothing_before_the_user_was_told(company: Company) -> None:
    """For which two clocks agree; this host's alone may be wrong by months."""
    x = company.sign_up("x@x.example")
    company.visit_until_safe()
    gag = NonDisclosure("18 U.S.C. 2705(b)", (company.now + timedelta(days=30)).date(), "UTC")
    wanted = PreservationWanted()
    ask(company, "le", key=company.key_of(x), kind=LegalKind.PRESERVATION, preservation=wanted, gag=gag)
    company.now += timedelta(days=60)
    company.request("x", key=company.key_of(x))
    company.visit()
    assert company.store.blockers["uid-x"].reason is BlockReason.PENDING
    assert stores_under_hold(company.real_ledger, [STORE], company.now) == {STORE: RetentionHold.UNSAID}


def test_a_snapshot_that_is_kept_in_secret_is_announced_like_any_other(company: Company) -> None:
    at = company.now
    piece = SnapshotRecord("shop/dumps", "dump", (STORE,), at, at, pieces=("v1",))
    rules = PruneRules(Period(6, 0), hold_last=False)
    plain = prune_plan([piece], rules, now=at)
    secret = prune_plan([piece], rules, now=at, held_stores={STORE: RetentionHold.UNSAID})
    assert plain.next is not None
    assert secret.next == plain.next


# Telling


def test_a_notice_that_waited_for_the_limit_goes_to_the_address_of_that_day(
    office: Office,
) -> None:
    for name in ("first", "le"):
        office.apply(name, preservation={"until": "2026-02-28T00:00:00Z"})
        office.turn()
        office.look_up(name, name)
    office.turn()
    office.reach("first", "first@x.example")
    office.turn()
    office.reach("le", "old@x.example")
    office.turn()
    assert office.mail.sent == ["first@x.example"]
    office.now = office.cluster.time = office.now + timedelta(hours=2)
    office.turn()
    assert office.mail.sent == ["first@x.example"]
    office.reach("le", "new@x.example")
    office.turn()
    assert office.mail.sent == ["first@x.example", "new@x.example"]


def test_a_typing_error_in_a_subject_keeps_a_request_open_for_a_month_only(
    office: Office,
) -> None:
    office.apply("typo", type="Disclosure")
    office.turn()
    office.look_up("typo")
    office.turn()
    record = office.record("typo")
    assert record is not None
    assert record.open
    office.now = office.cluster.time = office.now + timedelta(days=31)
    for _ in range(3):
        office.turn()
    record = office.record("typo")
    assert record is not None
    assert not record.open
    assert office.mail.sent == []
    assert office.condition("typo", "UserInformed")["reason"] == "Undeliverable"


def test_an_address_that_nobody_has_fills_no_ledger(company: Company) -> None:
    company.visit_until_safe()
    ask(company, "le", email="nobody@x.example")
    before = company.real_ledger.position().sequence
    for _ in range(24 * 3):
        company.now += timedelta(hours=1)
        resolve(company.store, company.context)
    assert company.real_ledger.position().sequence - before < 12
