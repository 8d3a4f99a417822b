"""Telling users of legal requests, and answering authorities: when each letter goes, and why it waits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from lethe.controllers.runtime.cache import ObjectCache, ObjectKey
from lethe.controllers.runtime.clock import TwoClocks
from lethe.controllers.runtime.secrets import Secrets, UnusableSecret, address_in
from lethe.controllers.runtime.threads import in_daemon
from lethe.domain.identifiers import PersonalText
from lethe.domain.legal import LegalRecord, is_gagged
from lethe.domain.legal_facts import Addressee
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable
from lethe.ports.keys import Keyring
from lethe.ports.ledger import Ledger
from lethe.ports.notices import ChannelError, Delivery, DeliveryResult, NoticeRenderer
from lethe.workflows.legal.contact import SubjectContact
from lethe.workflows.legal.notify import (
    Mailer,
    answer_authorities,
    facts_of,
    notify_users,
    record_draft,
    remind,
)
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
FRESH = timedelta(minutes=1)
"""How long an address that the Primary has shown is used: people change theirs."""
NO_CHANNEL = (
    "no way to send it is set: set LETHE_SMTP_URL and LETHE_MAIL_FROM, or LETHE_WEBHOOK_URL and "
    "LETHE_WEBHOOK_SECRET"
)


class NoticeSender:
    """Sends what is due, in a task of its own, one at a time."""

    def __init__(
        self,
        cache: ObjectCache,
        ledger: Ledger,
        keyring: Keyring,
        context: Callable[[], PassContext],
        cluster: Cluster,
        secrets: Secrets,
        clocks: TwoClocks,
        *,
        renderer: NoticeRenderer,
        mailer: Mailer | None,
        per_hour: int,
        ring_store: Callable[[ObjectKey], None],
    ) -> None:
        self._ring_store = ring_store
        self._cache, self._ledger, self._keyring, self._context = cache, ledger, keyring, context
        self._cluster, self._secrets, self._clocks = cluster, secrets, clocks
        self._renderer, self._mailer, self._per_hour = renderer, mailer, per_hour
        self._found: dict[str, tuple[SubjectContact, datetime]] = {}
        self._places: dict[str, ObjectKey] = {}
        self._attempts: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        """The letters under way, or what came of the last ones."""

    def contacts_found(self, found: Mapping[str, SubjectContact]) -> None:
        """Take in how subjects are reached, as a visit to their Primary has found."""
        now = self._clocks.now()
        self._found.update({legal: (contact, now) for legal, contact in found.items()})

    def may_retry(self, record: LegalRecord) -> bool:
        """Tell whether somebody could not be reached, lately enough to look for another address."""
        letter = record.letters.get(Addressee.USER)
        if letter is None or letter.settled is None or letter.settled.delivered or not record.subject_known:
            return False
        return self._clocks.now() - letter.intended.at < RETRIED_FOR

    @property
    def under_way(self) -> asyncio.Task[None] | None:
        """Return the task that sends letters, if one does."""
        return self._task if self._task is not None and not self._task.done() else None

    async def turn(self, known: Sequence[LegalRecord], done: Callable[[], None]) -> bool:
        """Begin to send what is due, if nothing is being sent; `done` is called when that has ended.

        `known` are all legal requests: closed ones count for how many notices went in the last hour.

        Returns whether something was recorded meanwhile. Raises the ledger's errors.
        """
        self._places = {one.legal: one.key for one in known}
        records = [one for one in known if one.open or self.may_retry(one)]
        recorded = await asyncio.to_thread(remind, records, self._context())
        if self._task is not None:
            if not self._task.done():
                return recorded
            task, self._task, recorded = self._task, None, True
            task.result()
        users = await self._users_due(records, self._sent_lately(known, self._clocks.now()))
        answers = [one for one in records if not one.answered and self._is_time(one.legal, "answer")]
        if users or answers:
            self._task = asyncio.create_task(self._deliver(users, answers), name="letters")
            self._task.add_done_callback(lambda _: done())
        return recorded

    # who is due

    async def _users_due(
        self, records: Sequence[LegalRecord], lately: Counter[str]
    ) -> dict[str, SubjectContact]:
        now = self._clocks.now()
        candidates = [
            one
            for one in records
            if one.decided is not None
            and not is_gagged(one, now)
            and (not one.notified or self.may_retry(one))
        ]
        lapsed = [one for one in candidates if one.gag is not None and one.gag.lifted is None]
        disagreement = await self._clocks.disagreement() if lapsed else None
        due: dict[str, SubjectContact] = {}
        for record in candidates:
            view, namespace = self._cache.legal.get(record.key), record.registered.namespace
            waits: str | None = None
            fresh = record.intended(Addressee.USER) is None
            if disagreement is not None and record in lapsed:
                waits = f"the order has lapsed by this host's clock only: {disagreement}"
            elif self._mailer is None:
                waits = NO_CHANNEL
            elif not self._is_time(record.legal, "user"):
                continue
            elif fresh and lately[namespace] >= self._per_hour:
                waits = f"{self._per_hour} notices an hour are sent, and no more (LETHE_NOTICES_PER_HOUR)"
            else:
                contact = await self._contact_of(record)
                if not isinstance(contact, SubjectContact):
                    waits = contact
                elif not record.notified or self._is_elsewhere(record, contact):
                    due[record.legal] = contact
                    lately[namespace] += fresh
                else:
                    self._pause(record.legal, "user", HOUR.total_seconds())
            if view is not None and not record.notified:
                view.waits = waits
        return due

    def _sent_lately(self, records: Sequence[LegalRecord], now: datetime) -> Counter[str]:
        """Count the notices of the last hour by namespace, from what is recorded: a restart forgets none."""
        lately: Counter[str] = Counter()
        for record in records:
            letter = record.letters.get(Addressee.USER)
            # One that a wrong clock dated in the future would keep all others back until then.
            if letter is not None and abs(now - letter.intended.at) < HOUR:
                lately[record.registered.namespace] += 1
        return lately

    async def _contact_of(self, record: LegalRecord) -> SubjectContact | str | None:
        """Return how the subject is reached; else what that waits for, `None`: for the next visit only."""
        if record.address_kept:
            sealed = await asyncio.to_thread(self._ledger.sealed, [record.legal])
            return SubjectContact(
                SealedSubject.read(sealed.get(record.legal)).contact, "the sealed address is gone"
            )
        primary = self._cache.primary_of(record.registered.namespace)
        if primary is None:
            return "this namespace has no DataStore with role Primary, which holds the address; apply one"
        found, at = self._found.pop(record.legal, (None, None))
        if found is not None and at is not None and self._clocks.now() - at <= FRESH:
            return found
        looked_for = self._clocks.now() - record.registered.at
        if record.resolved_at is not None and not record.subject_known and looked_for >= RETRIED_FOR:
            # Once and for all: what is open keeps the keys of the ledger's months from being destroyed.
            return SubjectContact(None, "the Primary knew nobody of that key or address for 30 days")
        if record.subject_known and record.legal not in primary.contacts_of:
            primary.contacts_of.add(record.legal)
        if record.resolved_at is None or record.subject_known:
            self._ring_store(primary.key)
        trouble = primary.trouble
        return f"waits for DataStore {primary.description.short_name}: {trouble.message}" if trouble else None

    def _is_elsewhere(self, record: LegalRecord, contact: SubjectContact) -> bool:
        """Tell whether somebody who could not be reached has another address by now."""
        letter = record.letters[Addressee.USER]
        address = contact.contact.email if contact.contact else None
        if address is None or letter.settled is None:
            return False
        return email_digest(self._keyring, address.reveal()) != letter.settled.address

    def _is_time(self, legal: str, what: str) -> bool:
        return self._not_before.get(f"{legal} {what}", -1e9) <= time.monotonic()

    def _pause(self, legal: str, what: str, seconds: float | None = None) -> None:
        key = f"{legal} {what}"
        self._attempts[key] += 1
        pause = seconds if seconds is not None else min(LONGEST_PAUSE, 2.0 ** min(self._attempts[key], 12))
        self._not_before[key] = time.monotonic() + pause

    # sending

    async def _deliver(self, users: Mapping[str, SubjectContact], answers: Sequence[LegalRecord]) -> None:
        if users and self._mailer is not None:
            mailer = self._mailer
            await self._send(
                list(users),
                "user",
                lambda: notify_users(users, self._context(), mailer),
            )
        addresses: dict[str, PersonalText] = {}
        for record in answers:
            try:
                address = await self._address_of_authority(record)
                if address is None:
                    await self._draft(record)
                else:
                    addresses[record.legal] = address
            except _Waits as waits:
                self._note_wait(record.legal, "answer", str(waits))
            except (ClusterUnavailable, ClusterRefused) as away:
                self._note_wait(record.legal, "answer", str(away))
        if addresses and self._mailer is not None:
            mailer = self._mailer
            await self._send(
                list(addresses),
                "answer",
                lambda: answer_authorities(addresses, self._context(), mailer),
            )

    async def _send(
        self, legals: Sequence[str], what: str, work: Callable[[], Mapping[str, Delivery]]
    ) -> None:
        try:
            deliveries = await in_daemon("letters", work)
        except ChannelError as unusable:
            log.error("no letter can be sent: %s", unusable)
            for legal in legals:
                self._note_wait(legal, what, str(unusable))
            return
        for legal, delivery in deliveries.items():
            if delivery.result is DeliveryResult.LATER:
                self._note_wait(legal, what, f"{delivery.answer}; it is tried again")
            else:
                self._attempts.pop(f"{legal} {what}", None)
                self._not_before.pop(f"{legal} {what}", None)

    def _note_wait(self, legal: str, what: str, why: str) -> None:
        self._pause(legal, what)
        view = self._cache.legal.get(self._places[legal])
        if view is not None and what == "user":
            view.waits = why
        elif view is not None:
            view.answer_waits = why

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


class _Waits(Exception):
    """An answer can't be given yet; the message says why, for a person."""
