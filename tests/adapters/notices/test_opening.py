"""Which channel the settings mean, what stands in a Message-ID, and what is said if they can't be meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lethe.adapters.notices.markup import BrokenTemplate
from lethe.adapters.notices.messages import is_message_id
from lethe.adapters.notices.opening import message_id_domain, open_channel, open_renderer
from lethe.ports.notices import Channel, ChannelError, Recipient
from tests.adapters.notices.test_letters import REJECTED

SMTP_URL = "smtps://mailer:canary@mail.example"
SENDER = "Example <privacy@lethe.example>"
HOOK = "https://hooks.example/canary"
SECRET = "whsec_Y2FuYXJ5LXNlY3JldC1vZi10aGUtd2ViaG9vaw=="


def opened(
    smtp_url: str | None = None,
    webhook_url: str | None = None,
    *,
    mail_from: str = SENDER,
    secret: str = SECRET,
    smtp_ca_file: Path | None = None,
    webhook_ca_file: Path | None = None,
) -> Channel | None:
    return open_channel(
        smtp_url=smtp_url,
        mail_from=mail_from,
        smtp_ca_file=smtp_ca_file,
        webhook_url=webhook_url,
        webhook_secret=secret,
        webhook_ca_file=webhook_ca_file,
    )


def test_smtp_comes_before_the_webhook_and_without_both_there_is_no_channel() -> None:
    assert repr(opened(SMTP_URL)) == "SmtpChannel(smtps://…)"
    assert repr(opened(SMTP_URL, HOOK)) == "SmtpChannel(smtps://…)"
    assert repr(opened(None, HOOK)) == "WebhookChannel(…)"
    assert opened() is None


@pytest.mark.parametrize(
    ("smtp_url", "webhook_url", "mail_from", "secret", "setting"),
    [
        ("mail.example", None, SENDER, SECRET, "LETHE_SMTP_URL"),
        (SMTP_URL, None, "canary", SECRET, "LETHE_MAIL_FROM"),
        (None, "http://hooks.example/canary", SENDER, SECRET, "LETHE_WEBHOOK_URL"),
        (None, HOOK, SENDER, "canary", "LETHE_WEBHOOK_SECRET"),
    ],
)
def test_a_channel_that_cannot_be_meant_is_refused_when_it_is_opened(
    smtp_url: str | None, webhook_url: str | None, mail_from: str, secret: str, setting: str
) -> None:
    with pytest.raises(ChannelError) as raised:
        opened(smtp_url, webhook_url, mail_from=mail_from, secret=secret)
    assert setting in raised.value.problem
    assert "canary" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_each_channel_reads_the_certificates_of_its_own_setting(tmp_path: Path) -> None:
    nowhere = tmp_path / "ca.crt"
    with pytest.raises(ChannelError, match="LETHE_SMTP_CA_FILE"):
        opened(SMTP_URL, smtp_ca_file=nowhere)
    with pytest.raises(ChannelError, match="LETHE_WEBHOOK_CA_FILE"):
        opened(None, HOOK, webhook_ca_file=nowhere)
    assert opened(SMTP_URL, webhook_ca_file=nowhere) is not None
    assert opened(None, HOOK, smtp_ca_file=nowhere) is not None


@pytest.mark.parametrize(
    ("mail_from", "webhook_url", "domain"),
    [
        ("Example <privacy@Lethe.Example>", None, "lethe.example"),
        (SENDER, HOOK, "lethe.example"),
        ("privacy@straße.example", None, "xn--strae-oqa.example"),
        ("privacy@[192.0.2.7]", None, "192.0.2.7"),
        ("privacy@my_mail.internal", None, "my-mail.internal"),
        (None, "https://Hooks.Example:8443/canary?canary", "hooks.example"),
        (None, "https://straße.example/", "xn--strae-oqa.example"),
        (None, "https://my_hooks.lethe.svc/", "my-hooks.lethe.svc"),
        (None, "http://[::1]:8080/", "1"),
        (None, "https://[2001:db8::7]/", "2001-db8-7"),
    ],
)
def test_a_message_id_ends_with_a_domain_of_ours_whatever_it_is_written_as(
    mail_from: str | None, webhook_url: str | None, domain: str
) -> None:
    found = message_id_domain(
        smtp_url=SMTP_URL if mail_from else None, mail_from=mail_from, webhook_url=webhook_url
    )
    assert found == domain
    assert is_message_id(f"0123abcd@{found}")


def test_without_a_channel_there_is_no_domain() -> None:
    assert message_id_domain(smtp_url=None, mail_from=None, webhook_url=None) is None


@pytest.mark.parametrize(
    ("smtp_url", "mail_from", "webhook_url", "setting"),
    [
        (SMTP_URL, "canary", None, "LETHE_MAIL_FROM"),
        (None, None, "https://[canary", "LETHE_WEBHOOK_URL"),
        (None, None, "https://canary\u0640\u0640.ex\u0640mple/", "LETHE_WEBHOOK_URL"),
    ],
)
def test_a_sender_or_host_without_a_domain_is_said_without_quoting_it(
    smtp_url: str | None, mail_from: str | None, webhook_url: str | None, setting: str
) -> None:
    with pytest.raises(ChannelError, match=setting) as raised:
        message_id_domain(smtp_url=smtp_url, mail_from=mail_from, webhook_url=webhook_url)
    assert "canary" not in str(raised.value)


def test_a_writer_of_the_operators_own_templates_writes_by_them(tmp_path: Path) -> None:
    (tmp_path / "user.en.txt").write_text("Subject: Ours\n\nWords of ours.\n")
    renderer = open_renderer(tmp_path)

    assert renderer.to_user(REJECTED, Recipient("en")).subject == "Ours"
    assert renderer.to_authority(REJECTED).text == open_renderer(None).to_authority(REJECTED).text


def test_a_broken_template_is_told_when_the_writer_is_opened(tmp_path: Path) -> None:
    (tmp_path / "user.en.txt").write_text("Subject: Ours\n\n{{ autority }}\n")
    with pytest.raises(BrokenTemplate, match=r"user\.en\.txt, line 3") as raised:
        open_renderer(tmp_path)
    assert "\n" not in str(raised.value)


PROGRAM = """
import sys
from lethe.adapters.notices.markup import BrokenTemplate
from lethe.adapters.notices.opening import message_id_domain, open_channel, open_renderer
nothing = dict(smtp_url=None, mail_from=None, webhook_url=None)
open_channel(**nothing, smtp_ca_file=None, webhook_secret=None, webhook_ca_file=None)
message_id_domain(**nothing)
open_renderer(None)
print(*sorted({"smtplib", "urllib3", "jinja2", "babel"} & set(sys.modules)))
"""


def test_an_operator_without_notices_loads_nothing_for_them() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
