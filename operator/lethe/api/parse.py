"""From a manifest to a model. What is said about a bad one never holds a value of it."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lethe.api.model import API_VERSION, ApiModel, Resource

R = TypeVar("R", bound=Resource)

# The texts of these hold bounds and choices of the schema, never what was given.
_SAFE_TEXTS = frozenset(
    {
        "missing", "rule", "instant", "enum", "literal_error", "bool_type", "bool_parsing", "int_type",
        "int_parsing", "int_from_float", "string_type", "string_too_short", "string_too_long",
        "string_pattern_mismatch", "greater_than", "greater_than_equal", "less_than", "less_than_equal",
        "too_short", "too_long", "list_type", "tuple_type", "dict_type", "mapping_type", "model_type",
        "model_attributes_type", "timezone_aware", "datetime_type", "date_type",
    }
)  # fmt: skip


class InvalidManifest(Exception):
    """A manifest does not say what its kind can say.

    `field` is a path such as `spec.sql.subjects.clear[0].to`, `problem` a clause such as
    "Field required". Neither holds a value, nor a key that a person chose.
    """

    def __init__(self, kind: str, namespace: str, name: str, field: str, problem: str) -> None:
        super().__init__(f"{kind} {namespace}/{name}: {field}: {problem}")
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.field = field
        self.problem = problem


def parse(model: type[R], manifest: Mapping[str, Any]) -> R:
    """Return `manifest` as a `model`.

    A status that can't be read (a newer Lethe wrote it) is taken for one that was never written: it is
    display, and is rebuilt from the ledger.

    Raises `InvalidManifest` for anything else that can't be read.
    """
    body = dict(manifest)
    errors = list(_wrong_kind(model, body))
    if not errors:
        try:
            return model.model_validate(body)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_context=True, include_input=False)
    if all(error["loc"][:1] == ("status",) for error in errors) and "status" in body:
        return parse(model, {name: part for name, part in body.items() if name != "status"})
    # Raised outside of the except block: as its context, pydantic's error would carry the values along.
    raise _invalid(model, body, errors[0])


def _wrong_kind(model: type[Resource], body: Mapping[str, Any]) -> Iterator[ErrorDetails]:
    for name, expected in (("apiVersion", API_VERSION), ("kind", model.definition.kind)):
        if body.get(name, expected) != expected:
            yield ErrorDetails(type="literal_error", loc=(name,), msg=f"must be {expected}", input=None)


def _invalid(model: type[Resource], body: Mapping[str, Any], error: ErrorDetails) -> InvalidManifest:
    metadata = body.get("metadata")
    named = metadata if isinstance(metadata, Mapping) else {}
    below = error.get("ctx", {}).get("below", "")
    return InvalidManifest(
        kind=model.definition.kind,
        namespace=str(named.get("namespace", "")),
        name=str(named.get("name", "")),
        field=_path(error["loc"]) + below,
        problem=error["msg"] if error["type"] in _SAFE_TEXTS else "can't be read",
    )


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    known = _names_of_fields()
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part in known:
            path += f".{part}" if path else part
        else:  # a key of a map is a person's own word: a header, a label, perhaps an address
            path += "[*]"
    return path


def _names_of_fields() -> frozenset[str]:
    names = {"apiVersion", "kind"}
    models = list(ApiModel.__subclasses__())
    while models:
        model = models.pop()
        names.update(field.alias or name for name, field in model.model_fields.items())
        models.extend(model.__subclasses__())
    return frozenset(names)
