"""The doorbell of BackupSnapshots."""

from __future__ import annotations

from typing import Any

import kopf

from lethe.engine.engine import Engine


def register(registry: kopf.OperatorRegistry, engine: Engine) -> None:
    """Ring when a BackupSnapshot is seen or gone."""

    @kopf.on.event("lethe.dev", "v1alpha1", "backupsnapshots", registry=registry)
    async def _(event: kopf.RawEvent, **_: Any) -> None:
        engine.ring("backupsnapshots", dict(event["object"]), gone=event["type"] == "DELETED")
