"""The generated CRDs: complete, the same on every machine, and fit for a real API server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lethe.api.crd import HEADER, definition, drift, main, render
from lethe.api.model import Resource
from lethe.api.v1alpha1 import KINDS, DeletionRequest
from tests.api.apiserver import PLURALS, RESOURCES, ApiServer
from tests.api.conftest import DEFINITIONS

if TYPE_CHECKING:
    from devtools.servers.controlplane import ControlPlane

CRDS = Path(__file__).parents[2] / "crds"


def _schema(kind: type[Resource]) -> dict[str, Any]:
    [version] = definition(kind)["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def _fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from _fields(field, f"{path}.{name}")
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if inner is not None:
            yield from _fields(inner, f"{path}[]")


SPEC_FIELDS = {
    path: field
    for kind in KINDS
    for path, field in _fields(_schema(kind)["properties"]["spec"], kind.definition.kind)
}


def test_the_committed_files_are_what_the_models_say() -> None:
    assert drift(CRDS) == []


def test_drift_names_what_is_missing_changed_or_left_over(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    assert drift(tmp_path) == []
    (tmp_path / "lethe.dev_datastores.yaml").unlink()
    (tmp_path / "lethe.dev_legalrequests.yaml").write_text(HEADER, encoding="utf-8")
    (tmp_path / "lethe.dev_gone.yaml").write_text(HEADER, encoding="utf-8")
    (tmp_path / "values.yaml").write_text("not ours", encoding="utf-8")
    stale = ["lethe.dev_datastores.yaml", "lethe.dev_gone.yaml", "lethe.dev_legalrequests.yaml"]
    assert drift(tmp_path) == stale


def test_the_check_fails_on_drift_and_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    (tmp_path / "lethe.dev_datastores.yaml").write_text("", encoding="utf-8")
    assert main(["--check", str(tmp_path)]) == 1
    assert "lethe.dev_datastores.yaml is not what the models say; run `make crds`" in capsys.readouterr().err


def test_the_same_bytes_come_out_of_every_process(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-m", "lethe.api.crd", str(tmp_path / seed)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    for name, text in render().items():
        assert (tmp_path / "1" / name).read_text() == (tmp_path / "2" / name).read_text() == text


def test_every_field_that_a_person_writes_is_explained_in_a_sentence_or_two() -> None:
    unexplained = [
        path for path, field in SPEC_FIELDS.items() if not 0 < len(field.get("description", "")) < 250
    ]
    assert len(SPEC_FIELDS) > 150
    assert unexplained == []


def test_no_field_that_a_person_writes_has_a_pattern() -> None:
    """The API server answers a broken pattern with the value; a rule keeps it to itself."""
    assert [
        path for path, field in SPEC_FIELDS.items() if "pattern" in {*field, *field.get("items", {})}
    ] == []


def test_kinds_that_cannot_be_changed_have_no_defaults() -> None:
    """A changed default changes stored objects silently; `dryRun` must be there for its rule."""
    defaults = [
        path
        for path, field in SPEC_FIELDS.items()
        if "default" in field and not path.startswith(("DataStore.", "BackupSource.", "RestoreDrill."))
    ]
    assert defaults == ["DeletionRequest.dryRun"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_api_server_takes_the_definition_without_reservation(
    kind: type[Resource], apiserver: ApiServer
) -> None:
    shown = apiserver.send("GET", f"{DEFINITIONS}/{kind.definition.plural}.lethe.dev").body
    conditions = {each["type"]: each["status"] for each in shown["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in conditions


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_api_server_stores_the_schema_as_it_was_generated(
    kind: type[Resource], apiserver: ApiServer
) -> None:
    shown = apiserver.send("GET", f"{DEFINITIONS}/{kind.definition.plural}.lethe.dev").body
    assert (
        shown["spec"]["versions"]
        == yaml.safe_load(render()[f"lethe.dev_{kind.definition.plural}.yaml"])["spec"]["versions"]
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_can_be_selected_can_be_watched_by(
    kind: type[Resource], apiserver: ApiServer, namespace: str
) -> None:
    for path in kind.definition.selectable:
        listing = f"{RESOURCES}/namespaces/{namespace}/{kind.definition.plural}"
        assert apiserver.send("GET", f"{listing}?fieldSelector={path.removeprefix('.')}%3DNowhere")


def test_kubectl_get_dreq_shows_where_it_stands_and_until_when(apiserver: ApiServer, namespace: str) -> None:
    path = f"{RESOURCES}/namespaces/{namespace}/{DeletionRequest.definition.plural}"
    table = apiserver.send("GET", path, accept="application/json;as=Table;v=v1;g=meta.k8s.io").body
    shown = [column["name"] for column in table["columnDefinitions"] if column["priority"] == 0]
    assert shown == ["Name", "State", "Erased", "Last copy gone", "Age"]


def test_kubectl_get_lethe_lists_every_kind(apiserver: ApiServer) -> None:
    resources = apiserver.send("GET", RESOURCES).body["resources"]
    named = {each["name"]: each for each in resources if "/" not in each["name"]}
    assert set(named) == set(PLURALS.values())
    assert all(each["categories"] == ["lethe"] and each["namespaced"] for each in named.values())
    assert sorted(short for each in named.values() for short in each["shortNames"]) == [
        "bsnap", "bsrc", "dreq", "dstore", "lreq", "rdrill", "revent",
    ]  # fmt: skip


def test_kubectl_explain_tells_what_a_field_means(
    control_plane: "ControlPlane", apiserver: ApiServer
) -> None:
    told = control_plane.kubectl("explain", "datastores.spec.sql.subjects.clear.to")
    assert "What it is cleared to: NULL, a template, a value, or the column's default." in " ".join(
        str(told).split()
    )
