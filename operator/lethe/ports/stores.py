"""The ports to a store that holds personal data. Every method takes a set; one person is a set of one.

All methods block and are called in a worker thread, never two at once on one store. None of them
prints or raises anything personal: driver errors are reduced to their code, table, column, constraint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from lethe.domain.identifiers import Identifier, PersonalText
from lethe.domain.journal import Head, HeadMove, JournalObservation
from lethe.domain.mapping import ProvedMapping
from lethe.domain.tombstones import IdentityMatcher, Tombstone


class StoreError(Exception):
    """Anything that a store does instead of what it was asked. `problem` and `remedy` are fit to print."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}; {remedy}" if remedy else problem)


class StoreUnreachable(StoreError):
    """The store can't be used now: away, refusing the password, read-only, a standby. It is tried again."""


class DiskFull(StoreUnreachable):
    """The server has no room left."""


class InRecovery(StoreUnreachable):
    """The server answers, and whoever reads from it is served, but as a standby: it can't be looked at."""


class BeingFilled(StoreUnreachable):
    """The store answers, but a restore or COPY fills it; what Lethe needs there can't be made meanwhile."""


class AnswerUntrusted(StoreError):
    """The store answered, but not what was asked (another identity, everybody, HTML). Nothing is erased."""


class HeadMoved(StoreError):
    """The journal's head is not where it was expected: the store was rewound, or another replica leads."""


class JournalNotPermitted(StoreError):
    """Lethe may not create or write its journal here; the remedy holds the DDL for the DBA."""


class RoleRefused(StoreError):
    """A role can't be kept from connecting, or never is: it is not there, or a right is missing."""


@dataclass(frozen=True, slots=True)
class MappingProblem:
    """One thing that the live schema refuses. `field` is the path in the manifest, below `spec`."""

    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}; correct spec.{self.field}: {self.remedy}"


