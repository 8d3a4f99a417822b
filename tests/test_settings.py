"""What the environment means, and what is said when it can't be meant."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from lethe.settings import InvalidSetting, Settings, read_settings

SMTP = {
    "LETHE_SMTP_URL": "smtps://mailer:canary@mail.example",
    "LETHE_MAIL_FROM": "Example <privacy@lethe.example>",
}
WEBHOOK = {"LETHE_WEBHOOK_URL": "https://hooks.example/canary", "LETHE_WEBHOOK_SECRET": "whsec_canary"}


def test_an_empty_environment_means_the_defaults() -> None:
    assert read_settings({}) == Settings()


def test_a_chart_may_leave_every_setting_of_notices_empty() -> None:
    names = (*SMTP, *WEBHOOK, "LETHE_SMTP_CA_FILE", "LETHE_WEBHOOK_CA_FILE", "LETHE_TEMPLATES_DIR")
    assert read_settings(dict.fromkeys((*names, "LETHE_NOTICES_PER_HOUR"), "")) == Settings()


def test_the_settings_of_notices_are_read() -> None:
    found = read_settings(
        {
            **SMTP,
            **WEBHOOK,
            "LETHE_SMTP_CA_FILE": "/etc/mail/ca.crt",
            "LETHE_WEBHOOK_CA_FILE": "/etc/hooks/ca.crt",
            "LETHE_TEMPLATES_DIR": "/etc/lethe/templates",
            "LETHE_NOTICES_PER_HOUR": "120",
        }
    )
    assert (found.smtp_url, found.mail_from) == tuple(SMTP.values())
    assert (found.webhook_url, found.webhook_secret) == tuple(WEBHOOK.values())
    assert found.smtp_ca_file == Path("/etc/mail/ca.crt")
    assert found.webhook_ca_file == Path("/etc/hooks/ca.crt")
    assert found.templates_dir == Path("/etc/lethe/templates")
    assert found.notices_per_hour == 120


def test_how_far_clocks_may_be_apart_is_two_minutes_unless_said() -> None:
    assert read_settings({}).clock_skew == timedelta(minutes=2)
    assert read_settings({"LETHE_CLOCK_SKEW": "500ms"}).clock_skew == timedelta(milliseconds=500)
    with pytest.raises(InvalidSetting, match="LETHE_CLOCK_SKEW: 'soon' is not a duration"):
        read_settings({"LETHE_CLOCK_SKEW": "soon"})


def test_a_line_break_at_the_end_of_a_secret_is_none_of_it() -> None:
    said = {**SMTP, **WEBHOOK, "LETHE_LEDGER_URL": "postgresql://lethe:canary@db.example/lethe"}
    found = read_settings({name: f"{text}\n" for name, text in said.items()})
    assert found == read_settings(said)


def test_what_may_hold_a_password_is_not_shown() -> None:
    found = read_settings(
        {**SMTP, **WEBHOOK, "LETHE_LEDGER_URL": "postgresql+psycopg://lethe:canary@db.example/lethe"}
    )
    assert "canary" not in repr(found)


@pytest.mark.parametrize("text", ["lethe", "privacy/lethe", "none", "a" * 253, "lethe.privacy"])
def test_a_lease_is_a_name_with_or_without_its_namespace(text: str) -> None:
    assert read_settings({"LETHE_LEASE": text}).lease == text


@pytest.mark.parametrize(
    "text", ["Lethe", "a/b/c", "/lethe", "privacy/", "pri.vacy/lethe", "lethe-", "a" * 254]
)
def test_what_is_no_name_of_a_lease_is_told_with_an_example(text: str) -> None:
    with pytest.raises(InvalidSetting, match=r"LETHE_LEASE must be .* as in lethe/lethe"):
        read_settings({"LETHE_LEASE": text})


@pytest.mark.parametrize(
    ("present", "missing", "looks_like"),
    [
        ("LETHE_SMTP_URL", "LETHE_MAIL_FROM", "privacy@example.com"),
        ("LETHE_MAIL_FROM", "LETHE_SMTP_URL", "smtp+starttls://user:password@host:587"),
        ("LETHE_WEBHOOK_URL", "LETHE_WEBHOOK_SECRET", "whsec_"),
        ("LETHE_WEBHOOK_SECRET", "LETHE_WEBHOOK_URL", "https://host/path"),
    ],
)
def test_half_a_channel_is_told_with_what_is_missing_and_without_what_is_there(
    present: str, missing: str, looks_like: str
) -> None:
    value = {**SMTP, **WEBHOOK}[present]
    with pytest.raises(InvalidSetting) as raised:
        read_settings({present: value, missing: " "})

    assert str(raised.value).startswith(f"{present} is set and {missing} is not")
    assert looks_like in str(raised.value)
    assert value not in str(raised.value)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "thirty", "1e3", "²", "٣", "+1", "1_000", "9" * 5000])
def test_notices_per_hour_is_a_whole_number(text: str) -> None:
    with pytest.raises(
        InvalidSetting, match="LETHE_NOTICES_PER_HOUR must be a whole number from 1 on"
    ) as raised:
        read_settings({"LETHE_NOTICES_PER_HOUR": text})
    assert "as in 30" in str(raised.value)


@pytest.mark.parametrize("text", ["db.example.org, 10.0.0.0/33", "db example", "*,[::1]:x"])
def test_a_list_of_hosts_that_cannot_be_meant_names_the_entry(text: str) -> None:
    entry = text.rpartition(",")[2].strip()
    with pytest.raises(InvalidSetting) as refused:
        read_settings({"LETHE_STORE_HOSTS": text})
    assert str(refused.value).startswith(f"LETHE_STORE_HOSTS: {entry} is no name, address or network; write")


def test_a_list_of_hosts_is_read() -> None:
    hosts = read_settings({"LETHE_STORE_HOSTS": "*.example.org:5432, 127.0.0.0/8"}).store_hosts
    assert hosts.permits("db.example.org", 5432, "10.0.0.7")
    assert hosts.permits("localhost", 25, "127.0.0.1")
    assert not hosts.permits("db.example.com", 5432, "10.0.0.7")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", {}),
        ("velero", {"velero": "velero"}),
        ("velero=backups, jobs", {"velero": "backups", "jobs": ""}),
        ("cloudNativePG,volumeSnapshots", {"cloudNativePG": "", "volumeSnapshots": ""}),
    ],
)
def test_what_is_watched_for_restores_by_others(text: str, meant: dict[str, str]) -> None:
    assert read_settings({"LETHE_EARLY_WARNING": text}).early_warning == meant


@pytest.mark.parametrize("text", ["Velero", "velero=", "velero=a/b", "jobs=shop", "jobs=", "cloudnativepg"])
def test_what_can_t_be_watched_for_restores_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match="LETHE_EARLY_WARNING must be some of velero"):
        read_settings({"LETHE_EARLY_WARNING": text})
