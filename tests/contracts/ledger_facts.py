"""Facts as the ledger's tests record them, and a clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

from lethe.domain.facts import Accepted, Fact, Intended, Verified
from lethe.domain.tombstones import Tombstone

NOW = datetime(2026, 11, 3, 9, 30, 0, 123456, tzinfo=UTC)
STORES = ("site", "crm")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def accepted(request: str, *, name: str | None = None, stores: tuple[str, ...] = STORES) -> Accepted:
    return Accepted(
        request=request,
        namespace="shop",
        name=name or f"forget-{request}",
        spec_digest="sha256:ab",
        accepted_at=NOW,
        requested_at=NOW - timedelta(hours=1),
        due_at=NOW + timedelta(days=30),
        subject_id="subject-4711",
        reference="TICKET-0001",
        stores=stores,
    )


def tombstone(number: int, request: str) -> Tombstone:
    return Tombstone(
        number, request, "public.users", f"users-key-{number}", "m1", bytes(32), number.to_bytes(32, "big")
    )


def intended(request: str, *numbers: int, store: str = "site") -> Intended:
    return Intended(request, store, tuple(tombstone(number, request) for number in numbers))


def erased(request: str, *numbers: int, store: str = "site") -> list[Fact]:
    """Return the facts of a request that was accepted and whose records were erased in one store."""
    return [accepted(request), intended(request, *numbers, store=store), Verified(request, store, NOW)]


SHORTEST_NEEDLE = 6
"""Bytes: of fewer, what is random or written in hex comes to hold one by itself."""


def everything_shown(behind: Connection, tables_query: str) -> bytes:
    """Return all that stands in the tables of a database; the query names them."""
    return b"|".join(
        bytes(value) if isinstance(value, bytes) else str(value).encode()
        for (table,) in behind.execute(text(tables_query)).all()
        for row in behind.execute(text(f'SELECT * FROM "{table}"')).all()
        for value in row
    )


def require_hidden(shown: bytes, *secrets: str | bytes) -> None:
    """Require that none of these stands in what is shown."""
    for secret in secrets:
        needle = secret.encode() if isinstance(secret, str) else secret
        assert len(needle) >= SHORTEST_NEEDLE, f"{secret!r} can stand there by chance"
        assert needle not in shown, secret
