"""A wrong value ends the installation before anything is touched, and one line says which and what it is."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from devtools.chart.copies import CHART
from devtools.chart.helm import NAMESPACE, Helm, the
from devtools.servers import CommandFailed
from lethe.settings import InvalidSetting, read_settings
from tests.chart.wrong import DIRECTORY, MOUNTED, WRONG

Rule = dict[str, Any]
SCHEMA: Rule = json.loads((CHART / "values.schema.json").read_text())


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
    rule = SCHEMA["$defs"][kind]
    taken = re.fullmatch(rule["pattern"], text) is not None
    try:
        read_settings({variable: text})
    except InvalidSetting:
        assert not taken
    else:
        assert taken or text == "1000000d"  # the chart bounds the numbers; nobody waits that long


def rules(rule: Rule, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Rule]]:
    """Yield each value that the schema knows, with what it says of it; `*` stands for any item or key."""
    while reference := rule.get("$ref"):
        own = {key: said for key, said in rule.items() if key != "$ref"}
        rule = {**SCHEMA["$defs"][reference.rpartition("/")[2]], **own}
    yield path, rule
    for name, inner in rule.get("properties", {}).items():
        if inner != {"type": "null"}:  # a key that must not be there
            yield from rules(inner, (*path, name))
    further = [
        rule.get("additionalProperties"),
        rule.get("items"),
        *rule.get("patternProperties", {}).values(),
    ]
    for inner in further:
        if inner:
            yield from rules(inner, (*path, "*"))


RULES = list(rules(SCHEMA))
LEAVES = [path for path, _ in RULES if not any(other[:-1] == path for other, _ in RULES if other)]


@pytest.mark.parametrize("leaf", LEAVES, ids="/".join)
def test_every_value_that_the_schema_knows_has_a_wrong_one_among_those_above(leaf: tuple[str, ...]) -> None:
    found = [re.match(r"at '/([^']*)'", complaint) for _, complaint in WRONG]
    places = [tuple(one[1].split("/")) for one in found if one]
    assert any(
        len(place) == len(leaf) and all(asked in {key, "*"} for key, asked in zip(place, leaf, strict=True))
        for place in places
    )


def test_no_key_is_taken_that_nobody_reads() -> None:
    """What Kubernetes alone defines is left to it."""
    opened = {
        "/".join(path)
        for path, rule in RULES
        if rule.get("type") == "object" and "additionalProperties" not in rule
    }
    assert opened == {
        "global",
        *(f"backups/directories/*/volume/{kind}" for kind in ("persistentVolumeClaim", "csi", "ephemeral")),
        *(f"drills/commands/{kind}" for kind in ("configMap", "persistentVolumeClaim", "csi", "image")),
        *(f"networkPolicy/metricsFrom/*/{kind}" for kind in ("podSelector", "namespaceSelector", "ipBlock")),
        "affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution",
        "affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution/*",
        *(
            f"affinity/{kind}/{when}DuringSchedulingIgnoredDuringExecution/*"
            for kind in ("podAffinity", "podAntiAffinity")
            for when in ("required", "preferred")
        ),
    }


@pytest.mark.parametrize("text", ["30s", "1m30s", "15s", "9999s", "0s", "30", "1h", "1m0s", ""])
def test_a_scrape_timeout_is_an_interval_or_nothing(text: str) -> None:
    interval, timeout = (
        SCHEMA["$defs"][name]["pattern"] for name in ("scrapeInterval", "scrapeIntervalOrEmpty")
    )
    assert bool(re.search(timeout, text)) == (bool(re.search(interval, text)) or text == "")


@pytest.mark.parametrize(
    ("setting", "examples"),
    [
        ("settings.retention=6 months", "P6M|P1Y6M|P10D"),
        ("settings.erasureDeadline=30d", "P6M|P1Y6M|P10D"),
        ("settings.journalInterval=10 s", "10s|1h30m"),
        ("serviceMonitor.interval=30 s", "30s|1m30s"),
    ],
)
def test_a_wrong_duration_is_told_right_ones_first(helm: Helm, setting: str, examples: str) -> None:
    with pytest.raises(CommandFailed, match=re.escape(f"does not match pattern '^({examples})$|")):
        helm.rendered("--set", setting)


TAKEN = ["/bin", "/etc/lethe", "/etc/ssl/certs", "/lib64", "/opt", "/opt/lethe/bin", "/home/lethe", "/run/x"]
TAKEN += ["/tmp", "/usr/local/lib", "/var", "/var/lib", "/var/lib/lethe", "/var/run/secrets/x", "/proc/1"]


@pytest.mark.parametrize("path", TAKEN)
def test_backups_are_not_mounted_over_the_operator_or_its_system(helm: Helm, path: str) -> None:
    with pytest.raises(CommandFailed) as refused:
        helm.rendered("--set", f"{MOUNTED},{DIRECTORY}.mountPath={path},{DIRECTORY}.volume.csi.driver=nfs")
    wrong = f"backups.directories: {path} is the system's or the operator's own; mount it below /backups"
    assert wrong in refused.value.stderr


@pytest.mark.parametrize(
    "path", ["/backups", "/library", "/var/lib/dumps", "/opt/dumps", "/tmpfs", "/.snapshots"]
)
def test_backups_may_be_anywhere_else(helm: Helm, path: str) -> None:
    said = helm.rendered("--set", f"{MOUNTED},{DIRECTORY}.mountPath={path},{DIRECTORY}.volume.csi.driver=nfs")
    (container,) = the(said, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert path in {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("release", ["1lethe", "lethe.eu"])
def test_a_release_that_no_service_can_be_called_after_is_told_what_to_set(helm: Helm, release: str) -> None:
    with pytest.raises(
        CommandFailed, match=f"{release} can't be the name of a Service: set fullnameOverride"
    ):
        helm("template", release, str(CHART))
    helm("template", release, str(CHART), "--set", "fullnameOverride=lethe")


EMPTIED = ["commonLabels", "podLabels", "podAnnotations", "podSecurityContext", "serviceMonitor.labels"]
EMPTIED += ["prometheusRule.ruleLabels", "ledger.volume.annotations", "deploymentAnnotations"]


@pytest.mark.parametrize("value", EMPTIED)
def test_a_value_may_be_emptied(helm: Helm, value: str) -> None:
    asked = "serviceMonitor.enabled=true,prometheusRule.enabled=true"
    helm.rendered("--set", f"{asked},{value}=null")
