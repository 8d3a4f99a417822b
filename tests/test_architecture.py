"""What no import contract says: who may know the tests, who records facts, who changes what is known."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module, util
from pathlib import Path

import pytest

import lethe
from lethe.api.v1alpha1 import restoreevent
from lethe.api.v1alpha1.datastore import GATE_WAYS
from lethe.cli.restore import OTHER_WAYS
from lethe.controllers.early_warning_kinds import WATCHED
from lethe.settings import EARLY_WARNINGS
from lethe.workflows.store_session import StoreSession

PACKAGE = Path(lethe.__file__).parent
WORKFLOWS = PACKAGE / "workflows"
RECORDS = """
self._ledger.append([fact])
asyncio.to_thread(ledger.append, facts)
context.ledger.append(facts)
"""
CHANGES = """
session.trouble = None
managed.store.proof = proof
session.stable_observations, session.stable_identity = 0, None
session.ledger_behind: bool = True
session.stable_observations += 1
del session.proof
"""


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Yield every module of the package, parsed."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def last_name(node: ast.expr) -> str:
    """Return the last name of a dotted expression: `store` of `managed.store`; else nothing."""
    match node:
        case ast.Name(name) | ast.Attribute(attr=name):
            return name.lstrip("_")
        case _:
            return ""


def appended(module: ast.AST) -> Iterator[int]:
    """Yield the lines in which a ledger's `append` is called, or handed on to be called."""
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and node.attr == "append" and "ledger" in last_name(node.value):
            yield node.lineno


def changed(module: ast.AST) -> Iterator[int]:
    """Yield the lines in which what is known of a store is assigned or deleted."""
    known = {field.name for field in fields(StoreSession)}
    for node in ast.walk(module):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store | ast.Del)
            and node.attr in known
            and last_name(node.value) in ("session", "store")
        ):
            yield node.lineno


def test_both_rules_see_what_breaks_them() -> None:
    assert list(appended(ast.parse(RECORDS))) == [2, 3, 4]
    assert sorted(changed(ast.parse(CHANGES))) == [2, 3, 4, 4, 5, 6, 7]


def test_only_workflows_append_facts() -> None:
    found = {path: list(appended(module)) for path, module in modules()}
    elsewhere = {str(path): lines for path, lines in found.items() if lines and WORKFLOWS not in path.parents}
    assert elsewhere == {}
    assert any(found.values())


def test_only_a_session_changes_a_session() -> None:
    found = {str(path): lines for path, module in modules() if (lines := list(changed(module)))}
    assert found == {}


CHECKOUT = Path(__file__).parents[1]
FORBIDDEN = {
    "operator": {"tests", "devtools", "examples", "bench"},
    "devtools": {"tests", "examples", "bench"},
    "examples": {"tests", "bench"},
    "bench": {"tests", "examples"},
}


def modules_named(source: str) -> Iterator[str]:
    """Yield what Python source imports, and each string that is nothing but a dotted name.

    Such strings are what `python -m` and `import_module` are given. A relative import stays in its folder.
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (one.name for one in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.Constant(value=str(text)) if re.fullmatch(r"\w+(?:\.\w+)+", text):
                yield text


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """Yield every module below a folder with each top-level name that it imports, runs or loads by name."""
    for module in sorted((CHECKOUT / folder).rglob("*.py")):
        where = str(module.relative_to(CHECKOUT))
        yield from ((where, name.partition(".")[0]) for name in modules_named(module.read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "import tests.e2e",
        "def late():\n    from tests import conftest",
        "from tests.e2e.notices import gag",
        "run(['-m', 'tests.e2e.crashing'])",
    ],
)
def test_every_way_to_name_a_module_is_found(source: str) -> None:
    assert [name.partition(".")[0] for name in modules_named(source)] == ["tests"]


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_tool_and_no_product_imports_the_tests(folder: str) -> None:
    found = [(where, name) for where, name in imports(folder) if name in FORBIDDEN[folder]]
    assert found == []
    assert {name for _, name in imports(folder)} & {"lethe", "devtools"}  # the walk sees something


def test_the_contract_of_stores_names_every_package_of_a_store() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    contract = next(one for one in project["tool"]["importlinter"]["contracts"] if one["id"] == "stores")
    packages = {init.parent.name for init in (PACKAGE / "adapters" / "stores").glob("*/__init__.py")}
    assert set(contract["modules"]) == {f"lethe.adapters.stores.{name}" for name in packages}


def test_whatever_is_watched_for_restores_can_be_asked_for_and_said() -> None:
    assert {one.by for one in WATCHED.values()} == set(EARLY_WARNINGS)
    assert {one.kind for one in WATCHED.values()} == {kind.value for kind in restoreevent.ExpectedKind}


def test_every_way_to_close_the_gate_is_told_of_by_the_plugin_and_on_its_page() -> None:
    assert {"podSelector", *OTHER_WAYS} == set(GATE_WAYS)
    table = (CHECKOUT / "docs" / "gate.md").read_text().partition("| way |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(GATE_WAYS)


def test_the_makefile_runs_modules_that_exist() -> None:
    text = (CHECKOUT / "Makefile").read_text() + (CHECKOUT / ".ci" / "run").read_text()
    run = set(re.findall(r"(?:\$\(PYTHON_IN_VENV\)|\.venv/bin/python) -m ([\w.]+)", text))
    assert {"bench", "devtools.chart", "devtools.cluster", "devtools.node.possible"} <= run
    assert [module for module in run if module.startswith("tests")] == []
    for module in sorted(run - {"pytest", "venv"}):
        found = util.find_spec(module)
        assert found is not None, module
        if found.submodule_search_locations is not None:
            found = util.find_spec(f"{module}.__main__")
        assert found is not None, module
        assert found.origin is not None
        assert 'if __name__ == "__main__":' in Path(found.origin).read_text(), module
        import_module(found.name)
