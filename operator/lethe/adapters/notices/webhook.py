"""Letters by a webhook, signed as Standard Webhooks says (standardwebhooks.com): for shops without SMTP."""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import hashlib
import hmac
import json
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError, SSLError

from lethe.adapters.hosts import ANYWHERE, HostRefused, Resolver, resolving
from lethe.adapters.notices.deadlines import Deadline
from lethe.adapters.notices.messages import is_message_id
from lethe.domain.hosts import is_loopback
from lethe.ports.notices import ChannelError, Delivery, DeliveryResult, Letter

URL = "LETHE_WEBHOOK_URL"
SECRET = "LETHE_WEBHOOK_SECRET"  # noqa: S105 - the setting's name
CA_FILE = "LETHE_WEBHOOK_CA_FILE"
EVENT = "lethe.notice"

_PREFIX = "whsec_"
_SECRET_FORM = f"write {SECRET} as {_PREFIX} and 24 to 64 random bytes in base64"
_NEVER = frozenset({410, 422})
_LATER = frozenset({408, 425, 429})
_PAUSE = frozenset({429, 503})
# A mistyped URL or secret, or a receiver that is not one, gets a 4xx for every letter; none is lost by it.
_LOOK_AT = {401: SECRET, 403: f"{URL} and {SECRET}"}
# Enough for the next letter to use the same connection; nothing of it is looked at.
_MOST_OF_AN_ANSWER = 65536


