"""Proposing a mapping of a schema that nobody has mapped yet, for a person to read.

Decided by names, types, keys and what samples of values look like. What a table is to the persons is a guess,
so each part of a proposal says why it is there, and what was seen and left out is told as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from lethe.domain.mapping import ClearRule, ClearTo, Dependent, PiiKind, SubjectMapping
from lethe.domain.personal_columns import kind_by_name, regions_beside, snake_case, words_of

MOST_RULES = MOST_DEPENDENTS = 64
"""How many rules of one table, and how many dependents, a DataStore takes."""
MOST_IGNORED = 256
_KEYS = frozenset({"int2", "int4", "int8", "uuid", "text", "varchar", "bpchar", "citext"})
_TEXTS = frozenset({"text", "varchar", "bpchar", "citext"})
_NUMBERS = frozenset({"int2", "int4", "int8", "numeric", "float4", "float8"})
_DOCUMENTS = frozenset({"text", "json", "jsonb", "bytea", "xml"})
_LONG = 1_000
"""From how many characters on a column holds more than a word."""
_MOMENTS = frozenset({"timestamp", "timestamptz"})
_EMPTY = {
    "json": "{}",
    "jsonb": "{}",
    "hstore": "",
    "bytea": "",
    "inet": "::",
    "cidr": "::/128",
    "date": "1900-01-01",
}


@dataclass(frozen=True, slots=True)
class SeenColumn:
    """A column as the catalog and a sample show it. `looks_like` is what most of the sample's values are;
    `length` the most characters, `unique` says that no two rows have the same value, by an index of its own.
    """

    name: str
    base: str
    not_null: bool = False
    default: bool = False
    length: int | None = None
    generated: bool = False
    unique: bool = False
    comment: str = ""
    looks_like: PiiKind | None = None
    refers_to: tuple[str, str] | None = None
    """The table and column that a foreign key of this column alone leads to."""

    @property
    def kind(self) -> PiiKind | None:
        """Return which kind of personal data it holds, or probably does."""
        if self.generated or self.refers_to is not None:
            return None
        named = kind_by_name(self.name, self.base)
        if self.looks_like is PiiKind.EMAIL or named is None:
            return self.looks_like
        return named


@dataclass(frozen=True)
class SeenTable:
    """A table, by the name that a mapping writes. `key` are the columns of its primary key; `rows` as many
    as its statistics tell (`None`: nothing), `sampled` says that values of it were looked at."""

    name: str
    columns: Mapping[str, SeenColumn]
    key: tuple[str, ...] = ()
    rows: int | None = None
    comment: str = ""
    sampled: bool = True

    @cached_property
    def personal(self) -> Mapping[str, PiiKind]:
        """Return the columns that hold personal data, with its kind."""
        beside = regions_beside(self.columns)
        kinds = {
            name: column.kind or (PiiKind.OTHER if name in beside and column.base in _TEXTS else None)
            for name, column in self.columns.items()
            if name not in self.key
        }
        return {name: kind for name, kind in kinds.items() if kind is not None}

    @property
    def bare_name(self) -> str:
        """Return the name without its schema, in lower case."""
        return snake_case(self.name.rpartition(".")[2])

    @property
    def address(self) -> SeenColumn | None:
        """Return the column with the e-mail address by which a person is known, if there is one."""
        addresses = [
            self.columns[name]
            for name, kind in self.personal.items()
            if kind is PiiKind.EMAIL and self.columns[name].base in _TEXTS
        ]
        return min(addresses, key=_address_rank, default=None)

    @property
    def persons_key(self) -> SeenColumn | None:
        """Return the column that can be the key of persons."""
        if len(self.key) != 1 or self.columns[self.key[0]].base not in _KEYS:
            return None
        key = self.columns[self.key[0]]
        return None if key.looks_like is PiiKind.EMAIL else key


def _address_rank(column: SeenColumn) -> tuple[bool, bool, bool, int, str]:
    snake = snake_case(column.name)
    exact = re.fullmatch(r"(?:user_)?e_?mail(?:_address)?", snake) is not None
    return (not exact, not column.unique, column.looks_like is not PiiKind.EMAIL, len(snake), snake)


class Reading(StrEnum):
    """Why a part of a proposal is to be read with care."""

    KIND_MISSING = "no column was found for it"
    ADDRESS_ELSEWHERE = "the address stands in another table"
    NO_MOMENT = "no column tells when a person registered"
    UNREACHED = "holds personal data, and nothing in it points at the persons"
    ABOVE = "holds personal data, and the persons point at it"
    INDIRECT = "points at a table of a person's rows, not at the persons"
    RECORDS = "by its name keeps what was or what somebody did, and is not mapped"
    FREE_TEXT = "people write there, and may write of themselves"
    GUESTS = "has rows that belong to nobody's account, and personal data in them"
    TO_GRANT = "the user who looked lacks a privilege that Lethe needs"
    DOES_NOT_FIT = "could not be mapped"
    TOO_MANY = "more than a DataStore takes"


@dataclass(frozen=True, slots=True)
class Remark:
    """What a person has to look at: a column or table, why, and what was seen."""

    about: str
    reading: Reading
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.about}: {self.reading.value}{f' ({self.detail})' if self.detail else ''}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A mapping for a person to read. `why` tells of columns and tables (`column`, `table`, `table.column`)
    what they were taken for; `others` are the further tables that could be the persons', the best first.
    `fits` says that the schema takes it.
    """

    mapping: SubjectMapping
    why: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()
    others: tuple[str, ...] = ()
    one_owner: bool = False
    fits: bool = True


