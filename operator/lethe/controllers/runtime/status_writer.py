"""The one place that compares statuses and writes them, as seldom as says what is new."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import msgspec

from lethe.controllers.runtime.metrics import Metrics
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable

log = logging.getLogger("lethe.status")

CONCURRENT_WRITES = 16
_encode = msgspec.json.Encoder(order="deterministic").encode

Status = Mapping[str, Any]


class Written(Enum):
    """What came of writing a status."""

    SAME = "same"
    """It says nothing new, or nothing that can't wait (`waits_for`)."""
    WRITTEN = "written"
    GONE = "gone"
    """The object is gone, or is another one by now."""
    WAITS = "waits"
    """The API server is away, or refuses."""


@dataclass(frozen=True, slots=True)
class StatusKind:
    """How statuses of one kind are compared.

    `essence` reduces a status to what is worth a write at once, `detail` to what is worth one only when the
    last write is `patience` seconds old.
    """

    plural: str
    kind: str
    essence: Callable[[Status], object]
    detail: Callable[[Status], object] = lambda _: None
    patience: float = 0.0


class Shown(Protocol):
    """The status that an object was last seen with."""

    uid: str
    written_at: float

    def differs(self, status: Status, essence: Callable[[Status], object]) -> bool:
        """Tell whether what a status comes to is something else."""
        ...

    def patch(self, status: Status) -> Status:
        """Return what to send, as a merge patch."""
        ...

    def note(self, status: Status) -> None:
        """Take notice that a status was written."""
        ...


@dataclass(slots=True)
class ShownStatus:
    """The whole status that an object was last seen with; `written_at` is monotonic."""

    uid: str
    status: Status = field(default_factory=dict)
    written_at: float = float("-inf")

    def differs(self, status: Status, essence: Callable[[Status], object]) -> bool:
        """Tell whether what a status comes to is something else."""
        return essence(status) != essence(self.status)

    def patch(self, status: Status) -> Status:
        """Return what to send: what is no longer said is removed by null."""
        return replacing(status, self.status)

    def note(self, status: Status) -> None:
        """Take notice that a status was written."""
        self.status, self.written_at = status, time.monotonic()


@dataclass(slots=True)
class ShownDigest:
    """A digest of the status that an object was last seen with, for kinds of which there are very many.

    Their statuses never drop a field: each that may be absent is sent as null.
    """

    uid: str
    digest: bytes
    written_at: float = float("-inf")

    @classmethod
    def of(cls, uid: str, status: Status) -> ShownDigest:
        """Return the digest of a status as it stands there."""
        return cls(uid, digest_of(status))

    def differs(self, status: Status, essence: Callable[[Status], object]) -> bool:  # noqa: ARG002
        """Tell whether a status is another one: of a digest there is no essence."""
        return digest_of(status) != self.digest

    def patch(self, status: Status) -> Status:
        """Return what to send."""
        return status

    def note(self, status: Status) -> None:
        """Take notice that a status was written."""
        self.digest, self.written_at = digest_of(status), time.monotonic()


class StatusWriter:
    """Writes statuses, a few at a time, and counts them."""

    def __init__(self, cluster: Cluster, metrics: Metrics) -> None:
        self._cluster, self._metrics = cluster, metrics
        self._slots = asyncio.Semaphore(CONCURRENT_WRITES)

    async def write(self, kind: StatusKind, key: tuple[str, str], shown: Shown, status: Status) -> Written:
        """Write a status if it says something new. `shown` is what stands there, and is kept up to date."""
        if waits_for(kind, shown, status) != 0.0:
            return Written.SAME
        async with self._slots:
            self._metrics.api_writes.labels("status").inc()
            try:
                written = await self._cluster.write_status(
                    kind.plural, *key, uid=shown.uid, status=shown.patch(status)
                )
            except (ClusterUnavailable, ClusterRefused) as away:
                log.warning("status of a %s waits: %s", kind.kind, away)
                return Written.WAITS
        if not written:
            return Written.GONE
        shown.note(status)
        return Written.WRITTEN


def without_counters(status: Status) -> object:
    """Return what is news of most kinds: not what moves with every look and every erasure.

    How many erasures a store holds is shown when something else is written anyway: a write for each would
    cost as much as the requests themselves.
    """
    shown = {name: value for name, value in status.items() if name not in _MOVING}
    return {**shown, "missing": (status.get("erasures") or {}).get("missing", 0)}


_MOVING = frozenset({"lastSeenAt", "lastSweptAt", "lastScanAt", "journal", "erasures"})


def waits_for(kind: StatusKind, shown: Shown, status: Status) -> float | None:
    """Return after how many seconds a status is worth a write: 0 is now, `None` never."""
    if shown.differs(status, kind.essence):
        return 0.0
    if not shown.differs(status, kind.detail):
        return None
    return max(0.0, shown.written_at + kind.patience - time.monotonic())


def replacing(status: Status, before: Status) -> dict[str, Any]:
    """Return a status as a merge patch: what is no longer said is removed by null."""
    patch: dict[str, Any] = dict.fromkeys(before)
    for name, value in status.items():
        known = before.get(name)
        both = isinstance(value, Mapping) and isinstance(known, Mapping)
        patch[name] = replacing(value, known or {}) if both else value
    return patch


def digest_of(status: Status) -> bytes:
    """Return a digest of what a status says; what it says is absent counts as not said."""
    shown = {key: value for key, value in status.items() if value is not None}
    return hashlib.blake2b(_encode(shown), digest_size=16).digest()
