"""An operator whose clocks a test sets: the host's, and the API server's as the operator reads it.

`python -m tests.e2e.set_clocks FILE`: the file says by how many seconds each of the two is ahead. The steady
clock, which nobody can set, stays as it is: clocks that are moved together are believed after a restart.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from devtools.operator_process import OperatorProcess
from devtools.servers.controlplane import ControlPlane
from lethe.bootstrap import run_operator
from lethe.logs import set_up_logs
from lethe.settings import read_settings


class ClockedOperator(OperatorProcess):
    """An operator with clocks to set, for one namespace; a context manager. It is not started yet."""

    def __init__(
        self, directory: Path, control_plane: ControlPlane, namespace: str, environment: Mapping[str, str]
    ) -> None:
        self._clocks = directory / "clocks"
        super().__init__(
            directory,
            control_plane.kubeconfig_of("operator"),
            namespaces=[namespace],
            module="tests.e2e.set_clocks",
            arguments=(str(self._clocks),),
            environment={"LETHE_SCAN_INTERVAL": "300ms", **environment},
        )
        self.set()

    def set(self, *, host: timedelta = timedelta(0), server: timedelta = timedelta(0)) -> None:
        """Set the clocks of the host and of the API server ahead of the true time, at once."""
        written = self._clocks.with_suffix(".new")
        written.write_text(json.dumps({"host": host.total_seconds(), "server": server.total_seconds()}))
        written.rename(self._clocks)

    def restart_in(self, later: timedelta) -> None:
        """Start it anew in a world in which all clocks are ahead: months later, without a wait."""
        self.stop()
        self.set(host=later, server=later)
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Cluster:
    """The API server with another clock."""

    def __init__(self, cluster: Any, clocks: Path) -> None:
        self._cluster, self._clocks = cluster, clocks

    def __getattr__(self, name: str) -> Any:
        """Return what the API server really has."""
        return getattr(self._cluster, name)

    async def server_time(self) -> datetime | None:
        """Return what its clock says."""
        told: datetime | None = await self._cluster.server_time()
        return None if told is None else told + ahead(self._clocks, "server")


def ahead(clocks: Path, which: str) -> timedelta:
    """Return by how much a clock is ahead."""
    return timedelta(seconds=json.loads(clocks.read_text())[which])


def main(clocks: Path) -> int:
    """Run the operator with these clocks."""
    settings = read_settings(os.environ)
    set_up_logs(settings.log_level, settings.log_format)
    return asyncio.run(
        run_operator(
            settings,
            wrap_cluster=lambda cluster: Cluster(cluster, clocks),
            clock=lambda: datetime.now(UTC) + ahead(clocks, "host"),
        )
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
