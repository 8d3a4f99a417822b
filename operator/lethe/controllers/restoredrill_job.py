"""A restore by a Job that a person wrote: made, waited for, and taken away again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from lethe.domain.drills import DATABASE_PREFIX
from lethe.ports.cluster import OURS, Cluster, ClusterRefused, ClusterUnavailable, Manifest
from lethe.ports.drills import URL_VARIABLE, RestoreFailed, RestoreOrder

LOOK_SECONDS = 1.0
URL_KEY = "url"
LOGS_SECONDS = 24 * 3600
"""How long a Job that failed stays, so that somebody can read why."""


class _JobFailed(RestoreFailed):
    """The Job itself has ended so."""


class RestoreJob:
    """The Job of one drill, and the Secret from which its pods learn the URL of the scratch database.

    Both go with the RestoreDrill, whoever deletes that, and whatever becomes of this process.
    """

    def __init__(self, cluster: Cluster, drill: Manifest, database: str) -> None:
        self._cluster, self._drill = cluster, drill
        metadata = drill["metadata"]
        self._namespace = metadata["namespace"]
        self._name = f"{metadata['name']}-{database.removeprefix(DATABASE_PREFIX)}"
        self._owner = {
            "apiVersion": drill.get("apiVersion", "lethe.dev/v1alpha1"),
            "kind": "RestoreDrill",
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "controller": True,
            "blockOwnerDeletion": False,
        }

    async def restore(
        self, spec: Mapping[str, Any], order: RestoreOrder, halted: Callable[[], bool], *, seconds: float
    ) -> None:
        """Let the Job restore, and return when it has ended. Raises `RestoreFailed`.

        It ends by itself after `seconds`, also where nobody looks after it any more.
        """
        bounds = {"activeDeadlineSeconds": max(1, int(seconds)), "ttlSecondsAfterFinished": LOGS_SECONDS}
        failed = False
        try:
            await self._make({**bounds, **spec}, order)
            await self._wait(halted)
        except _JobFailed:
            failed = True
            raise
        except (TypeError, ValueError, AttributeError, KeyError):  # the API server takes any JSON there
            raise RestoreFailed(
                "spec.restore.jobTemplate.spec is not that of a batch/v1 Job; correct it", refused=True
            ) from None
        except ClusterRefused as refused:
            raise RestoreFailed(
                f"Job {self._name}: {refused}; Lethe makes Jobs where the chart's drills.enabled is true"
            ) from None
        except ClusterUnavailable as away:
            raise RestoreFailed(f"Job {self._name} could not be made: {away}") from None
        finally:
            await self.take_away(but_logs=failed)

    async def _make(self, spec: Mapping[str, Any], order: RestoreOrder) -> None:
        texts = {URL_KEY: order.url}
        if not await self._cluster.create_secret(
            self._namespace, self._name, "Opaque", texts, owner=self._owner
        ):
            raise RestoreFailed(f"a Secret called {self._name} is there already; delete it")
        labels = {**OURS, "lethe.dev/drill": self._drill["metadata"]["name"]}
        manifest = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self._name, "labels": labels, "ownerReferences": [self._owner]},
            "spec": {"backoffLimit": 0, **with_environment(spec, self._name, order)},
        }
        if await self._cluster.create("jobs", self._namespace, manifest) is None:
            raise RestoreFailed(f"a Job called {self._name} is there already; delete it")

    async def _wait(self, halted: Callable[[], bool]) -> None:
        while not halted():
            try:
                job = await self._cluster.get("jobs", self._namespace, self._name)
            except ClusterUnavailable:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            if job is None:
                raise RestoreFailed(f"Job {self._name} was deleted before it had ended")
            conditions = (job.get("status") or {}).get("conditions") or ()
            ended = {one["type"]: one for one in conditions if one.get("status") == "True"}
            if "Complete" in ended:
                return
            if "Failed" in ended:
                reason = str(ended["Failed"].get("reason") or "Failed")[:64]
                raise _JobFailed(f"Job {self._name} failed ({reason}); look at the logs of its pods")
            await asyncio.sleep(LOOK_SECONDS)

    async def take_away(self, *, but_logs: bool = False) -> None:
        """Delete Secret and Job; what can't be deleted now goes with the RestoreDrill."""
        try:
            job = await self._cluster.get("jobs", self._namespace, self._name) if not but_logs else None
            if job is not None:
                uid = job["metadata"]["uid"]
                await self._cluster.delete("jobs", self._namespace, self._name, uid=uid)
            secret = await self._cluster.secret(self._namespace, self._name)
            if secret is not None:
                seen = {"uid": secret.uid, "resource_version": secret.resource_version}
                await self._cluster.delete_secret(self._namespace, self._name, **seen)
        except (ClusterUnavailable, ClusterRefused):
            return


def with_environment(spec: Mapping[str, Any], secret: str, order: RestoreOrder) -> dict[str, Any]:
    """Return a Job's spec whose containers all know what to restore; what they say themselves is kept."""
    from_secret = {"valueFrom": {"secretKeyRef": {"name": secret, "key": URL_KEY}}}
    own = order.environment
    added: list[dict[str, Any]] = [
        {"name": name, **(from_secret if name == URL_VARIABLE else {"value": value})}
        for name, value in own.items()
    ]
    template = dict(spec.get("template") or {})
    pod = dict(template.get("spec") or {})
    pod.setdefault("restartPolicy", "Never")
    for kind in ("containers", "initContainers"):
        if pod.get(kind):
            pod[kind] = [
                {**one, "env": [*added, *(e for e in one.get("env") or () if e.get("name") not in own)]}
                for one in pod[kind]
            ]
    return {**spec, "template": {**template, "spec": pod}}
