"""The doorbell of DeletionRequests."""

from __future__ import annotations

from typing import Any

import kopf

from lethe.engine.engine import OPEN_REQUESTS, Engine

SELECTOR = OPEN_REQUESTS


def register(registry: kopf.OperatorRegistry, engine: Engine) -> None:
    """Ring when a DeletionRequest that still needs work is seen."""

    @kopf.on.event("lethe.dev", "v1alpha1", "deletionrequests", registry=registry)
    async def _(event: kopf.RawEvent, **_: Any) -> None:
        # It was deleted, or has left the selector: neither undoes an erasure.
        engine.ring("deletionrequests", dict(event["object"]), gone=event["type"] == "DELETED")
