"""Stores that are reached by an API of their own: HTTP, SCIM, LDAP, Tryton, or a plugin."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from lethe.api.model import ApiModel
from lethe.api.rules import FORBIDDEN, INT32, SET, Rule, exactly_one, map_by, required_exactly_where
from lethe.api.scalars import MAX_RECORDS, MaxRecords
from lethe.api.v1alpha1.references import AllowPlaintext, HttpUrl, SecretKeyRef, SecretRef, url_rule

Canary = Annotated[str, Field(min_length=1, max_length=253)]

JsonPath = Annotated[
    str,
    Field(min_length=1, max_length=512),
    Rule(
        rule="self.startsWith('$')",
        reason=FORBIDDEN,
        message="must be a JSONPath (RFC 9535), which begins with $",
        holds=lambda path: path.startswith("$"),
    ),
]


class HttpAuth(ApiModel):
    """How Lethe signs in. Exactly one of bearerTokenSecretRef and basicSecretRef."""

    rules = (exactly_one("bearerTokenSecretRef", "basicSecretRef"),)

    bearer_token_secret_ref: SecretKeyRef | None = Field(
        default=None, description="Where the bearer token stands."
    )
    basic_secret_ref: SecretRef | None = Field(
        default=None, description="A Secret with keys username and password."
    )


class HttpMethod(StrEnum):
    """Method of an HTTP request."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"


_Text = Annotated[str, Field(max_length=1024)]


class HttpRequest(ApiModel):
    """One request. {email}, {primaryKey}, {key} and {token} are filled in, escaped for the place."""

    method: HttpMethod = Field(description="GET, POST, PUT, PATCH or DELETE.")
    path: Annotated[
        str,
        Field(max_length=1024),
        Rule(
            rule="self.matches('^/([^/]|$)')",
            reason=FORBIDDEN,
            message="must be a path below baseUrl that begins with one slash",
            holds=lambda path: path.startswith("/") and not path.startswith("//"),
        ),
    ] = Field(description="Path below baseUrl.")
    query: Annotated[Mapping[str, _Text], Field(max_length=32)] | None = Field(
        default=None,
        description="Query parameters. URLs end up in servers' logs: prefer a body where the API takes one.",
    )
    headers: Annotated[Mapping[str, _Text], Field(max_length=32)] | None = Field(
        default=None, description="Headers, apart from the authorization."
    )
    body: Annotated[str, Field(max_length=16384)] | None = Field(
        default=None,
        description="JSON as text, because kubectl apply drops every null of a tree.",
    )


class HttpFind(ApiModel):
    """How every record of one person is found."""

    request: HttpRequest = Field(description="The request that searches.")
    records: JsonPath = Field(description="Where the records stand in the answer.")
    key: JsonPath = Field(description="Where a record's key stands in the record.")
    identity: JsonPath | None = Field(
        default=None, description="Where the record says whose it is; it must equal what was searched for."
    )


class HttpErase(ApiModel):
    """How one record is erased."""

    request: HttpRequest = Field(description="The request that erases.")


class ClearedAs(StrEnum):
    """How a cleared value reads back."""

    NULL_OR_ABSENT = "NullOrAbsent"
    EMPTY = "Empty"
    VALUE = "Value"


class ClearedValue(ApiModel):
    """A place in the record, and what must be read there after the erasure."""

    rules = (required_exactly_where("value", choice="is", is_="Value"),)

    path: JsonPath = Field(description="Where it stands in the record.")
    is_: ClearedAs = Field(description="NullOrAbsent, Empty, or the given Value.")
    value: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="With is: Value. May hold {key} and {token}."
    )


