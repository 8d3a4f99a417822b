"""LegalRequest: an authority asks for a user's data, or that it be preserved."""

import re
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from lethe.api.model import AGE, ApiModel, Column, Definition, Resource, condition_column
from lethe.api.rules import FORBIDDEN, SET, Rule
from lethe.api.scalars import Day, GivenInstant, Instant, TimeZone
from lethe.api.v1alpha1.conditions import Status
from lethe.api.v1alpha1.deletionrequest import LedgerEntry
from lethe.api.v1alpha1.identifiers import Reference, Subject
from lethe.api.v1alpha1.references import ObjectName, SecretKeyRef
from lethe.domain.legal import NoticeState
from lethe.domain.legal_facts import LegalKind

_Words = Annotated[str, Field(min_length=1, max_length=256)]
_MessageId = Annotated[str, Field(max_length=256)]


class AuthorityLevel(StrEnum):
    """Which kind of authority asks."""

    LOCAL = "Local"
    FEDERAL = "Federal"
    FOREIGN = "Foreign"


class Authority(ApiModel):
    """Who asks."""

    name: _Words = Field(description="Name of the authority.")
    level: AuthorityLevel = Field(description="Local, Federal or Foreign.")
    country: Annotated[
        str,
        Field(max_length=2),
        Rule(
            rule="self.matches('^[A-Z]{2}$')",
            reason=FORBIDDEN,
            message='must be an ISO 3166-1 code of two capital letters, in quotes: "US"',
            holds=lambda country: re.fullmatch("[A-Z]{2}", country) is not None,
        ),
    ] = Field(description='ISO 3166-1 code, in quotes: "NO" without them is a boolean.')
    contact_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="A Secret that holds the e-mail address to which the answer is sent. "
        "Absent: the answer is drafted in a Secret <name>-answer.",
    )


class CourtOrder(ApiModel):
    """The order that the request rests on."""

    court: _Words = Field(description="Which court.")
    docket: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="Number of the case, in quotes."
    )
    issued_at: Day = Field(description="Day of the order.")
    document_secret_ref: SecretKeyRef | None = Field(default=None, description="Where the document stands.")


class Lifted(ApiModel):
    """Ends an order before its time."""

    because: _Words = Field(description="Why, in a sentence. No personal data.")


_LIFTED_STAYS = Rule(
    rule="!has(oldSelf.lifted) || has(self.lifted)", reason=FORBIDDEN, message="lifted can't be taken back"
)


class NonDisclosure(ApiModel):
    """An order that forbids to tell the user."""

    rules = (
        Rule(
            rule="has(self.until) == has(self.timeZone)",
            field_path=".timeZone",
            message="until and timeZone go together: a day ends at another moment in New York than in Berlin",
            holds=lambda order: (order.until is None) == (order.time_zone is None),
        ),
        Rule(
            rule="self.legalBasis == oldSelf.legalBasis",
            field_path=".legalBasis",
            reason=FORBIDDEN,
            message="can't be changed",
        ),
        Rule(
            rule="!has(oldSelf.until) || (has(self.until) && self.until >= oldSelf.until && "
            "has(self.timeZone) && "
            "self.timeZone == oldSelf.timeZone)",
            field_path=".until",
            reason=FORBIDDEN,
            message="can only be moved later, in the same timeZone; to tell the user earlier, set lifted",
        ),
        _LIFTED_STAYS,
    )

    legal_basis: _Words = Field(description="The law that forbids it: 18 U.S.C. 2705(b)")
    until: Day | None = Field(
        default=None, description="Through the end of this day. Absent: until a person sets lifted."
    )
    time_zone: TimeZone | None = Field(default=None, description="Where that day ends: America/New_York")
    lifted: Lifted | None = Field(default=None, description="Ends the order now. Takes the verb review.")


