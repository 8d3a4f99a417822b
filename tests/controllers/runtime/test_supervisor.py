"""What one key does wrong is that key's, whatever it is; without its ledger nobody acts."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lethe.controllers.runtime import queue
from lethe.controllers.runtime import supervisor as supervisor_module
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.supervisor import Supervisor
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.logs import JsonLines, Redacting
from lethe.ports.cluster import ClusterRefused, ClusterUnavailable
from lethe.ports.ledger import Fenced, LedgerError
from tests.controllers.backups_running import eventually

CANARY = "eve@canary.example"


class Panic(BaseException):
    """What a library of another language raises where it panics."""


def cancelled_inside() -> BaseException:
    """Return what awaiting a future raises that somebody has cancelled."""
    return asyncio.CancelledError(CANARY)


DEFECTS: Sequence[BaseException] = (
    RuntimeError(CANARY),
    AssertionError(CANARY),
    KeyError(CANARY),
    UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
    RecursionError(CANARY),
    TimeoutError(CANARY),
    Panic(CANARY),
    cancelled_inside(),
    BaseExceptionGroup(CANARY, [cancelled_inside(), RuntimeError(CANARY)]),
)


class Recorder(Controller[str]):
    """Notes what it reconciles; keys among `wrong` raise, those among `hangs` never return."""

    name = "recorder"

    def __init__(self, *keys: str, at_once: int = 1, batch: int = 1) -> None:
        super().__init__()
        self.at_once, self.batch = at_once, batch
        self.wrong: dict[str, BaseException] = {}
        self.hangs: set[str] = set()
        self.unshowable: BaseException | None = None
        self.begun: list[tuple[str, float]] = []
        self.well: Counter[str] = Counter()
        self.shown: list[tuple[str, Trouble]] = []
        self.sets: list[Sequence[str]] = []
        for key in keys:
            self.queue.add(key)

    async def reconcile(self, key: str) -> None:
        self.begun.append((key, time.monotonic()))
        if key in self.hangs:
            await asyncio.Event().wait()
        if key in self.wrong:
            raise self.wrong[key]
        self.well[key] += 1

    async def reconcile_set(self, keys: Sequence[str]) -> Mapping[str, float | None]:
        self.sets.append(tuple(keys))
        return await super().reconcile_set(keys)

    async def show_trouble(self, key: str, trouble: Trouble) -> None:
        self.shown.append((key, trouble))
        if self.unshowable is not None:
            raise self.unshowable

    def moments(self, key: str) -> list[float]:
        """Return when reconciles of a key began."""
        return [moment for begun, moment in self.begun if begun == key]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what failed be tried again soon."""
    monkeypatch.setattr(queue, "FIRST_PAUSE", 0.02)


