"""Two clocks that agree: what can't be undone because of a date waits for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from lethe.domain.periods import instant

TOLERANCE = timedelta(minutes=2)
"""How far apart two clocks may be; NTP keeps hosts within milliseconds, a busy server answers in seconds."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """What time it is: `now` by this host, `others` by other clocks, by their names (`the API server`).

    `expected` is what `now` should be by the steady clock of this process since it last agreed with the
    others; a wall clock that is set shows against it.
    """

    now: datetime
    others: Mapping[str, datetime]
    expected: datetime

    def disagreement(self) -> str | None:
        """Say for a person why no date can be relied upon; `None` where the clocks agree."""
        if not self.others:
            return "no second clock can be read, and a date alone must not delete anything"
        for name, time in sorted(self.others.items()):
            if abs(time - self.now) > TOLERANCE:
                return (
                    f"this host says {instant(self.now)} and {name} says {instant(time)}; set the wrong one "
                    "(is NTP running?)"
                )
        if abs(self.expected - self.now) > TOLERANCE:
            return (
                f"this host's clock was set from about {instant(self.expected)} to {instant(self.now)} while "
                "Lethe ran; if that is right, restart the operator"
            )
        return None
