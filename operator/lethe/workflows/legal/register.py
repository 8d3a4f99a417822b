"""Taking down what an authority asks: recorded, decided by the policy, held; nothing is ever handed over.

A manifest that is applied again adds only what is new in it. What the ledger knows can't be taken back by
deleting the object and applying another: an order that forbids to tell only gets longer, a hold only wider
and longer, until a person lifts it; a review stands until it is decided otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from lethe.domain.identifiers import Identifier, normalised_email
from lethe.domain.legal import Hold, LegalRecord, day_ends, decision_of, evolve_legal
from lethe.domain.legal_facts import (
    CourtOrderGiven,
    DocumentSeen,
    HoldEnded,
    HoldPlaced,
    LegalDecided,
    LegalFact,
    LegalKind,
    LegalOutcome,
    LegalRegistered,
    NonDisclosureOrdered,
)
from lethe.domain.periods import instant
from lethe.domain.trust import Blocker, BlockReason
from lethe.workflows.legal.sealed_subject import SealedSubject
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import email_digest

ITS_DAY_HAS_COME = "its day has come"
"""Why a hold ended that nobody lifted."""

REFUSED = "counsel refused to preserve"


@dataclass(frozen=True, slots=True)
class CourtOrder:
    """The order that a request rests on. `documented` says that it names a document."""

    court: str
    docket: str
    issued_on: date
    documented: bool


@dataclass(frozen=True, slots=True)
class NonDisclosure:
    """An order that forbids to tell the user; see `NonDisclosureOrdered`."""

    legal_basis: str
    until: date | None = None
    time_zone: str | None = None
    lifted: str | None = None


@dataclass(frozen=True, slots=True)
class PreservationWanted:
    """What is to be preserved; see `HoldPlaced`. `lifted` is why a person ended it."""

    stores: tuple[str, ...] = ()
    until: datetime | None = None
    lifted: str | None = None


@dataclass(frozen=True, slots=True)
class LegalOrder:
    """A LegalRequest as it was read from the API server, with what its Secrets hold.

    `identifier` is `None` for a subject by id, and where the Secret is not there (any more). `document` is
    `sha256:…` of the order's document. `spec_text` is the canonical text of the immutable part of the spec.
    """

    namespace: str
    name: str
    uid: str
    spec_text: str
    kind: LegalKind
    authority: str
    level: str
    country: str
    received_at: datetime
    reference: str | None = None
    subject_id: str | None = None
    identifier: Identifier | None = None
    order: CourtOrder | None = None
    document: str | None = None
    gag: NonDisclosure | None = None
    preservation: PreservationWanted | None = None
    review: str | None = None
    reviewer: str | None = None
    secret_problem: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Return the namespace and name of its object."""
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Registration:
    """What became of an order: its record, the blocker that keeps it out, and what is new in it."""

    record: LegalRecord | None
    blocker: Blocker | None = None
    news: tuple[LegalFact, ...] = field(default=())


def register(orders: Sequence[LegalOrder], context: PassContext) -> Mapping[tuple[str, str], Registration]:
    """Register a set of orders, or add what is new to those that are known. Returns them by place."""
    at = context.clock()
    known = context.ledger.legal_named({order.key for order in orders})
    facts: dict[tuple[str, str], list[LegalFact]] = {}
    blockers: dict[tuple[str, str], Blocker] = {}
    seal: dict[str, bytes] = {}
    for order in orders:
        record = known.get(order.key)
        blocker = _blocker(order, record, context)
        if blocker is not None:
            blockers[order.key] = blocker
            continue
        mine = facts.setdefault(order.key, [])
        if record is None:
            mine.append(_registered(order, context, at))
            record = evolve_legal(None, mine[0])
            if order.identifier is not None:
                seal[order.uid] = SealedSubject((order.identifier,)).text()
        for say in (_ordered, _documented, _gagged, _decided, _held):
            for fact in say(record, order, at):
                mine.append(fact)
                record = evolve_legal(record, fact)
    everything = [fact for mine in facts.values() for fact in mine]
    if everything:
        context.ledger.append(everything, seal=seal)
        known = context.ledger.legal_named({order.key for order in orders})
    return {
        order.key: Registration(
            known.get(order.key), blockers.get(order.key), tuple(facts.get(order.key, ()))
        )
        for order in orders
    }


def end_holds(records: Sequence[LegalRecord], context: PassContext) -> Sequence[LegalRecord]:
    """Let go what was held until a day that has come. To be called when two clocks agree only.

    Returns those whose hold has ended with it.
    """
    ended_at = context.clock()
    over = [
        record
        for record in records
        if record.hold is not None
        and record.hold.active
        and record.hold.until is not None
        and record.hold.until <= ended_at
    ]
    if over:
        context.ledger.append([HoldEnded(record.legal, ended_at, ITS_DAY_HAS_COME) for record in over])
    return over


def _blocker(order: LegalOrder, record: LegalRecord | None, context: PassContext) -> Blocker | None:
    if record is None:
        if order.subject_id is None and order.identifier is None:
            return Blocker(BlockReason.SECRET_MISSING, order.secret_problem or "the Secret is missing")
        return None
    registered = record.registered
    other_spec = registered.spec_digest != _spec_digest(order, context)
    other_person = _identifier_digest(order, context) not in (None, registered.identifier_digest)
    if not other_spec and not other_person:
        return None
    what = "another spec" if other_spec else "another person in its Secret"
    return Blocker(
        BlockReason.NAME_REUSED,
        f"a LegalRequest {registered.name} with {what} was registered at {instant(registered.at)}; nothing "
        "was done for this one. Apply it under a new name",
    )


