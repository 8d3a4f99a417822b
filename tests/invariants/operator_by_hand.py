"""The whole operator over an API server in memory, whose time passes only when a test says so.

Controllers, workflows and adapters are the real ones. What is due is done one by one, in the order of its
moment: a run is the same each time, and half a year costs no more than a minute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lethe.adapters.drills.command import Commands
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.adapters.notices.letters import TemplateWriter
from lethe.connectors import BackendConnector, DrillConnector, StoreConnector
from lethe.controllers import backupsource, datastore, deletionrequest, deletionrequest_status, operator
from lethe.controllers.operator import Operator
from lethe.controllers.runtime import status_writer
from lethe.controllers.runtime.cache import ManagedStore
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.supervisor import _Lane
from lethe.domain.gates import GateState, GateVerdict
from lethe.domain.periods import Period
from lethe.ports.cluster import Manifest
from tests.controllers.cluster_in_memory import ClusterInMemory

NAMESPACE = "shop"
JOURNAL_INTERVAL = 10.0
SCAN_INTERVAL = 10.0
SKEW = timedelta(minutes=5)
START = datetime(2026, 3, 1, tzinfo=UTC)

T = TypeVar("T")


class Hand:
    """A clock that stands still until somebody moves it; in place of the module `time` in controllers."""

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.seconds

    def clock_gettime(self, _: int) -> float:
        """Return the same."""
        return self.seconds

    def now(self) -> datetime:
        """Return the instant."""
        return START + timedelta(seconds=self.seconds - 1_000_000.0)


@contextmanager
def controllers_by_hand() -> Iterator[Hand]:
    """Let controllers go by a clock that is moved by hand."""
    hand = Hand()
    with pytest.MonkeyPatch.context() as patched:
        modules = (backupsource, datastore, deletionrequest, deletionrequest_status, operator, status_writer)
        for module in modules:
            patched.setattr(module, "time", hand)
        yield hand


class ClusterByHand(ClusterInMemory):
    """Objects that are dated by the clock of the test, and pods: what the gate of each says."""

    def __init__(self, now: Callable[[], datetime], pods: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__()
        self._now, self._labels = now, pods
        self.pods: dict[str, GateVerdict] = {}

    def _keep(self, plural: str, manifest: dict[str, Any]) -> dict[str, Any]:
        metadata = manifest["metadata"]
        if (metadata["namespace"], metadata["name"]) not in self.objects.get(plural, {}):
            metadata["creationTimestamp"] = f"{self._now():%Y-%m-%dT%H:%M:%SZ}"
        return super()._keep(plural, manifest)

    async def server_time(self) -> datetime | None:
        """Return the time of the test."""
        return self._now()

    async def set_gate(
        self,
        namespace: str,
        selector: Manifest,
        verdict: Callable[[Mapping[str, str]], GateVerdict],
        *,
        confirm: Callable[[], Awaitable[None]],
    ) -> Sequence[str]:
        """Set the gates of the pods that have the labels; what is to stay as it is stays."""
        self._answer()
        changed = []
        for pod, labels in self._labels.items():
            if not selector["matchLabels"].items() <= labels.items():
                continue
            said = verdict(labels)
            if said.state is not GateState.AS_IT_IS and self.pods.get(pod) != said:
                await confirm()
                self.pods[pod] = said
                changed.append(pod)
        return changed


class OperatorByHand:
    """An operator, its ledger and keys. `cluster` is where persons apply what they want."""

    def __init__(self, hand: Hand, home: Path, pods: Mapping[str, Mapping[str, str]]) -> None:
        self.hand, self.home = hand, home
        (home / "keys").mkdir(parents=True)
        self._keyring = FileKeyring(home / "keys")
        self.ledger = open_ledger(f"sqlite:///{home / 'ledger.db'}", self._keyring, now=hand.now)
        self.cluster = ClusterByHand(hand.now, pods)
        self._runner = asyncio.Runner()
        self.start()

    def start(self) -> None:
        """Begin a new process, which knows what ledger and API server tell it."""
        self._run(self._start())

    def restart(self) -> None:
        """End, and begin anew."""
        self._run(self._operator._wind_down())
        self.start()

    def close(self) -> None:
        """End."""
        self._run(self._operator._wind_down())
        for managed in self._operator._cache.stores.values():
            if managed.session is not None:
                managed.session.port.close()
        self.ledger.close()
        self._runner.close()

    def stores(self) -> Mapping[str, ManagedStore]:
        """Return what the operator knows of each store, by the name that its DataStore has now."""
        return {name: managed for (_, name), managed in self._operator._cache.stores.items()}

    def conditions(self, plural: str) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        """Return all conditions of all objects of a kind, by name and type."""
        return {
            name: {one["type"]: one for one in (manifest.get("status") or {}).get("conditions", ())}
            for (_, name), manifest in self.cluster.objects.get(plural, {}).items()
        }

    def advance(self, seconds: float) -> None:
        """Let time pass, and do what is due meanwhile at its moment."""
        self._run(self._advance(self.hand.seconds + seconds))

    def leap(self, length: timedelta) -> None:
        """Let time pass in which the operator gets round to nothing."""
        self.hand.seconds += length.total_seconds()

    def _run(self, work: Any) -> Any:
        return self._runner.run(work)

    async def _start(self) -> None:
        stores = StoreConnector(self.ledger, self._keyring, lambda port: port)
        self._operator = Operator(
            ledger=self.ledger,
            keyring=self._keyring,
            cluster=self.cluster,
            connect=stores,
            metrics=Metrics(),
            namespaces=[NAMESPACE],
            deadline=Period(0, 30),
            journal_interval=JOURNAL_INTERVAL,
            sweep_interval=JOURNAL_INTERVAL,
            connect_backend=BackendConnector([self.home], lambda backend: backend),
            connect_drill=DrillConnector(stores, Commands(None)),
            retention=Period(6, 0),
            scan_interval=SCAN_INTERVAL,
            clock_skew=SKEW,
            renderer=TemplateWriter(),
            mailer=None,
            notices_per_hour=1,
            clock=self.hand.now,
        )
        controllers = [c for c in self._operator._supervisor._controllers if c.name != "measure"]
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lanes = [(one, _Lane(one, failed)) for one in controllers]
        for one in controllers:
            one.queue._clock = self.hand.monotonic
        for plural in self._operator._kinds:
            self.cluster.watchers[plural] = self._observer(plural)
        await self._operator._begin()
        await self._operator._requests.take_stock([NAMESPACE])

    def _observer(self, plural: str) -> Callable[[Manifest, bool], None]:
        return lambda manifest, gone: self._operator.ring(plural, manifest, gone=gone)

    async def _advance(self, until: float) -> None:
        while True:
            await self._do_what_is_due()
            moments = [m for one, _ in self._lanes if (m := one.queue._next_moment()) is not None]
            if not moments or min(moments) > until:
                break
            self.hand.seconds = max(self.hand.seconds, min(moments))
        self.hand.seconds = max(self.hand.seconds, until)
        await self._do_what_is_due()

    async def _do_what_is_due(self) -> None:
        while True:
            for _ in range(3):  # callbacks of what has ended ring
                await asyncio.sleep(0)
            taken = False
            for controller, lane in self._lanes:
                if keys := controller.queue._take_due(controller.batch):
                    taken = True
                    await lane._reconcile(keys)
            under_way = self._under_way()
            if under_way:
                await asyncio.wait(under_way)
            elif not taken:
                return

    def _under_way(self) -> Collection[asyncio.Future[Any]]:
        cache = self._operator._cache
        passes = [managed.work.future for managed in cache.stores.values() if managed.work is not None]
        scans = [one.under_way for one in cache.sources.values() if one.under_way is not None]
        return [one for one in (*passes, *scans) if not one.done()]
