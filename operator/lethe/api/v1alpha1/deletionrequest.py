"""DeletionRequest: erase a person, or records, tables or a database."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from lethe.api.model import AGE, ApiModel, Column, Definition, Resource
from lethe.api.rules import ATOMIC_LIST, FORBIDDEN, SET, Rule, exactly_one, map_by
from lethe.api.scalars import Count, Count32, GivenInstant, Instant
from lethe.api.v1alpha1.conditions import Status
from lethe.api.v1alpha1.datastore_sql import TableName
from lethe.api.v1alpha1.identifiers import ErasureSubject, Reference, no_address
from lethe.api.v1alpha1.references import ObjectName


class Confirmation(StrEnum):
    """A person's answer to what status asks."""

    NOTHING_FOUND = "NothingFound"
    NOTHING_TO_ASK_BY = "NothingToAskBy"
    SHARED_RECORD = "SharedRecord"
    KEY_ABOVE_RESTORE = "KeyAboveRestore"
    TOO_MANY_RECORDS = "TooManyRecords"


# No table is called like this, but an address may be put into the wrong field.
_Table = Annotated[TableName, no_address("is the name of a table, never an e-mail address")]
_RecordKey = Annotated[str, Field(min_length=1, max_length=253)]
_TableNames = Annotated[tuple[_Table, ...], Field(min_length=1, max_length=64), ATOMIC_LIST]
_DatabaseName = Annotated[
    str,
    Field(min_length=1, max_length=256),
    no_address("is the name of a database, never an e-mail address"),
]


class Records(ApiModel):
    """Rows of one table, by their keys."""

    table: _Table = Field(description="Name of the table, with its schema if that is not the default one.")
    keys: Annotated[
        tuple[_RecordKey, ...],
        Field(min_length=1, max_length=1000),
        ATOMIC_LIST,
        Rule(
            rule="self.all(k, !k.contains('@'))",
            reason=FORBIDDEN,
            message="keys are opaque: an e-mail address must not stand here",
            holds=lambda keys: not any("@" in key for key in keys),
        ),
    ] = Field(description="Primary keys of the rows, in quotes.")


class Tables(ApiModel):
    """Whole tables. Their names are repeated, as a safeguard."""

    rules = (
        Rule(
            rule="self.confirm == self.names",
            field_path=".confirm",
            message="must repeat names exactly, as a safeguard",
            holds=lambda tables: tables.confirm == tables.names,
        ),
    )

    names: _TableNames = Field(description="Names of the tables that are dropped.")
    confirm: _TableNames = Field(description="The same names once more.")


class Database(ApiModel):
    """A whole database. Its name is repeated, as a safeguard."""

    rules = (
        Rule(
            rule="self.confirm == self.name",
            field_path=".confirm",
            message="must repeat the name of the database, as a safeguard",
            holds=lambda database: database.confirm == database.name,
        ),
    )

    name: _DatabaseName = Field(description="Name of the database that is dropped.")
    confirm: _DatabaseName = Field(description="The same name once more.")


class CustomerData(ApiModel):
    """What a customer deletes in one store. Exactly one of records, tables and database."""

    rules = (exactly_one("records", "tables", "database"),)

    store: ObjectName = Field(description="Name of the DataStore.")
    records: Records | None = Field(default=None, description="Rows of one table.")
    tables: Tables | None = Field(default=None, description="Whole tables.")
    database: Database | None = Field(default=None, description="A whole database.")


def _unchanged(name: str) -> str:
    return f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"


class DeletionRequestSpec(ApiModel):
    """Who or what is erased. Can't be changed, but for confirmed. Exactly one of subject and data."""

    rules = (
        exactly_one(
            "subject",
            "data",
            message="give exactly one of spec.subject (a person) and spec.data (records, tables or a "
            "database)",
        ),
        Rule(
            rule=" && ".join(
                [
                    *map(_unchanged, ("subject", "data", "reference", "requestedAt")),
                    "self.dryRun == oldSelf.dryRun",
                ]
            ),
            reason=FORBIDDEN,
            message="a DeletionRequest can't be changed once made (but for spec.confirmed); "
            "apply another one under a new name",
        ),
        Rule(
            rule="!has(oldSelf.confirmed) || "
            "(has(self.confirmed) && oldSelf.confirmed.all(c, c in self.confirmed))",
            reason=FORBIDDEN,
            message="what spec.confirmed says can't be taken back",
        ),
    )

    subject: ErasureSubject | None = Field(
        default=None, description="A person, who is erased in every store that may hold a copy."
    )
    data: CustomerData | None = Field(default=None, description="What a customer deletes in one store.")
    dry_run: bool = Field(default=False, description="Look what would be erased where, and change nothing.")
    reference: Reference | None = Field(
        default=None, description="Where the request came from, such as a ticket's number. No personal data."
    )
    requested_at: GivenInstant | None = Field(
        default=None,
        description="When the person asked; starts the legal clock. Absent: the object's creation. Never "
        "in the future.",
    )
    confirmed: Annotated[tuple[Confirmation, ...], Field(max_length=8), SET] = Field(
        default=(), description="A person's answers to what status asks. Can be added to, never taken back."
    )


