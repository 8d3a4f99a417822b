"""What no import contract says: who may know the tests, who records facts, who changes what is known."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import lethe
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


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """Yield every module below a folder with each top-level name that it imports."""
    for module in sorted((CHECKOUT / folder).rglob("*.py")):
        where = str(module.relative_to(CHECKOUT))
        for node in ast.walk(ast.parse(module.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            yield from ((where, name.partition(".")[0]) for name in names)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_tool_and_no_product_imports_the_tests(folder: str) -> None:
    found = [(where, name) for where, name in imports(folder) if name in FORBIDDEN[folder]]
    assert found == []
    assert {name for _, name in imports(folder)} & {"lethe", "devtools"}  # the walk sees something


def test_the_makefile_runs_modules_that_exist() -> None:
    text = (CHECKOUT / "Makefile").read_text() + (CHECKOUT / ".ci" / "run").read_text()
    modules = set(re.findall(r"-m (devtools[\w.]*)", text))
    assert modules
    for module in modules:
        path = CHECKOUT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
