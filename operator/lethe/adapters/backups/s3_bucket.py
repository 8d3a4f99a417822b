"""One bucket of an S3 service, spoken to through botocore: pages, versions, and errors in our own words.

No text of botocore or of the service gets out: they quote signed requests, access keys and tokens.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

from botocore import exceptions
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.config import Config
from botocore.credentials import AssumeRoleWithWebIdentityProvider, CredentialResolver
from botocore.parsers import ResponseParserError
from botocore.session import Session

from lethe.adapters.hosts import ANYWHERE, HostRefused, Resolver, require_encryption, resolving
from lethe.ports.backups import BackendMisconfigured, BackendUnavailable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MOST_BYTES = 16 * 1024 * 1024
"""Of one answer. A page of a thousand keys, each of a kilobyte that is escaped, is a quarter of it."""
MOST_LISTED_BYTES = 64 * 1024 * 1024
"""Of all pages of one listing: far more than a hundred thousand versions."""
ANSWER_SECONDS = 120.0
"""How long one answer may take, however often a byte of it comes."""

NULL = "null"
"""The version id of what was written while the bucket was not versioned; it may name other content later."""

_CONNECT_SECONDS = 10
_MOST_AT_ONCE = 1000  # by one DeleteObjects
_NO_BUCKET = {"NoSuchBucket", "InvalidBucketName"}
_BAD_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "TokenRefreshRequired",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "MissingSecurityHeader",
    "401",
}
_OTHER_REGION = {
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "TemporaryRedirect",
    "IllegalLocationConstraintException",
    "InvalidRegion",
    "301",
    "307",
}
_DENIED = {"AccessDenied", "AllAccessDisabled", "403"}
_NOT_KNOWN = {"NotImplemented", "MethodNotAllowed", "501"}
_BUSY = {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "429"}
_ALREADY_GONE = {"NoSuchKey", "NoSuchVersion", "NoSuchUpload", "404"}
_UNLOCKED = {
    "NoSuchObjectLockConfiguration",
    "ObjectLockConfigurationNotFoundError",
    "InvalidRequest",
    *_NOT_KNOWN,
    *_ALREADY_GONE,
}
_NO_S3 = ("what answers at spec.s3.endpoint does not speak S3", "correct spec.s3.endpoint")
_USUAL_REGION = "us-east-1"
# Nothing of this machine's AWS configuration counts: no profile, no file, no endpoint of theirs.
_NOWHERE = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
_creating = threading.Lock()


@dataclass(frozen=True, slots=True)
class WebIdentity:
    """A role that may be assumed with a token of the pod's own. The file is read anew each time.

    `endpoint` is the token service's, `None` for AWS's: where a token goes is not for manifests to say.
    """

    role: str
    token_file: str
    endpoint: str | None = None


class Declined(BackendUnavailable):
    """The service is there and won't do it. `code` is S3's; `lock`: it said that an object lock is why."""

    def __init__(self, code: str, action: str, bucket: str, *, lock: bool = False) -> None:
        self.code = code
        self.action = action
        self.lock = lock
        if self.denied:
            super().__init__(
                f"bucket {bucket}: the credentials lack {action}",
                f"allow {action} to those of spec.s3.credentialsSecretRef",
            )
        else:
            super().__init__(f"bucket {bucket}: S3 answered {code} when asked for {action}")

    @property
    def denied(self) -> bool:
        """Tell whether a right is missing, as far as one can know: a lock may be reported like this, too."""
        return self.code in _DENIED


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key. `version_id` is `None` where the service knows no versions.

    `etag` and `size` are of the content, `None` for a delete marker, which has none.
    """

    key: str
    version_id: str | None
    modified_at: datetime
    latest: bool
    etag: str | None = None
    size: int = 0

    @property
    def mutable(self) -> bool:
        """Tell whether other content may come to stand under the same name and version id."""
        return self.version_id in {None, NULL}


@dataclass(frozen=True, slots=True)
class Lock:
    """What keeps a version from being deleted. `unknown` names the rights that are needed to tell."""

    legal_hold: bool = False
    until: datetime | None = None
    unknown: tuple[str, ...] = ()


