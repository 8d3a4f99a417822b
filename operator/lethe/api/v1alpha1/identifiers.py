"""How a person is named: by an opaque key, or by an e-mail address that stays inside a Secret."""

from typing import Annotated

from pydantic import Field

from lethe.api.model import ApiModel
from lethe.api.rules import FORBIDDEN, Rule, exactly_one
from lethe.api.v1alpha1.references import SecretKeyRef


def no_address(message: str) -> Rule:
    """Return the rule that a string holds no e-mail address; its message must say what belongs there."""
    return Rule(
        rule="!self.contains('@')",
        reason=FORBIDDEN,
        message=message,
        holds=lambda text: "@" not in text,
    )


_NOT_AN_ADDRESS = (
    "is the person's opaque key in the Primary store, never an e-mail address. Put the address in a Secret "
    "of this "
    "namespace and name it in subject.identifierSecretRef {name, key}"
)
_SubjectId = Annotated[str, Field(min_length=1, max_length=253)]
OpaqueKey = Annotated[
    str, Field(min_length=1, max_length=253), no_address("is a row's opaque key, never an e-mail address")
]
Reference = Annotated[
    str,
    Field(min_length=1, max_length=128),
    no_address("must not hold personal data such as an e-mail address; give the ticket's number"),
]


class Subject(ApiModel):
    """A person. Exactly one of id and identifierSecretRef."""

    rules = (
        exactly_one(
            "id",
            "identifierSecretRef",
            message="give exactly one of id (the person's key in the Primary store) and identifierSecretRef "
            "(name and key of a Secret that holds the e-mail address)",
        ),
    )

    id: Annotated[_SubjectId, no_address(_NOT_AN_ADDRESS)] | None = Field(
        default=None, description="The person's key in the Primary store, in quotes."
    )
    identifier_secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="A Secret of type lethe.dev/identifier that holds the e-mail address. "
        "Lethe deletes it once its content is sealed in the ledger.",
    )


class ErasureSubject(Subject):
    """A person who is erased. Exactly one of id and identifierSecretRef."""

    id: (
        Annotated[
            _SubjectId,
            no_address(
                f"{_NOT_AN_ADDRESS}, or run 'kubectl lethe erase --email-stdin', which does that for you",
            ),
        ]
        | None
    ) = Field(default=None, description="The person's key in the Primary store, in quotes.")
