"""From pydantic's JSON Schema to the structural schema of a CustomResourceDefinition.

A structural schema has one type per field, no references and no alternatives. What it can't say is an
error here, at build time, and not a field that the API server drops or leaves unchecked.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from lethe.api.rules import VALIDATIONS

_INT_OR_STRING = "x-kubernetes-int-or-string"
_INTEGER_AND_STRING = ([{"type": "integer"}, {"type": "string"}], [{"type": "string"}, {"type": "integer"}])
_REFERENCE = "#/$defs/"

# Formats that the API server checks as pydantic means them. Its `duration`, for one, is Go's, not ISO 8601's.
_FORMATS = frozenset({"int32", "int64", "float", "double", "date", "date-time", "byte"})

_KEYWORDS_OF_TYPE = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "integer": frozenset(
        {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format"}
    ),
    "number": frozenset(
        {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format"}
    ),
    "boolean": frozenset[str](),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "object": frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"}),
}
_KEYWORDS_OF_ALL = frozenset({"type", "description", "default", "enum"})
_BOUND = {"string": "maxLength", "array": "maxItems"}


class NotStructural(Exception):
    """A schema says something that a structural schema can't, or leaves out what it must say.

    `path` leads to the place, `problem` says what stands there.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


def structural_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the structural schema of `model`, under the names on the wire.

    Raises `NotStructural`.
    """
    return to_structural(model.model_json_schema(by_alias=True, mode="validation"), path=model.__name__)


def to_structural(json_schema: Mapping[str, Any], *, path: str = "") -> dict[str, Any]:
    """Return `json_schema` (with its `$defs`) as a structural schema.

    References are put in place, an optional field loses its `null`, a constant becomes an enum of one, an
    exclusive bound becomes a bound and a boolean, titles go, and so do defaults that are null or empty.
    Every string, list and map must be bounded: the cost of CEL rules is judged by the bounds.

    Raises `NotStructural`.
    """
    schema = dict(json_schema)
    return _converted(schema, dict(schema.pop("$defs", {})), path, ())


def _converted(
    schema: Mapping[str, Any], defs: Mapping[str, Any], path: str, within: tuple[str, ...]
) -> dict[str, Any]:
    flat, within = _resolved(schema, defs, path, within)
    flat.pop("title", None)
    if "description" in flat:
        flat["description"] = first_paragraph(flat["description"])
    if flat.get("default", ...) in (None, [], {}, ()):  # Python's way to say "absent"
        flat.pop("default", None)
    if "const" in flat:
        flat["enum"] = [flat.pop("const")]
    if _INT_OR_STRING in flat:
        _refuse_unknown(flat, frozenset({"description", "default"}), path)
        return _ordered(flat)
    flat["type"] = kind = _type_of(flat, path)
    _refuse_unknown(flat, _KEYWORDS_OF_ALL | _KEYWORDS_OF_TYPE[kind], path)
    _refuse_unbounded(flat, kind, path)
    if flat.get("format", "int32") not in _FORMATS:
        raise NotStructural(
            path, f"format {flat['format']} is unknown to the API server or means something else there"
        )
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in flat:
            if bound in flat:
                raise NotStructural(path, f"has both {bound} and {exclusive}")
            flat[bound], flat[exclusive] = flat[exclusive], True
    if "items" in flat:
        flat["items"] = _converted(flat["items"], defs, f"{path}[]", within)
    if "additionalProperties" in flat:
        flat["additionalProperties"] = _converted(flat["additionalProperties"], defs, f"{path}[*]", within)
    if "properties" in flat:
        flat["properties"] = {
            name: _converted(field, defs, f"{path}.{name}", within)
            for name, field in flat["properties"].items()
        }
    return _ordered(flat)


def _resolved(
    schema: Mapping[str, Any], defs: Mapping[str, Any], path: str, within: tuple[str, ...]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return `schema` with references and optionality put in place, and the references that it stands in."""
    flat = dict(schema)
    while "$ref" in flat or "anyOf" in flat:
        if "$ref" in flat:
            reference = flat.pop("$ref")
            name = reference.removeprefix(_REFERENCE)
            if name == reference or name not in defs:
                raise NotStructural(
                    path, f"refers to {reference}, which is not among the schema's definitions"
                )
            if name in within:
                raise NotStructural(path, f"contains itself ({name})")
            within = (*within, name)
            flat = _joined(defs[name], flat)
            continue
        choices = [choice for choice in flat.pop("anyOf") if choice != {"type": "null"}]
        if len(choices) == 1:
            flat = _joined(choices[0], flat)
        elif choices in _INTEGER_AND_STRING:
            flat[_INT_OR_STRING] = True
        else:
            raise NotStructural(path, "anyOf: a field has one type; make the alternatives optional fields")
    return flat, within


