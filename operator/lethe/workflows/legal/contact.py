"""How the subject of a legal request is reached: the Primary knows, until it erases them.

All of it runs within the visits to the Primary, so that nothing is erased between two looks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lethe.domain.identifiers import Identifier, IdentifierKind, PersonalText
from lethe.domain.legal import LegalRecord
from lethe.domain.legal_facts import AddressKept, SubjectResolved
from lethe.domain.trust import key_in_doubt
from lethe.ports.stores import Contact, FoundRecord, HeadMoved, Wanted
from lethe.workflows.identifiers import KeysOfPrimary
from lethe.workflows.journal_head import doubt_in_sync
from lethe.workflows.legal.sealed_subject import SealedSubject
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import StoreSession

LOOK_AGAIN = timedelta(hours=1)
"""How long an address that the Primary does not know is not looked for again at first; then twice that."""
LONGEST_PAUSE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class SubjectContact:
    """How to reach the subject of one legal request; `None`: nobody can, and `tried` says what was tried."""

    contact: Contact | None
    tried: str = ""


def resolve(session: StoreSession, context: PassContext) -> bool:
    """Look in the Primary for the subjects of whom it has not been asked; tell whether there were any.

    Whom a key means that may have been given out again is not concluded from it. Raises `StoreUnreachable`,
    `AnswerUntrusted`, `HeadMoved`.
    """
    namespace = session.description.namespace
    looked_at = context.clock()
    asked = [
        one
        for one in context.ledger.legal_requests(namespace=namespace, open_only=True)
        if _is_to_be_asked(one, looked_at)
    ]
    if not asked:
        return False
    sealed = context.ledger.sealed([one.legal for one in asked])
    wanted = [Wanted(one.legal, _identifiers(one, sealed.get(one.legal))) for one in asked]
    finding = session.port.find(wanted)
    doubt = doubt_in_sync(session, context)
    keys = KeysOfPrimary.read(context, session.name)
    facts = []
    for one in asked:
        found = finding.records.get(one.legal, ())
        if not found and (doubt or finding.proof is None):
            continue
        if one.registered.subject_id is not None or one.subject_known:
            found = tuple(
                record for record in found if _is_sure(session, one, record.key, record.email, keys)
            )
        addresses = [record.email for record in found if record.email is not None and not record.cleared]
        facts.append(
            SubjectResolved(
                one.legal,
                looked_at,
                tuple(record.key for record in found),
                tuple(session.fingerprints.email(address.reveal()) for address in addresses),
            )
        )
    if facts:
        context.ledger.append(facts)
    return bool(facts)


def _is_to_be_asked(record: LegalRecord, now: datetime) -> bool:
    if record.resolved_at is None:
        return True
    # Who has a key that nobody had when it was asked about signed up later, and is somebody else.
    by_key = record.registered.subject_id is not None
    pause = min(LONGEST_PAUSE, max(LOOK_AGAIN, record.resolved_at - record.registered.at))
    return not by_key and not record.subject_known and now - record.resolved_at >= pause


def _identifiers(record: LegalRecord, sealed: bytes | None) -> tuple[Identifier, ...]:
    """Return by what a subject is looked for: as the request names them."""
    named = SealedSubject.read(sealed).identifiers
    if named and not record.subject_known:
        return named
    return tuple(Identifier(IdentifierKind.PRIMARY_KEY, PersonalText(key)) for key in record.keys) or named


def find_contacts(
    session: StoreSession, context: PassContext, wanted: Collection[str]
) -> Mapping[str, SubjectContact]:
    """Ask the Primary how to reach the subjects of these legal requests, by request.

    A key that a restore may have given to somebody else counts only with an address that is known. Whoever is
    not found while somebody fills the store is left out: it proves nothing.

    Raises `StoreUnreachable`, `AnswerUntrusted`, `HeadMoved`.
    """
    namespace = session.description.namespace
    records = [one for one in context.ledger.legal_requests(namespace=namespace) if one.legal in wanted]
    if not records:
        return {}
    sealed = context.ledger.sealed([one.legal for one in records])
    asked = [Wanted(one.legal, _identifiers(one, sealed.get(one.legal))) for one in records]
    contacts = session.port.contacts([one for one in asked if one.identifiers])
    doubt = doubt_in_sync(session, context)
    keys = KeysOfPrimary.read(context, session.name)
    return {
        one.legal: _contact_of(session, one, contacts.get(one.legal, ()), keys)
        for one in records
        if not doubt or one.legal in contacts
    }


def _contact_of(
    session: StoreSession, record: LegalRecord, contacts: Sequence[Contact], keys: KeysOfPrimary
) -> SubjectContact:
    name = session.description.short_name
    if not contacts:
        return SubjectContact(None, f"DataStore {name} holds nobody of that key or address")
    living = [one for one in contacts if not one.cleared]
    if not living:
        return SubjectContact(None, f"the person was erased from DataStore {name} before this request")
    sure = [one for one in living if _is_sure(session, record, one.key, one.email, keys)]
    if not sure:
        return SubjectContact(
            None, f"DataStore {name} was restored since, and the key may mean somebody else by now"
        )
    addressed = [one for one in sure if one.email is not None]
    if not addressed:
        return SubjectContact(None, f"DataStore {name} holds no e-mail address for this person")
    return SubjectContact(addressed[0])


def keep_addresses(
    session: StoreSession, context: PassContext, found: Sequence[Sequence[FoundRecord]]
) -> tuple[list[AddressKept], dict[str, bytes]]:
    """Return what is to be sealed of those who are about to be erased and are still to be told something.

    Raises `StoreUnreachable`, `AnswerUntrusted`, `HeadMoved`.
    """
    namespace = session.description.namespace
    # Also of whom an address is kept already: an intent that was given up may have left an old one.
    to_tell = [
        one for one in context.ledger.legal_requests(namespace=namespace, open_only=True) if not one.notified
    ]
    if not to_tell:
        return [], {}
    wanted = []
    keys = KeysOfPrimary.read(context, session.name)
    for one in to_tell:
        mine = [
            record.key for of_one in found for record in of_one if _is_subject(session, one, record, keys)
        ]
        if mine:
            identifiers = [Identifier(IdentifierKind.PRIMARY_KEY, PersonalText(key)) for key in mine]
            wanted.append(Wanted(one.legal, tuple(dict.fromkeys(identifiers))))
    if not wanted:
        return [], {}
    contacts = session.port.contacts(wanted)
    doubt = doubt_in_sync(session, context)
    if doubt and not all(one.request in contacts for one in wanted):
        raise HeadMoved(f"an address that is to be kept can't be read while {doubt}")
    sealed = context.ledger.sealed([one.request for one in wanted])
    seal = {
        legal: SealedSubject(SealedSubject.read(sealed.get(legal)).identifiers, addressed[0]).text()
        for legal, known in contacts.items()
        if (addressed := [one for one in known if one.email is not None and not one.cleared])
    }
    kept_at = context.clock()
    return [AddressKept(legal, kept_at) for legal in seal], seal


def _is_subject(session: StoreSession, legal: LegalRecord, record: FoundRecord, keys: KeysOfPrimary) -> bool:
    if record.key in legal.keys:
        return _is_sure(session, legal, record.key, record.email, keys)
    # Whoever has an address that the subject has given up is somebody else, as long as her key tells her.
    lost = not legal.subject_known or any(_in_doubt(legal, key, keys) for key in legal.keys)
    return lost and _is_known_address(session, legal, record.email)


def _is_sure(
    session: StoreSession, legal: LegalRecord, key: str, email: PersonalText | None, keys: KeysOfPrimary
) -> bool:
    """Tell whether what stands under a key is the subject's: no restore can have given it to somebody else,
    or the address is known.
    """
    return not _in_doubt(legal, key, keys) or _is_known_address(session, legal, email)


def _in_doubt(legal: LegalRecord, key: str, keys: KeysOfPrimary) -> bool:
    # Whoever asks by id had looked the key up before the request reached the ledger.
    noted_at = min(legal.registered.received_at, legal.registered.at)
    return key_in_doubt(key, noted_at, keys.episodes, table=keys.table or "")[0]


def _is_known_address(session: StoreSession, legal: LegalRecord, email: PersonalText | None) -> bool:
    return email is not None and session.fingerprints.email(email.reveal()) in legal.emails
