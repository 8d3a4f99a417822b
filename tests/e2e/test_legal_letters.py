"""How letters about legal requests leave: one notice each, whatever mail servers do; answers; templates."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from devtools.company import Api, Site, eventually
from devtools.servers import MailServer
from devtools.servers.controlplane import ControlPlane
from tests.adapters.notices.receiver import Receiver
from tests.e2e.conftest import StartOperator
from tests.e2e.notices import (
    by_mail,
    events,
    message_ids,
    notice,
    plain_text,
    wait_informed,
    wait_messages,
    wait_metric,
)
from tests.e2e.set_clocks import ClockedOperator

pytestmark = pytest.mark.e2e

WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"the secret of this webhook, 32 b").decode()


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[MailServer]:
    """A mail server that lays what it takes into a Maildir."""
    with MailServer(tmp_path / "mail") as running:
        yield running


def test_a_server_that_puts_off_or_cuts_gets_the_same_letter_again_and_one_arrives(
    api: Api, site: Site, mail: MailServer, start_operator: StartOperator
) -> None:
    ada, bob = site.sign_up("ada@users.example", "bob@users.example")
    mail.refuse("ada@users.example", 451, at="DATA")
    mail.cut_after_data("bob@users.example")
    api.sql_store("site", site.url)
    operator = start_operator(**by_mail(mail))
    api.legal_request("le-ada", ada)
    api.legal_request("le-bob", bob)
    assert "tried again" in wait_informed(api, "le-ada", "Pending", "451")
    intended = notice(api, "le-ada")["messageId"]
    # Each time that bob's is taken the operator hears of nothing but a broken connection.
    wait_messages(mail, 2)
    wait_informed(api, "le-bob", "Pending", "connection")
    operator.kill9()
    operator.start()
    wait_messages(mail, 3)
    for address in ("ada@users.example", "bob@users.example"):
        mail.accept(address)
    for name in ("le-ada", "le-bob"):
        wait_informed(api, name, "Sent")
    of_ada = [one for one in mail.messages() if one.recipients == ("ada@users.example",)]
    of_bob = [one for one in mail.messages() if one.recipients == ("bob@users.example",)]
    assert [one.message["Message-ID"] for one in of_ada] == [intended]
    assert len(of_bob) >= 3
    assert {one.message["Message-ID"] for one in of_bob} == {notice(api, "le-bob")["messageId"]}
    assert len({one.raw for one in of_bob}) == 1
    assert len(of_ada) + len(of_bob) == len(mail.messages())


def test_a_sender_who_is_refused_costs_no_notice(
    api: Api, site: Site, mail: MailServer, start_operator: StartOperator
) -> None:
    """However servers say it: of the letter's sender, or where a recipient stands."""
    refusals: Mapping[str, tuple[Literal["DATA", "RCPT", "MAIL"], int, str, str]] = {
        "ada": ("DATA", 550, "5.7.60 no permissions to send as this sender", "550 5.7.60 to DATA"),
        "bob": ("DATA", 554, "Message rejected: Email address is not verified.", "554 to DATA"),
        "cleo": ("RCPT", 550, "5.7.1 Unable to relay", "550 5.7.1 to RCPT"),
        "privacy": ("MAIL", 553, "5.7.1 <privacy@site.example>: not owned by user", "553 5.7.1 to MAIL"),
    }
    people = dict(zip(refusals, site.sign_up(*(f"{name}@site.example" for name in refusals)), strict=True))
    api.sql_store("site", site.url)
    start_operator(**by_mail(mail))
    intended = set[str]()
    of_recipients = [name for name, refused in refusals.items() if refused[0] != "MAIL"]
    for names in (of_recipients, ["privacy"]):  # the sender of all, once the others' letters are there
        for name in names:
            command, code, text, _ = refusals[name]
            mail.refuse(f"{name}@site.example", code, at=command, text=text)
            api.legal_request(name, people[name])
        for name in names:
            assert "LETHE_MAIL_FROM" in wait_informed(api, name, "Pending", refusals[name][3])
            intended.add(notice(api, name)["messageId"])
            mail.accept(f"{name}@site.example")
        for name in names:
            wait_informed(api, name, "Sent")
    assert sorted(message_ids(mail)) == sorted(intended)
    assert len(intended) == len(refusals)


