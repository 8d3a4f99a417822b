"""When users are told of a legal request, and who: gags, clocks, erasures, and persons that nobody knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from devtools.company import Api, Site, eventually
from devtools.servers import MailServer
from devtools.servers.controlplane import ControlPlane
from tests.e2e.notices import (
    LIFTED,
    NEW_YORK,
    by_mail,
    events,
    files_that_hold,
    gag,
    instant,
    message_ids,
    notice,
    plain_text,
    sealed_addresses,
    wait_informed,
    wait_messages,
    wait_metric,
)
from tests.e2e.set_clocks import ClockedOperator

pytestmark = pytest.mark.e2e

DEFERRED = 'lethe_notices{state="Deferred"}'
DAY = timedelta(days=1)
Clocked = Callable[..., ClockedOperator]


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[MailServer]:
    """A mail server that lays what it takes into a Maildir."""
    with MailServer(tmp_path / "mail") as running:
        yield running


@pytest.fixture
def operator(
    tmp_path: Path, control_plane: ControlPlane, namespace: str, mail: MailServer
) -> Iterator[ClockedOperator]:
    """An operator with clocks to set that sends by mail, ready."""
    settings = by_mail(mail)
    with ClockedOperator(tmp_path / "operator", control_plane, namespace, settings) as process:
        process.start()
        yield process


def in_new_york(days: int) -> date:
    """Return the day that it is in New York so many days from now."""
    return (datetime.now(ZoneInfo(NEW_YORK)) + timedelta(days=days)).date()


def until_the_end_of(day: date) -> timedelta:
    """Return how far from now a day has ended in New York."""
    return datetime.combine(day + DAY, datetime.min.time(), ZoneInfo(NEW_YORK)) - datetime.now(UTC)


def killed_and_started_in(operator: ClockedOperator, later: timedelta) -> None:
    """Let the power fail, and come back later: all clocks agree."""
    operator.kill9()
    operator.set(host=later, server=later)
    operator.start()


def test_a_gag_defers_the_notice_until_its_day_ended_there_through_kills_and_months(
    api: Api, site: Site, mail: MailServer, operator: ClockedOperator
) -> None:
    (ada,) = site.sign_up("ada@users.example")
    api.sql_store("site", site.url)
    first, last = in_new_york(60), in_new_york(100)
    api.legal_request("le-1", ada, nonDisclosure=gag(first))
    wait_informed(api, "le-1", "Deferred")
    assert api.condition("legalrequests", "le-1", "Decided")["reason"] == "Rejected"
    assert api.patch_spec("legalrequests", "le-1", {"nonDisclosure": gag(last)})[0] == 200
    ends = datetime.now(UTC) + until_the_end_of(last)
    eventually(
        lambda: abs(instant(notice(api, "le-1")["dueAt"]) - ends) < timedelta(seconds=9),
        lambda: f"the day to be moved; it is {notice(api, 'le-1')}",
    )
    killed_and_started_in(operator, until_the_end_of(first) + DAY)
    wait_metric(operator, DEFERRED, 1)
    # What a person deletes and applies anew takes nothing back.
    for weaker in ({"nonDisclosure": gag(first)}, {}):
        api.delete("legalrequests", "le-1")
        api.legal_request("le-1", ada, **weaker)
        wait_informed(api, "le-1", "Deferred")
        assert abs(instant(notice(api, "le-1")["dueAt"]) - ends) < timedelta(seconds=9)
    assert mail.messages() == []

    killed_and_started_in(operator, until_the_end_of(last) - timedelta(seconds=10))
    wait_informed(api, "le-1", "Sent")
    assert instant(notice(api, "le-1")["sentAt"]) >= instant(notice(api, "le-1")["dueAt"])
    (told,) = mail.messages()
    assert told.recipients == ("ada@users.example",)
    assert told.message["Message-ID"] == notice(api, "le-1")["messageId"]
    assert "18 U.S.C. 2705(b)" in plain_text(told)
    killed_and_started_in(operator, until_the_end_of(last) + DAY)
    wait_metric(operator, 'lethe_notices{state="Sent"}', 1)
    assert len(mail.messages()) == 1


def test_a_gag_lapses_only_when_two_clocks_agree(
    api: Api, site: Site, mail: MailServer, operator: ClockedOperator
) -> None:
    (ada,) = site.sign_up("ada@users.example")
    api.sql_store("site", site.url)
    api.legal_request("le-1", ada, nonDisclosure=gag(in_new_york(3)))
    wait_informed(api, "le-1", "Deferred")
    operator.kill9()
    operator.set(host=5 * DAY)
    operator.start()
    said = wait_informed(api, "le-1", "Pending", "by this host's clock only")
    assert "the API server says" in said
    wait_metric(operator, 'lethe_notices{state="Pending"}', 1)
    assert mail.messages() == []
    operator.set(host=5 * DAY, server=5 * DAY)
    wait_informed(api, "le-1", "Sent")
    assert len(mail.messages()) == 1


def test_an_order_without_a_day_waits_for_a_person_who_is_reminded_each_month(
    api: Api, site: Site, mail: MailServer, operator: ClockedOperator
) -> None:
    (ada,) = site.sign_up("ada@users.example")
    api.sql_store("site", site.url)
    api.legal_request("le-1", ada, nonDisclosure=gag())
    assert "once a person sets" in wait_informed(api, "le-1", "Deferred")
    assert "dueAt" not in notice(api, "le-1")
    wait_metric(operator, "lethe_notices_without_end", 1)
    assert events(api, "NoticeStillDeferred") == []
    reminded = [1, 1, 2]
    for days, reminders in zip((32, 33, 65), reminded, strict=True):
        killed_and_started_in(operator, days * DAY)
        wait_metric(operator, "lethe_notices_without_end", 1)
        eventually(
            lambda count=reminders: len(events(api, "NoticeStillDeferred")) == count,  # type: ignore[misc]
            lambda: f"a reminder each month; there are {len(events(api, 'NoticeStillDeferred'))}",
        )
    (one, _) = events(api, "NoticeStillDeferred")
    assert (one["type"], one["regarding"]["name"]) == ("Warning", "le-1")
    assert "spec.nonDisclosure.lifted" in one["note"]
    killed_and_started_in(operator, 2000 * DAY)
    wait_metric(operator, DEFERRED, 1)
    assert mail.messages() == []
    api.patch_spec("legalrequests", "le-1", LIFTED)
    wait_informed(api, "le-1", "Sent")
    assert len(mail.messages()) == 1
    wait_metric(operator, "lethe_notices_without_end", 0)


def test_who_is_erased_meanwhile_is_notified_and_the_kept_address_is_destroyed(
    api: Api, site: Site, mail: MailServer, operator: ClockedOperator
) -> None:
    ada, bob = site.sign_up("ada@users.example", "bob@users.example")
    api.sql_store("site", site.url)
    api.legal_request("le-1", ada, nonDisclosure=gag(in_new_york(90)))
    api.legal_request("le-2", bob, nonDisclosure=gag())
    wait_informed(api, "le-1", "Deferred")
    api.request_by_id("ada", ada)
    api.request_by_email("bob", "bob@users.example")
    for name in ("ada", "bob"):
        api.wait("deletionrequests", name, "Erased")
    assert site.is_cleared(ada)
    assert site.is_cleared(bob)
    assert mail.messages() == []
    kept = sealed_addresses(operator)
    assert len(kept) == 2
    killed_and_started_in(operator, until_the_end_of(in_new_york(90)) + DAY)
    wait_informed(api, "le-1", "Sent")
    api.patch_spec("legalrequests", "le-2", LIFTED)
    wait_informed(api, "le-2", "Sent")
    messages = mail.messages()
    assert [one.recipients for one in messages] == [("ada@users.example",), ("bob@users.example",)]
    for told, name in zip(messages, ("ada", "bob"), strict=True):
        assert told.message["Content-Language"] == "de"
        assert f"First-{name} Last-{name}" in plain_text(told)
    # What the address was kept for is done: neither it nor its ciphertext is anywhere any more.
    assert sealed_addresses(operator) == []
    for trace in (*kept, b"ada@users.example", b"bob@users.example", b"First-ada"):
        assert files_that_hold(operator.directory, lambda file, what=trace: what in file) == []  # type: ignore[misc]
    operator.stop()
    for trace in kept:
        assert files_that_hold(operator.directory, lambda file, what=trace: what in file) == []  # type: ignore[misc]


def test_whom_nobody_can_reach_is_said_loudly_and_nobody_else_is_told(
    api: Api, site: Site, mail: MailServer, operator: ClockedOperator
) -> None:
    site.sql("ALTER TABLE users ALTER email DROP NOT NULL")
    ada, bob = site.sign_up("ada@users.example", "bob@users.example")
    site.sql("UPDATE users SET email = NULL WHERE id = %s", ada)
    api.sql_store("site", site.url)
    api.request_by_id("bob", bob)
    api.wait("deletionrequests", "bob", "Erased")
    api.legal_request("le-ada", ada)
    api.legal_request("le-bob", bob)
    api.legal_request("le-nobody", 4711)
    for name, tried in (("le-ada", "holds no e-mail address"), ("le-bob", "was erased from DataStore site")):
        lost = api.wait_reason("legalrequests", name, "NoticeUndeliverable")
        assert lost["status"]["notice"]["state"] == "Undeliverable"
        assert api.condition("legalrequests", name, "Stalled")["status"] == "True"
        assert tried in wait_informed(api, name, "Undeliverable")
    api.wait_reason("legalrequests", "le-nobody", "SubjectUnknown")
    wait_informed(api, "le-nobody", "Undeliverable")
    warned = {(event["regarding"]["name"], event["reason"], event["type"]) for event in _loud(api)}
    assert warned == {
        ("le-ada", "NoticeUndeliverable", "Warning"),
        ("le-bob", "NoticeUndeliverable", "Warning"),
        ("le-nobody", "SubjectUnknown", "Warning"),
    }
    wait_metric(operator, 'lethe_notices{state="Undeliverable"}', 3)
    # Somebody who signs up later is somebody else, under whatever key.
    site.sign_up("cleo@users.example")
    site.sql("SELECT setval('users_id_seq', 4710)")
    assert site.sign_up("dora@users.example") == [4711]
    killed_and_started_in(operator, timedelta(hours=2))
    eve, *_ = site.sign_up("eve@users.example")
    api.legal_request("le-eve", eve)
    wait_informed(api, "le-eve", "Sent")
    assert [one.recipients for one in wait_messages(mail, 1)] == [("eve@users.example",)]
    wait_metric(operator, 'lethe_notices{state="Undeliverable"}', 3)


def _loud(api: Api) -> list[dict[str, Any]]:
    return [*events(api, "NoticeUndeliverable"), *events(api, "SubjectUnknown")]


def test_a_person_named_by_a_secret_is_one_request_however_often_it_is_applied(
    api: Api, site: Site, mail: MailServer, operator: ClockedOperator
) -> None:
    site.sign_up("ada@users.example", "bob@users.example")
    api.sql_store("site", site.url)
    subject = {"identifierSecretRef": {"name": "who", "key": "email"}}

    def apply(email: str | None) -> None:
        api.delete("legalrequests", "le-1")
        if email is not None:
            api.secret("who", {"email": email}, "lethe.dev/identifier")
        api.legal_request("le-1", None, subject=subject)

    apply("ada@users.example")
    wait_informed(api, "le-1", "Sent")
    sequence = _ledger(api)
    eventually(lambda: api.get("secrets", "who") is None, "the Secret to be sealed and deleted")
    for email in (None, "Ada@Users.example"):
        apply(email)
        wait_informed(api, "le-1", "Sent")
        assert _ledger(api) == sequence
        eventually(lambda: api.get("secrets", "who") is None, "the Secret to be deleted again")
    apply("bob@users.example")
    reused = api.wait_reason("legalrequests", "le-1", "NameReused")
    assert "another person" in str(reused["status"])
    assert "notice" not in reused["status"]
    assert api.get("secrets", "who") is not None
    assert [one.recipients for one in mail.messages()] == [("ada@users.example",)]


def _ledger(api: Api) -> object:
    status = (api.get("legalrequests", "le-1") or {})["status"]
    return status["ledger"]["digest"], status["notice"]["messageId"]


def test_an_order_after_a_rejection_reopens_it_and_the_user_is_notified_once_more(
    api: Api, site: Site, mail: MailServer, operator: ClockedOperator
) -> None:
    (ada,) = site.sign_up("ada@users.example")
    api.sql_store("site", site.url)
    api.legal_request("le-1", ada)
    api.wait("legalrequests", "le-1", "Ready")
    first = notice(api, "le-1")["messageId"]
    order = {"court": "Superior Court", "docket": "26-CV-1182", "issuedAt": "2026-11-19"}
    api.patch_spec("legalrequests", "le-1", {"courtOrder": order})
    wait_messages(mail, 2)
    wait_informed(api, "le-1", "Sent")
    decided = api.condition("legalrequests", "le-1", "Decided")
    assert (decided["status"], decided["reason"]) == ("False", "AwaitingReview")
    second = notice(api, "le-1")["messageId"]
    assert first != second
    assert message_ids(mail) == [first, second]
    assert "26-CV-1182" in plain_text(mail.messages()[1])
    # What counsel decides is answered, and is no further news for the user.
    api.patch_spec("legalrequests", "le-1", {"review": {"decision": "Refuse"}})
    eventually(lambda: api.get("secrets", "le-1-answer-2") is not None, "the second answer")
    killed_and_started_in(operator, timedelta(0))
    wait_metric(operator, 'lethe_notices{state="Sent"}', 1)
    assert message_ids(mail) == [first, second]
