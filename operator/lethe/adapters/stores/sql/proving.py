"""Whether a mapping fits the live schema: everything is compared before anything is written.

Every problem is told, not only the first. What would be written is tried on the types and CHECK constraints
in a transaction that is read-only and rolled back.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

from lethe.adapters.stores.sql import constraints
from lethe.adapters.stores.sql.catalog import (
    INTEGER_TYPES,
    Column,
    Shape,
    Table,
    nearby_tables,
    read_tables,
    sequences_of,
    tables_of,
)
from lethe.adapters.stores.sql.copies import possible_copies, views_of
from lethe.adapters.stores.sql.lookalikes import lookalikes, pointing
from lethe.adapters.stores.sql.postgres import Cursor, compose, name
from lethe.adapters.stores.sql.values import CANONICAL, LONGEST_KEY, LONGEST_TEXT_KEY
from lethe.domain.mapping import (
    LONGEST_TOKEN,
    SHORTEST_TOKEN,
    ClearRule,
    ClearTo,
    ProvedMapping,
    SubjectMapping,
)
from lethe.ports.stores import MappingInvalid, MappingProblem, PossibleCopy

SUBJECTS = "sql.subjects"
# A date is none: everybody who signed up on one day shares it, so it proves nobody's identity.
_MOMENTS = frozenset({"timestamp", "timestamptz", "text", "varchar"})
_KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
}
# Functions that give another value at another time; `nextval` is refused by the read-only transaction, too.
_LITERAL = re.compile(r"'(?:[^']|'')*'")
_UNSTEADY = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|random|random_normal|nextval"
    r"|gen_random_uuid|uuidv4|uuidv7|uuid_generate_\w+|txid_current|pg_current_xact_id|gen_random_bytes)\s*\("
    r"|\b(CURRENT_(DATE|TIME|TIMESTAMP|USER|ROLE|SCHEMA|CATALOG)|LOCALTIME|LOCALTIMESTAMP|SESSION_USER|USER)\b"
)


@dataclass(frozen=True, slots=True)
class MappingProof:
    """A mapping that fits, and what was noticed beside it."""

    proved: ProvedMapping
    lookalikes: tuple[str, ...]
    pointing: tuple[str, ...]
    copies: tuple[str, ...]
    possible_copies: tuple[PossibleCopy, ...]
    keys_may_repeat: tuple[str, ...]


def prove_mapping(cursor: Cursor, mapping: SubjectMapping) -> MappingProof:
    """Compare a mapping with the live schema. Raises `MappingInvalid` with every problem."""
    cursor.execute("SET TRANSACTION READ ONLY")
    proving = Proving(cursor, mapping, read_tables(cursor, tables_of(mapping)))
    proving.subjects()
    for index in range(len(mapping.dependents)):
        proving.dependent(index)
    proving.privilege_to_stage()
    if proving.problems:
        raise MappingInvalid(proving.problems)
    resolved = proving.resolved()
    shape = Shape(resolved, proving.tables)
    return MappingProof(
        ProvedMapping(version_of(resolved), resolved, constraints.kept_by(cursor, shape)),
        lookalikes(shape),
        pointing(cursor, shape),
        views_of(cursor, shape),
        possible_copies(cursor, shape),
        _keys_may_repeat(cursor, shape),
    )


def version_of(mapping: SubjectMapping) -> str:
    """Return the version of a mapping whose defaults are resolved: the same text, the same version."""
    canonical = json.dumps(asdict(mapping), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _keys_may_repeat(cursor: Cursor, shape: Shape) -> tuple[str, ...]:
    """Return the generators of the subjects' keys that a restore takes back and Lethe can't move forward."""
    if shape.key.base not in INTEGER_TYPES:
        return ()
    sequences = sequences_of(cursor, shape.subjects, [shape.mapping.key])
    if not sequences:
        return (f"{shape.mapping.table}.{shape.mapping.key}",)
    return tuple(one.full_name for one in sequences if not (one.readable and one.movable))


@dataclass(slots=True)
class Proving:
    """One comparison; `problems` grows, `defaults` are the texts that defaults were resolved to."""

    cursor: Cursor
    mapping: SubjectMapping
    tables: dict[str, Table]
    problems: list[MappingProblem] = field(default_factory=list)
    defaults: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def say(self, where: str, problem: str, remedy: str) -> None:
        """Note a problem."""
        self.problems.append(MappingProblem(where, problem, remedy))

    # --- tables and columns ----------------------------------------------------------------------------

    def table(self, where: str, written: str) -> Table | None:
        """Return a table that can be mapped, or note why there is none."""
        table = self.tables.get(written)
        if table is None:
            near = _closest(written, nearby_tables(self.cursor, written))
            self.say(where, f"table {written} does not exist{near}", "name a table of this database")
            return None
        if table.kind not in {"r", "p"}:
            kind = _KINDS.get(table.kind, "no table")
            self.say(where, f"{written} is {kind}", "name the table that holds the rows")
            return None
        if table.hides_rows:
            self.say(
                where,
                f"row level security of table {written} hides rows from this user",
                "give the user BYPASSRLS, or let the table's owner connect",
            )
        return table

    def rewriting(self, where: str, table: Table, *, delete: bool = False, dependent: bool = True) -> None:
        """Note which rules let an erasure do something else than it says."""
        for rule in constraints.rules_instead(self.cursor, table, delete=delete, alone=dependent):
            event = "a DELETE" if delete else "an UPDATE"
            self.say(
                where,
                f"rule {rule} of table {table.written} does something else than {event} says",
                "drop or disable the rule, or name the table that it writes to",
            )

    def column(self, where: str, table: Table, called: str, *, write: bool = False) -> Column | None:
        """Return a column that can be read (and written), or note why not."""
        column = table.columns.get(called)
        if column is None:
            near = _closest(called, table.columns)
            self.say(
                where, f"column {table.written}.{called} does not exist{near}", "name a column of the table"
            )
            return None
        if not column.readable:
            self.say(where, f"the user may not SELECT {table.written}.{called}", "GRANT SELECT on it")
        if write and not column.writable:
            self.say(where, f"the user may not UPDATE {table.written}.{called}", "GRANT UPDATE on it")
        return column

    def privilege_to_stage(self) -> None:
        """Tombstones and identifiers reach the server through temporary tables."""
        row = self.cursor.execute(
            "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMP')"
        ).fetchone()
        if row is None or not row[0]:
            self.say(
                "sql.urlSecretRef", "the user may not create temporary tables", "GRANT TEMP on the database"
            )

    # --- the subjects ----------------------------------------------------------------------------------

    def subjects(self) -> None:
        """Compare the subjects' table."""
        mapping = self.mapping
        table = self.table(f"{SUBJECTS}.table", mapping.table)
        if table is None:
            return
        self._key(table)
        self.rewriting(f"{SUBJECTS}.table", table, dependent=False)
        for kind, called in mapping.identifiers.items():
            self._identifier(f"{SUBJECTS}.identifiers.{kind}", table, kind, called)
        if mapping.created_at is not None:
            where = f"{SUBJECTS}.createdAt"
            created = self.column(where, table, mapping.created_at)
            if created is not None and created.base not in _MOMENTS:
                self.say(
                    where,
                    f"column {table.written}.{created.name} is {created.shown}, which is no moment",
                    "name a timestamp or text that never changes, or leave createdAt out",
                )
            if mapping.created_at in {rule.column for rule in mapping.clear}:
                self.say(
                    where, f"column {created.name if created else ''} is cleared, too", "name another one"
                )
        if mapping.quarantine is not None:
            self._quarantine(table, mapping.quarantine.column, mapping.quarantine.value)
        self.rules(f"{SUBJECTS}.clear", table, mapping.clear, key_differs=True)

    def _key(self, table: Table) -> None:
        where, called = f"{SUBJECTS}.key", self.mapping.key
        key = self.column(where, table, called)
        if key is None:
            return
        if key.base not in CANONICAL:
            self.say(
                where,
                f"key {table.written}.{called} is {key.shown}, which Lethe can't compare exactly",
                "name a key that is an integer, a UUID or text",
            )
        elif not constraints.is_unique_key(self.cursor, table, key):
            self.say(
                where,
                f"column {table.written}.{called} is neither the primary key nor unique and NOT NULL",
                "name the primary key, or wait for a restore to have made it",
            )
        elif key.is_text and table.columns[called].readable and self._holds_addresses(table, called):
            self.say(
                where,
                f"key {table.written}.{called} holds e-mail addresses, which would survive the erasure",
                "name an opaque key, and map the address under clear",
            )
        for child in constraints.inheriting(self.cursor, table):
            self.say(
                where,
                f"{child} inherits from {table.written}, and its rows can have keys that other persons have"
                f" in {table.written}",
                "make it a partitioned table, or take the child out (ALTER TABLE … NO INHERIT)",
            )
        if called in {rule.column for rule in self.mapping.clear}:
            self.say(where, f"key {table.written}.{called} is cleared, too", "take it out of clear")
        if not table.writable and not any(
            column.writable for name, column in table.columns.items() if name != called
        ):
            self.say(f"{SUBJECTS}.table", f"the user may not UPDATE {table.written}", "GRANT UPDATE on it")

    def _holds_addresses(self, table: Table, key: str) -> bool:
        """Look at a thousand keys: one that tells who somebody is must not be kept for years."""
        found = self.cursor.execute(
            compose(
                "SELECT pg_catalog.bool_or(pg_catalog.strpos(k, '@') > 0)"
                " FROM (SELECT {key}::text AS k FROM {table} LIMIT 1000) AS sample",
                key=name(key),
                table=table.sql,
            )
        ).fetchone()
        return bool(found and found[0])

    def _identifier(self, where: str, table: Table, kind: str, called: str) -> None:
        column = self.column(where, table, called)
        if column is None:
            return
        if kind == "email" and not column.is_text:
            self.say(
                where, f"column {table.written}.{called} is {column.shown}, not text", "name the address"
            )
        elif kind != "email" and column.base not in CANONICAL:
            self.say(
                where,
                f"column {table.written}.{called} is {column.shown}, which Lethe can't compare exactly",
                "name a column that is an integer, a UUID or text",
            )

    def _quarantine(self, table: Table, called: str, text: str) -> None:
        where = f"{SUBJECTS}.quarantine.column"
        column = self.column(where, table, called, write=True)
        if column is None:
            return
        if called in {self.mapping.key, *(rule.column for rule in self.mapping.clear)}:
            self.say(
                where, f"column {table.written}.{called} is the key, or is cleared", "name another column"
            )
        if column.compared_as_text:
            self.say(where, f"column {table.written}.{called} is {column.shown}", "name a text or a number")
        self._fits(f"{SUBJECTS}.quarantine.value", table, column, text, len(text))

    # --- dependents ------------------------------------------------------------------------------------

    def dependent(self, index: int) -> None:
        """Compare one dependent's table."""
        dependent, where = self.mapping.dependents[index], f"{SUBJECTS}.dependents[{index}]"
        table = self.table(f"{where}.table", dependent.table)
        if table is None:
            return
        self.rewriting(f"{where}.table", table, delete=dependent.delete)
        reference = self.column(f"{where}.foreignKey", table, dependent.foreign_key)
        subjects = self.tables.get(self.mapping.table)
        key = subjects.columns.get(self.mapping.key) if subjects else None
        if (
            reference is not None
            and key is not None
            and not constraints.comparable(self.cursor, reference, key)
        ):
            self.say(
                f"{where}.foreignKey",
                f"column {table.written}.{reference.name} is {reference.shown}, the key {key.shown}",
                "name the column that holds the subject's key",
            )
        if dependent.foreign_key in {rule.column for rule in dependent.clear}:
            self.say(
                f"{where}.foreignKey",
                f"column {table.written}.{dependent.foreign_key} is cleared, too",
                "keep it",
            )
        if not dependent.delete:
            self.rules(f"{where}.clear", table, dependent.clear, key_differs=False)
            return
        self._publications(f"{where}.delete", table, ())
        if not table.deletable:
            self.say(f"{where}.delete", f"the user has no DELETE on {table.written}", "GRANT it")
        for constraint, other, at in constraints.that_stop_a_delete(self.cursor, table):
            self.say(
                f"{where}.delete",
                f"rows of {other} point at {at} ({constraint}), which stops a DELETE"
                + ("" if at == table.written else f" on {table.written}"),
                "clear its columns instead, or give the foreign key ON DELETE CASCADE, or SET NULL where its "
                "column may be NULL",
            )

    def _publications(self, where: str, table: Table, columns: Sequence[str]) -> None:
        """A publication refuses what its subscribers could not follow; no `columns` are a DELETE."""
        for other in constraints.unpublishable(self.cursor, table, columns):
            self.say(
                where,
                f"{other} is published without a replica identity that fits, which refuses every "
                + ("UPDATE" if columns else "DELETE"),
                "give it a primary key, or ALTER TABLE … REPLICA IDENTITY FULL",
            )

    # --- rules -----------------------------------------------------------------------------------------

    def rules(self, where: str, table: Table, rules: Sequence[ClearRule], *, key_differs: bool) -> None:
        """Compare the clear rules of one table. `key_differs` says that each record has a key of its own."""
        written: dict[str, str | None] = {}
        for index, rule in enumerate(rules):
            at = f"{where}[{index}]"
            column = self.column(f"{at}.column", table, rule.column, write=True)
            if column is None:
                continue
            if sum(other.column == rule.column for other in rules) > 1:
                self.say(f"{at}.column", f"column {table.written}.{rule.column} is cleared twice", "keep one")
            if column.generated:
                self.say(
                    f"{at}.column",
                    f"column {table.written}.{rule.column} is generated",
                    "clear the columns that it is made of",
                )
                continue
            if column.identity:
                self.say(
                    f"{at}.column", f"column {table.written}.{rule.column} is an identity column", "keep it"
                )
                continue
            fine, text = self._value(at, table, column, rule)
            if not fine:
                continue
            written[rule.column] = text
            self._indexes(at, table, column, rule, text, key_differs=key_differs)
            self._references(at, table, column, rule, text)
        if written:
            self._publications(where, table, list(written))
        for column in table.columns.values():
            if column.generated:
                self._generated(where, table, column, rules, written, key_differs=key_differs)
        for constraint, columns in constraints.checks_that_refuse(self.cursor, table, written):
            index = next(n for n, rule in enumerate(rules) if rule.column in columns)
            self.say(
                f"{where}[{index}]",
                f"constraint {constraint} of {table.written} refuses what {rules[index].column} becomes",
                "choose a value that the constraint allows",
            )

    def _generated(
        self,
        where: str,
        table: Table,
        column: Column,
        rules: Sequence[ClearRule],
        written: dict[str, str | None],
        *,
        key_differs: bool,
    ) -> None:
        """Look at a column that the server makes of those that are cleared, and of others."""
        sources = constraints.made_of(self.cursor, table, column)
        index, cleared = next(
            ((n, one) for n, one in enumerate(rules) if one.column in sources & written.keys()), (0, None)
        )
        if cleared is None:
            return
        fits, null = constraints.generated_value(self.cursor, table, column, written, live=True)
        always_null = False  # only where nothing else counts, a row that has nothing else tells
        if sources <= written.keys():
            _, always_null = constraints.generated_value(self.cursor, table, column, written, live=False)
        if not fits or (column.not_null and (null or always_null)):
            self.say(
                f"{where}[{index}]",
                f"column {table.written}.{column.name} is generated from {cleared.column}, and refuses what "
                "that becomes",
                "choose a value from which it can be made, or let it be NULL",
            )
        elif self.mapping.key not in sources:
            differing = [one for one in rules if one.column in sources and one.differs_per_record]
            rule = differing[0] if differing else cleared
            text = None if always_null else ""
            self._indexes(f"{where}[{index}]", table, column, rule, text, key_differs=key_differs)

    def _value(self, at: str, table: Table, column: Column, rule: ClearRule) -> tuple[bool, str | None]:
        """Return whether what the rule writes fits the column, and an example of it."""
        text: str | None = None
        before = len(self.problems)
        match rule.to:
            case ClearTo.SET_NULL:
                pass
            case ClearTo.VALUE:
                text = rule.text or ""
                self._fits(f"{at}.value", table, column, text, len(text))
            case ClearTo.TEMPLATE:
                text = rule.value_for("1", "a" * LONGEST_TOKEN) or ""
                longest = rule.value_for("9" * self._longest_key(), "a" * LONGEST_TOKEN) or ""
                if "{token:" in text:
                    self.say(
                        f"{at}.template",
                        f"{rule.text} has no length from {SHORTEST_TOKEN} to {LONGEST_TOKEN} after {{token:",
                        "write {token:16}, or {token}",
                    )
                self._fits(f"{at}.template", table, column, text, len(longest))
            case ClearTo.DEFAULT:
                text = self._default(at, table, column)
                self.defaults[(table.written, rule.column)] = text
        refuses_null = column.not_null or not constraints.castable(self.cursor, column, None)
        if text is None and refuses_null and len(self.problems) == before:
            what = "has no default and is NOT NULL" if rule.to is ClearTo.DEFAULT else "is NOT NULL"
            self.say(
                f"{at}.to",
                f"column {table.written}.{column.name} {what}",
                _instead(column),
            )
        return len(self.problems) == before, text

    def _longest_key(self) -> int:
        subjects = self.tables.get(self.mapping.table)
        key = subjects.columns.get(self.mapping.key) if subjects else None
        if key is None:
            return LONGEST_KEY["int8"]
        return LONGEST_KEY.get(key.base, key.length or LONGEST_TEXT_KEY)

    def _fits(self, where: str, table: Table, column: Column, text: str, longest: int) -> None:
        if column.length is not None and longest > column.length:
            self.say(
                where,
                f"what is written takes up to {longest} characters, column {table.written}.{column.name}"
                f" {column.length}",
                f"shorten it: {{token:{SHORTEST_TOKEN}}} is the shortest token",
            )
            return
        if not constraints.castable(self.cursor, column, text):
            self.say(
                where,
                f"what is written is no {column.shown}, the type of {table.written}.{column.name}",
                "give a value of the type, or SetNull"
                if column.base != "uuid"
                else "use a Template {uuid}, or SetNull",
            )

    def _default(self, at: str, table: Table, column: Column) -> str | None:
        """Return what a column's default is, once and for all: it may be another one tomorrow."""
        if column.default is None:
            return None
        if not _UNSTEADY.search(_LITERAL.sub("''", column.default)):
            once = constraints.evaluated(self.cursor, column)
            again = constraints.evaluated(self.cursor, column)
            if once is not None and once == again:
                return once[0]
        self.say(
            f"{at}.to",
            f"the default of {table.written}.{column.name} is not the same for everybody and at any time",
            "use a Value or SetNull",
        )
        return None

    def _indexes(
        self, at: str, table: Table, column: Column, rule: ClearRule, text: str | None, *, key_differs: bool
    ) -> None:
        if rule.differs_per_record and key_differs:
            return
        for index, nulls_collide in constraints.unique_indexes(
            self.cursor, table, column, self._key_number(table)
        ):
            if text is None and not nulls_collide:
                continue
            self.say(
                f"{at}.to",
                f"column {table.written}.{column.name} is unique ({index}), two erased rows would be alike",
                _instead(column) if key_differs else "use SetNull, or delete: true",
            )

    def _key_number(self, table: Table) -> int:
        """Return the number of the key's column in the subjects' table: with it, an index can't collide."""
        if table.written != self.mapping.table or self.mapping.key not in table.columns:
            return 0
        return table.columns[self.mapping.key].number

    def _references(self, at: str, table: Table, column: Column, rule: ClearRule, text: str | None) -> None:
        for foreign in constraints.foreign_keys(self.cursor, table, column):
            if foreign.inward:
                self.say(
                    f"{at}.column",
                    f"rows of {foreign.other} point at {table.written}.{column.name} ({foreign.name})",
                    "they would lose it; let them point at the key",
                )
            elif text is not None and (
                rule.differs_per_record or not constraints.is_referable(self.cursor, foreign, column, text)
            ):
                self.say(
                    f"{at}.to",
                    f"column {table.written}.{column.name} is a foreign key ({foreign.name})"
                    f" to {foreign.other}, which has no such row",
                    "use SetNull, or a value that is there",
                )

    # --- the result ------------------------------------------------------------------------------------

    def resolved(self) -> SubjectMapping:
        """Return the mapping with every `Default` resolved to its text."""
        dependents = tuple(
            replace(one, clear=self._resolved_rules(one.table, one.clear)) for one in self.mapping.dependents
        )
        clear = self._resolved_rules(self.mapping.table, self.mapping.clear)
        return replace(self.mapping, clear=clear, dependents=dependents)

    def _resolved_rules(self, table: str, rules: Sequence[ClearRule]) -> tuple[ClearRule, ...]:
        return tuple(
            replace(rule, text=self.defaults[(table, rule.column)]) if rule.to is ClearTo.DEFAULT else rule
            for rule in rules
        )


def _instead(column: Column) -> str:
    """Return which rule fits a column that can be neither NULL nor the same for two."""
    if column.base == "uuid":
        return "use a Template {uuid}"
    if not column.is_text:
        return "use a Value, or a Template {key}"
    return "use a Value, or a Template such as erased-{token}"


def _closest(called: str, candidates: Iterable[str]) -> str:
    """Return ` (first_name does)` for the candidate that was probably meant, else nothing."""
    by_fold = {candidate.casefold(): candidate for candidate in candidates}
    close = difflib.get_close_matches(called.casefold(), by_fold, n=1, cutoff=0.6)
    return f" ({by_fold[close[0]]} does)" if close else ""
