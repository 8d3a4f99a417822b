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

from collections.abc import Mapping, Sequence
from datetime import datetime

from lethe.domain.facts import (
    Completed,
    Fact,
    IntentAbandoned,
    NotAsked,
    Outcome,
    Verified,
)
from lethe.domain.legal import Holds
from lethe.domain.mapping import StoreOwner, StoreRole
from lethe.domain.requests import RequestRecord, StoreState
from lethe.domain.tombstones import match_restored_rows, match_unchanged_rows
from lethe.domain.trust import (
    Blocker,
    BlockReason,
    Ending,
    ending_of,
)
from lethe.ports.keys import Keyring
from lethe.ports.ledger import Ledger
from lethe.ports.stores import (
    AnswerUntrusted,
    ErasureOutcome,
    HeadMoved,
    MappingInvalid,
    StoreUnreachable,
)
from lethe.workflows.heads import intend_move, settle_move
from lethe.workflows.holding import (
    blocker_of_hold,
    held_by_identifiers,
    held_by_tombstones,
    read_holds,
    rows_of_held,
)
from lethe.workflows.intending import PassResult, find_and_intend, summed
from lethe.workflows.linking import KeysOfPrimary
from lethe.workflows.store_session import StoreDescription, StoreSession, open_episode_of

BATCH = 500
"""Requests erased in one transaction: enough to share a commit, few enough not to hold locks for long."""


def may_be_asked(record: RequestRecord, store: StoreSession, primary: str | None, *, holds: bool) -> bool:
    """Tell whether a request can be worked on in a store yet.

    A request by id, and a store that is linked by the Primary's key, need what the Primary shows first. So
    does every request while there are `holds`: an address alone may not tell that somebody is held.
    """
    if record.progress(store.name).state.settled:
        return False
    if store.is_primary:
        return True
    primary_has_looked = primary is not None and record.progress(primary).state is not StoreState.PENDING
    if record.progress(store.name).state is StoreState.INTENDED:
        return primary is None or primary_has_looked or not holds
    if primary is None:
        return False
    return primary_has_looked or (
        record.accepted.subject_id is None and not store.description.needs_primary_key and not holds
    )


