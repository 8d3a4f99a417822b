"""What Argo CD, kstatus and Flux make of objects: asked of the interpreters and libraries that those use."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from devtools.builds.kstatus.build import kstatus
from devtools.servers.children import run

GITOPS = Path(__file__).resolve().parents[2] / "examples" / "gitops"
HEALTH = GITOPS / "argocd" / "health.lua"


class Judgement(NamedTuple):
    """`kstatus` is Current, InProgress or Failed; `flux` the same, by the example's healthCheckExprs where it
    has some for the kind; `argo` is Argo CD's health, with `message` beside it.
    """

    kstatus: str
    flux: str
    argo: str
    message: str


def matched(objects: Sequence[Mapping[str, Any]]) -> list[Judgement]:
    """Return what is made of each object."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as checks:
        json.dump(health_checks(), checks)
        checks.flush()
        said = run(
            [kstatus(), "-health", HEALTH, "-checks", checks.name],
            input="".join(json.dumps(one) + "\n" for one in objects),
        )
    answers = [json.loads(line) for line in said.splitlines()]
    assert len(answers) == len(objects)
    return [
        Judgement(one["kstatus"], one["flux"], one["argo"]["status"], one["argo"]["message"])
        for one in answers
    ]


def health_checks() -> list[dict[str, Any]]:
    """Return the CEL expressions that examples/gitops/flux gives Flux."""
    documents = yaml.safe_load_all((GITOPS / "flux" / "sync.yaml").read_text())
    return [check for one in documents for check in one["spec"].get("healthCheckExprs", ())]
