"""A wrong value ends the installation before anything is touched, and one line says which and what it is."""

import json
import re

import pytest

from lethe.settings import InvalidSetting, read_settings
from tests.chart.copies import CHART
from tests.chart.helm import NAMESPACE, Helm
from tests.servers import CommandFailed

SMTP = "notices.smtp.urlSecretRef.name=smtp,notices.smtp.urlSecretRef.key=url"
WEBHOOK = "notices.webhook.secretRef.name=webhook,notices.webhook.secretRef.key=secret"
WRONG = [
    ("settings.retension=P6M", "at '/settings': additional properties 'retension' not allowed"),
    ("setings.retention=P6M", "at '': additional properties 'setings' not allowed"),
    ("settings.retention=6 months", "at '/settings/retention': '6 months' does not match pattern"),
    ("settings.retention=P", "at '/settings/retention': 'P' does not match pattern"),
    ("settings.erasureDeadline=30d", "at '/settings/erasureDeadline': '30d' does not match pattern"),
    ("settings.journalInterval=10 s", "at '/settings/journalInterval': '10 s' does not match pattern"),
    ("settings.sweepInterval=PT1H", "at '/settings/sweepInterval': 'PT1H' does not match pattern"),
    ("settings.logLevel=debug", "at '/settings/logLevel': value must be one of 'DEBUG', 'INFO'"),
    (
        "ledger.urlSecretRef.name=lethe-ledger",
        "at '/ledger/urlSecretRef': properties 'key' required, if 'name' exists",
    ),
    ("ledger.url=postgresql://ledger.example/lethe", "at '/ledger': additional properties 'url' not allowed"),
    (
        "notices.smtp.from=privacy@example.com",
        "at '/notices/smtp/urlSecretRef': missing properties 'name', 'key'",
    ),
    (
        SMTP,
        "at '/notices/smtp/from': minLength: got 0, want 1",
    ),
    (
        f"{SMTP},notices.smtp.from=Example Privacy",
        "at '/notices/smtp/from': 'Example Privacy' does not match pattern",
    ),
    (
        f"{SMTP},notices.smtp.from=a@example.com,notices.smtp.caSecretRef.name=ca",
        "at '/notices/smtp/caSecretRef': properties 'key' required, if 'name' exists",
    ),
    (
        "notices.smtp.url=smtps://mail.example.com",
        "at '/notices/smtp': additional properties 'url' not allowed",
    ),
    (
        "notices.webhook.url=https://mail.example.com/lethe",
        "at '/notices/webhook/secretRef': missing properties 'name', 'key'",
    ),
    (
        WEBHOOK,
        "at '/notices/webhook/url': minLength: got 0, want 1",
    ),
    (
        f"{WEBHOOK},notices.webhook.url=http://mail.example.com",
        "at '/notices/webhook/url': 'http://mail.example.com' does not match pattern",
    ),
    ("notices.perHour=0", "at '/notices/perHour': minimum: got 0, want 1"),
    ("notices.perhour=30", "at '/notices': additional properties 'perhour' not allowed"),
    ("namespaces={Shop}", "at '/namespaces/0': 'Shop' does not match pattern"),
    (
        "extraCA.configMapRef.name=a,extraCA.configMapRef.key=b,extraCA.secretRef.name=a,extraCA.secretRef.key=b",
        "at '/extraCA/secretRef': maxProperties: got 2, want 0",
    ),
    (
        "extraCA.configMapRef.name=company-ca",
        "at '/extraCA/configMapRef': properties 'key' required, if 'name' exists",
    ),
    ("networkPolicy.enable=true", "at '/networkPolicy': additional properties 'enable' not allowed"),
    ("networkPolicy.egress[0].from[0]=x", "at '/networkPolicy/egress/0': additional properties 'from' not"),
    (
        "networkPolicy.metricsFrom[0].pods=x",
        "at '/networkPolicy/metricsFrom/0': additional properties 'pods'",
    ),
    ("terminationGracePeriodSeconds=0", "at '/terminationGracePeriodSeconds': minimum: got 0, want 1"),
    ("extraEnv.PYTHONPATH=/tmp", "at '': additional properties 'extraEnv' not allowed"),
    ("replicas=2", "at '/ledger/urlSecretRef': missing properties 'name', 'key'"),
    ("replicas=0", "at '/replicas': minimum: got 0, want 1"),
    ("replicaCount=2", "at '': additional properties 'replicaCount' not allowed"),
    ("image.digest=latest", "at '/image/digest': 'latest' does not match pattern"),
    ("crds.enabled=maybe", "at '/crds/enabled': got string, want boolean"),
]


@pytest.mark.parametrize(("setting", "complaint"), WRONG, ids=[setting for setting, _ in WRONG])
def test_a_wrong_value_is_refused_in_one_line_that_names_it(helm: Helm, setting: str, complaint: str) -> None:
    with pytest.raises(CommandFailed) as refused:
        helm("template", "lethe", str(CHART), "--namespace", NAMESPACE, "--set", setting)
    findings = [line for line in refused.value.stderr.splitlines() if line.startswith("- at ")]
    assert len(findings) == 1, refused.value.stderr
    assert complaint in findings[0]


PERIODS = [
    "P6M",
    "P1Y6M",
    "P2W",
    "P10D",
    "P1Y2M3W4D",
    "P",
    "P0M",
    "PT1H",
    "6M",
    "p6m",
    "P6M ",
    "P-1M",
    "P1000Y",
    "P1.5M",
]
DURATIONS = [
    *("500ms", "10s", "5m", "1h30m", "1d", "90d12h", "999999d", "999999d999999d999999d999999d999999d"),
    *("0s", "0ms", "10", "s", "10 s", "1h30", "-1s", "1e3s", "PT1H", "1000000d"),
]


@pytest.mark.parametrize("text", PERIODS)
def test_a_period_that_the_chart_takes_is_one_that_the_operator_takes(text: str) -> None:
    _agree("period", "LETHE_RETENTION", text)


@pytest.mark.parametrize("text", DURATIONS)
def test_a_duration_that_the_chart_takes_is_one_that_the_operator_takes(text: str) -> None:
    _agree("duration", "LETHE_SWEEP_INTERVAL", text)


def _agree(kind: str, variable: str, text: str) -> None:
    rule = json.loads((CHART / "values.schema.json").read_text())["$defs"][kind]
    taken = re.fullmatch(rule["pattern"], text) is not None
    try:
        read_settings({variable: text})
    except InvalidSetting:
        assert not taken
    else:
        assert taken or text == "1000000d"  # the chart bounds the numbers; nobody waits that long
