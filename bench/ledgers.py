"""Filling a ledger as years of requests would, only faster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from secrets import token_bytes

from bench.measuring import Stopwatch
from lethe.domain.facts import Accepted, Completed, Fact, Intended, Outcome, Verified
from lethe.domain.journal import Head, next_move
from lethe.domain.periods import Period
from lethe.domain.tombstones import Fingerprints, Tombstone
from lethe.ports.keys import Keyring
from lethe.ports.ledger import Ledger, MoveIntended, MoveNote, MoveSettled

CHUNK = 500
"""As many requests as one pass of the operator takes on."""

FACTS_PER_REQUEST = 4

Person = tuple[str, str, str]
"""Key, canonical text of `created_at`, e-mail."""


def record_erasures(
    ledger: Ledger,
    keyring: Keyring,
    fingerprints: Fingerprints,
    people: Iterable[Sequence[Person]],
    *,
    store: str,
    version: str,
    token: int,
) -> tuple[int, float]:
    """Record the erasure of people, each by a request of its own, in the four appends that a pass makes.

    Returns the number of facts and the seconds that the ledger took.
    """
    facts, seconds = 0, 0.0
    for chunk in people:
        steps = _facts_of(ledger, keyring, fingerprints, chunk, store=store, version=version, token=token)
        for happened, moves in steps:
            watch = Stopwatch()
            ledger.append(happened, moves=moves)
            seconds += watch.lap()
            facts += len(happened)
    return facts, seconds


def _facts_of(
    ledger: Ledger,
    keyring: Keyring,
    fingerprints: Fingerprints,
    chunk: Sequence[Person],
    *,
    store: str,
    version: str,
    token: int,
) -> list[tuple[list[Fact], list[MoveNote]]]:
    known = ledger.known_head(store)
    first, now = known.last_number + 1, datetime.now(UTC)
    names = [f"request-{first + n}" for n in range(len(chunk))]
    accepted: list[Fact] = [
        Accepted(
            request=name,
            namespace=store.partition("/")[0],
            name=name,
            spec_digest=keyring.fingerprint("spec", name).hex(),
            accepted_at=now,
            requested_at=now,
            due_at=Period(1, 0).after(now),
            subject_id=key,
            stores=(store,),
        )
        for name, (key, _, _) in zip(names, chunk, strict=True)
    ]
    intended: list[Fact] = [
        Intended(
            name,
            store,
            (
                Tombstone(
                    first + n,
                    name,
                    "users",
                    key,
                    version,
                    created_at=fingerprints.created_at(created),
                    email=fingerprints.email(email),
                ),
            ),
        )
        for n, (name, (key, created, email)) in enumerate(zip(names, chunk, strict=True))
    ]
    verified: list[Fact] = [Verified(name, store, now, {"users": 1, "sessions": 2}) for name in names]
    completed: list[Fact] = [Completed(name, now, Outcome.ERASED) for name in names]
    move = next_move(known.head, after_move=0, token=token, nonce=token_bytes(16))
    return [
        (accepted, []),
        (intended, [MoveIntended(store, move, reserve=len(chunk))]),
        (verified, [MoveSettled(store, Head(move.move, move.digest))]),
        (completed, []),
    ]
