"""What is said in the log as what: in the words of the libraries that say it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import kopf
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kopf._cogs.aiokits.aiotoggles import ToggleSet
from kopf._cogs.clients import api, watching

from lethe.handlers import shell
from lethe.handlers.shell import operator_settings
from lethe.logs import set_up_logs

COME_AGAIN = {
    "kind": "Status",
    "status": "Failure",
    "message": "storage is (re)initializing",
    "reason": "TooManyRequests",
    "code": 429,
}


class Flaky:
    """An API server that answers with these codes, one after the other, and then as it should."""

    def __init__(self, url: str, session: aiohttp.ClientSession, codes: list[int]) -> None:
        self.context = SimpleNamespace(server=url, session=session)
        self.codes = codes

    async def ask(self) -> None:
        """Let Kopf ask until it gets its answer, and the operator's log be on standard error meanwhile."""
        root = logging.getLogger()
        before = root.handlers[:], root.level
        set_up_logs("INFO", "text")
        try:
            await self._ask()
        finally:
            root.handlers[:], root.level = before

    async def _ask(self) -> None:
        request: Any = api.request.__wrapped__  # type: ignore[attr-defined]
        logger = logging.getLogger("kopf._cogs.clients.watching")
        settings = operator_settings()
        settings.networking.error_backoffs = [0.001] * 20
        await request("GET", "/apis", settings=settings, context=self.context, logger=logger)


@pytest.fixture
async def flaky() -> AsyncIterator[Flaky]:
    """An API server in trouble."""
    codes: list[int] = []

    async def answer(_: web.Request) -> web.Response:
        code = codes.pop(0) if codes else 200
        return web.json_response({**COME_AGAIN, "code": code} if code != 200 else {}, status=code)

    app = web.Application()
    app.router.add_get("/apis", answer)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        yield Flaky(str(server.make_url("/")), session, codes)


async def test_an_api_server_that_says_come_again_is_no_news_at_first(
    flaky: Flaky, capsys: pytest.CaptureFixture[str]
) -> None:
    flaky.codes += [429] * 3
    await flaky.ask()
    assert flaky.codes == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("codes", [[503], [403], [429] * 6])
async def test_what_kopf_tries_again_is_a_warning_and_no_error(
    flaky: Flaky, capsys: pytest.CaptureFixture[str], codes: list[int]
) -> None:
    flaky.codes += codes
    await flaky.ask()
    (line,) = capsys.readouterr().err.splitlines()
    assert "WARNING kopf._cogs.clients.watching: Request attempt" in line


async def test_what_kopf_gives_up_is_an_error(flaky: Flaky, capsys: pytest.CaptureFixture[str]) -> None:
    flaky.codes += [503] * 21
    with pytest.raises(Exception, match="re"):
        await flaky.ask()
    assert "ERROR   kopf._cogs.clients.watching" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("mine", [False, True], ids=["of Kopf", "of somebody else"])
def test_a_stream_that_kopf_leaves_open_at_its_end_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mine: bool
) -> None:
    opened = []

    async def watched(**_: object) -> AsyncIterator[object]:
        yield {}

    async def my_own() -> AsyncIterator[object]:
        try:
            yield {}
        finally:
            raise RuntimeError

    async def operator(*, settings: kopf.OperatorSettings, **_: object) -> None:
        resource: Any = "datastores"
        paused = ToggleSet(any)
        stream = watching.infinite_watch(
            settings=settings, resource=resource, namespace=None, operator_paused=paused
        )
        opened.append(my_own() if mine else stream)
        await anext(opened[-1])
        await asyncio.sleep(0.01)  # until somebody waits for the pause, as in a stream that goes on

    monkeypatch.setattr(watching, "continuous_watch", watched)
    monkeypatch.setattr(kopf, "operator", operator)
    monkeypatch.setattr(shell, "build_registry", lambda *_: None)
    engine: Any = None
    asyncio.run(
        shell.watch(
            engine,
            login=lambda _: kopf.ConnectionInfo(server=""),
            namespaces=[],
            stop=asyncio.Event(),
            ready=asyncio.Event(),
        )
    )
    said = [record.name for record in caplog.records if record.levelno >= logging.ERROR]
    assert said == (["asyncio"] if mine else [])