class Bucket:
    """A bucket and the credentials for it. Every method raises `BackendUnavailable`, `BackendMisconfigured`.

    `endpoint` and `region` are `None` for those of AWS; `ca_file` is `None` for the usual authorities. An
    `identity` stands for the keys, which are `None` then.
    """

    def __init__(
        self,
        endpoint: str | None,
        region: str | None,
        name: str,
        access_key: str | None,
        secret_key: str | None,
        session_token: str | None = None,
        ca_file: str | None = None,
        resolver: Resolver = ANYWHERE,
        *,
        allow_plaintext: bool = False,
        identity: WebIdentity | None = None,
    ) -> None:
        self.name = name
        self._services = "the service of spec.s3.endpoint"
        if identity is not None:
            self._services += ", or the token service for the pod's identity,"
        self.date: datetime | None = None
        """The service's clock at its newest answer."""
        self._received = 0
        with _creating, self._asking("s3"):
            region = region or _USUAL_REGION
            session = _session() if identity is None else _session_of(identity, region)
            self._client: Any = session.create_client(
                "s3",
                endpoint_url=endpoint,
                region_name=region,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                aws_session_token=session_token,
                verify=ca_file or True,
                config=_config(),
            )
        manager = self._client._endpoint.http_session._manager  # noqa: SLF001 - there is no other way
        manager.pool_classes_by_scheme = _pools(
            resolver, self._note_received, allow_plaintext=allow_plaintext
        )
        self._client.meta.events.register("before-sign.s3.DeleteObjects", _with_md5)
        # botocore follows a bucket to its region. Where the service does not name that, it would ask with
        # HeadBucket, be redirected again, and so on.
        self._client.meta.events.register("before-call.s3.HeadBucket", self._in_other_region)

    def close(self) -> None:
        """Give back every connection."""
        self._client.close()

    def versions(self, prefix: str) -> Iterator[Version]:
        """Yield every version and delete marker of every key that begins with `prefix`.

        Where the service knows no versions: every key.
        """
        known, found = True, False
        try:
            for version in self._versions(prefix):
                found = True
                yield version
        except Declined as declined:
            if declined.code not in _NOT_KNOWN:
                raise
            known = False
        if found:
            return
        # Nothing there, or a service that overlooks `?versions`: its answer would prove anything gone.
        for number, current in enumerate(self._current(prefix)):
            if number == 0 and known and (appeared := list(self._versions(prefix))):
                yield from appeared
                return
            yield current

    def uploads(self, prefix: str) -> Iterator[tuple[str, str, datetime | None]]:
        """Yield key and id of unfinished multipart uploads, at least of those that begin with `prefix`.

        The third is when each began, if the service tells.
        """
        for page in self._pages("list_multipart_uploads", "s3:ListBucketMultipartUploads", Prefix=prefix):
            if "Bucket" not in page:  # a service that overlooks `?uploads` lists objects
                raise BackendUnavailable(
                    f"bucket {self.name}: the service does not list unfinished uploads",
                    "what they hold can't be proven gone; use a service that does",
                )
            for one in page.get("Uploads", ()):
                began: datetime | None = one.get("Initiated")
                yield one["Key"], one["UploadId"], began and began.astimezone(UTC)

    def require(self, prefix: str) -> None:
        """Raise unless the bucket can be listed."""
        with self._asking("s3:ListBucket"):
            answer = self._noted(self._client.list_objects_v2(Bucket=self.name, Prefix=prefix, MaxKeys=1))
        if "IsTruncated" not in answer:
            raise BackendUnavailable(*_NO_S3)

    def abort(self, key: str, upload: str) -> None:
        """Abort an unfinished upload; one that is no more is fine."""
        with self._asking("s3:AbortMultipartUpload", fine=_ALREADY_GONE):
            self._noted(self._client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload))

    def delete(self, versions: Sequence[Version]) -> Sequence[tuple[Version, Declined]]:
        """Delete immutable versions or delete markers, and return those that the service declined to."""
        declined = list[tuple[Version, Declined]]()
        for first in range(0, len(versions), _MOST_AT_ONCE):
            some = versions[first : first + _MOST_AT_ONCE]
            declined += self._delete_many(some) if len(some) > 1 else self._delete_one(some[0])
        return declined

    def delete_mutable(self, version: Version, *, conditional: bool) -> Declined | None:
        """Delete a version whose id may name other content by now; return why the service won't.

        `conditional`: only if it has the same ETag still, as far as the service looks at that.
        """
        action = "s3:DeleteObject" if version.version_id is None else "s3:DeleteObjectVersion"
        condition = {"IfMatch": f'"{version.etag}"'} if conditional else {}
        try:
            with self._asking(action, fine=_ALREADY_GONE):
                self._noted(
                    self._client.delete_object(Bucket=self.name, Key=version.key, **_id(version), **condition)
                )
        except Declined as declined:
            return declined
        return None

    def lock(self, version: Version) -> Lock:
        """Return what keeps a version."""
        where, unknown = {"Bucket": self.name, "Key": version.key, **_id(version)}, list[str]()
        hold, retention = dict[str, Any](), dict[str, Any]()
        try:
            with self._asking("s3:GetObjectLegalHold", fine=_UNLOCKED):
                hold = self._noted(self._client.get_object_legal_hold(**where)).get("LegalHold", {})
        except Declined as declined:
            unknown.append(declined.action)
        try:
            with self._asking("s3:GetObjectRetention", fine=_UNLOCKED):
                retention = self._noted(self._client.get_object_retention(**where)).get("Retention", {})
        except Declined as declined:
            unknown.append(declined.action)
        until: datetime | None = retention.get("RetainUntilDate")
        if until is not None:
            until = until.astimezone(UTC)
            if self.date is not None and until <= self.date:
                until = None  # over, by the service's own clock
        return Lock(hold.get("Status") == "ON", until, tuple(unknown))

    # Asking

    def _delete_one(self, version: Version) -> Sequence[tuple[Version, Declined]]:
        try:
            with self._asking("s3:DeleteObjectVersion", fine=_ALREADY_GONE):
                self._noted(self._client.delete_object(Bucket=self.name, Key=version.key, **_id(version)))
        except Declined as declined:
            return [(version, declined)]
        return []

    def _delete_many(self, versions: Sequence[Version]) -> Sequence[tuple[Version, Declined]]:
        named = [{"Key": version.key, **_id(version)} for version in versions]
        try:
            with self._asking("s3:DeleteObjectVersion"):
                answer = self._noted(
                    self._client.delete_objects(Bucket=self.name, Delete={"Objects": named, "Quiet": True})
                )
        except Declined as refused:
            if refused.code in _NOT_KNOWN:
                return [one for version in versions for one in self._delete_one(version)]
            return [(version, refused) for version in versions]
        by_id = {(version.key, version.version_id): version for version in versions}
        declined = []
        for error in answer.get("Errors", ()):
            failure = self._failure(error, "s3:DeleteObjectVersion")
            if not isinstance(failure, Declined):
                raise failure
            if failure.code not in _ALREADY_GONE:
                declined.append((by_id[error["Key"], error.get("VersionId")], failure))
        return declined

    def _versions(self, prefix: str) -> Iterator[Version]:
        for page in self._pages("list_object_versions", "s3:ListBucketVersions", Prefix=prefix):
            for one in page.get("Versions", ()):
                yield _version(one, one.get("VersionId") or NULL, latest=one.get("IsLatest", False))
            for one in page.get("DeleteMarkers", ()):
                yield Version(
                    one["Key"], one["VersionId"], one["LastModified"].astimezone(UTC), one["IsLatest"]
                )

    def _current(self, prefix: str) -> Iterator[Version]:
        for page in self._pages("list_objects_v2", "s3:ListBucket", Prefix=prefix):
            for one in page.get("Contents", ()):
                yield _version(one, None, latest=True)

    def _note_received(self, size: int) -> None:
        self._received += size

    def _pages(self, operation: str, action: str, **what: str) -> Iterator[Mapping[str, Any]]:
        pages = iter(self._client.get_paginator(operation).paginate(Bucket=self.name, **what))
        page: Mapping[str, Any] = {}
        received_before = self._received
        while True:
            with self._asking(action):
                following = next(pages, None)
            if self._received - received_before > MOST_LISTED_BYTES:
                raise self._too_long("a listing", MOST_LISTED_BYTES)
            if following is None:
                break
            page = self._noted(following)
            # Every listing of S3 has this element; botocore reads any other document as an empty listing.
            if "IsTruncated" not in page:
                raise BackendUnavailable(*_NO_S3)
            yield page
        if page.get("IsTruncated"):
            raise BackendUnavailable(
                f"bucket {self.name}: the service cut its listing short and did not say where it goes on",
                "what it shows is not all, so nothing is concluded from it",
            )

    def _noted(self, answer: dict[str, Any]) -> dict[str, Any]:
        said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if said:
            try:
                self.date = parsedate_to_datetime(said).astimezone(UTC)
            except ValueError:
                self.date = None
        return answer

    @contextmanager
    def _asking(self, action: str, fine: set[str] | frozenset[str] = frozenset()) -> Iterator[None]:
        """Turn what botocore raises into errors of the port; an answer with a code in `fine` is no error."""
        try:
            yield
        except exceptions.ClientError as refusal:
            failure = self._refused(refusal, action)
            if not (isinstance(failure, Declined) and failure.code in fine):
                raise failure from None
        except exceptions.SSLError:
            raise BackendUnavailable(
                "the service of spec.s3.endpoint has a certificate that is not trusted, or speaks no TLS",
                "give its certificate authority, or correct spec.s3.endpoint",
            ) from None
        except (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError):
            raise BackendUnavailable(f"{self._services} does not answer in time") from None
        except exceptions.ParamValidationError:
            raise BackendMisconfigured(
                f"{self.name!r} is no name of a bucket", "correct spec.s3.bucket"
            ) from None
        except (ResponseParserError, exceptions.PaginationError):
            raise BackendUnavailable(*_NO_S3) from None
        except (exceptions.EndpointConnectionError, exceptions.ProxyConnectionError):
            raise BackendUnavailable(
                f"{self._services} takes no connection",
                "see that it runs, that its name resolves and that the network lets Lethe reach it",
            ) from None
        except ValueError:
            raise BackendMisconfigured(
                "spec.s3.endpoint or spec.s3.region is not well-formed",
                "an endpoint is a URL such as https://s3.example.org",
            ) from None
        except OSError as error:
            raise BackendUnavailable(
                f"the token of the pod's identity can't be read ({error.strerror})",
                "see AWS_WEB_IDENTITY_TOKEN_FILE of the operator's pod",
            ) from None
        except exceptions.BotoCoreError as failed:
            raise self._unasked(failed.kwargs.get("error")) from None

    def _unasked(self, why: object) -> BackendUnavailable | BackendMisconfigured:
        """Return what it means that no answer came, for what was raised in botocore's midst."""
        if isinstance(why, _TooLong):
            return self._too_long("one answer", MOST_BYTES)
        if isinstance(why, HostRefused):
            return BackendMisconfigured(f"spec.s3.endpoint can't be used: {why.problem}", why.remedy)
        return BackendUnavailable(
            f"bucket {self.name} could not be asked",
            "see that the service of spec.s3.endpoint runs, and that the Secret of "
            "spec.s3.credentialsSecretRef holds nothing but the key, no line break either",
        )

    def _too_long(self, what: str, most: int) -> BackendUnavailable:
        return BackendUnavailable(
            f"bucket {self.name}: {what} is longer than {most // 2**20} MiB or takes too long",
            "correct spec.s3.endpoint, or let spec.s3.prefix lead to fewer keys",
        )

    def _in_other_region(self, **_: Any) -> None:
        raise self._elsewhere()

    def _elsewhere(self) -> BackendMisconfigured:
        return BackendMisconfigured(
            f"bucket {self.name} is in another region, or the endpoint is another service's",
            "correct spec.s3.region and spec.s3.endpoint",
        )

    def _refused(
        self, refusal: exceptions.ClientError, action: str
    ) -> BackendUnavailable | BackendMisconfigured:
        error = refusal.response.get("Error", {})
        if refusal.operation_name == "AssumeRoleWithWebIdentity":
            return _no_role(error)
        return self._failure(error, action, refusal.response.get("ResponseMetadata", {}))

    def _failure(
        self, error: Mapping[str, Any], action: str, about: Mapping[str, Any] | None = None
    ) -> BackendUnavailable | BackendMisconfigured:
        code, status = str(error.get("Code", "")), (about or {}).get("HTTPStatusCode", 0)
        if not re.fullmatch("[A-Za-z0-9]{1,64}", code):
            code = str(status)
        if code in _NO_BUCKET:
            return BackendMisconfigured(f"there is no bucket {self.name}", "correct spec.s3.bucket")
        if code in _OTHER_REGION:
            return self._elsewhere()
        if code in _BAD_CREDENTIALS:
            return BackendUnavailable(
                f"the service refuses the credentials ({code})",
                "correct the Secret that spec.s3.credentialsSecretRef names",
            )
        if code == "RequestTimeTooSkewed":
            return BackendUnavailable(
                "the service's clock and this machine's disagree", "set the one that is wrong"
            )
        if code in _BUSY or (status >= 500 and code not in _NOT_KNOWN):
            return BackendUnavailable(f"the service of spec.s3.endpoint is busy or ill ({code})")
        spoken = str(error.get("Message", "")).lower()
        return Declined(code, action, self.name, lock="object lock" in spoken or "worm" in spoken)


