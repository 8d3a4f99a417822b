"""Work that may hang for ever: in daemon threads, which the end of the process does not wait for."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
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
        except StopIteration as raised:  # no future takes it
            say = partial(future.set_exception, RuntimeError(f"work raised {type(raised).__name__}"))
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


@dataclass(frozen=True, slots=True)
class _Work:
    name: str
    work: Callable[[], Any]
    result: asyncio.Future[Any]


class BoundedThreads:
    """Daemon threads, so many at once for each group: what hangs in one takes no thread from any other."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._running: dict[Hashable, int] = defaultdict(int)
        self._waiting: dict[Hashable, deque[_Work]] = defaultdict(deque)

    def run(self, group: Hashable, name: str, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do work in a thread of a group, as soon as one is free; return the future of what comes of it.

        Work whose future is cancelled before it has begun is never done; later, that does not end it.
        """
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        self._waiting[group].append(_Work(name, work, result))
        self._begin(group)
        return result

    def _begin(self, group: Hashable) -> None:
        """Begin what waits, as far as threads are free."""
        waiting = self._waiting[group]
        while waiting and self._running[group] < self._at_once:
            next_ = waiting.popleft()
            if next_.result.done():
                continue  # cancelled: it is never done
            try:
                running = in_daemon(next_.name, next_.work)
            except RuntimeError as exhausted:  # the host has no thread left
                next_.result.set_exception(exhausted)
                continue
            self._running[group] += 1
            running.add_done_callback(partial(_hand_over, next_.result))
            running.add_done_callback(lambda _: self._ended(group))
        if not waiting and not self._running[group]:
            del self._running[group], self._waiting[group]

    def _ended(self, group: Hashable) -> None:
        self._running[group] -= 1
        self._begin(group)


def _hand_over(result: asyncio.Future[Any], running: asyncio.Future[Any]) -> None:
    if result.done():
        return
    error = running.exception()
    if error is not None:
        result.set_exception(error)
    else:
        result.set_result(running.result())
