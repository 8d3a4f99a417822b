"""What tests read of conditions, and what is true of those of every kind."""

from __future__ import annotations

from lethe.domain.conditions.base import ConditionSet


def sound_statuses(condition_set: ConditionSet) -> dict[str, str]:
    """Return the status of each condition, after proof that they don't contradict one another."""
    types = [condition.type for condition in condition_set.conditions]
    assert len(types) == len(set(types))
    assert not {"Reconciling", "Stalled"} <= set(types)
    for condition in condition_set.conditions:
        assert condition.reason.isalnum()
        assert condition.reason[0].isupper()
        assert condition.message
        if condition.type in ("Reconciling", "Stalled"):
            assert condition.status.value == "True"
            assert condition_set.ready.status.value != "True"
    return {condition.type: condition.status.value for condition in condition_set.conditions}


def shown(condition_set: ConditionSet) -> dict[str, tuple[str, str]]:
    """Return the status and reason of each condition."""
    return {
        condition.type: (condition.status.value, condition.reason) for condition in condition_set.conditions
    }


def message_of(condition_set: ConditionSet, kind: str) -> str:
    """Return the message of one condition."""
    return next(condition.message for condition in condition_set.conditions if condition.type == kind)