@pytest.fixture
def lines() -> Any:
    """Everything that the operator's log says meanwhile, in its own form."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(self.format(record))

    handler, root = Listener(), logging.getLogger()
    handler.addFilter(Redacting())
    handler.setFormatter(JsonLines())
    root.addHandler(handler)
    yield said
    root.removeHandler(handler)


@asynccontextmanager
async def running(*controllers: Controller[Any]) -> AsyncIterator[Supervisor]:
    """Let controllers run, and see that nothing ends the run."""
    supervisor = Supervisor(controllers)
    run = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
        assert not run.done(), run
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


def names(defect: BaseException) -> str:
    return type(defect).__name__


@pytest.mark.parametrize("defect", DEFECTS, ids=names)
async def test_an_error_of_one_key_is_shown_retried_and_heals(
    defect: BaseException, lines: list[str]
) -> None:
    one, other = Recorder("eve", "ann"), Recorder("bob")
    one.wrong["eve"] = defect
    async with running(one, other):
        await eventually(lambda: len(one.moments("eve")) >= 3, 5)
        assert one.well == {"ann": 1}
        assert other.well == {"bob": 1}
        del one.wrong["eve"]
        await eventually(lambda: one.well["eve"], 5)
        other.queue.add("bob")
        await eventually(lambda: other.well["bob"] == 2, 5)
    (key, trouble), *_ = one.shown
    assert (key, trouble.reason) == ("eve", TroubleReason.INTERNAL_ERROR)
    assert type(defect).__name__ in trouble.message
    first, second, third, *_ = one.moments("eve")
    assert second - first >= 0.02
    assert third - second >= 0.04
    assert any("reconciling eve failed" in line for line in lines)
    assert CANARY not in "".join(lines) + "".join(trouble.message for _, trouble in one.shown)


async def test_a_future_that_is_cancelled_inside_a_reconcile_loses_no_key() -> None:
    class Waiter(Recorder):
        async def reconcile(self, key: str) -> None:
            if key == "eve" and len(self.shown) < 2:
                inner = asyncio.get_running_loop().create_future()
                inner.cancel()
                await inner
            await super().reconcile(key)

    waiter = Waiter("eve", "ann")
    async with running(waiter):
        await eventually(lambda: waiter.well == {"eve": 1, "ann": 1}, 5)
    assert [key for key, _ in waiter.shown] == ["eve", "eve"]


async def test_a_set_that_fails_is_taken_apart_until_only_the_culprit_fails() -> None:
    keys = [f"p{number}" for number in range(16)]
    one = Recorder(*keys, batch=16)
    one.wrong["p5"] = RuntimeError(CANARY)
    async with running(one):
        await eventually(lambda: len(one.well) == 15, 5)
        await eventually(lambda: len(one.shown) >= 2, 5)
        assert {key for key, _ in one.shown} == {"p5"}
        assert one.sets[0] == tuple(keys)
        del one.wrong["p5"]
        await eventually(lambda: one.well["p5"], 5)


@pytest.mark.parametrize("raised", [*DEFECTS, ClusterUnavailable("away")], ids=names)
async def test_a_trouble_that_cannot_be_shown_ends_nothing(raised: BaseException, lines: list[str]) -> None:
    one = Recorder("eve", "ann")
    one.wrong["eve"], one.unshowable = RuntimeError(CANARY), raised
    async with running(one):
        await eventually(lambda: len(one.shown) >= 2, 5)
        assert one.well == {"ann": 1}
        del one.wrong["eve"]
        await eventually(lambda: one.well["eve"], 5)
    assert any("can't be shown" in line for line in lines)
    assert CANARY not in "".join(lines)


@pytest.mark.parametrize("away", [ClusterUnavailable("away"), ClusterRefused("no", 403)], ids=names)
async def test_a_key_waits_for_the_api_server_and_is_not_blamed(away: Exception) -> None:
    one = Recorder("eve", "ann")
    one.wrong["eve"] = away
    async with running(one):
        await eventually(lambda: len(one.moments("eve")) >= 3, 5)
        assert one.well == {"ann": 1}
        del one.wrong["eve"]
        await eventually(lambda: one.well["eve"], 5)
    assert one.shown == []


@pytest.mark.parametrize("lost", [LedgerError("lost"), Fenced("another operator")], ids=names)
@pytest.mark.parametrize("where", ["reconcile", "show_trouble"])
async def test_without_its_ledger_the_run_ends(lost: Exception, where: str) -> None:
    one, other = Recorder("eve", "ann", batch=2), Recorder("bob")
    other.hangs.add("bob")
    one.wrong["eve"] = lost if where == "reconcile" else RuntimeError(CANARY)
    one.unshowable = lost
    with pytest.raises(type(lost)) as raised:
        await asyncio.wait_for(Supervisor([one, other]).run(), 5)
    assert raised.value is lost


async def test_the_age_of_the_heartbeat_tells_how_long_the_loop_is_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor_module, "BEAT_SECONDS", 0.05)
    async with running(Recorder()) as supervisor:
        await asyncio.sleep(0.01)
        assert supervisor.heartbeat_age < 0.5
        time.sleep(0.6)  # noqa: ASYNC251 - that is what is asked here
        assert supervisor.heartbeat_age >= 0.6
        await eventually(lambda: supervisor.heartbeat_age < 0.5, 5)


async def test_a_reconcile_that_never_returns_holds_up_only_its_own_slot() -> None:
    one, other = Recorder("eve", "ann", at_once=2), Recorder("bob")
    one.hangs.add("eve")
    async with running(one, other):
        for round_ in range(1, 4):
            await eventually(lambda: one.well["ann"] == round_ and other.well["bob"] == round_, 5)  # noqa: B023
            for key in ("eve", "ann"):
                one.queue.add(key)
            other.queue.add("bob")
        assert len(one.moments("eve")) == 1


async def test_a_run_that_is_cancelled_ends_though_reconciles_hang() -> None:
    one = Recorder("eve", "ann", at_once=2)
    one.hangs = {"eve", "ann"}
    run = asyncio.create_task(Supervisor([one]).run())
    await eventually(lambda: len(one.begun) == 2, 5)
    run.cancel()
    done, _ = await asyncio.wait([run], timeout=5)
    assert done
    assert run.cancelled()
    assert one.shown == []


async def test_keys_that_are_discarded_as_they_gather_are_not_reconciled() -> None:
    one = Recorder("eve")
    one.gather = 0.05

    def forget() -> None:
        one.queue.discard("eve")

    async with running(one):
        act: Callable[[], None] = forget
        asyncio.get_running_loop().call_later(0.02, act)
        await asyncio.sleep(0.2)
        one.queue.add("ann")
        await eventually(lambda: one.well["ann"], 5)
    assert one.sets == [("ann",)]
