"""The facts that the ledger records of legal requests. None of them holds anything personal of the subject.

Fields may be added with a default, never renamed: see `facts.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum


class LegalKind(StrEnum):
    """What an authority asks for."""

    DISCLOSURE = "Disclosure"
    PRESERVATION = "Preservation"


class LegalOutcome(StrEnum):
    """What became of a legal request."""

    REJECTED = "Rejected"
    AWAITING_REVIEW = "AwaitingReview"
    COMPLIED = "Complied"
    REFUSED = "Refused"


class Addressee(StrEnum):
    """To whom a letter about a legal request goes."""

    USER = "User"
    AUTHORITY = "Authority"


@dataclass(frozen=True, slots=True)
class LegalRegistered:
    """An authority's request was taken down.

    `spec_digest` and `identifier_digest` are keyed digests by which the same manifest is recognised when it
    is applied again. `subject_id` is the opaque key, `None` where the person is named by a Secret;
    `emails` are the keyed fingerprints of the address in that Secret. `level` is Local, Federal or Foreign.
    """

    legal: str
    namespace: str
    name: str
    spec_digest: str
    at: datetime
    kind: LegalKind
    authority: str
    level: str
    country: str
    received_at: datetime
    reference: str | None = None
    subject_id: str | None = None
    identifier_digest: str | None = None
    emails: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class CourtOrderGiven:
    """The request rests on a court order. `documented` says that its document stands in a Secret."""

    legal: str
    at: datetime
    court: str
    docket: str
    issued_on: date
    documented: bool = False


@dataclass(frozen=True, slots=True)
class DocumentSeen:
    """The document of the order was read; `digest` is `sha256:` with its SHA-256 in hex."""

    legal: str
    at: datetime
    digest: str


@dataclass(frozen=True, slots=True)
class NonDisclosureOrdered:
    """An order forbids to tell the user through the day `until` in `time_zone` (IANA); `None`: until lifted.

    Said anew when it is prolonged. `lifted` is why a person ended it.
    """

    legal: str
    at: datetime
    legal_basis: str
    until: date | None = None
    time_zone: str | None = None
    lifted: str | None = None


@dataclass(frozen=True, slots=True)
class LegalDecided:
    """What became of a request. `reviewer` is who reviewed it, `None` where the policy itself decided."""

    legal: str
    at: datetime
    outcome: LegalOutcome
    reason: str
    reviewer: str | None = None


@dataclass(frozen=True, slots=True)
class SubjectResolved:
    """The Primary was asked for the subject: its `keys` there, and keyed fingerprints of its addresses.

    No keys: the Primary showed that it has nobody of that name.
    """

    legal: str
    at: datetime
    keys: tuple[str, ...] = ()
    emails: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class HoldPlaced:
    """The subject's data is preserved in these stores (`namespace/name`; none: in all of the namespace).

    `until` is when that ends, `None`: when a person lifts it. Said anew when it is prolonged.
    """

    legal: str
    at: datetime
    stores: tuple[str, ...] = ()
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class HoldTookEffect:
    """Everything that could still erase what is held, because it had begun before, has ended."""

    legal: str
    at: datetime


@dataclass(frozen=True, slots=True)
class HoldEnded:
    """What was held may be erased again. `because` is a person's word, or says that its day has come."""

    legal: str
    at: datetime
    because: str


@dataclass(frozen=True, slots=True)
class AddressKept:
    """The subject is about to be erased, and is to be told later: how to reach them was sealed."""

    legal: str
    at: datetime


@dataclass(frozen=True, slots=True)
class LetterIntended:
    """A letter is about to be sent: the first thing that a crash must not lose.

    `number` counts the letters to this addressee from 1. `message_id` is without angle brackets.
    `outcome` is what the letter says became of the request.
    """

    legal: str
    at: datetime
    to: Addressee
    number: int
    message_id: str
    outcome: LegalOutcome


@dataclass(frozen=True, slots=True)
class LetterSettled:
    """A letter was taken by the next server, laid down as a draft, or will never be delivered.

    `answer` is the server's code and what it means, or what was tried. `channel` is `smtp`, `webhook` or
    `secret`. `address` is the keyed fingerprint of where it could not be delivered to.
    """

    legal: str
    at: datetime
    to: Addressee
    number: int
    delivered: bool
    answer: str = ""
    channel: str = ""
    address: bytes | None = None


@dataclass(frozen=True, slots=True)
class Reminded:
    """A person was reminded that a notice waits for an order that has no end."""

    legal: str
    at: datetime


LegalFact = (
    LegalRegistered
    | CourtOrderGiven
    | DocumentSeen
    | NonDisclosureOrdered
    | LegalDecided
    | SubjectResolved
    | HoldPlaced
    | HoldTookEffect
    | HoldEnded
    | AddressKept
    | LetterIntended
    | LetterSettled
    | Reminded
)
