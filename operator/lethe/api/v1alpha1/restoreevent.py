"""RestoreEvent: a store went back in time, and erases again what came back."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from lethe.api.model import AGE, ApiModel, Column, Definition, Resource
from lethe.api.rules import FORBIDDEN, Rule, exactly_one, map_by
from lethe.api.scalars import Count, GivenInstant, Instant
from lethe.api.v1alpha1.conditions import Status
from lethe.api.v1alpha1.datastore_sql import TableName
from lethe.api.v1alpha1.identifiers import OpaqueKey, no_address
from lethe.api.v1alpha1.references import ObjectName
from lethe.domain.announced import Underway
from lethe.domain.facts import DetectedBy

_Sentence = Annotated[
    str,
    Field(min_length=1, max_length=1024),
    no_address("must not hold personal data such as an e-mail address"),
]


class RestoreReason(StrEnum):
    """Why a backup was restored. The policy allows the first two; a drill restores elsewhere."""

    NATURAL_DISASTER = "NaturalDisaster"
    SECURITY_BREACH = "SecurityBreach"
    DRILL = "Drill"
    UNDECLARED = "Undeclared"


class RestoredFrom(ApiModel):
    """To which moment the store went back. Exactly one of snapshot and takenAt."""

    rules = (
        exactly_one(
            "snapshot",
            "takenAt",
            message="give exactly one of snapshot (a BackupSnapshot's name) and takenAt (the moment to "
            "which the "
            "store went back)",
        ),
    )

    snapshot: ObjectName | None = Field(default=None, description="Name of the BackupSnapshot.")
    taken_at: GivenInstant | None = Field(
        default=None, description="The moment to which the store went back."
    )


class ExpectedKind(StrEnum):
    """Others' objects that may bring a store's data back."""

    RESTORE = "Restore"
    CLUSTER = "Cluster"
    PERSISTENT_VOLUME_CLAIM = "PersistentVolumeClaim"
    JOB = "Job"
    POD = "Pod"


class ExpectedBy(ApiModel):
    """Somebody else's object that may bring the store's data back."""

    kind: ExpectedKind = Field(
        description="Restore (Velero), Cluster (CloudNativePG), PersistentVolumeClaim, Job or Pod."
    )
    namespace: ObjectName = Field(description="Where it is.")
    name: ObjectName = Field(description="Its name.")
    uid: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="Its uid: another object of its name is another restore."
    )
    noticed_at: GivenInstant | None = Field(
        default=None, description="When Lethe noticed it: what was found before is another restore."
    )


class IdentityDecision(StrEnum):
    """Whether a row that came back is the erased person."""

    ERASE = "Erase"
    LEAVE_ALONE = "LeaveAlone"


class DecidedIdentity(ApiModel):
    """A person's answer about one row that software could not decide."""

    rules = (Rule(rule="self == oldSelf", reason=FORBIDDEN, message="a decision can't be changed"),)

    table: TableName = Field(description="Table of the row, as in status.unclear.")
    key: OpaqueKey = Field(description="Key of the row, as in status.unclear.")
    decision: IdentityDecision = Field(
        description="Erase: it is the erased person. LeaveAlone: it is somebody else."
    )


class Release(ApiModel):
    """Lets the store be served. With uid it breaks the glass."""

    because: _Sentence = Field(description="Why, in a sentence. No personal data.")
    uid: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="The metadata.uid of this very RestoreEvent. Given, the glass is broken: the store is "
        "served at once, whoever came back, until it goes back again. Takes the verb breakglass.",
    )
    by: Annotated[str, Field(min_length=1, max_length=253)] | None = Field(
        default=None,
        description="Who says so, as the API server knows them. Filled in by policy; nobody signs for "
        "somebody else.",
    )


