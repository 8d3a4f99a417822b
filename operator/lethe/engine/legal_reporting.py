"""What is told of legal requests: status, events, metrics. Counsel sees it; the subject does not."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from lethe.api.status.base import differs, replacing
from lethe.api.status.legalrequest import legalrequest_status
from lethe.controllers.runtime.cache import LegalView, ObjectCache
from lethe.controllers.runtime.metrics import Metrics
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
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable, Event

log = logging.getLogger("lethe.legal")

OVERDUE = timedelta(hours=1)
"""How long after its moment a notice that has not gone is overdue."""


class LegalReporting:
    """Tells of legal requests, as seldom as possible."""

    def __init__(
        self, cache: ObjectCache, cluster: Cluster, metrics: Metrics, clock: Callable[[], datetime]
    ) -> None:
        self._cache, self._cluster, self._metrics, self._clock = cache, cluster, metrics, clock

    async def report(self, records: Iterable[LegalRecord]) -> None:
        """Write the statuses that say something new."""
        known = {record.key: record for record in records}
        for key, view in list(self._cache.legal.items()):
            record = known.get(key)
            if record is not None or view.blocker is not None:
                await self._write(key, view, record)

    async def _write(self, key: tuple[str, str], view: LegalView, record: LegalRecord | None) -> None:
        now = self._clock()
        reused = view.blocker is not None and view.blocker.reason is BlockReason.NAME_REUSED
        shown = None if reused else record
        notice = notice_of(shown, now) if shown is not None else None
        observed = LegalRequestObservation(
            shown,
            notice,
            view.blocker,
            view.document_problem,
            view.waits,
            view.answer_waits,
            self._unknown_stores(shown),
        )
        follows_from = (view.generation, observed)
        if follows_from == view.shown:
            return
        condition_set = legalrequest_conditions(observed)
        status = legalrequest_status(
            shown, notice, condition_set, view.status, generation=view.generation, now=now
        )
        if not differs(status, view.status):
            view.shown = follows_from
            return
        self._metrics.api_writes.labels("status").inc()
        try:
            written = await self._cluster.write_status(
                "legalrequests", *key, uid=view.uid, status=replacing(status, view.status)
            )
        except (ClusterUnavailable, ClusterRefused) as away:
            log.warning("status of a LegalRequest waits: %s", away)
            return
        if not written:
            return
        before, view.status, view.shown = view.status, status, follows_from
        reason = next((c.get("reason") for c in before.get("conditions", ()) if c.get("type") == "Ready"), "")
        ready = condition_set.ready
        if ready.reason != reason and ready.reason in _WORTH_AN_EVENT:
            await self._cluster.record_event(Event(view.manifest, ready.reason, ready.message, warning=True))

    def _unknown_stores(self, record: LegalRecord | None) -> tuple[str, ...]:
        """Return the stores that a hold names and that do not exist."""
        if record is None or record.hold is None:
            return ()
        known = {managed.name for managed in self._cache.stores_of(record.registered.namespace)}
        return tuple(name.rpartition("/")[2] for name in record.hold.stores if name not in known)

    async def tell(self, record: LegalRecord, facts: Sequence[LegalFact]) -> None:
        """Write events for what a person would want to see."""
        view = self._cache.legal.get(record.key)
        if view is None:
            return
        for fact in facts:
            event = _event_of(fact)
            if event is not None:
                reason, message, warning = event
                await self._cluster.record_event(Event(view.manifest, reason, message, warning))

    def measure(self, records: Iterable[LegalRecord]) -> None:
        """Refresh the gauges."""
        now = self._clock()
        states: Counter[NoticeState] = Counter()
        overdue = endless = holding = 0
        for record in records:
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


def letters_settled_since(before: LegalRecord, record: LegalRecord) -> list[LegalFact]:
    """Return what came of letters between two looks at a legal request, and whether a person was reminded."""
    facts: list[LegalFact] = []
    for to, letter in record.letters.items():
        known = before.letters.get(to)
        if letter.settled is not None and (known is None or known.settled != letter.settled):
            facts.append(letter.settled)
    if record.reminded_at is not None and record.reminded_at != before.reminded_at:
        facts.append(Reminded(record.legal, record.reminded_at))
    return facts
