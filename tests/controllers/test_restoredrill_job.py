"""A restore by a Job: what an API server that refuses, or is away at any call, leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lethe.controllers import restoredrill_job
from lethe.controllers.restoredrill_job import RestoreJob
from lethe.ports.cluster import ClusterRefused, ClusterUnavailable
from lethe.ports.drills import RestoreFailed, RestoreOrder
from tests.controllers.cluster_in_memory import ClusterInMemory

DRILL = {"metadata": {"namespace": "shop", "name": "sunday", "uid": "its-uid"}}
KEY = "shop", "sunday-0123456789"
ORDER = RestoreOrder("a.dump", "/backups", "postgresql://scratch.example/lethe_drill_0123456789")
SPEC = {"template": {"spec": {"containers": [{"name": "restore"}]}}}
CALLS = ("create_secret", "create", "get", "secret", "delete_secret", "delete")


class Faulty(ClusterInMemory):
    """An API server that fails each kind of call once: before it is done, or when it is."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, tuple[str, Exception]] = {}

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in CALLS:
            return found

        async def call(*args: Any, **options: Any) -> Any:
            when, fault = self.faults.pop(name, ("", None))
            if when == "before" and fault is not None:
                raise fault
            answer = await found(*args, **options)
            if fault is not None:
                raise fault
            return answer

        return call

    def end(self, kind: str) -> None:
        """Let the Job have ended."""
        job = self.objects["jobs"][KEY]
        job["status"] = {"conditions": [{"type": kind, "status": "True", "reason": "BackoffLimitExceeded"}]}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Faulty:
    monkeypatch.setattr(restoredrill_job, "LOOK_SECONDS", 0.01)
    return Faulty()


async def restore(cluster: Faulty, *, kind: str = "Complete", patience: float = 5) -> RestoreJob:
    """Restore by a Job that ends as `kind`."""
    job = RestoreJob(cluster, DRILL, "lethe_drill_0123456789")
    began = asyncio.get_running_loop().time()

    def halted() -> bool:
        if "jobs" in cluster.objects and KEY in cluster.objects["jobs"]:
            cluster.end(kind)
        return asyncio.get_running_loop().time() > began + patience

    await job.restore(SPEC, ORDER, halted, seconds=60)
    assert not halted(), "it was given up"
    return job


def left(cluster: Faulty) -> set[str]:
    """Return what is left of it."""
    there = {"job": {*cluster.objects.get("jobs", {})}, "secret": {*cluster.secrets}}
    return {kind for kind, keys in there.items() if KEY in keys}


@pytest.mark.parametrize("call", ["create_secret", "create"])
async def test_a_job_that_may_not_be_made_is_a_refusal_and_leaves_no_secret(
    cluster: Faulty, call: str
) -> None:
    cluster.faults = {
        call: ("before", ClusterRefused("the API server refused", 403)),
        "get": ("before", ClusterRefused("the API server refused", 403)),  # who may make none may see none
    }
    with pytest.raises(RestoreFailed, match=r"the chart's drills\.enabled is true") as failed:
        await restore(cluster)
    assert failed.value.refused
    assert left(cluster) == set()


async def test_a_job_that_the_api_server_does_not_take_is_told_without_a_word_on_rights(
    cluster: Faulty,
) -> None:
    cluster.faults = {"create": ("before", ClusterRefused("the API server refused (HTTP 422)", 422))}
    with pytest.raises(RestoreFailed, match="HTTP 422") as failed:
        await restore(cluster)
    assert failed.value.refused
    assert "drills.enabled" not in failed.value.problem


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
async def test_an_api_server_that_is_away_at_any_call_fails_no_restore_and_nothing_is_left(
    cluster: Faulty, call: str, when: str
) -> None:
    cluster.faults = {call: (when, ClusterUnavailable("the API server is away"))}
    job = await restore(cluster)
    assert cluster.faults == {}, "it was not asked"
    assert await job.take_away(), "the controller asks again until it is"
    assert left(cluster) == set()


async def test_a_job_that_failed_stays_for_its_logs_however_often_the_rest_is_tidied(
    cluster: Faulty,
) -> None:
    with pytest.raises(RestoreFailed, match="BackoffLimitExceeded"):
        await restore(cluster, kind="Failed")
    assert left(cluster) == {"job"}
    again: Callable[[], Any] = RestoreJob(cluster, DRILL, "lethe_drill_0123456789").take_away
    assert await again()
    assert left(cluster) == {"job"}
