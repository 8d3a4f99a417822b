"""Leader election against a real API server, in one process, with a Lease of few seconds."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from devtools.servers import ControlPlane
from lethe.adapters.cluster import lease
from lethe.adapters.cluster.api import KubernetesCluster, connect
from lethe.adapters.cluster.lease import Candidate
from lethe.ports.cluster import ClusterUnavailable, Manifest

LOST = 3


class Cuttable(KubernetesCluster):
    """An API server that one candidate can be cut off from."""

    away = False

    async def lease(self, namespace: str, name: str) -> Manifest | None:
        if self.away:
            raise ClusterUnavailable("the API server does not answer")
        return await super().lease(namespace, name)


@pytest.fixture
async def cluster(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cuttable]:
    """The API server, and Leases that run out soon."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 4)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 1)
    monkeypatch.setattr(lease, "TRY_SECONDS", 1)
    connected = await connect(str(control_plane.kubeconfig_of("operator")))
    connected.__class__ = Cuttable
    assert isinstance(connected, Cuttable)
    yield connected
    await connected.close()


class Leader:
    """A candidate and what it does while it leads: to wait until it must stop."""

    def __init__(self, cluster: KubernetesCluster, namespace: str, identity: str) -> None:
        self.stop = asyncio.Event()
        self.candidate = Candidate(cluster, namespace, "lethe", identity)
        self.run = asyncio.create_task(self.candidate.in_turn(self._lead, self.stop, LOST))

    async def _lead(self) -> int:
        await self.stop.wait()
        return 0

    async def leads(self) -> None:
        """Wait until it leads."""
        await asyncio.wait_for(self.candidate.leads.wait(), 30)

    async def ends(self) -> int:
        """Ask it to end; return its exit code."""
        self.stop.set()
        return await asyncio.wait_for(self.run, 30)


async def test_one_that_is_cut_off_goes_on_while_nobody_else_has_its_lease(
    cluster: Cuttable, namespace: str
) -> None:
    alone = Leader(cluster, namespace, "alone")
    await alone.leads()
    cluster.away = True
    await asyncio.sleep(lease.LEASE_SECONDS * 2)
    assert not alone.run.done()
    cluster.away = False
    await asyncio.sleep(lease.RENEW_SECONDS * 2)
    assert not alone.run.done()
    assert await alone.ends() == 0


async def test_one_that_was_cut_off_ends_when_another_has_taken_its_lease(
    cluster: Cuttable, control_plane: ControlPlane, namespace: str
) -> None:
    other_way = await connect(str(control_plane.kubeconfig_of("operator")))
    try:
        cut_off = Leader(cluster, namespace, "cut-off")
        await cut_off.leads()
        stands_by = Leader(other_way, namespace, "stands-by")
        await asyncio.sleep(lease.LEASE_SECONDS * 2)
        assert not stands_by.candidate.leads.is_set()
        cluster.away = True
        await stands_by.leads()
        cluster.away = False
        assert await asyncio.wait_for(cut_off.run, 30) == LOST
        held = await other_way.lease(namespace, "lethe")
        assert held is not None
        assert held["spec"]["holderIdentity"] == "stands-by"
        assert await stands_by.ends() == 0
    finally:
        await other_way.close()


async def test_who_is_started_anew_under_its_name_leads_at_once(cluster: Cuttable, namespace: str) -> None:
    before = Leader(cluster, namespace, "pod-0")
    await before.leads()
    before.run.cancel()
    before.candidate.leads.clear()  # killed: it releases nothing
    await asyncio.gather(before.run, return_exceptions=True)
    again = Leader(cluster, namespace, "pod-0")
    await asyncio.wait_for(again.candidate.leads.wait(), lease.LEASE_SECONDS / 2)
    assert await again.ends() == 0


async def test_who_ends_gives_its_lease_back(cluster: Cuttable, namespace: str) -> None:
    leader = Leader(cluster, namespace, "leader")
    await leader.leads()
    assert await leader.ends() == 0
    given_back = await cluster.lease(namespace, "lethe")
    assert given_back is not None
    assert "holderIdentity" not in given_back["spec"]
    successor = Leader(cluster, namespace, "successor")
    await asyncio.wait_for(successor.candidate.leads.wait(), lease.LEASE_SECONDS / 2)
    assert await successor.ends() == 0


async def test_who_never_led_ends_without_touching_the_lease(cluster: Cuttable, namespace: str) -> None:
    leader = Leader(cluster, namespace, "leader")
    await leader.leads()
    waiting = Leader(cluster, namespace, "waiting")
    await asyncio.sleep(lease.TRY_SECONDS * 2)
    assert await waiting.ends() == 0
    held = await cluster.lease(namespace, "lethe")
    assert held is not None
    assert held["spec"]["holderIdentity"] == "leader"
    assert await leader.ends() == 0
