"""How an SQL store is mapped: whose rows, which columns hold PII, and what becomes of them."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from lethe.api.model import ApiModel
from lethe.api.rules import SET, Rule, map_by, required_exactly_where
from lethe.api.scalars import MAX_RECORDS, MaxRecords
from lethe.api.v1alpha1.references import AllowPlaintext, SecretKeyRef
from lethe.domain.identifiers import IdentifierKind
from lethe.domain.mapping import ClearTo, PiiKind

TableName = Annotated[str, Field(min_length=1, max_length=256)]
ColumnName = Annotated[str, Field(min_length=1, max_length=128)]
IgnoredName = Annotated[str, Field(min_length=1, max_length=256)]
SchemaName = Annotated[str, Field(min_length=1, max_length=63)]


class ClearedColumn(ApiModel):
    """A column that holds PII, and what it is cleared to."""

    rules = (
        required_exactly_where("template", choice="to", is_="Template"),
        required_exactly_where("value", choice="to", is_="Value"),
    )

    column: ColumnName = Field(description="Name of the column.")
    holds: PiiKind = Field(description="Which kind of personal data it holds.")
    to: ClearTo = Field(
        description="What it is cleared to: NULL, a template, a value, or the column's default."
    )
    template: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None,
        description="With to: Template. {key} is the row's key, {token} is keyed and can't be guessed: "
        "erased-{token}@erased.invalid. {token:16} is shorter (8 to 24 characters), {uuid} a UUID.",
    )
    value: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="With to: Value. The same for every erased person."
    )


Clear = Annotated[tuple[ClearedColumn, ...], Field(min_length=1, max_length=64), map_by("column")]


class Dependent(ApiModel):
    """A table whose rows belong to a subject."""

    rules = (
        Rule(
            rule="(has(self.delete) && self.delete) != has(self.clear)",
            message="give exactly one of delete: true and clear",
            holds=lambda dependent: bool(dependent.delete) != (dependent.clear is not None),
        ),
    )

    table: TableName = Field(description="Name of the table, with its schema if that is not the default one.")
    foreign_key: ColumnName = Field(description="Column that holds the subject's key.")
    delete: bool | None = Field(default=None, description="True: the rows are deleted.")
    clear: Clear | None = Field(default=None, description="Columns of the rows that are cleared.")


class Quarantine(ApiModel):
    """A column that keeps a row out of service while it is unclear whose it is."""

    column: ColumnName = Field(description="Name of the column.")
    value: Annotated[str, Field(max_length=512)] = Field(
        description="What it is set to, to keep the row out."
    )


_IDENTIFIER_KINDS = tuple(kind.value for kind in IdentifierKind)


class Subjects(ApiModel):
    """The table whose rows are persons."""

    table: TableName = Field(description="Name of the table, with its schema if that is not the default one.")
    key: ColumnName = Field(description="Column with the key of a row. It survives the erasure.")
    identifiers: (
        Annotated[
            Mapping[str, ColumnName],
            Field(min_length=1, max_length=8),
            Rule(
                rule=f"self.all(k, k in {list(_IDENTIFIER_KINDS)})",
                message="keys are the kinds of identifier: email and primaryKey",
                holds=lambda identifiers: all(kind in _IDENTIFIER_KINDS for kind in identifiers),
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Which column knows a person by what: email (compared case-insensitively), "
        "primaryKey (the key in the Primary store). Any that matches counts.",
    )
    one_owner_per_address: bool = Field(
        default=False,
        description="True: no address has two owners here, all rows that hold it are one person's. Absent: "
        "several rows of one address wait for a person.",
    )
    created_at: ColumnName | None = Field(
        default=None,
        description="Column with the moment of registration. Recommended: after a restore it tells a "
        "reused key "
        "from the erased person's.",
    )
    clear: Clear = Field(description="Columns that hold PII, and what each is cleared to.")
    ignore: Annotated[tuple[IgnoredName, ...], Field(max_length=256), SET] = Field(
        default=(),
        description="Columns that look like PII and are not; and what keeps a copy that you have seen to, as "
        "MappingComplete names it.",
    )
    quarantine: Quarantine | None = Field(
        default=None, description="A column that keeps a row out while it is unclear whose it is."
    )
    dependents: Annotated[tuple[Dependent, ...], Field(max_length=64), map_by("table", "foreignKey")] = Field(
        default=(), description="Tables whose rows belong to a subject."
    )


class SqlStore(ApiModel):
    """A database that SQLAlchemy can reach."""

    url_secret_ref: SecretKeyRef = Field(description="Where the SQLAlchemy URL of the database stands.")
    subjects: Subjects | None = Field(
        default=None,
        description="The table of persons. Absent: only records, tables or the database can be erased.",
    )
    max_records: MaxRecords = Field(
        default=MAX_RECORDS,
        description="More rows than this for one person: nothing is erased, a person looks.",
    )
    allow_plaintext: AllowPlaintext = None
    journal_schema: SchemaName | None = Field(
        default=None,
        description="The schema in which Lethe keeps its journal. Absent: that of the subjects' table. To "
        "change it looks like a restore.",
    )
