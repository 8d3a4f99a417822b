"""Addresses as SMTP takes them: quoted where they must be, and with domains as DNS knows them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.utils import parseaddr

import idna

_SIGNS = r"[^\x00-\x20\x7f-\x9f\"(),.:;<>@\[\\\]]+"
_ATOM = re.compile(rf"{_SIGNS}(?:\.{_SIGNS})*")
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LITERAL = re.compile(r"\[[0-9A-Za-z.:-]+\]")


class NotAMailbox(ValueError):
    """The text is no address that mail can be sent to. Never repeats the text."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One mailbox; `local` is written as SMTP wants it, `domain` is ASCII (RFC 5891)."""

    local: str = field(repr=False)
    domain: str = field(repr=False)

    @property
    def spec(self) -> str:
        """The address for an envelope and for a header."""
        return f"{self.local}@{self.domain}"

    @property
    def is_international(self) -> bool:
        """Whether only a server with SMTPUTF8 (RFC 6531) can take it: a local part has no ASCII form."""
        return not self.local.isascii()


def parse_mailbox(text: str) -> Mailbox:
    """Return the mailbox that an address means. Raises `NotAMailbox`.

    A domain with letters beyond ASCII is written as IDNA 2008 says, not as Python's own codec does, which
    sends mail for `straße.example` to `strasse.example`: that may be somebody else's.
    """
    local, at, domain = str.__str__(text).strip().rpartition("@")
    if any(
        "\ud800" <= sign <= "\udfff" for sign in local + domain
    ):  # halves of letters: no encoding has them
        raise NotAMailbox("is not one e-mail address")
    if (
        not at
        or not local
        or any(ord(sign) < 33 or sign == "\x7f" or sign.isspace() for sign in local + domain)
    ):
        raise NotAMailbox("is not one e-mail address")
    if not _ATOM.fullmatch(local):
        inner = local[1:-1] if len(local) > 2 and local[0] == local[-1] == '"' else local
        if '"' in inner or "\\" in inner or not inner.isprintable():
            raise NotAMailbox("is not one e-mail address")
        local = f'"{inner}"'
    if _LITERAL.fullmatch(domain) or _HOST.fullmatch(domain):
        return Mailbox(local, domain)
    try:
        return Mailbox(local, idna.encode(domain, uts46=True).decode("ascii"))
    except idna.IDNAError:
        raise NotAMailbox("has no domain that DNS could know") from None


def parse_sender(text: str) -> Address:
    """Return a sender, with or without a display name: `Example Ltd <privacy@example.com>`.

    Raises `NotAMailbox`, also for a local part that is not ASCII: not every server would take it.
    """
    if any(sign in text for sign in "\r\n\x00"):
        raise NotAMailbox("has a line break")
    before, bracket, rest = text.strip().rpartition("<")
    if bracket and not rest.endswith(">"):
        raise NotAMailbox("is not one e-mail address")
    # Only the name is left to parseaddr: before Python 3.11.4 it spoils domains that are addresses.
    name = parseaddr(f"{before}<a@b>")[0] if bracket else ""
    mailbox = parse_mailbox(rest[:-1] if bracket else rest)
    if mailbox.is_international or mailbox.local.startswith('"'):
        raise NotAMailbox("has a local part of other signs than ASCII letters, digits and . - _ +")
    return Address(display_name=name, username=mailbox.local, domain=mailbox.domain)
