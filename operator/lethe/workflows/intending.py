"""Finding persons in one store and intending their erasure: steps 2 and 3 of `erasing`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from secrets import token_bytes

from lethe.domain.facts import (
    Fact,
    Intended,
    NotFound,
    Planned,
)
from lethe.domain.identifiers import Identifier, IdentifierKind, PersonalText
from lethe.domain.journal import next_move
from lethe.domain.legal import Holds
from lethe.domain.requests import RequestRecord
from lethe.domain.tombstones import Fingerprint, Tombstone
from lethe.domain.trust import (
    EARLIER_ERASURE,
    NOTHING_TO_ASK_BY,
    Blocker,
    BlockReason,
    RecordTrait,
    blocker_of_found,
)
from lethe.ports.keys import Keyring, record_digest
from lethe.ports.ledger import Ledger, MoveIntended, MoveLost, MoveNote
from lethe.ports.stores import (
    Finding,
    FoundRecord,
    StoreUnreachable,
    Wanted,
)
from lethe.workflows.heads import last_move, require_absence_evidence
from lethe.workflows.holding import (
    RowsOfHeld,
    blocker_of_hold,
    held_by_records,
    rows_of_held,
)
from lethe.workflows.intake import sealed_identifiers
from lethe.workflows.linking import KeysOfPrimary
from lethe.workflows.reaching import keep_addresses
from lethe.workflows.store_session import StoreSession, email_digest


@dataclass(slots=True)
class PassResult:
    """What a pass over one store left behind, for status and metrics.

    `settled` are the requests that this store has nothing more to do for, `retry` those that meet a
    passing blocker, `head_moved` that the store must be looked at before anything else.
    """

    settled: set[str] = field(default_factory=set)
    refused: int = 0
    verified: list[RequestRecord] = field(default_factory=list)
    retry: bool = False
    head_moved: bool = False


def find_and_intend(
    store: StoreSession,
    records: Sequence[RequestRecord],
    ledger: Ledger,
    keyring: Keyring,
    keys: KeysOfPrimary,
    holds: Holds,
    *,
    token: int,
    now: datetime,
    result: PassResult,
) -> None:
    """Find a set of requests' persons, decide what may be trusted, and write the intent into the ledger.

    What a hold names, a person must look at, or proves nothing, is told and not intended. Raises as `serve`
    must expect: `HeadMoved`, `StoreUnreachable`, `AnswerUntrusted`.
    """
    if not records:
        return
    sealed = ledger.sealed([record.request for record in records])
    identifiers = {
        record.request: keys.identifiers_of(store, record, sealed.get(record.request)) for record in records
    }
    finding = store.port.find([Wanted(request, known) for request, known in identifiers.items()])
    require_absence_evidence(store, ledger, finding, [record.request for record in records])
    before = _erased_before(store, finding, identifiers, ledger, keyring)
    held_rows = rows_of_held(store, holds)

    facts: list[Fact] = []
    seal: dict[str, bytes] = {}
    trusted: list[tuple[RequestRecord, tuple[FoundRecord, ...]]] = []
    taken: set[tuple[str, str]] = set()
    for record in records:
        found = tuple(
            one
            for one in finding.records.get(record.request, ())
            if not (one.cleared and record_digest(keyring, store.name, one.table, one.key) in before)
        )
        cleared_before = len(found) < len(finding.records.get(record.request, ()))
        if not found:
            absence = (
                NotFound(record.request, store.name, now, EARLIER_ERASURE)
                if cleared_before
                else _absence(store, record, finding, identifiers[record.request], before, keyring, now)
            )
            if absence is None:
                message = f"{store.description.short_name} showed nobody, and no canary, which proves nothing"
                store.block([record], Blocker(BlockReason.FIND_UNTRUSTED, message), now)
                result.retry = True
            else:
                facts.append(absence)
                result.settled.add(record.request)
            continue
        blocker = _blocker(store, record, found, identifiers[record.request], keys, holds, held_rows, now)
        if blocker is not None:
            store.block([record], blocker, now)
            continue
        if taken & {(one.table, one.key) for one in found}:
            result.retry = True  # another request of this batch erases them; look again after it
            continue
        taken |= {(one.table, one.key) for one in found}
        trusted.append((record, found))
        if store.is_primary:  # only the Primary links: two stores that seal at once would lose one's share
            seal[record.request] = _linked(identifiers[record.request], found)

    numbered, moves = _number(store, trusted, ledger, token)
    to_erase = [intent for intent in numbered if not intent[0].accepted.dry_run]
    facts += [Intended(record.request, store.name, tombstones) for record, tombstones in to_erase]
    planned = _planned(store, [intent for intent in numbered if intent[0].accepted.dry_run])
    facts += planned
    result.settled |= {fact.request for fact in planned}
    if store.is_primary and to_erase:
        # Who is to be told of a legal request later must still be reached once the address is cleared.
        kept, addresses = keep_addresses(store, ledger, [found for record, found in trusted], now=now)
        facts += kept
        seal |= addresses
    if facts:
        ledger.append(facts, seal=seal, moves=moves if to_erase else ())


def _blocker(
    store: StoreSession,
    record: RequestRecord,
    found: Sequence[FoundRecord],
    identifiers: Sequence[Identifier],
    keys: KeysOfPrimary,
    holds: Holds,
    held_rows: RowsOfHeld,
    now: datetime,
) -> Blocker | None:
    held = held_by_records(holds, store, found)
    held = held or tuple(hold for one in found for hold in held_rows.get((one.table, one.key), ()))
    if held and not record.accepted.dry_run:
        return blocker_of_hold(held, now)
    untrusted = blocker_of_found(
        [RecordTrait(one.table, one.key, one.shared) for one in found],
        max_records=store.description.max_records,
        confirmed=record.confirmed,
        store=store.description.short_name,
    )
    return untrusted or keys.blocker(store, record, identifiers)


def _planned(
    store: StoreSession, intents: Sequence[tuple[RequestRecord, tuple[Tombstone, ...]]]
) -> list[Planned]:
    if not intents:
        return []
    counts = store.port.plan([tombstone for _, tombstones in intents for tombstone in tombstones])
    return [
        Planned(record.request, store.name, summed(counts.get(one.number, {}) for one in tombstones))
        for record, tombstones in intents
    ]


def _linked(identifiers: Sequence[Identifier], found: Sequence[FoundRecord]) -> bytes:
    """Return what is sealed from now on: what was known, and what the Primary's records add."""
    emails = [
        Identifier(IdentifierKind.EMAIL, one.email)
        for one in found
        if one.email is not None and "@" in one.email and not one.cleared and not one.shared
    ]
    keys = [Identifier(IdentifierKind.PRIMARY_KEY, PersonalText(one.key)) for one in found]
    return sealed_identifiers(list(dict.fromkeys((*identifiers, *emails, *keys))))