class NoSubjects(Exception):
    """No table of the schema looks like one of persons."""


class NoSuchTable(Exception):
    """The schema has no table as the persons' was said to be called."""


def propose(
    tables: Mapping[str, SeenTable], *, subjects: str | None = None
) -> tuple[Proposal, tuple[Proposal, ...]]:
    """Propose a mapping of a schema, and one more for each table of addresses that it does not reach.

    `subjects` names the table of persons, where that was said. Raises `NoSubjects`, `NoSuchTable`.
    """
    if subjects is not None and subjects not in tables:
        raise NoSuchTable
    pointing = _pointing(tables)
    scores = {name: _score(table, tables, pointing) for name, table in tables.items()}
    ranked = sorted((name for name in tables if scores[name] > 0), key=lambda name: (-scores[name], name))
    if subjects is None and not ranked:
        raise NoSubjects
    chosen = tables[subjects if subjects is not None else ranked[0]]
    if chosen.persons_key is None or not chosen.personal:
        raise NoSubjects
    proposal = _proposal(chosen, tables, pointing)
    others = [name for name in ranked if name != chosen.name and scores[name] >= scores[chosen.name] / 2]
    reached = {chosen.name, *(one.table for one in proposal.mapping.dependents)}
    further = [
        _alone(table, pointing[table.name])
        for table in sorted(tables.values(), key=lambda one: one.name)
        if table.name not in reached and table.address is not None and table.persons_key is not None
        if not _points_at(table, chosen, pointing)
    ]
    return replace(proposal, others=tuple(others[:5])), tuple(further)


# --- which table is of persons -------------------------------------------------------------------------

_PERSONS = re.compile(
    r"(?:^|_)(?:users?|accounts?|customers?|people|persons?|members?|clients?|contacts?|partners?|patients?"
    r"|subscribers?|user_entity|usuarios?|benutzer|kunden?|nutzer)$"
)
_NEVER = re.compile(
    r"(?:^|_)(?:logs?|logging|history|histories|audit\w*|versions?|archive\w*|backups?|old|tmp|temp|sessions?"
    r"|invit\w*|messages?|mails?|emails?|events?|jobs?|queue\w*|tokens?|blocks?|bans?|blocked\w*|screened\w*)$"
)
Pointing = Mapping[str, Sequence[tuple[SeenTable, SeenColumn]]]


