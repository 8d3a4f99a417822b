"""Work that may hang for ever: in daemon threads, which the end of the process does not wait for."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


def in_daemon(name: str, work: Callable[[], T]) -> asyncio.Future[T]:
    """Do work in a daemon thread; return the future of what comes of it.

    Cancelling the future does not end the work.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(say: Callable[[], None]) -> None:
        if not future.done():
            say()

    def run() -> None:
        try:
            result = work()
        except Exception as raised:  # noqa: BLE001 - whoever waits is told
            say = partial(future.set_exception, raised)
        except BaseException as ending:  # noqa: BLE001 - no library may end the process from its thread
            say = partial(future.set_exception, RuntimeError(f"{type(ending).__name__} in a thread"))
        else:
            say = partial(future.set_result, result)
        try:
            loop.call_soon_threadsafe(settle, say)
        except RuntimeError:
            pass  # the loop has ended: nobody waits any more

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


class BoundedThreads:
    """Daemon threads, so many at once for each group: what hangs in one takes no thread from any other."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._running: dict[Hashable, int] = defaultdict(int)
        self._waiting: dict[Hashable, deque[Callable[[], None]]] = defaultdict(deque)

    def run(self, group: Hashable, name: str, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do work in a thread of a group, as soon as one is free; return the future of what comes of it.

        Work whose future is cancelled before it has begun is never done; later, that does not end it.
        """
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def begin() -> None:
            if result.done():
                self._next(group)
                return
            running = in_daemon(name, work)
            running.add_done_callback(partial(_hand_over, result))
            running.add_done_callback(lambda _: self._next(group))

        if self._running[group] < self._at_once:
            self._running[group] += 1
            begin()
        else:
            self._waiting[group].append(begin)
        return result

    def _next(self, group: Hashable) -> None:
        waiting = self._waiting[group]
        if waiting:
            waiting.popleft()()
        else:
            self._running[group] -= 1
            if not self._running[group]:
                del self._running[group], self._waiting[group]


def _hand_over(result: asyncio.Future[Any], running: asyncio.Future[Any]) -> None:
    if result.done():
        return
    error = running.exception()
    if error is not None:
        result.set_exception(error)
    else:
        result.set_result(running.result())
