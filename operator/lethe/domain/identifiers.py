"""What identifies a person, and how it is compared."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum

_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")
# A quoted local part that would be the same mailbox without (RFC 5322, dot-atom).
_NEEDLESSLY_QUOTED = re.compile(r'"([^\s"(),.:;<>@\[\]\\]+(?:\.[^\s"(),.:;<>@\[\]\\]+)*)"')
# Kelvin, ohm, ångström and the symbol theta: Unicode takes them for letters of names.
_SIGNS = "\u03f4\u2126\u212a\u212b"
_AT_SIGNS = re.compile(f"([{_SIGNS}])")
_LONGEST_DOMAIN, _LONGEST_LABEL = 255, 63
BLANKS = "".join(
    chr(code)
    for first, last in (
        *((0x01, 0x20), (0x7F, 0xA0), (0xAD, 0xAD), (0x1680, 0x1680), (0x2000, 0x200F), (0x2028, 0x202F)),
        *((0x205F, 0x2064), (0x2066, 0x2069), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
    )
    for code in range(first, last + 1)
)
"""What may stand around an address unseen: blanks, controls, marks of direction that come with a copy."""


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
    """Return the form in which two e-mail addresses are compared, everywhere; once is enough.

    Without blanks around it; the local part composed (NFC), in small letters, and without quotes that it
    does not need (RFC 5321, 4.1.2); the domain as A-labels (RFC 5890), without the dot of the root. RFC 5321
    lets a local part be case-sensitive, but no provider in use does; and a request that misses a person for
    a capital letter breaks the promise, where sites compare without case anyway. No letter is taken for
    another, though: `ß` is not `ss`, `ı` not `i`, and a Kelvin sign no K.
    """
    text = text.strip(BLANKS)
    if text.isascii():
        local, at, domain = text.lower().rpartition("@")
    else:
        local, at, domain = text.rpartition("@")
        local, domain = _small_letters(local), _a_labels(domain)
    quoted = _NEEDLESSLY_QUOTED.fullmatch(local)
    return f"{quoted[1] if quoted else local}{at}{domain.rstrip('.') if at else domain}"


def spellings(text: str) -> set[str]:
    """Return the spellings in which a store may hold an address, or the `lower()` of what it holds.

    Blanks around it are not among them, nor mixtures of capital and small letters beyond ASCII.
    """
    given = text.strip(BLANKS)
    forms = {text, given}
    local, at, domain = given.rpartition("@")
    if at:
        meant, _, labels = normalised_email(given).rpartition("@")
        for name in {local, meant, f'"{meant}"'}:
            for place in {domain.rstrip("."), labels, _u_labels(labels)}:
                for dot in ("", "."):
                    forms |= _cases(f"{name}@{place}{dot}")
    return forms


def _cases(text: str) -> set[str]:
    if text.isascii():
        return {text, text.lower()}
    forms: set[str] = set()
    for form in ("NFC", "NFD"):
        composed = unicodedata.normalize(form, text)
        ascii_small = "".join(c.lower() if c.isascii() else c for c in composed)
        # Under the C locale letters outside ASCII stay as they are, so their capitals are forms too.
        shouted = "".join(c.lower() if c.isascii() else c.upper() for c in composed)
        # A capital may be composed otherwise than its small letter; of one, that is an ASCII letter.
        shouted = unicodedata.normalize(form, shouted.replace("i\u0307", "İ"))
        # Not every lower() writes the sigma that ends a word in its own way.
        forms |= {composed, composed.lower(), composed.lower().replace("ς", "σ"), ascii_small, shouted}
    return forms


def _small_letters(text: str) -> str:
    """Return a text composed and in small letters; signs that are no letters of a name stay what they are."""
    return "".join(
        part if part in _SIGNS else _composed(_composed(part).lower()) for part in _AT_SIGNS.split(text)
    )


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _a_labels(domain: str) -> str:
    """Return a domain as it is looked up: mapped by UTS 46, labels outside ASCII in Punycode.

    What IDNA forbids, but registries have given out all the same (`i❤.ws`), is a domain too.
    """
    # Its tables take a few megabytes, which hardly any company needs.
    import idna  # noqa: PLC0415

    if len(domain) > _LONGEST_DOMAIN:
        return _composed(_composed(domain).lower())
    try:
        mapped = idna.uts46_remap(domain, std3_rules=False)
    except idna.IDNAError:
        return _composed(_composed(domain).lower())
    return ".".join(
        label if label.isascii() else f"xn--{label.encode('punycode').decode('ascii')}"
        for label in mapped.split(".")
    )


def _u_labels(domain: str) -> str:
    """Return a domain of A-labels in the letters that it stands for."""
    return ".".join(_u_label(label) for label in domain.split("."))


def _u_label(label: str) -> str:
    if not label.startswith("xn--") or len(label) > _LONGEST_LABEL:
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except ValueError:
        return label


def email_identifier(text: str) -> Identifier:
    """Return the identifier for an e-mail address that somebody typed.

    Raises `NotAnEmailAddress` for anything but a single `local@domain` without blanks.
    """
    stripped = text.strip(BLANKS)
    if len(stripped) > 320 or not _EMAIL.fullmatch(stripped):
        raise NotAnEmailAddress("is not one e-mail address")
    return Identifier(IdentifierKind.EMAIL, PersonalText(stripped))


def same_email(one: str, other: str) -> bool:
    """Tell whether two addresses mean the same mailbox, by `normalised_email`."""
    return normalised_email(one) == normalised_email(other)


def leads_nowhere(address: str) -> bool:
    """Tell whether an address is nobody's: none, or of a domain that is kept for such (RFC 6761)."""
    domain = normalised_email(address).rpartition("@")[2]
    return "@" not in address or f".{domain}".endswith(".invalid")


def masked_as_personal(text: str | None) -> PersonalText | None:
    """Mark text read from a store as personal, so that it can't be printed by accident."""
    return None if text is None else PersonalText(text)
