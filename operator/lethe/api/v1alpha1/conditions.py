"""Conditions, as kstatus, `kubectl wait` and Argo CD read them, and what every status begins with."""

from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import Field

from lethe.api.model import ApiModel
from lethe.api.rules import map_by
from lethe.api.scalars import Count, Instant
from lethe.domain.conditions.base import ConditionStatus

READY = "Ready"


class Condition(ApiModel):
    """One statement about an object, with the reason for it."""

    type: Annotated[str, Field(min_length=1, max_length=316)] = Field(description="What is stated.")
    status: ConditionStatus = Field(description="Whether it applies.")
    observed_generation: Count | None = Field(
        default=None, description="The metadata.generation that this was stated about."
    )
    last_transition_time: Instant = Field(description="When status last changed.")
    reason: Annotated[
        str, Field(min_length=1, max_length=1024, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    ] = Field(description="Why, in one word.")
    message: Annotated[str, Field(max_length=4096)] = Field(
        description="Why, for a person. Holds no personal data."
    )


Conditions = Annotated[tuple[Condition, ...], Field(max_length=16), map_by("type")]


class Status(ApiModel):
    """What Lethe has seen and done. Counts, times and reasons; never values."""

    observed_generation: Count | None = Field(
        default=None, description="The metadata.generation that this describes."
    )
    conditions: Conditions = Field(default=(), description="Ready, and what else is worth waiting for.")

    @classmethod
    def unseen(cls) -> Self:
        """Return the status of an object that Lethe has not seen yet: the schema's default."""
        unseen = {
            "state": "Pending",  # of the kinds that have one
            "observedGeneration": 0,
            "conditions": [
                {
                    "type": READY,
                    "status": ConditionStatus.UNKNOWN,
                    "observedGeneration": 0,
                    "lastTransitionTime": datetime(1970, 1, 1, tzinfo=UTC),
                    "reason": "Pending",
                    "message": "not seen by Lethe yet",
                }
            ],
        }
        return cls.model_validate(unseen)
