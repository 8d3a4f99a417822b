"""Work that may hang for ever: in a thread of its own, which the end of the process does not wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

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
        except BaseException as raised:  # noqa: BLE001 - whoever waits is told
            say = partial(future.set_exception, raised)
        else:
            say = partial(future.set_result, result)
        try:
            loop.call_soon_threadsafe(settle, say)
        except RuntimeError:
            pass  # the loop has ended: nobody waits any more

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
