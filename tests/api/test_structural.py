"""The converter says all that a structural schema can say, and fails on all that it can't."""

from collections.abc import Mapping
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from lethe.api.model import ApiModel
from lethe.api.rules import VALIDATIONS, Rule
from lethe.api.structural import NotStructural, structural_schema, to_structural

Text = Annotated[str, Field(max_length=8)]


class Colour(StrEnum):
    """A colour.

    Not shown.
    """

    RED = "Red"
    BLUE = "Blue"


class Inner(ApiModel):
    """The inner part."""

    rules = (Rule(rule="self.a != ''", message="inner"),)

    a: Text


def _converted(annotation: Any, default: Any = ...) -> dict[str, Any]:
    """Return the schema of a model's one field of type `annotation`."""
    model = type("Sample", (BaseModel,), {"__annotations__": {"field": annotation}, "field": Field(default)})
    schema = structural_schema(model)["properties"]["field"]
    assert isinstance(schema, dict)
    return schema


def test_an_optional_field_loses_its_null_and_its_default_of_none() -> None:
    assert _converted(Text | None, None) == {"type": "string", "maxLength": 8}


def test_a_default_that_says_something_is_kept() -> None:
    assert _converted(bool, False) == {"type": "boolean", "default": False}
    assert _converted(Annotated[int, Field(ge=0)], 0) == {"type": "integer", "default": 0, "minimum": 0}


def test_an_empty_default_is_python_for_absent() -> None:
    assert "default" not in _converted(Annotated[tuple[Text, ...], Field(max_length=3)], ())


def test_a_constant_becomes_an_enum_of_one() -> None:
    assert _converted(Literal["only"]) == {"type": "string", "enum": ["only"]}


def test_an_enum_keeps_its_type_and_the_first_paragraph_of_its_docstring() -> None:
    assert _converted(Colour) == {"description": "A colour.", "type": "string", "enum": ["Red", "Blue"]}


def test_an_enum_of_integers_is_one_of_integers() -> None:
    assert _converted(IntEnum("Port", {"http": 80, "https": 443})) == {"type": "integer", "enum": [80, 443]}


def test_exclusive_bounds_become_bounds_with_a_boolean() -> None:
    assert _converted(Annotated[int, Field(gt=0, lt=9)]) == {
        "type": "integer",
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 9,
        "exclusiveMaximum": True,
    }


def test_what_a_field_says_of_a_model_goes_before_what_the_model_says_of_itself() -> None:
    assert _converted(Inner | None, None)["description"] == "The inner part."
    assert _converted(Annotated[Inner, Field(description="Here.")])["description"] == "Here."


def test_rules_of_a_model_and_of_the_field_that_holds_it_add_up() -> None:
    schema = _converted(Annotated[Inner, Rule(rule="true", message="outer")])
    assert [rule["message"] for rule in schema[VALIDATIONS]] == ["inner", "outer"]


def test_a_field_named_like_a_keyword_is_a_field() -> None:
    class Named(BaseModel):
        title: Text
        default: Text
        anyOf: Text  # noqa: N815 - the very name

    assert list(structural_schema(Named)["properties"]) == ["title", "default", "anyOf"]


def test_an_integer_or_a_string_is_int_or_string() -> None:
    assert to_structural({"anyOf": [{"type": "integer"}, {"type": "string"}]}) == {
        "x-kubernetes-int-or-string": True
    }
    assert _converted(int | str | None, None) == {"x-kubernetes-int-or-string": True}


def test_kubernetes_own_keywords_pass_through() -> None:
    schema = {"type": "array", "items": {"type": "boolean"}, "maxItems": 1, "x-kubernetes-list-type": "set"}
    assert to_structural(schema) == schema


def test_a_map_of_models_is_converted_all_the_way_down() -> None:
    schema = _converted(Annotated[Mapping[str, Inner], Field(max_length=2)])
    assert schema["additionalProperties"]["properties"] == {"a": {"type": "string", "maxLength": 8}}


class Tree(BaseModel):
    children: Annotated[tuple["Tree", ...], Field(max_length=2)] = ()


def test_a_model_that_contains_itself_is_refused() -> None:
    with pytest.raises(NotStructural, match=r"Tree\.children\[\]: contains itself \(Tree\)"):
        structural_schema(Tree)


def test_the_same_model_in_two_places_is_not_a_recursion() -> None:
    class Pair(BaseModel):
        left: Inner
        right: Inner

    assert set(structural_schema(Pair)["properties"]) == {"left", "right"}


class Mixed(Enum):
    NAME = "a"
    NUMBER = 1


class Closed(BaseModel, extra="forbid"):
    a: Text


class Open(BaseModel, extra="allow"):
    a: Text


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (int | bool, "anyOf: a field has one type"),
        (Inner | Colour, "anyOf: a field has one type"),
        (Text | int, "anyOf: a field has one type"),
        (None, "type null does not exist"),
        (Any, r"has no type \(it says nothing\)"),
        (str, "has no maxLength"),
        (tuple[Text, ...], "has no maxItems"),
        (Mapping[str, Text], "has no maxProperties"),
        (Annotated[dict[str, Any], Field(max_length=1)], "must be a schema: true checks nothing"),
        (Annotated[tuple[Text, Text], Field()], "prefixItems can't be said"),
        (Annotated[frozenset[Text], Field(max_length=2)], "uniqueItems can't be said"),
        (Annotated[Mapping[Colour, Text], Field(max_length=2)], "propertyNames can't be said"),
        (
            Annotated[Mapping[Annotated[str, Field(pattern="^a")], Text], Field(max_length=2)],
            "patternProperties can't be said",
        ),
        (Annotated[str, Field(max_length=64, json_schema_extra={"format": "duration"})], "format duration"),
        (Annotated[str, Field(max_length=64, json_schema_extra={"format": "email"})], "format email"),
        (Mixed, "enum: its values must all be strings"),
        (Literal["a", None], "enum: its values must all be strings"),
        (Closed, "must be a schema: true checks nothing, false is refused"),
        (Open, "must be a schema: true checks nothing"),
        (type("Empty", (BaseModel,), {}), "has neither fields nor values"),
        (Annotated[int, Field(ge=0, gt=0)], "has both minimum and exclusiveMinimum"),
    ],
)
def test_what_a_structural_schema_cannot_say_is_an_error(annotation: Any, problem: str) -> None:
    with pytest.raises(NotStructural, match=f"^Sample.field.*: .*{problem}") as refusal:
        _converted(annotation)
    assert refusal.value.path.startswith("Sample.field")


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"type": "string"}]},
        {"allOf": [{"type": "string"}]},
        {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "boolean"}]},
        {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "object", "properties": {}}]},
        {"type": "string", "maxLength": 1, "not": {"enum": ["a"]}},
        {"type": ["string", "null"]},
        {"type": "array", "maxItems": 1},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/$defs/Absent"},
        {"type": "integer", "enum": ["a"]},
        {"type": "object", "properties": {}, "additionalProperties": {"type": "boolean"}, "maxProperties": 1},
    ],
)
def test_a_schema_from_elsewhere_fails_as_loudly(schema: dict[str, Any]) -> None:
    with pytest.raises(NotStructural):
        to_structural(schema, path="here")
