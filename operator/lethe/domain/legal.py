"""A legal request as the ledger knows it: what was decided, what is held, who was told, and when to tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import assert_never
from zoneinfo import ZoneInfo

from lethe.domain.legal_facts import (
    Addressee,
    AddressKept,
    CourtOrderGiven,
    DocumentSeen,
    HoldEnded,
    HoldPlaced,
    HoldTookEffect,
    LegalDecided,
    LegalFact,
    LegalKind,
    LegalOutcome,
    LegalRegistered,
    LetterIntended,
    LetterSettled,
    NonDisclosureOrdered,
    Reminded,
    SubjectResolved,
)
from lethe.domain.requests import IllegalTransition

NO_COURT_ORDER = "NoCourtOrder"
REVIEWED = "Reviewed"
COURT_ORDER = "CourtOrder"
PRESERVATION = "Preservation"


class NoticeState(StrEnum):
    """Whether the user was told."""

    PENDING = "Pending"
    SENT = "Sent"
    DEFERRED = "Deferred"
    UNDELIVERABLE = "Undeliverable"


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter to one addressee, from the intent on; `settled` says what came of it, once that is known."""

    intended: LetterIntended
    settled: LetterSettled | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """What of the subject is preserved. `ended` is when and why it was let go, `effective_at` since when
    nothing can erase it any more, not even what had begun before."""

    stores: tuple[str, ...]
    placed_at: datetime
    until: datetime | None = None
    effective_at: datetime | None = None
    ended: HoldEnded | None = None

    @property
    def active(self) -> bool:
        """Tell whether it holds. That its day has come does not end it: two clocks must agree first."""
        return self.ended is None


@dataclass(frozen=True, slots=True)
class LegalRecord:
    """What the ledger's facts say of one legal request. Rebuilt from them at any time (`evolve_legal`).

    `keys` and `emails` are what is known of the subject: the Primary's keys and keyed fingerprints.
    `resolved_at` is when the Primary was asked last, `subject_known` whether it knew them. `address_kept`
    says that how to reach the subject is sealed, because the subject was erased. `letters` are by addressee,
    the last one of each.
    """

    registered: LegalRegistered
    sequence: int = 0
    digest: str = ""
    order: CourtOrderGiven | None = None
    document: str | None = None
    gag: NonDisclosureOrdered | None = None
    decided: LegalDecided | None = None
    resolved_at: datetime | None = None
    subject_known: bool = False
    keys: tuple[str, ...] = ()
    emails: tuple[bytes, ...] = ()
    hold: Hold | None = None
    address_kept: bool = False
    letters: Mapping[Addressee, Letter] = field(default_factory=dict)
    reminded_at: datetime | None = None

    @property
    def legal(self) -> str:
        """Return the ledger's own id of this request."""
        return self.registered.legal

    @property
    def key(self) -> tuple[str, str]:
        """Return the namespace and name of its object."""
        return self.registered.namespace, self.registered.name

    @property
    def holding(self) -> bool:
        """Tell whether data of the subject must not be erased."""
        return self.hold is not None and self.hold.active

    @property
    def notified(self) -> bool:
        """Tell whether the user has been told what there is to tell, or never will be.

        Who was told of a rejection is told once more when the request is taken up again after all.
        """
        return self._settled(Addressee.USER)

    @property
    def answered(self) -> bool:
        """Tell whether the authority has its answer, or needs none: of what is open, or counsel answers."""
        if self.decided is None or self.decided.outcome not in _ANSWERED:
            return True
        return self._settled(Addressee.AUTHORITY)

    def _settled(self, to: Addressee) -> bool:
        letter = self.letters.get(to)
        if letter is None or letter.settled is None:
            return False
        outcome = self.decided.outcome if self.decided else None
        superseded = letter.intended.outcome is LegalOutcome.REJECTED and outcome is not LegalOutcome.REJECTED
        return not superseded

    @property
    def open(self) -> bool:
        """Tell whether anything is left to do: to decide, to hold, to tell, to answer."""
        decided = self.decided is not None and self.decided.outcome is not LegalOutcome.AWAITING_REVIEW
        return not (decided and self.notified and self.answered) or self.holding

    def next_number(self, to: Addressee) -> int:
        """Return the number of the letter that is to be sent now: that of an intent, else a new one."""
        letter = self.letters.get(to)
        if letter is None:
            return 1
        return letter.intended.number + (letter.settled is not None)

    def intended(self, to: Addressee) -> LetterIntended | None:
        """Return the intent of a letter of which nobody knows whether it was sent."""
        letter = self.letters.get(to)
        return letter.intended if letter is not None and letter.settled is None else None


_ANSWERED = frozenset({LegalOutcome.REJECTED, LegalOutcome.REFUSED})