def _joined(inner: Mapping[str, Any], outer: Mapping[str, Any]) -> dict[str, Any]:
    """Return `inner` with what the place where it is used says of it; rules add up."""
    joined = {**inner, **outer}
    rules = [*inner.get(VALIDATIONS, []), *outer.get(VALIDATIONS, [])]
    if rules:
        joined[VALIDATIONS] = rules
    return joined


def _type_of(schema: Mapping[str, Any], path: str) -> str:
    if "enum" in schema:
        types = {_NAME_OF_TYPE.get(type(value)) for value in schema["enum"]}
        if types not in ({"string"}, {"integer"}, {"boolean"}):
            raise NotStructural(
                path, "enum: its values must all be strings, or all integers, or all booleans"
            )
        [found] = types
        if schema.get("type", found) != found:
            raise NotStructural(path, f"enum: its values are not of type {schema['type']}")
        return str(found)
    if "type" not in schema:
        unusual = ", ".join(sorted(set(schema) - _KEYWORDS_OF_ALL)) or "nothing"
        raise NotStructural(path, f"has no type (it says {unusual})")
    if schema["type"] not in list(_KEYWORDS_OF_TYPE):  # which may be a list itself
        raise NotStructural(path, f"type {schema['type']} does not exist in a structural schema")
    return str(schema["type"])


_NAME_OF_TYPE: dict[type, str] = {str: "string", int: "integer", bool: "boolean"}


def _refuse_unknown(schema: Mapping[str, Any], known: frozenset[str], path: str) -> None:
    unknown = sorted(name for name in schema if name not in known and not name.startswith("x-kubernetes-"))
    if unknown:
        raise NotStructural(path, f"{', '.join(unknown)} can't be said in a structural schema")


def _refuse_unbounded(schema: Mapping[str, Any], kind: str, path: str) -> None:
    if kind in _BOUND and _BOUND[kind] not in schema and "enum" not in schema:
        raise NotStructural(path, f"has no {_BOUND[kind]}")
    if kind == "array" and "items" not in schema:
        raise NotStructural(path, "does not say what its items are")
    if kind != "object":
        return
    if "additionalProperties" in schema:
        if isinstance(schema["additionalProperties"], bool):
            raise NotStructural(
                path, "additionalProperties must be a schema: true checks nothing, false is refused"
            )
        if "properties" in schema:
            raise NotStructural(path, "is an object with fields and a map at once")
        if "maxProperties" not in schema:
            raise NotStructural(path, "has no maxProperties")
    elif not schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
        raise NotStructural(
            path, "has neither fields nor values: the API server would drop all that is in it"
        )


def first_paragraph(text: str) -> str:
    """Return the first paragraph of a docstring as one line: what `kubectl explain` shows."""
    return " ".join(text.strip().split("\n\n")[0].split())


_ORDER = (
    "description", "type", "format", "enum", "default", "minLength", "maxLength", "pattern", "minimum",
    "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems",
    "minProperties", "maxProperties", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type", _INT_OR_STRING, "x-kubernetes-preserve-unknown-fields", VALIDATIONS,
    "required", "properties", "additionalProperties", "items",
)  # fmt: skip


def _ordered(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return `schema` in the order in which a person reads it; what is new comes last, by name."""
    names = [name for name in _ORDER if name in schema]
    return {name: schema[name] for name in (*names, *sorted(set(schema) - set(_ORDER)))}
