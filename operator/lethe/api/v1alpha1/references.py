"""References from one object to another, always by name within the same namespace, and to hosts."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from lethe.api.model import ApiModel
from lethe.api.rules import FORBIDDEN, Rule

_OBJECT_NAME = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_SECRET_KEY = "^[-._a-zA-Z0-9]+$"  # noqa: S105 - a pattern

# A pattern in the schema would have the API server repeat the value in its answer; a rule doesn't.
ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Rule(
        rule=f"self.matches('{_OBJECT_NAME}')",
        reason=FORBIDDEN,
        message="must be the name of an object of this namespace: lower-case letters, digits, '-' and '.'",
        holds=lambda name: re.fullmatch(_OBJECT_NAME, name) is not None,
    ),
]
SecretKey = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Rule(
        rule=f"self.matches('{_SECRET_KEY}')",
        reason=FORBIDDEN,
        message="must be a key of the Secret: letters, digits, '-', '_' and '.'",
        holds=lambda key: re.fullmatch(_SECRET_KEY, key) is not None,
    ),
]


class SecretRef(ApiModel):
    """A Secret of the same namespace."""

    name: ObjectName = Field(description="Name of the Secret.")


class SecretKeyRef(ApiModel):
    """One key of a Secret of the same namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: SecretKey = Field(description="Which of the Secret's keys.")


def _is_plain_url(value: str, schemes: tuple[str, ...]) -> bool:
    try:
        url = urlsplit(value)
        host = url.hostname
    except ValueError:
        return False
    return url.scheme in schemes and bool(host) and not url.query and "@" not in value


def url_rule(*schemes: str, called: str, example: str) -> Rule:
    """Return the rule that a string is a URL with one of `schemes`, without anything secret in it."""
    return Rule(
        rule=f"isURL(self) && url(self).getScheme() in {list(schemes)} && url(self).getHost() != '' && "
        "url(self).getQuery() == {} && !self.contains('@')",
        reason=FORBIDDEN,
        message=f"must be an {called} URL of a host, without credentials or query, e.g. {example}",
        holds=lambda value: _is_plain_url(value, schemes),
    )


HttpUrl = Annotated[
    str,
    Field(max_length=1024),
    url_rule("http", "https", called="http(s)", example="https://crm.example.org/api"),
]
AllowPlaintext = Annotated[
    bool | None,
    Field(
        description="True: it is spoken to without TLS as well, so that everybody on the way can read it. "
        "Absent: without TLS only on Lethe's own machine."
    ),
]
