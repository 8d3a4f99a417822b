"""What the pages say is there is there, and what is there is said: settings, words, reasons, paths, links."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from babel import Locale

import lethe
from devtools.restores import CRM_ALONE, KINDS
from lethe.adapters.notices.letters import PACKAGED
from lethe.adapters.stores.sql.url import PARAMETERS
from lethe.cli import main as command
from lethe.domain.mapping import PiiKind
from lethe.domain.trouble import TroubleReason
from lethe.domain.trust import BlockReason
from lethe.settings import read_settings

CHECKOUT = Path(__file__).parents[1]
DOCS = CHECKOUT / "docs"
PACKAGE = Path(lethe.__file__).parent
GLOSSARY = DOCS / "dev" / "glossary.md"
WHERE = DOCS / "dev" / "where-to-change.md"
PAGES = (CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", CHECKOUT / "SECURITY.md", *DOCS.rglob("*.md"))


def read(page: str) -> str:
    return (DOCS / page).read_text()


def test_the_table_of_restores_has_every_kind_and_nobody_was_missed_in_any() -> None:
    lines = [
        line.strip("| ").split(" | ") for line in read("restores.md").splitlines() if line.startswith("| ")
    ]
    columns, rows = lines[0], [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    assert "what the engineer types" in columns
    assert [(row["kind"], row["what the engineer types"]) for row in rows] == [
        (kind.name, kind.typed) for kind in (*KINDS, CRM_ALONE)
    ]
    assert {(row["wrong rows"], row["missed"]) for row in rows} == {("0", "0")}


class Asked(Mapping[str, str]):
    """An empty environment that remembers what it was asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def test_the_table_of_settings_has_every_one_that_is_read_and_no_other() -> None:
    asked = Asked()
    read_settings(asked)
    rows = [
        line.split(" | ")[0] for line in read("operations.md").splitlines() if line.startswith("| `LETHE_")
    ]
    assert {name for cell in rows for name in re.findall(r"`(LETHE_\w+)`", cell)} == asked.names


def test_the_page_on_notices_names_every_packaged_language() -> None:
    (said,) = re.findall(r"packaged letters are ([\w, ]+);", read("notices.md"))
    tags = [file.name.split(".")[1] for file in PACKAGED.glob("user.*.txt")]
    assert set(re.split(", | and ", said)) == {Locale.parse(tag).get_display_name("en") for tag in tags}


def test_the_page_on_mappings_names_every_kind_of_personal_data() -> None:
    (listed,) = re.findall(r"`holds` \(([\w, ]+)\)", read("datastore.md"))
    assert listed.split(", ") == [kind.value for kind in PiiKind]


def test_the_page_on_mappings_names_every_parameter_of_a_database_url_and_no_other() -> None:
    (section,) = re.findall(r"^### The URL$(.*?)^#", read("datastore.md"), re.MULTILINE | re.DOTALL)
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == set(PARAMETERS)


def test_every_reason_that_stops_a_store_or_a_request_is_in_a_table_of_reasons() -> None:
    cells = [line for page in ("troubleshooting.md", "backups.md") for line in read(page).splitlines()]
    named = {name for cell in cells if cell.startswith("| ") for name in re.findall(r"`(\w+)`", cell)}
    assert {reason.value for reason in (*TroubleReason, *BlockReason)} - named == set()


def commands(parser: argparse.ArgumentParser, prefix: str) -> Iterator[str]:
    """Yield the commands of a parser that have none below them, as they are typed."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield prefix
    for action in below:
        for name, one in action.choices.items():
            yield from commands(one, f"{prefix} {name}")


def test_every_command_of_lethe_is_in_the_docs() -> None:
    text = "\n".join(page.read_text() for page in DOCS.glob("*.md"))
    there = set(commands(command._parser(), "lethe"))
    assert {"lethe run", "lethe ledger verify"} <= there
    assert {name for name in there if name not in text} == set()


@cache
def names_of(module: Path) -> frozenset[str]:
    """Return what a module defines: its classes, functions and constants, and members as `Class.member`."""
    found: set[str] = set()

    def define(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            match node:
                case ast.ClassDef(name=name):
                    found.add(prefix + name)
                    define(node.body, f"{prefix}{name}.")
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    found.add(prefix + name)
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(prefix + name)
                case _:
                    pass

    define(ast.parse(module.read_text()).body, "")
    return frozenset(found)


def entries() -> list[tuple[str, str, str]]:
    """Return the glossary's rows: word, meaning, where."""
    rows = [
        line.strip("|").split(" | ") for line in GLOSSARY.read_text().splitlines() if line.startswith("| ")
    ]
    return [(word.strip(), meaning, where) for word, meaning, where in rows[2:]]


def test_the_glossary_is_in_the_order_of_the_alphabet_and_names_nothing_twice() -> None:
    words = [word.casefold() for word, _, _ in entries()]
    assert words == sorted(words)
    assert len(words) == len(set(words)) > 60


@pytest.mark.parametrize("where", [pytest.param(where, id=word) for word, _, where in entries()])
def test_a_word_of_the_glossary_is_defined_where_it_says(where: str) -> None:
    named = re.findall(r"`([^`]+)`", where)
    modules = [PACKAGE / name for name in named if name.endswith(".py")]
    assert modules
    for module in modules:
        assert module.exists(), module
    for name in named:
        assert name.endswith(".py") or any(name in names_of(module) for module in modules), name


def test_what_the_glossary_puts_in_backticks_is_in_the_code() -> None:
    code = set(re.findall(r"\w+", "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))))
    meant = {name for _, meaning, _ in entries() for name in re.findall(r"`([^`]+)`", meaning)}
    assert {name for name in meant if not set(re.findall(r"\w+", name)) <= code} == set()


def paths() -> set[str]:
    """Return the paths that the page names; `<…>` stands for what a new one would be called."""
    root = r"README\.md|CHANGELOG\.md|Dockerfile|pyproject\.toml"
    named = re.findall(rf"`([\w.]+/[\w./*<>-]*|{root})`", WHERE.read_text())
    return {re.sub(r"<\w+>", "*", path) for path in named}


def test_every_path_of_the_page_of_changes_is_there() -> None:
    assert len(paths()) > 60
    assert {path for path in paths() if not any(CHECKOUT.glob(path.rstrip("/")))} == set()


def links(page: Path) -> Iterator[str]:
    """Yield where the links of a page lead within the checkout."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            yield target


def anchors(page: Path) -> set[str]:
    """Return the anchors that headings of a page have on GitHub."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), link


def test_every_make_target_that_a_page_names_is_there() -> None:
    text = "\n".join(page.read_text() for page in PAGES if page.parent.name != "adr")
    named = set(re.findall(r"(?:`|^    |; )make ([a-z][\w-]*)", text, re.MULTILINE))
    there = set(re.findall(r"^([a-z][\w-]*):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    assert {"check", "demo", "search"} <= named
    assert named - there == set()
