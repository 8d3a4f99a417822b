"""Whether the CRDs that the API server serves are those of this operator, or newer ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lethe.api.crd import definition
from lethe.api.v1alpha1 import KINDS

Schema = Mapping[str, Any]
REMEDY = (
    "upgrade the CRDs: helm upgrade with crds.enabled, or "
    "lethe crds | kubectl apply --server-side --force-conflicts -f -"
)


def shortfall(served: Schema | None) -> str | None:
    """Return in one sentence what is missing of the CRDs, and the remedy; `None`: nothing is.

    `served` is the OpenAPI document of the group's version; `None`: the API server serves none. With a field
    or a value too few, the API server drops what was written without a word, or refuses the whole status.
    """
    schemas = (served or {}).get("components", {}).get("schemas", {})
    by_kind = {
        each["kind"]: schema
        for schema in schemas.values()
        for each in schema.get("x-kubernetes-group-version-kind", ())
        if each.get("version") == "v1alpha1" and "spec" in schema.get("properties", {})
    }
    for kind in KINDS:
        wanted = definition(kind)
        name = wanted["metadata"]["name"]
        known = by_kind.get(wanted["spec"]["names"]["kind"])
        if known is None:
            return f"the CustomResourceDefinition {name} is missing; {REMEDY}"
        schema = wanted["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for part in ("spec", "status"):
            lacking = next(
                _lacking(schema["properties"][part], known["properties"].get(part, {}), part), None
            )
            if lacking is not None:
                return (
                    f"the CustomResourceDefinition {name} is older than this operator: "
                    f"it does not know {lacking}; {REMEDY}"
                )
    return None


def _lacking(wanted: Schema, known: Schema, path: str) -> Iterator[str]:
    """Yield fields and values that a schema does not know. What only it knows is a newer version's."""
    for value in wanted.get("enum", ()):
        if "enum" in known and value not in known["enum"]:
            yield f"the value {value} of {path}"
    for name, field in wanted.get("properties", {}).items():
        if name not in known.get("properties", {}):
            yield f"{path}.{name}"
        else:
            yield from _lacking(field, known["properties"][name], f"{path}.{name}")
    for below, suffix in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(wanted.get(below), Mapping) and isinstance(known.get(below), Mapping):
            yield from _lacking(wanted[below], known[below], path + suffix)