def _version(one: Mapping[str, Any], version_id: str | None, *, latest: bool) -> Version:
    etag = str(one.get("ETag", "")).strip('"')
    return Version(
        one["Key"], version_id, one["LastModified"].astimezone(UTC), latest, etag, int(one.get("Size", 0))
    )


def _id(version: Version) -> Mapping[str, str]:
    return {} if version.version_id is None else {"VersionId": version.version_id}


def _with_md5(request: Any, **_: Any) -> None:
    """Add the checksum without which older services refuse a DeleteObjects; botocore sends a newer one."""
    digest = hashlib.md5(request.body or b"", usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()


class _TooLong(Exception):
    """An answer is larger than it may be, or takes longer."""


class _Received(io.RawIOBase):
    """What arrives on a connection for one answer: headers, body and all."""

    def __init__(self, connection: socket.socket, note: Callable[[int], None]) -> None:
        self._raw, self._note = connection.makefile("rb", buffering=0), note
        self._left, self._until = MOST_BYTES, time.monotonic() + ANSWER_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        received = self._raw.readinto(buffer)
        self._note(received or 0)
        self._left -= received or 0
        if self._left < 0 or time.monotonic() > self._until:
            raise _TooLong
        return received

    def close(self) -> None:
        self._raw.close()
        super().close()


@dataclass(frozen=True, slots=True)
class _Readable:
    """A connection as far as a response needs it."""

    connection: socket.socket
    note: Callable[[int], None]

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Received(self.connection, self.note))


