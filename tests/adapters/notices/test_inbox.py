"""What somebody's mail program gets: sent by the channel, read by IMAP from a real inbox."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import EmailMessage

import pytest

from devtools.servers.greenmail import GreenMail, missing_programs
from lethe.adapters.notices.letters import TemplateWriter
from lethe.adapters.notices.smtp import SmtpChannel
from lethe.domain.identifiers import PersonalText
from lethe.ports.notices import ChannelError, Delivery, DeliveryResult, Letter, Recipient, Written
from tests.adapters.notices.test_letters import LANGUAGES, REJECTED, UNDER_ORDER
from tests.contracts.notices import AT, message_id

pytestmark = pytest.mark.stage2
SENDER = "Exämple Privacy <privacy@lethe.example>"
MAILER = "mailer@lethe.example"
WRITER = TemplateWriter()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GreenMail]:
    if missing := missing_programs():
        pytest.skip(f"GreenMail needs {' and '.join(missing)} on PATH; no notice was read from an inbox")
    people = {f"{language}@people.example": "correct-horse" for language in (*LANGUAGES, "authority")}
    with GreenMail(tmp_path_factory.mktemp("greenmail"), {MAILER: "pa/ss %word", **people}) as running:
        yield running


def send(server: GreenMail, number: int, to: str, written: Written) -> None:
    letter = Letter(
        message_id(number),
        PersonalText(to),
        written.subject,
        written.text,
        AT,
        written.language,
        written.html,
    )
    found = SmtpChannel(server.url_for(MAILER), SENDER, server.ca_file).send([letter])
    assert found == {message_id(number): Delivery(DeliveryResult.SENT)}


def content(message: EmailMessage, kind: str) -> str:
    body = message.get_body([kind])
    assert body is not None
    text: str = body.get_content()
    return bare(text)


def bare(text: str) -> str:
    """Return text with lines as they are written here; GreenMail keeps no line break at a message's end."""
    return text.replace("\r\n", "\n").rstrip("\n")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_notice_arrives_as_it_was_written(server: GreenMail, language: str) -> None:
    to = f"{language}@people.example"
    written = WRITER.to_user(
        UNDER_ORDER, Recipient(language, "Europe/Madrid", PersonalText("Zoë Ñandú 你好"))
    )
    send(server, 1, to, written)

    (message,) = server.inbox(to)
    assert message["Subject"] == written.subject
    assert message["Message-ID"] == f"<{message_id(1)}>"
    assert message["To"] == to
    assert message["From"] == SENDER
    assert message["Date"].datetime == AT
    assert message["Content-Language"] == language
    assert content(message, "plain") == bare(written.text)
    assert written.html is not None
    assert content(message, "html") == bare(written.html)


def test_a_letter_that_is_sent_again_has_the_same_message_id(server: GreenMail) -> None:
    to = "authority@people.example"
    written = WRITER.to_authority(REJECTED)
    for _ in range(2):
        send(server, 2, to, written)

    messages = server.inbox(to)
    assert [message["Message-ID"] for message in messages] == [f"<{message_id(2)}>"] * 2
    assert {content(message, "plain") for message in messages} == {bare(written.text)}
    assert {message.get_content_type() for message in messages} == {"text/plain"}


def test_a_password_that_is_not_taken_is_a_setting_to_correct(server: GreenMail) -> None:
    channel = SmtpChannel(server.url_for(MAILER, "canary-secret"), SENDER, server.ca_file)
    with pytest.raises(ChannelError, match="LETHE_SMTP_URL") as raised:
        channel.send([Letter(message_id(3), PersonalText("en@people.example"), "a", "b", AT, "en")])
    assert "canary" not in str(raised.value)
