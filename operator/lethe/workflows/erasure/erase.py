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

from lethe.domain.facts import Completed, Fact, IntentAbandoned, Outcome, Verified
from lethe.domain.legal import Holds
from lethe.domain.mapping import StoreRole
from lethe.domain.requests import RequestRecord, StoreState
from lethe.domain.tombstones import match_restored_rows, match_unchanged_rows
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.domain.trust import Blocker, BlockReason, Ending, ending_of
from lethe.ports.stores import AnswerUntrusted, ErasureOutcome, HeadMoved, MappingInvalid, StoreUnreachable
from lethe.workflows.erasure.find import PassResult, find_and_intend, summed
from lethe.workflows.identifiers import KeysOfPrimary
from lethe.workflows.journal_head import intend_move, settle_move
from lethe.workflows.legal.holds import (
    blocker_of_hold,
    held_by_identifiers,
    held_by_tombstones,
    read_holds,
    rows_of_held,
)
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import StoreDescription, StoreSession

BATCH = 500
"""Requests erased in one transaction: enough to share a commit, few enough not to hold locks for long."""


def may_be_asked(record: RequestRecord, session: StoreSession, primary: str | None, *, holds: bool) -> bool:
    """Tell whether a request can be worked on in a store yet.

    A request by id, and a store that is linked by the Primary's key, need what the Primary shows first. So
    does every request while there are `holds`: an address alone may not tell that somebody is held.
    """
    if record.progress(session.name).state.settled:
        return False
    if session.is_primary:
        return True
    primary_has_looked = primary is not None and record.progress(primary).state is not StoreState.PENDING
    if record.progress(session.name).state is StoreState.INTENDED:
        return primary is None or primary_has_looked or not holds
    if primary is None:
        return False
    return primary_has_looked or (
        record.accepted.subject_id is None and not session.description.needs_primary_key and not holds
    )


def serve(
    session: StoreSession,
    records: Sequence[RequestRecord],
    context: PassContext,
    *,
    primary: str | None,
) -> PassResult:
    """Take a set of open requests as far as they go in one store, of which no restore is open."""
    result = PassResult()
    began_at = context.clock()
    holds = read_holds(session, context, primary=primary)
    session.retry_held_on_change(holds.names)
    waiting = [
        record
        for record in records
        if may_be_asked(record, session, primary, holds=bool(holds))
        and not session.is_too_early(record, began_at)
    ][:BATCH]
    if not waiting:
        return result
    if context.ledger.known_head(session.name).pending is not None:
        result.head_moved = result.retry = True  # an earlier move is in doubt: look first
        return result
    try:
        keys = KeysOfPrimary.read(context, primary)
        pending = [r for r in waiting if r.progress(session.name).state is StoreState.PENDING]
        free = _not_held(session, pending, context, keys, holds)
        find_and_intend(session, free, context, keys, holds, result=result)
        # A hold may have come while the store was searched: what is intended is not done yet.
        holds = read_holds(session, context, primary=primary)
        intended = [
            record
            for record in _reread(context, waiting, session, StoreState.INTENDED)
            if may_be_asked(record, session, primary, holds=bool(holds))
        ]
        intended = _not_held(session, intended, context, keys, holds)
        if intended:
            _erase_and_verify(session, intended, context, result=result)
    except HeadMoved:
        result.head_moved = result.retry = True
    except (StoreUnreachable, MappingInvalid) as away:
        session.block(
            [r for r in waiting if r.request not in result.settled],
            Blocker(BlockReason.STORE_UNREACHABLE, f"{session.description.short_name}: {away}"),
        )
        result.trouble = Trouble(TroubleReason.UNREACHABLE, str(away))
        result.retry = True
    except AnswerUntrusted as strange:
        session.block(
            [r for r in waiting if r.request not in result.settled],
            Blocker(BlockReason.FIND_UNTRUSTED, f"{session.description.short_name}: {strange}"),
            context.clock(),
        )
        result.retry = True
    for request in result.settled:
        session.unblock(request)
    return result