def _pools(resolver: Resolver, note: Callable[[int], None], *, allow_plaintext: bool) -> Mapping[str, type]:
    """Return pools of connections whose hosts `resolver` looks up: botocore itself takes no resolver.

    botocore takes an answer into memory before anybody sees it; so `note` is told of each of its bytes, and
    one that is too long ends.
    """

    class Bounded(HTTPResponse):
        def __init__(self, connection: socket.socket, *args: Any, **options: Any) -> None:
            super().__init__(_Readable(connection, note), *args, **options)  # type: ignore[arg-type]

    def connecting(kind: type, addresses_of: Callable[[str, int], Sequence[str]]) -> type:
        return type(kind.__name__, (resolving(kind, addresses_of),), {"response_class": Bounded})

    def in_plaintext(host: str, port: int) -> Sequence[str]:
        addresses = resolver.addresses_of(host, port, seconds=_CONNECT_SECONDS)
        if not allow_plaintext:
            require_encryption(addresses, "spec.s3.allowPlaintext")
        return addresses

    encrypted = partial(resolver.addresses_of, seconds=_CONNECT_SECONDS)

    class Plain(AWSHTTPConnectionPool):  # type: ignore[misc]
        ConnectionCls = connecting(AWSHTTPConnection, in_plaintext)

    class Encrypted(AWSHTTPSConnectionPool):  # type: ignore[misc]
        ConnectionCls = connecting(AWSHTTPSConnection, encrypted)

    return {"http": Plain, "https": Encrypted}


