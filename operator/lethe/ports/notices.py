"""The port by which people are told something: letters as a set, each with a Message-ID of its own.

All methods block and are called in a worker thread. An address or a name never gets into an error or a log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from lethe.domain.identifiers import PersonalText


class ChannelError(Exception):
    """A channel can't be used at all. `problem` and `remedy` are fit to print."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}; {remedy}" if remedy else problem)


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter to one person, or to an authority.

    `message_id` is without angle brackets and the same each time that this letter is sent. `at` dates it.
    `language` is a BCP 47 tag. `html` is absent from letters that are text only.
    """

    message_id: str
    to: PersonalText
    subject: str
    text: str = field(repr=False)
    at: datetime
    language: str
    html: str | None = field(default=None, repr=False)


class DeliveryResult(StrEnum):
    """What came of one letter."""

    SENT = "Sent"
    """The next server took it: it is on its way."""
    LATER = "Later"
    """Not now (away, busy), or not as we are set up; the same letter is sent again."""
    REFUSED = "Refused"
    """Never: the address is said to be none, or the letter can't be meant."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of one letter; `answer` is the server's code with what it means, without its own text."""

    result: DeliveryResult
    answer: str = ""


class Channel(Protocol):
    """One way to reach people: SMTP, or a webhook."""

    def send(self, letters: Sequence[Letter]) -> Mapping[str, Delivery]:
        """Send letters over one connection; return what came of each, by Message-ID.

        One that is refused does not stop the others. A connection that breaks leaves the rest at `LATER`.
        Raises `ChannelError` only for what no letter could ever mend (a setting that can't be meant).
        """
        ...

    def close(self) -> None:
        """Give back every connection."""
        ...


@dataclass(frozen=True, slots=True)
class NoticeFacts:
    """What a notice about a legal request tells; nothing of it is personal but what the person is told.

    `outcome` is the decision at the time of writing (`Rejected`, `AwaitingReview`, `Complied`, `Refused`,
    or `Preserved` for a preservation), `reason` the word for it (`NoCourtOrder`).
    `level` is Local, Federal or Foreign, `country` ISO 3166-1. `held_back_until` is when an order that
    forbade to tell lapsed. `reference` is the authority's own number.
    """

    kind: str
    authority: str
    level: str
    country: str
    received_at: datetime
    outcome: str
    reason: str
    reference: str | None = None
    court: str | None = None
    docket: str | None = None
    held_back_until: datetime | None = None
    legal_basis: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A text in a language: `html` is `None` for letters that are text only."""

    subject: str
    text: str = field(repr=False)
    language: str
    html: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Recipient:
    """In whose language and time zone is written: a locale such as `de-CH` or `pt_BR`, an IANA zone.

    What is absent or unknown is English, and UTC.
    """

    locale: str | None = None
    time_zone: str | None = None
    name: PersonalText | None = field(default=None, repr=False)


class NoticeRenderer(Protocol):
    """Writes letters from templates."""

    def to_user(self, facts: NoticeFacts, recipient: Recipient) -> Written:
        """Return the notice to the user whom a legal request is about."""
        ...

    def to_authority(self, facts: NoticeFacts) -> Written:
        """Return the answer to the authority: text only, in English."""
        ...
