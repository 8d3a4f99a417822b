"""Legal requests, end to end: nothing without a court order, and the user is told."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.company import Api, Site, eventually
from devtools.servers import MailServer
from tests.e2e.conftest import StartOperator

ORDER = {"court": "Superior Court", "docket": "26-CV-1182", "issuedAt": "2026-11-19"}


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[MailServer]:
    """A mail server that lays what it takes into a Maildir."""
    with MailServer(tmp_path / "mail") as running:
        yield running


def by_mail(mail: MailServer) -> dict[str, str]:
    return {"LETHE_SMTP_URL": mail.url, "LETHE_MAIL_FROM": "Privacy <privacy@site.example>"}


def decision(api: Api, name: str) -> Any:
    return (api.get("legalrequests", name) or {}).get("status", {}).get("decision")


@pytest.mark.parametrize("level", ["Local", "Federal", "Foreign"])
def test_without_a_court_order_it_is_rejected_and_the_user_notified_in_her_language(
    api: Api, site: Site, mail: MailServer, start_operator: StartOperator, level: str
) -> None:
    (ada,) = site.sign_up("ada@users.example")
    api.sql_store("site", site.url)
    operator = start_operator(**by_mail(mail))
    authority = {"name": "County Sheriff's Office", "level": level, "country": "US"}
    api.legal_request("le-1", ada, authority=authority)
    told = api.wait("legalrequests", "le-1", "UserInformed")
    assert told["status"]["decision"]["outcome"] == "Rejected"
    assert told["status"]["decision"]["reason"] == "NoCourtOrder"
    assert told["status"]["notice"]["state"] == "Sent"
    (delivered,) = mail.messages()
    assert delivered.recipients == ("ada@users.example",)
    message = delivered.message
    assert message["Message-ID"] == told["status"]["notice"]["messageId"]
    text = message.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert message["Content-Language"] == "de"
    assert "22. November 2026" in text
    assert "11:00" in text  # 10:00 UTC, in Zürich
    assert "First-ada Last-ada" in text
    # The answer to the authority is drafted, and nothing in it is about the user.
    api.wait("legalrequests", "le-1", "Ready")
    answer = api.get("secrets", "le-1-answer") or {}
    assert answer["type"] == "lethe.dev/answer"
    drafted = base64.b64decode(answer["data"]["text"]).decode()
    assert "no court order came with it" in drafted
    assert "ada" not in drafted.lower().split()
    assert operator.metric("lethe_legal_requests_total") == 1
    assert operator.metric("lethe_notices") == 1


def test_with_an_order_counsel_decides_and_its_document_is_in_the_ledger(
    api: Api, site: Site, mail: MailServer, start_operator: StartOperator
) -> None:
    (ada,) = site.sign_up("ada@users.example")
    api.sql_store("site", site.url)
    start_operator(**by_mail(mail))
    order = {**ORDER, "documentSecretRef": {"name": "order", "key": "order.pdf"}}
    api.legal_request("le-1", ada, courtOrder=order)
    api.wait_reason("legalrequests", "le-1", "DocumentMissing")
    assert decision(api, "le-1")["outcome"] == "AwaitingReview"
    review = {"review": {"decision": "Comply", "reviewer": "counsel"}}
    api.patch_spec("legalrequests", "le-1", review)
    api.secret("order", {"order.pdf": b"%PDF the order"})
    complied = api.wait("legalrequests", "le-1", "Decided")
    digest = hashlib.sha256(b"%PDF the order").hexdigest()
    assert complied["status"]["document"]["digest"] == f"sha256:{digest}"
    assert decision(api, "le-1")["outcome"] == "Complied"
    api.wait("legalrequests", "le-1", "UserInformed")
    assert len(mail.messages()) == 1


def test_a_held_person_is_not_erased_until_the_hold_is_lifted_and_everybody_else_is(
    api: Api, site: Site, start_operator: StartOperator
) -> None:
    ada, bob = site.sign_up("ada@users.example", "bob@users.example")
    api.sql_store("site", site.url)
    start_operator()
    api.wait("datastores", "site", "SafeToServe")
    api.legal_request("le-1", ada, type="Preservation", preservation={})
    api.wait("legalrequests", "le-1", "Holding")
    api.request_by_email("ada", "ada@users.example")
    api.request_by_id("bob", bob)
    api.wait("deletionrequests", "bob", "Erased")
    held = api.wait("deletionrequests", "ada", "Held")
    assert held["status"]["state"] == "Held"
    assert site.is_intact(ada)
    lifted = {"preservation": {"lifted": {"because": "the case was closed"}}}
    api.patch_spec("legalrequests", "le-1", lifted)
    api.wait("deletionrequests", "ada", "Erased")
    assert site.is_cleared(ada)
    assert api.condition("legalrequests", "le-1", "Holding")["reason"] == "Lifted"


def test_under_a_gag_nothing_shows_that_a_person_is_held(
    api: Api, site: Site, mail: MailServer, start_operator: StartOperator
) -> None:
    ada, _ = site.sign_up("ada@users.example", "bob@users.example")
    api.sql_store("site", site.url)
    start_operator(**by_mail(mail))
    api.wait("datastores", "site", "SafeToServe")
    gag = {"legalBasis": "18 U.S.C. 2705(b)"}
    api.legal_request("le-1", ada, type="Preservation", preservation={}, nonDisclosure=gag)
    api.wait("legalrequests", "le-1", "Holding")
    api.request_by_id("ada", ada)

    def pending() -> bool:
        status = (api.get("deletionrequests", "ada") or {}).get("status", {})
        return bool(status.get("state") == "Pending" and status.get("acceptedAt"))

    eventually(pending, "the request to be Pending")
    shown = str((api.get("deletionrequests", "ada") or {})["status"]).lower()
    assert "legal" not in shown
    assert "le-1" not in shown
    assert api.condition("deletionrequests", "ada", "Held")["status"] == "Unknown"
    assert site.is_intact(ada)
    assert mail.messages() == []
    assert api.condition("legalrequests", "le-1", "UserInformed")["reason"] == "Deferred"
    lifted = {"nonDisclosure": {"lifted": {"because": "the order was vacated"}}}
    api.patch_spec("legalrequests", "le-1", lifted)
    api.wait("legalrequests", "le-1", "UserInformed")
    assert len(mail.messages()) == 1
    api.wait("deletionrequests", "ada", "Held")
