"""What Hypothesis tells of a failing example, as code to paste beside the test that met it."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import sys
from types import ModuleType

import pytest

NAME = "test_found_by_search"


def as_test(item: pytest.Function, error: BaseException) -> str:
    """Return a test that replays a failing machine's steps, or the `@example` of a failing property.

    `error` is what Hypothesis raised. Where what it drew can't be written as code, its own words are
    returned as comments, with the line by which it reproduces the example.
    """
    told = [line for note in getattr(error, "__notes__", ()) for line in note.splitlines()]
    code = _steps(item, told) or _example(item, told)
    if code is None or not _compiles(code):
        told = [*f"{type(error).__name__}: {error}".splitlines(), *told]
        return "\n".join(f"# {line}" for line in told)
    code, imports = _in_terms_of(item.module, code)
    return "\n".join([*imports, code])


def _steps(item: pytest.Function, told: list[str]) -> str | None:
    starts = [n for n, line in enumerate(told) if line.startswith("state = ")]
    ends = [n for n, line in enumerate(told) if line == "state.teardown()"]
    if not starts or not ends:
        return None
    steps = [f"    {line}" for line in told[starts[-1] : ends[-1] + 1]]
    return "\n".join([*_head(item), *steps])


def _head(item: pytest.Function) -> list[str]:
    """Return a function's first line that asks for the same fixtures as a test."""
    parameters = inspect.signature(item.function).parameters.values()
    asked = ", ".join(
        one.name if one.annotation is one.empty else f"{one.name}: {_annotation(one.annotation)}"
        for one in parameters
    )
    return [f"def {NAME}({asked}) -> None:"]


def _annotation(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _example(item: pytest.Function, told: list[str]) -> str | None:
    """Return the decorator, without what fixtures gave."""
    starts = [n for n, line in enumerate(told) if re.match(r"Failing test case: \w+\($", line)]
    if not starts:
        return None
    arguments = told[starts[-1] + 1 :]
    arguments = arguments[: arguments.index(")")]
    kept, keep = [], True
    for line in arguments:
        if begins := re.match(r" {4}(\w+)=", line):
            keep = begins[1] not in {"self", *item.funcargs}
        if keep:
            kept.append(line)
    return "\n".join(["@example(", *kept, ")", f"# ... above {item.originalname}"])


def _compiles(code: str) -> bool:
    try:
        _parsed(code)
    except SyntaxError:
        return False
    return True


def _parsed(code: str) -> ast.Module:
    return ast.parse(f"{code}\ndef f(): ..." if code.startswith("@") else code)


def _in_terms_of(module: ModuleType, code: str) -> tuple[str, list[str]]:
    """Return code by names that a module has, and the imports of those that it lacks.

    `datetime.timezone.utc` becomes the module's `UTC`, and `datetime` another name where it means the class.
    """
    known = vars(module)
    by_identity = {id(value): name for name, value in known.items() if not name.startswith("__")}
    imports = set[str]()
    for name in sorted(_free_names(code) - vars(builtins).keys()):
        if name in sys.stdlib_module_names and not isinstance(known.get(name), ModuleType):
            library, alias = importlib.import_module(name), f"{name}_" if name in known else name

            def said(dotted: re.Match[str], library: ModuleType = library, alias: str = alias) -> str:
                value: object = library
                for part in dotted[1].split(".")[1:]:
                    value = getattr(value, part)
                return by_identity.get(id(value)) or alias + dotted[1]

            code = re.sub(rf"(?<![\w.'\"]){name}((?:\.\w+)+)", said, code)
            if alias in _free_names(code):
                imports.add(f"import {name}" if alias == name else f"import {name} as {alias}")
        elif name not in known and (home := _home_of(name, module)):
            imports.add(f"from {home} import {name}")
    return code, sorted(imports)


def _free_names(code: str) -> set[str]:
    names = [node for node in ast.walk(_parsed(code)) if isinstance(node, ast.Name)]
    return {one.id for one in names} - {one.id for one in names if isinstance(one.ctx, ast.Store)}


def _home_of(name: str, module: ModuleType) -> str | None:
    """Return a module that has a name and that a test's module takes classes from: the one of its machine."""
    homes = sorted({value.__module__ for value in vars(module).values() if inspect.isclass(value)})
    return next((home for home in homes if name in vars(sys.modules[home])), None)
