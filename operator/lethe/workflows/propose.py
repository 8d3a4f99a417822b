"""Proposing DataStores for a live schema, and trying each on it until it fits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lethe.domain.mapping import ClearRule, Dependent, SubjectMapping
from lethe.domain.mapping_proposal import (
    NoSubjects,
    Proposal,
    Reading,
    Remark,
    SeenTable,
    choices_for,
    propose,
    rules_for,
)
from lethe.ports.schemas import Schema
from lethe.ports.stores import MappingProblem

_FIELD = re.compile(
    r"sql\.subjects\.(?:dependents\[(?P<dependent>\d+)\]\.?)?(?:clear\[(?P<rule>\d+)\]|(?P<other>\w+))?"
)


def proposals(schema: Schema, *, subjects: str | None = None) -> tuple[Proposal, ...]:
    """Return a mapping of the persons in a schema that fits it, and one for each further table of addresses.

    `subjects` names the table of persons. Raises `NoSubjects`, `NoSuchTable`, the port's errors.
    """
    tables = schema.tables()
    first, further = propose(tables, subjects=subjects)
    fitted = [_Fitting(schema, tables, first).fit()]
    for one in further:
        try:
            fitted.append(_Fitting(schema, tables, one).fit())
        except NoSubjects:
            at = f"{one.mapping.table}: nothing of it can be cleared"
            fitted[0] = replace(fitted[0], remarks=(*fitted[0].remarks, Remark(at, Reading.DOES_NOT_FIT)))
    return tuple(fitted)


@dataclass(slots=True)
class _Fitting:
    """One proposal, tried on the schema; whatever is refused becomes the next best thing, or is told."""

    schema: Schema
    tables: Mapping[str, SeenTable]
    proposal: Proposal
    tried: dict[tuple[str, str], int] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    def fit(self) -> Proposal:
        mapping = self.proposal.mapping
        while problems := self._refused(mapping):
            before = mapping
            mapping = self._without(mapping, problems)
            if not mapping.clear:
                raise NoSubjects
            if mapping == before:  # what is refused is not a part that could be left out
                self.proposal = replace(self.proposal, fits=False)
                self.remarks += [Remark(one.field, Reading.DOES_NOT_FIT, one.problem) for one in problems]
                break
        return replace(
            self.proposal,
            mapping=mapping,
            remarks=tuple(dict.fromkeys((*self.proposal.remarks, *self.remarks))),
        )

    def _refused(self, mapping: SubjectMapping) -> Sequence[MappingProblem]:
        """Return what the schema refuses, and tell of what a GRANT mends: whoever looks may be a reader."""
        problems = self.schema.problems(mapping)
        lacking = [one for one in problems if one.remedy.startswith("GRANT")]
        self.remarks = [one for one in self.remarks if one.reading is not Reading.TO_GRANT]
        self.remarks += [Remark(one.problem, Reading.TO_GRANT) for one in lacking]
        return [one for one in problems if one not in lacking]

    def _without(self, mapping: SubjectMapping, problems: Sequence[MappingProblem]) -> SubjectMapping:
        """Return a mapping in which each part that was refused is another one, or gone."""
        of_dependents: dict[int, list[tuple[re.Match[str], MappingProblem]]] = {}
        of_rules: dict[int, MappingProblem] = {}
        changed = mapping
        for one in problems:
            at = _FIELD.match(one.field)
            if at is None:
                continue
            if at["dependent"] is not None:
                of_dependents.setdefault(int(at["dependent"]), []).append((at, one))
            elif at["rule"] is not None:
                of_rules[int(at["rule"])] = one
            elif at["other"] == "createdAt" and changed.created_at is not None:
                self._tell(f"{mapping.table}.{mapping.created_at}", one)
                changed = replace(changed, created_at=None)
            elif at["other"] == "identifiers" and changed.identifiers:
                self._tell(f"{mapping.table}.{mapping.email_column}", one)
                changed = replace(changed, identifiers={})
        dependents = [
            self._dependent(one, of_dependents[n]) if n in of_dependents else one
            for n, one in enumerate(mapping.dependents)
        ]
        gone = [
            f"{was.table}.{was.foreign_key}"
            for was, one in zip(mapping.dependents, dependents, strict=True)
            if one is None
        ]
        return replace(
            changed,
            clear=self._rules(mapping.table, mapping.clear, of_rules),
            dependents=tuple(one for one in dependents if one is not None),
            ignore=(*mapping.ignore, *gone),
        )

    def _rules(
        self, table: str, rules: Sequence[ClearRule], problems: Mapping[int, MappingProblem]
    ) -> tuple[ClearRule, ...]:
        left = (self._other(table, one, problems[n]) if n in problems else one for n, one in enumerate(rules))
        return tuple(one for one in left if one is not None)

    def _other(self, table: str, rule: ClearRule, problem: MappingProblem) -> ClearRule | None:
        """Return what a column may become instead; `None`, and a remark, where nothing is left."""
        seen = self.tables[table]
        known_by = seen.address if table == self.proposal.mapping.table else None
        choices = choices_for(seen.columns[rule.column], rule.holds, known_by=known_by)
        at = self.tried.get((table, rule.column), 0) + 1
        self.tried[table, rule.column] = at
        if at < len(choices) and not problem.field.endswith(".column"):
            to, text = choices[at]
            return replace(rule, to=to, text=text)
        self._tell(f"{table}.{rule.column}", problem)
        return None

    def _dependent(
        self, dependent: Dependent, problems: Sequence[tuple[re.Match[str], MappingProblem]]
    ) -> Dependent | None:
        of_rules = {int(at["rule"]): one for at, one in problems if at["rule"] is not None}
        others = [one for at, one in problems if at["rule"] is None]
        if not others:
            rules = self._rules(dependent.table, dependent.clear, of_rules)
            return replace(dependent, clear=rules) if rules else None
        self._tell(f"{dependent.table}.{dependent.foreign_key}", others[0])
        if dependent.delete and all(one.field.endswith(".delete") for one in others):
            rules = tuple(
                rule
                for rule in rules_for(self.tables[dependent.table])
                if rule.column != dependent.foreign_key
            )
            return replace(dependent, delete=False, clear=rules) if rules else None
        return None

    def _tell(self, about: str, problem: MappingProblem) -> None:
        self.remarks.append(Remark(about, Reading.DOES_NOT_FIT, problem.problem))
