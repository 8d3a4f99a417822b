"""Who waits for keys ends when it is cancelled, whatever rings at that moment."""

import asyncio

import pytest

from lethe.controllers.runtime.queue import WorkQueue


async def test_who_is_cancelled_as_a_key_is_added_ends_all_the_same() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("later", after=60)

    async def take_for_ever() -> None:
        while True:
            await queue.take()

    taking = asyncio.create_task(take_for_ever())
    await asyncio.sleep(0)
    queue.add("sooner", after=30)
    await asyncio.sleep(0)
    taking.cancel()
    done, _ = await asyncio.wait([taking], timeout=5)
    assert done
    with pytest.raises(asyncio.CancelledError):
        taking.result()
