"""docs/claims.md against the code: each way to say that a promise is kept has a row and its tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import lethe

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs" / "claims.md"
CONDITIONS = Path(lethe.__file__).parent / "domain" / "conditions"
PROMISES = {
    "BackupsCovered",
    "Erased",
    "Holding",
    "MappingComplete",
    "Passed",
    "Permitted",
    "Purged",
    "Replayed",
    "RetentionEffective",
    "SafeToServe",
    "StatisticsRenewed",
    "UserInformed",
}
Claim = tuple[str, str, str]
"""Kind (the module's stem), condition, reason; the reason is `…` where the code does not write it out."""


def constant(node: ast.expr, names: dict[str, str]) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name) if name in names:
            return names[name]
        case _:
            return "…"


def claimed(source: str, kind: str) -> Iterator[Claim]:
    """Yield every condition that a module may say to be true, of those that promise something."""
    module = ast.parse(source)
    names = {
        target.id: node.value.value
        for node in ast.walk(module)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }
    for node in ast.walk(module):
        match node:
            case ast.Call(func=ast.Name(id="Condition"), args=[kind_of, status, reason, *_]):
                told = constant(kind_of, names)
                never = isinstance(status, ast.Name) and status.id in ("FALSE", "UNKNOWN")
                if told in PROMISES and not never:
                    yield kind, told, constant(reason, names)


def in_the_code() -> set[Claim]:
    return {claim for path in CONDITIONS.glob("*.py") for claim in claimed(path.read_text(), path.stem)}


def rows() -> Iterator[tuple[Claim, str]]:
    """Yield the claims of the page, each with its row."""
    section: tuple[str, str] | None = None
    for line in PAGE.read_text().splitlines():
        if heading := re.fullmatch(r"## `(\w+)` of an? (\w+)", line):
            section = heading[2].lower(), heading[1]
        elif section and (row := re.match(r"\| `([\w…]+)` \|", line)):
            yield (*section, row[1]), line


@cache
def defined_in(file: str) -> frozenset[str]:
    module = ast.parse((CHECKOUT / file).read_text())
    return frozenset(
        node.name
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    )


def test_what_may_be_said_to_be_true_is_found_in_the_code() -> None:
    source = (
        'kind = "Purged"\n'
        'Condition(kind, TRUE, "Verified", "m")\nCondition("Erased", FALSE, "No", "m")\n'
        'Condition("Holding", ConditionStatus.of(x), why, "m")\nCondition("Ready", TRUE, "Yes", "m")\n'
    )
    assert list(claimed(source, "k")) == [("k", "Purged", "Verified"), ("k", "Holding", "…")]


def test_every_promise_has_a_row_for_each_reason_with_which_it_is_said_to_be_kept() -> None:
    assert {claim for claim, _ in rows()} == in_the_code()
    assert {condition for _, condition, _ in in_the_code()} == PROMISES


@pytest.mark.parametrize("row", [row for _, row in rows()])
def test_a_row_says_what_was_seen_what_not_and_which_tests_break(row: str) -> None:
    cells = row.strip("|").split(" | ")
    assert len(cells) == 4
    assert all(cell.strip() for cell in cells)
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", cells[-1])
    assert named
    assert {test for file, test in named if test not in defined_in(file)} == set()