class RestoreEventSpec(ApiModel):
    """Which store went back in time, and why. Can be added to, hardly changed."""

    rules = (
        Rule(
            rule="self.reason == 'Undeclared' || has(self.justification)",
            field_path=".reason",
            message="needs spec.justification: say in a sentence what happened (and where it is written "
            "down)",
            holds=lambda spec: spec.reason is RestoreReason.UNDECLARED or spec.justification is not None,
        ),
        Rule(
            rule="self.store == oldSelf.store",
            field_path=".store",
            reason=FORBIDDEN,
            message="can't be changed; apply another RestoreEvent",
        ),
        Rule(
            rule="has(self.expected) == has(oldSelf.expected) && (!has(self.expected) || self.expected == "
            "oldSelf.expected)",
            reason=FORBIDDEN,
            message="spec.expected is given when the RestoreEvent is made, and stays",
        ),
        Rule(
            rule="self.reason == oldSelf.reason || oldSelf.reason == 'Undeclared'",
            field_path=".reason",
            reason=FORBIDDEN,
            message="can only be given once, in place of Undeclared",
        ),
        Rule(
            rule="oldSelf.reason == 'Undeclared' || (has(self.justification) && has(oldSelf.justification) "
            "&& "
            "self.justification == oldSelf.justification)",
            reason=FORBIDDEN,
            message="spec.justification can't be changed once a reason is given",
        ),
        # On the list alone, an emptied or removed list would take decisions back.
        Rule(
            rule="!has(oldSelf.identities) || has(self.identities)",
            reason=FORBIDDEN,
            message="decisions in spec.identities can't be taken back",
        ),
        Rule(
            rule="!has(oldSelf.restoredFrom) || (has(self.restoredFrom) && self.restoredFrom == "
            "oldSelf.restoredFrom)",
            reason=FORBIDDEN,
            message="spec.restoredFrom can be added, not changed",
        ),
        Rule(
            rule="!has(oldSelf.release) || (has(self.release) && (self.release == oldSelf.release || "
            "(!has(oldSelf.release.uid) && has(self.release.uid))))",
            reason=FORBIDDEN,
            message="spec.release can be added, also with uid where it had none, then neither changed nor "
            "taken back",
        ),
        Rule(
            rule="!has(self.underway) || self.underway == 'Begun' || oldSelf.hasValue()",
            field_path=".underway",
            optional_old_self=True,
            reason=FORBIDDEN,
            message="is Begun at first; Ended ends what has begun",
        ),
        Rule(
            rule="has(self.underway) == has(oldSelf.underway) && (!has(self.underway) || self.underway == "
            "oldSelf.underway || self.underway == 'Ended')",
            reason=FORBIDDEN,
            message="spec.underway is given when the RestoreEvent is made, as Begun, and can only become "
            "Ended; apply another RestoreEvent",
        ),
    )

    store: ObjectName = Field(description="Name of the DataStore.")
    reason: RestoreReason = Field(
        description="NaturalDisaster, SecurityBreach or Drill. Undeclared stands only where Lethe found "
        "the restore "
        "before anybody declared it; replace it."
    )
    justification: _Sentence | None = Field(
        default=None,
        description="What happened, in a sentence, and where it is written down. No personal data.",
    )
    underway: Underway | None = Field(
        default=None,
        description="Begun, for a restore that is about to begin: the gate is closed, and Lethe lets go of "
        "the store. Ended, once it has: Lethe looks at once. Left out: Lethe looks on, and finds by itself "
        "when a restore begins and ends.",
    )
    restored_from: RestoredFrom | None = Field(
        default=None,
        description="To which moment the store went back. Needed only where its journal does not tell.",
    )
    expected: ExpectedBy | None = Field(
        default=None,
        description="By what Lethe expects a restore: the gate is closed until it shows in the store, until "
        "two looks after that object has ended, or for an hour.",
    )
    identities: Annotated[
        tuple[DecidedIdentity, ...],
        Field(max_length=64),
        map_by("table", "key"),
        Rule(
            rule="oldSelf.all(o, self.exists(n, n.table == o.table && n.key == o.key))",
            reason=FORBIDDEN,
            message="a decision can't be taken back",
        ),
    ] = Field(default=(), description="A person's answers for the rows that status lists as unclear.")
    release: Release | None = Field(
        default=None,
        description="Lets the store be served. Without uid: once all is erased again and verified, where the "
        "DataStore's gate says Manual. Counts for one restore: the one that was there when it was written.",
    )


