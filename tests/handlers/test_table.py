"""The Kopf table: every kind rings by its own name."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import kopf

from lethe.api.v1alpha1 import KINDS
from lethe.controllers.operator import Operator
from lethe.handlers.shell import build_registry, operator_settings
from lethe.handlers.table import TABLE


class Bell:
    """What stands for the engine: it notes who rang."""

    def __init__(self) -> None:
        self.rung: list[tuple[str, str, bool]] = []

    def ring(self, plural: str, manifest: dict[str, Any], *, gone: bool) -> None:
        self.rung.append((plural, manifest["kind"], gone))


def _login(_settings: kopf.OperatorSettings) -> kopf.ConnectionInfo:
    raise kopf.LoginError


def test_every_kind_has_one_row() -> None:
    assert sorted(row.plural for row in TABLE) == sorted(kind.definition.plural for kind in KINDS)


def test_every_row_rings_when_its_object_is_seen_and_when_it_is_gone() -> None:
    bell = Bell()
    registry = build_registry(cast("Operator", bell), _login)
    watched: dict[Any, Any] = {
        handler.selector.any_name or handler.selector.plural: handler.fn
        for handler in registry._watching.get_all_handlers()
        if handler.selector is not None
    }
    assert list(watched) == [row.plural for row in TABLE]
    for plural, handler in watched.items():
        for seen in ("ADDED", "MODIFIED", "DELETED", None):
            asyncio.run(handler(event={"type": seen, "object": {"kind": plural}}))
    assert bell.rung == [(plural, plural, gone) for plural in watched for gone in (False, False, True, False)]


def test_of_deletion_requests_only_those_that_have_not_ended_are_watched() -> None:
    selectors = operator_settings().watching.field_selectors
    assert len(selectors) == 1
    ended = "status.state!=Erased,status.state!=Purged,status.state!=Planned"
    assert selectors["lethe.dev", "deletionrequests"] == ended
