"""What an SMTP server's codes mean, in our words: its own texts quote addresses."""

from __future__ import annotations

import re

_ENHANCED = re.compile(rb"\s*([245])\.(\d{1,3})\.(\d{1,3})(?!\d)")

_BASIC = {
    421: "the server closes the connection",
    450: "the mailbox is busy, or the server greylists",
    451: "an error of the server's own",
    452: "the server is out of space",
    454: "the server can't do this now",
    500: "the server does not know the command",
    501: "the server does not take the argument",
    502: "the server does not know the command",
    503: "the server wants another command first",
    504: "the server does not take the argument",
    521: "the server takes no mail",
    530: "the server wants a user and a password",
    535: "the server does not take user and password",
    538: "the server wants TLS first",
    550: "the mailbox is not there, or the server refuses it",
    551: "the mailbox is elsewhere",
    552: "the mailbox is full, or the message too large",
    553: "the server does not take the address",
    554: "the server refuses the message",
    555: "the server does not know a parameter",
    556: "the domain takes no mail",
}
# RFC 3463 and its registry; the first number is the code's own.
_DETAILS = {
    "1.1": "no such mailbox",
    "1.2": "no such domain",
    "1.3": "the address is not written as it should be",
    "1.6": "the mailbox has moved",
    "1.8": "the sender's domain is not known",
    "1.10": "the domain takes no mail",
    "2.1": "the mailbox is closed",
    "2.2": "the mailbox is full",
    "2.3": "the message is too large for the mailbox",
    "3.2": "the system takes no mail now",
    "3.4": "the message is too large",
    "4.1": "the next server does not answer",
    "4.4": "there is no way to the domain",
    "4.6": "mail goes round in circles",
    "4.7": "the next server did not take it in time",
    "6.7": "the address needs SMTPUTF8",
    "7.0": "the server refuses it",
    "7.1": "the server refuses it",
    "7.60": "this user may not send in the sender's name",
    "7.8": "the server does not take user and password",
    "7.25": "the sender's address has no reverse DNS",
    "7.26": "SPF and DKIM both fail",
}


_OF_THE_SENDER = {7, 8}  # X.1.7 and X.1.8 are said of the sender's address and domain


def blames_address(code: int, text: bytes) -> bool:
    """Tell whether a refusal is about whom a letter is for: then none to them will ever be taken.

    Only an X.1.x says so (RFC 3463). A code alone, or one of policy, may as well be about the sender, the
    relay or what the letter says: that is ours to mend, and no reason to give a person up.
    """
    match = _ENHANCED.match(text)
    return (
        match is not None
        and int(match[1]) == code // 100 == 5
        and int(match[2]) == 1
        and int(match[3]) not in _OF_THE_SENDER
    )


def meaning(code: int, text: bytes, command: str) -> str:
    """Return such as `550 5.1.1 to RCPT: no such mailbox`, with nothing of the server's words."""
    if code < 200:
        return f"no answer of an SMTP server to {command}"
    match = _ENHANCED.match(text)
    said = _BASIC.get(code, "the server refuses" if code >= 500 else "the server can't now")
    if match is None or int(match[1]) != code // 100:
        return f"{code} to {command}: {said}"
    subject, detail = int(match[2]), int(match[3])
    said = _DETAILS.get(f"{subject}.{detail}", said)
    return f"{code} {code // 100}.{subject}.{detail} to {command}: {said}"
