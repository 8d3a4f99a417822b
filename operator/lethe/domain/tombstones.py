"""The memory of an erasure, which holds nothing personal, and the judgement of who came back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


def match_restored_rows(
    fingerprints: Fingerprints, decided: Callable[[str, str], Identity | None] = lambda _table, _key: None
) -> IdentityMatcher:
    """Return the judge for a replay or sweep: whose is a row that stands uncleared under an erased key?

    In this order:

    0. the token of the erasure stands in the row still: the same person.
    1. the digest of `createdAt`, where both sides have one: equal is the same person, different
       somebody else. Never by order in time: two restores break that.
    2. the fingerprint of the e-mail: equal is the same person. A different e-mail proves nothing, since
       people change theirs.
    3. what a person decided in `spec.identities` of the RestoreEvent.
    4. otherwise it is unclear, and software does not decide.
    """

    def one(tombstone: Tombstone, seen: SeenRecord) -> Identity:
        if seen.marked:
            return Identity.SAME
        if tombstone.created_at is not None and seen.created_at is not None:
            same = fingerprints.created_at(seen.created_at) == tombstone.created_at
            return Identity.SAME if same else Identity.OTHER
        if tombstone.email is not None and _digest(fingerprints.email, seen.email) == tombstone.email:
            return Identity.SAME
        return decided(tombstone.table, tombstone.key) or Identity.UNCLEAR

    return lambda pairs: [one(tombstone, seen) for tombstone, seen in pairs]


def _digest(fingerprint: Fingerprint, text: str | None) -> bytes | None:
    return None if text is None else fingerprint(text)
