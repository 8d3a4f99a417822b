"""What a custom resource's schema says beyond JSON Schema: CEL rules, list types, formats.

They stand on the pydantic models, as class attributes or as `Annotated` metadata, so that a model is
the only source of its CRD.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALIDATIONS = "x-kubernetes-validations"

FORBIDDEN = "FieldValueForbidden"
"""The reason under which the API server does not echo the refused value.

Every rule about a value in which an e-mail address may stand has it: an answer of the API server ends
up in terminals, pipelines' logs and audit records.
"""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One CEL rule of `x-kubernetes-validations`, on a model or on a field.

    `holds` is the same rule in Python, where it can be said without the object's former state; it
    judges what did not pass an API server (a file given to the command line, an older CRD).
    The messages hold no value.
    """

    rule: str
    message: str
    message_expression: str | None = None
    reason: str | None = None
    field_path: str | None = None
    holds: Callable[[Any], bool] | None = None
    optional_old_self: bool = False
    """Whether the rule holds at creation, too, where `oldSelf` has no value."""

    def schema(self) -> dict[str, str | bool]:
        """Return this rule as an entry of `x-kubernetes-validations`."""
        entry = {
            "rule": self.rule,
            "fieldPath": self.field_path,
            "reason": self.reason,
            "message": self.message,
            "messageExpression": self.message_expression,
            "optionalOldSelf": self.optional_old_self or None,
        }
        return {name: text for name, text in entry.items() if text is not None}

    def check(self, value: Any) -> None:
        """Raise pydantic's error with this rule's message if `value` breaks it."""
        if self.holds is not None and not self.holds(value):
            raise PydanticCustomError(
                "rule", "{message}", {"message": self.message, "below": self.field_path or ""}
            )

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if self.holds is None:
            return handler(source)

        def checked(value: Any) -> Any:
            self.check(value)
            return value

        return core_schema.no_info_after_validator_function(checked, handler(source))

    def __get_pydantic_json_schema__(
        self, inner: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler(inner)
        return {**schema, VALIDATIONS: [*schema.get(VALIDATIONS, []), self.schema()]}


@dataclass(frozen=True, eq=False)  # by identity: typing hashes what stands in Annotated
class Keywords:
    """Keywords that are added to a field's schema as they stand."""

    keywords: Mapping[str, Any]

    def __get_pydantic_json_schema__(
        self, inner: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(inner), **self.keywords}


INT32 = Keywords({"format": "int32"})
INT64 = Keywords({"format": "int64"})
ATOMIC_LIST = Keywords({"x-kubernetes-list-type": "atomic"})
SET = Keywords({"x-kubernetes-list-type": "set"})


def map_by(*keys: str) -> Keywords:
    """Return the keywords of a list whose entries are told apart by `keys`."""
    return Keywords({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)})


def exactly_one(*names: str, message: str | None = None) -> Rule:
    """Return the rule that exactly one of the optional fields `names` (as on the wire) is given.

    The API server's message lists those that were given, by name.
    """
    plain = message or f"give exactly one of {', '.join(names[:-1])} and {names[-1]}"

    def holds(model: Any) -> bool:
        return len(model.given(names)) == 1

    if len(names) == 2:
        return Rule(rule=f"has(self.{names[0]}) != has(self.{names[1]})", message=plain, holds=holds)
    given = " + ".join(f"(has(self.{name}) ? ' {name}' : '')" for name in names)
    return Rule(
        rule=f"[{', '.join(f'has(self.{name})' for name in names)}].exists_one(x, x)",
        message=plain,
        message_expression=f"'{plain}; given:' + {given}",
        holds=holds,
    )


def required_exactly_where(field: str, *, choice: str, is_: str) -> Rule:
    """Return the rule that `field` is given where the field `choice` says `is_`, and nowhere else."""

    def holds(model: Any) -> bool:
        given = model.given((choice, field))
        return (field in given) == (str(given[choice]) == is_)

    return Rule(
        rule=f"(self.{choice} == '{is_}') == has(self.{field})",
        field_path=f".{field}",
        message=f"is required with {choice}: {is_}, and must be absent elsewhere",
        holds=holds,
    )
