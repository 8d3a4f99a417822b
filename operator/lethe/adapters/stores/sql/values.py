"""Keys and addresses as the database knows them, and the values that an erasure writes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from uuid import UUID

from lethe.domain.mapping import ClearRule, ClearTo, SubjectMapping
from lethe.ports.keys import Keyring

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,130})(\.[0-9]{1,130})?")


def _integer_of(bits: int) -> Callable[[str], bool]:
    bound = 1 << (bits - 1)
    return lambda text: bool(_INTEGER.fullmatch(text)) and -bound <= int(text) < bound


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _is_storable_text(text: str) -> bool:
    if "\0" in text:
        return False
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


# Whether a text is what the type itself would show for the value: `04711` is not the key 4711.
CANONICAL: Mapping[str, Callable[[str], bool]] = {
    "int2": _integer_of(16),
    "int4": _integer_of(32),
    "int8": _integer_of(64),
    "numeric": lambda text: bool(_DECIMAL.fullmatch(text)),
    "uuid": _is_uuid,
    "text": _is_storable_text,
    "varchar": _is_storable_text,
    "bpchar": lambda text: _is_storable_text(text) and not text.endswith(" "),
}

# The longest text that a key of the type has, to prove that a template fits its column.
LONGEST_KEY: Mapping[str, int] = {"int2": 6, "int4": 11, "int8": 20, "uuid": 36, "numeric": 40}
LONGEST_TEXT_KEY = 64

# Base32 (RFC 4648, lower case) two characters at a time: the standard library's takes ten times as long,
# which is a third of a large replay.
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_BASE32_PAIRS = tuple(first + second for first in _BASE32 for second in _BASE32)
_SHIFTS = range(110, -1, -10)
_MOST_KNOWN = 100_000


def encodable(text: str, encoding: str) -> bool:
    """Tell whether a database in this encoding can hold the text; where it can't, nobody there has it."""
    if not _is_storable_text(text):
        return False
    if text.isascii() or encoding.upper() in {"UTF8", "SQL_ASCII"}:
        return True
    try:
        text.encode(codecs.lookup(encoding.replace("WIN", "cp")).name)
    except (LookupError, UnicodeEncodeError):
        return False
    return True


class Tokens:
    """The unguessable token of each record of one store: somebody could register `erased-4711@…` first."""

    def __init__(self, keyring: Keyring, store: str) -> None:
        self._keyring, self._store = keyring, store
        self._known: dict[tuple[str, str], str] = {}  # a check follows each erasure, with the same keys

    def of(self, table: str, key: str) -> str:
        """Return the 24 characters (a–z, 2–7) for the record `key` of a table."""
        known = self._known.get((table, key))
        if known is not None:
            return known
        number = int.from_bytes(self._keyring.fingerprint("token", self._store, table, key)[:15], "big")
        token = "".join([_BASE32_PAIRS[number >> shift & 1023] for shift in _SHIFTS])
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[table, key] = token
        return token


def rules_that_differ(mapping: SubjectMapping) -> list[tuple[str, ClearRule]]:
    """Return `(table, rule)` of the rules whose values depend on the record, in a fixed order."""
    pairs = [(mapping.table, rule) for rule in mapping.clear]
    for dependent in mapping.dependents:
        pairs += [(dependent.table, rule) for rule in dependent.clear]
    return [pair for pair in pairs if pair[1].differs_per_record]


def constant_text(rule: ClearRule) -> str | None:
    """Return what a rule writes to every record alike. Only for rules that do not differ per record."""
    return None if rule.to is ClearTo.SET_NULL else rule.text
