"""Letters about legal requests: users told, authorities answered; when each goes, and why it waits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from lethe.controllers.datastore_questions import AsksPrimary, StoreBusy
from lethe.controllers.legalrequest_records import LegalRecords, until_next_turn
from lethe.controllers.runtime.cache import ObjectCache, ObjectKey
from lethe.controllers.runtime.clock import TwoClocks
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.secrets import Secrets, UnusableSecret, address_in
from lethe.controllers.runtime.threads import in_daemon
from lethe.domain.identifiers import PersonalText
from lethe.domain.legal import LegalRecord, is_gagged
from lethe.domain.legal_facts import Addressee
from lethe.domain.trouble import Trouble
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable
from lethe.ports.notices import ChannelError, Delivery, DeliveryResult, NoticeRenderer
from lethe.workflows.legal.contact import SubjectContact
from lethe.workflows.legal.notify import Mailer, answer_authorities, facts_of, notify_users, record_draft
from lethe.workflows.legal.sealed_subject import SealedSubject
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import email_digest

log = logging.getLogger("lethe.legal")

ANSWER_TYPE = "lethe.dev/answer"
LONGEST_PAUSE = 900.0
"""The longest that a letter waits for its next try, in seconds; a server that greylists asks for minutes."""
HOUR = timedelta(hours=1)
RETRIED_FOR = timedelta(days=30)
"""For how long somebody who could not be reached is tried again, should the Primary have another address."""
NO_CHANNEL = (
    "no way to send it is set: set LETHE_SMTP_URL and LETHE_MAIL_FROM, or LETHE_WEBHOOK_URL and "
    "LETHE_WEBHOOK_SECRET"
)


def may_be_retried(record: LegalRecord, now: datetime) -> bool:
    """Tell whether somebody could not be reached, lately enough to look for another address."""
    letter = record.letters.get(Addressee.USER)
    if letter is None or letter.settled is None or letter.settled.delivered or not record.subject_known:
        return False
    return now - letter.intended.at < RETRIED_FOR


class NoticeSender(Controller[ObjectKey]):
    """Sends what is due of legal requests, one set of letters at a time.

    `look_again` is called with each request of which there is something new to say. People change their
    addresses: one that the Primary shows is used at once, and never kept.
    """

    name = "letters"
    batch = 1000
    gather = 0.05

    def __init__(
        self,
        cache: ObjectCache,
        context: Callable[[], PassContext],
        cluster: Cluster,
        secrets: Secrets,
        clocks: TwoClocks,
        *,
        records: LegalRecords,
        stores: AsksPrimary,
        renderer: NoticeRenderer,
        mailer: Mailer | None,
        per_hour: int,
        look_again: Callable[[ObjectKey], None],
        ring_primary: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._cache, self._context = cache, context
        self._cluster, self._secrets, self._clocks = cluster, secrets, clocks
        self._records, self._stores = records, stores
        self._renderer, self._mailer, self._per_hour = renderer, mailer, per_hour
        self._look_again, self._ring_primary = look_again, ring_primary
        self._attempts: Counter[tuple[str, Addressee]] = Counter()
        self._not_before: dict[tuple[str, Addressee], float] = {}
        self.under_way: asyncio.Future[Mapping[str, Delivery]] | None = None
        """The letters that are being sent, or what came of the last ones: nothing interrupts them."""

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Send what is due of one legal request."""
        return (await self.reconcile_set([key]))[key]

    async def reconcile_set(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, float | None]:
        """Send what is due of these legal requests: to users first, then to authorities."""
        known = self._cache.legal_records
        due = [key for key in keys if key in known and self._may_be_due(known[key])]
        records = await self._records.refresh(due) if due else []
        users = await self._users_due(due)
        await self._tell(users)
        await self._answer([one for one in records if self._is_to_be_answered(one)])
        for key in keys:
            view = self._cache.legal.get(key)
            if view is not None and view.troubles.pop(self.name, None) is not None:
                self._look_again(key)
        return {key: self._next_look(key) for key in keys}

    async def show_trouble(self, key: ObjectKey, trouble: Trouble) -> None:
        """Let the status of a legal request say that Lethe failed over its letters."""
        view = self._cache.legal.get(key)
        if view is not None:
            view.troubles[self.name] = trouble
            self._look_again(key)

    def _next_look(self, key: ObjectKey) -> float | None:
        record = self._cache.legal_records.get(key)
        followed = record is not None and (record.open or may_be_retried(record, self._clocks.now()))
        return until_next_turn() if followed else None

    # who is due

    def _may_be_due(self, record: LegalRecord) -> bool:
        return self._is_to_be_told(record) or self._is_to_be_answered(record)

    def _is_to_be_told(self, record: LegalRecord) -> bool:
        now = self._clocks.now()
        wanted = not record.notified or may_be_retried(record, now)
        ripe = record.decided is not None and wanted and not is_gagged(record, now)
        return ripe and self._is_time(record, Addressee.USER)

    def _is_to_be_answered(self, record: LegalRecord) -> bool:
        return not record.answered and self._is_time(record, Addressee.AUTHORITY)

    async def may_go(self, keys: Sequence[ObjectKey]) -> list[LegalRecord]:
        """Return of which a user may be told now, as far as is known here; statuses say why others wait."""
        known = self._cache.legal_records
        records = [known[key] for key in keys if key in known and self._is_to_be_told(known[key])]
        lapsed = [one for one in records if one.gag is not None and one.gag.lifted is None]
        disagreement = await self._clocks.disagreement() if lapsed else None
        lately = self._sent_lately() if records else Counter()
        free: list[LegalRecord] = []
        for record in records:
            if disagreement is not None and record in lapsed:
                self._wait_for(record, f"the order has lapsed by this host's clock only: {disagreement}")
            elif self._mailer is None:
                self._wait_for(record, NO_CHANNEL)
            elif not self._is_limited(record, lately):
                free.append(record)
        return free

    async def _users_due(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, SubjectContact]:
        """Return whom to tell now, and how they are reached."""
        records = await self.may_go(keys)
        lately = self._sent_lately() if records else Counter()
        contacts: dict[ObjectKey, SubjectContact] = {}
        to_ask: list[LegalRecord] = []
        for record in records:
            contact = await self._known_contact(record)
            if contact is None and self._can_be_asked_for(record):
                to_ask.append(record)
            elif contact is not None and not self._is_limited(record, lately):
                contacts[record.key] = contact
                lately[record.registered.namespace] += _is_new(record)
        asked: dict[str, list[LegalRecord]] = defaultdict(list)
        for record in sorted(to_ask, key=lambda one: (one.notified, one.registered.at)):
            if not self._is_limited(record, lately):
                asked[record.registered.namespace].append(record)
                lately[record.registered.namespace] += _is_new(record)
        for found in await asyncio.gather(*(self._ask(*question) for question in asked.items())):
            contacts |= found
        return self._to_be_told({one.key: one for one in records}, contacts)

    def _to_be_told(
        self, records: Mapping[ObjectKey, LegalRecord], contacts: Mapping[ObjectKey, SubjectContact]
    ) -> Mapping[ObjectKey, SubjectContact]:
        """Leave out who could not be reached, and is nowhere else by now."""
        due: dict[ObjectKey, SubjectContact] = {}
        for key, contact in contacts.items():
            record = records[key]
            if not record.notified or self._is_elsewhere(record, contact):
                due[key] = contact
            else:
                self._pause(record, Addressee.USER, HOUR.total_seconds())
            self._wait_for(record, None)
        return due

    def _sent_lately(self) -> Counter[str]:
        """Count the notices of the last hour by namespace, from what is recorded: a restart forgets none."""
        now = self._clocks.now()
        lately: Counter[str] = Counter()
        for record in self._cache.legal_records.values():
            letter = record.letters.get(Addressee.USER)
            # One that a wrong clock dated in the future would keep all others back until then.
            if letter is not None and abs(now - letter.intended.at) < HOUR:
                lately[record.registered.namespace] += 1
        return lately

    def _is_limited(self, record: LegalRecord, lately: Counter[str]) -> bool:
        """Tell whether no more notices may go this hour; one that is repeated was counted before."""
        limited = _is_new(record) and lately[record.registered.namespace] >= self._per_hour
        if limited:
            limit = f"{self._per_hour} notices an hour are sent, and no more (LETHE_NOTICES_PER_HOUR)"
            self._wait_for(record, limit)
        return limited

    async def _known_contact(self, record: LegalRecord) -> SubjectContact | None:
        """Return how a subject is reached of whom no store has to be asked; else `None`."""
        if record.address_kept:
            sealed = await asyncio.to_thread(self._context().ledger.sealed, [record.legal])
            contact = SealedSubject.read(sealed.get(record.legal)).contact
            return SubjectContact(contact, "the sealed address is gone")
        primary = self._cache.primary_of(record.registered.namespace)
        looked_for = self._clocks.now() - record.registered.at
        given_up = record.resolved_at is not None and not record.subject_known and looked_for >= RETRIED_FOR
        if primary is not None and given_up:
            # Once and for all: what is open keeps the keys of the ledger's months from being destroyed.
            return SubjectContact(None, "the Primary knew nobody of that key or address for 30 days")
        return None

    def _can_be_asked_for(self, record: LegalRecord) -> bool:
        """Tell whether the Primary knows a subject; else say why that is not known yet."""
        namespace = record.registered.namespace
        primary = self._cache.primary_of(namespace)
        if record.subject_known or primary is None:
            return True
        if record.resolved_at is None:
            self._ring_primary(namespace)
        trouble, name = primary.trouble, primary.description.short_name
        waits = f"waits for DataStore {name}: {trouble.message}" if trouble else None
        self._wait_for(record, waits)
        return False

    async def _ask(
        self, namespace: str, records: Sequence[LegalRecord]
    ) -> Mapping[ObjectKey, SubjectContact]:
        """Ask the Primary of a namespace how subjects are reached; nobody, while it can't answer."""
        try:
            found = await self._stores.find_contacts(namespace, [one.legal for one in records])
        except StoreBusy as busy:
            for record in records:
                self._wait_for(record, str(busy))
            return {}
        contacts = {one.key: found[one.legal] for one in records if one.legal in found}
        for record in records:
            if record.legal not in found:
                self._wait_for(record, "the Primary is being filled, and does not show this person yet")
        for record in await self._records.refresh(list(contacts)):
            # Who was erased before the Primary answered: what was sealed of them counts, not its answer.
            contacts[record.key] = await self._known_contact(record) or contacts[record.key]
        return contacts

    def _is_elsewhere(self, record: LegalRecord, contact: SubjectContact) -> bool:
        """Tell whether somebody who could not be reached has another address by now."""
        letter = record.letters[Addressee.USER]
        address = contact.contact.email if contact.contact else None
        if address is None or letter.settled is None:
            return False
        return email_digest(self._context().keyring, address.reveal()) != letter.settled.address

    # when, and why not yet

    def _is_time(self, record: LegalRecord, to: Addressee) -> bool:
        return self._not_before.get((record.legal, to), float("-inf")) <= time.monotonic()

    def _pause(self, record: LegalRecord, to: Addressee, seconds: float | None = None) -> None:
        letter = record.legal, to
        self._attempts[letter] += 1
        pause = seconds if seconds is not None else min(LONGEST_PAUSE, 2.0 ** min(self._attempts[letter], 12))
        self._not_before[letter] = time.monotonic() + pause

    def _wait_for(self, record: LegalRecord, why: str | None) -> None:
        """Let the status say why a user is not told yet; `None`: nothing is in the way."""
        view = self._cache.legal.get(record.key)
        if view is not None and not record.notified and view.waits != why:
            view.waits = why
            self._look_again(record.key)

    def _put_off(self, record: LegalRecord, to: Addressee, why: str) -> None:
        """Let a letter be tried again, later each time."""
        self._pause(record, to)
        view = self._cache.legal.get(record.key)
        if view is not None and to is Addressee.USER:
            view.waits = why
        elif view is not None:
            view.answer_waits = why
        self._look_again(record.key)

    # sending

    async def _tell(self, users: Mapping[ObjectKey, SubjectContact]) -> None:
        """Tell users."""
        mailer = self._mailer
        if not users or mailer is None:
            return
        records = [self._cache.legal_records[key] for key in users]
        contacts = {one.legal: users[one.key] for one in records}
        await self._send(
            records,
            Addressee.USER,
            lambda: notify_users(contacts, self._context(), mailer),
        )

    async def _answer(self, records: Sequence[LegalRecord]) -> None:
        """Answer authorities, by letter or by a draft."""
        addresses: dict[str, PersonalText] = {}
        for record in records:
            try:
                address = await self._address_of_authority(record)
                if address is None:
                    await self._draft(record)
                    self._look_again(record.key)
                else:
                    addresses[record.legal] = address
            except (_Waits, ClusterUnavailable, ClusterRefused) as waits:
                self._put_off(record, Addressee.AUTHORITY, str(waits))
        mailer = self._mailer
        if not addresses or mailer is None:
            return
        await self._send(
            [one for one in records if one.legal in addresses],
            Addressee.AUTHORITY,
            lambda: answer_authorities(addresses, self._context(), mailer),
        )

    async def _send(
        self, records: Sequence[LegalRecord], to: Addressee, work: Callable[[], Mapping[str, Delivery]]
    ) -> None:
        self.under_way = in_daemon("letters", work)
        try:
            deliveries = await asyncio.shield(self.under_way)
        except ChannelError as unusable:
            log.error("no letter can be sent: %s", unusable)
            for record in records:
                self._put_off(record, to, str(unusable))
            return
        for record in records:
            delivery = deliveries.get(record.legal)
            if delivery is not None and delivery.result is DeliveryResult.LATER:
                self._put_off(record, to, f"{delivery.answer}; it is tried again")
            elif delivery is not None:
                self._attempts.pop((record.legal, to), None)
                self._not_before.pop((record.legal, to), None)
            self._look_again(record.key)
        await self._records.refresh([record.key for record in records])

    async def _address_of_authority(self, record: LegalRecord) -> PersonalText | None:
        """Return where the answer is sent; `None`: it is laid down as a draft. Raises `_Waits`."""
        view = self._cache.legal.get(record.key)
        if view is None or view.contact_secret is None:
            return None
        if self._mailer is None:
            raise _Waits(NO_CHANNEL)
        name, key = view.contact_secret
        try:
            secret = await self._secrets.read(record.registered.namespace, name)
            return address_in(secret, name, key).value
        except UnusableSecret as unusable:
            raise _Waits(str(unusable)) from None

    async def _draft(self, record: LegalRecord) -> None:
        """Lay the answer down in a Secret. Raises `_Waits` for a name that is taken."""
        if record.decided is None:
            return
        namespace, short_name = record.key
        number = record.next_number(Addressee.AUTHORITY)
        name = f"{short_name}-answer" if number == 1 else f"{short_name}-answer-{number}"
        written = await asyncio.to_thread(
            self._renderer.to_authority, facts_of(record, record.decided.outcome)
        )
        texts = {"subject": written.subject, "text": written.text}
        if not await self._cluster.create_secret(namespace, name, ANSWER_TYPE, texts):
            there = await self._cluster.secret(namespace, name)
            mine = {key: text.encode() for key, text in texts.items()}
            if there is None or there.type != ANSWER_TYPE or dict(there.content) != mine:
                raise _Waits(f"Secret {name} exists and holds something else; rename it")
        await asyncio.to_thread(record_draft, record, self._context(), name=name)


def _is_new(record: LegalRecord) -> bool:
    return record.intended(Addressee.USER) is None


class _Waits(Exception):
    """An answer can't be given yet; the message says why, for a person."""
