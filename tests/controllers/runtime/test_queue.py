"""Keys that wait: each once, at its earliest moment, never two at a time, and in little memory."""

import asyncio

import pytest

from lethe.controllers.runtime.queue import FIRST_PAUSE, LONGEST_PAUSE, FairQueue, WorkQueue


class HandClock:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> HandClock:
    """Begin somewhere."""
    return HandClock()


@pytest.fixture
def queue(clock: HandClock) -> WorkQueue[str]:
    """Wait by the clock that is moved by hand."""
    return WorkQueue(clock)


async def due(queue: WorkQueue[str], most: int = 100) -> list[str]:
    """Return what is due right now; nothing where one would have to wait."""
    taking = asyncio.create_task(queue.take(most))
    for _ in range(3):
        await asyncio.sleep(0)
    if taking.done():
        return taking.result()
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    return []


async def test_a_key_is_due_once_however_often_it_was_added(queue: WorkQueue[str]) -> None:
    for _ in range(3):
        queue.add("eve")
    assert len(queue) == 1
    assert await due(queue) == ["eve"]
    queue.done("eve")
    assert await due(queue) == []
    assert len(queue) == 0


@pytest.mark.parametrize("pauses", [(30, 10), (10, 30)])
async def test_a_key_is_due_at_its_earliest_moment(
    queue: WorkQueue[str], clock: HandClock, pauses: tuple[float, float]
) -> None:
    for pause in pauses:
        queue.add("eve", after=pause)
    clock.now += 9.9
    assert await due(queue) == []
    clock.now += 0.2
    assert await due(queue) == ["eve"]
    queue.done("eve")
    clock.now += 60
    assert await due(queue) == []


async def test_keys_are_taken_in_the_order_of_their_moments(queue: WorkQueue[str], clock: HandClock) -> None:
    for key, pause in (("c", 3), ("a", 1), ("b", 2), ("d", 9)):
        queue.add(key, after=pause)
    clock.now += 5
    assert await due(queue, most=2) == ["a", "b"]
    assert await due(queue, most=2) == ["c"]


async def test_a_key_that_is_added_while_it_is_reconciled_is_due_right_after(
    queue: WorkQueue[str],
) -> None:
    queue.add("eve")
    assert await due(queue) == ["eve"]
    queue.add("eve")
    assert "eve" in queue
    assert await due(queue) == []
    queue.done("eve")
    assert await due(queue) == ["eve"]


async def test_a_key_is_never_reconciled_twice_at_once(queue: WorkQueue[str], clock: HandClock) -> None:
    queue.add("eve", after=5)
    queue.add("eve")
    assert await due(queue) == ["eve"]
    queue.add("eve", after=5)  # the moment of an entry that is outdated
    clock.now += 10
    assert await due(queue) == []
    queue.done("eve")
    assert await due(queue) == ["eve"]
    assert await due(queue) == []


async def test_a_key_that_was_discarded_is_not_due_any_more(queue: WorkQueue[str], clock: HandClock) -> None:
    queue.add("eve", after=1)
    queue.add("ann", after=1)
    queue.discard("eve")
    queue.discard("nobody")
    clock.now += 2
    assert await due(queue) == ["ann"]
    queue.add("ann")
    queue.discard("ann")
    queue.done("ann")
    assert await due(queue) == []
    queue.add("ann")
    assert await due(queue) == ["ann"]


async def test_who_waits_is_woken_by_a_key_that_is_due_earlier() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("later", after=60)
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add("sooner")
    assert await asyncio.wait_for(taking, 5) == ["sooner"]


async def test_nobody_gets_an_empty_set(queue: WorkQueue[str]) -> None:
    queue.add("eve")
    taking = asyncio.create_task(queue.take(gather=0.05))
    await asyncio.sleep(0.01)
    queue.discard("eve")
    await asyncio.sleep(0.1)
    assert not taking.done()
    queue.add("ann")
    assert await asyncio.wait_for(taking, 5) == ["ann"]


