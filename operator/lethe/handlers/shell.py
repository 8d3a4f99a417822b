"""Kopf as a watcher of doorbells: no annotations, no finalizers, no progress, no events of its own."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import kopf

from lethe.api.model import GROUP
from lethe.controllers.operator import Operator
from lethe.handlers.table import TABLE, register

PAGE = 500
Login = Callable[[kopf.OperatorSettings], kopf.ConnectionInfo]

BACKOFFS = (0.2, 0.5, 1, 2, 5, 10)


class _EndlessBackoffs(Collection[float]):
    """Kopf gives up when its list of backoffs ends; an operator that waits for its API server must not."""

    def __iter__(self) -> Any:
        return itertools.chain(BACKOFFS, itertools.repeat(BACKOFFS[-1]))

    def __len__(self) -> int:
        return 1_000_000

    def __contains__(self, item: object) -> bool:
        return item in BACKOFFS


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps no last-handled configuration: it would copy the spec into an annotation."""

    def fetch(self, *, body: kopf.Body) -> None:
        """Return nothing: nothing is kept."""

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Keep nothing."""


class _NoProgress(kopf.ProgressStorage):
    """Keeps no progress of handlers: the ledger does."""

    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        """Return nothing: nothing is kept."""

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Keep nothing."""

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Purge nothing."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """Touch nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Clear nothing: there is nothing of this storage in an object."""
        return essence


def operator_settings() -> kopf.OperatorSettings:
    """Return Kopf's settings for doorbells (the measurements behind each are in docs/adr)."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.finalizer = "lethe.dev/never-set"
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.scanning.disabled = True
    settings.watching.chunk_size = PAGE
    settings.watching.server_timeout = 300
    for row in TABLE:
        if row.selector is not None:
            settings.watching.field_selectors[GROUP, row.plural] = row.selector
    settings.queueing.idle_timeout = 0.2
    settings.networking.error_backoffs = _EndlessBackoffs()
    return settings


def build_registry(operator: Operator, login: Login) -> kopf.OperatorRegistry:
    """Return the registry of all doorbells, with the way to log in."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def _(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo:
        return login(settings)

    register(registry, operator)
    return registry


def _heed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Take what nobody has awaited, as asyncio does, but for streams that Kopf leaves open at its end.

    One that is cut off while it hands an object over is not closed. As the loop ends it closes all that is
    open at once, and a stream complains that its inner one was closed before it.
    """
    stream = context.get("asyncgen")
    if stream is None or not stream.ag_code.co_filename.startswith(_KOPF):
        loop.default_exception_handler(context)


_KOPF = f"{Path(kopf.__file__).parent}{os.sep}"


async def watch(
    operator: Operator,
    *,
    login: Login,
    namespaces: Collection[str],
    stop: asyncio.Event,
    ready: asyncio.Event,
) -> None:
    """Watch until `stop` is set; `ready` is set once Kopf has begun."""
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    asyncio.get_running_loop().set_exception_handler(_heed)
    where: Mapping[str, Any] = {"namespaces": list(namespaces)} if namespaces else {"clusterwide": True}
    await kopf.operator(
        registry=build_registry(operator, login),
        settings=operator_settings(),
        stop_flag=stop,
        ready_flag=ready,
        standalone=True,
        **where,
    )
