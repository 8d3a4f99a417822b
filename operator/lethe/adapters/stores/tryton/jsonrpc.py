"""Tryton's JSON-RPC over one connection. No identifier is ever in a URL, no answer's text in an error."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any
from urllib.parse import quote

from lethe.adapters.hosts import ANYWHERE, Resolver
from lethe.adapters.stores.tryton.connection import MOST_BYTES, URL, Connection, Place
from lethe.ports.stores import AnswerUntrusted, StoreUnreachable

CLOSE_SECONDS = 2.0
"""How long the server is given to hear that the session has ended."""
_GZIP = b"\x1f\x8b"

_OWN_EXCEPTIONS = frozenset({"UserError", "UserWarning", "LoginException", "ConcurrencyException"})
"""The classes that Tryton sends by name. For any other exception it sends the text in the same place."""

_SECRET = "the Secret that spec.tryton.credentialsSecretRef names"  # noqa: S105 - where it is, not what
_CREDENTIALS = f"correct {_SECRET}"


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

    Answers are bounded in size and time, see `Connection`, which takes the `bounds`. Raises `ValueError`,
    with what is wrong and what to do, for a `url` that is not one of http or https, and for texts that are
    none.
    """

    def __init__(
        self,
        url: str,
        database: str,
        username: str,
        password: str,
        resolver: Resolver = ANYWHERE,
        *,
        allow_plaintext: bool = False,
        **bounds: float,
    ) -> None:
        _require_text("spec.tryton.database", database)
        _require_text(f"username in {_SECRET}", username)
        _require_text(f"password in {_SECRET}", password)
        self._connection = Connection(Place.of(url), resolver, allow_plaintext=allow_plaintext, **bounds)
        self._path = f"{quote(database, safe='')}/rpc/"
        self._username = username
        self._password = password
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
        """End the session, if the server is there to hear it, and the connection; within a few seconds.

        Any thread may call it: a call that is under way ends soon, as unreachable.
        """
        farewell = None
        if self._session is not None:
            farewell = self._path, _question(0, "common.db.logout", ()), self._headers()
        self._connection.close(farewell, seconds=CLOSE_SECONDS)
        self._session = None

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
            or not answer[1].isascii()
        ):
            raise AnswerUntrusted("the answer to the login is not Tryton's", URL)
        self._session = session = (answer[0], answer[1])
        return session

    def _exchange(self, method: str, params: tuple[object, ...]) -> Any:
        self._calls += 1
        question = _question(self._calls, method, params)
        status, body = self._connection.post(self._path, question, self._headers())
        if status == 200:
            return _result(body, self._calls, method)
        if status in (401, 403):
            raise _SessionEnded
        if status == 404:
            raise StoreUnreachable("Tryton has no such database (404)", f"{URL} or spec.tryton.database")
        if status == 429:
            raise StoreUnreachable("Tryton says that there were too many attempts to log in (429)")
        if status >= 500:
            raise StoreUnreachable(f"Tryton answers {status}")
        raise AnswerUntrusted(f"the server answers {status}, which Tryton does not", URL)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
        if self._session is not None:
            user, token = self._session
            credentials = f"{self._username}:{user}:{token}".encode()
            headers["Authorization"] = f"Session {base64.b64encode(credentials).decode()}"
        return headers


def _question(call: int, method: str, params: tuple[object, ...]) -> bytes:
    return json.dumps({"id": call, "method": method, "params": params}).encode()


def _require_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        text = ""
    if not text:
        raise ValueError(f"{what} is empty or no text; correct it")


def is_record_id(value: object) -> bool:
    """Tell whether a value is the id of a record (`True` is an int to Python, and none)."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _result(body: bytes, call: int, method: str) -> Any:
    try:
        answer = json.loads(_unzipped(body))
    except (ValueError, RecursionError, zlib.error):
        # `from None`: the decoder's error carries the whole document.
        raise AnswerUntrusted("the answer is not JSON", URL) from None
    if not isinstance(answer, dict) or answer.get("id") != call:
        raise AnswerUntrusted("the answer is not to what was asked", URL)
    if "error" in answer:
        error = answer["error"]
        code = error[0] if isinstance(error, list) and error else None
        raise CallRefused(code if code in _OWN_EXCEPTIONS else "ServerError", method)
    if "result" not in answer:
        raise AnswerUntrusted("the answer holds neither result nor error", URL)
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
