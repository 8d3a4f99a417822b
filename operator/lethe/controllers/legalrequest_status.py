"""What is said of LegalRequests: status, events, metrics. Counsel sees it; the subject does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from lethe.api.status.legalrequest import legalrequest_status
from lethe.controllers.runtime.cache import LegalView, ObjectCache, ObjectKey
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.status_writer import StatusKind, StatusWriter, Written
from lethe.domain.conditions.legalrequest import LegalRequestObservation, legalrequest_conditions
from lethe.domain.legal import LegalRecord, NoticeState, notice_of
from lethe.domain.legal_facts import (
    HoldEnded,
    HoldPlaced,
    LegalDecided,
    LegalFact,
    LegalOutcome,
    LetterSettled,
    Reminded,
)
from lethe.domain.trust import BlockReason
from lethe.ports.cluster import Cluster, Event

OVERDUE = timedelta(hours=1)
"""How long after its moment a notice that has not gone is overdue."""


LEGAL_REQUESTS = StatusKind("legalrequests", "LegalRequest", essence=lambda status: status)


class LegalRequestStatus:
    """Says of legal requests what is new, as seldom as possible."""

    def __init__(
        self,
        cache: ObjectCache,
        cluster: Cluster,
        metrics: Metrics,
        statuses: StatusWriter,
        clock: Callable[[], datetime],
    ) -> None:
        self._cache, self._cluster, self._metrics = cache, cluster, metrics
        self._statuses, self._clock = statuses, clock

    async def write(self, key: ObjectKey) -> Written:
        """Write the status of one, if it says something new."""
        view = self._cache.legal.get(key)
        if view is None:
            return Written.GONE
        now = self._clock()
        observed = self._observe(view, self._cache.legal_records.get(key), now)
        if observed.record is None and observed.blocker is None and observed.trouble is None:
            return Written.SAME
        condition_set = legalrequest_conditions(observed)
        before, ready = view.shown.status, condition_set.ready
        status = legalrequest_status(
            observed.record, observed.notice, condition_set, before, generation=view.generation, now=now
        )
        written = await self._statuses.write(LEGAL_REQUESTS, key, view.shown, status)
        reason = next((c.get("reason") for c in before.get("conditions", ()) if c.get("type") == "Ready"), "")
        if written is Written.WRITTEN and ready.reason != reason and ready.reason in _WORTH_AN_EVENT:
            await self._cluster.record_event(Event(view.manifest, ready.reason, ready.message, warning=True))
        return written

    def _observe(self, view: LegalView, record: LegalRecord | None, now: datetime) -> LegalRequestObservation:
        reused = view.blocker is not None and view.blocker.reason is BlockReason.NAME_REUSED
        record = None if reused else record
        return LegalRequestObservation(
            record,
            notice_of(record, now) if record is not None else None,
            view.blocker,
            view.document_problem,
            view.waits,
            view.answer_waits,
            self._unknown_stores(record),
            next(iter(view.troubles.values()), None),
        )

    def _unknown_stores(self, record: LegalRecord | None) -> tuple[str, ...]:
        """Return the stores that a hold names and that do not exist."""
        if record is None or record.hold is None:
            return ()
        known = {managed.name for managed in self._cache.stores_of(record.registered.namespace)}
        return tuple(name.rpartition("/")[2] for name in record.hold.stores if name not in known)

    async def record_events(self, record: LegalRecord, facts: Sequence[LegalFact]) -> None:
        """Write events for what a person would want to see."""
        view = self._cache.legal.get(record.key)
        if view is None:
            return
        for fact in facts:
            event = _event_of(fact)
            if event is not None:
                reason, message, warning = event
                await self._cluster.record_event(Event(view.manifest, reason, message, warning))

    def measure(self) -> None:
        """Refresh the gauges."""
        now = self._clock()
        states: Counter[NoticeState] = Counter()
        overdue = endless = holding = 0
        for record in self._cache.legal_records.values():
            notice = notice_of(record, now)
            states[notice.state] += 1
            holding += record.holding
            endless += notice.state is NoticeState.DEFERRED and notice.due_at is None
            due = notice.due_at
            overdue += notice.state is NoticeState.PENDING and due is not None and now - due > OVERDUE
        for state in NoticeState:
            self._metrics.notices.labels(state.value).set(states[state])
        self._metrics.notices_overdue.set(overdue)
        self._metrics.notices_without_end.set(endless)
        self._metrics.legal_holds.set(holding)


_WORTH_AN_EVENT = frozenset(
    {"SubjectUnknown", "NoticeUndeliverable", "DocumentMissing", "SecretMissing", "NameReused"}
)


def _event_of(fact: LegalFact) -> tuple[str, str, bool] | None:
    """Return the event for a fact: reason, message, and whether it is a warning."""
    match fact:
        case LegalDecided(outcome=outcome):
            return outcome.value, _DECISIONS[outcome], False
        case HoldPlaced():
            return "HoldPlaced", "the subject's data is preserved", False
        case HoldEnded(because=because):
            return "HoldEnded", because, False
        case LetterSettled(to=to, delivered=delivered, answer=answer):
            return f"{to.value}Notified" if delivered else "NoticeUndeliverable", answer, not delivered
        case Reminded():
            message = (
                "the order that forbids to tell the user names no day: is it still in force? If not, set "
                "spec.nonDisclosure.lifted"
            )
            return "NoticeStillDeferred", message, True
        case _:
            return None


_DECISIONS = {
    LegalOutcome.REJECTED: "no court order: rejected, and nothing is disclosed",
    LegalOutcome.AWAITING_REVIEW: "counsel decides",
    LegalOutcome.COMPLIED: "counsel decided to comply; software hands nothing over",
    LegalOutcome.REFUSED: "counsel refused",
}
