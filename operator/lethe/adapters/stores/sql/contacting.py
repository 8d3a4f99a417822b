"""How persons are reached: the address, the language, the time zone and the name that a table holds.

What an erasure wrote is nobody's address. A placeholder is therefore recognised by every mapping version
that may have written it, and also where the record has been changed since, so that it is not cleared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lethe.adapters.stores.sql.finding import Match, Search
from lethe.adapters.stores.sql.values import Tokens
from lethe.domain.identifiers import PersonalText, email_identifier, leads_nowhere, same_email
from lethe.domain.mapping import ClearRule, PiiKind, SubjectMapping
from lethe.ports.stores import Contact, Wanted

_KINDS = (PiiKind.LOCALE, PiiKind.TIME_ZONE, PiiKind.FIRST_NAME, PiiKind.LAST_NAME)


def contacts_of(
    search: Search, wanted: Sequence[Wanted], *, earlier: Iterable[SubjectMapping]
) -> dict[str, tuple[Contact, ...]]:
    """Return how each wanted person is reached, by request. `earlier` are mappings that erased before.

    Raises `AnswerUntrusted` if a canary is missed.
    """
    columns = _columns(search.shape.mapping)
    reading = _Reading(search.shape.mapping, search.tokens, columns, tuple(earlier))
    found: dict[str, dict[str, Contact]] = {}
    for match in search.matches(wanted, tuple(columns.values())):
        of_request = found.setdefault(wanted[match.ix].request, {})
        if len(of_request) < search.max_records and match.record.key not in of_request:
            of_request[match.record.key] = reading.contact(match)
    return {request: tuple(contacts.values()) for request, contacts in found.items()}


def _columns(mapping: SubjectMapping) -> dict[PiiKind, str]:
    """Return the subjects' columns that hold what a notice needs; of two of a kind the first."""
    columns: dict[PiiKind, str] = {}
    for rule in mapping.clear:
        if rule.holds in _KINDS:
            columns.setdefault(rule.holds, rule.column)
    return columns


@dataclass(frozen=True, slots=True)
class _Reading:
    """Makes contacts of the rows of one mapping's table. `columns` are in the order of a match's texts."""

    mapping: SubjectMapping
    tokens: Tokens
    columns: dict[PiiKind, str]
    earlier: tuple[SubjectMapping, ...]

    def contact(self, match: Match) -> Contact:
        """Return how the person of a row is reached."""
        table, key, email = match.record.table, match.record.key, match.record.email
        if match.record.cleared or self._bears_token(key, email):
            return Contact(table, key, None, cleared=True)
        texts = dict(zip(self.columns, match.texts, strict=True))
        return Contact(
            table,
            key,
            self._address(key, email),
            _worded(texts.get(PiiKind.LOCALE)),
            _worded(texts.get(PiiKind.TIME_ZONE)),
            self._name(key, texts),
        )

    def _address(self, key: str, email: PersonalText | None) -> PersonalText | None:
        """Return an address that may be written to, without the blanks around it."""
        if email is None or any(self._wrote(rule, key, email) for rule in self._email_rules()):
            return None
        try:
            address = email_identifier(email.reveal()).value
        except ValueError:
            return None
        return None if leads_nowhere(address.reveal()) else address

    def _name(self, key: str, texts: dict[PiiKind, PersonalText | None]) -> PersonalText | None:
        """Return first and last name with one blank between; a column that holds both is read once."""
        held = {
            self.columns[kind]: texts[kind]
            for kind in (PiiKind.FIRST_NAME, PiiKind.LAST_NAME)
            if kind in self.columns
        }
        rules = {rule.column: rule for rule in self.mapping.clear}
        words: list[str] = []
        for column, text in held.items():
            if text is not None and not self._wrote(rules[column], key, text):
                words += text.reveal().split()
        return PersonalText(" ".join(words)) if words else None

    def _bears_token(self, key: str, email: PersonalText | None) -> bool:
        """Tell whether the address is one that an erasure made for this very key, and nobody can guess."""
        return email is not None and any(
            rule.bears_token and self._wrote(rule, key, email) for rule in self._email_rules()
        )

    def _email_rules(self) -> list[ClearRule]:
        """Return what each mapping version of this table writes into the address's column."""
        return [
            rule
            for mapping in (self.mapping, *self.earlier)
            for rule in mapping.clear
            if mapping.table == self.mapping.table and rule.column == self.mapping.email_column
        ]

    def _wrote(self, rule: ClearRule, key: str, text: PersonalText) -> bool:
        """Tell whether an erasure by this rule leaves this text; an application may fold its case."""
        written = rule.value_for(key, self.tokens.of(self.mapping.table, key))
        return written is not None and same_email(written, text.reveal())


def _worded(text: PersonalText | None) -> str | None:
    """Return a text as it stands there; one of blanks only says nothing."""
    return text.reveal() if text is not None and text.strip() else None