async def test_who_is_cancelled_as_a_burst_gathers_takes_no_key_along(queue: WorkQueue[str]) -> None:
    queue.add("eve")
    taking = asyncio.create_task(queue.take(gather=0.05))
    await asyncio.sleep(0.01)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    assert await due(queue) == ["eve"]


async def test_a_key_that_fails_waits_twice_as_long_each_time_up_to_a_limit(
    queue: WorkQueue[str], clock: HandClock
) -> None:
    pauses = []
    for _ in range(2000):
        pauses.append(queue.retry("eve"))
        clock.now += LONGEST_PAUSE
        assert await due(queue) == ["eve"]
        queue.done("eve")
    assert pauses[:8] == [FIRST_PAUSE * factor for factor in (1, 2, 4, 8, 16, 32, 64, 120)]
    assert set(pauses[7:]) == {LONGEST_PAUSE}
    queue.succeeded("eve")
    assert queue.retry("eve") == FIRST_PAUSE


async def test_what_rings_for_a_key_that_failed_is_heard_at_once(queue: WorkQueue[str]) -> None:
    queue.retry("eve")
    assert await due(queue) == []
    queue.add("eve")
    assert await due(queue) == ["eve"]


@pytest.mark.parametrize("turns", ["ever earlier", "ever later", "taken each time", "discarded each time"])
async def test_a_key_that_is_added_for_ever_takes_no_more_memory(
    queue: WorkQueue[str], clock: HandClock, turns: str
) -> None:
    queue.add("ann", after=200_000)
    for turn in range(100_000):
        match turns:
            case "ever earlier":
                queue.add("eve", after=150_000.0 - turn)
            case "ever later":
                queue.add("eve", after=1000.0 + turn)
            case "discarded each time":
                queue.add("eve", after=60)
                queue.discard("eve")
            case _:
                queue.add("eve", after=100_000)
                queue.add("eve")
                queue._take_due(1)
                queue.done("eve")
    assert len(queue._heap) < 1000
    assert "ann" in queue
    clock.now += 250_000
    assert (await due(queue))[-1] == "ann"


async def test_of_ten_thousand_keys_that_move_none_is_lost(queue: WorkQueue[str], clock: HandClock) -> None:
    keys = [f"p{number}" for number in range(10_000)]
    for pause in (50, 40, 30, 20, 10):
        for key in keys:
            queue.add(key, after=pause)
    assert len(queue._heap) <= 3 * len(keys)
    clock.now += 15
    assert sorted(await due(queue, most=20_000)) == sorted(keys)
    for key in keys:
        queue.done(key)
    clock.now += 100
    assert await due(queue) == []


async def test_a_lane_of_very_many_keys_holds_up_no_other() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(lambda key: key[0], at_once=1)
    for number in range(5_000):
        queue.add(("hostile", number))
    first = await queue.take(500)
    assert {lane for lane, _ in first} == {"hostile"}
    queue.add(("neighbour", 1))
    assert await queue.take(500) == [("neighbour", 1)]
    for key in [*first, ("neighbour", 1)]:
        queue.done(key)
    queue.add(("neighbour", 2))
    seen = [await queue.take(500), await queue.take(500)]
    assert [{lane for lane, _ in batch} for batch in seen] == [{"hostile"}, {"neighbour"}]
    assert len(queue) == 4_000


async def test_a_lane_that_is_at_work_has_its_turn_when_it_is_done() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(lambda key: key[0], at_once=2)
    for number in range(3):
        queue.add(("one", number))
    taken = [await queue.take(), await queue.take()]
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.add(("one", 1))  # which is being reconciled: due again right after
    queue.done(taken[0][0])
    assert await asyncio.wait_for(waiting, 5) == [("one", 2)]
    queue.discard(("one", 1))
    queue.done(taken[1][0])
    queue.done(("one", 2))
    assert len(queue) == 0
    queue.add(("one", 7))
    assert await asyncio.wait_for(queue.take(), 5) == [("one", 7)]
