"""What the receiver of a webhook can rely on, and what it can't make us do."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from devtools.servers.certificates import write_certificates
from lethe.adapters.notices.webhook import WebhookChannel
from lethe.ports.notices import ChannelError, Delivery, DeliveryResult
from tests.adapters.notices.receiver import Receiver
from tests.contracts.notices import letter, message_id

SECRET = "whsec_" + base64.b64encode(b"canary secret of the webhook").decode()
OTHER = "whsec_" + base64.b64encode(b"another secret of the webhook").decode()
SOON = timedelta(seconds=20)
MOMENT = timedelta(milliseconds=500)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with Receiver(tmp_path, SECRET) as running:
        yield running


def test_an_event_is_what_the_standard_says(receiver: Receiver) -> None:
    before = int(time.time())
    WebhookChannel(receiver.url, SECRET).send([letter(1, "ada@people.example")])

    (event,), (headers,) = receiver.events, receiver.headers
    assert (event["type"], event["timestamp"]) == ("lethe.notice", "2026-11-22T10:00:00Z")
    assert set(event) == {"type", "timestamp", "data"}
    assert set(event["data"]) == {"messageId", "to", "subject", "text", "html", "language"}
    assert headers["webhook-id"] == event["data"]["messageId"] == message_id(1)
    # The attempt's own time, or a receiver would take a notice from months ago for a replay.
    assert before <= int(headers["webhook-timestamp"]) <= int(time.time())
    assert headers["content-type"] == "application/json"
    assert receiver.paths == ["/hooks/lethe?tenant=a"]


def test_a_receiver_with_another_secret_loses_no_letter(receiver: Receiver) -> None:
    (delivery,) = WebhookChannel(receiver.url, OTHER).send([letter(1)]).values()

    assert delivery == Delivery(DeliveryResult.LATER, "401 Unauthorized; look at LETHE_WEBHOOK_SECRET")
    assert receiver.events == []


def test_a_secret_is_changed_without_a_gap(receiver: Receiver) -> None:
    both = WebhookChannel(receiver.url, f"{OTHER} {SECRET}")
    both.send([letter(1)])
    receiver.secret = OTHER
    both.send([letter(2)])

    assert len(receiver.events) == 2


def test_the_signature_is_the_standards_own_and_of_these_very_bytes() -> None:
    from lethe.adapters.notices.webhook import _body, _keys, _signed  # noqa: PLC0415 - what is sent, unsent

    now, body = int(time.time()), _body(letter(1))
    headers = _signed(message_id(1), now, body, _keys(SECRET))
    assert Webhook(SECRET).verify(body, headers)["data"]["messageId"] == message_id(1)
    for forged in (body.replace(b"lethe", b"lethf", 1), body + b" "):
        with pytest.raises(Exception, match="No matching signature"):
            Webhook(SECRET).verify(forged, headers)


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (200, "Sent"),
        (201, "Sent"),
        (202, "Sent"),
        (204, "Sent"),
        (299, "Sent"),
        (400, "Later"),
        (401, "Later"),
        (403, "Later"),
        (404, "Later"),
        (405, "Later"),
        (410, "Refused"),
        (413, "Later"),
        (422, "Refused"),
        (451, "Later"),
        (408, "Later"),
        (425, "Later"),
        (429, "Later"),
        (500, "Later"),
        (502, "Later"),
        (503, "Later"),
        (504, "Later"),
        (599, "Later"),
    ],
)
def test_a_status_decides(receiver: Receiver, status: int, result: str) -> None:
    receiver.answer("ada@people.example", status)
    (delivery,) = WebhookChannel(receiver.url, SECRET).send([letter(1, "ada@people.example")]).values()

    assert delivery.result == result
    assert delivery.answer.startswith(str(status)) or result == "Sent"
    assert "people" not in delivery.answer


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "401 Unauthorized; look at LETHE_WEBHOOK_SECRET"),
        (403, "403 Forbidden; look at LETHE_WEBHOOK_URL and LETHE_WEBHOOK_SECRET"),
        (404, "404 Not Found; look at LETHE_WEBHOOK_URL"),
        (400, "400 Bad Request; look at LETHE_WEBHOOK_URL"),
        (405, "405 Method Not Allowed; look at LETHE_WEBHOOK_URL"),
        (415, "415 Unsupported Media Type; look at LETHE_WEBHOOK_URL"),
    ],
)
def test_a_mistyped_url_or_secret_loses_no_letter_and_holds_up_no_other(
    receiver: Receiver, status: int, told: str
) -> None:
    receiver.answer("ada@people.example", status)
    found = WebhookChannel(receiver.url, SECRET).send([letter(1, "ada@people.example"), letter(2)])

    assert [*found.values()] == [Delivery(DeliveryResult.LATER, told), Delivery(DeliveryResult.SENT)]


@pytest.mark.parametrize("tls", [False, True])
def test_a_receiver_that_answers_a_byte_at_a_time_is_cut_off(tmp_path: Path, tls: bool) -> None:
    with Receiver(tmp_path, SECRET, tls=tls) as receiver:
        receiver.trickles["ada@people.example"] = "answer"
        channel = WebhookChannel(receiver.url, SECRET, SOON, receiver.ca_file, MOMENT)
        found = channel.send([letter(1, "ada@people.example"), letter(2)])

        late = Delivery(DeliveryResult.LATER, "the webhook's receiver did not answer in time")
        assert [*found.values()] == [late, late]
        assert receiver.trickled.get(timeout=20) == "cut off"


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("body", ["body", "last body"])
def test_an_answer_that_goes_on_a_byte_at_a_time_is_cut_off_and_counts(
    tmp_path: Path, tls: bool, body: str
) -> None:
    with Receiver(tmp_path, SECRET, tls=tls) as receiver:
        receiver.trickles["ada@people.example"] = body
        channel = WebhookChannel(receiver.url, SECRET, SOON, receiver.ca_file, MOMENT)
        found = channel.send([letter(1, "ada@people.example"), letter(2)])

        assert [*found.values()] == [Delivery(DeliveryResult.SENT), Delivery(DeliveryResult.SENT)]
        assert receiver.trickled.get(timeout=20) == "cut off"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(receiver: Receiver, status: int) -> None:
    receiver.answer("ada@people.example", status, location="/elsewhere?canary")
    with pytest.raises(ChannelError, match="no redirect is followed") as raised:
        WebhookChannel(receiver.url, SECRET).send([letter(1, "ada@people.example")])

    assert "LETHE_WEBHOOK_URL" in raised.value.remedy
    assert "canary" not in str(raised.value)
    assert receiver.paths == ["/hooks/lethe?tenant=a"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_asks_for_a_pause_gets_one(receiver: Receiver, status: int) -> None:
    receiver.answer("busy@people.example", status, retry_after="120")
    found = WebhookChannel(receiver.url, SECRET).send(
        [letter(1), letter(2, "busy@people.example"), letter(3)]
    )

    assert [one.result.value for one in found.values()] == ["Sent", "Later", "Later"]
    assert len(receiver.paths) == 2


def test_a_redirect_in_the_middle_of_a_set_forgets_nothing_that_was_sent(receiver: Receiver) -> None:
    receiver.answer("moved@people.example", 307, location="/elsewhere")
    found = WebhookChannel(receiver.url, SECRET).send(
        [letter(1), letter(2, "moved@people.example"), letter(3)]
    )

    assert [one.result.value for one in found.values()] == ["Sent", "Later", "Later"]


def test_an_answer_without_end_is_not_read_to_its_end(receiver: Receiver) -> None:
    receiver.endless.add("ada@people.example")
    found = WebhookChannel(receiver.url, SECRET).send([letter(1, "ada@people.example"), letter(2)])

    assert [one.result.value for one in found.values()] == ["Sent", "Sent"]


def test_a_certificate_of_anybody_elses_is_refused(tmp_path: Path) -> None:
    write_certificates(tmp_path / "other")
    with Receiver(tmp_path, SECRET, tls=True) as receiver:
        for ca_file in (None, tmp_path / "other" / "ca.crt"):
            with pytest.raises(ChannelError, match="certificate can't be verified") as raised:
                WebhookChannel(receiver.url, SECRET, SOON, ca_file).send([letter(1)])
            assert "LETHE_WEBHOOK_CA_FILE" in raised.value.remedy
        assert receiver.events == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "canary",
        "http://hooks.example/canary",
        "ftp://hooks.example/canary",
        "https:///canary",
        "https://hooks.example:x/canary",
        "https://canary:canary@hooks.example/",
        "https://hooks.example/#canary",
        "https://[canary",
        "http://127.0.0.1.example/canary",
        "http://10.0.0.1/canary",
    ],
)
def test_a_url_that_cannot_be_meant_is_said_without_quoting_it(url: str) -> None:
    with pytest.raises(ChannelError) as raised:
        WebhookChannel(url, SECRET)

    assert "LETHE_WEBHOOK_URL" in raised.value.problem
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        " ",
        "whsec_",
        "canary",
        "whsec_Y2FuYXJ5",
        SECRET.removeprefix("whsec_"),
        SECRET + "!",
        f"{SECRET} canary",
    ],
)
def test_a_secret_that_is_none_is_said_without_quoting_it(secret: str) -> None:
    with pytest.raises(ChannelError) as raised:
        WebhookChannel("https://hooks.example/", secret)

    assert "LETHE_WEBHOOK_SECRET" in str(raised.value)
    assert "canary" not in str(raised.value)
    assert "Y2FuYXJ5" not in str(raised.value)