def evolve_legal(record: LegalRecord | None, fact: LegalFact) -> LegalRecord:
    """Return what a legal request becomes by one more fact.

    What tells the subject's address, if only by a keyed digest, goes with the last thing that is left to do.

    Raises `IllegalTransition` for a fact that can't follow, and leaves everything as it was.
    """
    evolved = _evolved(record, fact)
    if evolved.address_kept and evolved.notified:
        evolved = replace(evolved, address_kept=False)  # what was sealed for the notice is destroyed
    if evolved.open:
        return evolved
    return replace(evolved, emails=(), registered=replace(evolved.registered, emails=()))


def _evolved(  # noqa: C901, PLR0911, PLR0912 - one case per fact
    record: LegalRecord | None, fact: LegalFact
) -> LegalRecord:
    if isinstance(fact, LegalRegistered):
        if record is not None:
            raise IllegalTransition(f"legal request {fact.legal} was registered already")
        return LegalRecord(fact, emails=fact.emails, keys=(fact.subject_id,) if fact.subject_id else ())
    if record is None:
        raise IllegalTransition(f"{type(fact).__name__} for {fact.legal}, which was never registered")
    match fact:
        case CourtOrderGiven():
            return replace(record, order=fact)
        case DocumentSeen():
            return replace(record, document=fact.digest)
        case NonDisclosureOrdered():
            return replace(record, gag=fact)
        case LegalDecided():
            return replace(record, decided=fact)
        case SubjectResolved():
            keys = tuple(dict.fromkeys((*record.keys, *fact.keys)))
            emails = tuple(dict.fromkeys((*record.emails, *fact.emails)))
            known = record.subject_known or bool(fact.keys)
            return replace(record, resolved_at=fact.at, subject_known=known, keys=keys, emails=emails)
        case HoldPlaced():
            # The addresses of one that was closed are forgotten: they are asked for anew.
            asked = record.resolved_at if record.open else None
            return replace(record, hold=_placed(record.hold, fact), resolved_at=asked)
        case HoldTookEffect() | HoldEnded():
            if record.hold is None or not record.hold.active:
                raise IllegalTransition(f"{type(fact).__name__} for {fact.legal}, which holds nothing")
            if isinstance(fact, HoldTookEffect):
                return replace(record, hold=replace(record.hold, effective_at=fact.at))
            return replace(record, hold=replace(record.hold, ended=fact))
        case AddressKept():
            return replace(record, address_kept=True)
        case LetterIntended():
            last = record.letters.get(Addressee.USER)
            if (
                fact.to is Addressee.USER
                and record.notified
                and last
                and last.settled
                and last.settled.delivered
            ):
                raise IllegalTransition(f"letter {fact.number} of {fact.legal}, whose subject has been told")
            return replace(record, letters={**record.letters, fact.to: Letter(fact)})
        case LetterSettled():
            return _settled(record, fact)
        case Reminded():
            return replace(record, reminded_at=fact.at)
        case _:
            assert_never(fact)


def _placed(before: Hold | None, fact: HoldPlaced) -> Hold:
    if before is None or not before.active:
        return Hold(fact.stores, fact.at, fact.until)
    same = before.stores == fact.stores
    return replace(
        before, stores=fact.stores, until=fact.until, effective_at=before.effective_at if same else None
    )


def _settled(record: LegalRecord, fact: LetterSettled) -> LegalRecord:
    letter = record.letters.get(fact.to)
    if letter is None or letter.intended.number != fact.number:
        raise IllegalTransition(f"letter {fact.number} of {fact.legal} is settled and was never intended")
    return replace(record, letters={**record.letters, fact.to: replace(letter, settled=fact)})


# What is decided, by the policy: pure


def decision_of(
    kind: LegalKind, *, ordered: bool, documented: bool, review: str | None
) -> tuple[LegalOutcome, str]:
    """Return what becomes of a request and the word for why: without a court order nothing is disclosed.

    `review` is `Comply`, `Refuse` or `None`; `documented` says that the order's document, if it names one,
    has been seen: nobody complies with one that is missing.
    """
    if kind is LegalKind.DISCLOSURE and not ordered:
        return LegalOutcome.REJECTED, NO_COURT_ORDER
    if review == "Refuse":
        return LegalOutcome.REFUSED, REVIEWED
    if review == "Comply" and documented:
        return LegalOutcome.COMPLIED, REVIEWED
    return LegalOutcome.AWAITING_REVIEW, COURT_ORDER if ordered else PRESERVATION


# When the user is told