def test_a_refused_address_is_said_with_the_code_and_another_one_is_told_once(
    api: Api, site: Site, mail: MailServer, start_operator: StartOperator
) -> None:
    (ada,) = site.sign_up("ada@users.example")
    mail.refuse("ada@users.example", 550, text="5.1.1 <ada@users.example>: no such user")
    api.sql_store("site", site.url)
    operator = start_operator(**by_mail(mail))
    api.legal_request("le-1", ada)
    lost = api.wait_reason("legalrequests", "le-1", "NoticeUndeliverable")
    assert lost["status"]["notice"]["state"] == "Undeliverable"
    assert api.condition("legalrequests", "le-1", "Stalled")["status"] == "True"
    assert "550 5.1.1 to RCPT: no such mailbox" in wait_informed(api, "le-1", "Undeliverable")
    assert "550" in events(api, "NoticeUndeliverable")[0]["note"]
    assert "ada@" not in str(lost["status"])
    first = notice(api, "le-1")["messageId"]
    # The same address is not tried again, also not by an operator that was started anew.
    operator.stop()
    operator.start()
    wait_metric(operator, 'lethe_notices{state="Undeliverable"}', 1)
    site.sql("UPDATE users SET email = 'ada@elsewhere.example' WHERE id = %s", ada)
    operator.stop()
    operator.start()
    wait_informed(api, "le-1", "Sent")
    (told,) = mail.messages()
    assert told.recipients == ("ada@elsewhere.example",)
    assert told.message["Message-ID"] == notice(api, "le-1")["messageId"] != first
    assert api.wait("legalrequests", "le-1", "Ready")["status"]["notice"]["state"] == "Sent"
    wait_metric(operator, 'lethe_notices{state="Sent"}', 1)
    assert [command for one in mail.conversations() for command in one].count("RCPT") == 2


def test_what_keeps_a_notice_is_said_with_the_setting_to_look_at_and_then_it_goes(
    api: Api, site: Site, tmp_path: Path, start_operator: StartOperator
) -> None:
    (ada,) = site.sign_up("ada@users.example")
    api.sql_store("site", site.url)
    api.legal_request("le-1", ada)
    operator = start_operator()
    said = wait_informed(api, "le-1", "Pending", "no way to send it is set")
    assert "LETHE_SMTP_URL and LETHE_MAIL_FROM, or LETHE_WEBHOOK_URL and LETHE_WEBHOOK_SECRET" in said
    operator.stop()
    server = MailServer(tmp_path / "mail", users={"lethe": "the right one"})
    with server:
        sender = {"LETHE_MAIL_FROM": "privacy@site.example"}
        operator = start_operator(LETHE_SMTP_URL=server.url_for("lethe", "a wrong one"), **sender)
        said = wait_informed(api, "le-1", "Pending", "535")
        assert "correct user and password in LETHE_SMTP_URL" in said
        assert "wrong" not in said
        operator.stop()
        assert "a wrong one" not in operator.log.read_text()
        assert "a%20wrong%20one" not in operator.log.read_text()
        server.stop()
        operator = start_operator(LETHE_SMTP_URL=server.url, **sender)
        said = wait_informed(api, "le-1", "Pending", "can't be reached")
        assert "LETHE_SMTP_URL" in said
        assert not {"right", str(server.port), "127.0.0.1"} & {*said.replace(":", " ").split()}
        server.start()
        wait_informed(api, "le-1", "Sent")
        assert message_ids(server) == [notice(api, "le-1")["messageId"]]
        assert "right one" not in operator.log.read_text()


def test_a_shop_without_mail_is_told_by_a_signed_webhook(
    api: Api, site: Site, tmp_path: Path, start_operator: StartOperator
) -> None:
    (ada,) = site.sign_up("ada@users.example")
    api.sql_store("site", site.url)
    with Receiver(tmp_path, WEBHOOK_SECRET) as receiver:
        receiver.answer("ada@users.example", 503)
        start_operator(LETHE_WEBHOOK_URL=receiver.url, LETHE_WEBHOOK_SECRET=WEBHOOK_SECRET)
        api.legal_request("le-1", ada)
        wait_informed(api, "le-1", "Pending", "503")
        receiver.answers.clear()
        wait_informed(api, "le-1", "Sent")
        (event,) = receiver.events
        assert event["data"]["to"] == "ada@users.example"
        assert event["data"]["language"] == "de"
        assert f"<{event['data']['messageId']}>" == notice(api, "le-1")["messageId"]
        assert receiver.headers[0]["webhook-id"] == event["data"]["messageId"]


def test_a_pile_of_manifests_mails_no_more_users_an_hour_than_set_across_a_restart(
    api: Api, site: Site, mail: MailServer, start_operator: StartOperator
) -> None:
    keys = site.sign_up(*(f"user-{number}@users.example" for number in range(5)))
    api.sql_store("site", site.url)
    operator = start_operator(**by_mail(mail), LETHE_NOTICES_PER_HOUR="2")
    for key in keys:
        api.legal_request(f"le-{key}", key)

    def reasons() -> list[str]:
        told = [api.condition("legalrequests", f"le-{key}", "UserInformed") for key in keys]
        waiting = [one for one in told if "LETHE_NOTICES_PER_HOUR" in one.get("message", "")]
        assert all(one["message"].startswith("2 notices an hour") for one in waiting)
        return sorted(one.get("reason", "") if one not in waiting else "Waits" for one in told)

    eventually(lambda: reasons() == ["Sent", "Sent", "Waits", "Waits", "Waits"], lambda: str(reasons()))
    operator.kill9()
    operator.start()
    wait_metric(operator, 'lethe_notices{state="Pending"}', 3)
    assert reasons() == ["Sent", "Sent", "Waits", "Waits", "Waits"]
    assert len(mail.messages()) == 2