class RestoreState(StrEnum):
    """Where the replay stands, in one word; derived from the conditions."""

    PENDING = "Pending"
    EXPECTED = "Expected"
    DECLARED = "Declared"
    UNDERWAY = "Underway"
    REPLAYING = "Replaying"
    IDENTITY_UNCLEAR = "IdentityUnclear"
    HELD_ROWS_RETURNED = "HeldRowsReturned"
    AWAITING_RELEASE = "AwaitingRelease"
    SAFE_TO_SERVE = "SafeToServe"
    NOTHING_CAME_BACK = "NothingCameBack"
    RELEASED = "Released"
    SUPERSEDED = "Superseded"
    EXPIRED = "Expired"
    STALLED = "Stalled"


class ReplayedTable(ApiModel):
    """How much came back in one table."""

    table: Annotated[str, Field(max_length=256)] = Field(description="The table.")
    rows: Count = Field(description="Its rows that were cleared or deleted again.")


class Replay(ApiModel):
    """How many erasures came undone, and what became of them."""

    missing: Count | None = Field(default=None, description="Erasures that the restored store lacked.")
    re_erased: Count | None = Field(default=None, description="Of these, erased again and read back.")
    left_alone: Count | None = Field(
        default=None, description="Of these, rows that are somebody else by now."
    )
    same_address: Count | None = Field(
        default=None,
        description="Of those left alone, rows with the address of the person who was erased under their "
        "key: somebody who signed up anew since, as far as keys and createdAt tell.",
    )
    never_found: Count | None = Field(
        default=None,
        description="Addresses that the store held nobody by when it was asked, and that can't be looked for "
        "again in this kind of store: a copy from before may hold them.",
    )
    unclear: Count | None = Field(
        default=None, description="Of these, rows about which a person has to decide."
    )
    tables: Annotated[tuple[ReplayedTable, ...], Field(max_length=64), map_by("table")] = Field(
        default=(), description="The rows that were cleared or deleted again, by table; the 64 with the most."
    )
    missing_since: Instant | None = Field(
        default=None, description="When the store was last seen in step: erasures can be missing since then."
    )


class RestoredCopy(ApiModel):
    """What a store was restored from."""

    snapshot: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="Name of the BackupSnapshot; absent where none of the known ones fits."
    )
    taken_at: Instant | None = Field(default=None, description="The moment to which the store went back.")


class UnclearRow(ApiModel):
    """A row of which software can't tell whose it is."""

    table: Annotated[str, Field(max_length=256)] = Field(description="Table of the row.")
    key: Annotated[str, Field(max_length=253)] = Field(description="Key of the row.")


class RestoreEventStatus(Status):
    """How far the replay has come."""

    state: RestoreState | None = Field(default=None, description="Where it stands, in one word.")
    detected_by: DetectedBy | None = Field(
        default=None, description="What showed that the store went back in time."
    )
    replay: Replay | None = Field(
        default=None, description="How many erasures came undone, and what became of them."
    )
    unclear: Annotated[tuple[UnclearRow, ...], Field(max_length=64), map_by("table", "key")] = Field(
        default=(), description="Rows that a person has to decide about, in spec.identities; the first 64."
    )
    restored_from: RestoredCopy | None = Field(
        default=None, description="Which snapshot it must have been, as the store's own journal tells."
    )
    safe_to_serve_at: Instant | None = Field(
        default=None, description="When all was erased again and verified."
    )


class RestoreEvent(Resource):
    """A store that went back in time: why, and how what came back with it is erased again."""

    definition: ClassVar = Definition(
        kind="RestoreEvent",
        plural="restoreevents",
        short_name="revent",
        selectable=(".spec.store", ".spec.reason", ".status.state"),
        columns=(
            Column(name="Store", json_path=".spec.store"),
            Column(name="Reason", json_path=".spec.reason"),
            Column(name="State", json_path=".status.state"),
            Column(name="Missing", type="integer", json_path=".status.replay.missing"),
            Column(name="Erased again", type="integer", json_path=".status.replay.reErased"),
            Column(name="Safe", type="date", json_path=".status.safeToServeAt"),
            AGE,
        ),
    )

    spec: RestoreEventSpec = Field(description="Which store went back in time, and why.")
    status: RestoreEventStatus = Field(
        default_factory=RestoreEventStatus.unseen, description="How far the replay has come."
    )
