"""The chain of entries: how a fact becomes one, and how an entry is checked.

1. The payload's plain text is 32 random bytes (the salt) and the fact as canonical JSON; it is
   encrypted with the key of the entry's month (AES-256-GCM, bound to the sequence).
2. `payload_digest` is the SHA-256 of that plain text, so it tells nothing once salt and text are gone.
3. `digest` is the SHA-256 of every other column and of the entry before. No digest covers the
   ciphertext: payloads can be destroyed by destroying the month's key, and the chain still verifies.
4. Where the chain ends is authenticated with the ledger's keys (`ledger.end_mac`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, insert, select

from lethe.adapters.ledger.schema import entries, period_keys
from lethe.domain.facts import FACT_KINDS, Fact, Intended
from lethe.ports.keys import Keyring, SealBroken
from lethe.ports.ledger import ChainBroken, LedgerError

GENESIS = bytes(32)
"""The digest that the first entry follows."""

_NONCE_BYTES, _SALT_BYTES, _KEY_BYTES = 12, 32, 32
_RANDOM_BYTES = _NONCE_BYTES + _SALT_BYTES
_bound_to = struct.Struct(">Q").pack
_encode = msgspec.json.Encoder(order="deterministic").encode
_decoders = {kind: msgspec.json.Decoder(fact_type) for kind, fact_type in FACT_KINDS.items()}


class Entry(NamedTuple):
    """One row of `entries`, in the order of its columns."""

    sequence: int
    at: str
    kind: str
    request: str | None
    store: str | None
    number: int | None
    period: str
    token: int
    payload: bytes | None
    payload_digest: bytes
    previous_digest: bytes
    digest: bytes


def entry_digest(
    sequence: int,
    at: str,
    kind: str,
    request: str | None,
    store: str | None,
    number: int | None,
    period: str,
    token: int,
    payload_digest: bytes,
    previous_digest: bytes,
) -> bytes:
    """Return the SHA-256 of an entry's columns as one JSON array, then of the two digests.

    As JSON no two different rows read alike: strings end, and what is absent is not what is empty.
    """
    columns = _encode((sequence, at, kind, request, store, number, period, token))
    return sha256(b"".join((columns, payload_digest, previous_digest))).digest()


def end_mac(keyring: Keyring, ledger_id: str, sequence: int, digest: bytes) -> bytes:
    """Return the keyed digest of where a chain ends."""
    return keyring.fingerprint("ledger-end", ledger_id, str(sequence), digest.hex())


class PeriodKeys:
    """The keys of the months' payloads, each unsealed once."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._unsealed: dict[tuple[str, bytes], AESGCM] = {}

    def for_reading(self, connection: Connection, period: str) -> AESGCM | None:
        """Return a month's key; `None` where it was destroyed.

        Raises `ChainBroken` for a key that was changed or that is gone without a trace.
        """
        wrapped = self._wrapped(connection, period)
        if wrapped is None:
            raise ChainBroken(f"The key of {period} is gone without a trace of its destruction.")
        return self._key(period, wrapped[0]) if wrapped[0] else None

    def for_writing(self, connection: Connection, period: str) -> AESGCM:
        """Return a month's key, made now if need be.

        Always asks the database: with a key that is not there (any more, after the ledger went back in
        time), entries would be written that nobody ever reads.
        """
        wrapped = self._wrapped(connection, period)
        if wrapped is None:
            sealed_key = self._keyring.seal(os.urandom(_KEY_BYTES), f"period:{period}")
            connection.execute(insert(period_keys), {"period": period, "wrapped_key": sealed_key})
            return self._key(period, sealed_key)
        if wrapped[0] is None:
            raise LedgerError(f"The key of {period} is destroyed, and it is {period}: correct the clock.")
        return self._key(period, wrapped[0])

    def forget(self, period: str) -> None:
        """Keep no key in memory that was destroyed."""
        for known in [cached for cached in self._unsealed if cached[0] == period]:
            del self._unsealed[known]

    def _wrapped(self, connection: Connection, period: str) -> tuple[bytes | None] | None:
        query = select(period_keys.c.wrapped_key).where(period_keys.c.period == period)
        row = connection.execute(query).one_or_none()
        return None if row is None else (row.wrapped_key,)

    def _key(self, period: str, wrapped: bytes) -> AESGCM:
        known = self._unsealed.get((period, wrapped))
        if known is None:
            try:
                known = AESGCM(self._keyring.unseal(wrapped, f"period:{period}"))
            except SealBroken:
                raise ChainBroken(f"The key of {period} was changed.") from None
            self._unsealed[period, wrapped] = known
        return known


