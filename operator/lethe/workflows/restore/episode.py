"""One restore of a store, from its detection to what persons say about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import count

from lethe.domain.facts import DetectedBy, IdentitiesDecided, RestoreDetected, RestoreExplained, Superseded
from lethe.domain.journal import HeadFinding, JournalObservation, changed_tables, compare
from lethe.domain.restores import Release, RestoreEpisode, given_out_again, rejoined
from lethe.domain.tombstones import Identity, RestoredRows, match_restored_rows
from lethe.ports.stores import StoreError
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import StoreSession


def open_episode_of(session: StoreSession, context: PassContext) -> RestoreEpisode | None:
    """Return the restore of a store that has not been dealt with; there is at most one."""
    return next(iter(context.ledger.episodes(store=session.name, open_only=True)), None)


def _just_recorded(session: StoreSession, context: PassContext) -> RestoreEpisode:
    return next(iter(context.ledger.episodes(store=session.name, open_only=True)))


def detected_by(finding: HeadFinding) -> DetectedBy:
    """Return what told of a restore that a comparison of head and identity has shown."""
    return DetectedBy.TABLE_IDENTITY if finding is HeadFinding.IDENTITY_CHANGED else DetectedBy.JOURNAL


def open_episode(
    session: StoreSession,
    context: PassContext,
    by: DetectedBy,
    *,
    observed: JournalObservation | None = None,
    missing_since: datetime | None = None,
) -> RestoreEpisode:
    """Record that a store went back in time, with the erasures that its journal says are missing.

    `missing_since` is when it was last seen in step, where the caller knows better than the ledger. While an
    episode is open, a further restore belongs to it.
    """
    already = open_episode_of(session, context)
    if already is not None:
        return already
    missing = _missing_at_first_sight(session, context, observed) if observed is not None else 0
    # Only a rewound head tells when that was; one that stayed in step tells nothing of it.
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
                missing_since=missing_since or _last_seen_clean(session, context, by),
                back_to=head.at if head else None,
                whole=_is_whole(session, context, observed),
            )
        ]
    )
    session.note_restored()
    return _just_recorded(session, context)


def _is_whole(session: StoreSession, context: PassContext, observed: JournalObservation | None) -> bool:
    """Tell whether the tables went back with the head, and so to where it says.

    Made or filled anew since they were known, they may have gone back further alone, and no look needs to
    have seen the one before the other.
    """
    known = context.ledger.known_head(session.name).identity
    return observed is None or known is None or not changed_tables(known, observed.identity)


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
    by, head = episode.detected_by, None
    if compare(context.ledger.known_head(session.name), observed) is HeadFinding.REWOUND:
        # Also where something else told of it first; and not where the replay has moved the head on already:
        # that is of now, and tells nothing of the copy.
        by, head = DetectedBy.JOURNAL, observed.head
    positions = dict(head.positions if head else episode.positions)
    back_to = head.at if head else episode.back_to
    whole = episode.whole and _is_whole(session, context, observed)
    noted = episode.missing, dict(episode.positions), episode.whole, episode.detected_by, episode.back_to
    as_noted = (missing, positions, whole, by, back_to) == noted
    if as_noted or (episode.replayed_once and missing <= episode.missing):
        return episode
    context.ledger.append(
        [
            RestoreDetected(
                session.name,
                episode.episode,
                context.clock(),
                by,
                positions,
                missing,
                back_to=back_to,
                whole=whole,
            )
        ]
    )
    return _just_recorded(session, context)


def supersede(
    session: StoreSession,
    episode: RestoreEpisode,
    context: PassContext,
    by: DetectedBy,
    *,
    observed: JournalObservation,
) -> RestoreEpisode:
    """Begin a new episode: the store went back once more before this restore had been dealt with.

    What a person decided about the rows of the one says nothing about those of the other.
    """
    detected_at = context.clock()
    name = _name_of_episode(session, context, detected_at)
    head = observed.head if by is DetectedBy.JOURNAL else None
    missing = len(missing_numbers(session, context))
    context.ledger.append(
        [
            Superseded(session.name, episode.episode, detected_at, name),
            RestoreDetected(
                session.name,
                name,
                detected_at,
                by,
                dict(head.positions) if head else {},
                missing,
                missing_since=episode.missing_since,
                back_to=head.at if head else None,
                whole=_is_whole(session, context, observed),
            ),
        ]
    )
    return _just_recorded(session, context)


def explain(
    episode: RestoreEpisode,
    context: PassContext,
    *,
    event: str,
    reason: str,
    released_ahead: bool = False,
) -> bool:
    """Record the reason that a RestoreEvent gives for a restore; tell whether it is new."""
    if episode.events.get(event) == reason:
        return False
    ahead = released_ahead and event not in episode.events
    context.ledger.append([RestoreExplained(episode.store, episode.episode, event, reason, ahead)])
    return True


def release_of(episode: RestoreEpisode, releases: Mapping[str, Release]) -> tuple[str, Release] | None:
    """Return the RestoreEvent that lets the store be served, and its word; `releases` are those of all.

    One that was written before this restore was seen was meant for another, or for none. One that breaks the
    glass comes first.
    """
    written_for = (event for event in episode.events if event not in episode.released_ahead)
    said = [(event, releases[event]) for event in written_for if event in releases]
    return next((one for one in said if one[1].uid), next(iter(said), None))


def judge_restored_rows(
    session: StoreSession, context: PassContext, decided: Callable[[str, str], Identity | None]
) -> RestoredRows:
    """Return the judge of whose rows are that stand under erased keys; `decided` is what persons said."""
    episodes = context.ledger.episodes(store=session.name)
    moments = {number: at for number, (_, at) in context.ledger.rejoined(session.name).items()}
    return match_restored_rows(
        session.fingerprints, decided, given_out_again(episodes), rejoined(moments, episodes)
    )


def standing_release(session: StoreSession, context: PassContext) -> RestoreEpisode | None:
    """Return the restore after which a person let the store be served: until it goes back once more."""
    last = next(reversed(context.ledger.episodes(store=session.name)), None)
    return last if last is not None and not last.open and last.released_because is not None else None


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
