"""Argo CD's health, kstatus and Flux's expressions over every reason that the documentation names.

Each status is written to a real API server and judged as that returns it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from devtools.company import Api
from lethe.api.v1alpha1 import KINDS
from tests.gitops.judging import Judgement, matched
from tests.gitops.states import SPECS, State, every_state

pytestmark = pytest.mark.stage2

DOCS = Path(__file__).resolve().parents[2] / "docs"
PLURALS = {kind.definition.kind: kind.definition.plural for kind in KINDS}


def stored(api: Api, number: int, state: State) -> dict[str, Any]:
    """Return an object that stands so, as the API server has it."""
    name = f"state-{number}"
    made = api.create(state.plural, name, SPECS[state.plural])
    made["status"] = {key: value for key, value in state.status.items() if value is not None}
    code, body = api.call("PUT", f"{api.path(state.plural, name)}/status", made)
    assert code == 200, f"{state.plural} {state.label}: {body.get('message')}"
    return api.get(state.plural, name) or {}


def test_every_reason_is_judged_as_it_is_meant_by_argo_cd_kstatus_and_flux(api: Api) -> None:
    states = list(every_state())
    objects = [stored(api, number, state) for number, state in enumerate(states)]
    wrong: list[str] = []
    for state, made, judgement in zip(states, objects, matched(objects), strict=True):
        ready = next(c for c in made["status"]["conditions"] if c["type"] == "Ready")
        assert ready["reason"] == state.reason, f"{state.plural} {state.label}"
        meant = (state.verdict.kstatus, state.flux or state.verdict.kstatus, state.verdict.argo)
        if judgement[:3] != meant or state.told not in judgement.message:
            wrong.append(f"{state.plural} {state.label}: {judgement}, not {meant} with {state.told!r}")
    assert wrong == []


def test_an_object_that_nobody_has_seen_is_waited_for(api: Api) -> None:
    unseen = [api.create(plural, "unseen", spec) for plural, spec in SPECS.items()]
    for judgement in matched(unseen):
        assert judgement == Judgement("InProgress", "InProgress", "Progressing", "not seen by Lethe yet")


def test_a_spec_that_is_newer_than_its_status_is_waited_for(api: Api) -> None:
    older = [
        stored(api, number, state)
        for number, state in enumerate(every_state())
        if state.reason in ("Erased", "Available", "Scanned", "Registered", "SafeToServe", "NameReused")
    ]
    for one in older:
        one["metadata"]["generation"] += 1
    for judgement in matched(older):
        assert judgement[:3] == ("InProgress", "InProgress", "Progressing")
        assert judgement.message == "Lethe has not seen the newest manifest yet"


def test_a_status_without_conditions_is_waited_for() -> None:
    bare: dict[str, Any] = {
        "apiVersion": "lethe.dev/v1alpha1",
        "kind": "DataStore",
        "metadata": {"name": "x"},
    }
    statuses: tuple[dict[str, Any], ...] = ({}, {"status": {}}, {"status": {"conditions": []}})
    for status in statuses:
        (judgement,) = matched([bare | status])
        assert judgement.argo == "Progressing"


def documented() -> Iterator[tuple[str, str]]:
    """Return kind and reason of every Ready that the documentation's tables name."""
    for page, heading in (("troubleshooting", ""), ("legal", "LegalRequest"), ("backups", "BackupSource")):
        kind, in_table = heading, page != "legal"
        for line in (DOCS / f"{page}.md").read_text().splitlines():
            if line.startswith("## "):
                title = line.removeprefix("## ")
                kind = title if title in PLURALS else heading
                in_table = title in PLURALS or title in ("Reasons", "Reasons of Ready")
            cell = line.split("|")[1].strip() if line.startswith("| ") else ""
            named = cell.split(" ")[0]
            kind = named if named in PLURALS else kind
            about_ready = "Ready `" in cell or (cell.startswith("`") and page != "backups")
            if in_table and about_ready:
                for reason in re.findall(r"`(\w+)`", cell):
                    yield kind, reason


def test_the_table_has_every_reason_of_ready_that_the_documentation_names() -> None:
    known = {(state.plural, state.reason) for state in every_state()}
    named = {(PLURALS[kind], reason) for kind, reason in documented()}
    assert {plural for plural, _ in named} == set(PLURALS.values())
    assert len(named) > 40
    assert named - known == set()


@pytest.mark.parametrize("plural", PLURALS.values())
def test_no_label_is_used_twice(plural: str) -> None:
    labels = [state.label for state in every_state() if state.plural == plural]
    assert len(labels) == len(set(labels))
    assert len(labels) >= 8


def test_only_what_is_ready_is_healthy_and_only_what_is_stalled_is_degraded() -> None:
    for state in every_state():
        conditions: Mapping[str, str] = {c["type"]: c["status"] for c in state.status["conditions"]}
        assert (state.verdict.argo == "Healthy") is (conditions["Ready"] == "True")
        assert (state.verdict.argo == "Degraded") is ("Stalled" in conditions)
        assert (state.verdict.argo == "Suspended") is (
            conditions["Ready"] == "False" and not {"Stalled", "Reconciling"} & set(conditions)
        )
