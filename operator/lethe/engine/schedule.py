"""One schedule for everything that waits for a moment; rebuilt at start, so nothing in it is lost."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Schedule(Generic[K]):
    """Keys that become due at a moment (seconds of a monotonic clock).

    A key waits once, for its earliest moment.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._count = 0

    def at(self, moment: float, key: K) -> None:
        """Let a key become due at a moment, if it does not do so earlier anyway."""
        if moment >= self._due.get(key, float("inf")):
            return
        self._due[key] = moment
        self._count += 1
        heapq.heappush(self._heap, (moment, self._count, key))

    def pop_due(self, now: float) -> list[K]:
        """Take out and return the keys that are due, in the order of their moments."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            moment, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == moment:
                del self._due[key]
                due.append(key)
        return due

    def next_moment(self) -> float | None:
        """Return when the next key becomes due; `None` if nothing waits."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._due)
