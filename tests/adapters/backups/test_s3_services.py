"""What becomes of errors, and of services that know less or answer strangely."""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from devtools.servers import VersityServer
from lethe.adapters.backups import s3_bucket
from lethe.logs import Redacting
from lethe.ports.backups import BackendMisconfigured, BackendUnavailable, DeletionResult, Pin
from tests.adapters.backups.odd_s3 import Odd, Reply, refusal
from tests.adapters.backups.s3_buckets import asks, delete_one, open_backend, pin

TAKEN_AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_wrong_credentials_are_named_and_never_quoted(server: VersityServer, bucket: str) -> None:
    token = "a-token-that-nobody-may-read"
    for access_key, secret_key in (
        ("AKIANOBODYKNOWSME", server.secret_key),
        (server.access_key, "not-the-secret-key"),
        (server.access_key + "\n", server.secret_key),
        (server.access_key, "ungültig"),
    ):
        backend = open_backend(
            server, bucket, access_key=access_key, secret_key=secret_key, session_token=token
        )
        for asked in asks(backend):
            with pytest.raises(BackendUnavailable) as raised:
                asked()
            assert "credentialsSecretRef" in str(raised.value)
            assert raised.value.__cause__ is None
            assert raised.value.__suppress_context__
            text = f"{raised.value!r} {raised.value} {backend!r} {vars(backend)!r} {vars(backend._bucket)!r}"
            for secret in (access_key, secret_key, token):
                assert secret.strip() not in text


def test_credentials_reach_no_log_not_even_for_debugging(server: VersityServer, bucket: str) -> None:
    lines = list[str]()

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, root = Kept(), logging.getLogger()
    handler.addFilter(Redacting())
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    token = "a-token-that-nobody-may-read"
    try:
        for tried in ({}, {"secret_key": "wrong"}, {"session_token": token}):
            try:
                open_backend(server, bucket, **tried).list()
            except BackendUnavailable:
                assert tried
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert not [
        line for line in lines for secret in (server.access_key, server.secret_key, token) if secret in line
    ]


@pytest.mark.parametrize("endpoint", ["https://", "ftp://s3.example.org", "s3.example.org", "http://a b"])
def test_an_endpoint_that_is_none_is_named(server: VersityServer, bucket: str, endpoint: str) -> None:
    with pytest.raises((BackendMisconfigured, BackendUnavailable), match=r"spec\.s3\.endpoint"):
        open_backend(server, bucket, endpoint=endpoint).list()


def test_a_bucket_whose_name_can_be_none_is_named(server: VersityServer) -> None:
    with pytest.raises(BackendMisconfigured, match=r"spec\.s3\.bucket"):
        open_backend(server, "not a bucket/../x").list()


