"""A store under guard: its port, what its manifest says of it, and what this process has seen of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

from lethe.domain.identifiers import normalised_email
from lethe.domain.journal import Filling, JournalObservation, StoreIdentity
from lethe.domain.mapping import StoreOwner, StoreRole
from lethe.domain.periods import instant
from lethe.domain.requests import RequestRecord
from lethe.domain.tombstones import Fingerprints, Tombstone
from lethe.domain.trouble import Trouble
from lethe.domain.trust import Blocker, BlockReason
from lethe.ports.keys import Keyring
from lethe.ports.stores import Journaled, JournalSupport, Proof, Store

LONGEST_PAUSE = timedelta(minutes=5)
"""The longest that a blocked request waits for its next try."""


UNDONE_TIMES = 3
"""From how many times on it is no write that came in between, when an erasure is read back undone."""


@dataclass(frozen=True, slots=True)
class Rejoining:
    """What a person says of an erased row: she whose it is has consented anew at `since`."""

    table: str
    key: str
    since: datetime
    because: str


@dataclass(frozen=True, slots=True)
class StoreDescription:
    """What a DataStore says of a store, apart from how to reach it. `name` is `namespace/name`.

    `catch_up` is the version of the mapping by which those are to be cleared, too, who were erased before.
    `formerly` is the name of the DataStore that this one replaces, `rejoined` who was erased and came back.
    """

    namespace: str
    short_name: str
    role: StoreRole
    owner: StoreOwner
    needs_primary_key: bool = False
    max_records: int = 5
    catch_up: str | None = None
    one_owner_per_address: bool = False
    formerly: str | None = None
    rejoined: tuple[Rejoining, ...] = ()

    @property
    def name(self) -> str:
        """Return the name under which ledger and metrics know the store."""
        return f"{self.namespace}/{self.formerly or self.short_name}"


@dataclass(slots=True)
class CatchUp:
    """Who was erased under an earlier mapping, and stands uncleared by the present one.

    `left` are the numbers of tombstones, `unclear` rows of which nothing tells whose they are by now;
    `chunks` yields the tombstones that are still to be gone through. `cleared` counts those that were.
    """

    left: frozenset[int]
    unclear: Sequence[tuple[str, str]]
    chunks: Iterator[Sequence[Tombstone]]
    cleared: int = 0

    def note_cleared(self, numbers: Iterable[int]) -> None:
        """Note which have been cleared."""
        before = len(self.left)
        self.left -= frozenset(numbers)
        self.cleared += before - len(self.left)


@dataclass(slots=True)
class StoreSession:
    """A store and what has been seen of it since the process began; all of it can be seen again.

    `proof` is `None` until the mapping has been proved. `trouble` says why the store can't be used
    now, as the last pass left it. `samples_left` is what the last `tidy` left (`None`: there was none yet).
    `written_back` are the erased records, `(table, key)`, that were written back, each with the first time;
    `untold` those of them of which no event has told yet. `rejoined_in_vain` are rows of `spec.rejoined`
    under which nobody was erased, or somebody was who asked after the consent.
    """

    description: StoreDescription
    port: Store
    fingerprints: Fingerprints
    proof: Proof | None = None
    trouble: Trouble | None = None
    ledger_behind: bool = False
    last_observed_at: datetime | None = None
    observed: JournalObservation | None = None
    last_sweep_at: datetime | None = None
    sweep_wanted: bool = True
    stable_identity: StoreIdentity | None = None
    stable_observations: int = 0
    known_absent: frozenset[int] = frozenset()
    catch_up: CatchUp | None = None
    blockers: dict[str, Blocker] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    not_before: dict[str, tuple[datetime, frozenset[str]]] = field(default_factory=dict)
    undone: dict[str, int] = field(default_factory=dict)
    holds_seen: frozenset[str] = frozenset()
    filling_seen: tuple[str, datetime] | None = None
    samples_left: tuple[str, ...] | None = None
    written_back: dict[tuple[str, str], datetime] = field(default_factory=dict)
    untold: list[tuple[str, str]] = field(default_factory=list)
    rejoined_in_vain: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Return the name under which ledger and metrics know the store."""
        return self.description.name

    @property
    def is_primary(self) -> bool:
        """Tell whether this is the store whose key identifies a person."""
        return self.description.role is StoreRole.PRIMARY

    @property
    def journaled(self) -> Journaled | None:
        """Return the store as one that can keep a journal; `None` before its proof says that it can.

        Asked of the proof and not of the port: a port may be wrapped, and then shows every method.
        """
        if self.proof is None or self.proof.journal is JournalSupport.NOT_SUPPORTED:
            return None
        return cast("Journaled", self.port)

    @property
    def journal(self) -> Journaled | None:
        """Return the store as one that keeps a journal; `None` for one that may not, too."""
        return self.journaled if self.proof and self.proof.journal is JournalSupport.KEPT else None

    # what a pass has seen

    def note_proof(self, proof: Proof) -> None:
        """Note that the mapping fits the live schema."""
        self.proof = proof

    def forget_proof(self) -> None:
        """Let the mapping be proved anew: the schema is not as it was."""
        self.proof = None

    def note_trouble(self, trouble: Trouble | None) -> None:
        """Note what keeps the store from being used, as a pass ends; `None`: nothing does."""
        # What a pass has seen was before any restore that is declared after it.
        self.trouble, self.observed = trouble, None

    def note_ledger_behind(self) -> None:
        """Note that the journal knows more than the ledger. Only a newer ledger ends that: a new process."""
        self.ledger_behind = True

    def note_observed(self, asked_at: datetime, observed: JournalObservation) -> None:
        """Note how the store was seen at an instant: when it was asked, not when it answered."""
        self.last_observed_at, self.observed = asked_at, observed

    def note_swept(self, began_at: datetime, absent: Iterable[int]) -> None:
        """Note that everything that was ever erased has been read; `absent` are tombstones without a row.

        What is written back while it is being read may stand where it has been read already: so only what
        was so when it began is known.
        """
        self.known_absent, self.sweep_wanted, self.last_sweep_at = frozenset(absent), False, began_at

    def note_tidied(self, samples_left: tuple[str, ...]) -> None:
        """Note that statistics were renewed, and which of them may still hold what was erased."""
        self.samples_left = samples_left

    def note_written_back(self, records: Iterable[tuple[str, str]], at: datetime) -> None:
        """Note which erased records somebody had written back, and that were erased again."""
        for record in records:
            if record not in self.written_back:
                self.written_back[record] = at
                self.untold.append(record)

    def note_told(self, records: Sequence[tuple[str, str]]) -> None:
        """Note of which records that were written back an event has told."""
        self.untold = [one for one in self.untold if one not in records]

    def forget_written_back(self, record: tuple[str, str]) -> None:
        """Say no more of a record that it was written back: she has come back herself."""
        self.written_back.pop(record, None)

    def note_rejoined_in_vain(self, records: Iterable[tuple[str, str]]) -> None:
        """Note of which rows it is said for nothing that somebody has come back."""
        self.rejoined_in_vain = tuple(records)

    def want_sweep(self) -> None:
        """Let the next pass read everything that was ever erased."""
        self.sweep_wanted = True

    def note_catch_up(self, catch_up: CatchUp | None) -> None:
        """Note who is still to be cleared as the mapping says by now; `None`: nobody."""
        self.catch_up = catch_up

    def note_restored(self) -> None:
        """Note that the store went back: only what it looks like from now on tells when it comes to rest."""
        self.stable_observations, self.stable_identity = 0, None
        if self.observed is not None:
            self.count_unchanged(self.observed)

    def note_still_changing(self) -> None:
        """Note that a restore goes on that was taken to have ended."""
        self.stable_observations = 0

    def count_unchanged(self, observed: JournalObservation) -> int:
        """Return how many observations in a row, this one included, have shown the same store at rest."""
        before = self.stable_observations if self.stable_identity == observed.identity else 0
        self.stable_observations = before + 1 if observed.filling is None else 0
        self.stable_identity = observed.identity
        return self.stable_observations

    def describe_filling(self, filling: Filling, now: datetime) -> str:
        """Say who fills the store and since when: as the server tells, else since it was first seen."""
        if self.filling_seen is None or self.filling_seen[0] != filling.what:
            self.filling_seen = filling.what, now
        return f"{filling.what} since {instant(filling.since or self.filling_seen[1])}"

    # what blocks requests

    def block(self, records: Sequence[RequestRecord], blocker: Blocker, now: datetime | None = None) -> None:
        """Note what blocks requests here.

        With `now` each is tried again later and later, so that a blocked one does not hold up the
        others; without, it is the store that blocks, and all are tried as soon as it is back.
        """
        for record in records:
            attempts = self.attempts.get(record.request, 0) + 1
            self.blockers[record.request] = blocker
            self.attempts[record.request] = attempts
            if now is not None:
                pause = min(LONGEST_PAUSE, timedelta(seconds=0.25 * 2 ** min(attempts, 12)))
                self.not_before[record.request] = now + pause, record.confirmed

    def is_undone(self, what: str) -> int:
        """Note that what was erased (for a request, or again) was not so when it was read back.

        Returns how often, once it is no write that came in between any more; else 0.
        """
        self.undone[what] = times = self.undone.get(what, 0) + 1
        return times if times >= UNDONE_TIMES else 0

    def is_too_early(self, record: RequestRecord, now: datetime) -> bool:
        """Tell whether a blocked request is to wait still; a person's answer ends the wait."""
        until, confirmed = self.not_before.get(record.request, (now, record.confirmed))
        return now < until and confirmed == record.confirmed

    def retry_held_on_change(self, holds: frozenset[str]) -> None:
        """Take notice of the holds in force: who was held by others is looked at anew, at once."""
        if holds == self.holds_seen:
            return
        self.holds_seen = holds
        held = (BlockReason.HELD, BlockReason.PENDING)
        for request in [one for one, why in self.blockers.items() if why.reason in held]:
            self.unblock(request)

    def unblock(self, request: str) -> None:
        """Forget what blocked a request."""
        for noted in (self.blockers, self.attempts, self.not_before, self.undone):
            noted.pop(request, None)


def email_digest(keyring: Keyring, address: str) -> bytes:
    """Return the keyed fingerprint of an e-mail address, the same in every store."""
    return keyring.fingerprint("email", normalised_email(address))


def fingerprints_of(keyring: Keyring, store: str) -> Fingerprints:
    """Return the keyed digests of a store: `createdAt` is bound to the store, an e-mail is not."""
    return Fingerprints(
        created_at=lambda text: keyring.fingerprint("createdAt", store, text),
        email=lambda text: email_digest(keyring, text),
    )