class _Plain(HTTPConnection):
    def __init__(self, *arguments: Any, opened: list[socket.socket], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._opened = opened

    def connect(self) -> None:
        super().connect()
        self._opened.append(self.sock)


class _Encrypted(_Plain, HTTPSConnection):
    pass


class WebhookChannel:
    """POSTs each letter as JSON to one address, and follows it nowhere else.

    `secret` is `whsec_…`; several with blanks between sign each letter, so that a secret can be changed
    without a gap. `https` only, but for this machine; certificates are verified, against those in `ca_file`
    only if it is given. `timeout` bounds each wait for the receiver, `deadline` the whole of one letter.

    Raises `ChannelError`, which names the setting and never what stands in it.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        timeout: timedelta = timedelta(seconds=20),
        ca_file: Path | None = None,
        deadline: timedelta = timedelta(minutes=1),
        resolver: Resolver = ANYWHERE,
    ) -> None:
        self._deadline = deadline
        self._target = _target(url)
        self._keys = _keys(secret)
        self._open = functools.partial(_pool, url, timeout.total_seconds(), ca_file, resolver)
        self._open([]).close()

    def __repr__(self) -> str:
        return "WebhookChannel(…)"

    def send(self, letters: Sequence[Letter]) -> Mapping[str, Delivery]:
        """Send letters over one connection; return what came of each, by Message-ID.

        A receiver that is not reached, or asks for a pause (429, 503), leaves the rest at `LATER`.

        Raises `ChannelError` if it answers with a redirect, or shows a certificate that can't be verified.
        """
        found: dict[str, Delivery] = {}
        pause: str | None = None
        opened: list[socket.socket] = []
        with contextlib.closing(self._open(opened)) as pool:
            for letter in letters:
                if pause is not None:
                    found[letter.message_id] = Delivery(DeliveryResult.LATER, pause)
                    continue
                try:
                    found[letter.message_id], pause = self._sent(pool, opened, letter)
                except ChannelError as error:
                    if not found:
                        raise
                    # What was sent is said, and the rest meets the error next time.
                    pause = error.problem
                    found[letter.message_id] = Delivery(DeliveryResult.LATER, pause)
        return found

    def close(self) -> None:
        """Nothing is kept open between sets: notices are too few for it."""

    def _sent(
        self, pool: urllib3.HTTPConnectionPool, opened: Sequence[socket.socket], letter: Letter
    ) -> tuple[Delivery, str | None]:
        """Return what came of a letter, and why those after it have to wait, if they do."""
        if not is_message_id(letter.message_id):
            return Delivery(
                DeliveryResult.REFUSED,
                "the letter can't be sent, its Message-ID is not of the form id@domain",
            ), None
        body = _body(letter)
        headers = _signed(letter.message_id, int(time.time()), body, self._keys)
        in_time = Deadline(self._deadline, lambda: [*opened])
        try:
            with in_time:
                status = self._posted(pool, body, headers)
        except HostRefused as refused:
            raise ChannelError(f"{URL} can't be used: {refused.problem}", refused.remedy) from None
        except SSLError as failed:
            cause = failed.args[0] if failed.args else None
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise ChannelError(
                    f"the webhook's certificate can't be verified: {cause.verify_message}",
                    f"correct the host in {URL}, or name its authority's certificate in {CA_FILE}",
                ) from None
            answer = "TLS with the webhook's receiver failed"
        except (HTTPError, OSError) as failed:
            answer = f"the webhook's receiver can't be reached ({type(failed).__name__})"
        else:
            return _judged(status)
        if in_time.passed:
            answer = "the webhook's receiver did not answer in time"
        return Delivery(DeliveryResult.LATER, answer), answer

    def _posted(self, pool: urllib3.HTTPConnectionPool, body: bytes, headers: Mapping[str, str]) -> int:
        answer = pool.urlopen(
            "POST",
            self._target,
            body=body,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )
        try:
            whole = len(answer.read(_MOST_OF_AN_ANSWER)) < _MOST_OF_AN_ANSWER
        except HTTPError:
            whole = False  # the status is the answer
        if whole:
            answer.release_conn()
        else:
            answer.close()
        return answer.status


def _judged(status: int) -> tuple[Delivery, str | None]:
    answer = _answer(status)
    pause = answer if status in _PAUSE else None
    if 200 <= status < 300:
        return Delivery(DeliveryResult.SENT), None
    if 300 <= status < 400:
        raise ChannelError(
            f"the webhook's receiver answers {answer}; no redirect is followed", f"correct {URL}"
        )
    if status in _NEVER:
        return Delivery(DeliveryResult.REFUSED, answer), None
    if 400 <= status < 500 and status not in _LATER:
        return Delivery(DeliveryResult.LATER, f"{answer}; look at {_LOOK_AT.get(status, URL)}"), None
    return Delivery(DeliveryResult.LATER, answer), pause


def _answer(status: int) -> str:
    """Return a status with what it means in the standard, without the receiver's own words."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _body(letter: Letter) -> bytes:
    at = letter.at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    content = {
        "type": EVENT,
        "timestamp": at,
        "data": {
            "messageId": letter.message_id,
            "to": letter.to.reveal(),
            "subject": str.__str__(letter.subject),
            "text": str.__str__(letter.text),
            "html": None if letter.html is None else str.__str__(letter.html),
            "language": letter.language,
        },
    }
    # ASCII: what is signed is what every receiver reads, whatever it takes for the encoding.
    return json.dumps(content, separators=(",", ":")).encode("ascii")


def _signed(message_id: str, at: int, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    content = f"{message_id}.{at}.".encode("ascii") + body
    signatures = (base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode("ascii") for key in keys)
    return {
        "content-type": "application/json",
        "user-agent": "lethe",
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _keys(secret: str) -> tuple[bytes, ...]:
    keys = []
    for one in secret.split():
        try:
            key = base64.b64decode(one.removeprefix(_PREFIX).encode("ascii"), validate=True)
        except (binascii.Error, UnicodeError):
            key = b""
        if not one.startswith(_PREFIX) or not 24 <= len(key) <= 64:
            raise ChannelError(f"{SECRET} is not a secret of Standard Webhooks", _SECRET_FORM)
        keys.append(key)
    if not keys:
        raise ChannelError(f"{SECRET} is empty", _SECRET_FORM)
    return tuple(keys)


def _target(url: str) -> str:
    form = f"write {URL} as https://host/path"
    try:
        parts = urlsplit(url.strip())
        known = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ChannelError(f"{URL} is not a URL", form) from None
    if not known or parts.scheme not in {"https", "http"} or parts.fragment:
        raise ChannelError(f"{URL} is not the URL of a webhook", form)
    if parts.username is not None:
        raise ChannelError(f"{URL} has a user in it; the receiver tells us by the signature", form)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ChannelError(f"{URL} would send notices unencrypted", form)
    return f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"


def _pool(
    url: str, timeout: float, ca_file: Path | None, resolver: Resolver, opened: list[socket.socket]
) -> urllib3.HTTPConnectionPool:
    """Return a pool of connections; each adds its socket to `opened`, for a deadline to reach it."""
    try:
        trusted = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError):
        raise ChannelError(
            f"{CA_FILE} can't be read as certificates", f"correct {CA_FILE}, or unset it"
        ) from None
    parts = urlsplit(url.strip())
    bounded = urllib3.Timeout(connect=timeout, read=timeout)
    addresses_of = functools.partial(resolver.addresses_of, seconds=timeout)
    pool: urllib3.HTTPConnectionPool
    try:
        if parts.scheme == "http":
            pool = urllib3.HTTPConnectionPool(
                parts.hostname or "", parts.port, timeout=bounded, opened=opened
            )
            pool.ConnectionCls = resolving(_Plain, addresses_of)
        else:
            pool = urllib3.HTTPSConnectionPool(
                parts.hostname or "", parts.port, timeout=bounded, ssl_context=trusted, opened=opened
            )
            pool.ConnectionCls = resolving(_Encrypted, addresses_of)
        return pool
    except (LocationParseError, UnicodeError):
        raise ChannelError(f"{URL} names no host", f"write {URL} as https://host/path") from None