class MappingInvalid(StoreError):
    """The mapping does not fit the live schema."""

    def __init__(self, problems: Sequence[MappingProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(". ".join(str(problem) for problem in problems))


class JournalSupport(StrEnum):
    """Whether a store keeps a journal (condition `Journaled`)."""

    KEPT = "Kept"
    NOT_PERMITTED = "NotPermitted"
    NOT_SUPPORTED = "NotSupported"


@dataclass(frozen=True, slots=True)
class PossibleCopy:
    """Something that may keep what an erasure clears. `name` is how a mapping's `ignore` acknowledges it,
    `why` says what it does; neither holds anything personal.
    """

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What connecting and comparing the mapping with the live schema showed.

    `lookalikes` are columns that look like personal data and are neither mapped nor ignored, as
    `table.column`. `keys_may_repeat` names the generators of keys that Lethe can't move forward.
    `server` identifies the server (the ledger must not live on the same one); `None` if it has no identity.
    `pointing` are columns that point at subjects and are neither mapped nor ignored, as `table.column`;
    `copies` are materialized views of what is cleared, not ignored; `possible_copies` what else may keep it.
    `widened` says of earlier versions what the proved mapping clears besides, under a version of its own.
    `samples_stay` says, with the remedy, which statistics Lethe may not renew (`Journaled.tidy`).
    `beside` names the other stores of this ledger (`namespace/name`) whose journals lie in the same tables.
    """

    proved: ProvedMapping
    journal: JournalSupport
    journal_ddl: str = ""
    lookalikes: tuple[str, ...] = ()
    keys_may_repeat: tuple[str, ...] = ()
    server: str | None = None
    pointing: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    widened: Mapping[str, ProvedMapping] = field(default_factory=dict)
    samples_stay: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    possible_copies: tuple[PossibleCopy, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A person to look for, on behalf of a request: any identifier that matches.

    `every` asks for all of the records, however many: a person has said that all are theirs.
    """

    request: str
    identifiers: tuple[Identifier, ...]
    every: bool = False


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """One record of a wanted person. `created_at` is canonical text (UTC, microseconds, `…Z`).

    `by_key` says that a key found it, and not an address alone. `shared` says that the record carries other
    people's addresses too. `cleared` says that it holds what an erasure writes, so that it was erased before.
    """

    table: str
    key: str
    created_at: str | None = None
    email: PersonalText | None = None
    by_key: bool = False
    shared: bool = False
    cleared: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What a set of wanted persons has in a store, by request; a request without records is absent from it.

    `proof` says how the store showed that it would have found somebody (`canary`, `row-security-off`);
    `None` means that an absence here proves nothing. `unaskable` are the requests of which no
    identifier can be searched for in this store; `too_many` those that have more records than are allowed
    for one person, of which only as many are returned.
    """

    records: Mapping[str, tuple[FoundRecord, ...]]
    proof: str | None
    unaskable: frozenset[str] = frozenset()
    too_many: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Contact:
    """How a person whom a store holds is reached.

    `email` is `None` where there is no address that could be written to. `locale` and `time_zone` are as
    they stand there (`de-AT`, `Europe/Vienna`, or whatever the application writes), `name` is first and
    last name with one blank between. `cleared` says that the record was erased: then all of them are
    `None`, because what stands there is what the erasure wrote.
    """

    table: str
    key: str
    email: PersonalText | None
    locale: str | None = None
    time_zone: str | None = None
    name: PersonalText | None = None
    cleared: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a store refused one record: its code and what it named (table, column, constraint), no values."""

    code: str
    what: str
    retry: bool = False

    @property
    def reason(self) -> str:
        """Return both as a text."""
        return f"{self.code}: {self.what}" if self.what else self.code


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One erasure as the store's journal tells it: its number, the tombstone's number that it is `of`
    (the same for a first erasure, a smaller one for a re-erasure), and rows changed by table."""

    number: int
    of: int
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ErasureOutcome:
    """What one transaction did, by the tombstones' numbers.

    `entries` are the erasures that are done (for a first erasure also of records that were clear or
    gone already; for a re-erasure only what had to be changed). Of the others the record belongs to
    somebody else (`left_alone`), to nobody knows whom (`unclear`), or was `refused`.
    """

    entries: tuple[JournalEntry, ...]
    left_alone: frozenset[int] = frozenset()
    unclear: frozenset[int] = frozenset()
    absent: frozenset[int] = frozenset()
    refused: Mapping[int, Refusal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Residue:
    """What reading back showed, by the tombstones' numbers.

    `uncleared` are erased persons who are not (or no longer) cleared, dependents included;
    `left_alone` counts rows of somebody else under an erased key; `unclear` are `(table, key)` of rows
    of nobody knows whom; `absent` are tombstones whose row is not there. `standing` names, for the first of
    the uncleared, what stands there still, as `table.column`, or `table` for rows that were to be deleted.
    `changed_at` is when a record of theirs was last changed, by the store's clock, where the store tells.
    """

    uncleared: tuple[int, ...] = ()
    left_alone: int = 0
    unclear: tuple[tuple[str, str], ...] = ()
    absent: tuple[int, ...] = ()
    standing: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    changed_at: Mapping[int, datetime] = field(default_factory=dict)


class Store(Protocol):
    """A store of personal data, already configured with its mapping and credentials."""

    def prove(self, recorded: Iterable[ProvedMapping] = ()) -> Proof:
        """Connect, compare the mapping with the live schema, make the journal's tables where permitted.

        `recorded` are the mapping versions that tombstones may name, known from then on as the proved one is,
        also where the proof fails. Writes nothing to the subjects' tables.

        Raises `MappingInvalid`, `StoreUnreachable`, `AnswerUntrusted`.
        """
        ...

    def find(self, wanted: Sequence[Wanted]) -> Finding:
        """Find every record of the wanted persons, each compared exactly.

        Raises `StoreUnreachable`, `AnswerUntrusted`.
        """
        ...

    def contacts(self, wanted: Sequence[Wanted]) -> Mapping[str, tuple[Contact, ...]]:
        """Return how each wanted person is reached, by request, in one read-only transaction.

        They are found as `find` finds them; a person without records is absent. Of a person with more
        records than are allowed, as many as are allowed are returned.

        Raises `StoreUnreachable`, `AnswerUntrusted`.
        """
        ...

    def plan(self, tombstones: Sequence[Tombstone]) -> Mapping[int, Mapping[str, int]]:
        """Return the rows by table that erasing each tombstone would change. Changes nothing."""
        ...

    def erase(
        self,
        tombstones: Sequence[Tombstone],
        matcher: IdentityMatcher,
        *,
        move: HeadMove | None,
        first_number: int | None = None,
        exclusive: bool = False,
    ) -> ErasureOutcome:
        """Erase a set in one transaction, which begins with the head's `move` (`None`: no journal).

        Every row that stands uncleared is judged under its lock. `first_number` makes this a re-erasure:
        only what is changed gets a journal entry, numbered from there in the order of `tombstones`.
        `exclusive` keeps writers out of the mapped tables meanwhile. A record that the store refuses
        does not stop the others. Calling it again with the same tombstones changes nothing more.

        Raises `HeadMoved` (nothing was done), `StoreUnreachable` (what was done is in doubt: look), and
        `JournalNotPermitted` for a `move` in a store that is not `Journaled`.
        """
        ...

    def check(
        self, chunks: Iterable[Sequence[Tombstone]], matcher: IdentityMatcher, *, exclusive: bool = False
    ) -> Residue:
        """Read back in one new transaction whether what was erased is still cleared.

        `exclusive` keeps writers of the mapped tables out until the whole set has been read.
        """
        ...

    def observe(self, *, settle: bool = False) -> JournalObservation:
        """Look whether the store answers: at head and identity, as far as it has them.

        `settle` waits for a transaction in doubt to have ended first.

        Raises `StoreUnreachable`, also for a standby: a replica's head proves nothing.
        """
        ...

    def close(self) -> None:
        """Give back every connection."""
        ...


class KeepsRolesOut(Protocol):
    """What a store offers besides `Store` whose server lets in, or not, who connects as a role."""

    def set_roles(self, roles: Sequence[str], *, closed: bool) -> int:
        """Take from roles the right to connect, and end their sessions; or give back what was taken for this
        store, and nothing else. Any thread may call it.

        Returns how many sessions were ended. Raises `StoreUnreachable`, and `RoleRefused`: before any is
        opened, and once all others are closed.
        """
        ...


@runtime_checkable
class Journaled(Protocol):
    """What a store offers besides `Store` whose database itself Lethe works in: the journal lies there.

    Each store whose `Proof.journal` is not `NotSupported` is one. Keys that it gives out can be moved, and
    the statistics that it keeps of values refreshed.
    """

    def tick(self, move: HeadMove) -> Head:
        """Move the head although nothing is erased, and note the positions of keys and sequences.

        Returns the head as it now stands. Raises `HeadMoved`, `StoreUnreachable`, `JournalNotPermitted`.
        """
        ...

    def entries_of(self, move: int) -> tuple[JournalEntry, ...]:
        """Return the journal's entries that were written with a move; to resolve one that was in doubt."""
        ...

    def journaled_numbers(self) -> Iterator[Sequence[int]]:
        """Yield, in chunks, the tombstones' numbers (`of`) of every genuine entry in the journal."""
        ...

    def addresses(self) -> Iterator[Sequence[FoundRecord]]:
        """Yield every record that has an e-mail address, in chunks."""
        ...

    def advance_sequences(self, positions: Mapping[str, int]) -> None:
        """Move every sequence behind a mapped key to at least the position given; never back."""
        ...

    def remember_journal(self) -> object:
        """Return where the journal stands, for `put_back_journal`."""
        ...

    def put_back_journal(self, remembered: object) -> None:
        """Let the journal stand where it stood then, as if no move had been made since: in a copy."""
        ...

    def tidy(self) -> tuple[str, ...]:
        """Renew the statistics of the mapped tables, which hold samples of values that are gone now.

        Returns which of them may hold them still, each with why and what to do.
        """
        ...