def _pointing(tables: Mapping[str, SeenTable]) -> Pointing:
    """Return by table what points at it: by a foreign key, or, where columns have none, by what they are
    called after it."""
    found: dict[str, list[tuple[SeenTable, SeenColumn]]] = {name: [] for name in tables}
    called: dict[str, list[SeenTable]] = {}
    for table in tables.values():
        key = table.persons_key
        if key is not None:
            for name in _called_after(table, key.name):
                called.setdefault(name, []).append(table)
    for table in tables.values():
        for column in table.columns.values():
            if column.refers_to is not None:
                other, at = column.refers_to
                if other in tables and tables[other].key == (at,) and other != table.name:
                    found[other].append((table, column))
                continue
            for other_table in called.get(snake_case(column.name), ()):
                key = other_table.persons_key
                if key and other_table is not table and _alike(column.base, key.base):
                    found[other_table.name].append((table, column))
    return found


def _called_after(table: SeenTable, key: str) -> set[str]:
    """Return what a column is called, by custom, that holds the key of a table's row."""
    bare, key = table.bare_name, snake_case(key)
    last = bare.rpartition("_")[2]
    singles = {bare, bare.removesuffix("s"), last, last.removesuffix("s"), bare.removesuffix("_entity")}
    if bare.endswith("people"):
        singles.add("person")
    called = {f"{single or bare}{between}{key}" for single in singles for between in ("_", "")}
    return called | ({key} if key.endswith("_id") else set())


def _alike(one: str, other: str) -> bool:
    integers = {"int2", "int4", "int8"}
    return one == other or {one, other} <= integers or {one, other} <= _TEXTS


def _score(table: SeenTable, tables: Mapping[str, SeenTable], pointing: Pointing) -> int:
    """Return how much a table looks like that of the persons; 0 and less: not at all."""
    if table.persons_key is None or not table.personal:
        return 0
    kinds = set(table.personal.values())
    if not kinds - {PiiKind.OTHER, PiiKind.LOCALE, PiiKind.TIME_ZONE} or not _about_people(table):
        return 0
    score = 40 * (PiiKind.EMAIL in kinds) + 20 * (PiiKind.PASSWORD in kinds)
    score += 10 * bool({PiiKind.FIRST_NAME, PiiKind.LAST_NAME} & kinds)
    score += min(30, 4 * len(table.personal)) + min(45, 3 * len(pointing[table.name]))
    score += 30 * bool(_PERSONS.search(table.bare_name)) - 60 * bool(_NEVER.search(table.bare_name))
    for column in table.columns.values():
        if column.refers_to and column.not_null and column.refers_to[0] in tables:
            above = tables[column.refers_to[0]]
            if above is not table and above.address is not None and above.persons_key is not None:
                score -= 50  # what hangs on somebody with an address is part of her
    return score


def _points_at(table: SeenTable, subjects: SeenTable, pointing: Pointing) -> bool:
    return any(one is table for one, _ in pointing[subjects.name])


# --- one proposal --------------------------------------------------------------------------------------

_REGISTERED = (
    "created_at",
    "created_on",
    "created",
    "date_joined",
    "joined_at",
    "registered_at",
    "user_registered",
    "registration_date",
    "inserted_at",
    "create_date",
    "creation_date",
    "date_created",
)
# Rows that are of one person alone and worth nothing without her.
_HER_OWN = re.compile(
    r"session|token|credential|passw|(?:^|_)otp|webauthn|passkey|device|api_?key|identit|social|oauth"
    r"|authenticat|(?:^|_)logins?$|remember|reset|confirm|verif|push|recovery|second_factor|backup_code"
    r"|(?:^|_)(?:user|customer|account|member)_e?mails?$|e?mail_?address(?:es)?$|^e_?mails?$|required_action|consent"
    r"|(?:associated|linked|external)_accounts?$|single_sign_on|(?:^|_)sso(?:$|_)|ip_address|user_agent|personal_access|sign_?ins?|(?:^|_)federated"
)
# What was, and what somebody did, under names and in documents that tell nothing by themselves.
_RECORDS = re.compile(
    r"session|token|versions?$|revisions?$|histor|audit|(?:^|_)logs?$|archive|(?:^|_)events?$|(?:^|_)trash|changes?$"
)