def serve(
    store: StoreSession,
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
    holds = read_holds(ledger, keyring, store, primary=primary)
    store.retry_held_on_change(holds.names)
    waiting = [
        record
        for record in records
        if may_be_asked(record, store, primary, holds=bool(holds)) and not store.is_too_early(record, now)
    ][:BATCH]
    if not waiting:
        return result
    if store.description.owner is StoreOwner.THIRD_PARTY:
        ledger.append([NotAsked(record.request, store.name) for record in waiting])
        result.settled |= {record.request for record in waiting}
        return result
    if open_episode_of(store, ledger) is not None:
        message = f"{store.description.short_name} was restored; its missing erasures come first"
        store.block(waiting, Blocker(BlockReason.ERASING, message))
        result.retry = True
        return result
    if ledger.known_head(store.name).pending is not None:
        result.head_moved = result.retry = True  # an earlier move is in doubt: look first
        return result
    try:
        keys = KeysOfPrimary.read(ledger, primary)
        pending = [r for r in waiting if r.progress(store.name).state is StoreState.PENDING]
        free = _not_held(store, pending, ledger, keyring, keys, holds, now)
        find_and_intend(store, free, ledger, keyring, keys, holds, token=token, now=now, result=result)
        # A hold may have come while the store was searched: what is intended is not done yet.
        holds = read_holds(ledger, keyring, store, primary=primary)
        intended = [
            record
            for record in _reread(ledger, waiting, store, StoreState.INTENDED)
            if may_be_asked(record, store, primary, holds=bool(holds))
        ]
        intended = _not_held(store, intended, ledger, keyring, keys, holds, now)
        if intended:
            _erase_and_verify(store, intended, ledger, token=token, now=now, result=result)
    except HeadMoved:
        result.head_moved = result.retry = True
    except (StoreUnreachable, MappingInvalid) as away:
        store.block(
            [r for r in waiting if r.request not in result.settled],
            Blocker(BlockReason.STORE_UNREACHABLE, f"{store.description.short_name}: {away}"),
        )
        store.trouble, store.trouble_reason = str(away), "Unreachable"
        result.retry = True
    except AnswerUntrusted as strange:
        store.block(
            [r for r in waiting if r.request not in result.settled],
            Blocker(BlockReason.FIND_UNTRUSTED, f"{store.description.short_name}: {strange}"),
            now,
        )
        result.retry = True
    for request in result.settled:
        store.unblock(request)
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


def _not_held(
    store: StoreSession,
    records: Sequence[RequestRecord],
    ledger: Ledger,
    keyring: Keyring,
    keys: KeysOfPrimary,
    holds: Holds,
    now: datetime,
) -> list[RequestRecord]:
    """Return those of the requests whose person no hold names; the others are told that they wait."""
    if not holds:
        return list(records)
    sealed = ledger.sealed([record.request for record in records])
    intended = any(record.progress(store.name).tombstones for record in records)
    rows = rows_of_held(store, holds) if intended else {}
    free = []
    for record in records:
        identifiers = keys.identifiers_of(store, record, sealed.get(record.request))
        held = held_by_identifiers(holds, identifiers, keyring) or held_by_tombstones(
            holds, store, record.progress(store.name).tombstones, rows
        )
        if held and not record.accepted.dry_run:
            store.block([record], blocker_of_hold(held, now))
        else:
            free.append(record)
    return free


# 4 and 5: erase, verify, record


def _erase_and_verify(
    store: StoreSession,
    records: Sequence[RequestRecord],
    ledger: Ledger,
    *,
    token: int,
    now: datetime,
    result: PassResult,
) -> None:
    tombstones = [t for record in records for t in record.progress(store.name).tombstones]
    matcher = match_unchanged_rows(store.fingerprints)
    move = intend_move(store, ledger, token=token)
    outcome = store.port.erase(tombstones, matcher, move=move)
    if move is not None:
        settle_move(store, ledger, move)

    done = {entry.of: entry.counts for entry in outcome.entries}
    verified_numbers = [t for t in tombstones if t.number in done]
    residue = store.port.check([verified_numbers], match_restored_rows(store.fingerprints))
    # A row that nothing tells whose it is by now has not been seen cleared either.
    unclear = set(residue.unclear)
    dirty = {*residue.uncleared, *(t.number for t in verified_numbers if (t.table, t.key) in unclear)}
    facts: list[Fact] = []
    for record in records:
        mine = record.progress(store.name).tombstones
        if all(t.number in done and t.number not in dirty for t in mine):
            counts = summed(done[t.number] for t in mine)
            facts.append(Verified(record.request, store.name, now, counts))
            result.settled.add(record.request)
            result.verified.append(record)
        else:
            facts += _unfinished(store, record, outcome, dirty, now, result)
    ledger.append(facts)


def _unfinished(
    store: StoreSession,
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
            store.block([record], Blocker(BlockReason.ERASING, message), now)
            return []
        message = (
            f"{name} refused to clear {where} ({first.code}: {first.what}); correct the DataStore's mapping, "
            "the rights of its user, or the record"
        )
        store.block([record], Blocker(BlockReason.VALUE_REFUSED, message), now)
        result.refused += 1
        return []
    if any(t.number in outcome.unclear or t.number in outcome.left_alone for t in mine):
        message = f"{name}: the record changed between finding and erasing it; it is looked for again"
        store.block([record], Blocker(BlockReason.ERASING, message), now)
        return [IntentAbandoned(record.request, store.name, "changed-since-found")]
    if dirty & {t.number for t in mine}:
        message = f"{name}: a write came in between erasing and reading back; it is erased again"
        store.block([record], Blocker(BlockReason.ERASING, message), now)
    return []


def _reread(
    ledger: Ledger, records: Sequence[RequestRecord], store: StoreSession, state: StoreState
) -> list[RequestRecord]:
    places = {(record.accepted.namespace, record.accepted.name) for record in records}
    return [
        record
        for record in ledger.requests_named(places).values()
        if record.progress(store.name).state is state
    ]
