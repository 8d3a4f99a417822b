"""Letters by SMTP, to the mail server that the operator's setting names. docs/adr/0008 says why smtplib."""

from __future__ import annotations

import base64
import contextlib
import smtplib
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email.headerregistry import Address
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import idna

from lethe.adapters.hosts import ANYWHERE, HostRefused, NameUnknown, Resolver
from lethe.adapters.notices.deadlines import Deadline
from lethe.adapters.notices.mailboxes import Mailbox, NotAMailbox, parse_mailbox, parse_sender
from lethe.adapters.notices.messages import NotAMessage, compose
from lethe.adapters.notices.replies import blames_address, meaning
from lethe.domain.hosts import is_loopback
from lethe.ports.notices import ChannelError, Delivery, DeliveryResult, Letter

URL = "LETHE_SMTP_URL"
SENDER = "LETHE_MAIL_FROM"
CA_FILE = "LETHE_SMTP_CA_FILE"
_FORM = f"write {URL} as smtp+starttls://user:password@host:587, smtps:// or smtp://, percent-encoded"
_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
_BROKEN = (smtplib.SMTPException, OSError, EOFError)
_WANTS_A_LOGIN = (530, 538)


@dataclass(frozen=True, slots=True)
class _Server:
    """Where the mail server is; user and password are shown to nobody but it."""

    scheme: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)


