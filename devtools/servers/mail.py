"""A real SMTP server (aiosmtpd) that lays what it takes into a Maildir, and refuses what it is told to."""

from __future__ import annotations

import asyncio
import hmac
import json
import mailbox
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from email.parser import Parser
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from devtools.servers.certificates import write_certificates
from devtools.servers.children import Child, Server, free_port, wait_until

ROOT = Path(__file__).parent.parent.parent
Command = Literal["MAIL", "RCPT", "DATA"]


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message that the server took: its envelope, and what it was given byte for byte."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        """The message, parsed; its headers may be UTF-8, as SMTPUTF8 lets them."""
        return Parser(policy=policy.default).parsestr(self.raw.decode())


class MailServer(Server):
    """aiosmtpd below `folder`; a context manager, ready in a moment.

    `tls` is `None`, `starttls` or `implicit`; `ca_file` is the authority to trust. With `users` (passwords
    by name) nobody may send who has not signed in. What was taken stays when it is stopped and started again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tls: Literal["starttls", "implicit"] | None = None,
        users: Mapping[str, str] | None = None,
        smtputf8: bool = True,
        mechanisms: Sequence[str] = ("PLAIN", "LOGIN"),
    ) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._users = dict(users or {})
        self._scheme = {None: "smtp", "starttls": "smtp+starttls", "implicit": "smtps"}[tls]
        self.ca_file = self.folder / "pki" / "ca.crt" if tls else None
        if tls and not (self.folder / "pki").exists():
            write_certificates(self.folder / "pki")
        setting = {
            "port": self.port,
            "tls": tls,
            "users": self._users,
            "smtputf8": smtputf8,
            "mechanisms": [*mechanisms],
        }
        (self.folder / "setting.json").write_text(json.dumps(setting))
        self._refused: dict[str, tuple[int, str]] = {}
        self._cut: list[str] = []
        self._tell()
        self._child = Child(
            [sys.executable, str(Path(__file__)), str(self.folder)],
            log=self.folder / "mail.log",
            env={"PYTHONPATH": str(ROOT)},
        )

    @property
    def url(self) -> str:
        """`LETHE_SMTP_URL` for it, with the first user's name and password."""
        return self.url_for(*next(iter(self._users.items()))) if self._users else self.url_for()

    def url_for(self, user: str | None = None, password: str = "", scheme: str | None = None) -> str:
        """Return the URL for somebody else, or by another scheme."""
        who = "" if user is None else f"{quote(user, safe='')}:{quote(password, safe='')}@"
        return f"{scheme or self._scheme}://{who}127.0.0.1:{self.port}"

    def refuse(self, address: str, code: int, *, at: Command = "RCPT", text: str = "") -> None:
        """Answer with `code` from now on, when mail for (at MAIL: from) `address` gets to that command."""
        self._refused[f"{at} {address}"] = (code, text or f"{code // 100}.1.1 <{address}>: not taken")
        self._tell()

    def accept(self, address: str) -> None:
        """Take mail for that address again."""
        for command in ("MAIL", "RCPT", "DATA"):
            self._refused.pop(f"{command} {address}", None)
        self._cut = [one for one in self._cut if one != address]
        self._tell()

    def cut_after_data(self, address: str) -> None:
        """Take mail for that address from now on, and drop the connection before saying so."""
        self._cut.append(address)
        self._tell()

    def messages(self) -> list[Delivered]:
        """Return what lies in the Maildir, in the order in which it came."""
        found = []
        for file in sorted(
            (self.folder / "Maildir" / "new").glob("*"), key=lambda one: one.stat().st_mtime_ns
        ):
            envelope, _, raw = file.read_bytes().partition(b"\r\n")
            told = json.loads(envelope.removeprefix(b"X-Envelope: "))
            found.append(Delivered(told["from"], tuple(told["to"]), raw))
        return found

    def clear(self) -> None:
        """Forget every message, every order and every conversation, as if it had just been started."""
        for file in (self.folder / "Maildir" / "new").glob("*"):
            file.unlink()
        (self.folder / "commands.log").unlink(missing_ok=True)
        self._refused, self._cut = {}, []
        self._tell()

    def conversations(self) -> list[list[str]]:
        """Return the commands of each connection, without their arguments, in order."""
        found: dict[int, list[str]] = {}
        log = self.folder / "commands.log"
        for line in log.read_text().splitlines() if log.exists() else []:
            connection, command = line.split()
            found.setdefault(int(connection), []).append(command)
        return [found[connection] for connection in sorted(found)]

    def start(self) -> Self:
        """Start the server and wait until it listens."""
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        self._child.start()
        wait_until(ready.exists, what="aiosmtpd to listen", children=[self._child])
        return self

    def stop(self) -> None:
        """Stop the server; what it took stays."""
        self._child.stop()

    def _tell(self) -> None:
        said = self.folder / "orders.json.new"
        said.write_text(json.dumps({"refused": self._refused, "cut": self._cut}))
        said.rename(self.folder / "orders.json")


