"""Work that may hang: so many threads for each group, and who waits is always told."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lethe.controllers.runtime import threads
from lethe.controllers.runtime.threads import BoundedThreads, in_daemon
from tests.controllers.backups_running import eventually


class Work:
    """Hangs until it is let go, and counts how many hang at once."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = threading.Event()
        self.most = self._now = 0
        self._lock = threading.Lock()

    def named(self, name: str) -> Callable[[], str]:
        """Return work that returns its name."""

        def do() -> str:
            with self._lock:
                self.begun.append(name)
                self._now += 1
                self.most = max(self.most, self._now)
            self.go.wait(10)
            with self._lock:
                self._now -= 1
            return name

        return do


@pytest.fixture
def work() -> Any:
    """Let go of everything in the end."""
    made = Work()
    yield made
    made.go.set()


async def test_so_many_of_a_group_run_at_once_and_others_are_not_held_up(work: Work) -> None:
    bounded = BoundedThreads(2)
    slow = [bounded.run("slow", f"s{number}", work.named(f"s{number}")) for number in range(5)]
    await eventually(lambda: len(work.begun) == 2, 5)
    assert await asyncio.wait_for(bounded.run("quick", "q", lambda: "done"), 5) == "done"
    assert len(work.begun) == 2
    work.go.set()
    assert await asyncio.wait_for(asyncio.gather(*slow), 5) == [f"s{number}" for number in range(5)]
    assert work.most == 2


async def test_what_is_cancelled_before_it_has_begun_is_never_done(work: Work) -> None:
    bounded = BoundedThreads(1)
    first = bounded.run("g", "first", work.named("first"))
    second = bounded.run("g", "second", work.named("second"))
    third = bounded.run("g", "third", work.named("third"))
    await eventually(lambda: work.begun, 5)
    second.cancel()
    work.go.set()
    assert list(await asyncio.wait_for(asyncio.gather(first, third), 5)) == ["first", "third"]
    assert work.begun == ["first", "third"]


async def test_however_many_were_cancelled_the_next_begins(work: Work) -> None:
    bounded = BoundedThreads(1)
    first = bounded.run("g", "first", work.named("first"))
    for number in range(5000):
        bounded.run("g", f"c{number}", work.named("cancelled")).cancel()
    last = bounded.run("g", "last", work.named("last"))
    work.go.set()
    assert list(await asyncio.wait_for(asyncio.gather(first, last), 5)) == ["first", "last"]
    assert work.begun == ["first", "last"]


async def test_what_is_cancelled_as_it_runs_keeps_its_thread_until_it_ends(work: Work) -> None:
    bounded = BoundedThreads(1)
    first = bounded.run("g", "first", work.named("first"))
    await eventually(lambda: work.begun, 5)
    first.cancel()
    second = bounded.run("g", "second", work.named("second"))
    await asyncio.sleep(0.05)
    assert work.begun == ["first"]
    work.go.set()
    assert await asyncio.wait_for(second, 5) == "second"


async def test_work_that_fails_gives_its_thread_back() -> None:
    bounded = BoundedThreads(1)

    def fail() -> None:
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await asyncio.wait_for(bounded.run("g", "fails", fail), 5)
    assert await asyncio.wait_for(bounded.run("g", "works", lambda: 1), 5) == 1
    await asyncio.sleep(0)
    assert not bounded._running
    assert not bounded._waiting


async def test_where_no_thread_can_be_started_whoever_waits_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bounded = BoundedThreads(1)

    def exhausted(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threads, "in_daemon", exhausted)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="can't start"):
                await asyncio.wait_for(bounded.run("g", "none", lambda: 1), 5)
    assert await asyncio.wait_for(bounded.run("g", "works", lambda: 1), 5) == 1


async def test_whatever_work_raises_whoever_waits_is_told() -> None:
    for raised in (ValueError, SystemExit, StopIteration, asyncio.CancelledError):

        def fail(kind: type[BaseException] = raised) -> None:
            raise kind

        running = in_daemon("fails", fail)
        done, _ = await asyncio.wait([running], timeout=5)
        assert done, raised
        assert running.cancelled() or running.exception() is not None


async def test_who_cancels_a_future_hears_nothing_of_the_work(work: Work) -> None:
    running = in_daemon("slow", work.named("slow"))
    await eventually(lambda: work.begun, 5)
    running.cancel()
    work.go.set()
    await asyncio.sleep(0.05)
    assert running.cancelled()
