"""What identifies a person, and how it is compared."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum

_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")


class PersonalText(str):
    """Text that identifies a person: it never shows itself in a repr, so not in a log or traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<personal>"

    def __format__(self, spec: str) -> str:
        return "<personal>"

    def reveal(self) -> str:
        """Return the plain text; for the store, the sealed ledger payload and nothing else."""
        return str.__str__(self)


class IdentifierKind(StrEnum):
    """The kinds of identifier by which a store can be searched (keys of `identifiers` in a DataStore)."""

    EMAIL = "email"
    PRIMARY_KEY = "primaryKey"


@dataclass(frozen=True, slots=True)
class Identifier:
    """One way to find a person: by e-mail address, or by the key in the Primary store."""

    kind: IdentifierKind
    value: PersonalText


class NotAnEmailAddress(ValueError):
    """The text isn't one e-mail address. Its message never repeats the text."""


def normalised_email(text: str) -> str:
    """Return the form in which two e-mail addresses are compared: trimmed, NFC, case-folded.

    RFC 5321 lets a local part be case-sensitive, but no provider in use does; and a request that
    misses a person for a capital letter breaks the promise, where sites compare without case anyway.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text.strip()).casefold())


def email_identifier(text: str) -> Identifier:
    """Return the identifier for an e-mail address that somebody typed.

    Raises `NotAnEmailAddress` for anything but a single `local@domain` without blanks.
    """
    stripped = text.strip()
    if len(stripped) > 320 or not _EMAIL.fullmatch(stripped):
        raise NotAnEmailAddress("is not one e-mail address")
    return Identifier(IdentifierKind.EMAIL, PersonalText(stripped))


def same_email(one: str, other: str) -> bool:
    """Tell whether two addresses mean the same mailbox, by `normalised_email`."""
    return normalised_email(one) == normalised_email(other)


def masked_as_personal(text: str | None) -> PersonalText | None:
    """Mark text read from a store as personal, so that it can't be printed by accident."""
    return None if text is None else PersonalText(text)
