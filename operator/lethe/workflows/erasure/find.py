"""Finding persons in one store and intending their erasure: steps 2 and 3 of `erase`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from lethe.domain.facts import Fact, Intended, NotFound, Planned
from lethe.domain.identifiers import (
    Identifier,
    IdentifierKind,
    PersonalText,
    leads_nowhere,
    normalised_email,
)
from lethe.domain.legal import Holds
from lethe.domain.requests import RequestRecord
from lethe.domain.tombstones import Fingerprint, Tombstone
from lethe.domain.trouble import Trouble
from lethe.domain.trust import (
    EARLIER_ERASURE,
    NOTHING_TO_ASK_BY,
    Blocker,
    BlockReason,
    RecordTrait,
    blocker_of_found,
)
from lethe.ports.keys import record_digest
from lethe.ports.ledger import MoveNote
from lethe.ports.stores import Finding, FoundRecord, StoreUnreachable, Wanted
from lethe.workflows.identifiers import KeysOfPrimary, sealed_identifiers
from lethe.workflows.journal_head import allot, doubt_about_absences
from lethe.workflows.legal.contact import keep_addresses
from lethe.workflows.legal.holds import RowsOfHeld, blocker_of_hold, held_by_records, rows_of_held
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import StoreSession, email_digest


@dataclass(slots=True)
class PassResult:
    """What a pass over one store left behind, for status and metrics.

    `settled` are the requests that this store has nothing more to do for, `retry` tells that some meet a
    passing blocker, `head_moved` that the store must be looked at before anything else. `trouble` is what
    broke the pass off.
    """

    settled: set[str] = field(default_factory=set)
    refused: int = 0
    verified: list[RequestRecord] = field(default_factory=list)
    retry: bool = False
    head_moved: bool = False
    trouble: Trouble | None = None


def find_and_intend(
    session: StoreSession,
    records: Sequence[RequestRecord],
    context: PassContext,
    keys: KeysOfPrimary,
    holds: Holds,
    *,
    result: PassResult,
) -> None:
    """Find a set of requests' persons, decide what may be trusted, and write the intent into the ledger.

    What a hold names, a person must look at, or proves nothing, is told and not intended. Raises as `serve`
    must expect: `HeadMoved`, `StoreUnreachable`, `AnswerUntrusted`.
    """
    if not records:
        return
    sealed = context.ledger.sealed([record.request for record in records])
    identifiers = {
        record.request: keys.identifiers_of(session, record, sealed.get(record.request)) for record in records
    }
    finding = session.port.find(
        [
            Wanted(one.request, identifiers[one.request], every="TooManyRecords" in one.confirmed)
            for one in records
        ]
    )
    doubt = doubt_about_absences(session, context, finding, identifiers)
    found_at = context.clock()  # after the reading: whoever is not found is believed to be gone since then
    before = _erased_before(session, finding, identifiers, context)
    held_rows = rows_of_held(session, holds)

    facts: list[Fact] = []
    seal: dict[str, bytes] = {}
    trusted: list[tuple[RequestRecord, tuple[FoundRecord, ...]]] = []
    taken: set[tuple[str, str]] = set()
    for record in records:
        found = tuple(
            one
            for one in finding.records.get(record.request, ())
            if not (
                one.cleared and record_digest(context.keyring, session.name, one.table, one.key) in before
            )
        )
        too_many = record.request in finding.too_many
        if not found and not too_many:
            absence = _absence(
                session, record, finding, identifiers[record.request], before, keys, context, found_at, doubt
            )
            if isinstance(absence, Blocker):
                session.block([record], absence, found_at)
                result.retry = True
            else:
                facts.append(absence)
                result.settled.add(record.request)
            continue
        blocker = _blocker(
            session, record, found, identifiers[record.request], keys, holds, held_rows, found_at, too_many
        )
        if blocker is not None:
            session.block([record], blocker, found_at)
            continue
        if taken & {(one.table, one.key) for one in found}:
            result.retry = True  # another request of this batch erases them; look again after it
            continue
        taken |= {(one.table, one.key) for one in found}
        trusted.append((record, found))

    if session.is_primary:  # only the Primary links: two stores that seal at once would lose one's share
        seal |= _linked(session, trusted, identifiers)
    numbered, moves = _number(session, trusted, context)
    to_erase = [intent for intent in numbered if not intent[0].accepted.dry_run]
    facts += [
        Intended(
            record.request,
            session.name,
            tombstones,
            _digests_of(context, identifiers[record.request], but={one.email for one in tombstones}),
        )
        for record, tombstones in to_erase
    ]
    planned = _planned(session, [intent for intent in numbered if intent[0].accepted.dry_run])
    facts += planned
    result.settled |= {fact.request for fact in planned}
    if session.is_primary and to_erase:
        # Who is to be told of a legal request later must still be reached once the address is cleared.
        kept, addresses = keep_addresses(session, context, [found for record, found in trusted])
        facts += kept
        seal |= addresses
    if facts:
        context.ledger.append(facts, seal=seal, moves=moves if to_erase else ())


def _blocker(
    session: StoreSession,
    record: RequestRecord,
    found: Sequence[FoundRecord],
    identifiers: Sequence[Identifier],
    keys: KeysOfPrimary,
    holds: Holds,
    held_rows: RowsOfHeld,
    now: datetime,
    too_many: bool,
) -> Blocker | None:
    held = held_by_records(holds, session, found)
    held = held or tuple(hold for one in found for hold in held_rows.get((one.table, one.key), ()))
    if held and not record.accepted.dry_run:
        return blocker_of_hold(held, now)
    untrusted = blocker_of_found(
        [RecordTrait(one.table, one.key, one.by_key, one.shared) for one in found],
        too_many=too_many,
        max_records=session.description.max_records,
        one_owner=session.description.one_owner_per_address,
        confirmed=record.confirmed,
        store=session.description.short_name,
    )
    return untrusted or keys.blocker(session, record, identifiers)


def _planned(
    session: StoreSession, intents: Sequence[tuple[RequestRecord, tuple[Tombstone, ...]]]
) -> list[Planned]:
    if not intents:
        return []
    counts = session.port.plan([tombstone for _, tombstones in intents for tombstone in tombstones])
    return [
        Planned(record.request, session.name, summed(counts.get(one.number, {}) for one in tombstones))
        for record, tombstones in intents
    ]


def _addresses_of_others(
    session: StoreSession,
    trusted: Sequence[tuple[RequestRecord, Sequence[FoundRecord]]],
    identifiers: Mapping[str, Sequence[Identifier]],
) -> dict[str, frozenset[str]]:
    """Return the addresses, by request, of records that a key found and that others hold as well.

    A family's, or what an application writes when it makes somebody anonymous: by it other stores would be
    searched for somebody else.
    """
    if session.description.one_owner_per_address:
        return {}
    wanted = []
    for record, found in trusted:
        searched = {normalised_email(one.value.reveal()) for one in identifiers[record.request]}
        emails = tuple(
            one for one in _emails_of(found) if normalised_email(one.value.reveal()) not in searched
        )
        if emails and "SharedRecord" not in record.confirmed:
            wanted.append(Wanted(record.request, emails))
    finding = session.port.find(wanted) if wanted else Finding({}, None)
    own = {record.request: {one.key for one in found} for record, found in trusted}
    return {
        request: frozenset(
            normalised_email(one.email.reveal())
            for one in held
            if one.email is not None and (one.key not in own[request] or request in finding.too_many)
        )
        for request, held in finding.records.items()
    }


def _emails_of(found: Sequence[FoundRecord]) -> list[Identifier]:
    return [
        Identifier(IdentifierKind.EMAIL, one.email)
        for one in found
        if one.email is not None
        and not one.cleared
        and not one.shared
        and not leads_nowhere(one.email.reveal())
    ]


def _linked(
    session: StoreSession,
    trusted: Sequence[tuple[RequestRecord, Sequence[FoundRecord]]],
    identifiers: Mapping[str, Sequence[Identifier]],
) -> dict[str, bytes]:
    """Return what is sealed from now on, by request: what was known, and what the Primary's records add."""
    of_others = _addresses_of_others(session, trusted, identifiers)
    seal = {}
    for record, found in trusted:
        shared = of_others.get(record.request, frozenset())
        emails = [one for one in _emails_of(found) if normalised_email(one.value.reveal()) not in shared]
        keys = [Identifier(IdentifierKind.PRIMARY_KEY, PersonalText(one.key)) for one in found]
        known = dict.fromkeys((*identifiers[record.request], *emails, *keys))
        seal[record.request] = sealed_identifiers(list(known))
    return seal