class _Away(Exception):
    """The server can't be used now. `answer` is fit to print."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        super().__init__(answer)


class _Known:
    """A connection that a deadline can reach before it is made: the constructor waits for the server."""

    def __init__(self, known: list[Any], resolver: Resolver, *arguments: Any, **options: Any) -> None:
        known.append(self)
        self._resolver = resolver
        super().__init__(*arguments, **options)

    def _get_socket(self, host: str, port: int, timeout: float) -> Any:
        # smtplib would look the name up itself. What a certificate must be for is in self._host.
        failure: OSError = NameUnknown()
        for address in self._resolver.addresses_of(host, port, seconds=timeout):
            try:
                return super()._get_socket(address, port, timeout)  # type: ignore[misc]
            except ssl.SSLError:
                raise  # somebody is there, and it is not who was meant
            except OSError as error:
                failure = error
        raise failure


class _Plain(_Known, smtplib.SMTP):
    pass


class _Encrypted(_Known, smtplib.SMTP_SSL):
    pass


class SmtpChannel:
    """Sends by way of one mail server; each set of letters over one connection of its own.

    `smtp+starttls://` never goes on without TLS, and every certificate is verified: against the system's
    authorities, or against those in `ca_file` only. `timeout` bounds each wait for the server, `deadline`
    the whole of one letter, and the whole of what comes before the first.

    Raises `ChannelError`, which names the setting and never what stands in it.
    """

    def __init__(
        self,
        url: str,
        sender: str,
        ca_file: Path | None = None,
        timeout: timedelta = timedelta(seconds=30),
        deadline: timedelta = timedelta(minutes=2),
        resolver: Resolver = ANYWHERE,
    ) -> None:
        self._resolver = resolver
        self._server = _parse(url)
        self._ca_file = ca_file
        self._timeout = timeout.total_seconds()
        self._deadline = deadline
        self._sender = sender_of(sender)
        self._trusted()

    def __repr__(self) -> str:
        return f"SmtpChannel({self._server.scheme}://…)"

    def send(self, letters: Sequence[Letter]) -> Mapping[str, Delivery]:
        """Send letters over one connection; return what came of each, by Message-ID.

        A connection that breaks after a letter was handed over leaves that one at `LATER`, too: it may
        arrive twice, with the same Message-ID.

        What is not said of the recipient's address (`blames_address`) is ours to mend, and sent again.

        Raises `ChannelError` if the server does not take our credentials or sender, offers no TLS where it is
        demanded, shows a certificate that can't be verified, or refuses us altogether.
        """
        if not letters:
            return {}
        found: dict[str, Delivery] = {}
        try:
            with self._connected() as connection:
                for letter in letters:
                    with self._in_time([connection]):
                        if found:
                            _expect(connection.rset(), "RSET")
                        found[letter.message_id] = self._sent(connection, letter)
        except _Away as away:
            answer = away.answer
        except ChannelError as error:
            if not found:
                raise
            answer = error.problem  # what was sent is said, and the rest meets the error next time
        except smtplib.SMTPServerDisconnected:
            answer = "the mail server ended the connection, or did not answer in time"
        except NameUnknown:
            answer = f"the mail server's name is not known (look at {URL})"
        except _BROKEN as broken:
            answer = f"the mail server can't be reached ({type(broken).__name__}; look at {URL})"
        else:
            answer = ""
        return {
            letter.message_id: found.get(letter.message_id, Delivery(DeliveryResult.LATER, answer))
            for letter in letters
        }

    def close(self) -> None:
        """Nothing is kept open between sets: servers end idle connections within minutes."""

    def _sent(self, connection: smtplib.SMTP, letter: Letter) -> Delivery:
        """Send one letter. Raises `_Away` or what smtplib raises if the connection can't be used any more."""
        try:
            to = parse_mailbox(letter.to)
            message = compose(letter, self._sender, to)
        except (NotAMailbox, NotAMessage) as wrong:
            kind = "the address" if isinstance(wrong, NotAMailbox) else "the letter can't be sent,"
            return Delivery(DeliveryResult.REFUSED, f"{kind} {wrong}")
        options: list[str] = []
        if to.is_international:
            if not connection.has_extn("smtputf8"):
                return Delivery(
                    DeliveryResult.LATER,
                    f"the address needs SMTPUTF8, which the server lacks; let {URL} name one that has it",
                )
            options = ["SMTPUTF8"]
        for command, reply in self._transaction(connection, to, message, options):
            if reply[0] == 421:
                raise _Away(meaning(*reply, command))
            if command == "MAIL" and reply[0] in _WANTS_A_LOGIN:
                raise _unmendable(meaning(*reply, command), "put user and password into")
            if command == "MAIL" and reply[0] >= 500 and not options:
                raise _unmendable(meaning(*reply, command), f"correct {SENDER}, or the user in")
            if reply[0] >= 500 and command != "MAIL" and blames_address(*reply):
                return Delivery(DeliveryResult.REFUSED, meaning(*reply, command))
            if reply[0] >= 500:
                ours = f"{meaning(*reply, command)}; look at {SENDER} and {URL}"
                return Delivery(DeliveryResult.LATER, ours)
            if reply[0] >= 400:
                return Delivery(DeliveryResult.LATER, meaning(*reply, command))
            if not 200 <= reply[0] < 300:
                # No SMTP any more: what the server thinks of the letter can't be known.
                raise smtplib.SMTPServerDisconnected
        return Delivery(DeliveryResult.SENT)

    def _transaction(
        self, connection: smtplib.SMTP, to: Mailbox, message: bytes, options: list[str]
    ) -> Iterator[tuple[str, tuple[int, bytes]]]:
        yield "MAIL", connection.mail(self._sender.addr_spec, options)
        # smtplib's own rcpt() parses the address, and takes some for others.
        yield "RCPT", connection.docmd("RCPT", f"TO:<{to.spec}>")
        try:
            yield "DATA", connection.data(message)
        except smtplib.SMTPDataError as refused:
            code = refused.smtp_code
            # A 250 before the message was said is no receipt for it.
            yield "DATA", (code if code >= 400 else -1, _bytes(refused.smtp_error))

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        """Give a connection that is encrypted and signed in as the setting says; end it politely."""
        known: list[smtplib.SMTP] = []
        try:
            with self._in_time(known):
                connection = self._open(known)
                self._prepare(connection)
            yield connection
            with self._in_time(known), contextlib.suppress(*_BROKEN):
                connection.quit()
        finally:
            for one in known:
                one.close()

    def _in_time(self, connections: Sequence[smtplib.SMTP]) -> Deadline:
        return Deadline(self._deadline, lambda: [one.sock for one in connections])

    def _open(self, known: list[smtplib.SMTP]) -> smtplib.SMTP:
        host, port = self._server.host, self._server.port
        # Strict servers want a name with dots in it, which a pod's own name has not.
        ours = self._sender.domain
        try:
            if self._server.scheme == "smtps":
                return _Encrypted(
                    known, self._resolver, host, port, ours, timeout=self._timeout, context=self._trusted()
                )
            return _Plain(known, self._resolver, host, port, ours, timeout=self._timeout)
        except HostRefused as refused:
            raise ChannelError(f"{URL} can't be used: {refused.problem}", refused.remedy) from None
        except ssl.SSLError as failed:
            raise _tls(failed) from None
        except smtplib.SMTPConnectError as refused:
            raise _refused((refused.smtp_code, _bytes(refused.smtp_error)), "connect") from None
        except (UnicodeError, ValueError):
            raise ChannelError(f"{URL} names no host", _FORM) from None

    def _prepare(self, connection: smtplib.SMTP) -> None:
        try:
            connection.ehlo_or_helo_if_needed()
            if self._server.scheme == "smtp+starttls":
                connection.starttls(context=self._trusted())
                connection.ehlo_or_helo_if_needed()
        except ssl.SSLError as failed:
            raise _tls(failed) from None
        except smtplib.SMTPNotSupportedError:
            raise _unmendable("the mail server offers no STARTTLS", "correct the port or scheme of") from None
        except smtplib.SMTPResponseException as refused:
            command = "HELO" if isinstance(refused, smtplib.SMTPHeloError) else "STARTTLS"
            raise _refused((refused.smtp_code, _bytes(refused.smtp_error)), command) from None
        if self._server.user is not None:
            self._sign_in(connection, self._server.user, self._server.password)

    def _sign_in(self, connection: smtplib.SMTP, user: str, password: str) -> None:
        """Sign in by PLAIN or LOGIN: what is said is protected by TLS, and both take any UTF-8."""
        offered = connection.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in offered:
            reply = connection.docmd("AUTH", f"PLAIN {_base64(chr(0).join(('', user, password)))}")
        elif "LOGIN" in offered:
            reply = connection.docmd("AUTH", "LOGIN")
            for answer in (user, password):
                if reply[0] == 334:
                    reply = connection.docmd(_base64(answer))
        else:
            raise _unmendable(
                "the mail server offers neither AUTH PLAIN nor AUTH LOGIN", "correct port, user or scheme of"
            )
        if reply[0] not in {235, 503}:  # 503: signed in already
            raise _refused(reply, "AUTH", "correct user and password in")

    def _trusted(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._ca_file)
        except (OSError, ssl.SSLError):
            raise ChannelError(
                f"{CA_FILE} can't be read as certificates", f"correct {CA_FILE}, or unset it"
            ) from None


