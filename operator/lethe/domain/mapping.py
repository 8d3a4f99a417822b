"""Where a store keeps personal data, and what each place becomes when a person is erased."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class PiiKind(StrEnum):
    """The kinds of personally identifiable information that the privacy policy names (promise P1)."""

    FIRST_NAME = "FirstName"
    LAST_NAME = "LastName"
    EMAIL = "Email"
    PASSWORD = "Password"  # noqa: S105 - the name of a kind
    LOCALE = "Locale"
    TIME_ZONE = "TimeZone"


class StoreRole(StrEnum):
    """What a store is to the company; one Primary per namespace links the others."""

    PRIMARY = "Primary"
    CRM = "CRM"
    HRM = "HRM"
    OTHER = "Other"


class StoreOwner(StrEnum):
    """Who owns a store. Nothing is ever sent to a third party (promise P4)."""

    SELF = "Self"
    THIRD_PARTY = "ThirdParty"


class ClearTo(StrEnum):
    """What a cleared column becomes."""

    SET_NULL = "SetNull"
    TEMPLATE = "Template"
    VALUE = "Value"
    DEFAULT = "Default"


@dataclass(frozen=True, slots=True)
class ClearRule:
    """One column and what it becomes.

    `text` is the template (for `TEMPLATE`), the value (for `VALUE`), or, once the mapping has been
    proved, what the column's default evaluated to (for `DEFAULT`): a later change of the default must
    not make cleared rows look uncleared. `None` means SQL NULL.
    """

    column: str
    holds: PiiKind
    to: ClearTo
    text: str | None = None

    def value_for(self, key: str, token: str) -> str | None:
        """Return the text that this column holds after clearing the record `key`; `None` is NULL."""
        match self.to:
            case ClearTo.SET_NULL:
                return None
            case ClearTo.TEMPLATE:
                return (self.text or "").replace("{key}", key).replace("{token}", token)
            case ClearTo.VALUE | ClearTo.DEFAULT:
                return self.text

    @property
    def differs_per_record(self) -> bool:
        """Tell whether two records get different values, as a UNIQUE column needs."""
        text = self.text or ""
        return self.to is ClearTo.TEMPLATE and ("{key}" in text or "{token}" in text)


@dataclass(frozen=True, slots=True)
class Dependent:
    """A table whose rows belong to the person: deleted, or cleared column by column."""

    table: str
    foreign_key: str
    delete: bool
    clear: tuple[ClearRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A column that keeps a row out of use while it is unclear whose it is."""

    column: str
    value: str


@dataclass(frozen=True, slots=True)
class SubjectMapping:
    """The mapping of one SQL store: `spec.sql.subjects` of a DataStore."""

    table: str
    key: str
    identifiers: Mapping[str, str]
    clear: tuple[ClearRule, ...]
    created_at: str | None = None
    ignore: tuple[str, ...] = ()
    dependents: tuple[Dependent, ...] = ()
    quarantine: Quarantine | None = None

    @property
    def email_column(self) -> str | None:
        """Return the column that holds the e-mail address: the identifier, else the one that is
        cleared as Email.
        """
        named = self.identifiers.get("email")
        if named:
            return named
        return next((rule.column for rule in self.clear if rule.holds is PiiKind.EMAIL), None)

    def kinds_unmapped(self) -> frozenset[PiiKind]:
        """Return the kinds of promise P1 that no column of the mapping is said to hold."""
        mapped = {rule.holds for rule in self.clear}
        for dependent in self.dependents:
            mapped |= {rule.holds for rule in dependent.clear}
        return frozenset(PiiKind) - mapped


@dataclass(frozen=True, slots=True, order=True)
class Constraint:
    """What a key is, whatever it is called: columns of a `schema.table` that are unique, or that point at
    the rows of another one.

    `columns` are sorted, and can be expressions; with `refers_to` (`schema.table`) it is a foreign key.
    """

    table: str
    columns: tuple[str, ...]
    refers_to: str = ""

    def __str__(self) -> str:
        what = f"foreign key to {self.refers_to}" if self.refers_to else "unique key"
        return f"the {what} of {self.table} ({', '.join(self.columns)})"


@dataclass(frozen=True, slots=True)
class ProvedMapping:
    """A mapping that the live schema accepted, kept under its version for as long as a tombstone names it.

    `constraints` are the unique and foreign keys of the mapped tables as they stood then: pg_restore makes
    them last, so a restore has not ended before they are all back.
    """

    version: str
    mapping: SubjectMapping
    constraints: tuple[Constraint, ...] = ()
