"""What time it is: by a clock that nobody can set, as long as others agree with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from lethe.domain.clocks import Clocks


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
