"""The status of a LegalRequest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lethe.api.status.base import rendered_conditions
from lethe.domain.conditions.base import ConditionSet
from lethe.domain.conditions.legalrequest import answer_of
from lethe.domain.legal import LegalRecord, NoticeSight, NoticeState
from lethe.domain.periods import instant


def legalrequest_status(
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