def _no_role(error: Mapping[str, Any]) -> BackendUnavailable:
    """Return what a token service's refusal means; of its text nothing is told."""
    code = str(error.get("Code", ""))
    shown = f" ({code})" if re.fullmatch("[A-Za-z0-9]{1,64}", code) else ""
    return BackendUnavailable(
        f"the token service refuses the pod's identity{shown}",
        "see AWS_ROLE_ARN of the operator's pod, and whom the role's trust policy names",
    )


@cache
def _session_of(identity: WebIdentity, region: str) -> Session:
    """Return a session whose keys are those of a role; botocore gets them anew before they end."""
    session = Session(session_vars=_NOWHERE)
    session.register_component("data_loader", _session().get_component("data_loader"))

    def client(service: str, config: Config) -> Any:
        plain = _config().merge(Config(signature_version=None)).merge(config)
        return session.create_client(service, region, endpoint_url=identity.endpoint, config=plain)

    role = {
        "role_arn": identity.role,
        "web_identity_token_file": identity.token_file,
        "role_session_name": "lethe",
    }
    provider = AssumeRoleWithWebIdentityProvider(
        lambda: {"profiles": {"lethe": role}}, client, "lethe", disable_env_vars=True
    )
    session.register_component("credential_provider", CredentialResolver([provider]))
    return session


@cache
def _session() -> Session:
    return Session(session_vars=_NOWHERE)


def _config() -> Config:
    return Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        retries={"mode": "standard", "total_max_attempts": 3},
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=60,
        max_pool_connections=1,
        ignore_configured_endpoint_urls=True,
        # What is written here is deletions only; services that are not AWS stumble over newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
