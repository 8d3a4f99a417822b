"""The base of all models of custom resources: how they look on the wire, and what identifies a kind."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from lethe.api.rules import VALIDATIONS, Rule
from lethe.api.scalars import Instant

GROUP = "lethe.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

_SPELT_OTHERWISE = {"is_": "is", "base_dn": "baseDN", "cloud_native_pg": "cloudNativePG"}


def wire_name(attribute: str) -> str:
    """Return the name on the wire of a model's attribute: camelCase, as Kubernetes spells it."""
    return _SPELT_OTHERWISE.get(attribute) or to_camel(attribute)


class ApiModel(BaseModel):
    """A part of a custom resource: frozen, camelCase on the wire, snake_case in Python.

    Unknown fields are ignored, as the API server prunes them. Validation errors never show the input:
    it may be what a person should not have written into a manifest.
    """

    model_config = ConfigDict(
        alias_generator=wire_name,
        validate_by_name=True,
        validate_by_alias=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        for rule in self.rules:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        reference = handler(schema)
        if cls.rules:
            handler.resolve_ref_schema(reference)[VALIDATIONS] = [rule.schema() for rule in cls.rules]
        return reference

    def given(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the fields among `names` (as on the wire) that have a value, in the order of `names`."""
        by_wire_name = {wire_name(attribute): attribute for attribute in type(self).model_fields}
        values = ((name, getattr(self, by_wire_name[name])) for name in names)
        return {name: value for name, value in values if value is not None and value != ()}

    def wire(self) -> dict[str, Any]:
        """Return this as JSON-ready values under their names on the wire.

        What equals its default is left out: the API server fills it in, and an empty list that is
        written once would be an answer that a person can't take back later.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of `kubectl get`. Priority above zero: only with `-o wide`."""

    name: str
    json_path: str
    type: str = "string"
    description: str | None = None
    priority: int = 0


AGE = Column(name="Age", type="date", json_path=".metadata.creationTimestamp")


def condition_column(name: str, condition: str, show: str = "status", *, priority: int = 0) -> Column:
    """Return the column that shows `show` (status, reason or message) of a condition."""
    return Column(
        name=name, json_path=f'.status.conditions[?(@.type=="{condition}")].{show}', priority=priority
    )


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What a CustomResourceDefinition says apart from its schema.

    `selectable` are JSON paths by which objects can be watched; `name_max_length` bounds the object's
    name where it becomes part of something else; `rules` are those that see spec and status together.
    """

    kind: str
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    name_max_length: int | None = None
    rules: tuple[Rule, ...] = ()


class ObjectMeta(ApiModel):
    """The part of an object's metadata that Lethe reads."""

    name: str
    namespace: str
    uid: str | None = None
    generation: int | None = None
    resource_version: str | None = None
    creation_timestamp: Instant | None = None
    deletion_timestamp: Instant | None = None


class Resource(ApiModel):
    """A custom resource. Each kind adds its `definition`, `spec` and `status`."""

    definition: ClassVar[Definition]

    metadata: ObjectMeta = Field(description="Standard object metadata.")

    def manifest(self) -> dict[str, Any]:
        """Return the whole object as the API server takes it."""
        return {"apiVersion": API_VERSION, "kind": self.definition.kind, **self.wire()}
