"""Facts as the ledger's tests record them, and a clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

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
        subject_id="4711",
        reference="T-1",
        stores=stores,
    )


def tombstone(number: int, request: str) -> Tombstone:
    return Tombstone(
        number, request, "public.users", f"key-{number}", "m1", bytes(32), number.to_bytes(32, "big")
    )


def intended(request: str, *numbers: int, store: str = "site") -> Intended:
    return Intended(request, store, tuple(tombstone(number, request) for number in numbers))


def erased(request: str, *numbers: int, store: str = "site") -> list[Fact]:
    """Return the facts of a request that was accepted and whose records were erased in one store."""
    return [accepted(request), intended(request, *numbers, store=store), Verified(request, store, NOW)]
