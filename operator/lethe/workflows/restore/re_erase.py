"""Erasing again what a restore or a write-back brought back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from lethe.domain.facts import Fact, Reerased, Replayed
from lethe.domain.journal import Head, JournalObservation, KnownHead, StoreIdentity, remembered_identity
from lethe.domain.legal import Holds
from lethe.domain.restores import RestoreEpisode
from lethe.domain.tombstones import Tombstone, undecided
from lethe.ports.ledger import MoveSettled
from lethe.ports.stores import JournalEntry
from lethe.workflows.journal_head import intend_move
from lethe.workflows.legal.holds import holds_tombstone
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.episode import judge_restored_rows, open_episode_of
from lethe.workflows.store_session import StoreSession


def re_erase(
    session: StoreSession,
    context: PassContext,
    tombstones: Sequence[Tombstone],
    *,
    episode: RestoreEpisode | None,
    exclusive: bool,
    adopt: JournalObservation | None = None,
) -> int:
    """Erase people again in one transaction, each with a new journal number; return how many there were.

    `adopt` is what was observed of a rewound store, whose head the replay moves on from.
    """
    matcher = judge_restored_rows(session, context, episode.decision_on if episode else undecided)
    first_number = context.ledger.known_head(session.name).last_number + 1
    move = intend_move(
        session,
        context,
        reserve=len(tombstones),
        expected=adopt.head if adopt else None,
        adopt=adopt is not None,
    )
    outcome = session.port.erase(
        tombstones, matcher, move=move, first_number=first_number, exclusive=exclusive
    )
    erased_at = context.clock()
    identity = _adopted(session, context, adopt) if adopt is not None else None
    # One transaction for fact and settling: a crash before it is made up for by `settle_committed`.
    context.ledger.append(
        _reerasure_facts(session, episode, outcome.entries, erased_at),
        moves=[MoveSettled(session.name, Head(move.move, move.digest), identity)] if move else (),
    )
    return len(outcome.entries)


def settle_committed(
    session: StoreSession, context: PassContext, known: KnownHead, observed: JournalObservation
) -> KnownHead:
    """Record a move that committed although this process or its predecessor never heard so."""
    if known.pending is None or observed.head is None or session.journaled is None:
        return known
    entries = session.journaled.entries_of(known.pending.move)
    again = [entry for entry in entries if entry.number != entry.of]
    episode = open_episode_of(session, context)
    # While a restore is dealt with, it was a move of its replay, over the store that is there now.
    identity = _adopted(session, context, observed) if episode is not None else None
    context.ledger.append(
        _reerasure_facts(session, episode, again, context.clock()),
        moves=[MoveSettled(session.name, observed.head, identity)],
    )
    return context.ledger.known_head(session.name)


def _adopted(session: StoreSession, context: PassContext, observed: JournalObservation) -> StoreIdentity:
    """Return the identity to be known with a head that was moved on in a restored store.

    Known by the one before, the same store would be taken for one that went back once more.
    """
    return remembered_identity(context.ledger.known_head(session.name).identity, observed.identity)


def held_numbers(session: StoreSession, holds: Holds, tombstones: Sequence[Tombstone]) -> set[int]:
    """Return which of the tombstones are of persons whose data a hold preserves here."""
    if not holds:
        return set()
    is_held = holds_tombstone(holds, session)
    return {tombstone.number for tombstone in tombstones if is_held(tombstone)}


def _reerasure_facts(
    session: StoreSession, episode: RestoreEpisode | None, entries: Sequence[JournalEntry], at: datetime
) -> list[Fact]:
    if not entries:
        return []
    numbers = tuple(entry.of for entry in entries)
    name = episode.episode if episode else None
    facts: list[Fact] = [Reerased(session.name, name, at, entries[0].number, numbers)]
    if episode is not None:
        rows = Counter[str]()
        for entry in entries:
            rows.update(entry.counts)
        facts.append(
            Replayed(
                session.name,
                episode.episode,
                at,
                len(numbers),
                episode.left_alone,
                episode.unclear or 0,
                episode.unclear_keys,
                episode.same_address,
                episode.never_found,
                dict(rows),
            )
        )
    return facts
