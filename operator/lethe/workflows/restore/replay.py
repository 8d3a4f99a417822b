"""After a restore: erase again what it brought back, verify, and only then let the store be served.

Each step may be cut off and run again; the episode in the ledger stays open until the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lethe.domain.facts import DetectedBy, Released, Replayed, SafeToServe
from lethe.domain.journal import (
    WENT_BACK,
    Head,
    HeadFinding,
    JournalObservation,
    compare,
    is_ahead,
    is_same_table,
    remembered_identity,
)
from lethe.domain.legal import Holds, LegalRecord, may_be_said
from lethe.domain.periods import instant
from lethe.domain.restores import Release, RestoreEpisode, evolve_episode
from lethe.domain.snapshots import CLOCK_SKEW
from lethe.ports.ledger import MoveLost, MoveSettled
from lethe.ports.stores import HeadMoved, JournalSupport, MappingInvalid, Proof, Residue
from lethe.workflows.journal_head import advance_sequences, tick
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.episode import detected_by, judge_restored_rows, recount, supersede
from lethe.workflows.restore.re_erase import held_numbers, re_erase, settle_committed
from lethe.workflows.restore.returned import remember_returned
from lethe.workflows.store_session import StoreSession

STABLE_OBSERVATIONS = 2
"""How many looks in a row must show the same store before a restore is taken to have ended."""


class ReplayState(StrEnum):
    """Where a replay stands."""

    WAITING = "Waiting"
    """The restore is still going on: the schema is not whole, or the store still changes."""
    MAPPING_DOES_NOT_FIT = "MappingDoesNotFit"
    IDENTITY_UNCLEAR = "IdentityUnclear"
    HELD_ROWS_RETURNED = "HeldRowsReturned"
    """Persons came back whose data a legal hold preserves: counsel decides."""
    AGAIN = "Again"
    """Something was written meanwhile; another pass is needed."""
    AWAITING_RELEASE = "AwaitingRelease"
    SAFE = "Safe"


@dataclass(frozen=True, slots=True)
class ReplayStep:
    """What one pass of a replay came to; `message` is for a person."""

    state: ReplayState
    message: str = ""


def replay(  # noqa: PLR0911 - each return is a state in which a replay can stand
    session: StoreSession,
    episode: RestoreEpisode,
    context: PassContext,
    holds: Holds,
    *,
    manual_release: bool = False,
    released: tuple[str, Release] | None = None,
) -> ReplayStep:
    """Take a restore one pass further; nobody is erased whose data a hold preserves.

    With `manual_release` a person has to let it be served once all is verified: `released` tells in which
    RestoreEvent they have. Raises `StoreUnreachable`.
    """
    observed = _settled_observation(session, context)
    if is_ahead(context.ledger.known_head(session.name), observed):
        session.note_ledger_behind()
        return ReplayStep(ReplayState.WAITING, "the store's journal is ahead of the ledger, which went back")
    if session.count_unchanged(observed) < STABLE_OBSERVATIONS:
        return ReplayStep(ReplayState.WAITING, _still_going_on(session, context, observed))
    proof = _whole_again(session, context, observed)
    if isinstance(proof, ReplayStep):
        return proof
    known = context.ledger.known_head(session.name)
    if proof.journal is not JournalSupport.KEPT and known.head is not None:
        # Without it no restore could be told from now on, and this one would be found again and again.
        return ReplayStep(
            ReplayState.WAITING,
            f"the journal is gone and Lethe may not make it; let a DBA run: {proof.journal_ddl}",
        )
    advance_sequences(session, known)
    if proof.journal is JournalSupport.KEPT:
        finding = compare(known, observed)
        if episode.replayed_once and finding in WENT_BACK:
            supersede(session, episode, context, detected_by(finding), observed=observed)
            session.note_restored()
            return ReplayStep(ReplayState.WAITING, "the store went back once more")
        episode = recount(session, episode, context, observed=observed)
    try:
        remember_returned(session, episode, context)
        stands_at, held = _erase_everything_again(session, episode, context, holds, observed)
        read_from = context.clock()
        judge = judge_restored_rows(session, context, episode.decision_on)
        residue = session.port.check(context.ledger.tombstones(session.name), judge, exclusive=True)
        _note(session, episode, context, residue, len(judge.same_address))
        _remember_what_was_read(session, context, observed)
        if set(residue.uncleared) - held:
            return ReplayStep(ReplayState.AGAIN, _written_back(residue))
        if residue.unclear:
            keys = ", ".join(f"{table} {key}" for table, key in residue.unclear[:5])
            return ReplayStep(
                ReplayState.IDENTITY_UNCLEAR,
                f"{len(residue.unclear)} rows stand under erased keys, and nothing tells whose they are "
                f"({keys}); "
                "decide in spec.identities of the RestoreEvent",
            )
        if residue.uncleared:
            return _held_rows_returned(session, context, holds, residue)
        why = _waits_for_release(session, episode, context, manual=manual_release)
        if why and released is None:
            return ReplayStep(ReplayState.AWAITING_RELEASE, why)
        word = released if why else None
        return _open_gate(session, episode, context, residue, stands_at, read_from, word)
    except HeadMoved:
        session.note_still_changing()
        return ReplayStep(ReplayState.WAITING, "the store went back once more during the replay")


def _still_going_on(session: StoreSession, context: PassContext, observed: JournalObservation) -> str:
    if observed.filling is None:
        return "the restore is still going on"
    filled = session.describe_filling(observed.filling, context.clock())
    return f"the restore is still going on: {filled}"


def _written_back(residue: Residue) -> str:
    named = sorted({column for columns in residue.standing.values() for column in columns})
    return (
        f"somebody writes erased people back ({', '.join(named[:5])}), or a trigger or rule undoes their"
        " erasure; they are erased again"
    )


def _held_rows_returned(
    session: StoreSession, context: PassContext, holds: Holds, residue: Residue
) -> ReplayStep:
    """Say for whom the store waits: counsel; of a hold that is a secret nothing is said."""
    if not may_be_said(_holding(session, context, holds, residue), context.clock()):
        return ReplayStep(
            ReplayState.AWAITING_RELEASE,
            "a person decides whether it may be served: set spec.release of the RestoreEvent with its uid",
        )
    return ReplayStep(
        ReplayState.HELD_ROWS_RETURNED,
        f"{len(residue.uncleared)} erased persons came back whose data must be preserved; they were not "
        "erased again. Counsel decides: lift what preserves them, or set spec.release of the RestoreEvent "
        "with its uid",
    )


def _waits_for_release(
    session: StoreSession, episode: RestoreEpisode, context: PassContext, *, manual: bool
) -> str:
    """Say why a person decides although all who are known to be erased are so again; empty: nobody needs to.

    Of a copy older than what is known nothing tells whom it brings back. A head that is gone, and not only
    behind, is of a copy from before Lethe ever looked.
    """
    until, back_to = context.ledger.forgotten_until(session.description.namespace), episode.back_to
    told = episode.detected_by is DetectedBy.JOURNAL
    if told and until is not None and (back_to is None or back_to - CLOCK_SKEW < until):
        copy = "from before Lethe's journal" if back_to is None else f"of {instant(back_to)}"
        return (
            f"who is known to have been erased is so again. But the copy is {copy}, and of those who were "
            f"erased until {instant(until)} nothing is known any more, because no backup was left that could "
            "hold them: they may stand in the store. Restore a newer copy, or clear them by hand, and set "
            "spec.release of the RestoreEvent"
        )
    return (
        "verified; the DataStore's gate says Manual: set spec.release of the RestoreEvent" if manual else ""
    )


def _settled_observation(session: StoreSession, context: PassContext) -> JournalObservation:
    known, asked_at = context.ledger.known_head(session.name), context.clock()
    observed = session.port.observe(settle=known.pending is not None)
    session.note_observed(asked_at, observed)
    if known.pending is not None:
        # A replay that died half-way: its move committed or it did not.
        if observed.head is not None and observed.head.digest == known.pending.digest:
            settle_committed(session, context, known, observed)
        else:
            context.ledger.append(moves=[MoveLost(session.name)])
    return observed


def _whole_again(
    session: StoreSession, context: PassContext, observed: JournalObservation
) -> Proof | ReplayStep:
    """Prove the mapping against the restored schema: pg_restore makes keys and constraints last."""
    mappings = context.ledger.mappings(session.name)
    try:
        proof = session.port.prove(mappings.values())
    except MappingInvalid as invalid:
        return ReplayStep(ReplayState.MAPPING_DOES_NOT_FIT, str(invalid))
    recorded, known = mappings.get(proof.proved.version), context.ledger.known_head(session.name).identity
    lacking = [
        str(one)
        for one in (recorded.constraints if recorded else ())
        if one not in proof.proved.constraints
        and not all(is_same_table(known, observed.identity, t) for t in (one.table, one.refers_to) if t)
    ]
    if lacking:
        return ReplayStep(
            ReplayState.WAITING,
            f"the restore has not made {', '.join(lacking[:5])} yet; if there is to be none any more, set "
            "spec.release of the RestoreEvent with its uid",
        )
    session.note_proof(proof)  # a DBA may have made the journal meanwhile: it is kept from now on
    return proof


def _erase_everything_again(
    session: StoreSession,
    episode: RestoreEpisode,
    context: PassContext,
    holds: Holds,
    observed: JournalObservation,
) -> tuple[Head | None, set[int]]:
    """Erase all that was ever erased, but for whom a hold preserves.

    Return where the store's head stands since, and the tombstones that were held.
    """
    adopt: JournalObservation | None = observed
    held: set[int] = set()
    for chunk in context.ledger.tombstones(session.name):
        mine = held_numbers(session, holds, chunk)
        held |= mine
        free = [one for one in chunk if one.number not in mine] if mine else chunk
        re_erase(session, context, free, episode=episode, exclusive=True, adopt=adopt)
        adopt = None  # from the second chunk on the ledger knows where the store stands
    if adopt is not None:
        # Nobody was erased again, but this restore is known now: else each look would find one more.
        tick(session, context, expected=observed.head, seen=observed.identity)
    return context.ledger.known_head(session.name).head, held


def _remember_what_was_read(
    session: StoreSession, context: PassContext, observed: JournalObservation
) -> None:
    """Remember which store a pass was made over, so that a further restore of tables alone shows as well."""
    known = context.ledger.known_head(session.name)
    if known.head is not None and known.pending is None:
        identity = remembered_identity(known.identity, observed.identity)
        if identity != known.identity:
            context.ledger.append(moves=[MoveSettled(session.name, known.head, identity)])


def _note(
    session: StoreSession,
    episode: RestoreEpisode,
    context: PassContext,
    residue: Residue,
    same_address: int,
) -> None:
    found = Replayed(
        session.name,
        episode.episode,
        context.clock(),
        0,
        residue.left_alone,
        len(residue.unclear),
        residue.unclear[:64],
        same_address,
        len(context.ledger.absent_addresses(session.name)) if session.journaled is None else 0,
    )
    if evolve_episode(episode, found) != episode:
        context.ledger.append([found])


def _open_gate(
    session: StoreSession,
    episode: RestoreEpisode,
    context: PassContext,
    residue: Residue,
    stands_at: Head | None,
    read_from: datetime,
    released: tuple[str, Release] | None,
) -> ReplayStep:
    """Tick the head, look once more, declare the store safe: journal equals ledger *after* verifying.

    The tick follows `stands_at`, where the head stood when everything was read back. Following whatever
    head is there now would adopt a restore of the moment between.
    """
    if session.journal is not None:
        before = session.port.observe()
        if before.identity != session.stable_identity or before.filling is not None:
            session.note_still_changing()
            return ReplayStep(ReplayState.WAITING, "the store changed during the verification")
        tick(session, context, expected=stands_at, seen=before.identity)
        if (
            compare(context.ledger.known_head(session.name), session.port.observe())
            is not HeadFinding.IN_STEP
        ):
            session.note_still_changing()
            return ReplayStep(ReplayState.WAITING, "the store changed during the verification")
    by, word = released or ("", Release(""))
    opened = SafeToServe(session.name, episode.episode, context.clock(), by, word.because, word.who)
    context.ledger.append([opened])
    session.note_swept(read_from, residue.absent)
    return ReplayStep(ReplayState.SAFE, "every erasure has been applied again and read back")


def release(
    session: StoreSession,
    episode: RestoreEpisode,
    context: PassContext,
    holds: Holds,
    *,
    by: str,
    word: Release,
) -> None:
    """Let a store be served because a person broke the glass, and go on from where it stands.

    What is left is counted, and goes on being erased again by the sweeps. Raises `StoreUnreachable`,
    `HeadMoved`.
    """
    # Before anything is read: a hold that is placed meanwhile is none that the person has known of.
    released_at = context.clock()
    if session.journal is not None:
        observed = _settled_observation(session, context)
        tick(session, context, expected=observed.head, seen=observed.identity)
    judge = judge_restored_rows(session, context, episode.decision_on)
    residue = session.port.check(context.ledger.tombstones(session.name), judge)
    left = number_left(session, context, holds, residue)
    name, in_place_at = episode.episode, context.clock() if left == 0 else None
    said = (word.because, by, left, in_place_at, word.uid, word.who)
    context.ledger.append([Released(session.name, name, released_at, *said)])
    session.want_sweep()


def number_left(
    session: StoreSession, context: PassContext, holds: Holds, residue: Residue, *, erased: int = 0
) -> int | None:
    """Return how many erased persons stand uncleared, or may, but for those `erased` since that was read.

    `None` where a hold that is a secret would show in the number.
    """
    holding = _holding(session, context, holds, residue) if residue.uncleared else ()
    if holding and not may_be_said(holding, context.clock()):
        return None
    return len(residue.uncleared) - erased + len(residue.unclear)


def _holding(
    session: StoreSession, context: PassContext, holds: Holds, residue: Residue
) -> tuple[LegalRecord, ...]:
    """Return the holds that preserve what stands uncleared."""
    if not holds:
        return ()
    back = {*residue.uncleared}
    those = [one for chunk in context.ledger.tombstones(session.name) for one in chunk if one.number in back]
    return tuple(one for one in holds.holds if held_numbers(session, holds.only(one.legal), those))
