"""From where things stand to the status that the API server keeps: plain JSON, times in UTC seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lethe.domain.conditions import Condition, ConditionSet, ConditionStatus, rows_told, with_progress
from lethe.domain.legal import LegalRecord, NoticeSight, NoticeState
from lethe.domain.legal_conditions import answer_of
from lethe.domain.periods import Period, instant
from lethe.domain.requests import RequestRecord, StoreState
from lethe.domain.restores import RestoreEpisode
from lethe.domain.snapshots import SnapshotRecord
from lethe.domain.trouble import Trouble
from lethe.domain.trust import Blocker, BlockReason

MAX_ENTRIES = 64
MAX_NAMES = 16
MAX_MESSAGE = 4000


def rendered_conditions(
    condition_set: ConditionSet, previous: Mapping[str, Any], *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Return the conditions; one whose status has not changed keeps its time."""
    before = {c.get("type"): c for c in previous.get("conditions", ())}
    return [_rendered(c, before.get(c.type), generation, now) for c in condition_set.conditions]


def _rendered(
    condition: Condition, before: Mapping[str, Any] | None, generation: int, now: datetime
) -> dict[str, Any]:
    kept = before is not None and before.get("status") == condition.status.value
    since = before.get("lastTransitionTime") if kept and before else None
    if condition.since is not None:
        since = instant(condition.since)
    return {
        "type": condition.type,
        "status": condition.status.value,
        "reason": condition.reason,
        "message": condition.message[:MAX_MESSAGE],
        "observedGeneration": generation,
        "lastTransitionTime": since or instant(now),
    }


def troubled_status(
    trouble: Trouble, previous: Mapping[str, Any], *, generation: int, now: datetime
) -> dict[str, Any]:
    """Return the status of an object over which Lethe failed; all else stays as it was said before."""
    ready = Condition("Ready", ConditionStatus.FALSE, trouble.reason.value, trouble.message)
    progress = with_progress(ready, working=True)
    said = rendered_conditions(ConditionSet(None, progress), previous, generation=generation, now=now)
    replaced = ("Ready", "Reconciling", "Stalled")
    kept = [one for one in previous.get("conditions", ()) if one.get("type") not in replaced]
    return {**previous, "observedGeneration": generation, "conditions": [*said, *kept]}


def request_status(
    record: RequestRecord | None,
    condition_set: ConditionSet,
    blockers: Mapping[str, Blocker],
    attempts: Mapping[str, int],
    previous: Mapping[str, Any],
    *,
    generation: int,
    now: datetime,
    last_copy_gone_at: datetime | None = None,
) -> dict[str, Any]:
    """Return the status of a DeletionRequest. `blockers` and `attempts` are by store."""
    status: dict[str, Any] = {
        "state": condition_set.state,
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, previous, generation=generation, now=now),
    }
    if record is None:
        return status
    status["acceptedAt"] = instant(record.accepted.accepted_at)
    status["dueAt"] = instant(record.accepted.due_at)
    if record.completed_at is not None and condition_set.state in ("Erased", "Purged"):
        status["erasedAt"] = instant(record.completed_at)
    names = sorted({*record.stores, *blockers})[:MAX_ENTRIES]
    status["stores"] = [
        _store_entry(record, name, blockers.get(name), attempts.get(name, 0)) for name in names
    ]
    if last_copy_gone_at is not None:
        status["backups"] = {"lastCopyGoneAt": instant(last_copy_gone_at)}
    status["ledger"] = {"sequence": record.sequence, "digest": record.digest}
    return status


_SHOWN_OBSTACLES: Mapping[BlockReason, str] = {
    BlockReason.STORE_UNREACHABLE: "Unreachable",
    BlockReason.VALUE_REFUSED: "Refused",
    BlockReason.HELD: "Held",
    BlockReason.FIND_UNTRUSTED: "Finding",
    BlockReason.SHARED_RECORD: "Finding",
    BlockReason.KEY_ABOVE_RESTORE: "Finding",
}


