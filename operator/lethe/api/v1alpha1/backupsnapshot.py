"""BackupSnapshot: one snapshot, from the day it is taken until its bytes are proven gone."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from lethe.api.model import ApiModel, Column, Definition, Resource
from lethe.api.rules import FORBIDDEN, Rule
from lethe.api.scalars import GivenInstant, Instant
from lethe.api.v1alpha1.conditions import Status
from lethe.api.v1alpha1.references import ObjectName


class BackupSnapshotSpec(ApiModel):
    """What was taken, and when. Can't be changed."""

    rules = (
        Rule(
            rule="self == oldSelf",
            reason=FORBIDDEN,
            message="a BackupSnapshot can't be changed: it tells what was taken and when",
        ),
    )

    source: ObjectName = Field(description="Name of the BackupSource.")
    ref: Annotated[str, Field(min_length=1, max_length=1024)] = Field(
        description="What the source calls it: an object's key, a file's name, a snapshot's id."
    )
    taken_at: GivenInstant = Field(description="When it was taken.")


class SnapshotState(StrEnum):
    """Where a snapshot stands, in one word; derived from its conditions."""

    PENDING = "Pending"
    PRESENT = "Present"
    OVERDUE = "Overdue"
    HELD = "Held"
    DELETED = "Deleted"
    PURGED = "Purged"
    MISSING = "Missing"


class BackupSnapshotStatus(Status):
    """What became of the snapshot."""

    state: SnapshotState | None = Field(default=None, description="Where it stands, in one word.")
    expires_at: Instant | None = Field(default=None, description="From when on it is pruned.")
    deleted_at: Instant | None = Field(default=None, description="When the backend accepted its deletion.")
    purged_at: Instant | None = Field(default=None, description="When its bytes were proven gone.")
    rewritten_at: Instant | None = Field(
        default=None,
        description="When Lethe replaced it by a dump without those who were erased until then.",
    )
    cleaned_until: Instant | None = Field(
        default=None,
        description="Who was erased before is in it no more, as far as could be looked for.",
    )


class BackupSnapshot(Resource):
    """One snapshot, found by a BackupSource or applied by the job that took it."""

    definition: ClassVar = Definition(
        kind="BackupSnapshot",
        plural="backupsnapshots",
        short_name="bsnap",
        selectable=(".spec.source", ".spec.ref", ".status.state"),
        columns=(
            Column(name="Source", json_path=".spec.source"),
            Column(name="State", json_path=".status.state"),
            Column(name="Taken", type="date", json_path=".spec.takenAt"),
            Column(name="Expires", json_path=".status.expiresAt"),
            Column(name="Purged", type="date", json_path=".status.purgedAt"),
            Column(name="Ref", json_path=".spec.ref", priority=1),
        ),
    )

    spec: BackupSnapshotSpec = Field(description="What was taken, and when.")
    status: BackupSnapshotStatus = Field(
        default_factory=BackupSnapshotStatus.unseen, description="What became of it."
    )