def _erased_before(
    session: StoreSession,
    finding: Finding,
    identifiers: Mapping[str, Sequence[Identifier]],
    context: PassContext,
) -> frozenset[bytes]:
    digests = {
        email_digest(context.keyring, identifier.value.reveal())
        for request, known in identifiers.items()
        if request not in finding.records
        for identifier in known
        if identifier.kind is IdentifierKind.EMAIL
    }
    digests |= {
        record_digest(context.keyring, session.name, one.table, one.key)
        for found in finding.records.values()
        for one in found
        if one.cleared
    }
    return context.ledger.erased_before(digests)


def _absence(
    session: StoreSession,
    record: RequestRecord,
    finding: Finding,
    identifiers: Sequence[Identifier],
    before: frozenset[bytes],
    keys: KeysOfPrimary,
    context: PassContext,
    at: datetime,
    doubt: str,
) -> NotFound | Blocker:
    """Say that a person is not here, or what keeps that from being proven."""
    name = session.description.short_name
    digests = () if record.accepted.dry_run else _digests_of(context, identifiers)
    if finding.records.get(record.request):  # all of them cleared
        return NotFound(record.request, session.name, at, EARLIER_ERASURE, digests)
    if record.request in finding.unaskable:
        earlier = _settled_earlier(session, record, identifiers, keys, context)
        proof = EARLIER_ERASURE if earlier else NOTHING_TO_ASK_BY
        return NotFound(record.request, session.name, at, proof, digests)
    if doubt:
        message = f"{name} shows nobody, which proves nothing while {doubt}; it is looked for again later"
        return Blocker(BlockReason.ERASING, message)
    if finding.proof is None:
        message = f"{name} showed nobody, and no canary, which proves nothing"
        return Blocker(BlockReason.FIND_UNTRUSTED, message)
    proof = EARLIER_ERASURE if before.intersection(digests) else finding.proof
    return NotFound(record.request, session.name, at, proof, digests)


