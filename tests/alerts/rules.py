"""The rules, their cases and the metrics that the operator has, as the tests of this folder read them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from devtools.builds.promtool.build import promtool
from devtools.servers.children import run
from lethe.controllers.runtime.metrics import Metrics

CHECKOUT = Path(__file__).resolve().parents[2]
RULES = CHECKOUT / "charts" / "lethe" / "files" / "alerts.yaml"
RUNBOOKS = CHECKOUT / "docs" / "runbooks"
CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))

_METRIC = re.compile(r"\blethe_\w+")
_QUOTED = re.compile(r'"[^"]*"')
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def alerts() -> list[dict[str, Any]]:
    """Return all alerts."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def names() -> list[str]:
    """Return the names of all alerts."""
    return [alert["alert"] for alert in alerts()]


def metrics_in(expression: str) -> set[str]:
    """Return the metrics of Lethe's that an expression asks for."""
    return set(_METRIC.findall(_QUOTED.sub("", expression)))


def metrics_there() -> set[str]:
    """Return every name under which the operator may show a sample."""
    return set(_names_shown())


def _names_shown() -> Iterator[str]:
    for family in Metrics().registry.collect():
        for suffix in _SUFFIXES[family.type]:
            yield family.name + suffix


def asked_of_promtool(*arguments: str | Path, given: str | None = None) -> str:
    """Return what promtool printed; raises `CommandFailed` with what it complained of."""
    return run([promtool(), *arguments], input=given)
