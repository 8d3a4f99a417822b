"""Looking at a store every few seconds: has it gone back in time, and is what was erased still erased?

From exact to thorough: the journal's head, the identity of
server and tables, a probe of the newest and of random erasures, and the sweep over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import count

from lethe.domain.facts import (
    DetectedBy,
    Fact,
    IdentitiesDecided,
    Reerased,
    Replayed,
    RestoreDetected,
    RestoreExplained,
    Superseded,
)
from lethe.domain.journal import Head, HeadFinding, JournalObservation, KnownHead, compare
from lethe.domain.legal import Holds, LegalRecord
from lethe.domain.restores import RestoreEpisode
from lethe.domain.tombstones import Identity, IdentityMatcher, Tombstone, match_restored_rows
from lethe.ports.ledger import MoveLost, MoveSettled
from lethe.ports.stores import HeadMoved, JournalEntry, Residue, StoreError
from lethe.workflows.journal_head import intend_move, tick
from lethe.workflows.legal.holds import holds_tombstone
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import StoreSession, open_episode_of

PROBE_NEWEST = 1000
PROBE_RANDOM = 1000

WRITE_BACK_LIMIT = 100
"""More erased people than this, back at once in a store whose head and identity are intact, are treated
as a restore that went around the journal; fewer are a stale session or a sync that wrote them back."""


class Detection(StrEnum):
    """What a look at a store came to."""

    FINE = "Fine"
    RESTORED = "Restored"
    LEDGER_BEHIND = "LedgerBehind"


@dataclass(frozen=True, slots=True)
class RecheckResult:
    """What a probe or sweep did: `re_erased` people had been written back; `left_alone` and `unclear`
    rows stand under erased keys and were not touched."""

    re_erased: int = 0
    left_alone: int = 0
    unclear: int = 0


def detect_restore(session: StoreSession, context: PassContext) -> Detection:
    """Compare a store's journal with the ledger, settle what is in doubt, and tick the head.

    Opens a restore episode where the store went back in time. Raises `StoreUnreachable`.
    """
    known, asked_at = context.ledger.known_head(session.name), context.clock()
    observed = session.port.observe(settle=known.pending is not None)
    session.note_observed(asked_at)
    journaled_once = known.head is not None or known.pending is not None
    if session.proof is None or (session.journal is None and not journaled_once):
        return Detection.FINE
    finding = compare(known, observed)
    if finding is HeadFinding.PENDING_COMMITTED:
        known = settle_committed(session, context, known, observed)
        finding = compare(known, observed)
    elif finding is HeadFinding.PENDING_LOST:
        context.ledger.append(moves=[MoveLost(session.name)])
        known = context.ledger.known_head(session.name)
        finding = compare(known, observed)
    match finding:
        case HeadFinding.IN_STEP | HeadFinding.NEVER_JOURNALED:
            with suppress(HeadMoved):  # the next look tells why
                tick(session, context, expected=observed.head, seen=observed.identity)
            return Detection.FINE
        case HeadFinding.LEDGER_BEHIND:
            session.note_ledger_behind()
            return Detection.LEDGER_BEHIND
        case _:
            by = DetectedBy.TABLE_IDENTITY if finding is HeadFinding.IDENTITY_CHANGED else DetectedBy.JOURNAL
            open_episode(session, context, by, observed=observed)
            return Detection.RESTORED


def settle_committed(
    session: StoreSession, context: PassContext, known: KnownHead, observed: JournalObservation
) -> KnownHead:
    """Record a move that committed although this process or its predecessor never heard so."""
    if known.pending is None or observed.head is None or session.journaled is None:
        return known
    entries = session.journaled.entries_of(known.pending.move)
    again = [entry for entry in entries if entry.number != entry.of]
    episode = open_episode_of(session, context)
    context.ledger.append(
        _reerasure_facts(session, episode, again, context.clock()),
        moves=[MoveSettled(session.name, observed.head)],
    )
    return context.ledger.known_head(session.name)


def open_episode(
    session: StoreSession,
    context: PassContext,
    by: DetectedBy,
    *,
    observed: JournalObservation | None = None,
) -> RestoreEpisode:
    """Record that a store went back in time, with the erasures that its journal says are missing.

    While an episode is open, a further restore belongs to it.
    """
    already = open_episode_of(session, context)
    if already is not None:
        return already
    missing = _missing_at_first_sight(session, context, observed) if observed is not None else 0
    # Only a rewound head tells to where the keys went back; one that stayed in step tells nothing of it.
    head = observed.head if observed is not None and by is DetectedBy.JOURNAL else None
    detected_at = context.clock()
    context.ledger.append(
        [
            RestoreDetected(
                session.name,
                _name_of_episode(session, context, detected_at),
                detected_at,
                by,
                dict(head.positions) if head else {},
                missing,
                missing_since=_last_seen_clean(session, context, by),
                back_to=head.at if head else None,
            )
        ]
    )
    session.note_restored()
    return next(iter(context.ledger.episodes(store=session.name, open_only=True)))


def _last_seen_clean(session: StoreSession, context: PassContext, by: DetectedBy) -> datetime | None:
    """Return when the store was last seen as it should be; snapshots taken since may hold erased persons.

    `None` where nobody can say: what went around journal and identity shows in a sweep only.
    """
    if by in (DetectedBy.JOURNAL, DetectedBy.TABLE_IDENTITY):
        return context.ledger.known_head(session.name).settled_at
    return session.last_sweep_at


def _name_of_episode(session: StoreSession, context: PassContext, detected_at: datetime) -> str:
    """Return a name that no restore of this store had yet: two may be noticed within one second."""
    name = f"{session.description.short_name}-{detected_at:%Y%m%d-%H%M%S}"
    taken = {episode.episode for episode in context.ledger.episodes(store=session.name)}
    if name not in taken:
        return name
    return next(numbered for n in count(2) if (numbered := f"{name}-{n}") not in taken)


def _missing_at_first_sight(session: StoreSession, context: PassContext, observed: JournalObservation) -> int:
    """Count the missing erasures, if the journal can be read: that it can't must not hide the restore."""
    if observed.head is None:
        return context.ledger.tombstone_count(session.name)
    try:
        return len(missing_numbers(session, context))
    except StoreError:
        return context.ledger.tombstone_count(session.name)  # counted anew once the restore has come to rest