def _erased_before(
    store: StoreSession,
    finding: Finding,
    identifiers: Mapping[str, Sequence[Identifier]],
    ledger: Ledger,
    keyring: Keyring,
) -> frozenset[bytes]:
    digests = {
        email_digest(keyring, identifier.value.reveal())
        for request, known in identifiers.items()
        if request not in finding.records
        for identifier in known
        if identifier.kind is IdentifierKind.EMAIL
    }
    digests |= {
        record_digest(keyring, store.name, one.table, one.key)
        for found in finding.records.values()
        for one in found
        if one.cleared
    }
    return ledger.erased_before(digests)


def _absence(
    store: StoreSession,
    record: RequestRecord,
    finding: Finding,
    identifiers: Sequence[Identifier],
    before: frozenset[bytes],
    keyring: Keyring,
    now: datetime,
) -> NotFound | None:
    if record.request in finding.unaskable:
        return NotFound(record.request, store.name, now, NOTHING_TO_ASK_BY)
    if finding.proof is None:
        return None
    emails = [i for i in identifiers if i.kind is IdentifierKind.EMAIL]
    erased = any(email_digest(keyring, i.value.reveal()) in before for i in emails)
    return NotFound(record.request, store.name, now, EARLIER_ERASURE if erased else finding.proof)


def _number(
    store: StoreSession,
    trusted: Sequence[tuple[RequestRecord, tuple[FoundRecord, ...]]],
    ledger: Ledger,
    token: int,
) -> tuple[list[tuple[RequestRecord, tuple[Tombstone, ...]]], tuple[MoveNote, ...]]:
    """Give every record its journal number, and note the numbers as allotted."""
    if store.proof is None:
        raise StoreUnreachable("its mapping has not been proved yet")
    version = store.proof.proved.version
    known = ledger.known_head(store.name)
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
                    created_at=_of(store.fingerprints.created_at, one.created_at),
                    email=_of(store.fingerprints.email, None if one.email is None else one.email.reveal()),
                )
            )
        numbered.append((record, tuple(tombstones)))
    # Noted as a move that is at once given up: allotting numbers and moving the head are two things.
    allot = next_move(known.head, after_move=last_move(ledger, store), token=token, nonce=token_bytes(16))
    moves: tuple[MoveNote, ...] = (
        MoveIntended(store.name, allot, reserve=number - known.last_number),
        MoveLost(store.name),
    )
    return numbered, moves


def _of(fingerprint: Fingerprint, text: str | None) -> bytes | None:
    return None if text is None else fingerprint(text)


def summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the rows by table of several counts together."""
    total: dict[str, int] = {}
    for by_table in counts:
        for table, rows in by_table.items():
            total[table] = total.get(table, 0) + rows
    return total
