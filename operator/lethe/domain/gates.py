"""Whom a gate lets in: what each store says of its own, and what follows for a pod that several select."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from lethe.domain.conditions.restoreevent import VERIFIED
from lethe.domain.trouble import Trouble, TroubleReason

MOST_CHARACTERS = 1024
"""How much is said of a pod at the most."""


class GateState(IntEnum):
    """What is to become of a gate; of several that select one pod the least is right."""

    CLOSED = 0
    AS_IT_IS = 1
    """Who serves goes on, and nobody begins to: it can't be told now whether that would be right."""
    OPEN = 2


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What a store says of its gate, and why; `message` names the store."""

    state: GateState
    reason: str
    message: str


def verdict_of(
    store: str,
    replay: tuple[str, str] | None,
    trouble: Trouble | None,
    *,
    in_place: tuple[str, str] = VERIFIED,
    seen: bool,
    was_safe: bool,
) -> GateVerdict:
    """Return what a DataStore of a name says of its gate.

    `replay` is why it is not safe to serve, `in_place` what is said where it is; `seen` tells whether it has
    been looked at since the process began, `was_safe` that it was safe when last looked at, which is to
    count while it can't be.
    """
    if replay is not None:
        return GateVerdict(GateState.CLOSED, replay[0], f"DataStore {store}: {replay[1]}")
    if seen and trouble is None:
        return GateVerdict(GateState.OPEN, *in_place)
    why = trouble.message if trouble is not None else "it has not been looked at yet"
    if was_safe and (trouble is None or trouble.reason not in _LEDGER):
        said = f"DataStore {store} was safe to serve when it was last looked at"
        return GateVerdict(GateState.OPEN, "LastVerified", said)
    return GateVerdict(GateState.AS_IT_IS, "StoreAway", f"DataStore {store} can't be looked at: {why}")


# What was verified last stands in a ledger; and this one has gone back itself, or would with its store.
_LEDGER = frozenset({TroubleReason.LEDGER_BEHIND, TroubleReason.LEDGER_ON_SAME_SERVER})


def for_pod(verdicts: Iterable[GateVerdict]) -> GateVerdict:
    """Return what is to become of a pod that stores select who say this: it serves if all of them let it.

    What speaks against it is all said, by the stores' names. Raises `ValueError` where no store selects it.
    """
    said = sorted(verdicts, key=lambda one: (one.state, one.message, one.reason))
    worst = [one for one in said if one.state is min(said, key=lambda one: one.state).state]
    if not worst:
        raise ValueError("a pod that no store selects has no gate")
    messages = "; ".join(dict.fromkeys(one.message for one in worst))
    return GateVerdict(worst[0].state, worst[0].reason, messages[:MOST_CHARACTERS])