class RequestState(StrEnum):
    """Where a request stands, in one word; derived from its conditions."""

    PENDING = "Pending"
    PLANNED = "Planned"
    HELD = "Held"
    ERASING = "Erasing"
    STALLED = "Stalled"
    ERASED = "Erased"
    PURGED = "Purged"


class StoreState(StrEnum):
    """Where a request stands in one store."""

    PENDING = "Pending"
    FINDING = "Finding"
    PLANNED = "Planned"
    HELD = "Held"
    ERASING = "Erasing"
    UNREACHABLE = "Unreachable"
    REFUSED = "Refused"
    VERIFIED = "Verified"
    NOT_FOUND = "NotFound"
    THIRD_PARTY = "ThirdParty"


class StoreOutcome(ApiModel):
    """What became of a request in one store. Counts only."""

    name: Annotated[str, Field(max_length=253)] = Field(description="Name of the DataStore.")
    state: StoreState = Field(description="Where the request stands there.")
    erased: Annotated[Mapping[str, Count], Field(max_length=64)] | None = Field(
        default=None, description="Rows or records by table; with state Planned, what would be erased."
    )
    erased_at: Instant | None = Field(default=None, description="When the erasure was read back.")
    attempts: Count32 | None = Field(default=None, description="How often it was tried.")
    reason: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="What holds it up, in one word."
    )
    message: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="What holds it up, for a person. Holds no personal data."
    )


class BackupsHolding(ApiModel):
    """The backups that still hold what was erased."""

    last_copy_gone_at: Instant | None = Field(
        default=None, description="When the last snapshot that holds it dies."
    )
    rehearsed_at: Instant | None = Field(
        default=None,
        description="When a RestoreDrill passed in which it was erased again, and read back, in a restored "
        "snapshot.",
    )


class LedgerEntry(ApiModel):
    """Where the ledger has recorded the erasure."""

    sequence: Count | None = Field(default=None, description="Number of the entry.")
    digest: Annotated[str, Field(max_length=80, pattern="^sha256:")] | None = Field(
        default=None, description="Digest of the chain up to the entry."
    )


class DeletionRequestStatus(Status):
    """How far the erasure has come. Counts, times and reasons; never values."""

    state: RequestState | None = Field(default=None, description="Where it stands, in one word.")
    accepted_at: Instant | None = Field(default=None, description="When it was written into the ledger.")
    due_at: Instant | None = Field(default=None, description="By when the law wants it done.")
    erased_at: Instant | None = Field(default=None, description="When it had been read back in every store.")
    stores: Annotated[tuple[StoreOutcome, ...], Field(max_length=64), map_by("name")] = Field(
        default=(), description="What became of it in each store."
    )
    backups: BackupsHolding | None = Field(default=None, description="The backups that still hold it.")
    ledger: LedgerEntry | None = Field(default=None, description="Where the ledger has recorded it.")


class DeletionRequest(Resource):
    """Erases a person in every store, or records, tables or a database in one."""

    definition: ClassVar = Definition(
        kind="DeletionRequest",
        plural="deletionrequests",
        short_name="dreq",
        name_max_length=63,
        selectable=(".spec.subject.id", ".spec.data.store", ".status.state"),
        columns=(
            Column(name="State", json_path=".status.state", description="where it stands"),
            Column(
                name="Erased",
                type="date",
                json_path=".status.erasedAt",
                description="how long ago it was erased everywhere",
            ),
            Column(
                name="Last copy gone",
                json_path=".status.backups.lastCopyGoneAt",
                description="when the last snapshot dies that holds it",
            ),
            AGE,
            Column(name="Due", json_path=".status.dueAt", priority=1),
            Column(name="Waits for", json_path='.status.stores[?(@.state=="Unreachable")].name', priority=1),
            Column(name="Reference", json_path=".spec.reference", priority=1),
        ),
    )

    spec: DeletionRequestSpec = Field(description="Who or what is erased.")
    status: DeletionRequestStatus = Field(
        default_factory=DeletionRequestStatus.unseen, description="How far the erasure has come."
    )
