"""What may know what: the rules of the house that no import contract of the package can say."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

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