def _proposal(subjects: SeenTable, tables: Mapping[str, SeenTable], pointing: Pointing) -> Proposal:
    why: dict[str, str] = {}
    remarks: list[Remark] = []
    key = subjects.persons_key
    assert key is not None  # noqa: S101 - the caller has seen to it
    address, created = subjects.address, registered(subjects)
    clear = rules_for(subjects, known_by=address)
    why |= _reasons(subjects, clear)
    dependents: list[Dependent] = []
    ignored: list[str] = []
    for table, column in sorted(pointing[subjects.name], key=lambda one: (one[0].name, one[1].name)):
        at = f"{table.name}.{column.name}"
        dependent = _dependent(table, column)
        if column.refers_to is None:
            why[at] = "no foreign key: called after the persons' key"
        if dependent is None or (not dependent.delete and any(one.table == table.name for one in dependents)):
            ignored.append(at)
            continue
        dependents.append(dependent)
        if not dependent.delete:
            why |= _reasons(table, dependent.clear, f"{table.name}.")
            if not column.not_null and PiiKind.EMAIL in table.personal.values():
                remarks.append(Remark(at, Reading.GUESTS, "NULL is allowed, and there is an address"))
    if created is None:
        remarks.append(Remark(subjects.name, Reading.NO_MOMENT))
    if address is None:
        remarks += [
            Remark(f"{one.name}.{one.address.name}", Reading.ADDRESS_ELSEWHERE, "find persons by id")
            for one, _ in pointing[subjects.name]
            if one.address is not None
        ]
    reached = {subjects.name, *(table.name for table, _ in pointing[subjects.name])}
    remarks += _free_texts(tables, reached, subjects.name, clear, dependents)
    remarks += _above(subjects, tables, reached)
    remarks += _unreached(subjects, tables, pointing, reached)
    cut, dependents = dependents[MOST_DEPENDENTS:], dependents[:MOST_DEPENDENTS]
    remarks += [Remark(f"{one.table}.{one.foreign_key}", Reading.TOO_MANY) for one in cut]
    remarks += [Remark(one, Reading.TOO_MANY) for one in ignored[MOST_IGNORED:]]
    remarks += _too_many([subjects, *(tables[one.table] for one in dependents if not one.delete)])
    mapping = SubjectMapping(
        subjects.name,
        key.name,
        {} if address is None else {"email": address.name},
        clear,
        created_at=None if created is None else created.name,
        ignore=tuple(ignored[:MOST_IGNORED]),
        dependents=tuple(dependents),
    )
    remarks += [Remark(kind.value, Reading.KIND_MISSING) for kind in sorted(mapping.kinds_unmapped())]
    return Proposal(mapping, why, tuple(dict.fromkeys(remarks)))


def _free_texts(
    tables: Mapping[str, SeenTable],
    reached: Iterable[str],
    subjects: str,
    clear: Sequence[ClearRule],
    dependents: Sequence[Dependent],
) -> list[Remark]:
    """Tell of the columns without a length, and of the documents, that stay as they are."""
    deleted = {one.table for one in dependents if one.delete}
    mapped = {(subjects, rule.column) for rule in clear}
    mapped |= {(one.table, rule.column) for one in dependents for rule in one.clear}
    remarks = []
    for name in sorted(set(reached) - deleted):
        left = [
            column.name
            for column in tables[name].columns.values()
            if (name, column.name) not in mapped and column.name not in tables[name].key
            if not column.generated and column.refers_to is None
            if column.base in _DOCUMENTS or (column.length or 0) >= _LONG
        ]
        if left:
            remarks.append(Remark(name, Reading.FREE_TEXT, ", ".join(left[:6])))
    return remarks


def registered(table: SeenTable) -> SeenColumn | None:
    """Return the column that tells when a row was made."""
    moments = {snake_case(name): column for name, column in table.columns.items() if column.base in _MOMENTS}
    return next((moments[name] for name in _REGISTERED if name in moments), None)


