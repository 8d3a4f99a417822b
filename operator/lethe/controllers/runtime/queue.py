"""The keys that wait to be reconciled: each once, at its earliest moment, and never two at a time."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
"""How long a key waits that failed, in seconds: the first time, and at the most; it doubles in between."""
ENTRIES_TO_SPARE = 64
"""How many more entries than twice its keys a heap may hold before what is outdated is dropped."""


class WorkQueue(Generic[K]):
    """Keys with the moment (seconds of a monotonic clock) at which they are due.

    A key that is added while it is being reconciled is due again right after. Nothing in a queue is lost with
    the process: it is rebuilt from ledger and API server.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, K]] = []
        self._moments: dict[K, float] = {}
        self._running: set[K] = set()
        self._failures: dict[K, int] = {}
        self._count = 0
        self._added = asyncio.Event()

    def add(self, key: K, *, after: float = 0.0) -> None:
        """Let a key be due after so many seconds, if it is not due earlier anyway."""
        moment = self._clock() + max(0.0, after)
        if moment >= self._moments.get(key, float("inf")):
            return
        self._moments[key] = moment
        if key not in self._running:
            self._push(key, moment)

    def discard(self, key: K) -> None:
        """Forget a key: its object is gone. One that is being reconciled ends all the same."""
        self._moments.pop(key, None)
        self._failures.pop(key, None)

    async def take(self, most: int = 1, *, gather: float = 0.0) -> list[K]:
        """Wait until keys are due, and return them, at most so many, in the order of their moments.

        `gather` is how long a burst may gather first. Each key is to be given back by `done`.
        """
        while True:
            await self._wait_until_due()
            if gather:
                await asyncio.sleep(gather)
            if taken := self._take_due(most):  # else what was due was discarded as it gathered
                return taken

    def done(self, key: K) -> None:
        """Give a key back; one that was added meanwhile waits again."""
        self._running.discard(key)
        moment = self._moments.get(key)
        if moment is not None:
            self._push(key, moment)

    def retry(self, key: K) -> float:
        """Let a key that failed be due again, later each time; return after how many seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10))
        self.add(key, after=pause)
        return pause

    def succeeded(self, key: K) -> None:
        """Forget how often a key has failed."""
        self._failures.pop(key, None)

    def __len__(self) -> int:
        return len(self._moments)

    def __contains__(self, key: object) -> bool:
        return key in self._moments

    async def _wait_until_due(self) -> None:
        while not self._is_due():
            moment = self._next_moment()
            self._added.clear()
            timeout = None if moment is None else max(0.0, moment - self._clock())
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):  # wait_for may swallow a cancellation before Python 3.12
                    await self._added.wait()

    def _push(self, key: K, moment: float) -> None:
        if len(self._heap) > 2 * len(self._moments) + ENTRIES_TO_SPARE:
            self._drop_outdated()
        self._count += 1
        heapq.heappush(self._heap, (moment, self._count, key))
        self._added.set()

    def _drop_outdated(self) -> None:
        """Drop the entries whose keys are due at another moment by now, or not at all."""
        current = [e for e in self._heap if self._moments.get(e[2]) == e[0] and e[2] not in self._running]
        self._heap = list({entry[2]: entry for entry in current}.values())
        heapq.heapify(self._heap)

    def _next_moment(self) -> float | None:
        """Return when the next key is due that is not being reconciled; `None` if none waits."""
        while self._heap:
            moment, _, key = self._heap[0]
            if self._moments.get(key) == moment and key not in self._running:
                return moment
            heapq.heappop(self._heap)
        return None

    def _is_due(self) -> bool:
        moment = self._next_moment()
        return moment is not None and moment <= self._clock()

    def _take_due(self, most: int) -> list[K]:
        taken: list[K] = []
        while len(taken) < most and self._is_due():
            _, _, key = heapq.heappop(self._heap)
            del self._moments[key]
            self._running.add(key)
            taken.append(key)
        return taken


class FairQueue(WorkQueue[K]):
    """A queue in which who has very many keys that are due holds up nobody else.

    Keys belong to lanes, such as namespaces. What is taken at once is of one lane; lanes take turns, and one
    of which `at_once` keys are being reconciled waits until fewer are.
    """

    def __init__(
        self, lane: Callable[[K], Hashable], *, at_once: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(clock)
        self._lane, self._at_once = lane, at_once
        self._due: dict[Hashable, deque[K]] = {}
        self._busy: Counter[Hashable] = Counter()

    def done(self, key: K) -> None:
        """Give a key back; its lane may have its turn again."""
        lane = self._lane(key)
        self._busy[lane] -= 1
        if not self._busy[lane]:
            del self._busy[lane]
        super().done(key)
        self._added.set()

    def _next_moment(self) -> float | None:
        """Return when the next key is due whose lane may have its turn."""
        moment = super()._next_moment()
        while moment is not None and moment <= self._clock():
            key = heapq.heappop(self._heap)[2]
            self._due.setdefault(self._lane(key), deque()).append(key)
            moment = super()._next_moment()
        return self._clock() if self._next_lane() is not None else moment

    def _next_lane(self) -> Hashable | None:
        return next((lane for lane in self._due if self._busy[lane] < self._at_once), None)

    def _take_due(self, most: int) -> list[K]:
        taken: list[K] = []
        while not taken and self._is_due():
            lane = self._next_lane()
            waiting = self._due.pop(lane)
            while waiting and len(taken) < most:
                key = waiting.popleft()
                if self._moments.pop(key, None) is not None:  # else it was discarded
                    self._running.add(key)
                    taken.append(key)
            if waiting:
                self._due[lane] = waiting  # after all others
            self._busy[lane] += len(taken)
        return taken
