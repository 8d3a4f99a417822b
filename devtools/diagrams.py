"""The diagrams and tables of docs/dev/architecture.md, from the code's own tables.

`python -m devtools.diagrams` writes them between their markers, `--check` says whether they are up to date.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import UnionType
from typing import get_args

from lethe.domain import drill_facts, facts, legal_facts
from lethe.domain.facts import (
    Accepted,
    FoundAgain,
    Intended,
    IntentAbandoned,
    NotAsked,
    NotFound,
    Planned,
    Verified,
)
from lethe.domain.requests import IllegalTransition, RequestRecord, StoreProgress, StoreState, evolve

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "dev" / "architecture.md"
AT = datetime(2026, 1, 1, tzinfo=UTC)
STORE_FACTS = (
    Intended("r", "s", ()),
    IntentAbandoned("r", "s", "why"),
    Verified("r", "s", AT),
    NotFound("r", "s", AT, "canary"),
    FoundAgain("r", "s", AT, ()),
    NotAsked("r", "s"),
    Planned("r", "s"),
)


def floors() -> str:
    """Draw the layers of the import contract: each may import those below it."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    contract = next(one for one in project["tool"]["importlinter"]["contracts"] if one["id"] == "layers")
    layers = [re.findall(r"\((\w+)\)", layer) for layer in contract["layers"]]
    lines = ["flowchart TD"]
    lines += [f"  {n}[{' · '.join(names)}]" for n, names in enumerate(layers)]
    lines += [f"  {n} --> {n + 1}" for n in range(len(layers) - 1)]
    return _mermaid(lines)


def request_in_a_store() -> str:
    """Draw how facts take a request through one store, by letting each follow each state."""
    lines = ["stateDiagram-v2", "  [*] --> Pending: Accepted"]
    for state in StoreState:
        for fact in STORE_FACTS:
            after = _after(state, fact)
            if after is not None and after is not state:
                lines.append(f"  {state} --> {after}: {type(fact).__name__}")
    settled = [state for state in StoreState if state.settled]
    return _mermaid([*lines, *(f"  {state} --> [*]" for state in settled)])


def _after(state: StoreState, fact: facts.RequestFact) -> StoreState | None:
    accepted = Accepted("r", "ns", "n", "digest", AT, AT, AT)
    record = RequestRecord(accepted, stores={"s": StoreProgress(state)})
    try:
        return evolve(record, fact).progress("s").state
    except IllegalTransition:
        return None


STORIES: Mapping[str, UnionType] = {
    "request-facts": facts.RequestFact,
    "restore-facts": facts.RestoreFact | facts.Reerased,
    "snapshot-facts": facts.SourceFact | facts.SnapshotFact | facts.CopiesGone,
    "legal-facts": legal_facts.LegalFact,
    "drill-facts": drill_facts.DrillFact,
}


def facts_of(kinds: Iterable[type]) -> str:
    """List facts with the first sentence of what they mean, in the order in which they are declared."""
    rows = ["| fact | says |", "| --- | --- |"]
    for kind in kinds:
        text = " ".join((inspect.getdoc(kind) or "").split())
        first = re.split(r"(?<=\.)\s", text)[0]
        rows.append(f"| `{kind.__name__}` | {first} |")
    return "\n".join(rows)


def facts_of_no_story() -> str:
    """List the facts that stand in no story's table."""
    told = {kind for story in STORIES.values() for kind in get_args(story)}
    return facts_of(kind for kind in facts.FACT_KINDS.values() if kind not in told)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "floors": floors,
    "request-in-a-store": request_in_a_store,
    **{name: partial(facts_of, get_args(story)) for name, story in STORIES.items()},
    "other-facts": facts_of_no_story,
}


def filled(page: str) -> str:
    """Return a page with every block between its markers. Raises `KeyError` for a marker without a block."""

    def fill(marker: re.Match[str]) -> str:
        return f"<!-- {marker[1]} -->\n\n{BLOCKS[marker[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- ([a-z-]+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


def _mermaid(lines: Iterable[str]) -> str:
    return "\n".join(("```mermaid", *lines, "```"))


def main() -> int:
    """Write the page, or tell how it differs."""
    before = PAGE.read_text()
    after = filled(before)
    if "--check" not in sys.argv:
        PAGE.write_text(after)
        return 0
    sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), after.splitlines(True)))
    return int(before != after)


if __name__ == "__main__":
    sys.exit(main())