def complete(
    records: Sequence[RequestRecord], context: PassContext, stores: Mapping[str, Sequence[StoreDescription]]
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
            facts.append(
                Completed(record.request, _ended_at(record, ending.outcome, context), ending.outcome)
            )
    if facts:
        context.ledger.append(facts)
    return endings


def _ended_at(record: RequestRecord, outcome: Outcome, context: PassContext) -> datetime:
    """Return when a request ended: with its last verification, whenever the ledger comes to say so."""
    moments = [progress.at for progress in record.stores.values() if progress.at is not None]
    return max(moments) if moments and outcome is Outcome.ERASED else context.clock()


def _not_held(
    session: StoreSession,
    records: Sequence[RequestRecord],
    context: PassContext,
    keys: KeysOfPrimary,
    holds: Holds,
) -> list[RequestRecord]:
    """Return those of the requests whose person no hold names; the others are told that they wait."""
    if not holds:
        return list(records)
    sealed = context.ledger.sealed([record.request for record in records])
    intended = any(record.progress(session.name).tombstones for record in records)
    rows = rows_of_held(session, holds) if intended else {}
    free, now = [], context.clock()
    for record in records:
        identifiers = keys.identifiers_of(session, record, sealed.get(record.request))
        held = held_by_identifiers(holds, identifiers, context) or held_by_tombstones(
            holds, session, record.progress(session.name).tombstones, rows
        )
        if held and not record.accepted.dry_run:
            session.block([record], blocker_of_hold(held, now))
        else:
            free.append(record)
    return free


# 4 and 5: erase, verify, record


def _erase_and_verify(
    session: StoreSession,
    records: Sequence[RequestRecord],
    context: PassContext,
    *,
    result: PassResult,
) -> None:
    tombstones = [t for record in records for t in record.progress(session.name).tombstones]
    matcher = match_unchanged_rows(session.fingerprints)
    move = intend_move(session, context)
    outcome = session.port.erase(tombstones, matcher, move=move)
    if move is not None:
        settle_move(session, context, move)

    done = {entry.of: entry.counts for entry in outcome.entries}
    verified_numbers = [t for t in tombstones if t.number in done]
    residue = session.port.check([verified_numbers], match_restored_rows(session.fingerprints))
    read_back_at = context.clock()
    # A row that nothing tells whose it is by now has not been seen cleared either.
    unclear = set(residue.unclear)
    dirty = {*residue.uncleared, *(t.number for t in verified_numbers if (t.table, t.key) in unclear)}
    facts: list[Fact] = []
    for record in records:
        mine = record.progress(session.name).tombstones
        if all(t.number in done and t.number not in dirty for t in mine):
            counts = summed(done[t.number] for t in mine)
            facts.append(Verified(record.request, session.name, read_back_at, counts))
            result.settled.add(record.request)
            result.verified.append(record)
        else:
            facts += _unfinished(session, record, outcome, dirty, residue.standing, read_back_at, result)
    context.ledger.append(facts)


def _unfinished(
    session: StoreSession,
    record: RequestRecord,
    outcome: ErasureOutcome,
    dirty: set[int],
    standing: Mapping[int, Sequence[str]],
    now: datetime,
    result: PassResult,
) -> list[Fact]:
    """Say why a request is not done in this store; an intent that can't be carried out is given up."""
    name = session.description.short_name
    mine = record.progress(session.name).tombstones
    refusals = [outcome.refused[t.number] for t in mine if t.number in outcome.refused]
    result.retry = True
    if refusals:
        first = refusals[0]
        where = next(f"{t.table} {t.key}" for t in mine if t.number in outcome.refused)
        if first.retry:
            message = f"{name}: {where} is locked by another session ({first.code}); it is tried again"
            session.block([record], Blocker(BlockReason.ERASING, message), now)
            return []
        message = (
            f"{name} refused to clear {where} ({first.reason}); correct the DataStore's mapping, "
            "the rights of its user, or the record"
        )
        session.block([record], Blocker(BlockReason.VALUE_REFUSED, message), now)
        result.refused += 1
        return []
    if any(t.number in outcome.unclear or t.number in outcome.left_alone for t in mine):
        message = f"{name}: the record changed between finding and erasing it; it is looked for again"
        session.block([record], Blocker(BlockReason.ERASING, message), now)
        return [IntentAbandoned(record.request, session.name, "changed-since-found")]
    if dirty & {t.number for t in mine}:
        times = session.is_undone(record.request)
        if times:
            named = dict.fromkeys(column for t in mine for column in standing.get(t.number, ()))
            keys = ", ".join(f"{t.table} {t.key}" for t in mine[:5])
            message = (
                f"{name}: {', '.join(named) or 'a record'} was not as it had been erased, {times} times; look"
                f" for a trigger, rule or job that undoes it ({keys})"
            )
            session.block([record], Blocker(BlockReason.VALUE_REFUSED, message), now)
            result.refused += 1
            return []
        message = f"{name}: a write came in between erasing and reading back; it is erased again"
        session.block([record], Blocker(BlockReason.ERASING, message), now)
    return []


def _reread(
    context: PassContext, records: Sequence[RequestRecord], session: StoreSession, state: StoreState
) -> list[RequestRecord]:
    places = {(record.accepted.namespace, record.accepted.name) for record in records}
    return [
        record
        for record in context.ledger.requests_named(places).values()
        if record.progress(session.name).state is state
    ]