def sender_of(text: str) -> Address:
    """Return who sends, as LETHE_MAIL_FROM says. Raises `ChannelError`."""
    try:
        return parse_sender(text)
    except NotAMailbox as wrong:
        raise ChannelError(
            f"{SENDER} {wrong}", f"write {SENDER} as privacy@example.com or Example <privacy@example.com>"
        ) from None


def _parse(url: str) -> _Server:
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        user = None if parts.username is None else unquote(parts.username, errors="strict")
        password = unquote(parts.password or "", errors="strict")
    except ValueError:
        raise ChannelError(f"{URL} is not a URL", _FORM) from None
    if parts.scheme not in _PORTS:
        raise ChannelError(f"{URL} has none of the schemes {', '.join(_PORTS)}", _FORM)
    if parts.path.strip("/") or parts.query or parts.fragment or port == 0:
        raise ChannelError(f"{URL} has something else than user, password, host and port", _FORM)
    host = parts.hostname or ""
    with contextlib.suppress(idna.IDNAError):
        # ASCII is left alone: names of services in a cluster may have an underscore, which IDNA has not.
        host = host if host.isascii() else idna.encode(host, uts46=True).decode("ascii")
    if not host or not host.isascii():
        raise ChannelError(f"{URL} names no host", _FORM)
    if user is not None and (not user or not password or "\0" in user + password):
        raise ChannelError(f"{URL} has a user without a password, or the other way round", _FORM)
    if user is not None and parts.scheme == "smtp" and not is_loopback(host):
        raise ChannelError(
            f"{URL} would send user and password unencrypted", "use smtp+starttls:// or smtps:// in it"
        )
    return _Server(parts.scheme, host, port or _PORTS[parts.scheme], user, password)


def _expect(reply: tuple[int, bytes], command: str) -> None:
    if reply[0] != 250:
        raise _Away(meaning(*reply, command))


def _refused(reply: tuple[int, bytes], command: str, remedy: str = "correct") -> Exception:
    """Return what a refusal of the connection itself means: later (4xx), or never (5xx)."""
    answer = meaning(*reply, command)
    return _unmendable(answer, remedy) if reply[0] >= 500 else _Away(answer)


def _unmendable(answer: str, remedy: str) -> ChannelError:
    return ChannelError(f"notices can't be sent: {answer}", f"{remedy} {URL}")


def _tls(failed: ssl.SSLError) -> Exception:
    if isinstance(failed, ssl.SSLCertVerificationError):
        return ChannelError(
            f"the mail server's certificate can't be verified: {failed.verify_message}",
            f"correct the host in {URL}, or name its authority's certificate in {CA_FILE}",
        )
    if failed.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNSUPPORTED_PROTOCOL"}:
        return _unmendable("the mail server speaks no TLS on that port", "correct port or scheme of")
    return _Away(f"TLS failed ({failed.reason or type(failed).__name__})")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


def _bytes(text: object) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode("utf-8", "replace")
