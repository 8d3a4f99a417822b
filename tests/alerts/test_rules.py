"""Each alert fires when it should and is quiet when it should be, and leads to a runbook."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.rules import (
    CASES,
    CHECKOUT,
    RULES,
    RUNBOOKS,
    alerts,
    asked_of_promtool,
    metrics_in,
    metrics_there,
    names,
)

pytestmark = pytest.mark.stage2


def test_promtool_finds_nothing_to_say_about_the_rules() -> None:
    said = asked_of_promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert f"{len(names())} rules found" in said


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_alert_fires_when_it_should_and_only_then(case: Path) -> None:
    asked_of_promtool("test", "rules", case)


@pytest.mark.parametrize("name", names())
def test_the_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    (case,) = (case for case in CASES if case.stem == name)
    asked = [
        expected
        for test in yaml.safe_load(case.read_text())["tests"]
        for expected in test["alert_rule_test"]
        if expected["alertname"] == name
    ]
    assert any(expected.get("exp_alerts") for expected in asked)
    assert any(not expected.get("exp_alerts") for expected in asked)


@pytest.mark.parametrize("alert", alerts(), ids=names())
def test_the_alert_says_how_bad_it_is_what_is_wrong_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    annotations = alert["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    runbook = CHECKOUT / annotations["runbook_url"]
    assert runbook == RUNBOOKS / f"{alert['alert']}.md"
    assert runbook.read_text().startswith(f"# {alert['alert']}\n")


def test_nothing_is_left_of_an_alert_that_is_no_more() -> None:
    assert {case.stem for case in CASES} == set(names())
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == {*names(), "README"}


def test_no_two_alerts_have_the_same_name() -> None:
    assert len(names()) == len(set(names()))


def test_the_list_of_runbooks_has_each_alert_with_its_severity() -> None:
    rows = [line for line in (RUNBOOKS / "README.md").read_text().splitlines() if line.startswith("| [")]
    assert [row.split(" | ")[:2] for row in rows] == [
        [f"| [{alert['alert']}]({alert['alert']}.md)", alert["labels"]["severity"]] for alert in alerts()
    ]


@pytest.mark.parametrize("alert", alerts(), ids=names())
def test_the_operator_has_every_metric_that_the_alert_asks_for(alert: dict[str, Any]) -> None:
    asked = metrics_in(alert["expr"])
    assert asked
    assert asked <= metrics_there()