def _store_entry(record: RequestRecord, name: str, blocker: Blocker | None, attempts: int) -> dict[str, Any]:
    progress = record.progress(name)
    shown = "Erasing" if progress.state is StoreState.INTENDED else progress.state.value
    entry: dict[str, Any] = {"name": name.rpartition("/")[2], "state": shown}
    if progress.state.settled:
        if progress.counts:
            entry["erased"] = dict(rows_told(progress.counts))
        if progress.at is not None and progress.state is StoreState.VERIFIED:
            entry["erasedAt"] = instant(progress.at)
        if progress.proof is not None:
            entry["message"] = f"proof: {progress.proof}"
        return entry
    if blocker is not None and blocker.reason is not BlockReason.PENDING:
        entry["state"] = _SHOWN_OBSTACLES.get(blocker.reason, shown)
        entry["reason"] = blocker.reason.value
        entry["message"] = blocker.message[:500]
        entry["attempts"] = attempts
    return entry


def restore_status(
    episode: RestoreEpisode | None,
    condition_set: ConditionSet,
    previous: Mapping[str, Any],
    *,
    generation: int,
    now: datetime,
    origin: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the status of a RestoreEvent. `origin` is what the store was restored from."""
    status: dict[str, Any] = {
        "state": condition_set.state,
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, previous, generation=generation, now=now),
    }
    if origin is not None:
        status["restoredFrom"] = origin
    if episode is None:
        return status
    status["detectedBy"] = episode.detected_by.value
    replay: dict[str, Any] = {
        "missing": episode.missing,
        "reErased": episode.re_erased,
        "leftAlone": episode.left_alone,
        "unclear": episode.unclear or 0,
    }
    if episode.missing_since is not None:
        replay["missingSince"] = instant(episode.missing_since)
    status["replay"] = replay
    if episode.unclear_keys and episode.open:
        status["unclear"] = [
            {"table": table, "key": key} for table, key in dict.fromkeys(episode.unclear_keys[:MAX_ENTRIES])
        ]
    if episode.safe_at is not None:
        status["safeToServeAt"] = instant(episode.safe_at)
    return status


def store_status(
    condition_set: ConditionSet,
    previous: Mapping[str, Any],
    *,
    generation: int,
    now: datetime,
    seen_at: datetime | None,
    swept_at: datetime | None,
    applied: int,
    missing: int,
    journal_number: int,
    lookalikes: Sequence[str],
) -> dict[str, Any]:
    """Return the status of a DataStore."""
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, previous, generation=generation, now=now),
        "erasures": {"applied": applied, "missing": missing},
        "journal": {"number": journal_number},
    }
    if seen_at is not None:
        status["lastSeenAt"] = instant(seen_at)
    if swept_at is not None:
        status["lastSweptAt"] = instant(swept_at)
    if lookalikes:
        status["unmapped"] = list(lookalikes[:MAX_ENTRIES])
    return status


def snapshot_status(
    record: SnapshotRecord, condition_set: ConditionSet, retention: Period, *, generation: int
) -> dict[str, Any]:
    """Return the status of a BackupSnapshot: a function of what is known, so that equal means unchanged.

    What is not so is given as null, for a merge patch.
    """
    return {
        "state": condition_set.state,
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, {}, generation=generation, now=record.first_seen_at),
        "expiresAt": instant(record.expires_at(retention)),
        "deletedAt": instant(record.deleted_at) if record.deleted_at else None,
        "purgedAt": instant(record.purged_at) if record.purged_at else None,
    }


def unowned_status(condition_set: ConditionSet, *, generation: int, since: datetime) -> dict[str, Any]:
    """Return the status of a BackupSnapshot that Lethe knows nothing of; for a merge patch."""
    return {
        "state": condition_set.state,
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, {}, generation=generation, now=since),
        **dict.fromkeys(("expiresAt", "deletedAt", "purgedAt")),
    }


def source_status(
    condition_set: ConditionSet,
    previous: Mapping[str, Any],
    *,
    generation: int,
    now: datetime,
    counts: Mapping[str, int] | None,
    oldest: datetime | None,
    scanned_at: datetime | None,
    next_: tuple[str, datetime] | None,
    unparsable: Sequence[str],
    partial: Sequence[str],
) -> dict[str, Any]:
    """Return the status of a BackupSource. `next_` is the ref that goes next, and when."""
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, previous, generation=generation, now=now),
    }
    if counts is not None:
        status["snapshots"] = dict(counts)
    if oldest is not None:
        status["oldestTakenAt"] = instant(oldest)
    if scanned_at is not None:
        status["lastScanAt"] = instant(scanned_at)
    if next_ is not None:
        status["next"] = {"ref": next_[0], "at": instant(next_[1])}
    for name, names in (("unparsable", unparsable), ("partial", partial)):
        if names:
            status[name] = [text[:1024] for text in sorted(names)[:MAX_NAMES]]
    return status


def legal_status(
    record: LegalRecord | None,
    notice: NoticeSight | None,
    condition_set: ConditionSet,
    previous: Mapping[str, Any],
    *,
    generation: int,
    now: datetime,
) -> dict[str, Any]:
    """Return the status of a LegalRequest."""
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, previous, generation=generation, now=now),
    }
    if record is None or notice is None:
        return status
    if record.decided is not None:
        decided = record.decided
        status["decision"] = {
            "outcome": decided.outcome.value,
            "reason": decided.reason,
            "decidedAt": instant(decided.at),
        }
    status["notice"] = _notice_entry(notice)
    answer = answer_of(record)
    if answer is not None:
        state, secret, sent_at, message_id = answer
        shown = {
            "state": state,
            "secret": secret,
            "sentAt": instant(sent_at) if sent_at else None,
            "messageId": f"<{message_id}>" if message_id else None,
        }
        status["answer"] = {name: value for name, value in shown.items() if value is not None}
    if record.document is not None:
        status["document"] = {"digest": record.document}
    if record.hold is not None and record.hold.active:
        hold = record.hold
        status["hold"] = {"stores": [name.rpartition("/")[2] for name in hold.stores]}
        if hold.effective_at is not None:
            status["hold"]["since"] = instant(hold.effective_at)
        if hold.until is not None:
            status["hold"]["until"] = instant(hold.until)
    status["ledger"] = {"sequence": record.sequence, "digest": record.digest}
    return status


def _notice_entry(notice: NoticeSight) -> dict[str, Any]:
    entry: dict[str, Any] = {"state": notice.state.value}
    if notice.due_at is not None:
        entry["dueAt"] = instant(notice.due_at)
    letter = notice.letter
    if letter is not None and notice.state is not NoticeState.DEFERRED:
        if letter.intended.message_id:
            entry["messageId"] = f"<{letter.intended.message_id}>"
        if letter.settled is not None and letter.settled.delivered:
            entry["sentAt"] = instant(letter.settled.at)
    return entry


def replacing(status: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a status as a merge patch: what is no longer said is removed by null."""
    patch: dict[str, Any] = dict.fromkeys(before)
    for name, value in status.items():
        known = before.get(name)
        both = isinstance(value, Mapping) and isinstance(known, Mapping)
        patch[name] = replacing(value, known or {}) if both else value
    return patch


def differs(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two statuses say something different, apart from what moves with every look and erasure.

    How many erasures a store holds is shown when something else is written anyway: a write for each
    would cost as much as the requests themselves.
    """
    return _without_counters(one) != _without_counters(other)


_MOVING = frozenset({"lastSeenAt", "lastSweptAt", "lastScanAt", "journal", "erasures"})


def _without_counters(status: Mapping[str, Any]) -> dict[str, Any]:
    shown = {k: v for k, v in status.items() if k not in _MOVING}
    missing = (status.get("erasures") or {}).get("missing", 0)
    return {**shown, "missing": missing}