def recount(
    session: StoreSession,
    episode: RestoreEpisode,
    context: PassContext,
    *,
    observed: JournalObservation,
) -> RestoreEpisode:
    """Count the missing erasures of a restore that has come to rest.

    In the middle of a restore the journal is empty or half there, so the count at the detection says
    little. Once erasures have been applied again, only a further restore can make more of them missing.
    """
    missing = len(missing_numbers(session, context))
    head = observed.head if episode.detected_by is DetectedBy.JOURNAL else None
    positions = dict(head.positions if head else episode.positions)
    as_noted = (missing, positions) == (episode.missing, dict(episode.positions))
    if as_noted or (episode.replayed_once and missing <= episode.missing):
        return episode
    context.ledger.append(
        [
            RestoreDetected(
                session.name,
                episode.episode,
                context.clock(),
                episode.detected_by,
                positions,
                missing,
                back_to=head.at if head else None,
            )
        ]
    )
    return next(iter(context.ledger.episodes(store=session.name, open_only=True)))


def supersede(
    session: StoreSession,
    episode: RestoreEpisode,
    context: PassContext,
    *,
    observed: JournalObservation,
) -> RestoreEpisode:
    """Begin a new episode: the store went back once more before this restore had been dealt with.

    What a person decided about the rows of the one says nothing about those of the other.
    """
    detected_at = context.clock()
    name, head = _name_of_episode(session, context, detected_at), observed.head
    missing = len(missing_numbers(session, context))
    context.ledger.append(
        [
            Superseded(session.name, episode.episode, detected_at, name),
            RestoreDetected(
                session.name,
                name,
                detected_at,
                DetectedBy.JOURNAL,
                dict(head.positions) if head else {},
                missing,
                missing_since=episode.missing_since,
                back_to=head.at if head else None,
            ),
        ]
    )
    return next(iter(context.ledger.episodes(store=session.name, open_only=True)))


def explain(episode: RestoreEpisode, context: PassContext, *, event: str, reason: str) -> bool:
    """Record the reason that a RestoreEvent gives for a restore; tell whether it is new."""
    if episode.events.get(event) == reason:
        return False
    context.ledger.append([RestoreExplained(episode.store, episode.episode, event, reason)])
    return True


def decide_identities(
    episode: RestoreEpisode, context: PassContext, decisions: Iterable[tuple[str, str, str]]
) -> None:
    """Record what a person said about whose rows are: `(table, key, Erase | LeaveAlone)`."""
    fresh = tuple(decision for decision in decisions if decision not in episode.decisions)
    if fresh:
        context.ledger.append([IdentitiesDecided(episode.store, episode.episode, fresh)])


def missing_numbers(session: StoreSession, context: PassContext) -> set[int]:
    """Return the tombstones that no genuine entry of the store's journal knows."""
    missing = {number for chunk in context.ledger.tombstone_numbers(session.name) for number in chunk}
    if session.journaled is not None:
        for numbers in session.journaled.journaled_numbers():
            missing.difference_update(numbers)
    return missing


