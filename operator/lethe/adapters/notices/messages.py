"""A letter as a message of RFC 5322, the same byte for byte each time that it is sent."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

from lethe.adapters.notices.mailboxes import Mailbox
from lethe.ports.notices import Letter

_MESSAGE_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,200}@[A-Za-z0-9.-]{1,200}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")


class NotAMessage(ValueError):
    """The letter can't be written as a message. Names the field, never what is in it."""


def is_message_id(text: str) -> bool:
    """Whether text can stand in a Message-ID's angle brackets, and in any header."""
    return _MESSAGE_ID.fullmatch(text) is not None


def compose(letter: Letter, sender: Address, to: Mailbox) -> bytes:
    """Return the message's bytes; ASCII only but for the header To, if `to` is international.

    Text and HTML are alternatives, in UTF-8 and quoted-printable: it passes servers without 8BITMIME.
    Raises `NotAMessage` for a Message-ID that is none.
    """
    if not is_message_id(letter.message_id):
        raise NotAMessage("its Message-ID is not of the form id@domain")
    style = policy.SMTPUTF8 if to.is_international else policy.SMTP
    message = EmailMessage(policy=style)
    message["From"] = sender
    # Built from its parts, never parsed: no address can become two.
    message["To"] = Address(username=_unquoted(to.local), domain=to.domain)
    message["Subject"] = " ".join(_encodable(letter.subject).split())
    message["Date"] = format_datetime(letter.at.astimezone(UTC))
    message["Message-ID"] = f"<{letter.message_id}>"
    # RFC 3834: nobody's out-of-office answers it.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_encodable(letter.text), cte="quoted-printable")
    if letter.html is not None:
        message.add_alternative(_encodable(letter.html), subtype="html", cte="quoted-printable")
        message.set_boundary(f"=_{hashlib.sha256(letter.message_id.encode()).hexdigest()[:40]}")
    if _LANGUAGE.fullmatch(letter.language):
        # Last: to set a content removes what was said about one.
        message["Content-Language"] = letter.language
    return message.as_bytes()


def _unquoted(local: str) -> str:
    return local[1:-1] if local.startswith('"') else local


def _encodable(text: str) -> str:
    """Return text without lone surrogates, which no encoding has."""
    return str.__str__(text).encode("utf-8", "replace").decode("utf-8")
