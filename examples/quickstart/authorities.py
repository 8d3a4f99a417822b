"""The chapters in which authorities ask: nothing without a court order, and the user is told."""

import json
import textwrap
from datetime import UTC, datetime, timedelta
from typing import Any

from devtools.servers.mail import Delivered
from examples.quickstart.looking import SiteSight
from examples.quickstart.people import Person
from examples.quickstart.stage import NAMESPACE, Stage, restart_later
from examples.quickstart.telling import Account, heading, say
from lethe.domain.legal import day_ends

HERE = "examples/quickstart/legal"
K = f"kubectl -n {NAMESPACE}"
REJECTED, GAGGED = 5530, 5509
ZONE = "America/New_York"


def authorities_ask(stage: Stage, account: Account, told_at_once: Person, told_later: Person) -> None:
    """Tell of a request without a court order, and of one about which the user must not be told yet."""
    heading("7  A sheriff asks for a user's data, and has no court order")
    run = stage.shell.run
    # It came after the restore: what a key meant before it is in doubt, and nobody is told on a guess.
    stage.shell.environment["NOW"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    run(f'sed "s|2026-11-22T10:00:00Z|$NOW|" {HERE}/rejected.yaml | kubectl apply --server-side -f -')
    run(f"{K} wait --for=condition=UserInformed lreq/le-2026-0106 --timeout=60s")
    run(f"{K} get lreq")
    mails = stage.mail.messages()
    say("The mail that the user got:")
    for mail in mails:
        _show(mail)
    status = _status(stage, "lreq", "le-2026-0106")
    account.claim(
        "Without a court order a request is rejected at once, and the user is told, in her own language",
        status["decision"]["reason"] == "NoCourtOrder"
        and [mail.recipients for mail in mails] == [(told_at_once.email,)]
        and mails[0].message["Content-Language"] == "de",
        "one mail, in German, with the time in Zürich",
    )
    say("The answer to the sheriff, as a draft:")
    run(f"{K} get secret le-2026-0106-answer -o jsonpath='{{.data.text}}' | base64 -d | grep -A4 rejected")

    heading("8  Another one comes with an order that forbids to tell the user for three months")
    until = (datetime.now(UTC) + timedelta(days=90)).date()
    stage.shell.environment["UNTIL"] = until.isoformat()
    run(
        f'sed "s|2027-02-20|$UNTIL|; s|2026-11-22T11:00:00Z|$NOW|" {HERE}/under-a-gag.yaml'
        " | kubectl apply --server-side -f -"
        f" && {K} wait --for=condition=Ready lreq/le-2026-0107 --timeout=60s"
    )
    say("She knows nothing of it, and asks to be forgotten:")
    run(f"kubectl apply --server-side -f {HERE}/erased-meanwhile.yaml")
    run(f"{K} wait --for=condition=Erased dreq/support-48220 --timeout=60s")
    run(f"{K} get lreq")
    shown = json.dumps(_status(stage, "dreq", "support-48220"))
    due = _status(stage, "lreq", "le-2026-0107")["notice"]["dueAt"]
    account.claim(
        "While an order forbids it nobody is told, and nothing that the subject may see gives it away",
        len(stage.mail.messages()) == len(mails)
        and "le-2026-0107" not in shown
        and SiteSight(stage.site_url).erased([GAGGED]),
        f"Deferred until {due}; she was erased meanwhile",
    )
    stage.operator.stop()
    say("The operator is stopped, and started again when that day has ended in New York (the demo turns both")
    say("clocks that Lethe reads, this host's and the API server's).")
    restart_later(stage, day_ends(until, ZONE) - datetime.now(UTC) + timedelta(minutes=1))
    run(f"{K} wait --for=condition=UserInformed lreq/le-2026-0107 --timeout=60s")
    run(f"{K} get lreq")
    late = stage.mail.messages()[len(mails) :]
    for mail in late:
        _show(mail)
    account.claim(
        "When the order had lapsed the notice reached her, once, at the address that the site no longer has",
        [mail.recipients for mail in late] == [(told_later.email,)]
        and late[0].message["Content-Language"] == "fr",
        "from what was sealed in the ledger for exactly that, and is destroyed now",
    )


def _show(mail: Delivered) -> None:
    message = mail.message
    for name in ("From", "To", "Subject", "Message-ID", "Content-Language"):
        say(f"  {name}: {message[name]}")
    body = message.get_body(("plain",))
    text = body.get_content() if body is not None else ""
    say(textwrap.indent(text.strip()[:900], "  | "))
    say("  | …")


def _status(stage: Stage, kind: str, name: str) -> Any:
    return json.loads(stage.shell.ask(f"{K} get {kind} {name} -o json"))["status"]