def test_a_letter_that_is_tried_again_counts_once_for_the_hour(
    api: Api, site: Site, mail: MailServer, start_operator: StartOperator
) -> None:
    ada, bob = site.sign_up("ada@users.example", "bob@users.example")
    mail.refuse("ada@users.example", 451)
    api.sql_store("site", site.url)
    start_operator(**by_mail(mail), LETHE_NOTICES_PER_HOUR="1")
    api.legal_request("le-ada", ada)
    wait_informed(api, "le-ada", "Pending", "451")
    api.legal_request("le-bob", bob)
    wait_informed(api, "le-bob", "Pending", "LETHE_NOTICES_PER_HOUR")
    mail.accept("ada@users.example")
    wait_informed(api, "le-ada", "Sent")
    assert [one.recipients for one in mail.messages()] == [("ada@users.example",)]


def test_notices_of_a_clock_that_was_ahead_keep_no_others_back_once_it_is_set_right(
    api: Api, site: Site, mail: MailServer, tmp_path: Path, control_plane: ControlPlane
) -> None:
    ada, bob = site.sign_up("ada@users.example", "bob@users.example")
    api.sql_store("site", site.url)
    settings = {**by_mail(mail), "LETHE_NOTICES_PER_HOUR": "1"}
    with ClockedOperator(tmp_path / "operator", control_plane, api.namespace, settings) as operator:
        operator.set(host=timedelta(days=900), server=timedelta(days=900))
        operator.start()
        api.legal_request("le-ada", ada)
        wait_informed(api, "le-ada", "Sent")
        operator.restart_in(timedelta(0))
        api.legal_request("le-bob", bob)
        wait_informed(api, "le-bob", "Sent")


def test_the_authority_is_answered_by_mail_or_by_a_draft_that_overwrites_nothing(
    api: Api, site: Site, mail: MailServer, start_operator: StartOperator
) -> None:
    (ada,) = site.sign_up("ada@users.example")
    api.sql_store("site", site.url)
    start_operator(**by_mail(mail))
    authority = {"name": "County Sheriff's Office", "level": "Local", "country": "US"}
    contact = {"contactSecretRef": {"name": "sheriff", "key": "email"}}
    api.secret("le-2-answer", {"text": "somebody else's"}, "lethe.dev/answer")
    api.legal_request("le-1", ada, authority={**authority, **contact})
    api.legal_request("le-2", ada)
    api.legal_request("le-3", ada)
    assert _draft(api, "le-3") is not None
    waits = api.wait_reason("legalrequests", "le-2", "AnswerPending")
    assert "Secret le-2-answer exists and holds something else; rename it" in str(waits["status"])
    assert _text(api.get("secrets", "le-2-answer")) == "somebody else's"
    waits = api.wait_reason("legalrequests", "le-1", "AnswerPending")
    assert "Secret sheriff does not exist" in str(waits["status"])

    api.secret("sheriff", {"email": "records@sheriff.example"})
    answered = api.wait("legalrequests", "le-1", "Ready")
    (letter,) = [one for one in mail.messages() if one.recipients == ("records@sheriff.example",)]
    assert answered["status"]["answer"]["state"] == "Sent"
    assert letter.message["Message-ID"] == answered["status"]["answer"]["messageId"]
    assert "no court order" in plain_text(letter)
    assert "CSO-55-2026" in plain_text(letter)
    assert not {"ada", "first-ada", "4711"} & {*plain_text(letter).lower().split()}
    assert api.get("secrets", "le-1-answer") is None
    assert "records@sheriff.example" not in str(answered)

    api.delete("secrets", "le-2-answer")
    api.wait("legalrequests", "le-2", "Ready")
    assert _text(api.get("secrets", "le-2-answer")) == _text(_draft(api, "le-3"))
    assert len(mail.messages()) == 4  # three notices and one answer


def _draft(api: Api, name: str) -> dict[str, Any] | None:
    answered = api.wait("legalrequests", name, "Ready")["status"]["answer"]
    assert answered == {"state": "Drafted", "secret": f"{name}-answer"}
    return api.get("secrets", f"{name}-answer")


def _text(secret: dict[str, Any] | None) -> str:
    assert secret is not None
    return base64.b64decode(secret["data"]["text"]).decode()


def test_a_template_of_ones_own_wins_over_the_packaged_one(
    api: Api, site: Site, mail: MailServer, tmp_path: Path, start_operator: StartOperator
) -> None:
    (ada,) = site.sign_up("ada@users.example")
    templates = tmp_path / "templates"
    templates.mkdir()
    greeting = "Guten Tag{% if name %} {{ name }}{% endif %}, {{ authority }} hat gefragt.\n"
    ours = f"Subject: Anfrage zu Ihrem Konto bei uns\n\n{greeting}"
    (templates / "user.de.txt").write_text(ours)
    api.sql_store("site", site.url)
    start_operator(**by_mail(mail), LETHE_TEMPLATES_DIR=str(templates))
    api.legal_request("le-1", ada)
    wait_informed(api, "le-1", "Sent")
    (told,) = mail.messages()
    assert told.message["Subject"] == "Anfrage zu Ihrem Konto bei uns"
    assert "Guten Tag First-ada Last-ada, County Sheriff's Office hat gefragt." in plain_text(told)
