"""RestoreDrill: a restore that is rehearsed in a scratch database, on a schedule."""

import re
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field, WithJsonSchema

from lethe.api.model import AGE, ApiModel, Column, Definition, Resource, condition_column
from lethe.api.rules import ATOMIC_LIST, FORBIDDEN, INT32, Rule, exactly_one
from lethe.api.scalars import Count, Instant, TimeZone
from lethe.api.v1alpha1.backupsource import LongestDuration
from lethe.api.v1alpha1.conditions import Status
from lethe.api.v1alpha1.identifiers import no_address
from lethe.api.v1alpha1.references import AllowPlaintext, ObjectName, SecretKeyRef
from lethe.domain.drill_facts import DrillResult, RewriteResult
from lethe.domain.drills import SnapshotChoice

_FIVE_FIELDS = r"^ *[^ @]+( +[^ @]+){4} *$"
_COMMAND = "^[A-Za-z0-9][-A-Za-z0-9_.]*$"

CommandName = Annotated[
    str,
    Field(min_length=1, max_length=63),
    Rule(
        rule=f"self.matches('{_COMMAND}')",
        reason=FORBIDDEN,
        message="must be the name of a file in LETHE_DRILL_COMMANDS_DIR: letters, digits, '-', '_' and '.', "
        "never a path",
        holds=lambda name: re.fullmatch(_COMMAND, name) is not None,
    ),
]


class SameServer(StrEnum):
    """Whether the scratch database may lie on the server of a DataStore."""

    REFUSED = "Refused"
    ALLOWED = "Allowed"


class Scratch(ApiModel):
    """A server on which Lethe makes a database, and drops it again."""

    url_secret_ref: SecretKeyRef = Field(
        description="A Secret with the URL of a PostgreSQL server, of a role with CREATEDB, and a database "
        "to connect to, such as postgres. The drill's database is another one, made and dropped by Lethe."
    )
    same_server: SameServer = Field(
        default=SameServer.REFUSED,
        description="Allowed: it may be the server of a DataStore, which then has the load of a restore.",
    )
    allow_plaintext: AllowPlaintext = None


class JobTemplate(ApiModel):
    """A Job, as batch/v1 has it."""

    spec: Annotated[
        dict[str, Any],
        WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
    ] = Field(
        description="The spec of a batch/v1 Job. Each container gets LETHE_SNAPSHOT, LETHE_SNAPSHOT_PLACE "
        "and LETHE_SCRATCH_URL."
    )


class Restore(ApiModel):
    """What restores a snapshot into the scratch database. Exactly one of command and jobTemplate."""

    rules = (exactly_one("command", "jobTemplate"),)

    command: CommandName | None = Field(
        default=None,
        description="Name of an executable in the folder that Lethe was given (LETHE_DRILL_COMMANDS_DIR). It "
        "finds LETHE_SNAPSHOT, LETHE_SNAPSHOT_PLACE and LETHE_SCRATCH_URL in its environment.",
    )
    job_template: JobTemplate | None = Field(
        default=None, description="A Job that does so, in this namespace; its success ends the restore."
    )


class RestoreDrillSpec(ApiModel):
    """What is restored where, how, and when."""

    rules = (
        Rule(
            rule="(has(self.rewrite) && self.rewrite) == has(self.dump)",
            reason=FORBIDDEN,
            message="give dump with rewrite: true, and without it none",
            holds=lambda spec: bool(spec.rewrite) == (spec.dump is not None),
        ),
    )

    source: ObjectName = Field(description="Name of the BackupSource whose snapshots are restored.")
    store: ObjectName | None = Field(
        default=None,
        description="Name of the DataStore that is looked for in the copy. Needed where the source holds "
        "several.",
    )
    snapshot: SnapshotChoice = Field(
        default=SnapshotChoice.NEWEST, description="Newest, Oldest or Random: which snapshot is restored."
    )
    schedule: Annotated[
        str,
        Field(min_length=9, max_length=128),
        Rule(
            rule=f"self.matches('{_FIVE_FIELDS}')",
            reason=FORBIDDEN,
            message="must be cron's five fields (minute, hour, day, month, weekday), as in 0 4 * * SUN",
            holds=lambda text: re.fullmatch(_FIVE_FIELDS, text) is not None,
        ),
    ] = Field(description="When, in cron's five fields: 0 4 * * SUN")
    time_zone: TimeZone = Field(default="UTC", description="Whose clock the schedule is of: Europe/Vienna")
    suspend: bool | None = Field(default=None, description="True: none begins, but for runNow.")
    run_now: (
        Annotated[
            str,
            Field(min_length=1, max_length=64),
            no_address("must hold no personal data such as an e-mail address; any new word will do"),
        ]
        | None
    ) = Field(default=None, description="Any new word lets one drill begin at once.")
    scratch: Scratch = Field(description="Where it is restored.")
    restore: Restore = Field(description="What restores it.")
    rewrite: bool | None = Field(
        default=None,
        description="True: a drill that passed dumps the cleaned copy, and that takes the snapshot's place, "
        "where the BackupSource allows it and no legal hold forbids it. Restored is a snapshot that holds "
        "somebody who was erased.",
    )
    dump: Restore | None = Field(
        default=None,
        description="What dumps the database of LETHE_SCRATCH_URL, with rewrite: as restore does, with the "
        "same variables; to the file LETHE_SNAPSHOT in LETHE_SNAPSHOT_PLACE, which is another place then.",
    )
    time_limit: LongestDuration = Field(
        default="2h", description="How long all of it may take; what takes longer is ended."
    )
    history: Annotated[int, Field(ge=0, le=20), INT32] = Field(
        default=5, description="How many drills status.history tells of."
    )


