"""What the chart gives to Prometheus and Grafana, where it is asked to."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools.chart.copies import CHART
from devtools.chart.helm import NAMESPACE, Helm, Manifest, of_kind, the
from tests.alerts.rules import RULES, asked_of_promtool

ASKED = ("--values", str(CHART / "ci" / "monitoring-values.yaml"))
PREFIX = "https://docs.example.com/lethe/runbooks"


@pytest.fixture(scope="module")
def rendered(helm: Helm) -> list[Manifest]:
    """The chart with all of it."""
    return helm.rendered(*ASKED)


def test_nothing_of_it_is_there_unless_it_is_asked_for(helm: Helm) -> None:
    manifests = helm.rendered()
    for kind in ("ServiceMonitor", "PrometheusRule", "ConfigMap"):
        assert not of_kind(manifests, kind)


@pytest.mark.stage2
def test_the_rules_are_those_of_the_file_with_links_to_where_the_runbooks_are(
    rendered: list[Manifest], tmp_path: Path
) -> None:
    given = the(rendered, "PrometheusRule")["spec"]
    assert given == rules_with_runbooks_at(PREFIX)
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(given))
    asked_of_promtool("check", "rules", file)


def test_without_a_prefix_the_links_name_the_files_of_the_project(helm: Helm) -> None:
    given = the(helm.rendered("--set", "prometheusRule.enabled=true"), "PrometheusRule")["spec"]
    assert given == yaml.safe_load(RULES.read_text())


def rules_with_runbooks_at(prefix: str) -> dict[str, Any]:
    """Return the file's content as the chart should give it."""
    content: dict[str, Any] = yaml.safe_load(RULES.read_text())
    for group in content["groups"]:
        for rule in group["rules"]:
            rule["annotations"]["runbook_url"] = f"{prefix}/{rule['alert']}.md"
    return content


def test_the_service_that_is_scraped_is_the_release_s_own(rendered: list[Manifest]) -> None:
    service, monitor = the(rendered, "Service"), the(rendered, "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["namespaceSelector"] == {"matchNames": [NAMESPACE]}
    (endpoint,) = monitor["endpoints"]
    assert endpoint == {"port": service["spec"]["ports"][0]["name"], "path": "/metrics", "interval": "15s"}


def test_the_scrape_is_as_the_values_say(helm: Helm) -> None:
    monitor = the(helm.rendered("--values", str(CHART / "ci" / "everything-values.yaml")), "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint == {
        "port": "metrics",
        "path": "/metrics",
        "interval": "1m",
        "scrapeTimeout": "20s",
        "relabelings": [
            {"targetLabel": "cluster", "replacement": "eu-1"},
            {
                "sourceLabels": ["__meta_kubernetes_pod_node_name"],
                "regex": "(.+)",
                "targetLabel": "node",
                "action": "replace",
            },
        ],
    }


def test_every_alert_has_the_labels_of_the_values_beside_its_own(helm: Helm) -> None:
    asked = ("--set", "prometheusRule.enabled=true,prometheusRule.ruleLabels.team=privacy")
    given = the(helm.rendered(*asked), "PrometheusRule")["spec"]
    expected = yaml.safe_load(RULES.read_text())
    for group in expected["groups"]:
        for rule in group["rules"]:
            rule["labels"]["team"] = "privacy"
    assert given == expected


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PrometheusRule"])
def test_a_prometheus_that_chooses_by_label_finds_it(rendered: list[Manifest], kind: str) -> None:
    labels = the(rendered, kind)["metadata"]["labels"]
    assert labels["release"] == "prometheus"
    assert labels["app.kubernetes.io/name"] == "lethe"


def test_a_label_of_one_s_own_does_not_replace_the_chart_s(helm: Helm) -> None:
    taken = "prometheusRule.enabled=true,prometheusRule.labels.app\\.kubernetes\\.io/name=other"
    labels = the(helm.rendered("--set", taken), "PrometheusRule")["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "lethe"


def test_the_dashboard_is_that_of_the_file_and_grafana_s_sidecar_finds_it(rendered: list[Manifest]) -> None:
    given = the(rendered, "ConfigMap")
    assert given["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert given["metadata"]["annotations"] == {"grafana_folder": "Privacy"}
    assert json.loads(given["data"]["lethe.json"]) == json.loads(
        (CHART / "files" / "dashboard.json").read_text()
    )
