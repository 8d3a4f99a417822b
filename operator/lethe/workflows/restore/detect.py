"""Looking at a store every few seconds: has it gone back in time, and is what was erased still erased?

From exact to thorough: the journal's head, the identity of server and tables, a probe of the newest and of
random erasures, and the sweep over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from lethe.domain.chunks import chunked
from lethe.domain.facts import DetectedBy, Released
from lethe.domain.journal import HeadFinding, compare
from lethe.domain.legal import Holds, LegalRecord
from lethe.domain.snapshots import CLOCK_SKEW
from lethe.domain.tombstones import Identity, RestoredRows, Tombstone
from lethe.ports.ledger import MoveLost
from lethe.ports.stores import HeadMoved, Residue
from lethe.workflows.journal_head import tick
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.episode import (
    detected_by,
    judge_restored_rows,
    open_episode,
    standing_release,
)
from lethe.workflows.restore.re_erase import held_numbers, re_erase, settle_committed
from lethe.workflows.restore.replay import number_left
from lethe.workflows.store_session import StoreSession

PROBE_NEWEST = 1000
PROBE_RANDOM = 1000

WRITE_BACK_LIMIT = 100
"""More erased people than this, back at once in a store whose head and identity are intact, are treated
as a restore that went around the journal; fewer are a stale session or a sync that wrote them back."""


BATCH = 5_000
"""How many are erased again in one transaction while the store is served."""


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
    session.note_observed(asked_at, observed)
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
            open_episode(session, context, detected_by(finding), observed=observed)
            return Detection.RESTORED


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
    _note_what_is_left(session, context, holds, residue, done)
    # Not before: what this sweep has found may have been so since the one before it.
    session.note_swept(began_at, residue.absent)
    return done


def _note_what_is_left(
    session: StoreSession, context: PassContext, holds: Holds, residue: Residue, done: RecheckResult
) -> None:
    """Record how many erased persons a store still holds that is served because a person says so."""
    release = standing_release(session, context)
    if release is None or release.released_because is None or release.safe_at is None:
        return
    left = number_left(session, context, holds, residue, erased=done.re_erased)
    if left != release.left:
        context.ledger.append(
            [
                Released(
                    release.store,
                    release.episode,
                    release.safe_at,
                    release.released_because,
                    release.released_by,
                    left,
                    context.clock() if left == 0 else None,
                    release.released_uid,
                    release.released_who,
                )
            ]
        )


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
    release = standing_release(session, context)
    # What a person has let be served is no new restore, until the next one that journal or identity show.
    known = 0 if release is None else inf if release.left is None else release.left
    came = release is None and _predates_its_erasure(session, context, residue, tombstones)
    if came or len(wanted) > WRITE_BACK_LIMIT + known or unclear > known:
        open_episode(session, context, by)
        return RecheckResult(0, residue.left_alone, unclear)
    if not wanted:
        return RecheckResult(0, residue.left_alone, unclear)
    back = [t for t in tombstones if t.number in wanted]
    again = sum(
        re_erase(session, context, some, episode=None, exclusive=False) for some in chunked(back, BATCH)
    )
    session.note_written_back(((one.table, one.key) for one in back), context.clock())
    left = session.port.check(chunked(back, BATCH), _matcher_between_restores(session, context))
    if not left.uncleared:
        session.unblock(session.name)
    elif release is None and session.is_undone(session.name):
        open_episode(
            session, context, by
        )  # else the gate would stay open for ever; the RestoreEvent says why
    return RecheckResult(again, residue.left_alone, unclear)


def _predates_its_erasure(
    session: StoreSession, context: PassContext, residue: Residue, tombstones: Sequence[Tombstone]
) -> bool:
    """Tell whether somebody's record was last changed before it was erased: nobody wrote that back."""
    told = [one for one in tombstones if one.number in residue.changed_at]
    records = context.ledger.requests_by_id({one.request for one in told})
    dates = [(residue.changed_at[one.number], records.get(one.request)) for one in told]
    erased = [(changed, record.progress(session.name).at) for changed, record in dates if record is not None]
    return any(at is not None and changed + CLOCK_SKEW < at for changed, at in erased)


def _matcher_between_restores(session: StoreSession, context: PassContext) -> RestoredRows:
    """Return the judge of probe and sweep: who was left alone after the last restore is so until the next.

    A decision to erase was carried out; what stands under that key since is another question.
    """
    last = next(reversed(context.ledger.episodes(store=session.name)), None)

    def left_alone(table: str, key: str) -> Identity | None:
        decided = last.decision_on(table, key) if last else None
        return decided if decided is Identity.OTHER else None

    return judge_restored_rows(session, context, left_alone)


def _was_released(session: StoreSession, context: PassContext, holds: Sequence[LegalRecord]) -> bool:
    """Tell whether a person has let the store be served as it is since the newest of these was placed."""
    last = standing_release(session, context)
    if last is None or last.safe_at is None:
        return False
    return all(one.hold is None or one.hold.placed_at <= last.safe_at for one in holds)
