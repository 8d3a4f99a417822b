"""Taking requests on: the first durable act is the ledger's, before any status is written or Secret
deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lethe.domain.facts import Accepted, Confirmed, Fact
from lethe.domain.identifiers import Identifier, normalised_email
from lethe.domain.periods import Period, instant
from lethe.domain.requests import RequestRecord
from lethe.domain.trust import Blocker, BlockReason
from lethe.workflows.identifiers import sealed_identifiers
from lethe.workflows.pass_context import PassContext


@dataclass(frozen=True, slots=True)
class ErasureOrder:
    """A DeletionRequest as it was read from the API server, with what its Secret holds.

    `identifier` is `None` for a request by id, and where the Secret is not there (any more).
    `spec_text` is the canonical text of the immutable part of the spec.
    """

    namespace: str
    name: str
    uid: str
    spec_text: str
    created_at: datetime
    requested_at: datetime | None = None
    subject_id: str | None = None
    identifier: Identifier | None = None
    reference: str | None = None
    dry_run: bool = False
    confirmed: tuple[str, ...] = ()
    secret_problem: str | None = None


@dataclass(frozen=True, slots=True)
class Intake:
    """What became of an order: its record, or the blocker that keeps it out."""

    record: RequestRecord | None
    blocker: Blocker | None = None


def accept(
    orders: Sequence[ErasureOrder],
    context: PassContext,
    *,
    deadline: Period,
    stores: Mapping[str, Sequence[str]],
) -> Mapping[tuple[str, str], Intake]:
    """Accept a set of orders, or recognise them as known. `stores` names the DataStores by namespace.

    The same manifest applied again is the same request, with its original times. Another spec, or
    another person in the Secret, under a name that the ledger knows is `NameReused`: nothing is claimed.
    """
    accepted_at = context.clock()
    known = context.ledger.requests_named({(order.namespace, order.name) for order in orders})
    facts: list[Fact] = []
    seal: dict[str, bytes] = {}
    answers: dict[tuple[str, str], Blocker | None] = {}
    for order in orders:
        place = (order.namespace, order.name)
        spec_digest = context.keyring.fingerprint("spec", *place, order.spec_text).hex()
        digest = _identifier_digest(order, context)
        record = known.get(place)
        if record is not None:
            answers[place] = _name_reused(record, spec_digest, digest)
            fresh = tuple(a for a in order.confirmed if a not in record.confirmed)
            if fresh and answers[place] is None:
                facts.append(Confirmed(record.request, fresh))
            continue
        if order.subject_id is None and order.identifier is None:
            answers[place] = Blocker(
                BlockReason.SECRET_MISSING, order.secret_problem or "the Secret is missing"
            )
            continue
        answers[place] = None
        requested_at = min(order.requested_at or order.created_at, accepted_at)
        facts.append(
            Accepted(
                request=order.uid,
                namespace=order.namespace,
                name=order.name,
                spec_digest=spec_digest,
                accepted_at=accepted_at,
                requested_at=requested_at,
                due_at=deadline.after(requested_at),
                subject_id=order.subject_id,
                identifier_digest=digest,
                reference=order.reference,
                dry_run=order.dry_run,
                stores=tuple(stores.get(order.namespace, ())),
            )
        )
        if order.confirmed:
            facts.append(Confirmed(order.uid, order.confirmed))
        if order.identifier is not None:
            seal[order.uid] = sealed_identifiers([order.identifier])
    if facts:
        context.ledger.append(facts, seal=seal)
        known = context.ledger.requests_named(set(answers))
    return {place: Intake(known.get(place), blocker) for place, blocker in answers.items()}


def _identifier_digest(order: ErasureOrder, context: PassContext) -> str | None:
    if order.identifier is None:
        return None
    text = normalised_email(order.identifier.value.reveal())
    return context.keyring.fingerprint("identifier", order.namespace, order.name, text).hex()


def _name_reused(record: RequestRecord, spec_digest: str, identifier_digest: str | None) -> Blocker | None:
    other_spec = record.accepted.spec_digest != spec_digest
    # Once the memory of an erasure has ended, a Secret that is there can't be compared: nothing is claimed.
    other_person = identifier_digest not in (None, record.accepted.identifier_digest)
    if not other_spec and not other_person:
        return None
    what = "another spec" if other_spec else "another person in its Secret"
    if record.shredded and not other_spec:
        what = "a Secret of which nothing is remembered any more"
    return Blocker(
        BlockReason.NAME_REUSED,
        f"a DeletionRequest {record.accepted.name} with {what} was accepted at "
        f"{instant(record.accepted.accepted_at)}; nothing was done for this one. Apply it "
        f"under a new name",
    )
