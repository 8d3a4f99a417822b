"""Leader election by a Lease of `coordination.k8s.io/v1`: the client's own election, over raw JSON.

The Lease decides who works; it does not make that safe. Whoever takes over the ledger fences everybody who
had it before, so a leader that can't reach the API server goes on until somebody else has its Lease, or its
ledger. Source: docs/adr/0011-standing-by.md.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.baselock import BaseLock

from lethe.adapters.cluster.api import KubernetesCluster
from lethe.ports.cluster import OURS, ClusterRefused, ClusterUnavailable

log = logging.getLogger("lethe.lease")
# The library says each failed try as an error; who is asked twice a second says what matters itself.
logging.getLogger("kubernetes.aio.leaderelection.leaderelection").setLevel(logging.CRITICAL)

LEASE_SECONDS = 15
"""For how long a leader that says nothing is believed to live; as in Kubernetes' own components."""

RENEW_SECONDS = 5
TRY_SECONDS = 2
CALL_SECONDS = 4
"""How long one try may take: a connection into nowhere must not use up the Lease."""

_UNKNOWN = "2000-01-01T00:00:00Z"


class Candidate:
    """One who leads, or stands by until it may. `identity` must be nobody else's."""

    def __init__(self, cluster: KubernetesCluster, namespace: str, name: str, identity: str) -> None:
        self._place = f"{namespace}/{name}"
        self._identity = identity
        self._lock = _LeaseLock(cluster, namespace, name, identity)
        self._election = LeaderElection(
            # The callbacks belong to the library's own loop, which gives up when the API server is away.
            Config(self._lock, LEASE_SECONDS, LEASE_SECONDS - RENEW_SECONDS, RENEW_SECONDS, _never, _never)
        )
        self.leads = asyncio.Event()
        self._said = ""

    async def in_turn(
        self,
        lead: Callable[[], Awaitable[int]],
        stop: asyncio.Event,
        lost: int,
        *,
        quiet: Callable[[], bool] = lambda: True,
    ) -> int:
        """Stand by, then `lead`, and return its exit code; 0 if `stop` is set before.

        When the Lease becomes somebody else's, `stop` is set, and `lost` returned once `lead` has ended. In
        the end the Lease is given back, so that who stands by need not wait until it runs out; unless
        `quiet` says that something which `lead` had begun goes on.
        """
        keeping = asyncio.create_task(self._keep())
        awaited = [keeping, asyncio.create_task(self.leads.wait()), asyncio.create_task(stop.wait())]
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                return 0
            if not self.leads.is_set():
                keeping.result()  # raises what the election failed by
            keeping.add_done_callback(lambda _: stop.set())
            code = await lead()
            if keeping.done():
                keeping.result()  # an error of the election's own is nobody else's lead
                return lost
            return code
        finally:
            for task in awaited:
                task.cancel()
            await asyncio.gather(*awaited, return_exceptions=True)
            if quiet():
                await self._release()

    async def _keep(self) -> None:
        """Ask for the Lease, set `leads`, and renew it; return when it is somebody else's."""
        while True:
            held = await self._try()
            if held:
                if not self.leads.is_set():
                    log.info("Lease %s is this operator's; it leads", self._place)
                self.leads.set()
            elif self.leads.is_set() and self._holder != self._identity:
                log.error("Lease %s is held by %s; this one ends", self._place, self._holder or "nobody")
                return
            else:
                self._say_why_not()
            await asyncio.sleep(RENEW_SECONDS if held else TRY_SECONDS)

    async def _try(self) -> bool:
        """Acquire or renew; whatever goes wrong is a try that failed."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                held: bool = await self._election.try_acquire_or_renew()
        except TimeoutError:
            self._lock.trouble = "the API server takes too long"
        except Exception as unexpected:  # noqa: BLE001 - a Lease or an answer that nobody can read
            self._lock.trouble = f"the API server's answer can't be used ({type(unexpected).__name__})"
        else:
            return held
        return False

    async def _release(self) -> None:
        with suppress(ClusterUnavailable, ClusterRefused, TimeoutError):
            async with asyncio.timeout(CALL_SECONDS):
                await self._lock.release()

    @property
    def stands_by(self) -> bool:
        """Whether somebody else has the Lease, by what was last read: not known while it can't be read."""
        return not self.leads.is_set() and self._lock.trouble is None and self._is_anothers

    @property
    def _is_anothers(self) -> bool:
        return self._holder is not None and self._holder != self._identity

    @property
    def _holder(self) -> str | None:
        record = self._election.observed_record
        return record.holder_identity if record is not None else None

    def _say_why_not(self) -> None:
        trouble = self._lock.trouble
        if trouble is None and self._is_anothers:
            text = f"standing by: Lease {self._place} is held by {self._holder}"
        else:
            text = f"no Lease yet: {trouble}" if trouble else ""
        if text and text != self._said:
            log.log(logging.WARNING if trouble else logging.INFO, "%s", text)
        self._said = text or self._said