def test_nothing_of_this_machines_own_aws_configuration_counts(
    server: VersityServer, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[profile other]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setattr(s3_bucket, "_session", s3_bucket._session.__wrapped__)

    assert open_backend(server, bucket).list().snapshots == []
    amazon = s3_bucket.Bucket(None, None, bucket, "access", "secret")
    assert amazon._client.meta.endpoint_url == "https://s3.amazonaws.com"
    amazon.close()


@pytest.mark.parametrize(
    ("status", "code", "error", "named"),
    [
        (503, "SlowDown", BackendUnavailable, "SlowDown"),
        (500, "InternalError", BackendUnavailable, "InternalError"),
        (403, "RequestTimeTooSkewed", BackendUnavailable, "clock"),
        (403, "ExpiredToken", BackendUnavailable, "spec.s3.credentialsSecretRef"),
        (400, "IllegalLocationConstraintException", BackendMisconfigured, "spec.s3.region"),
        (301, "PermanentRedirect", BackendMisconfigured, "spec.s3.region"),
        (400, "AuthorizationHeaderMalformed", BackendMisconfigured, "spec.s3.region"),
        (404, "NoSuchBucket", BackendMisconfigured, "spec.s3.bucket"),
        (418, "Something <else>", BackendUnavailable, "418"),
    ],
)
def test_each_refusal_of_the_service_says_what_to_do(
    server: VersityServer, bucket: str, status: int, code: str, error: type[Exception], named: str
) -> None:
    body = refusal(code.replace("<", "&lt;").replace(">", "&gt;"))
    with Odd(server.endpoint, lambda _: (status, body)) as odd:
        backend = open_backend(server, bucket, endpoint=odd.endpoint)
        for asked in asks(backend)[:1] if status >= 500 else asks(backend)[:1] + asks(backend)[2:]:
            with pytest.raises(error) as raised:
                asked()
            assert named in str(raised.value)


@pytest.mark.parametrize("body", ["<html>Sign in</html>", "", "{}"])
def test_what_does_not_speak_s3_proves_nothing(server: VersityServer, bucket: str, body: str) -> None:
    with Odd(server.endpoint, lambda _: (200, body)) as odd:
        backend = open_backend(server, bucket, endpoint=odd.endpoint)
        for asked in asks(backend):
            with pytest.raises(BackendUnavailable, match=r"does not speak S3|busy or ill"):
                asked()


def knows_no_versions(request: BaseHTTPRequestHandler) -> Reply | None:
    if "versions" in request.path or "versionId" in request.path:
        return 501, refusal("NotImplemented")
    return None


def test_without_versions_current_objects_are_listed_deleted_and_proven_gone(
    plain_server: VersityServer, plain_bucket: str
) -> None:
    for key in ("site/20260101", "site/20260101.b", "site2/20260101"):
        plain_server.put(plain_bucket, key, key.encode(), TAKEN_AT)
    with Odd(plain_server.endpoint, knows_no_versions) as odd:
        backend = open_backend(plain_server, plain_bucket, endpoint=odd.endpoint)
        assert backend.list().snapshots == open_backend(plain_server, plain_bucket).list().snapshots
        pinned = pin(backend, "20260101")
        assert backend.gone(["20260101"]) == {"20260101": "1 version"}

        assert delete_one(backend, pinned).result is DeletionResult.ACCEPTED

        assert backend.gone(["20260101"]) == {}
        assert set(plain_server.files(plain_bucket)) == {"site/20260101.b", "site2/20260101"}


def test_a_service_that_overlooks_a_question_for_versions_proves_no_key_gone(
    plain_server: VersityServer, plain_bucket: str
) -> None:
    """Its answer is a list of objects, which has no versions in it."""
    plain_server.put(plain_bucket, "site/20260101", b"1")
    empty = "<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>"
    with Odd(
        plain_server.endpoint, lambda request: (200, empty) if "versions" in request.path else None
    ) as odd:
        backend = open_backend(plain_server, plain_bucket, endpoint=odd.endpoint)

        assert [one.ref for one in backend.list().snapshots] == ["20260101"]
        assert backend.gone(["20260101"]) == {"20260101": "1 version"}


def test_a_service_that_overlooks_the_question_for_uploads_proves_nothing(
    server: VersityServer, bucket: str
) -> None:
    objects = "<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>"
    with (
        Odd(server.endpoint, lambda request: (200, objects) if "uploads" in request.path else None) as odd,
        pytest.raises(BackendUnavailable, match="unfinished uploads"),
    ):
        open_backend(server, bucket, endpoint=odd.endpoint).gone(["20260101"])


def test_a_listing_that_is_cut_short_is_no_listing(server: VersityServer, bucket: str) -> None:
    cut = "<ListVersionsResult><Name>b</Name><IsTruncated>true</IsTruncated></ListVersionsResult>"
    with (
        Odd(server.endpoint, lambda request: (200, cut) if "versions" in request.path else None) as odd,
        pytest.raises(BackendUnavailable, match="cut its listing short"),
    ):
        open_backend(server, bucket, endpoint=odd.endpoint).list()


def test_a_service_that_overlooks_the_prefix_shows_and_loses_nothing_of_others(
    server: VersityServer, bucket: str
) -> None:
    server.put(bucket, "sits/20260101", b"of others")
    server.put(bucket, "site/20260101", b"ours")
    everything = server.client.list_object_versions(Bucket=bucket)["Versions"]
    versions = "".join(
        f"<Version><Key>{one['Key']}</Key><VersionId>{one['VersionId']}</VersionId><ETag>{one['ETag']}</ETag>"
        f"<Size>{one['Size']}</Size><IsLatest>true</IsLatest>"
        f"<LastModified>2026-01-01T00:00:00Z</LastModified></Version>"
        for one in everything
    )
    listed = f"<ListVersionsResult><IsTruncated>false</IsTruncated>{versions}</ListVersionsResult>"
    with Odd(server.endpoint, lambda request: (200, listed) if "versions" in request.path else None) as odd:
        backend = open_backend(server, bucket, endpoint=odd.endpoint)
        (seen,) = backend.list().snapshots
        assert (seen.ref, seen.size) == ("20260101", len(b"ours"))

        assert delete_one(backend, pin(backend, "20260101")).result is DeletionResult.ACCEPTED

    assert set(server.files(bucket)) == {"sits/20260101"}


@pytest.mark.parametrize("said", [(501, "NotImplemented"), (403, "AccessDenied")])
def test_where_conditions_are_unknown_or_denied_objects_are_read_again_and_deleted(
    plain_server: VersityServer, plain_bucket: str, said: tuple[int, str]
) -> None:
    """AWS grants a condition only to those who may read the object, and Lethe need not."""
    plain_server.put(plain_bucket, "site/20260101", b"1")
    with Odd(
        plain_server.endpoint,
        lambda request: (said[0], refusal(said[1])) if "If-Match" in request.headers else None,
    ) as odd:
        backend = open_backend(plain_server, plain_bucket, endpoint=odd.endpoint)
        pinned = pin(backend, "20260101")
        del odd.asked[:]

        assert delete_one(backend, pinned).result is DeletionResult.ACCEPTED

        deletions = [number for number, line in enumerate(odd.asked) if line.startswith("DELETE")]
        assert len(deletions) == 2
        assert any("versions" in line for line in odd.asked[deletions[0] : deletions[1]])
    assert dict(plain_server.files(plain_bucket)) == {}


def test_an_object_that_is_replaced_while_conditions_are_refused_stays(
    plain_server: VersityServer, plain_bucket: str
) -> None:
    plain_server.put(plain_bucket, "site/20260101", b"first")

    def replace(request: BaseHTTPRequestHandler) -> Reply | None:
        if "If-Match" not in request.headers:
            return None
        plain_server.put(plain_bucket, "site/20260101", b"second")
        return 501, refusal("NotImplemented")

    with Odd(plain_server.endpoint, replace) as odd:
        backend = open_backend(plain_server, plain_bucket, endpoint=odd.endpoint)
        assert delete_one(backend, pin(backend, "20260101")).result is DeletionResult.IDENTITY_MISMATCH

    assert dict(plain_server.files(plain_bucket)) == {"site/20260101": b"second"}


def test_a_right_that_lacks_is_named(server: VersityServer, bucket: str) -> None:
    server.put(bucket, "site/20260101", b"1")

    def refuse(request: BaseHTTPRequestHandler) -> Reply | None:
        return (403, refusal("AccessDenied")) if request.command == "DELETE" else None

    with Odd(server.endpoint, refuse) as odd:
        backend = open_backend(server, bucket, endpoint=odd.endpoint)
        deletion = delete_one(backend, pin(backend, "20260101"))

    assert deletion.result is DeletionResult.NOT_PERMITTED
    assert "s3:DeleteObjectVersion" in deletion.message


def test_one_that_cannot_be_deleted_does_not_stop_the_others(server: VersityServer, bucket: str) -> None:
    for day in (1, 2, 3):
        server.put(bucket, f"site/2026010{day}", b"1")

    def refuse(request: BaseHTTPRequestHandler) -> Reply | None:
        refused = request.command == "DELETE" and "20260102" in request.path
        return (403, refusal("AccessDenied")) if refused else None

    with Odd(server.endpoint, refuse) as odd:
        backend = open_backend(server, bucket, endpoint=odd.endpoint)
        pins = [Pin(one.ref, one.pieces) for one in backend.list().snapshots]
        results = {ref: one.result for ref, one in backend.delete(pins).items()}

    assert results == {
        "20260101": DeletionResult.ACCEPTED,
        "20260102": DeletionResult.NOT_PERMITTED,
        "20260103": DeletionResult.ACCEPTED,
    }


@pytest.mark.usefixtures("built_programs")
def test_a_certificate_is_verified_by_the_authority_that_is_given(tmp_path: Path) -> None:
    with VersityServer(tmp_path, tls=True) as server:
        bucket = server.bucket("backups")
        assert open_backend(server, bucket, ca_file=str(server.ca_file)).list().snapshots == []
        for ca_file in (None, str(tmp_path / "no such file")):
            with pytest.raises(BackendUnavailable, match="certificate"):
                open_backend(server, bucket, ca_file=ca_file).list()


def body_without_end(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(bytes(1 << 20))


def chunk_without_end(request: BaseHTTPRequestHandler) -> None:
    """Begin a chunk, and never come to the end of the line that says how long it is."""
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    while True:
        request.wfile.write(b"0" * (1 << 20))


def byte_by_byte(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b" ")
        time.sleep(0.02)


TOO_LONG = "is longer than 16 MiB or takes too long"


@pytest.mark.parametrize(
    ("answer", "told"),
    [(body_without_end, TOO_LONG), (byte_by_byte, TOO_LONG), (chunk_without_end, "could not be asked")],
)
def test_a_service_that_answers_without_end_is_left_and_takes_little(
    server: VersityServer,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[BaseHTTPRequestHandler], None],
    told: str,
) -> None:
    monkeypatch.setattr(s3_bucket, "ANSWER_SECONDS", 0.3)
    left = threading.Event()

    def answer_until_left(request: BaseHTTPRequestHandler) -> Reply:
        request.close_connection = True
        with suppress(OSError):
            answer(request)
        left.set()
        return 204, ""

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Odd(server.endpoint, answer_until_left) as odd:
        for asked in asks(open_backend(server, bucket, endpoint=odd.endpoint)):
            with pytest.raises(BackendUnavailable, match=told):
                asked()
            assert left.wait(10)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_a_listing_of_more_than_lethe_can_take_in_names_bucket_and_fields(
    server: VersityServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(10, 30):
        server.put(bucket, f"site/202601{day}", b"1")
    backend = open_backend(server, bucket)
    assert len(backend.list().snapshots) == 20
    monkeypatch.setattr(s3_bucket, "MOST_LISTED_BYTES", 2000)
    with pytest.raises(BackendUnavailable, match=f"bucket {bucket}: a listing is longer .*spec.s3.prefix"):
        backend.list()
    assert backend.gone(["20260110"])
