"""A restore by a Job that a person wrote: made, waited for, and taken away again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from lethe.domain.drills import DATABASE_PREFIX
from lethe.ports.cluster import OURS, Cluster, ClusterRefused, ClusterUnavailable, Manifest
from lethe.ports.drills import URL_VARIABLE, RestoreFailed, RestoreOrder

LOOK_SECONDS = 1.0
URL_KEY = "url"
FORBIDDEN = 403
LOGS_SECONDS = 24 * 3600
"""How long a Job that failed stays, so that somebody can read why."""


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
        try:
            spec = with_environment({"backoffLimit": 0, **bounds, **spec}, self._name, order)
        except (TypeError, ValueError, AttributeError):  # the API server takes any JSON there
            raise RestoreFailed(
                "spec.restore.jobTemplate.spec is not that of a batch/v1 Job; correct it", refused=True
            ) from None
        try:
            await self._make(spec, order, halted)
            await self._wait(halted)
        except ClusterRefused as refused:
            raise RestoreFailed(f"Job {self._name} can't be looked at: {refused}") from None
        finally:
            await self.take_away()

    async def _make(self, spec: Mapping[str, Any], order: RestoreOrder, halted: Callable[[], bool]) -> None:
        """Make Secret and Job, once the API server answers."""
        labels = {**OURS, "lethe.dev/drill": self._drill["metadata"]["name"]}
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self._name, "labels": labels, "ownerReferences": [self._owner]},
            "spec": spec,
        }
        makes: dict[str, Callable[[], Awaitable[object]]] = {
            "Secret": lambda: self._cluster.create_secret(
                self._namespace, self._name, "Opaque", {URL_KEY: order.url}, owner=self._owner
            ),
            "Job": lambda: self._cluster.create("jobs", self._namespace, job),
        }
        for kind, make in makes.items():
            asked = False
            while not halted():
                try:
                    if not await make() and not asked:  # else it is what was asked for before, unheard
                        raise RestoreFailed(f"a {kind} called {self._name} is there already; delete it")
                    break
                except ClusterUnavailable:
                    asked = True
                    await asyncio.sleep(LOOK_SECONDS)
                except ClusterRefused as refused:
                    rights = "; Lethe makes Jobs where the chart's drills.enabled is true"
                    why = f"{kind} {self._name}: {refused}{rights if refused.code == FORBIDDEN else ''}"
                    raise RestoreFailed(why, refused=True) from None

    async def _wait(self, halted: Callable[[], bool]) -> None:
        while not halted():
            try:
                job = await self._cluster.get("jobs", self._namespace, self._name)
            except ClusterUnavailable:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            if job is None:
                raise RestoreFailed(f"Job {self._name} was deleted before it had ended")
            ended = _ended(job)
            if "Complete" in ended:
                return
            if "Failed" in ended:
                reason = str(ended["Failed"].get("reason") or "Failed")[:64]
                raise RestoreFailed(f"Job {self._name} failed ({reason}); look at the logs of its pods")
            await asyncio.sleep(LOOK_SECONDS)

    async def take_away(self) -> bool:
        """Delete Secret and Job, but for one that failed, for its logs; return `False` if that is to be tried
        again. What may not be deleted goes with the RestoreDrill.
        """
        try:
            secret = await self._cluster.secret(self._namespace, self._name)
            if secret is not None:
                seen = {"uid": secret.uid, "resource_version": secret.resource_version}
                await self._cluster.delete_secret(self._namespace, self._name, **seen)
            job = await self._cluster.get("jobs", self._namespace, self._name)
            if job is not None and "Failed" not in _ended(job):
                uid = job["metadata"]["uid"]
                await self._cluster.delete("jobs", self._namespace, self._name, uid=uid)
        except ClusterUnavailable:
            return False
        except ClusterRefused:
            pass
        return True


def _ended(job: Manifest) -> Mapping[str, Any]:
    """Return how a Job has ended, by type of condition; empty: it has not."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return {one["type"]: one for one in conditions if one.get("status") == "True"}


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
