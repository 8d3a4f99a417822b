"""S3 by the pod's own identity: a token in a file is exchanged for keys of a role, and again before they end.

The token service is a stand-in that hands out the keys of a real S3 server, which takes no session token.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from devtools.servers import VersityServer
from devtools.servers.children import free_port
from lethe.adapters.backups.s3 import S3Backend
from lethe.adapters.backups.s3_bucket import WebIdentity
from lethe.ports.backups import BackendUnavailable
from tests.adapters.backups.s3_buckets import PATTERN

ROLE = "arn:aws:iam::111122223333:role/lethe"


class TokenService:
    """Gives the keys of `server` for each token but those in `refused`; they end after `lifetime`."""

    def __init__(self, server: VersityServer, lifetime: timedelta = timedelta(hours=1)) -> None:
        outer = self
        self.asked = list[dict[str, list[str]]]()
        self.refused = ""

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                outer.asked.append(asked)
                if asked["WebIdentityToken"] == [outer.refused]:
                    error = "<Code>InvalidIdentityToken</Code><Message>canary-token-1</Message>"
                    self.say(400, f"<ErrorResponse><Error>{error}</Error></ErrorResponse>")
                    return
                ends = (datetime.now(UTC) + lifetime).strftime("%Y-%m-%dT%H:%M:%SZ")
                self.say(
                    200,
                    "<AssumeRoleWithWebIdentityResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'>"
                    f"<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{server.access_key}</AccessKeyId>"
                    f"<SecretAccessKey>{server.secret_key}</SecretAccessKey><SessionToken></SessionToken>"
                    f"<Expiration>{ends}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
                    "</AssumeRoleWithWebIdentityResponse>",
                )

            def say(self, status: int, body: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[TokenService]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield self
        self._server.shutdown()
        self._server.server_close()
        thread.join()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("canary-token-1")
    return file


def opened(server: VersityServer, bucket: str, token: Path, endpoint: str) -> S3Backend:
    identity = WebIdentity(ROLE, str(token), endpoint)
    where = server.endpoint, server.region, bucket, "site/"
    return S3Backend(*where, PATTERN, None, None, identity=identity)


def test_a_role_is_assumed_once_and_lists_and_deletes(
    server: VersityServer, bucket: str, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-this-machine")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    server.put(bucket, "site/20260101", b"1")
    with TokenService(server).running() as service:
        for _ in range(2):
            backend = opened(server, bucket, token, service.endpoint)
            assert [one.ref for one in backend.list().snapshots] == ["20260101"]
            backend.close()
        (asked,) = service.asked
    assert asked["Action"] == ["AssumeRoleWithWebIdentity"]
    assert (asked["RoleArn"], asked["WebIdentityToken"]) == ([ROLE], ["canary-token-1"])


def test_keys_that_end_are_fetched_again_with_the_token_that_is_there_then(
    server: VersityServer, bucket: str, token: Path
) -> None:
    with TokenService(server, timedelta(minutes=5)).running() as service:
        backend = opened(server, bucket, token, service.endpoint)
        backend.list()
        token.write_text("canary-token-2")
        backend.list()
        tokens = [asked["WebIdentityToken"][0] for asked in service.asked]
        backend.close()
    assert tokens[0] == "canary-token-1"
    assert tokens[-1] == "canary-token-2"


def test_a_refused_identity_is_told_and_neither_token_nor_keys(
    server: VersityServer, bucket: str, token: Path
) -> None:
    with TokenService(server).running() as service:
        service.refused = "canary-token-1"
        backend = opened(server, bucket, token, service.endpoint)
        with pytest.raises(BackendUnavailable, match="the token service refuses the pod's identity") as told:
            backend.list()
        assert "canary" not in str(told.value)
        token.unlink()
        with pytest.raises(BackendUnavailable, match="AWS_WEB_IDENTITY_TOKEN_FILE"):
            backend.list()
        backend.close()


def test_a_token_service_that_is_away_is_told(server: VersityServer, bucket: str, token: Path) -> None:
    backend = opened(server, bucket, token, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(BackendUnavailable, match="token service"):
        backend.list()
    backend.close()