def _reasons(table: SeenTable, rules: Iterable[ClearRule], at: str = "") -> dict[str, str]:
    """Say why columns are taken for personal data, where it is not by their names alone."""
    reasons: dict[str, str] = {}
    for column in (table.columns[rule.column] for rule in rules):
        if column.looks_like is not None and kind_by_name(column.name, column.base) is not column.looks_like:
            reasons[f"{at}{column.name}"] = f"by its values: they look like {column.looks_like.value}"
        elif column.comment:
            reasons[f"{at}{column.name}"] = column.comment
    return reasons


def _dependent(table: SeenTable, column: SeenColumn) -> Dependent | None:
    """Return what becomes of the rows that point at a person; `None`: they hold but her key."""
    attributes = {"value", "meta_value"} & {snake_case(name) for name in table.columns}
    named = {"name", "key", "meta_key"} & {snake_case(name) for name in table.columns}
    if _HER_OWN.search(table.bare_name) or (attributes and named and len(table.columns) <= 8):
        return Dependent(table.name, column.name, delete=True)
    rules = tuple(rule for rule in rules_for(table) if rule.column != column.name)
    if not _about_people(table):
        rules = tuple(rule for rule in rules if not _is_a_things_name(rule))
    return Dependent(table.name, column.name, delete=False, clear=rules) if rules else None


def _is_a_things_name(rule: ClearRule) -> bool:
    return rule.holds is PiiKind.LAST_NAME and snake_case(rule.column) in _NAMES_OF_THINGS


_NAMES_OF_THINGS = frozenset({"name", "display_name", "full_name"})


def _above(subjects: SeenTable, tables: Mapping[str, SeenTable], reached: Iterable[str]) -> list[Remark]:
    found = []
    for column in subjects.columns.values():
        if column.refers_to is None or column.refers_to[0] not in tables:
            continue
        above = tables[column.refers_to[0]]
        if above.name not in reached and above.personal:
            found.append(Remark(above.name, Reading.ABOVE, f"by {column.name}: {_named(above)}"))
    return found


def _unreached(
    subjects: SeenTable, tables: Mapping[str, SeenTable], pointing: Pointing, reached: Iterable[str]
) -> list[Remark]:
    """Tell of the tables with personal data that the mapping does not come to."""
    known = set(reached)
    above = {column.refers_to[0] for column in subjects.columns.values() if column.refers_to}
    below = {table.name for name in known - {subjects.name} for table, _ in pointing[name]}
    remarks = []
    for table in sorted(tables.values(), key=lambda one: one.name):
        telling = {*table.personal.values()} - {PiiKind.LOCALE, PiiKind.TIME_ZONE}
        if table.name in known | above or not telling or not _about_people(table):
            continue
        if _RECORDS.search(table.bare_name):
            continue
        if table.name in below:
            remarks.append(Remark(table.name, Reading.INDIRECT, _named(table)))
        elif table.address is None or table.persons_key is None:
            remarks.append(Remark(table.name, Reading.UNREACHED, _named(table)))
    for table in sorted(tables.values(), key=lambda one: one.name):
        documents = [one.name for one in table.columns.values() if one.base in {*_TEXTS, "json", "jsonb"}]
        if table.name not in known | above and documents and _RECORDS.search(table.bare_name):
            remarks.append(Remark(table.name, Reading.RECORDS, ", ".join(documents[:6])))
    return remarks


def _about_people(table: SeenTable) -> bool:
    """Tell whether what is called `name` there is probably a person's: a lone `name` is any thing's."""
    certain = [
        name
        for name, kind in table.personal.items()
        if not (kind is PiiKind.LAST_NAME and snake_case(name) in _NAMES_OF_THINGS)
        and not (kind is PiiKind.OTHER and words_of(name)[-1:] in (["url"], ["image"], ["picture"]))
        and kind not in {PiiKind.LOCALE, PiiKind.TIME_ZONE, PiiKind.PASSWORD}
    ]
    return bool(certain)


