"""The table of metrics in docs/operations.md, against those that the operator has."""

import re

import pytest
from prometheus_client import Gauge
from prometheus_client.metrics import MetricWrapperBase

from lethe.controllers.runtime.metrics import Metrics
from tests.alerts.rules import CHECKOUT

LISTED = re.compile(r"`(lethe_\w+)(?:\{([\w,]+)\})?`")


def test_the_table_has_every_metric_with_its_labels_and_no_other() -> None:
    page = (CHECKOUT / "docs" / "operations.md").read_text()
    section = page.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `lethe_")]
    listed = {(name, labels) for cell in cells for name, labels in LISTED.findall(cell)}
    kept = [one for one in vars(Metrics()).values() if isinstance(one, MetricWrapperBase)]
    there = {
        (family.name + "_total" * (family.type == "counter"), ",".join(one._labelnames))
        for one in kept
        for family in one.describe()
    }
    assert listed == there


@pytest.mark.parametrize("label", ["store", "source"])
def test_gauges_of_a_store_or_source_go_with_it(label: str) -> None:
    metrics = Metrics()
    forget = {"store": metrics.forget_store, "source": metrics.forget_source}[label]
    gauges = [one for one in vars(metrics).values() if isinstance(one, Gauge) and label in one._labelnames]
    for gauge in gauges:
        gauge.labels(**dict.fromkeys(gauge._labelnames, "privacy/site")).set(1)
    forget("privacy/site")
    assert len(gauges) > 4
    assert [gauge._name for gauge in gauges if gauge._metrics] == []
