"""BackupSource: where backups of stores lie, and how long they may live."""

import re
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from lethe.api.model import AGE, ApiModel, Column, Definition, Resource, condition_column
from lethe.api.rules import FORBIDDEN, INT32, SET, Rule, exactly_one
from lethe.api.scalars import Count32, Instant
from lethe.api.v1alpha1.conditions import Status
from lethe.api.v1alpha1.datastore_remote import Plugin
from lethe.api.v1alpha1.references import AllowPlaintext, ObjectName, SecretRef, url_rule

BACKENDS = ("directory", "s3", "restic", "velero", "cloudNativePG", "volumeSnapshots", "plugin")
_PERIOD = "^P([0-9]{1,3}Y)?([0-9]{1,3}M)?([0-9]{1,3}W)?([0-9]{1,4}D)?$"

Retention = Annotated[
    str,
    Field(max_length=32),
    Rule(
        rule=f"self.matches('{_PERIOD}') && self.matches('[1-9]')",
        reason=FORBIDDEN,
        message="must be an ISO 8601 period of years, months, weeks and days, greater than zero: P6M, "
        "P26W, P180D or "
        "P1Y6M",
        holds=lambda period: (
            re.fullmatch(_PERIOD, period) is not None and re.search("[1-9]", period) is not None
        ),
    ),
]
_DURATION = "^([0-9]{1,2}d)?([0-9]{1,3}h)?([0-9]{1,5}m)?([0-9]{1,6}s)?$"
LongestDuration = Annotated[
    str,
    Field(max_length=32),
    Rule(
        rule=f"self.matches('{_DURATION}') && self.matches('[1-9]')",
        reason=FORBIDDEN,
        message="must be a duration greater than zero, of 99d at most, such as 90m, 6h or 1d12h",
        holds=lambda text: re.fullmatch(_DURATION, text) is not None and re.search("[1-9]", text) is not None,
    ),
]
SnapshotNames = Annotated[str, Field(min_length=1, max_length=256)]


class LastSnapshot(StrEnum):
    """What becomes of the only snapshot left when it expires."""

    HOLD = "Hold"
    PRUNE = "Prune"


class Rewriting(StrEnum):
    """Whether a RestoreDrill may replace snapshots by dumps without those who were erased since."""

    FORBIDDEN = "Forbidden"
    ALLOWED = "Allowed"


class DirectorySource(ApiModel):
    """Files in a directory that is mounted into Lethe's pod."""

    path: Annotated[
        str,
        Field(min_length=1, max_length=1024),
        Rule(
            rule="self.startsWith('/')",
            message="must be an absolute path",
            reason=FORBIDDEN,
            holds=lambda path: path.startswith("/"),
        ),
    ] = Field(description="Absolute path of the directory.")
    name: SnapshotNames = Field(
        description="How a file's name tells when it was taken: site-{takenAt:%Y%m%d}.dump"
    )
    claim_name: ObjectName | None = Field(
        default=None,
        description="The PersistentVolumeClaim of this namespace by which others reach the directory. Where "
        "LETHE_EARLY_WARNING has jobs, a Job or Pod that mounts it, and that no CronJob or workload made, is "
        "taken for a restore of the stores.",
    )


class S3Source(ApiModel):
    """Objects in S3 or in what speaks its protocol."""

    endpoint: (
        Annotated[
            str,
            Field(max_length=1024),
            url_rule("http", "https", called="http(s)", example="https://s3.example.org"),
        ]
        | None
    ) = Field(default=None, description="The service. Absent: AWS.")
    region: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="Region of the bucket."
    )
    bucket: Annotated[str, Field(min_length=3, max_length=63)] = Field(description="Name of the bucket.")
    prefix: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None, description="What the keys of the snapshots begin with. Nothing else is ever touched."
    )
    credentials_secret_ref: SecretRef | None = Field(
        default=None,
        description="A Secret with the access key. Absent: the role of Lethe's own pod (workload identity).",
    )
    name: SnapshotNames = Field(
        description="How the key behind the prefix tells when it was taken: "
        "site-{takenAt:%Y%m%dT%H%M%SZ}.dump. Without {takenAt:…} each version of such a key is a snapshot, "
        "and longestDuration is needed."
    )
    allow_plaintext: AllowPlaintext = None


class ResticSource(ApiModel):
    """Snapshots in a restic repository."""

    repository: Annotated[
        str,
        Field(min_length=1, max_length=1024),
        Rule(
            rule="!self.matches('://[^/]*:[^/]*@')",
            reason=FORBIDDEN,
            message="must hold no password; put it into the Secret that credentialsSecretRef names",
            holds=lambda repository: re.search("://[^/]*:[^/]*@", repository) is None,
        ),
    ] = Field(description="The repository, as restic takes it, without credentials.")
    credentials_secret_ref: SecretRef = Field(
        description="A Secret with the repository's password and credentials."
    )
    host: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="Only snapshots of this host."
    )
    paths: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Field(max_length=64), SET] = Field(
        default=(), description="Only snapshots of these paths."
    )
    allow_plaintext: AllowPlaintext = None


