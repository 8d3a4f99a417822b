"""What tests of notices look at: conditions, events, and the ledger's files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

from devtools.company import Api, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers import MailServer
from devtools.servers.mail import Delivered

NEW_YORK = "America/New_York"
LEGAL_BASIS = "18 U.S.C. 2705(b)"


def by_mail(mail: MailServer) -> dict[str, str]:
    """Return the settings of an operator that sends by this server."""
    return {"LETHE_SMTP_URL": mail.url, "LETHE_MAIL_FROM": "Privacy <privacy@site.example>"}


def gag(until: date | None = None) -> dict[str, str]:
    """Return an order not to tell the user; `None`: until a person lifts it."""
    day = {} if until is None else {"until": until.isoformat(), "timeZone": NEW_YORK}
    return {"legalBasis": LEGAL_BASIS, **day}


LIFTED = {"nonDisclosure": {"lifted": {"because": "the order was vacated"}}}


def notice(api: Api, name: str) -> dict[str, Any]:
    """Return what the status says of the notice."""
    return dict((api.get("legalrequests", name) or {}).get("status", {}).get("notice") or {})


def wait_informed(api: Api, name: str, reason: str, saying: str = "", *, patience: float = 60) -> str:
    """Wait until `UserInformed` has a reason, and its message holds something; return the message."""

    def told() -> dict[str, Any]:
        return api.condition("legalrequests", name, "UserInformed")

    def met() -> bool:
        return told().get("reason") == reason and saying in told().get("message", "")

    eventually(met, lambda: f"{name} {reason} {saying}; it is {api.get('legalrequests', name)}", patience)
    return str(told()["message"])


def instant(text: str) -> datetime:
    """Return an instant of a status."""
    return datetime.fromisoformat(text)


def events(api: Api, reason: str) -> list[dict[str, Any]]:
    """Return the events of the namespace that have a reason."""
    found = api.call("GET", f"/apis/events.k8s.io/v1/namespaces/{api.namespace}/events")[1]
    return [event for event in found["items"] if event["reason"] == reason]


def wait_metric(operator: OperatorProcess, sample: str, value: float) -> None:
    """Wait until a sample (`name{label="…"}`) of the operator's metrics has a value.

    Those of notices are measured at the end of a turn, so whatever was due in it has been begun.
    """

    def measured() -> float | None:
        for line in operator.page("metrics").splitlines():
            name, _, told = line.rpartition(" ")
            if name == sample:
                return float(told)
        return None

    eventually(lambda: measured() == value, lambda: f"{sample} {value}; it is {measured()}")


def plain_text(delivered: Delivered) -> str:
    """Return the text part of a message."""
    body = delivered.message.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def wait_messages(mail: MailServer, count: int) -> list[Delivered]:
    """Wait until so many messages lie in the Maildir; return them."""
    eventually(lambda: len(mail.messages()) >= count, f"{count} messages", 60)
    return mail.messages()


def message_ids(mail: MailServer) -> list[str]:
    """Return the Message-ID of each message that the server took."""
    return [str(one.message["Message-ID"]) for one in mail.messages()]


def sealed_addresses(operator: OperatorProcess) -> list[bytes]:
    """Return the ciphertexts that the ledger keeps for notices."""
    with sqlite3.connect(operator.ledger) as connection:
        found = [row[0] for row in connection.execute("SELECT ciphertext FROM sealed_legal")]
    connection.close()
    return found


def files_that_hold(folder: Path, is_in: Callable[[bytes], object]) -> list[str]:
    """Return the names of the files below a folder whose bytes hold something."""
    return [file.name for file in folder.rglob("*") if file.is_file() and is_in(file.read_bytes())]