def _digests_of(
    context: PassContext, identifiers: Sequence[Identifier], but: Collection[bytes | None] = ()
) -> tuple[bytes, ...]:
    """Return the keyed fingerprints of the addresses by which somebody is looked for, without some."""
    emails = (one.value.reveal() for one in identifiers if one.kind is IdentifierKind.EMAIL)
    digests = dict.fromkeys(email_digest(context.keyring, email) for email in emails)
    return tuple(one for one in digests if one not in but)


def _settled_earlier(
    session: StoreSession,
    record: RequestRecord,
    identifiers: Sequence[Identifier],
    keys: KeysOfPrimary,
    context: PassContext,
) -> bool:
    """Tell whether the request that erased this person from the Primary was done with this store, too."""
    if keys.primary is None or record.progress(keys.primary).proof != EARLIER_ERASURE:
        return False
    tables = {proved.mapping.table for proved in context.ledger.mappings(keys.primary).values()}
    digests = {
        email_digest(context.keyring, one.value.reveal())
        for one in identifiers
        if one.kind is IdentifierKind.EMAIL
    } | {
        record_digest(context.keyring, keys.primary, table, one.value.reveal())
        for one in identifiers
        if one.kind is IdentifierKind.PRIMARY_KEY
        for table in tables
    }
    earlier = context.ledger.requests_by_id(set(context.ledger.who_erased(digests).values()))
    return any(one.progress(session.name).state.settled for one in earlier.values())


def _number(
    session: StoreSession,
    trusted: Sequence[tuple[RequestRecord, tuple[FoundRecord, ...]]],
    context: PassContext,
) -> tuple[list[tuple[RequestRecord, tuple[Tombstone, ...]]], tuple[MoveNote, ...]]:
    """Give every record its journal number, and note the numbers as allotted."""
    if session.proof is None:
        raise StoreUnreachable("its mapping has not been proved yet")
    version = session.proof.proved.version
    known = context.ledger.known_head(session.name)
    number = known.last_number
    numbered = []
    for record, found in trusted:
        tombstones = []
        for one in found:
            number += 1
            tombstones.append(
                Tombstone(
                    number=number,
                    request=record.request,
                    table=one.table,
                    key=one.key,
                    mapping=version,
                    created_at=_of(session.fingerprints.created_at, one.created_at),
                    email=_of(session.fingerprints.email, None if one.email is None else one.email.reveal()),
                )
            )
        numbered.append((record, tuple(tombstones)))
    return numbered, allot(session, context, number - known.last_number)


def _of(fingerprint: Fingerprint, text: str | None) -> bytes | None:
    return None if text is None else fingerprint(text)


def summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the rows by table of several counts together."""
    total: dict[str, int] = {}
    for by_table in counts:
        for table, rows in by_table.items():
            total[table] = total.get(table, 0) + rows
    return total
