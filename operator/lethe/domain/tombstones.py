"""The memory of an erasure, which holds nothing personal, and the judgement of who came back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from lethe.domain.identifiers import PersonalText


@dataclass(frozen=True, slots=True)
class Tombstone:
    """One record of one person that was, or is about to be, erased in a store.

    `number` is its position in the store's journal; `key` the surrogate key's text; `mapping` the
    version of the mapping whose values were written. `created_at` and `email` are keyed digests
    (HMAC-SHA256) that tell the same person from somebody who was given the key again; `None` where
    the store had no such value.
    """

    number: int
    request: str
    table: str
    key: str
    mapping: str
    created_at: bytes | None = None
    email: bytes | None = None


@dataclass(frozen=True, slots=True)
class SeenRecord:
    """What a store shows of a record now. `created_at` is canonical text (UTC, microseconds).

    `marked` tells that some column still holds the unguessable token that an erasure wrote for this very
    key: then the row is the erased person's, whatever somebody has written into the others since.
    """

    key: str
    created_at: str | None
    email: PersonalText | None
    marked: bool = False


class Identity(StrEnum):
    """Who an uncleared record belongs to."""

    SAME = "Same"
    OTHER = "Other"
    UNCLEAR = "Unclear"


IdentityMatcher = Callable[[Sequence[tuple[Tombstone, SeenRecord]]], Sequence[Identity]]
"""Judges a set of records at once; the same length and order as what it is given."""

Fingerprint = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """The keyed digests of one store: of `createdAt` texts and of normalised e-mail addresses."""

    created_at: Fingerprint
    email: Fingerprint


def match_unchanged_rows(fingerprints: Fingerprints) -> IdentityMatcher:
    """Return the judge for a first erasure: the locked row must still be the one that was found.

    A row that changed hands or address between finding and locking is `UNCLEAR`: it is looked for again.
    """

    def matcher(pairs: Sequence[tuple[Tombstone, SeenRecord]]) -> list[Identity]:
        return [
            Identity.SAME
            if _digest(fingerprints.created_at, seen.created_at) == tombstone.created_at
            and (
                tombstone.created_at is not None or _digest(fingerprints.email, seen.email) == tombstone.email
            )
            else Identity.UNCLEAR
            for tombstone, seen in pairs
        ]

    return matcher


def _never(_table: str, _key: str) -> bool:
    return False


def _nobody(_tombstone: Tombstone) -> Identity | None:
    return None


def undecided(_table: str, _key: str) -> Identity | None:
    """Return what nobody has decided."""
    return None


@dataclass(slots=True)
class RestoredRows:
    """The judge (an `IdentityMatcher`) for a replay or sweep: whose is a row that stands uncleared under an
    erased key?

    In this order:

    0. what `rejoined` tells of somebody who has consented anew: her row is nobody's who was erased.
       Then the token of the erasure stands in the row still: the same person.
    1. the digest of `createdAt`, where both sides have one: equal is the same person. Different is somebody
       else, unless the address is that of the erased person, and no restore tells that the key may have been
       given out again: then the application, or who restored, has changed `createdAt`, and it is unclear.
       Never by order in time: two restores break that.
    2. the fingerprint of the e-mail: equal is the same person. A different e-mail proves nothing, since
       people change theirs.
    3. what a person decided in `spec.identities` of the RestoreEvent.
    4. otherwise it is unclear, and software does not decide.

    `given_out_again` tells of `(table, key)` whether a restore went back to before it. `same_address` gathers
    the rows that were taken for somebody else's although the address is the erased person's.
    """

    fingerprints: Fingerprints
    decided: Callable[[str, str], Identity | None]
    given_out_again: Callable[[str, str], bool]
    rejoined: Callable[[Tombstone], Identity | None]
    same_address: set[tuple[str, str]] = field(default_factory=set)

    def __call__(self, pairs: Sequence[tuple[Tombstone, SeenRecord]]) -> list[Identity]:
        """Judge a set of records, all that are known of a row in the same one; the same length and order."""
        alike = set[tuple[str, str]]()
        verdicts = [self._judge(tombstone, seen, alike) for tombstone, seen in pairs]
        found = zip(pairs, verdicts, strict=True)
        self.same_address |= alike - {(t.table, t.key) for (t, _), one in found if one is Identity.SAME}
        return verdicts

    def _judge(self, tombstone: Tombstone, seen: SeenRecord, alike: set[tuple[str, str]]) -> Identity:
        rejoined = self.rejoined(tombstone)
        if rejoined is not None:
            return rejoined
        if seen.marked:
            return Identity.SAME
        dated = tombstone.created_at is not None and seen.created_at is not None
        if dated and _digest(self.fingerprints.created_at, seen.created_at) == tombstone.created_at:
            return Identity.SAME
        address = _digest(self.fingerprints.email, seen.email)
        same_address = tombstone.email is not None and address == tombstone.email
        if not dated and same_address:
            return Identity.SAME
        if dated and not same_address:
            return Identity.OTHER
        verdict = self.decided(tombstone.table, tombstone.key)
        if verdict is None and dated and self.given_out_again(tombstone.table, tombstone.key):
            verdict = Identity.OTHER
        if dated and verdict is Identity.OTHER:
            alike.add((tombstone.table, tombstone.key))
        return verdict or Identity.UNCLEAR


def match_restored_rows(
    fingerprints: Fingerprints,
    decided: Callable[[str, str], Identity | None] = undecided,
    given_out_again: Callable[[str, str], bool] = _never,
    rejoined: Callable[[Tombstone], Identity | None] = _nobody,
) -> RestoredRows:
    """Return the judge of whose rows are that stand under erased keys after a restore or a write-back."""
    return RestoredRows(fingerprints, decided, given_out_again, rejoined)


def _digest(fingerprint: Fingerprint, text: str | None) -> bytes | None:
    return None if text is None else fingerprint(text)
