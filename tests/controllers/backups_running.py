"""The controllers of backups at work: a real ledger, real directories, an API server in memory."""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from devtools.dumps import PATTERN, days_ago, leave_dump
from lethe.adapters.backups.directory import DirectoryBackend
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.api.v1alpha1.backupsource import BackupSource
from lethe.controllers.backupsnapshot import BackupSnapshotController, SnapshotObjects
from lethe.controllers.backupsource import BackupSourceController
from lethe.controllers.last_copies import LastCopies
from lethe.controllers.runtime.cache import ObjectCache, key_of
from lethe.controllers.runtime.clock import SteadyClock, TwoClocks
from lethe.controllers.runtime.controller import Controller
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.status_writer import StatusWriter
from lethe.controllers.runtime.supervisor import Supervisor
from lethe.domain.periods import Period
from lethe.ports.backups import Backend, Deletion, Listing, Pin
from lethe.ports.cluster import Manifest, SecretContent
from tests.controllers.cluster_in_memory import ClusterInMemory

NAMESPACE = "shop"


class Faults:
    """What backends are made to do wrong, by the name of the source.

    `listed` is when each was asked; `deleting` names those that have been told to delete.
    """

    def __init__(self) -> None:
        self.error: dict[str, Exception] = {}
        self.hangs_in_list: dict[str, threading.Event] = {}
        self.hangs_in_delete: dict[str, threading.Event] = {}
        self.listed: dict[str, list[float]] = defaultdict(list)
        self.deleting: set[str] = set()


class FaultyBackend:
    """A directory that does wrong what it is told to."""

    def __init__(self, backend: Backend, name: str, faults: Faults) -> None:
        self._backend, self._name, self._faults = backend, name, faults

    def list(self) -> Listing:
        """List."""
        self._faults.listed[self._name].append(time.monotonic())
        if (hang := self._faults.hangs_in_list.get(self._name)) is not None:
            hang.wait()
        if (error := self._faults.error.get(self._name)) is not None:
            raise error
        return self._backend.list()

    def delete(self, pins: Sequence[Pin]) -> Mapping[str, Deletion]:
        """Delete."""
        self._faults.deleting.add(self._name)
        if (hang := self._faults.hangs_in_delete.get(self._name)) is not None:
            hang.wait()
        return self._backend.delete(pins)

    def gone(self, refs: Collection[str]) -> Mapping[str, str]:
        """Look."""
        return self._backend.gone(refs)

    def close(self) -> None:
        """Close."""
        self._backend.close()


class _Connector:
    def __init__(self, home: Path, faults: Faults) -> None:
        self._home, self._faults = home, faults

    def __call__(self, source: BackupSource, secret: SecretContent | None) -> Backend:
        assert source.spec.directory is not None
        directory = DirectoryBackend(source.spec.directory.path, source.spec.directory.name, [self._home])
        return FaultyBackend(directory, source.metadata.name or "", self._faults)

    def secret_name(self, source: BackupSource) -> str | None:
        return None


class BackupsRunning:
    """A company's sources, with the controllers that look after them."""

    def __init__(self, home: Path, cluster: ClusterInMemory | None = None) -> None:
        self.home = home
        (home / "keys").mkdir(exist_ok=True)
        self.ledger = open_ledger(f"sqlite:///{home / 'ledger.db'}", FileKeyring(home / "keys"))
        self.ledger.take_over()
        self.cluster, self.cache, self.metrics, self.faults = (
            cluster or ClusterInMemory(),
            ObjectCache(),
            Metrics(),
            Faults(),
        )
        clocks = TwoClocks(SteadyClock(lambda: datetime.now(UTC), time.monotonic), self.cluster)
        statuses = StatusWriter(self.cluster, self.metrics)
        self.objects = SnapshotObjects(self.cluster, self.metrics, statuses, clocks.now)
        self.copies = LastCopies(self.cache, self.ledger, self.cluster, statuses, clocks.now)
        self.sources = BackupSourceController(
            self.cache,
            self.ledger,
            self.cluster,
            _Connector(home, self.faults),
            self.metrics,
            statuses,
            self.objects,
            clocks=clocks,
            retention=Period(6, 0),
            scan_interval=300,
            clock_skew=timedelta(milliseconds=1),
            regrade=self.copies.regrade,
            ring_store=lambda _: None,
        )
        self.snapshots = BackupSnapshotController(
            self.cache, self.objects, statuses, clocks.now, scan_soon=self.sources.scan_soon
        )
        self.cluster.watchers = {
            "backupsources": self._observe_source,
            "backupsnapshots": lambda manifest, gone: self.snapshots.observe(manifest, gone=gone),
        }

    def _observe_source(self, manifest: Manifest, gone: bool) -> None:
        if gone:
            self.sources.forget(key_of(manifest))
        else:
            self.sources.observe(manifest)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let the controllers run, after they have listed what there is."""
        await self.snapshots.take_stock([])
        await self.sources.take_stock([])
        controllers: list[Controller[Any]] = [self.sources, self.snapshots, self.copies, self.copies.grading]
        supervising = asyncio.create_task(Supervisor(controllers).run())
        try:
            yield
            assert not supervising.done(), supervising
        finally:
            await self.sources.close()
            supervising.cancel()
            await asyncio.gather(supervising, return_exceptions=True)
            self.ledger.close()

    def apply(self, name: str, **spec: Any) -> Path:
        """Apply a source of a directory, in which one dump lies; return the directory."""
        directory = self.home / name
        if not directory.exists():
            directory.mkdir()
            leave_dump(directory, days_ago(3))
        where = {"path": str(directory), "name": PATTERN}
        given = {"stores": ["site"], "directory": where, **spec}
        self.cluster.apply("backupsources", NAMESPACE, name, given)
        return directory

    def ready(self, name: str) -> str:
        """Return the reason of a source's Ready."""
        return str(self.cluster.condition("backupsources", NAMESPACE, name).get("reason", ""))

    def states(self, source: str) -> list[str]:
        """Return the states of a source's snapshots."""
        found = self.cluster.objects.get("backupsnapshots", {}).values()
        of_source = [one for one in found if one["spec"]["source"] == source]
        return sorted(one.get("status", {}).get("state", "") for one in of_source)


async def eventually(claim: Callable[[], object], patience: float = 20.0) -> None:
    """Wait until a claim holds."""
    until = time.monotonic() + patience
    while not claim():
        assert time.monotonic() < until, "it never came"
        await asyncio.sleep(0.01)
