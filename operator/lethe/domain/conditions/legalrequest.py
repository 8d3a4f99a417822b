"""Where a LegalRequest stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from lethe.domain.conditions.base import FALSE, TRUE, UNKNOWN, Condition, ConditionSet, with_progress
from lethe.domain.legal import LegalRecord, NoticeSight, NoticeState
from lethe.domain.legal_facts import Addressee, LegalKind, LegalOutcome
from lethe.domain.periods import instant
from lethe.domain.trouble import Trouble
from lethe.domain.trust import Blocker, BlockReason


@dataclass(frozen=True, slots=True)
class LegalRequestObservation:
    """What is known of a legal request now.

    `blocker` is what registering ran into, `document_problem` why the order's document could not be read.
    `waits` says why a notice that is due is not sent yet, `answer_waits` why the authority has no answer.
    `unknown_stores` are those that the hold names and that do not exist. `trouble` is where Lethe itself
    failed.
    """

    record: LegalRecord | None
    notice: NoticeSight | None = None
    blocker: Blocker | None = None
    document_problem: str | None = None
    waits: str | None = None
    answer_waits: str | None = None
    unknown_stores: tuple[str, ...] = ()
    trouble: Trouble | None = None


def legalrequest_conditions(observed: LegalRequestObservation) -> ConditionSet:
    """Say where a LegalRequest stands."""
    record = observed.record
    claimed = observed.blocker is None or observed.blocker.reason is not BlockReason.NAME_REUSED
    if record is None or observed.notice is None or not claimed:
        why = observed.blocker if observed.blocker and not claimed else observed.trouble or observed.blocker
        reason = why.reason if why else BlockReason.PENDING
        message = why.message if why else "not registered yet"
        ready = Condition("Ready", FALSE, reason.value, message)
        stalled = not claimed
        return ConditionSet(
            None,
            (
                *with_progress(ready, stalled=stalled, working=not stalled),
                Condition("Decided", UNKNOWN, "Pending", message),
                Condition("UserInformed", UNKNOWN, "Pending", message),
                Condition("Holding", UNKNOWN, "Pending", message),
            ),
        )
    return ConditionSet(
        None,
        (
            *_ready(observed, record, observed.notice),
            _decided(record),
            _informed(observed, record),
            _holding(observed, record),
        ),
    )


def _ready(  # noqa: PLR0911 - one return for each way to stand
    observed: LegalRequestObservation, record: LegalRecord, notice: NoticeSight
) -> tuple[Condition, ...]:
    if observed.trouble is not None:
        ready = Condition("Ready", FALSE, observed.trouble.reason.value, observed.trouble.message)
        return with_progress(ready, working=True)
    at = record.registered.at
    unknown = record.resolved_at is not None and not record.subject_known and not record.address_kept
    if unknown and not record.notified:
        message = (
            "the Primary knows nobody of that key or address, or was restored since the request was "
            "received, so that the key may be somebody else's; nobody is told on a guess. Look for a typing "
            "error, and apply another LegalRequest that names the subject by e-mail address"
        )
        return with_progress(Condition("Ready", FALSE, "SubjectUnknown", message))
    if notice.state is NoticeState.UNDELIVERABLE:
        message = f"the user could not be told: {_tried(notice)}"
        return with_progress(Condition("Ready", FALSE, "NoticeUndeliverable", message), stalled=True)
    if observed.document_problem is not None and record.document is None:
        message = f"the document of the court order is missing: {observed.document_problem}"
        return with_progress(Condition("Ready", FALSE, "DocumentMissing", message))
    if observed.blocker is not None:
        ready = Condition("Ready", FALSE, observed.blocker.reason.value, observed.blocker.message)
        return with_progress(ready, working=True)
    if notice.state is NoticeState.PENDING:
        message = f"the user is not told yet: {observed.waits or 'the notice is about to be sent'}"
        return with_progress(Condition("Ready", FALSE, "NoticePending", message), working=True)
    if observed.answer_waits is not None and not record.answered:
        message = f"the authority has no answer yet: {observed.answer_waits}"
        return with_progress(Condition("Ready", FALSE, "AnswerPending", message), working=True)
    message = "the user was told" if notice.state is NoticeState.SENT else _deferred(notice)
    return (Condition("Ready", TRUE, "Registered", f"recorded; {message}", at),)


def _decided(record: LegalRecord) -> Condition:
    decided = record.decided
    if decided is None:
        return Condition("Decided", UNKNOWN, "Pending", "not decided yet")
    match decided.outcome:
        case LegalOutcome.REJECTED:
            message = "no court order: rejected, and nothing is disclosed"
        case LegalOutcome.AWAITING_REVIEW:
            message = "counsel decides: set spec.review, which takes the verb review; nothing was disclosed"
            return Condition("Decided", FALSE, decided.outcome.value, message, decided.at)
        case LegalOutcome.COMPLIED:
            message = "counsel decided to comply; software hands nothing over"
        case LegalOutcome.REFUSED:
            message = "counsel refused"
        case _:
            assert_never(decided.outcome)
    return Condition("Decided", TRUE, decided.outcome.value, message, decided.at)


def _informed(observed: LegalRequestObservation, record: LegalRecord) -> Condition:
    notice = observed.notice or NoticeSight(NoticeState.PENDING, None)
    settled = notice.letter.settled if notice.letter else None
    match notice.state:
        case NoticeState.SENT:
            since = settled.at if settled else None
            return Condition("UserInformed", TRUE, "Sent", "the user was told", since)
        case NoticeState.DEFERRED:
            return Condition("UserInformed", FALSE, "Deferred", _deferred(notice))
        case NoticeState.UNDELIVERABLE:
            message = _tried(notice) if record.notified else "the Primary knows nobody of that key or address"
            return Condition("UserInformed", FALSE, "Undeliverable", message)
        case NoticeState.PENDING:
            return Condition(
                "UserInformed", FALSE, "Pending", observed.waits or "the notice is about to be sent"
            )
        case _:
            assert_never(notice.state)


def _deferred(notice: NoticeSight) -> str:
    if notice.due_at is None:
        return "the user is told once a person sets spec.nonDisclosure.lifted: the order names no day"
    return f"the user is told at {instant(notice.due_at)}"


def _tried(notice: NoticeSight) -> str:
    settled = notice.letter.settled if notice.letter else None
    if settled is None:
        return "nobody is known to whom a notice could go"
    return settled.answer or "the notice was refused"


def _holding(observed: LegalRequestObservation, record: LegalRecord) -> Condition:
    hold = record.hold
    if hold is None:
        message = "nothing is preserved"
        if record.registered.kind is LegalKind.PRESERVATION:
            message = "the preservation was lifted before it began"
            return Condition("Holding", FALSE, "Lifted", message)
        return Condition("Holding", FALSE, "NoPreservation", message)
    if hold.ended is not None:
        return Condition("Holding", FALSE, "Lifted", hold.ended.because, hold.ended.at)
    where = ", ".join(name.rpartition("/")[2] for name in hold.stores) or "all stores"
    if hold.effective_at is None:
        message = f"waits for what had begun before in {where}"
        if record.resolved_at is None:
            message = "waits for the Primary, which has not been asked yet who the subject is"
        elif observed.unknown_stores:
            message = (
                f"there is no DataStore {', '.join(observed.unknown_stores)} in this namespace; apply it, or "
                "set spec.preservation.stores to [] to hold the subject in all stores"
            )
        return Condition("Holding", FALSE, "Placing", message, hold.placed_at)
    until = f"until {instant(hold.until)}" if hold.until else "until a person lifts it"
    message = f"nothing of the subject is erased from {where}, and no snapshot of them pruned, {until}"
    if not record.subject_known and not record.address_kept:
        message += "; but the Primary knows nobody of that key or address"
    return Condition("Holding", TRUE, "Preserved", message, hold.effective_at)


def answer_of(record: LegalRecord) -> tuple[str, str | None, datetime | None, str | None] | None:
    """Return what the status says of the answer to the authority: state, Secret, instant, Message-ID."""
    letter = record.letters.get(Addressee.AUTHORITY)
    if letter is None or letter.settled is None:
        return None
    settled, intended = letter.settled, letter.intended
    if not settled.delivered:
        return "Undeliverable", None, None, intended.message_id or None
    if settled.channel == "secret":
        return "Drafted", settled.answer, None, None
    return "Sent", None, settled.at, intended.message_id
