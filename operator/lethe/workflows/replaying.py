"""After a restore: erase again what it brought back, verify, and only then let the store be served.

Each step may be cut off and run again; the episode in the ledger stays open until the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lethe.domain.facts import Fact, Released, Replayed, SafeToServe
from lethe.domain.journal import Head, HeadFinding, JournalObservation, compare, is_ahead, remembered_identity
from lethe.domain.legal import Holds, may_be_said
from lethe.domain.restores import RestoreEpisode
from lethe.domain.tombstones import match_restored_rows
from lethe.ports.ledger import Ledger, MoveLost, MoveSettled
from lethe.ports.stores import HeadMoved, JournalSupport, MappingInvalid, Proof, Residue
from lethe.workflows.heads import tick
from lethe.workflows.store_session import StoreSession
from lethe.workflows.watching import held_numbers, re_erase, recount, settle_committed, supersede

_WENT_BACK = frozenset({HeadFinding.REWOUND, HeadFinding.IDENTITY_CHANGED})

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
    store: StoreSession,
    episode: RestoreEpisode,
    ledger: Ledger,
    holds: Holds,
    *,
    token: int,
    now: datetime,
    manual_release: bool = False,
) -> ReplayStep:
    """Take a restore one pass further; nobody is erased whose data a hold preserves.

    Raises `StoreUnreachable`.
    """
    observed = _settled_observation(store, ledger, now)
    if is_ahead(ledger.known_head(store.name), observed):
        store.ledger_behind = True
        return ReplayStep(ReplayState.WAITING, "the store's journal is ahead of the ledger, which went back")
    if not _has_come_to_rest(store, observed):
        return ReplayStep(ReplayState.WAITING, "the restore is still going on")
    proof = _whole_again(store, ledger)
    if isinstance(proof, ReplayStep):
        return proof
    known = ledger.known_head(store.name)
    if proof.journal is not JournalSupport.KEPT and known.head is not None:
        # Without it no restore could be told from now on, and this one would be found again and again.
        return ReplayStep(
            ReplayState.WAITING,
            f"the journal is gone and Lethe may not make it; let a DBA run: {proof.journal_ddl}",
        )
    store.port.advance_sequences(known.positions)
    if proof.journal is JournalSupport.KEPT:
        if episode.replayed_once and compare(known, observed) in _WENT_BACK:
            supersede(store, episode, ledger, now=now, observed=observed)
            store.stable_observations = 0
            return ReplayStep(ReplayState.WAITING, "the store went back once more")
        episode = recount(store, episode, ledger, now=now, observed=observed)
    try:
        stands_at, held = _erase_everything_again(
            store, episode, ledger, holds, observed, token=token, now=now
        )
        residue = store.port.check(
            ledger.tombstones(store.name),
            match_restored_rows(store.fingerprints, episode.decision_on),
            exclusive=True,
        )
        _note(store, episode, ledger, residue, now)
        _remember_what_was_read(store, ledger, observed)
        if set(residue.uncleared) - held:
            return ReplayStep(ReplayState.AGAIN, "somebody writes erased people back; they are erased again")
        if residue.unclear:
            keys = ", ".join(f"{table} {key}" for table, key in residue.unclear[:5])
            return ReplayStep(
                ReplayState.IDENTITY_UNCLEAR,
                f"{len(residue.unclear)} rows stand under erased keys, and nothing tells whose they are "
                f"({keys}); "
                "decide in spec.identities of the RestoreEvent",
            )
        if residue.uncleared:
            return _held_rows_returned(store, ledger, holds, residue, now)
        if manual_release:
            return ReplayStep(
                ReplayState.AWAITING_RELEASE,
                "verified; the DataStore's gate says Manual: set spec.release of the RestoreEvent",
            )
        return _open_gate(store, episode, ledger, residue, stands_at, token=token, now=now)
    except HeadMoved:
        store.stable_observations = 0
        return ReplayStep(ReplayState.WAITING, "the store went back once more during the replay")


def _held_rows_returned(
    store: StoreSession, ledger: Ledger, holds: Holds, residue: Residue, now: datetime
) -> ReplayStep:
    """Say for whom the store waits: counsel; of a hold that is a secret nothing is said."""
    back = {*residue.uncleared}
    those = [one for chunk in ledger.tombstones(store.name) for one in chunk if one.number in back]
    theirs = tuple(one for one in holds.holds if held_numbers(store, holds.only(one.legal), those))
    if not may_be_said(theirs, now):
        return ReplayStep(
            ReplayState.AWAITING_RELEASE,
            "a person decides whether it may be served: set spec.release of the RestoreEvent",
        )
    return ReplayStep(
        ReplayState.HELD_ROWS_RETURNED,
        f"{len(back)} erased persons came back whose data must be preserved; they were not erased again. "
        "Counsel decides: lift what preserves them, or set spec.release of the RestoreEvent",
    )


def _settled_observation(store: StoreSession, ledger: Ledger, now: datetime) -> JournalObservation:
    known = ledger.known_head(store.name)
    observed = store.port.observe_journal(settle=known.pending is not None)
    store.last_observed_at = now
    if known.pending is not None:
        # A replay that died half-way: its move committed or it did not.
        if observed.head is not None and observed.head.digest == known.pending.digest:
            settle_committed(store, ledger, known, observed, now)
        else:
            ledger.append(moves=[MoveLost(store.name)])
    return observed


def _has_come_to_rest(store: StoreSession, observed: JournalObservation) -> bool:
    same = store.stable_identity == observed.identity and not observed.being_filled
    store.stable_observations = store.stable_observations + 1 if same else 0
    store.stable_identity = observed.identity
    return store.stable_observations >= STABLE_OBSERVATIONS


def _whole_again(store: StoreSession, ledger: Ledger) -> Proof | ReplayStep:
    """Prove the mapping against the restored schema: pg_restore makes keys and constraints last."""
    mappings = ledger.mappings(store.name)
    store.port.remember(mappings.values())
    try:
        proof = store.port.prove()
    except MappingInvalid as invalid:
        return ReplayStep(ReplayState.MAPPING_DOES_NOT_FIT, str(invalid))
    recorded = mappings.get(proof.proved.version)
    lacking = sorted(set(recorded.constraints) - set(proof.proved.constraints)) if recorded else []
    if lacking:
        return ReplayStep(ReplayState.WAITING, f"the restore has not made {', '.join(lacking[:5])} yet")
    return proof


def _erase_everything_again(
    store: StoreSession,
    episode: RestoreEpisode,
    ledger: Ledger,
    holds: Holds,
    observed: JournalObservation,
    *,
    token: int,
    now: datetime,
) -> tuple[Head | None, set[int]]:
    """Erase all that was ever erased, but for whom a hold preserves.

    Return where the store's head stands since, and the tombstones that were held.
    """
    adopt: JournalObservation | None = observed
    held: set[int] = set()
    for chunk in ledger.tombstones(store.name):
        mine = held_numbers(store, holds, chunk)
        held |= mine
        free = [one for one in chunk if one.number not in mine] if mine else chunk
        re_erase(store, ledger, free, episode=episode, token=token, now=now, exclusive=True, adopt=adopt)
        adopt = None  # from the second chunk on the ledger knows where the store stands
    return (observed.head if adopt is not None else ledger.known_head(store.name).head), held


def _remember_what_was_read(store: StoreSession, ledger: Ledger, observed: JournalObservation) -> None:
    """Remember which store a pass was made over, so that a further restore of tables alone shows as well."""
    known = ledger.known_head(store.name)
    if known.head is not None and known.pending is None:
        identity = remembered_identity(known.identity, observed.identity)
        if identity != known.identity:
            ledger.append(moves=[MoveSettled(store.name, known.head, identity)])


def _note(
    store: StoreSession,
    episode: RestoreEpisode,
    ledger: Ledger,
    residue: Residue,
    now: datetime,
) -> None:
    found = Replayed(
        store.name,
        episode.episode,
        now,
        0,
        residue.left_alone,
        len(residue.unclear),
        residue.unclear[:64],
    )
    changed = (found.left_alone, found.unclear, found.unclear_keys) != (
        episode.left_alone,
        episode.unclear,
        episode.unclear_keys,
    )
    if changed or episode.unclear is None:
        ledger.append([found])


def _open_gate(
    store: StoreSession,
    episode: RestoreEpisode,
    ledger: Ledger,
    residue: Residue,
    stands_at: Head | None,
    *,
    token: int,
    now: datetime,
) -> ReplayStep:
    """Tick the head, look once more, declare the store safe: journal equals ledger *after* verifying.

    The tick follows `stands_at`, where the head stood when everything was read back. Following whatever
    head is there now would adopt a restore of the moment between.
    """
    facts: list[Fact] = [SafeToServe(store.name, episode.episode, now)]
    store.known_absent = frozenset(residue.absent)
    if store.proof is not None and store.proof.journal is JournalSupport.KEPT:
        before = store.port.observe_journal()
        if before.identity != store.stable_identity or before.being_filled:
            store.stable_observations = 0
            return ReplayStep(ReplayState.WAITING, "the store changed during the verification")
        tick(store, ledger, expected=stands_at, seen=before.identity, token=token)
        if compare(ledger.known_head(store.name), store.port.observe_journal()) is not HeadFinding.IN_STEP:
            store.stable_observations = 0
            return ReplayStep(ReplayState.WAITING, "the store changed during the verification")
    ledger.append(facts)
    store.sweep_wanted = False
    return ReplayStep(ReplayState.SAFE, "every erasure has been applied again and read back")


def release(
    store: StoreSession, episode: RestoreEpisode, ledger: Ledger, *, because: str, token: int, now: datetime
) -> None:
    """Let a store be served because a person says so, and go on from where it stands.

    Raises `StoreUnreachable`, `HeadMoved`.
    """
    if store.proof is not None and store.proof.journal is JournalSupport.KEPT:
        observed = _settled_observation(store, ledger, now)
        tick(store, ledger, expected=observed.head, seen=observed.identity, token=token)
    ledger.append([Released(store.name, episode.episode, now, because)])
    store.sweep_wanted = True
