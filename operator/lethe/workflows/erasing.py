"""Erasing persons from one store, as a set: find, decide, intend, erase, verify, record.

Steps, with the numbers that recur in the code:

2. find every record of every wanted person, compared exactly;
3. decide what may be trusted, and write the intent into the ledger;
4. erase in one transaction that begins with the journal's head;
5. read back in a new transaction, and record what was verified.

A pass may be cut off anywhere and run again: an intent that is already there is carried out as it
stands, and a store that has it already says so without changing anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from secrets import token_bytes

from lethe.domain.facts import (
    Completed,
    Fact,
    Forsaken,
    Intended,
    NotAsked,
    NotFound,
    Outcome,
    Planned,
    Verified,
)
from lethe.domain.identifiers import Identifier, IdentifierKind, PersonalText
from lethe.domain.journal import HeadFinding, compare, next_move
from lethe.domain.mapping import StoreOwner, StoreRole
from lethe.domain.requests import RequestRecord, StoreState
from lethe.domain.tombstones import Fingerprint, Tombstone, as_it_was_found, who_came_back
from lethe.domain.trust import (
    EARLIER_ERASURE,
    NOTHING_TO_ASK_BY,
    Ending,
    Hindrance,
    Obstacle,
    RecordTrait,
    ending_of,
    hindrance_of_found,
)
from lethe.ports.keys import Keyring, record_digest
from lethe.ports.ledger import Ledger, MoveIntended, MoveLost, MoveNote
from lethe.ports.stores import (
    AnswerUntrusted,
    ErasureOutcome,
    Finding,
    FoundRecord,
    HeadMoved,
    JournalSupport,
    MappingInvalid,
    StoreUnreachable,
    Wanted,
)
from lethe.workflows.guarded import GuardedStore, StoreDescription, email_digest, open_episode_of
from lethe.workflows.heads import intend_move, last_move, settle_move
from lethe.workflows.intake import sealed_identifiers
from lethe.workflows.linking import KeysOfPrimary

BATCH = 500
"""Requests erased in one transaction: enough to share a commit, few enough not to hold locks for long."""


@dataclass(slots=True)
class PassResult:
    """What a pass over one store left behind, for status and metrics.

    `settled` are the requests that this store has nothing more to do for, `retry` those that meet a
    passing obstacle, `head_moved` that the store must be looked at before anything else.
    """

    settled: set[str] = field(default_factory=set)
    refused: int = 0
    verified: list[RequestRecord] = field(default_factory=list)
    retry: bool = False
    head_moved: bool = False


def may_be_asked(record: RequestRecord, store: GuardedStore, primary: str | None) -> bool:
    """Tell whether a request can be worked on in a store yet.

    A request by id, and a store that is linked by the Primary's key, need what the Primary shows first.
    """
    if record.progress(store.name).state.settled:
        return False
    if store.is_primary or record.progress(store.name).state is StoreState.INTENDED:
        return True
    if primary is None:
        return False
    primary_has_looked = record.progress(primary).state is not StoreState.PENDING
    return primary_has_looked or (
        record.accepted.subject_id is None and not store.description.needs_primary_key
    )


def serve(
    store: GuardedStore,
    records: Sequence[RequestRecord],
    ledger: Ledger,
    keyring: Keyring,
    *,
    primary: str | None,
    token: int,
    now: datetime,
) -> PassResult:
    """Take a set of open requests as far as they go in one store."""
    result = PassResult()
    waiting = [
        record
        for record in records
        if may_be_asked(record, store, primary) and not store.is_too_early(record, now)
    ][:BATCH]
    if not waiting:
        return result
    if store.description.owner is StoreOwner.THIRD_PARTY:
        ledger.append([NotAsked(record.request, store.name) for record in waiting])
        result.settled |= {record.request for record in waiting}
        return result
    if open_episode_of(store, ledger) is not None:
        message = f"{store.description.short_name} was restored; its missing erasures come first"
        store.hinder(waiting, Hindrance(Obstacle.ERASING, message))
        result.retry = True
        return result
    if ledger.known_head(store.name).pending is not None:
        result.head_moved = result.retry = True  # an earlier move is in doubt: look first
        return result
    try:
        pending = [r for r in waiting if r.progress(store.name).state is StoreState.PENDING]
        _find_and_intend(
            store, pending, ledger, keyring, primary=primary, token=token, now=now, result=result
        )
        intended = _reread(ledger, waiting, store, StoreState.INTENDED)
        if intended:
            _erase_and_verify(store, intended, ledger, token=token, now=now, result=result)
    except HeadMoved:
        result.head_moved = result.retry = True
    except (StoreUnreachable, MappingInvalid) as away:
        store.hinder(
            [r for r in waiting if r.request not in result.settled],
            Hindrance(Obstacle.STORE_UNREACHABLE, f"{store.description.short_name}: {away}"),
        )
        store.trouble, store.trouble_reason = str(away), "Unreachable"
        result.retry = True
    except AnswerUntrusted as strange:
        store.hinder(
            [r for r in waiting if r.request not in result.settled],
            Hindrance(Obstacle.FIND_UNTRUSTED, f"{store.description.short_name}: {strange}"),
            now,
        )
        result.retry = True
    for request in result.settled:
        store.clear_way(request)
    return result


def complete(
    records: Sequence[RequestRecord],
    ledger: Ledger,
    stores: Mapping[str, Sequence[StoreDescription]],
    *,
    now: datetime,
) -> dict[str, Ending]:
    """End every request that has nothing left to do; `stores` are the present stores by namespace."""
    endings: dict[str, Ending] = {}
    facts: list[Fact] = []
    for record in records:
        present = stores.get(record.accepted.namespace, ())
        ending = ending_of(
            record,
            [store.name for store in present],
            has_primary=any(store.role is StoreRole.PRIMARY for store in present),
        )
        endings[record.request] = ending
        if ending.outcome is not None:
            facts.append(Completed(record.request, _ended_at(record, ending.outcome, now), ending.outcome))
    if facts:
        ledger.append(facts)
    return endings


def _ended_at(record: RequestRecord, outcome: Outcome, now: datetime) -> datetime:
    """Return when a request ended: with its last verification, whenever the ledger comes to say so."""
    moments = [progress.at for progress in record.stores.values() if progress.at is not None]
    return max(moments) if moments and outcome is Outcome.ERASED else now


# 2 and 3: find, decide, intend


def _find_and_intend(
    store: GuardedStore,
    records: Sequence[RequestRecord],
    ledger: Ledger,
    keyring: Keyring,
    *,
    primary: str | None,
    token: int,
    now: datetime,
    result: PassResult,
) -> None:
    if not records:
        return
    sealed = ledger.sealed([record.request for record in records])
    keys = KeysOfPrimary.read(ledger, primary)
    identifiers = {
        record.request: keys.identifiers_of(store, record, sealed.get(record.request)) for record in records
    }
    finding = store.port.find([Wanted(request, known) for request, known in identifiers.items()])
    _see_that_absences_count(store, ledger, finding, records)
    before = _erased_before(store, finding, identifiers, ledger, keyring)

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
                store.hinder([record], Hindrance(Obstacle.FIND_UNTRUSTED, message), now)
                result.retry = True
            else:
                facts.append(absence)
                result.settled.add(record.request)
            continue
        hindrance = hindrance_of_found(
            [RecordTrait(one.table, one.key, one.shared) for one in found],
            max_records=store.description.max_records,
            confirmed=record.confirmed,
            store=store.description.short_name,
        ) or keys.hindrance(store, record, identifiers[record.request])
        if hindrance is not None:
            store.hinder([record], hindrance, now)
            continue
        if taken & {(one.table, one.key) for one in found}:
            result.retry = True  # another request of this batch erases them; look again after it
            continue
        taken |= {(one.table, one.key) for one in found}
        trusted.append((record, found))
        if store.is_primary:  # only the Primary links: two stores that seal at once would lose one's share
            seal[record.request] = _linked(identifiers[record.request], found)

    numbered, moves = _number(store, trusted, ledger, token)
    wet = [intent for intent in numbered if not intent[0].accepted.dry_run]
    dry = [intent for intent in numbered if intent[0].accepted.dry_run]
    facts += [Intended(record.request, store.name, tombstones) for record, tombstones in wet]
    if dry:
        counts = store.port.plan([tombstone for _, tombstones in dry for tombstone in tombstones])
        for record, tombstones in dry:
            total = _summed(counts.get(tombstone.number, {}) for tombstone in tombstones)
            facts.append(Planned(record.request, store.name, total))
            result.settled.add(record.request)
    if facts:
        ledger.append(facts, seal=seal, moves=moves if wet else ())


def _see_that_absences_count(
    store: GuardedStore, ledger: Ledger, finding: Finding, records: Sequence[RequestRecord]
) -> None:
    """See that the store is where the ledger knows it, so that not to be found in it means something.

    In the midst of a restore, and after one that nobody has looked at yet, a table is empty, or lacks who
    comes back later. Raises `HeadMoved`.
    """
    if all(record.request in finding.records for record in records):
        return
    if store.proof is None or store.proof.journal is not JournalSupport.KEPT:
        return
    pulse = store.port.pulse()
    known = ledger.known_head(store.name)
    in_step = compare(known, pulse) in (HeadFinding.IN_STEP, HeadFinding.NEVER_JOURNALED)
    if pulse.being_filled or not in_step:
        raise HeadMoved("the store is being filled, or went back: that somebody is not found proves nothing")


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
    store: GuardedStore,
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
    store: GuardedStore,
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
    store: GuardedStore,
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


# 4 and 5: erase, verify, record


def _erase_and_verify(
    store: GuardedStore,
    records: Sequence[RequestRecord],
    ledger: Ledger,
    *,
    token: int,
    now: datetime,
    result: PassResult,
) -> None:
    tombstones = [t for record in records for t in record.progress(store.name).tombstones]
    judge = as_it_was_found(store.fingerprints)
    move = intend_move(store, ledger, token=token)
    outcome = store.port.erase(tombstones, judge, move=move)
    if move is not None:
        settle_move(store, ledger, move)

    done = {entry.of: entry.counts for entry in outcome.entries}
    verified_numbers = [t for t in tombstones if t.number in done]
    residue = store.port.check([verified_numbers], who_came_back(store.fingerprints))
    # A row that nothing tells whose it is by now has not been seen cleared either.
    unclear = set(residue.unclear)
    dirty = {*residue.uncleared, *(t.number for t in verified_numbers if (t.table, t.key) in unclear)}
    facts: list[Fact] = []
    for record in records:
        mine = record.progress(store.name).tombstones
        if all(t.number in done and t.number not in dirty for t in mine):
            counts = _summed(done[t.number] for t in mine)
            facts.append(Verified(record.request, store.name, now, counts))
            result.settled.add(record.request)
            result.verified.append(record)
        else:
            facts += _unfinished(store, record, outcome, dirty, now, result)
    ledger.append(facts)


def _unfinished(
    store: GuardedStore,
    record: RequestRecord,
    outcome: ErasureOutcome,
    dirty: set[int],
    now: datetime,
    result: PassResult,
) -> list[Fact]:
    """Say why a request is not done in this store; an intent that can't be carried out is given up."""
    name = store.description.short_name
    mine = record.progress(store.name).tombstones
    refusals = [outcome.refused[t.number] for t in mine if t.number in outcome.refused]
    result.retry = True
    if refusals:
        first = refusals[0]
        where = next(f"{t.table} {t.key}" for t in mine if t.number in outcome.refused)
        if first.retry:
            message = f"{name}: {where} is locked by another session ({first.code}); it is tried again"
            store.hinder([record], Hindrance(Obstacle.ERASING, message), now)
            return []
        message = (
            f"{name} refused to clear {where} ({first.code}: {first.what}); correct the DataStore's mapping, "
            "the rights of its user, or the record"
        )
        store.hinder([record], Hindrance(Obstacle.VALUE_REFUSED, message), now)
        result.refused += 1
        return []
    if any(t.number in outcome.unclear or t.number in outcome.left_alone for t in mine):
        message = f"{name}: the record changed between finding and erasing it; it is looked for again"
        store.hinder([record], Hindrance(Obstacle.ERASING, message), now)
        return [Forsaken(record.request, store.name, "changed-since-found")]
    if dirty & {t.number for t in mine}:
        message = f"{name}: a write came in between erasing and reading back; it is erased again"
        store.hinder([record], Hindrance(Obstacle.ERASING, message), now)
    return []


def _reread(
    ledger: Ledger, records: Sequence[RequestRecord], store: GuardedStore, state: StoreState
) -> list[RequestRecord]:
    places = {(record.accepted.namespace, record.accepted.name) for record in records}
    return [
        record
        for record in ledger.requests_named(places).values()
        if record.progress(store.name).state is state
    ]


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for by_table in counts:
        for table, rows in by_table.items():
            total[table] = total.get(table, 0) + rows
    return total