class _LeaseLock(BaseLock):
    """The Lease as the library's election sees it; times are texts that only this class reads."""

    def __init__(self, cluster: KubernetesCluster, namespace: str, name: str, identity: str) -> None:
        super().__init__(name, namespace, identity)
        self._cluster = cluster
        self._found: dict[str, Any] = {}
        self._wrote = False
        self.trouble: str | None = None

    async def get(
        self, name: str, namespace: str
    ) -> tuple[bool, LeaderElectionRecord] | tuple[bool, Exception]:
        try:
            found = await self._cluster.lease(namespace, name)
        except (ClusterRefused, ClusterUnavailable) as blocked:
            self.trouble = str(blocked)
            return False, ApiException(reason=self.trouble)
        self.trouble = None
        if found is None:
            missing = ApiException(status=404, reason="Not Found")
            missing.body = json.dumps({"code": 404})
            return False, missing
        self._found = dict(found)
        spec = self._found.get("spec") or {}
        seconds = spec.get("leaseDurationSeconds")
        return True, LeaderElectionRecord(
            spec.get("holderIdentity") or None,
            # The library takes whatever lacks one of these for nobody's.
            str(seconds or LEASE_SECONDS),
            spec.get("acquireTime") or _UNKNOWN,
            spec.get("renewTime") or _UNKNOWN,
        )

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "labels": OURS},
            "spec": {**_spec(election_record), "leaseTransitions": 0},
        }
        return await self._written(self._cluster.create_lease(namespace, body))

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        before = self._found.get("spec") or {}
        moved = before.get("holderIdentity") != updated_record.holder_identity
        spec = {**_spec(updated_record), "leaseTransitions": (before.get("leaseTransitions") or 0) + moved}
        return await self._written(
            self._cluster.replace_lease(namespace, name, {**self._found, "spec": spec})
        )

    async def release(self) -> None:
        """Give the Lease back if it is this one's; twice, as a renewal may have been cut off on its way."""
        for _ in range(2 if self._wrote else 0):
            found, _record = await self.get(self.name, self.namespace)
            spec = dict(self._found.get("spec") or {})
            if not found or spec.pop("holderIdentity", None) != self.identity:
                return
            body = {**self._found, "spec": spec}
            if await self._cluster.replace_lease(self.namespace, self.name, body):
                return

    async def _written(self, writing: Awaitable[bool]) -> bool:
        self._wrote = True
        try:
            return await writing
        except (ClusterRefused, ClusterUnavailable) as blocked:
            self.trouble = str(blocked)
            return False


def _spec(record: LeaderElectionRecord) -> dict[str, Any]:
    return {
        "holderIdentity": record.holder_identity,
        "leaseDurationSeconds": int(float(record.lease_duration or LEASE_SECONDS)),
        "acquireTime": _micro_time(record.acquire_time),
        "renewTime": _micro_time(record.renew_time),
    }


def _micro_time(text: str | None) -> str:
    """Return the API's MicroTime of a text: the library writes local time without a zone."""
    at = datetime.fromisoformat(text) if text else datetime.now(UTC)
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def _never() -> None:
    """Stand where the library wants a callback that its loop would call."""
