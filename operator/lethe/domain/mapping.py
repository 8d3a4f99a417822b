"""Where a store keeps personal data, and what each place becomes when a person is erased."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

SHORTEST_TOKEN, LONGEST_TOKEN = 8, 24
# `{token}`, its first 8 to 24 characters (`{token:16}`), or a UUID made of it: what tells one record.
_TOKEN = re.compile(r"\{(?:uuid|token(?::([89]|1[0-9]|2[0-4]))?)\}")


class PiiKind(StrEnum):
    """The kinds of personally identifiable information that the privacy policy names (promise P1), and
    `OTHER`: a phone number, a postal address, whatever else tells who somebody is.
    """

    FIRST_NAME = "FirstName"
    LAST_NAME = "LastName"
    EMAIL = "Email"
    PASSWORD = "Password"  # noqa: S105 - the name of a kind
    LOCALE = "Locale"
    TIME_ZONE = "TimeZone"
    OTHER = "Other"


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
                text = (self.text or "").replace("{key}", key).replace("{token}", token)
                return text if "{" not in text else _TOKEN.sub(lambda at: _part(at, token), text)
            case ClearTo.VALUE | ClearTo.DEFAULT:
                return self.text

    @property
    def differs_per_record(self) -> bool:
        """Tell whether two records get different values, as a UNIQUE column needs."""
        return self.bears_token or (self.to is ClearTo.TEMPLATE and "{key}" in (self.text or ""))

    @property
    def bears_token(self) -> bool:
        """Tell whether what is written shows whose record it was, to who has the keys and to nobody else."""
        return self.to is ClearTo.TEMPLATE and _TOKEN.search(self.text or "") is not None


def _part(at: re.Match[str], token: str) -> str:
    if at[0] == "{uuid}":
        return str(UUID(bytes=hashlib.sha256(token.encode()).digest()[:16], version=4))
    return token[: int(at[1] or LONGEST_TOKEN)]


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
        return frozenset(PiiKind) - mapped - {PiiKind.OTHER}


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


def what_is_left(
    earlier: SubjectMapping, present: SubjectMapping, columns: Mapping[str, Collection[str]]
) -> SubjectMapping | None:
    """Return what can still be done by an earlier mapping where tables and columns are these by now.

    What is not there any more may be called otherwise today: so the present mapping's table, and its rules
    for the same kind of data, stand in for it. `columns` holds those that a rule can be kept in, by table as
    mappings write it, and has the present mapping's. Another `createdAt` would tell that the same person is
    somebody else, so none stands in for that. `None`: not even the key is left.
    """
    table = earlier.table if earlier.table in columns else present.table
    there = columns[table]
    of_present = present if table == present.table else replace(present, clear=(), dependents=())
    key = earlier.key if earlier.key in there or table != present.table else present.key
    if key not in there:
        return None
    found = [_left_of(one, of_present, columns) for one in earlier.dependents]
    dependents = [one for one in found if one is not None]
    if len(dependents) < len(found):
        kept = {(one.table, one.foreign_key) for one in dependents}
        dependents += [one for one in of_present.dependents if (one.table, one.foreign_key) not in kept]
    identifiers = {**(present.identifiers if table == present.table else {}), **earlier.identifiers}
    return replace(
        earlier,
        table=table,
        key=key,
        identifiers={
            kind: column if column in there else present.identifiers[kind]
            for kind, column in identifiers.items()
            if column in there or (table == present.table and kind in present.identifiers)
        },
        clear=_rules_left(earlier.clear, of_present.clear, there),
        created_at=earlier.created_at if earlier.created_at in there else None,
        dependents=tuple(dependents),
        quarantine=earlier.quarantine if earlier.quarantine and earlier.quarantine.column in there else None,
    )


def _left_of(
    earlier: Dependent, present: SubjectMapping, columns: Mapping[str, Collection[str]]
) -> Dependent | None:
    there = columns.get(earlier.table, ())
    if earlier.foreign_key not in there:
        return None
    same = [one for one in present.dependents if one.table == earlier.table]
    rules = _rules_left(earlier.clear, [rule for one in same for rule in one.clear], there)
    return replace(earlier, clear=rules) if rules or earlier.delete else None


def _rules_left(
    earlier: Collection[ClearRule], present: Collection[ClearRule], there: Collection[str]
) -> tuple[ClearRule, ...]:
    left = [rule for rule in earlier if rule.column in there]
    gone, kept = {rule.holds for rule in earlier if rule not in left}, {rule.column for rule in left}
    return (*left, *(rule for rule in present if rule.holds in gone and rule.column not in kept))


def widened(earlier: SubjectMapping, present: SubjectMapping) -> SubjectMapping:
    """Return an earlier mapping of the same persons with all that the present one clears besides.

    What both clear stays as it was: the values that were written then are what cleared means.
    """
    before = {(one.table, one.foreign_key): one for one in earlier.dependents}
    for one in present.dependents:
        at = (one.table, one.foreign_key)
        known = before.get(at, replace(one, clear=()))
        wider = one.delete or known.delete
        before[at] = replace(known, delete=wider, clear=() if wider else _with(known.clear, one.clear))
    return replace(earlier, clear=_with(earlier.clear, present.clear), dependents=tuple(before.values()))


def _with(earlier: Collection[ClearRule], present: Collection[ClearRule]) -> tuple[ClearRule, ...]:
    columns = {rule.column for rule in earlier}
    return (*earlier, *(rule for rule in present if rule.column not in columns))