def day_ends(until: date, time_zone: str) -> datetime:
    """Return the instant at which a day has ended in a time zone, in that zone.

    Where no clock shows that midnight (summer time begins), it is the instant of the change. Where the clock
    is put back over midnight, the day ends a second time, and that counts. The last day that there is ends
    never, as far as any clock goes.
    """
    if until == date.max:  # somebody's way to say: for ever
        return datetime.max.replace(tzinfo=UTC)
    zone = ZoneInfo(time_zone)
    first = datetime.combine(until + timedelta(days=1), time(0), zone)
    second = first.replace(fold=1)  # the same as the first, but for the midnights that come twice
    just_before = (second.astimezone(UTC) - timedelta.resolution).astimezone(zone)
    came_back = second.utcoffset() < first.utcoffset() and just_before.date() <= until  # type: ignore[operator]
    return second if came_back else first


def gag_ends(gag: NonDisclosureOrdered | None) -> datetime | None:
    """Return when an order lets the user be told, by its own day; `None`: it has none."""
    if gag is None or gag.until is None or gag.time_zone is None:
        return None
    return day_ends(gag.until, gag.time_zone)


def is_gagged(record: LegalRecord, now: datetime) -> bool:
    """Tell whether the user must not be told now. A day that can't be told for sure has not ended."""
    gag = record.gag
    if gag is None or gag.lifted is not None:
        return False
    ends = gag_ends(gag)
    return ends is None or now < ends


def held_back_until(record: LegalRecord) -> datetime | None:
    """Return when an order let the user be told that had forbidden it; `None` if there was none."""
    gag = record.gag
    if gag is None:
        return None
    ends = gag_ends(gag)
    if gag.lifted is not None:
        return gag.at if ends is None else min(gag.at, ends)
    return ends


@dataclass(frozen=True, slots=True)
class NoticeSight:
    """Where the notice to the user stands; it goes at `due_at`, `None`: once a person lifts the order."""

    state: NoticeState
    due_at: datetime | None
    letter: Letter | None = None


def notice_of(record: LegalRecord, now: datetime) -> NoticeSight:
    """Return where the notice to the user stands."""
    letter = record.letters.get(Addressee.USER)
    due_at = held_back_until(record) or record.registered.at
    if record.notified and letter is not None and letter.settled is not None:
        state = NoticeState.SENT if letter.settled.delivered else NoticeState.UNDELIVERABLE
        return NoticeSight(state, due_at, letter)
    if is_gagged(record, now):
        return NoticeSight(NoticeState.DEFERRED, gag_ends(record.gag), letter)
    if record.resolved_at is not None and not record.subject_known and not record.address_kept:
        return NoticeSight(NoticeState.UNDELIVERABLE, due_at, letter)
    return NoticeSight(NoticeState.PENDING, due_at, letter)


# Who is held


@dataclass(frozen=True, slots=True)
class Holds:
    """The holds of a namespace on which its stores must look before they erase.

    `keys` are of the Primary, `emails` keyed fingerprints, `requests` those that have erased a held subject
    before; each with the holds that name it.
    """

    holds: tuple[LegalRecord, ...] = ()
    requests: Mapping[str, tuple[LegalRecord, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.holds)

    @property
    def names(self) -> frozenset[str]:
        """Return which holds these are."""
        return frozenset(record.legal for record in self.holds)

    def on(self, store: str) -> Holds:
        """Return those that name a store, or all stores of its namespace."""
        holds = tuple(record for record in self.holds if record.hold and _names(record, store))
        named = {record.legal for record in holds}
        requests = {
            request: tuple(record for record in records if record.legal in named)
            for request, records in self.requests.items()
        }
        return Holds(holds, {request: records for request, records in requests.items() if records})

    def only(self, legal: str) -> Holds:
        """Return one of them alone."""
        requests = {
            request: tuple(record for record in records if record.legal == legal)
            for request, records in self.requests.items()
        }
        return Holds(
            tuple(record for record in self.holds if record.legal == legal),
            {request: records for request, records in requests.items() if records},
        )

    def of(
        self, keys: frozenset[str], emails: frozenset[bytes], request: str | None = None
    ) -> tuple[LegalRecord, ...]:
        """Return the holds on whoever has one of these keys of the Primary, or addresses."""
        named = tuple(
            record for record in self.holds if keys & set(record.keys) or emails & set(record.emails)
        )
        before = self.requests.get(request, ()) if request is not None else ()
        return tuple({record.legal: record for record in (*named, *before)}.values())


def _names(record: LegalRecord, store: str) -> bool:
    stores = record.hold.stores if record.hold is not None else ()
    namespace, _, _ = store.partition("/")
    return store in stores or (not stores and namespace == record.registered.namespace)


def may_be_said(holds: tuple[LegalRecord, ...], now: datetime) -> bool:
    """Tell whether a hold may show where the subject or others look: if one of them is no secret.

    That the day of an order has come counts once the user was told, for which two clocks must have agreed.
    """
    return any(
        record.gag is None
        or record.gag.lifted is not None
        or (record.notified and not is_gagged(record, now))
        for record in holds
    )