_Text = Annotated[str, Field(max_length=1024)]


class RestoredSnapshot(ApiModel):
    """A snapshot that was restored."""

    ref: _Text = Field(description="What the source calls it.")
    taken_at: Instant = Field(description="When it was taken.")


class Measures(ApiModel):
    """How large it was, and how long it took."""

    database_bytes: Count | None = Field(default=None, description="Size of the restored database.")
    restored_in: _Text | None = Field(default=None, description="How long the restore took.")
    erased_again_in: _Text | None = Field(
        default=None, description="How long all erasures took to be applied again and read back."
    )
    verified_in: _Text | None = Field(default=None, description="Of these, how long reading back took.")


class Findings(ApiModel):
    """Who was found in the copy."""

    erased_again: Count | None = Field(default=None, description="Persons who were erased in it again.")
    left_alone: Count | None = Field(
        default=None, description="Rows under erased keys that are somebody else's."
    )
    missed: Count | None = Field(default=None, description="Persons who stood in it in the end.")


class PastDrill(ApiModel):
    """A drill that has ended."""

    started_at: Instant = Field(description="When it began.")
    result: DrillResult = Field(description="What came of it.")
    snapshot: _Text = Field(description="What the source calls the snapshot.")


class RestoreDrillStatus(Status):
    """How the last drill went, and when the next one is."""

    last_started_at: Instant | None = Field(default=None, description="When the last one began.")
    last_ended_at: Instant | None = Field(default=None, description="When it ended.")
    last_passed_at: Instant | None = Field(default=None, description="When one passed last.")
    next_at: Instant | None = Field(default=None, description="When the next one is due.")
    last_snapshot: RestoredSnapshot | None = Field(default=None, description="What it restored.")
    result: DrillResult | None = Field(default=None, description="What came of it, in one word.")
    rewrite: RewriteResult | None = Field(
        default=None, description="What became of the snapshot, where it was to be rewritten."
    )
    measures: Measures | None = Field(default=None, description="How large it was, and how long it took.")
    findings: Findings | None = Field(default=None, description="Who was found in the copy.")
    history: Annotated[tuple[PastDrill, ...], Field(max_length=20), ATOMIC_LIST] = Field(
        default=(), description="The drills before, newest first."
    )


class RestoreDrill(Resource):
    """A restore that is rehearsed where no application reads, on a schedule, and all erasures with it."""

    definition: ClassVar = Definition(
        kind="RestoreDrill",
        plural="restoredrills",
        short_name="rdrill",
        name_max_length=52,  # its Job's name is longer by a hyphen and ten digits
        columns=(
            Column(name="Last", type="date", json_path=".status.lastStartedAt"),
            Column(name="Restored in", json_path=".status.measures.restoredIn"),
            Column(name="Erased again in", json_path=".status.measures.erasedAgainIn"),
            Column(name="Missed", type="integer", json_path=".status.findings.missed"),
            Column(name="Result", json_path=".status.result"),
            Column(name="Rewrite", json_path=".status.rewrite", priority=1),
            Column(name="Next", json_path=".status.nextAt"),
            AGE,
            condition_column("Reason", "Ready", "reason", priority=1),
        ),
    )

    spec: RestoreDrillSpec = Field(description="What is restored where, how, and when.")
    status: RestoreDrillStatus = Field(
        default_factory=RestoreDrillStatus.unseen, description="How the last one went."
    )
