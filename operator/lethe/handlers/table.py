"""The Kopf table: one row per kind, whose objects ring its doorbell. Nothing is decided here."""

from __future__ import annotations

from typing import Any, NamedTuple

import kopf

from lethe.api.model import GROUP, VERSION
from lethe.controllers.deletionrequest import OPEN_REQUESTS
from lethe.controllers.operator import Operator


class Row(NamedTuple):
    """A kind that is watched, and the field selector of those of its objects that matter (`None`: all)."""

    plural: str
    selector: str | None = None


TABLE = (
    Row("datastores"),
    Row("deletionrequests", selector=OPEN_REQUESTS),
    Row("restoreevents"),
    Row("backupsources"),
    Row("backupsnapshots"),
    Row("legalrequests"),
    Row("restoredrills"),
)


def register(registry: kopf.OperatorRegistry, operator: Operator) -> None:
    """Ring the operator when an object of any row is seen or gone."""
    for row in TABLE:
        _register(registry, operator, row.plural)


def _register(registry: kopf.OperatorRegistry, operator: Operator, plural: str) -> None:
    @kopf.on.event(GROUP, VERSION, plural, registry=registry)
    async def _(event: kopf.RawEvent, **_: Any) -> None:
        operator.ring(plural, dict(event["object"]), gone=event["type"] == "DELETED")
