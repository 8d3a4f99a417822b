"""The doorbell of DeletionRequests."""

from __future__ import annotations

from typing import Any

import kopf

from lethe.controllers.deletionrequest import OPEN_REQUESTS
from lethe.engine.engine import Engine

SELECTOR = OPEN_REQUESTS


def register(registry: kopf.OperatorRegistry, engine: Engine) -> None:
    """Ring when a DeletionRequest that still needs work is seen."""

    @kopf.on.event("lethe.dev", "v1alpha1", "deletionrequests", registry=registry)
    async def _(event: kopf.RawEvent, **_: Any) -> None:
        if event["type"] == "DELETED":  # or it has left the selector: neither undoes an erasure
            engine.ring_request_gone(dict(event["object"]))
        else:
            engine.ring_request(dict(event["object"]))
