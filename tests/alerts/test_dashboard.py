"""The dashboard is what its source says, and asks Prometheus for what there is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools.dashboard import FILE, KEPT, WIDTH, text
from tests.alerts.rules import CHECKOUT, asked_of_promtool, metrics_in, metrics_there

pytestmark = pytest.mark.stage2

GRAFANAS = {"$__rate_interval": "5m", "$job": "lethe"}
"""What Grafana puts in before it asks."""


def panels() -> list[dict[str, Any]]:
    """Return the rows and panels of the file."""
    return list(json.loads(FILE.read_text())["panels"])


def rows() -> dict[str, list[dict[str, Any]]]:
    """Return the panels of each row, by its title."""
    found: dict[str, list[dict[str, Any]]] = {}
    title = ""
    for panel in panels():
        if panel["type"] == "row":
            title = panel["title"]
            found[title] = []
        else:
            found[title].append(panel)
    return found


def promise(title: str) -> str:
    """Return the promise that a row is about."""
    return title.partition(" · ")[0]


def unserved(panels: list[dict[str, Any]]) -> str:
    """Return what the panels say that this version does not do."""
    return "\n".join(panel["options"]["content"] for panel in panels if panel["type"] == "text")


def expressions() -> Iterator[str]:
    """Yield what the panels ask for, as Prometheus gets it."""
    for panel in panels():
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in GRAFANAS.items():
                expression = expression.replace(name, value)
            yield expression


def test_the_file_is_what_its_source_says() -> None:
    assert FILE.read_text() == text(), "run `python -m devtools.dashboard`"


def test_every_panel_has_a_number_of_its_own() -> None:
    numbers = [panel["id"] for panel in panels()]
    assert len(numbers) == len(set(numbers))


def test_no_two_panels_lie_upon_each_other() -> None:
    squares = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels())
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(squares) == len(set(squares))
    assert max(x for x, _ in squares) < WIDTH


def test_whether_the_policy_is_kept_stands_at_the_top() -> None:
    first, *rest = panels()
    assert first["title"] == KEPT
    until_next_row = [panel["type"] for panel in rest]
    until_next_row = until_next_row[: until_next_row.index("row")]
    assert set(until_next_row) == {"stat"}
    asked = {
        name for panel in rest[: len(until_next_row)] for name in metrics_in(panel["targets"][0]["expr"])
    }
    assert asked >= {
        "lethe_deletion_requests_overdue",
        "lethe_store_safe_to_serve",
        "lethe_snapshots_overdue",
        "lethe_notices_overdue",
    }


def test_there_is_a_row_for_each_promise_in_their_order() -> None:
    first, *promises, last = rows()
    assert (first, last) == (KEPT, "The operator")
    assert [promise(title) for title in promises] == [f"P{n}" for n in range(1, 10)]
    assert all(rows().values()), "a row without a panel says nothing"


def test_a_promise_of_which_nothing_is_measured_says_so_in_words() -> None:
    measured = {
        promise(title) for title, below in rows().items() if any("targets" in panel for panel in below)
    }
    said = {promise(title): text for title, below in rows().items() if (text := unserved(below))}
    assert {f"P{n}" for n in range(1, 10)} - measured == {"P5"}
    assert said.keys() == {"P4", "P5", "P7"}
    assert "no audit of cookies" in said["P5"]
    assert "not audited" in said["P4"]
    data, readme = "`DeletionRequest.spec.data`", (CHECKOUT / "README.md").read_text()
    limits = readme.partition("## Limits of this version")[2].partition("\n## ")[0]
    assert data in said["P7"]
    assert data in limits, "it is served by now: so say it in the dashboard"


def test_prometheus_understands_every_expression(tmp_path: Path) -> None:
    asked = list(expressions())
    rules = [{"record": f"asked:{n}", "expr": expression} for n, expression in enumerate(asked)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(asked)} rules found" in asked_of_promtool("check", "rules", "--lint=none", file)


def test_the_operator_has_every_metric_that_the_dashboard_asks_for() -> None:
    for expression in expressions():
        asked = metrics_in(expression)
        assert asked
        assert asked <= metrics_there(), expression


def test_every_metric_of_the_operator_is_in_the_dashboard_or_left_out_for_a_reason() -> None:
    shown = {name for expression in expressions() for name in metrics_in(expression)}
    missing = {
        name
        for name in metrics_there() - shown
        if not name.endswith(("_sum", "_count"))  # of histograms, whose quantiles are shown
    }
    assert missing == {"lethe_ledger_mirrored"}  # always 0 in this version