class Preservation(ApiModel):
    """Erasure and pruning of the subject's data wait."""

    rules = (
        Rule(
            rule="!has(oldSelf.until) || (has(self.until) && self.until >= oldSelf.until)",
            field_path=".until",
            reason=FORBIDDEN,
            message="can only be moved later; to end the hold earlier, set lifted",
        ),
        # An empty list says the same as none: all of them.
        Rule(
            rule="!has(self.stores) || self.stores.size() == 0 || (has(oldSelf.stores) && "
            "oldSelf.stores.size() > 0 && oldSelf.stores.all(store, store in self.stores))",
            field_path=".stores",
            reason=FORBIDDEN,
            message="can only grow; to end the hold in some of them, apply another LegalRequest for the "
            "others, then set lifted",
        ),
        _LIFTED_STAYS,
    )

    until: Instant | None = Field(
        default=None, description="When it ends. Absent: until a person sets lifted."
    )
    stores: Annotated[tuple[ObjectName, ...], Field(max_length=64), SET] = Field(
        default=(), description="Names of the DataStores that it is about. Absent: all."
    )
    lifted: Lifted | None = Field(default=None, description="Ends the hold now. Takes the verb review.")


class ReviewDecision(StrEnum):
    """What counsel decided."""

    COMPLY = "Comply"
    REFUSE = "Refuse"


class Review(ApiModel):
    """Counsel's decision. Takes the verb review."""

    decision: ReviewDecision = Field(description="Comply or Refuse.")
    reviewer: Annotated[str, Field(min_length=1, max_length=253)] | None = Field(
        default=None, description="Who decided. Filled in at admission; leave it out."
    )


class LegalRequestSpec(ApiModel):
    """Who asks for what, about whom, and on which order."""

    rules = (
        Rule(
            rule="self.type != 'Preservation' || has(self.preservation)",
            message="type Preservation needs spec.preservation: {until: …}, or {} to hold until a person "
            "lifts it",
            holds=lambda spec: spec.type is not LegalKind.PRESERVATION or spec.preservation is not None,
        ),
        Rule(
            rule="self.type == oldSelf.type && self.authority == oldSelf.authority && "
            "self.receivedAt == oldSelf.receivedAt && has(self.reference) == has(oldSelf.reference) && "
            "(!has(self.reference) || self.reference == oldSelf.reference) && self.subject == "
            "oldSelf.subject",
            reason=FORBIDDEN,
            message="type, authority, receivedAt, reference and subject can't be changed; apply another "
            "LegalRequest",
        ),
        Rule(
            rule="!has(oldSelf.courtOrder) || (has(self.courtOrder) && self.courtOrder == "
            "oldSelf.courtOrder)",
            reason=FORBIDDEN,
            message="spec.courtOrder can be added once, and then neither changed nor removed",
        ),
        Rule(
            rule="!has(oldSelf.nonDisclosure) || has(self.nonDisclosure)",
            reason=FORBIDDEN,
            message="spec.nonDisclosure can't be removed; to tell the user now, set "
            "spec.nonDisclosure.lifted",
        ),
        Rule(
            rule="!has(oldSelf.preservation) || has(self.preservation)",
            reason=FORBIDDEN,
            message="spec.preservation can't be removed; to end the hold, set spec.preservation.lifted",
        ),
        Rule(
            rule="!has(oldSelf.review) || has(self.review)",
            reason=FORBIDDEN,
            message="spec.review can't be removed",
        ),
        Rule(
            rule="!has(self.review) || self.review.decision != 'Comply' || self.type != 'Disclosure' || "
            "has(self.courtOrder)",
            field_path=".review",
            reason=FORBIDDEN,
            message="decision Comply needs spec.courtOrder: nothing is disclosed without one",
            holds=lambda spec: (
                spec.review is None
                or spec.review.decision is not ReviewDecision.COMPLY
                or spec.type is not LegalKind.DISCLOSURE
                or spec.court_order is not None
            ),
        ),
    )

    type: LegalKind = Field(description="Disclosure or Preservation.")
    authority: Authority = Field(description="Who asks.")
    received_at: GivenInstant = Field(description="When the request was received.")
    reference: Reference | None = Field(
        default=None, description="The authority's own number of the request. No personal data."
    )
    subject: Subject = Field(description="The person that it is about.")
    court_order: CourtOrder | None = Field(
        default=None, description="The order. Absent: the request is rejected."
    )
    non_disclosure: NonDisclosure | None = Field(
        default=None, description="An order that forbids to tell the user. Absent: the user is told at once."
    )
    preservation: Preservation | None = Field(
        default=None, description="Erasure and pruning of the subject's data wait."
    )
    review: Review | None = Field(default=None, description="Counsel's decision.")