def _spec_digest(order: LegalOrder, context: PassContext) -> str:
    return context.keyring.fingerprint("legal", *order.key, order.spec_text).hex()


def _identifier_digest(order: LegalOrder, context: PassContext) -> str | None:
    if order.identifier is None:
        return None
    text = normalised_email(order.identifier.value.reveal())
    return context.keyring.fingerprint("identifier", *order.key, text).hex()


def _registered(order: LegalOrder, context: PassContext, at: datetime) -> LegalRegistered:
    address = order.identifier
    return LegalRegistered(
        legal=order.uid,
        namespace=order.namespace,
        name=order.name,
        spec_digest=_spec_digest(order, context),
        at=at,
        kind=order.kind,
        authority=order.authority,
        level=order.level,
        country=order.country,
        received_at=order.received_at,
        reference=order.reference,
        subject_id=order.subject_id,
        identifier_digest=_identifier_digest(order, context),
        emails=() if address is None else (email_digest(context.keyring, address.value.reveal()),),
    )


# What a manifest adds to what is known


def _ordered(record: LegalRecord, order: LegalOrder, at: datetime) -> Iterator[LegalFact]:
    given = order.order
    if given is not None and record.order is None:
        yield CourtOrderGiven(record.legal, at, given.court, given.docket, given.issued_on, given.documented)


def _documented(record: LegalRecord, order: LegalOrder, at: datetime) -> Iterator[LegalFact]:
    if record.order is not None and order.document is not None and order.document != record.document:
        yield DocumentSeen(record.legal, at, order.document)


def _gagged(record: LegalRecord, order: LegalOrder, at: datetime) -> Iterator[LegalFact]:
    said, known = order.gag, record.gag
    if said is None or (known is not None and known.lifted is not None):
        return
    until, zone, basis = said.until, said.time_zone, said.legal_basis
    if known is not None:
        basis = known.legal_basis
        if _ends_sooner(until, zone, known.until, known.time_zone):
            until, zone = known.until, known.time_zone
    fact = NonDisclosureOrdered(record.legal, at, basis, until, zone, said.lifted)
    if known is None or (known.until, known.time_zone, known.lifted) != (until, zone, said.lifted):
        yield fact


def _ends_sooner(
    until: date | None, zone: str | None, known_until: date | None, known_zone: str | None
) -> bool:
    """Tell whether an order would end before the day that is known; one without a day may get one."""
    if until is None or zone is None or known_until is None or known_zone is None:
        return False
    return day_ends(until, zone) < day_ends(known_until, known_zone)


def _decided(record: LegalRecord, order: LegalOrder, at: datetime) -> Iterator[LegalFact]:
    given = record.order
    documented = given is None or not given.documented or record.document is not None
    outcome, reason = decision_of(
        record.registered.kind, ordered=given is not None, documented=documented, review=order.review
    )
    before = record.decided
    if before is not None:
        undone = outcome is LegalOutcome.AWAITING_REVIEW and before.outcome is not LegalOutcome.REJECTED
        if before.outcome is outcome or undone:
            return
    reviewer = order.reviewer if outcome in (LegalOutcome.COMPLIED, LegalOutcome.REFUSED) else None
    yield LegalDecided(record.legal, at, outcome, reason, reviewer)


def _held(record: LegalRecord, order: LegalOrder, at: datetime) -> Iterator[LegalFact]:
    """Say what changes about a hold. What is rejected holds nothing, and refused preservations end."""
    wanted, known = order.preservation, record.hold
    outcome = record.decided.outcome if record.decided else None
    refused = record.registered.kind is LegalKind.PRESERVATION and outcome is LegalOutcome.REFUSED
    if known is not None and known.active and refused:
        yield HoldEnded(record.legal, at, REFUSED)
    if wanted is None or refused or outcome is LegalOutcome.REJECTED:
        return
    if wanted.lifted is not None:
        if known is not None and known.active:
            yield HoldEnded(record.legal, at, wanted.lifted)
        return
    if known is None:
        yield HoldPlaced(record.legal, at, wanted.stores, wanted.until)
    elif known.active:
        stores, until = _wider(known, wanted), _later(known.until, wanted.until)
        if (stores, until) != (known.stores, known.until):
            yield HoldPlaced(record.legal, at, stores, until)
    elif _is_prolonged(known, wanted):
        yield HoldPlaced(record.legal, at, _wider(known, wanted), wanted.until)


def _is_prolonged(known: Hold, wanted: PreservationWanted) -> bool:
    """Tell whether a hold whose day has come is to go on; one that a person ended is not."""
    if known.ended is None or known.ended.because != ITS_DAY_HAS_COME or known.until is None:
        return False
    return wanted.until is None or wanted.until > known.until


def _wider(known: Hold, wanted: PreservationWanted) -> tuple[str, ...]:
    """Return the stores of both; none named is all of them."""
    if not known.stores or not wanted.stores:
        return ()
    return tuple(sorted({*known.stores, *wanted.stores}))


def _later(known: datetime | None, wanted: datetime | None) -> datetime | None:
    """Return the later end; a hold without one gets one by a person, and one that is known never shrinks."""
    if known is None or wanted is None:
        return wanted
    return max(known, wanted)
