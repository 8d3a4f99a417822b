"""A real inbox (GreenMail): SMTP over TLS with signing in, and IMAP to read what came. Second stage only.

It is Java: a runtime and Maven must be on PATH (Debian: default-jre-headless and maven). Maven fetches the
jar once per machine, from wherever it is set up to. GreenMail has no STARTTLS.
"""

from __future__ import annotations

import hashlib
import imaplib
import shutil
import ssl
import subprocess
import sys
from collections.abc import Mapping
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Self
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)

from devtools.cache import cached
from devtools.servers.certificates import write_certificates
from devtools.servers.children import Child, Server, ServerFailed, free_port, wait_until

VERSION = "2.1.8"
SHA256 = "332bfed79603101308927a951c4b56e89798edf614ed354a927ac9099e8ab4e4"
_JAR = "greenmail-standalone.jar"
_KEYSTORE_PASSWORD = "of-a-test"


def missing_programs() -> list[str]:
    """Return which of the programs that it takes are not here."""
    return [name for name in ("java", "mvn") if shutil.which(name) is None]


def jar() -> Path:
    """Return the jar, fetching it if this version has not been fetched yet.

    Raises `subprocess.CalledProcessError` when Maven fails, `ServerFailed` for a jar of other content.
    """
    return cached(f"greenmail-{VERSION}", _fetch) / _JAR


def _fetch(folder: Path) -> None:
    repository = folder / "repository"
    subprocess.run(
        [
            "mvn",
            "--batch-mode",
            "--quiet",
            f"-Dmaven.repo.local={repository}",
            "dependency:copy",
            f"-Dartifact=com.icegreen:greenmail-standalone:{VERSION}",
            f"-DoutputDirectory={folder}",
            "-Dmdep.stripVersion=true",
        ],
        cwd=folder,
        stdout=sys.stderr,
        check=True,
    )
    shutil.rmtree(repository)
    if hashlib.sha256((folder / _JAR).read_bytes()).hexdigest() != SHA256:
        raise ServerFailed(f"GreenMail {VERSION} is another jar than the one that is known")


class GreenMail(Server):
    """An inbox for each of `users` (passwords by address), which sign in by their address.

    A context manager, ready in seconds. What came is gone once it is stopped.
    """

    def __init__(self, folder: Path, users: Mapping[str, str]) -> None:
        self.folder = folder.absolute()
        self._users = dict(users)
        self._smtp, self._imap = free_port(), free_port()
        pki = self.folder / "pki"
        write_certificates(pki)
        _write_keystore(pki)
        self.ca_file = pki / "ca.crt"
        settings = {
            "smtps.hostname": "127.0.0.1",
            "smtps.port": self._smtp,
            "imaps.hostname": "127.0.0.1",
            "imaps.port": self._imap,
            "api.hostname": "127.0.0.1",
            "api.port": free_port(),
            # By itself it gives up after two seconds, and stays as a process that serves nothing.
            "startup.timeout": 120_000,
            "tls.keystore.file": pki / "server.p12",
            "tls.keystore.password": _KEYSTORE_PASSWORD,
            "users": ",".join(_user(address, password) for address, password in self._users.items()),
            "users.login": "email",
        }
        options = [f"-Dgreenmail.{name}={value}" for name, value in settings.items()]
        self._child = Child(["java", "-Xmx128m", *options, "-jar", jar()], log=self.folder / "greenmail.log")

    def url_for(self, address: str, password: str | None = None) -> str:
        """Return `LETHE_SMTP_URL` for somebody, with their own password or another."""
        secret = self._users[address] if password is None else password
        return f"smtps://{quote(address, safe='')}:{quote(secret, safe='')}@127.0.0.1:{self._smtp}"

    def inbox(self, address: str) -> list[EmailMessage]:
        """Return what somebody's mail program gets by IMAP, in the order in which it came."""
        trusted = ssl.create_default_context(cafile=self.ca_file)
        with imaplib.IMAP4_SSL("127.0.0.1", self._imap, ssl_context=trusted) as box:
            box.login(address, self._users[address])
            box.select(readonly=True)
            _, (numbers,) = box.search(None, "ALL")
            return [self._fetched(box, number) for number in numbers.split()]

    def _fetched(self, box: imaplib.IMAP4_SSL, number: bytes) -> EmailMessage:
        _, parts = box.fetch(number.decode(), "(BODY.PEEK[])")
        (part,) = (part for part in parts if isinstance(part, tuple))
        return BytesParser(policy=policy.default).parsebytes(part[1])

    def start(self) -> Self:
        """Start the server and wait until people can sign in."""
        self._child.start()
        wait_until(self._answers, what="GreenMail to answer", children=[self._child])
        return self

    def stop(self) -> None:
        """Stop the server."""
        self._child.stop()

    def _answers(self) -> bool:
        try:
            self.inbox(next(iter(self._users)))
        except (OSError, imaplib.IMAP4.error):
            return False
        return True


def _user(address: str, password: str) -> str:
    local, _, domain = address.rpartition("@")
    return f"{local}:{password}@{domain}"


def _write_keystore(pki: Path) -> None:
    key = load_pem_private_key((pki / "server.key").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    certificate, authority = (
        x509.load_pem_x509_certificate((pki / name).read_bytes()) for name in ("server.crt", "ca.crt")
    )
    keystore = pkcs12.serialize_key_and_certificates(
        b"server", key, certificate, [authority], BestAvailableEncryption(_KEYSTORE_PASSWORD.encode())
    )
    (pki / "server.p12").write_bytes(keystore)


if __name__ == "__main__":
    print(jar())