class DecisionOutcome(StrEnum):
    """What became of a request."""

    PENDING = "Pending"
    REJECTED = "Rejected"
    AWAITING_REVIEW = "AwaitingReview"
    COMPLIED = "Complied"
    REFUSED = "Refused"


class AnswerState(StrEnum):
    """How far the answer to the authority has come."""

    DRAFTED = "Drafted"
    SENT = "Sent"
    UNDELIVERABLE = "Undeliverable"


class Decision(ApiModel):
    """What was decided, and when."""

    outcome: DecisionOutcome | None = Field(default=None, description="What became of the request.")
    reason: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Why, in one word."
    )
    decided_at: Instant | None = Field(default=None, description="When it was decided.")


class Notice(ApiModel):
    """The notice to the user."""

    state: NoticeState | None = Field(default=None, description="Whether the user was told.")
    due_at: Instant | None = Field(default=None, description="When the user is told.")
    sent_at: Instant | None = Field(default=None, description="When the mail server took the notice.")
    message_id: _MessageId | None = Field(default=None, description="The notice's Message-ID.")


class Answer(ApiModel):
    """The answer to the authority."""

    state: AnswerState | None = Field(default=None, description="How far it has come.")
    secret: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="Name of the Secret that holds the draft."
    )
    sent_at: Instant | None = Field(default=None, description="When the mail server took the answer.")
    message_id: _MessageId | None = Field(default=None, description="The answer's Message-ID.")


class Document(ApiModel):
    """The court order's document, as it was when it was recorded."""

    digest: Annotated[str, Field(max_length=80, pattern="^sha256:")] | None = Field(
        default=None, description="SHA-256 of the document."
    )


class Hold(ApiModel):
    """What is kept from erasure and pruning."""

    stores: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=64), SET] = Field(
        default=(), description="Names of the DataStores in which the subject is held."
    )
    since: Instant | None = Field(default=None, description="When the hold began.")
    until: Instant | None = Field(
        default=None, description="When it ends. Absent: when a person sets spec.preservation.lifted."
    )


class LegalRequestStatus(Status):
    """What was decided, and whether the user was told."""

    decision: Decision | None = Field(default=None, description="What was decided.")
    notice: Notice | None = Field(default=None, description="The notice to the user.")
    answer: Answer | None = Field(default=None, description="The answer to the authority.")
    document: Document | None = Field(default=None, description="The court order's document.")
    hold: Hold | None = Field(default=None, description="What is kept from erasure and pruning.")
    ledger: LedgerEntry | None = Field(default=None, description="Where the ledger has recorded it.")


class LegalRequest(Resource):
    """An authority asks for a user's data, or that it be preserved. Nothing is handed over by software."""

    definition: ClassVar = Definition(
        kind="LegalRequest",
        plural="legalrequests",
        short_name="lreq",
        name_max_length=63,
        selectable=(".spec.type", ".status.decision.outcome", ".status.notice.state"),
        columns=(
            Column(name="Type", json_path=".spec.type"),
            Column(name="Authority", json_path=".spec.authority.level"),
            Column(name="Decision", json_path=".status.decision.outcome"),
            Column(name="Notice", json_path=".status.notice.state"),
            Column(name="Notice due", json_path=".status.notice.dueAt"),
            condition_column("Holding", "Holding"),
            AGE,
        ),
        rules=(
            Rule(
                rule="!has(self.spec.nonDisclosure) || has(oldSelf.spec.nonDisclosure) || "
                "!has(self.status) || "
                "!has(self.status.notice) || !has(self.status.notice.state) || self.status.notice.state != "
                "'Sent'",
                field_path=".spec.nonDisclosure",
                reason=FORBIDDEN,
                message="comes too late, the user has already been told (status.notice)",
            ),
        ),
    )

    spec: LegalRequestSpec = Field(description="Who asks for what, about whom, and on which order.")
    status: LegalRequestStatus = Field(
        default_factory=LegalRequestStatus.unseen,
        description="What was decided, and whether the user was told.",
    )
