"""Tryton's JSON-RPC over one connection. No identifier is ever in a URL, no answer's text in an error."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
import zlib
from typing import Any
from urllib.parse import quote, urlsplit

from lethe.ports.stores import AnswerUntrusted, StoreUnreachable

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
WHOLE_ANSWER_SECONDS = 120.0
MOST_BYTES = 16 * 1024 * 1024
_READ_AT_ONCE = 64 * 1024
_GZIP = b"\x1f\x8b"

_OWN_EXCEPTIONS = frozenset({"UserError", "UserWarning", "LoginException", "ConcurrencyException"})
"""The classes that Tryton sends by name. For any other exception it sends the text in the same place."""

_CREDENTIALS = "correct the Secret that spec.tryton.credentialsSecretRef names"
_URL = "correct spec.tryton.url"


class CallRefused(Exception):
    """Tryton understood the call and refused it.

    `code` is the exception's class alone: its text may quote a person.
    """

    def __init__(self, code: str, method: str) -> None:
        self.code = code
        self.method = method
        super().__init__(f"{method}: {code}")


class _SessionEnded(Exception):
    """The server does not (or no longer) accept the session."""


class JsonRpc:
    """Calls to one Tryton database as one user: one connection, one session, both renewed when they end.

    Redirects and proxies are not followed, certificates are verified, answers are bounded in size and time.
    Raises `ValueError` for a `url` that is not one of http or https.
    """

    def __init__(
        self,
        url: str,
        database: str,
        username: str,
        password: str,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"spec.tryton.url is not an http or https URL with a host and no query; {_URL}")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port
        self._path = f"{parts.path.rstrip('/')}/{quote(database, safe='')}/rpc/"
        self._username = username
        self._password = password
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._connection: http.client.HTTPConnection | None = None
        self._session: tuple[int, str] | None = None
        self._calls = 0

    def call(self, method: str, *params: object) -> Any:
        """Return the result of a call; logs in first where there is no session, and once more where it ended.

        Raises `CallRefused`, `StoreUnreachable`, `AnswerUntrusted`.
        """
        fresh = self._session is None
        if fresh:
            self._log_in()
        try:
            return self._exchange(method, params)
        except _SessionEnded:
            pass
        if not fresh:
            self._log_in()
            try:
                return self._exchange(method, params)
            except _SessionEnded:
                pass
        self._session = None
        raise StoreUnreachable("Tryton accepts the password but not the session", _CREDENTIALS) from None

    @property
    def user(self) -> int:
        """Return the id of the user that is logged in; logs in where there is no session."""
        session = self._session or self._log_in()
        return session[0]

    def close(self) -> None:
        """End the session, if the server is there to hear it, and the connection."""
        if self._session is not None and self._connection is not None:
            try:
                self._exchange("common.db.logout", ())
            except (StoreUnreachable, AnswerUntrusted, CallRefused, _SessionEnded):
                pass  # the session times out on its own
        self._session = None
        self._hang_up()

    def _log_in(self) -> tuple[int, str]:
        self._session = None
        try:
            answer = self._exchange("common.db.login", (self._username, {"password": self._password}, None))
        except (_SessionEnded, CallRefused):
            raise StoreUnreachable("Tryton refuses the user name or password", _CREDENTIALS) from None
        if not answer:
            raise StoreUnreachable("Tryton refuses the user name or password", _CREDENTIALS)
        if (
            not isinstance(answer, list)
            or len(answer) < 2
            or not is_record_id(answer[0])
            or not isinstance(answer[1], str)
        ):
            raise AnswerUntrusted("the answer to the login is not Tryton's", _URL)
        self._session = session = (answer[0], answer[1])
        return session

    def _exchange(self, method: str, params: tuple[object, ...]) -> Any:
        self._calls += 1
        question = json.dumps({"id": self._calls, "method": method, "params": params}).encode()
        status, body = self._post(question)
        if status == 200:
            return _result(body, self._calls, method)
        if status in (401, 403):
            raise _SessionEnded
        if status == 404:
            raise StoreUnreachable("Tryton has no such database (404)", f"{_URL} or spec.tryton.database")
        if status == 429:
            raise StoreUnreachable("Tryton says that there were too many attempts to log in (429)")
        if status >= 500:
            raise StoreUnreachable(f"Tryton answers {status}")
        raise AnswerUntrusted(f"the server answers {status}, which Tryton does not", _URL)

    def _post(self, question: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
        if self._session is not None:
            user, token = self._session
            credentials = f"{self._username}:{user}:{token}".encode()
            headers["Authorization"] = f"Session {base64.b64encode(credentials).decode()}"
        reused = self._connection is not None
        try:
            return self._send(question, headers)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as gone:
            self._hang_up()
            if not reused:
                raise StoreUnreachable(f"Tryton does not answer ({type(gone).__name__})") from None
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            raise StoreUnreachable(f"Tryton can't be reached ({type(error).__name__})") from None
        # A server closes idle connections whenever it likes; every call of this adapter may be repeated.
        try:
            return self._send(question, headers)
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            raise StoreUnreachable(f"Tryton can't be reached ({type(error).__name__})") from None

    def _send(self, question: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = self._connect()
        ends_at = time.monotonic() + WHOLE_ANSWER_SECONDS
        self._connection.request("POST", self._path, question, headers)
        answer = self._connection.getresponse()
        body = bytearray()
        while piece := answer.read1(_READ_AT_ONCE):
            body += piece
            if len(body) > MOST_BYTES or time.monotonic() > ends_at:
                self._hang_up()
                raise AnswerUntrusted("the answer is too long")
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
        answer.close()  # by `read1` alone, http.client does not see that it was read to its end
        if answer.will_close:
            self._hang_up()
        return answer.status, bytes(body)

    def _connect(self) -> http.client.HTTPConnection:
        connection = (
            http.client.HTTPSConnection(
                self._host, self._port, timeout=self._connect_seconds, context=self._tls
            )
            if self._tls is not None
            else http.client.HTTPConnection(self._host, self._port, timeout=self._connect_seconds)
        )
        connection.connect()
        connection.sock.settimeout(self._read_seconds)
        return connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def is_record_id(value: object) -> bool:
    """Tell whether a value is the id of a record (`True` is an int to Python, and none)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _result(body: bytes, call: int, method: str) -> Any:
    try:
        answer = json.loads(_unzipped(body))
    except (ValueError, RecursionError, zlib.error):
        # `from None`: the decoder's error carries the whole document.
        raise AnswerUntrusted("the answer is not JSON", _URL) from None
    if not isinstance(answer, dict) or answer.get("id") != call:
        raise AnswerUntrusted("the answer is not to what was asked", _URL)
    if "error" in answer:
        error = answer["error"]
        code = error[0] if isinstance(error, list) and error else None
        raise CallRefused(code if code in _OWN_EXCEPTIONS else "ServerError", method)
    if "result" not in answer:
        raise AnswerUntrusted("the answer holds neither result nor error", _URL)
    return answer["result"]


def _unzipped(body: bytes) -> bytes:
    # By its first bytes, not by Content-Encoding: Tryton says gzip of every long answer, zipped or not.
    if not body.startswith(_GZIP):
        return body
    unzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
    plain = unzip.decompress(body, MOST_BYTES)
    if not unzip.eof:
        raise AnswerUntrusted("the answer is cut off, or too long")
    return plain
