"""What a condition is, and what the conditions of all kinds share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ConditionStatus(StrEnum):
    """A condition is true, false, or not known yet."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"

    @classmethod
    def of(cls, truth: bool) -> ConditionStatus:
        """Return the status that stands for a truth."""
        return cls.TRUE if truth else cls.FALSE


TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. `since` is when it came about, where the ledger knows that (`None`: when it is
    first shown).
    """

    type: str
    status: ConditionStatus
    reason: str
    message: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConditionSet:
    """Where an object stands: `state` in one word (`None` for kinds without), and its conditions."""

    state: str | None
    conditions: tuple[Condition, ...]

    @property
    def ready(self) -> Condition:
        """Return the condition that everybody waits for."""
        return next(condition for condition in self.conditions if condition.type == "Ready")


def plaintext_allowed(field: str | None) -> tuple[Condition, ...]:
    """Say that a field of the spec lets Lethe do without TLS; `None`: none does, and nothing is said."""
    if field is None:
        return ()
    message = f"{field} is true: without TLS, everybody on the way can read credentials and what is asked"
    return (Condition("PlaintextAllowed", TRUE, "AllowedBySpec", message),)


def with_progress(ready: Condition, *, stalled: bool = False, working: bool = False) -> tuple[Condition, ...]:
    """Add `Stalled` or `Reconciling` with Ready's reason; they exist only while they are true (kstatus)."""
    if stalled:
        return (ready, Condition("Stalled", TRUE, ready.reason, ready.message))
    if working:
        return (ready, Condition("Reconciling", TRUE, ready.reason, ready.message))
    return (ready,)
