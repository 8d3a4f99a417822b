"""What time it is: by a clock that nobody can set, as long as others agree with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from lethe.domain.clocks import Clocks
from lethe.ports.cluster import Cluster, ClusterRefused, ClusterUnavailable


class SteadyClock:
    """This host's wall clock, as it went on since it last agreed with others (at first: since the start).

    A wall clock that is set while the operator runs changes nothing of `now`, and shows in `compare`.
    """

    def __init__(self, clock: Callable[[], datetime], steady: Callable[[], float]) -> None:
        self._clock, self._steady = clock, steady
        self._agreed = (clock(), steady())

    def now(self) -> datetime:
        """Return the instant, in UTC."""
        agreed_at, agreed_steady = self._agreed
        return agreed_at + timedelta(seconds=self._steady() - agreed_steady)

    def wall(self) -> datetime:
        """Return what this host's wall clock says."""
        return self._clock()

    def compare(self, others: Mapping[str, datetime]) -> str | None:
        """Compare the wall clock with others; return why no date can be relied upon, else `None`."""
        wall, steady = self._clock(), self._steady()
        disagreement = Clocks(wall, others, self.now()).disagreement()
        if disagreement is None:
            self._agreed = wall, steady
        return disagreement


class TwoClocks:
    """This host's clock and the API server's: what can't be undone because of a date waits for both."""

    def __init__(self, steady: SteadyClock, cluster: Cluster) -> None:
        self._steady, self._cluster = steady, cluster
        self.now = steady.now

    async def offset_of_server(self) -> timedelta | None:
        """Return how far the API server's clock is ahead of this host's; `None` if it does not say."""
        try:
            server_time = await self._cluster.server_time()
        except (ClusterUnavailable, ClusterRefused):
            return None
        return None if server_time is None else server_time - self._steady.wall()

    def compare(self, offset: timedelta | None, backend_date: datetime | None = None) -> str | None:
        """Return why no date can be relied upon, else `None`; a backend may have a clock of its own."""
        others = {"the API server": self._steady.wall() + offset} if offset is not None else {}
        if backend_date is not None:
            others["the backend"] = backend_date
        return self._steady.compare(others)

    async def disagreement(self) -> str | None:
        """Ask the API server for its time, and compare."""
        return self.compare(await self.offset_of_server())