class VeleroSource(ApiModel):
    """Velero's backups."""

    namespace: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="Where Velero keeps its Backups."
    )
    schedule: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="Only backups of this Schedule."
    )


class CloudNativePGSource(ApiModel):
    """Backups that CloudNativePG takes."""

    cluster: Annotated[str, Field(max_length=253)] = Field(
        description="Name of the Cluster in this namespace."
    )


class VolumeSnapshotSource(ApiModel):
    """VolumeSnapshots of this namespace."""

    persistent_volume_claim: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="Only snapshots of this claim."
    )


class BackupSourceSpec(ApiModel):
    """Whose backups, where, and for how long. Exactly one of the backends."""

    rules = (exactly_one(*BACKENDS),)

    stores: Annotated[tuple[ObjectName, ...], Field(min_length=1, max_length=64), SET] = Field(
        description="Names of the DataStores whose data the snapshots hold."
    )
    retention: Retention = Field(
        default="P6M",
        description="How long a snapshot lives, as an ISO 8601 period: P6M is six calendar months.",
    )
    last_snapshot: LastSnapshot = Field(
        default=LastSnapshot.HOLD,
        description="Hold or Prune: what becomes of the only snapshot left when it expires.",
    )
    rewrite: Rewriting = Field(
        default=Rewriting.FORBIDDEN,
        description="Allowed: RestoreDrills with rewrite may replace snapshots by dumps without those who "
        "were erased since. Takes a directory, and one store.",
    )
    max_prunes_per_run: Annotated[int, Field(ge=1, le=10000), INT32] = Field(
        default=10, description="More due at once than this waits for a person, in confirmPrunes."
    )
    confirm_prunes: Annotated[int, Field(ge=1, le=1_000_000), INT32] | None = Field(
        default=None, description="A person's consent: the count of snapshots that may be pruned at once."
    )
    longest_duration: LongestDuration | None = Field(
        default=None,
        description="For names that tell when a backup ended: how long one may take, such as 6h. A snapshot "
        "counts as begun that much before its stamp. Absent: stamps tell the start.",
    )
    suspend: bool | None = Field(
        default=None, description="While true, nothing is pruned; listing goes on, and expiry does too."
    )
    directory: DirectorySource | None = Field(default=None, description="Files in a mounted directory.")
    s3: S3Source | None = Field(default=None, description="Objects in S3 or in what speaks its protocol.")
    restic: ResticSource | None = Field(default=None, description="Snapshots in a restic repository.")
    velero: VeleroSource | None = Field(default=None, description="Velero's backups.")
    cloud_native_pg: CloudNativePGSource | None = Field(
        default=None, description="Backups that CloudNativePG takes."
    )
    volume_snapshots: VolumeSnapshotSource | None = Field(
        default=None, description="VolumeSnapshots of this namespace."
    )
    plugin: Plugin | None = Field(
        default=None, description="A source of another kind, by an installed adapter."
    )


class SnapshotCounts(ApiModel):
    """How many snapshots the source holds."""

    total: Count32 | None = Field(default=None, description="All that were seen and are not proven gone.")
    overdue: Count32 | None = Field(default=None, description="Those that should be gone by now.")
    held: Count32 | None = Field(default=None, description="Those that are kept longer for a reason.")


class NextPrune(ApiModel):
    """Which snapshot goes next, and when."""

    ref: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None, description="What the source calls it."
    )
    at: Instant | None = Field(default=None, description="From when on it is pruned.")


class BackupSourceStatus(Status):
    """What Lethe has seen in the source."""

    snapshots: SnapshotCounts | None = Field(default=None, description="How many snapshots the source holds.")
    next: NextPrune | None = Field(default=None, description="Which snapshot goes next, and when.")
    unparsable: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Field(max_length=16)] = Field(
        default=(),
        description="What lies there and does not tell when it was taken; the first 16. It is never deleted.",
    )
    partial: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Field(max_length=16)] = Field(
        default=(), description="What is unfinished there; the first 16. It is never deleted."
    )
    oldest_taken_at: Instant | None = Field(default=None, description="When the oldest of them was taken.")
    last_scan_at: Instant | None = Field(default=None, description="When the source was last listed.")


class BackupSource(Resource):
    """Where backups of stores lie. Each snapshot found there becomes a BackupSnapshot and expires in time."""

    definition: ClassVar = Definition(
        kind="BackupSource",
        plural="backupsources",
        short_name="bsrc",
        columns=(
            condition_column("Ready", "Ready"),
            condition_column("Effective", "RetentionEffective"),
            Column(name="Snapshots", type="integer", json_path=".status.snapshots.total"),
            Column(name="Overdue", type="integer", json_path=".status.snapshots.overdue"),
            Column(name="Oldest", type="date", json_path=".status.oldestTakenAt"),
            Column(name="Scanned", type="date", json_path=".status.lastScanAt"),
            AGE,
            condition_column("Reason", "RetentionEffective", "reason", priority=1),
        ),
    )

    spec: BackupSourceSpec = Field(description="Whose backups, where, and for how long.")
    status: BackupSourceStatus = Field(
        default_factory=BackupSourceStatus.unseen, description="What Lethe has seen there."
    )