def probe(session: StoreSession, context: PassContext, holds: Holds) -> RecheckResult:
    """Check the newest and some random erasures; a row that went missing asks for a sweep."""
    sample = context.ledger.sample_tombstones(session.name, newest=PROBE_NEWEST, random=PROBE_RANDOM)
    if not sample:
        return RecheckResult()
    residue = session.port.check([sample], _matcher_between_restores(session, context))
    if not set(residue.absent) <= session.known_absent:
        session.want_sweep()
    return classify_uncleared(session, context, holds, residue, sample, DetectedBy.PROBE)


def sweep(session: StoreSession, context: PassContext, holds: Holds) -> RecheckResult:
    """Check everything that was ever erased in a store, and erase again what was written back."""
    began_at = context.clock()
    residue = session.port.check(
        context.ledger.tombstones(session.name), _matcher_between_restores(session, context)
    )
    wanted = set(residue.uncleared)
    back = (
        [t for chunk in context.ledger.tombstones(session.name) for t in chunk if t.number in wanted]
        if wanted
        else []
    )
    done = classify_uncleared(session, context, holds, residue, back, DetectedBy.SWEEP)
    # Not before: what this sweep has found may have been so since the one before it.
    session.note_swept(began_at, residue.absent)
    return done


def _matcher_between_restores(session: StoreSession, context: PassContext) -> IdentityMatcher:
    """Return the judge of probe and sweep: who was left alone after the last restore is so until the next.

    A decision to erase was carried out; what stands under that key since is another question.
    """
    last = next(reversed(context.ledger.episodes(store=session.name)), None)

    def left_alone(table: str, key: str) -> Identity | None:
        decided = last.decision_on(table, key) if last else None
        return decided if decided is Identity.OTHER else None

    return match_restored_rows(session.fingerprints, left_alone)


def classify_uncleared(
    session: StoreSession,
    context: PassContext,
    holds: Holds,
    residue: Residue,
    tombstones: Sequence[Tombstone],
    by: DetectedBy,
) -> RecheckResult:
    """Tell a write-back from a restore by its size, and erase again the people of a write-back.

    Where nothing tells whose an uncleared row is, a person must be asked, and until then it may be an
    erased person's: the gate closes, and the RestoreEvent asks. So it does for persons under a hold.
    """
    wanted = set(residue.uncleared)
    unclear = len(residue.unclear)
    held = held_numbers(session, holds, tombstones) & wanted
    back = [one for one in tombstones if one.number in held]
    theirs = (
        [one for one in holds.holds if held_numbers(session, holds.only(one.legal), back)] if back else []
    )
    if held and not _was_released(session, context, theirs):
        open_episode(session, context, by)
        return RecheckResult(0, residue.left_alone, unclear)
    wanted -= held
    if len(wanted) > WRITE_BACK_LIMIT or unclear:
        open_episode(session, context, by)
        return RecheckResult(0, residue.left_alone, unclear)
    if not wanted:
        return RecheckResult(0, residue.left_alone, unclear)
    back = [t for t in tombstones if t.number in wanted]
    again = re_erase(session, context, back, episode=None, exclusive=False)
    return RecheckResult(again, residue.left_alone, unclear)


def held_numbers(session: StoreSession, holds: Holds, tombstones: Sequence[Tombstone]) -> set[int]:
    """Return which of the tombstones are of persons whose data a hold preserves here."""
    if not holds:
        return set()
    is_held = holds_tombstone(holds, session)
    return {tombstone.number for tombstone in tombstones if is_held(tombstone)}


def _was_released(session: StoreSession, context: PassContext, holds: Sequence[LegalRecord]) -> bool:
    """Tell whether a person has let the store be served as it is since the newest of these was placed."""
    last = next(reversed(context.ledger.episodes(store=session.name)), None)
    if last is None or last.released_because is None or last.safe_at is None:
        return False
    return all(one.hold is None or one.hold.placed_at <= last.safe_at for one in holds)


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
    decided = (episode.decision_on,) if episode else ()
    matcher = match_restored_rows(session.fingerprints, *decided)
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
    # One transaction for fact and settling: a crash before it is made up for by `settle_committed`.
    context.ledger.append(
        _reerasure_facts(session, episode, outcome.entries, erased_at),
        moves=[MoveSettled(session.name, Head(move.move, move.digest))] if move else (),
    )
    return len(outcome.entries)


def _reerasure_facts(
    session: StoreSession, episode: RestoreEpisode | None, entries: Sequence[JournalEntry], at: datetime
) -> list[Fact]:
    if not entries:
        return []
    numbers = tuple(entry.of for entry in entries)
    name = episode.episode if episode else None
    facts: list[Fact] = [Reerased(session.name, name, at, entries[0].number, numbers)]
    if episode is not None:
        facts.append(
            Replayed(
                session.name,
                episode.episode,
                at,
                len(numbers),
                episode.left_alone,
                episode.unclear or 0,
                episode.unclear_keys,
            )
        )
    return facts
