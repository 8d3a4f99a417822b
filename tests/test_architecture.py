"""What an import contract can't say: who records facts, and who changes what is known of a store."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

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
