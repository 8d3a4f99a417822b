"""Runs controllers. What one key does wrong never escapes it; without its ledger nobody acts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic

from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.queue import K
from lethe.domain.trouble import Trouble
from lethe.ports.cluster import ClusterRefused, ClusterUnavailable
from lethe.ports.ledger import LedgerError

log = logging.getLogger("lethe.controllers")

BEAT_SECONDS = 1.0


class Supervisor:
    """Runs controllers until one meets an error of the ledger, or it is cancelled."""

    def __init__(self, controllers: Sequence[Controller[Any]]) -> None:
        self._controllers = controllers
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._beat = time.monotonic()

    @property
    def heartbeat_age(self) -> float:
        """Return the seconds since the event loop last turned."""
        return time.monotonic() - self._beat

    async def run(self) -> None:
        """Run every controller. Raises `LedgerError`."""
        loops = [asyncio.create_task(self._run(one), name=one.name) for one in self._controllers]
        loops.append(asyncio.create_task(self._keep_beating(), name="heartbeat"))
        try:
            done, _ = await asyncio.wait([*loops, self._failed], return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            self._failed.cancel()

    async def _keep_beating(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)

    async def _run(self, controller: Controller[K]) -> None:
        lane = _Lane(controller, self._failed)
        try:
            await lane.run()
        finally:
            await lane.close()


class _Lane(Generic[K]):
    """One controller at work: so many reconciles at once, each in a task of its own."""

    def __init__(self, controller: Controller[K], failed: asyncio.Future[None]) -> None:
        self._controller, self._queue, self._failed = controller, controller.queue, failed
        self._slots = asyncio.Semaphore(controller.at_once)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        while True:
            await self._slots.acquire()
            keys = await self._queue.take(self._controller.batch, gather=self._controller.gather)
            task = asyncio.create_task(self._reconcile(keys), name=f"{self._controller.name} {keys[:1]}")
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _reconcile(self, keys: Sequence[K]) -> None:
        """Reconcile keys; of a set that fails each half alone. Raises the ledger's errors only."""
        for key, defect in (await take_apart(keys, self._reconcile_set)).items():
            await self._show(key, defect)

    async def _reconcile_set(self, keys: Sequence[K]) -> None:
        try:
            pauses = await self._controller.reconcile_set(keys)
        except (ClusterUnavailable, ClusterRefused) as away:
            log.warning("%s: %d wait: %s", self._controller.name, len(keys), away)
            for key in keys:
                self._give_back(key, failed=True)
            return
        for key in keys:
            self._queue.succeeded(key)
            pause = pauses.get(key)
            if pause is not None:
                self._queue.add(key, after=pause)
            self._give_back(key, failed=False)

    async def _show(self, key: K, defect: BaseException) -> None:
        name = self._controller.name
        log.error("%s: reconciling %s failed; it is tried again", name, key, exc_info=defect)
        try:
            await self._controller.show_trouble(key, Trouble.of_defect(defect))
        except BaseException as raised:
            if not _is_defect(raised):
                raise
            log.exception("%s: that %s failed can't be shown in its status", name, key)
        self._give_back(key, failed=True)

    def _give_back(self, key: K, *, failed: bool) -> None:
        if failed:
            self._queue.retry(key)
        self._queue.done(key)


async def take_apart(
    keys: Sequence[K], work: Callable[[Sequence[K]], Awaitable[object]]
) -> dict[K, BaseException]:
    """Do work for a set; if it fails, for each half, until only the culprits fail. Returns their errors.

    Raises the ledger's errors only.
    """
    try:
        await work(keys)
    except BaseException as defect:
        if not keys or not _is_defect(defect):
            raise
        if len(keys) == 1:
            return {keys[0]: defect}
        middle = len(keys) // 2
        culprits = await take_apart(keys[:middle], work)
        return culprits | await take_apart(keys[middle:], work)
    return {}


def _is_defect(raised: BaseException) -> bool:
    """Tell whether something that was raised is one key's, and nothing else need end for it.

    What is cancelled inside a reconcile, or panics in a library, is that key's, too: it must not vanish. When
    the task itself is being cancelled, everything ends.
    """
    if isinstance(raised, LedgerError | KeyboardInterrupt | SystemExit | GeneratorExit):
        return False
    task = asyncio.current_task()
    return not (isinstance(raised, asyncio.CancelledError) and task is not None and task.cancelling())
