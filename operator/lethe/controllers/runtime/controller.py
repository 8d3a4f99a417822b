"""What a controller is: a queue of keys, and what is done for each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Generic

from lethe.controllers.runtime.queue import K, WorkQueue
from lethe.domain.trouble import Trouble


class Controller(ABC, Generic[K]):
    """Reconciles keys; how it is woken, retried and supervised is the runtime's (`Supervisor`).

    `at_once` bounds how many reconciles run at the same time, `batch` how many keys one of them takes, and
    `gather` is how long (seconds) a burst may gather before it is taken.
    """

    name: str
    at_once: int = 1
    batch: int = 1
    gather: float = 0.0

    def __init__(self) -> None:
        self.queue: WorkQueue[K] = WorkQueue()

    @abstractmethod
    async def reconcile(self, key: K) -> float | None:
        """Let the world be as it should for one key; return after how many seconds to look again.

        `None`: when something rings. Whatever it raises is this key's: the ledger's errors alone end the
        process.
        """

    async def reconcile_set(self, keys: Sequence[K]) -> Mapping[K, float | None]:
        """Reconcile a set at once, where `batch` lets a set be taken; by default one after the other.

        A set that fails is taken apart until only the culprit fails.
        """
        return {key: await self.reconcile(key) for key in keys}

    async def show_trouble(self, key: K, trouble: Trouble) -> None:
        """Say in the status of an object that reconciling it failed; nothing where it has none."""

    async def take_stock(self, namespaces: Collection[str]) -> None:
        """List the objects of this kind: take in what there is, and drop what is gone."""

    async def close(self) -> None:
        """Let go of what was begun and can be interrupted."""


class RepeatedWork(Controller[str]):
    """One piece of work that belongs to no object: done each so many seconds, and whenever it is rung for."""

    def __init__(
        self, name: str, work: Callable[[], Awaitable[None]], *, every: float | None, gather: float = 0.0
    ) -> None:
        super().__init__()
        self.name, self._work, self._every, self.gather = name, work, every, gather

    def ring(self, *, after: float = 0.0) -> None:
        """Let it be done soon, or after so many seconds."""
        self.queue.add(self.name, after=after)

    async def reconcile(self, key: str) -> float | None:  # noqa: ARG002 - there is one key only
        """Do it; return after how many seconds it is done again."""
        await self._work()
        return self._every
