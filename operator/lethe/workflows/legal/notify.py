"""Telling of a legal request: each letter is intended before it is sent, and settled after.

A crash between the two repeats the same letter under the same Message-ID, and no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lethe.domain import legal
from lethe.domain.identifiers import PersonalText
from lethe.domain.legal import LegalRecord, held_back_until, is_gagged
from lethe.domain.legal_facts import (
    Addressee,
    LegalFact,
    LegalKind,
    LegalOutcome,
    LetterIntended,
    LetterSettled,
    Reminded,
)
from lethe.domain.periods import Period
from lethe.ports.notices import (
    Channel,
    Delivery,
    DeliveryResult,
    Letter,
    NoticeFacts,
    NoticeRenderer,
    Recipient,
    Written,
)
from lethe.workflows.legal.contact import SubjectContact
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import email_digest

SECRET = "secret"  # noqa: S105 - the name of a channel
"""The channel of a letter that is laid down in a Secret."""

REMIND_EACH = Period(1, 0)


@dataclass(frozen=True, slots=True)
class Mailer:
    """How letters leave: who writes them, what carries them, its name, and what ends a Message-ID."""

    renderer: NoticeRenderer
    channel: Channel
    name: str
    domain: str


def notify_users(
    contacts: Mapping[str, SubjectContact], context: PassContext, mailer: Mailer
) -> Mapping[str, Delivery]:
    """Notify the subjects of legal requests; returns what came of each that was tried.

    What the ledger has recorded since is heeded: nobody is told twice, and nobody whom an order forbids to
    tell. Whoever can't be reached is settled as undeliverable, with what was tried.

    Raises `ChannelError` for what no letter could ever mend; then all of them wait.
    """
    due_at = context.clock()
    records = [
        record
        for record in context.ledger.legal_requests()
        if record.legal in contacts and _may_be_notified(record) and not is_gagged(record, due_at)
    ]
    _intend(records, Addressee.USER, context, mailer.domain)
    known = {one.legal: one for one in context.ledger.legal_requests() if one.legal in contacts}
    lost: list[LegalFact] = []
    letters: dict[str, tuple[LetterIntended, Letter]] = {}
    for record in (known[one.legal] for one in records):
        intended, how = record.intended(Addressee.USER), contacts[record.legal]
        if intended is None:
            continue
        contact, address = how.contact, how.contact.email if how.contact else None
        if contact is None or address is None:
            lost.append(
                _settled(intended, context.clock(), delivered=False, answer=how.tried, channel=mailer.name)
            )
            continue
        written = mailer.renderer.to_user(
            facts_of(record, intended.outcome), Recipient(contact.locale, contact.time_zone, contact.name)
        )
        letters[record.legal] = intended, _letter(intended, written, address)
    if lost:
        context.ledger.append(lost)
    return _send(letters, context, mailer)


def answer_authorities(
    addresses: Mapping[str, PersonalText], context: PassContext, mailer: Mailer
) -> Mapping[str, Delivery]:
    """Send their answers to authorities that gave an address, by legal request. Raises `ChannelError`."""
    records = [
        one
        for one in context.ledger.legal_requests(open_only=True)
        if one.legal in addresses and not one.answered
    ]
    _intend(records, Addressee.AUTHORITY, context, mailer.domain)
    known = {one.legal: one for one in context.ledger.legal_requests(open_only=True)}
    letters: dict[str, tuple[LetterIntended, Letter]] = {}
    for record in (known[one.legal] for one in records):
        intended = record.intended(Addressee.AUTHORITY)
        if intended is not None:
            written = mailer.renderer.to_authority(facts_of(record, intended.outcome))
            letters[record.legal] = intended, _letter(intended, written, addresses[record.legal])
    return _send(letters, context, mailer)


def record_draft(record: LegalRecord, context: PassContext, *, name: str) -> None:
    """Record that the answer to an authority lies in a Secret of this name."""
    if record.decided is None:
        return
    number, at = record.next_number(Addressee.AUTHORITY), context.clock()
    intended = LetterIntended(record.legal, at, Addressee.AUTHORITY, number, "", record.decided.outcome)
    context.ledger.append([intended, _settled(intended, at, delivered=True, answer=name, channel=SECRET)])


def remind(records: Iterable[LegalRecord], context: PassContext) -> bool:
    """Ask once a month whether an order that names no day is still in force; tell whether any was due."""
    now = context.clock()
    due = [
        record
        for record in records
        if (gag := record.gag) is not None
        and gag.lifted is None
        and gag.until is None
        and not record.notified
        and REMIND_EACH.after(record.reminded_at or gag.at) <= now
    ]
    if due:
        context.ledger.append([Reminded(record.legal, now) for record in due])
    return bool(due)


def facts_of(record: LegalRecord, outcome: LegalOutcome) -> NoticeFacts:
    """Return what a letter tells that says this became of a request."""
    registered, order = record.registered, record.order
    preserved = registered.kind is LegalKind.PRESERVATION and outcome not in (
        LegalOutcome.REFUSED,
        LegalOutcome.REJECTED,
    )
    return NoticeFacts(
        kind=registered.kind.value,
        authority=registered.authority,
        level=registered.level,
        country=registered.country,
        received_at=registered.received_at,
        outcome="Preserved" if preserved else outcome.value,
        reason=legal.NO_COURT_ORDER if outcome is LegalOutcome.REJECTED else legal.REVIEWED,
        reference=registered.reference,
        court=order.court if order else None,
        docket=order.docket if order else None,
        held_back_until=held_back_until(record),
        legal_basis=record.gag.legal_basis if record.gag else None,
    )


def _may_be_notified(record: LegalRecord) -> bool:
    """Tell whether there is something to tell: also once more to who could not be reached."""
    letter = record.letters.get(Addressee.USER)
    undeliverable = letter is not None and letter.settled is not None and not letter.settled.delivered
    return record.decided is not None and (not record.notified or undeliverable)


def _intend(
    records: Sequence[LegalRecord],
    to: Addressee,
    context: PassContext,
    domain: str,
) -> None:
    intents: list[LegalFact] = []
    at = context.clock()
    for record in records:
        if record.intended(to) is not None or record.decided is None:
            continue
        number = record.next_number(to)
        digest = context.keyring.fingerprint("message-id", record.legal, to.value, str(number)).hex()[:40]
        intents.append(
            LetterIntended(record.legal, at, to, number, f"{digest}@{domain}", record.decided.outcome)
        )
    if intents:
        context.ledger.append(intents)


def _letter(intended: LetterIntended, written: Written, to: PersonalText) -> Letter:
    return Letter(
        message_id=intended.message_id,
        to=to,
        subject=written.subject,
        text=written.text,
        at=intended.at,
        language=written.language,
        html=written.html,
    )


def _send(
    letters: Mapping[str, tuple[LetterIntended, Letter]],
    context: PassContext,
    mailer: Mailer,
) -> Mapping[str, Delivery]:
    if not letters:
        return {}
    context.ledger.confirm()
    answer = mailer.channel.send([letter for _, letter in letters.values()])
    silent = Delivery(DeliveryResult.LATER, "the channel did not say what became of it")
    deliveries = {one: answer.get(letter.message_id, silent) for one, (_, letter) in letters.items()}
    facts: list[LegalFact] = []
    settled_at = context.clock()
    for one, delivery in deliveries.items():
        intended, letter = letters[one]
        if delivery.result is DeliveryResult.LATER:
            continue
        delivered = delivery.result is DeliveryResult.SENT
        refused = None if delivered else email_digest(context.keyring, letter.to.reveal())
        facts.append(
            _settled(
                intended,
                settled_at,
                delivered=delivered,
                answer=delivery.answer,
                channel=mailer.name,
                address=refused,
            )
        )
    if facts:
        context.ledger.append(facts)
    return deliveries


def _settled(
    intended: LetterIntended,
    at: datetime,
    *,
    delivered: bool,
    answer: str,
    channel: str,
    address: bytes | None = None,
) -> LetterSettled:
    return LetterSettled(
        intended.legal, at, intended.to, intended.number, delivered, answer, channel, address
    )