class HttpVerify(ApiModel):
    """How an erasure is read back. gone, cleared or both."""

    rules = (
        Rule(
            rule="has(self.gone) || has(self.cleared)",
            message="give gone, cleared or both: an erasure that can't be read back is never called done",
            holds=lambda verify: bool(verify.gone or verify.cleared),
        ),
    )

    request: HttpRequest = Field(description="The request that reads the record.")
    gone: (
        Annotated[tuple[Annotated[int, Field(ge=100, le=599)], ...], Field(min_length=1, max_length=16), SET]
        | None
    ) = Field(default=None, description="HTTP status codes that mean that the record is no more.")
    cleared: (
        Annotated[tuple[ClearedValue, ...], Field(min_length=1, max_length=64), map_by("path")] | None
    ) = Field(default=None, description="What must be read in a record that is still there.")


class HttpStore(ApiModel):
    """A store with an HTTP API that speaks JSON."""

    base_url: HttpUrl = Field(description="What every request's path is appended to.")
    auth: HttpAuth = Field(description="How Lethe signs in.")
    requests_per_second: Annotated[int, Field(ge=1, le=10000), INT32] | None = Field(
        default=None, description="No more than these are sent. Absent: no limit."
    )
    canary: Canary | None = Field(
        default=None,
        description="E-mail address of a test record that must be found, or 'not found' proves nothing. "
        "Not a person's.",
    )
    max_records: MaxRecords = Field(
        default=MAX_RECORDS,
        description="More records than this for one person: nothing is erased, a person looks.",
    )
    find: HttpFind = Field(description="How every record of one person is found.")
    erase: HttpErase = Field(description="How one record is erased.")
    verify: HttpVerify = Field(description="How an erasure is read back.")


class ScimErasure(StrEnum):
    """What becomes of a SCIM user."""

    ANONYMISE = "Anonymise"
    DELETE = "Delete"


class ScimStore(ApiModel):
    """A store that speaks SCIM 2.0 (RFC 7644)."""

    base_url: HttpUrl = Field(
        description="The SCIM service, up to and including its version: https://…/scim/v2"
    )
    auth: HttpAuth = Field(description="How Lethe signs in.")
    erase: ScimErasure = Field(description="Whether a user's attributes are cleared, or the user is deleted.")


class LdapStore(ApiModel):
    """A directory that speaks LDAP."""

    url: Annotated[
        str,
        Field(max_length=1024),
        url_rule("ldap", "ldaps", called="ldap(s)", example="ldaps://ldap.example.org"),
    ] = Field(description="The server: ldaps://ldap.example.org")
    bind_secret_ref: SecretRef = Field(description="A Secret with keys username (a DN) and password.")
    base_dn: Annotated[str, Field(min_length=1, max_length=1024)] = Field(
        description="Below which entries are sought."
    )


class TrytonStore(ApiModel):
    """A Tryton server, over JSON-RPC."""

    url: HttpUrl = Field(description="The server: https://tryton.example.org")
    database: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        description="Which of its databases."
    )
    credentials_secret_ref: SecretRef = Field(description="A Secret with keys username and password.")
    canary: Canary | None = Field(
        default=None,
        description="E-mail address of a test record that must be found, or 'not found' proves nothing. "
        "Not a person's.",
    )
    one_owner_per_address: bool = Field(
        default=False,
        description="True: no address has two owners here, all parties that hold it are one person's. "
        "Absent: several parties of one address wait for a person.",
    )
    max_records: MaxRecords = Field(
        default=MAX_RECORDS,
        description="More records than this for one person: nothing is erased, a person looks.",
    )
    allow_plaintext: AllowPlaintext = None


class Plugin(ApiModel):
    """An adapter that is installed beside Lethe."""

    name: Annotated[str, Field(min_length=1, max_length=253)] = Field(description="Name of its entry point.")
    credentials_secret_ref: SecretRef | None = Field(
        default=None, description="A Secret that is handed to it."
    )
    config: Annotated[Mapping[str, Annotated[str, Field(max_length=4096)]], Field(max_length=64)] | None = (
        Field(default=None, description="Settings that are handed to it. No credentials.")
    )