class _Handler:
    """Refuses as it is told, and lays the rest into the Maildir."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maildir = mailbox.Maildir(folder / "Maildir")

    def _orders(self) -> dict[str, Any]:
        orders: dict[str, Any] = json.loads((self._folder / "orders.json").read_text())
        return orders

    def _refusal(self, command: Command, address: str) -> str | None:
        code, text = self._orders()["refused"].get(f"{command} {address}", (None, ""))
        return None if code is None else f"{code} {text}"

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's names, here and below
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refused = self._refusal("MAIL", address)
        if refused:
            return refused
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refused = self._refusal("RCPT", address)
        if refused:
            return refused
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        for address in envelope.rcpt_tos:
            refused = self._refusal("DATA", address)
            if refused:
                return refused
        told = json.dumps({"from": envelope.mail_from, "to": envelope.rcpt_tos})
        content = envelope.original_content or b""
        self._maildir.add(f"X-Envelope: {told}\r\n".encode() + content)
        if set(envelope.rcpt_tos) & set(self._orders()["cut"]):
            transport = server.transport
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
        return "250 2.0.0 OK"


class _Server(SMTP):
    """Writes down which commands a connection gave."""

    connections = 0

    def __init__(self, handler: _Handler, folder: Path, **options: Any) -> None:
        super().__init__(handler, hostname="mail.test", **options)
        self._log = folder / "commands.log"
        type(self).connections += 1
        self._number = type(self).connections

    async def _note(self, command: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{self._number} {command}\n")


def _noting(command: str) -> Any:
    original = getattr(SMTP, f"smtp_{command}")

    async def noted(self: _Server, argument: str) -> None:
        await self._note(command)
        await original(self, argument)

    noted.__doc__ = original.__doc__
    for name, value in vars(original).items():
        setattr(noted, name, value)
    return noted


for _command in ("EHLO", "HELO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "RSET", "QUIT"):
    setattr(_Server, f"smtp_{_command}", _noting(_command))


async def _serve(folder: Path) -> None:
    setting = json.loads((folder / "setting.json").read_text())
    trusted = None
    if setting["tls"]:
        trusted = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trusted.load_cert_chain(folder / "pki" / "server.crt", folder / "pki" / "server.key")
    users = {name.encode(): password.encode() for name, password in setting["users"].items()}

    def sign_in(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, who: LoginPassword
    ) -> AuthResult:
        known = users.get(who.login, b"")
        return AuthResult(success=bool(known) and hmac.compare_digest(known, who.password), handled=False)

    handler = _Handler(folder)
    options: dict[str, Any] = {"enable_SMTPUTF8": setting["smtputf8"]}
    if users:
        options |= {
            "authenticator": sign_in,
            "auth_required": True,
            # TLS from the start counts as none for aiosmtpd.
            "auth_require_tls": setting["tls"] == "starttls",
            "auth_exclude_mechanism": {"PLAIN", "LOGIN"} - set(setting["mechanisms"]),
        }
    if setting["tls"] == "starttls":
        options |= {"tls_context": trusted, "require_starttls": True}
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: _Server(handler, folder, **options),
        "127.0.0.1",
        setting["port"],
        ssl=trusted if setting["tls"] == "implicit" else None,
    )
    (folder / "ready").touch()
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