def _named(table: SeenTable) -> str:
    names = list(table.personal)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _alone(table: SeenTable, pointing: Sequence[tuple[SeenTable, SeenColumn]]) -> Proposal:
    """Propose a DataStore of its own for a table of addresses that belong to no account."""
    key, address, created = table.persons_key, table.address, registered(table)
    assert key is not None and address is not None  # noqa: S101, PT018 - the caller has seen to it
    clear = rules_for(table, known_by=address)
    mapping = SubjectMapping(
        table.name,
        key.name,
        {"email": address.name},
        clear,
        created_at=None if created is None else created.name,
        ignore=tuple(sorted(f"{one.name}.{column.name}" for one, column in pointing))[:MOST_IGNORED],
    )
    return Proposal(mapping, _reasons(table, clear), tuple(_too_many([table])), one_owner=True)


# --- what a column becomes -----------------------------------------------------------------------------


def rules_for(table: SeenTable, *, known_by: SeenColumn | None = None) -> tuple[ClearRule, ...]:
    """Return what becomes of each personal column of a table, the most telling kinds first. `known_by` is
    the column by which persons are found: what it becomes is to tell whose row it was, to Lethe alone.
    """
    rules = (
        ClearRule(name, kind, *choices_for(table.columns[name], kind, known_by=known_by)[0])
        for name, kind in _by_kind(table)[:MOST_RULES]
    )
    return tuple(rules)


def _by_kind(table: SeenTable) -> list[tuple[str, PiiKind]]:
    order = list(PiiKind)
    return sorted(table.personal.items(), key=lambda one: order.index(one[1]))


def _too_many(tables: Iterable[SeenTable]) -> list[Remark]:
    """Tell of the personal columns for which there is no room."""
    return [
        Remark(f"{table.name}.{name}", Reading.TOO_MANY)
        for table in {one.name: one for one in tables}.values()
        for name, _ in _by_kind(table)[MOST_RULES:]
    ]


def choices_for(
    column: SeenColumn, kind: PiiKind, *, known_by: SeenColumn | None = None
) -> list[tuple[ClearTo, str | None]]:
    """Return what a column may become, the best first: a live schema tells which of it fits."""
    choices: list[tuple[ClearTo, str | None]] = []
    templates = [(ClearTo.TEMPLATE, text) for text in _templates(column, kind)]
    if column == known_by or (column.unique and column.not_null):
        choices += templates
    if kind in {PiiKind.LOCALE, PiiKind.TIME_ZONE} and column.default:
        choices.append((ClearTo.DEFAULT, None))
    if not column.not_null:
        choices.append((ClearTo.SET_NULL, None))
    if column.base in _TEXTS and kind is PiiKind.PASSWORD:
        choices.append((ClearTo.VALUE, "!"))
    if column.default and (ClearTo.DEFAULT, None) not in choices:
        choices.append((ClearTo.DEFAULT, None))
    if column.base in _TEXTS:
        choices.append((ClearTo.VALUE, ""))
    elif column.base in _NUMBERS:
        choices.append((ClearTo.VALUE, "0"))
    elif column.base == "uuid":
        choices.append((ClearTo.TEMPLATE, "{uuid}"))
    elif column.base.startswith("_"):
        choices.append((ClearTo.VALUE, "{}"))
    elif column.base in _EMPTY:
        choices.append((ClearTo.VALUE, _EMPTY[column.base]))
    if column.base in _TEXTS:
        choices += [(ClearTo.VALUE, "erased"), (ClearTo.VALUE, "-")]
    choices += [one for one in templates if one not in choices]
    return choices or [(ClearTo.SET_NULL, None)]


def _templates(column: SeenColumn, kind: PiiKind) -> list[str]:
    if column.base not in _TEXTS:
        return []
    if kind is PiiKind.EMAIL:
        texts = ["erased-{token}@erased.invalid", "{token:8}@erased.invalid"]
        lengths = [46, 23]
    else:
        texts, lengths = ["erased-{token}", "{token:8}"], [31, 8]
    room = column.length
    return [text for text, longest in zip(texts, lengths, strict=True) if room is None or longest <= room]
