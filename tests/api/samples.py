"""The manifests of the contract, and changed copies of them."""

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lethe.api.model import Resource
from lethe.api.v1alpha1 import KINDS

ADDRESS = "jane.doe@example.org"
"""What must not come back from a refusal."""

REMOVED = object()

MANIFESTS: tuple[dict[str, Any], ...] = tuple(
    document
    for path in sorted((Path(__file__).parent / "manifests").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
)
MODELS: dict[str, type[Resource]] = {kind.definition.kind: kind for kind in KINDS}


def manifest(kind: str, name: str) -> dict[str, Any]:
    [found] = [each for each in MANIFESTS if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return copy.deepcopy(found)


def changed(original: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with each path of `changes` (`spec.sql.subjects.clear[0].to`) set, or `REMOVED`."""
    result = copy.deepcopy(dict(original))
    for path, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]
        place: Any = result
        for part in parents:
            place = place[part] if isinstance(part, int) else place.setdefault(part, {})
        if value is REMOVED:
            del place[last]
        else:
            place[last] = value
    return result


def leaves(tree: object, path: str) -> Iterator[str]:
    """Return the path of every value in `tree` that is neither a list nor a map."""
    if isinstance(tree, Mapping):
        for name, inner in tree.items():
            yield from leaves(inner, f"{path}.{name}")
    elif isinstance(tree, list):
        for number, inner in enumerate(tree):
            yield from leaves(inner, f"{path}[{number}]")
    else:
        yield path
