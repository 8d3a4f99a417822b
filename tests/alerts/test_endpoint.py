"""The real operator's /metrics: what promtool says to it, and whether alerts find in it what they ask for."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from devtools.company import Api, Site, eventually
from devtools.dumps import apply_source, days_ago, leave_dump
from devtools.operator_process import OperatorProcess
from devtools.servers import CommandFailed, PostgresServer
from tests.alerts.rules import alerts, asked_of_promtool, metrics_in
from tests.e2e.conftest import StartOperator, api, site, start_operator

pytestmark = pytest.mark.stage2

__all__ = ["api", "site", "start_operator"]  # fixtures

WAIVED: Mapping[str, str] = {}
"""What promtool advises and Lethe does not do (names are a contract), with the reasons: none so far."""


def advice_on(page: str) -> list[str]:
    """Return the lines in which promtool says what it would do otherwise."""
    try:
        asked_of_promtool("check", "metrics", given=page)
    except CommandFailed as advised:
        return advised.stderr.splitlines()
    return []


def test_promtool_would_say_something() -> None:
    said = advice_on("# HELP lethe_erased Erased\n# TYPE lethe_erased counter\nlethe_erased 1\n")
    assert said == ['lethe_erased counter metrics should have "_total" suffix']


@pytest.fixture
def busy(api: Api, site: Site, start_operator: StartOperator, tmp_path: Path) -> OperatorProcess:
    """An operator with a store, a backup source, an erasure that is done and one that is not."""
    backups = tmp_path / "backups"
    backups.mkdir()
    leave_dump(backups, days_ago(3))
    operator = start_operator(LETHE_SCAN_INTERVAL="500ms", LETHE_BACKUP_DIRECTORIES=str(backups))
    (ada,) = site.sign_up("ada@canary.example")
    api.sql_store("site", site.url)
    apply_source(api, backups)
    api.wait("datastores", "site", "SafeToServe", patience=60)
    api.request_by_id("ada", ada)
    api.wait("deletionrequests", "ada", "Erased", patience=60)
    api.request_by_id("nobody", 999_999)
    api.wait_reason("deletionrequests", "nobody", "NothingFound", patience=60)
    scratch = {"urlSecretRef": {"name": "site-db", "key": "url"}}
    how = {"scratch": scratch, "restore": {"command": "restore"}, "schedule": "0 4 * * SUN"}
    api.create("restoredrills", "sunday", {"source": "nightly", **how})
    eventually(
        lambda: 'lethe_snapshots{source="' in operator.page("metrics"), "the snapshots to be counted", 60
    )
    eventually(lambda: "lethe_restore_drill_period_seconds{" in operator.page("metrics"), "the drill", 60)
    return operator


@pytest.mark.e2e
@pytest.mark.slow
def test_promtool_has_nothing_to_say_and_every_alert_finds_its_samples(busy: OperatorProcess) -> None:
    page = busy.page("metrics")
    assert "lethe_erasure_seconds_bucket" in page
    assert set(advice_on(page)) == set(WAIVED)

    samples = {re.split(r"[{ ]", line)[0] for line in page.splitlines() if not line.startswith("#")}
    for alert in alerts():
        assert metrics_in(alert["expr"]) <= samples, alert["alert"]
    for setting in ("erasure_deadline", "scan_interval", "sweep_interval"):
        assert f'lethe_setting_seconds{{setting="{setting}"}} ' in page
    assert 'lethe_notices{state="Undeliverable"} 0.0' in page


@pytest.mark.e2e
@pytest.mark.slow
def test_a_restore_counts_as_one_without_a_reason_until_somebody_gives_one(
    api: Api, site: Site, start_operator: StartOperator, postgres: PostgresServer, tmp_path: Path
) -> None:
    operator = start_operator()
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "SafeToServe", patience=60)
    eventually(lambda: 'lethe_restores_without_reason{store="' in operator.page("metrics"), "a sample", 60)
    assert operator.metric("lethe_restores_without_reason") == 0
    name = site.url.rpartition("/")[2].partition("?")[0]
    dump = postgres.dump(name, tmp_path / "site.dump")
    (ada,) = site.sign_up("ada@canary.example")
    api.request_by_id("ada", ada)
    api.wait("deletionrequests", "ada", "Erased", patience=60)
    postgres.restore(name, dump, "--clean", "--if-exists")
    eventually(lambda: operator.metric("lethe_restores_without_reason") == 1, "it to be counted", 60)
    (restore,) = api.list("restoreevents")
    reason = {"reason": "Drill", "justification": "a test"}
    api.patch_spec("restoreevents", restore["metadata"]["name"], reason)
    eventually(lambda: operator.metric("lethe_restores_without_reason") == 0, "it to be explained", 60)