def chained(
    facts: Sequence[Fact], *, after: tuple[int, bytes], at: datetime, token: int, key: AESGCM
) -> list[Entry]:
    """Return the entries of facts that follow the entry `after` (sequence and digest)."""
    sequence, previous = after
    instant, period = at.isoformat(), period_of(at)
    random = os.urandom(len(facts) * _RANDOM_BYTES)
    chain: list[Entry] = []
    for fact, start in zip(facts, range(0, len(random), _RANDOM_BYTES), strict=True):
        sequence += 1
        nonce = random[start : start + _NONCE_BYTES]
        plain = random[start + _NONCE_BYTES : start + _RANDOM_BYTES] + _encode(fact)
        payload_digest = sha256(plain).digest()
        number = fact.tombstones[0].number if isinstance(fact, Intended) and fact.tombstones else None
        columns = (
            sequence,
            instant,
            type(fact).__name__,
            getattr(fact, "request", None),
            getattr(fact, "store", None),
            number,
            period,
            token,
        )
        digest = entry_digest(*columns, payload_digest, previous)
        payload = nonce + key.encrypt(nonce, plain, _bound_to(sequence))
        chain.append(Entry(*columns, payload, payload_digest, previous, digest))
        previous = digest
    return chain


def period_of(at: datetime) -> str:
    """Return the month whose key encrypts what is recorded at an instant, as `2026-11`."""
    return at.strftime("%Y-%m")


def decrypted(key: AESGCM, sequence: int, payload: bytes) -> bytes:
    """Return an entry's salt and JSON. Raises `ChainBroken`."""
    try:
        return key.decrypt(payload[:_NONCE_BYTES], payload[_NONCE_BYTES:], _bound_to(sequence))
    except (InvalidTag, ValueError):
        raise ChainBroken(f"The payload of entry {sequence} was changed.") from None


def decoded(kind: str, sequence: int, plain: bytes) -> Fact:
    """Return the fact in an entry's plain text. Raises `ChainBroken`."""
    try:
        fact: Fact = _decoders[kind].decode(memoryview(plain)[_SALT_BYTES:])
    except (KeyError, msgspec.MsgspecError):
        # The decoder's own message quotes the text.
        raise ChainBroken(f"Entry {sequence} holds no {kind} that this Lethe can read.") from None
    return fact


_WALK_ROWS = 2_000


def walk(connection: Connection, *, until: int) -> Iterator[Entry]:
    """Yield the entries up to a sequence, in order, by ranges of keys."""
    last = 0
    while last < until:
        query = (
            select(entries)
            .where(entries.c.sequence > last, entries.c.sequence <= until)
            .order_by(entries.c.sequence)
            .limit(_WALK_ROWS)
        )
        rows = connection.execute(query).all()
        if not rows:
            return
        for row in rows:
            yield Entry(*row)
        last = rows[-1].sequence


def checked(
    rows: Iterable[Entry], key_of: Callable[[str], AESGCM | None]
) -> Iterator[tuple[Entry, Fact | None]]:
    """Yield each entry with its fact (`None`: destroyed), after proof that it follows from the one before.

    Raises `ChainBroken`.
    """
    previous, period, key = GENESIS, "", None
    for sequence, entry in enumerate(rows, start=1):
        if entry.sequence != sequence:
            raise ChainBroken(f"Entry {sequence} is missing.")
        if entry.previous_digest != previous:
            raise ChainBroken(f"Entry {sequence} does not follow from the one before.")
        if entry.digest != entry_digest(*entry[:8], entry.payload_digest, entry.previous_digest):
            raise ChainBroken(f"Entry {sequence} was changed.")
        previous = entry.digest
        if entry.period != period:
            period, key = entry.period, key_of(entry.period)
        if key is not None and entry.payload is None:
            key = key_of(period)  # it may have been destroyed since the walk came into this month
        yield entry, _fact(entry, key)


def _fact(entry: Entry, key: AESGCM | None) -> Fact | None:
    if key is None:
        return None
    if entry.payload is None:
        raise ChainBroken(f"The payload of entry {entry.sequence} is gone, and its key is not destroyed.")
    plain = decrypted(key, entry.sequence, entry.payload)
    if sha256(plain).digest() != entry.payload_digest:
        raise ChainBroken(f"The payload of entry {entry.sequence} is not the one that was recorded.")
    return decoded(entry.kind, entry.sequence, plain)
