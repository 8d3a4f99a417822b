"""A real little receiver of webhooks: HTTP/1.1, and signatures verified by the standard's own package."""

from __future__ import annotations

import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, ClassVar, Self

from standardwebhooks import Webhook, WebhookVerificationError

from devtools.servers.certificates import write_certificates


@dataclass
class Receiver:
    """Listens on 127.0.0.1; a context manager. `ca_file` is the authority to trust, if `tls`."""

    folder: Path
    secret: str
    tls: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    endless: set[str] = field(default_factory=set)
    trickles: dict[str, str] = field(default_factory=dict)
    trickled: SimpleQueue[str] = field(default_factory=SimpleQueue)
    paths: list[str] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where to send to."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/hooks/lethe?tenant=a"

    @property
    def ca_file(self) -> Path | None:
        """The authority to trust."""
        return self.folder / "pki" / "ca.crt" if self.tls else None

    def answer(self, address: str, status: int, **headers: str) -> None:
        """Answer letters to an address with a status, and with that address in the body."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[address] = (status, told, f"<{address}>: not taken".encode())

    def start(self) -> Self:
        """Listen, at the same port as before."""
        if self.tls and not (self.folder / "pki").exists():
            write_certificates(self.folder / "pki")
        server = ThreadingHTTPServer(
            ("127.0.0.1", self.port), type("Handler", (_Handler,), {"receiver": self})
        )
        server.daemon_threads = True
        self.port = server.server_address[1]
        if self.tls:
            trusted = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            trusted.load_cert_chain(self.folder / "pki" / "server.crt", self.folder / "pki" / "server.key")
            server.socket = trusted.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self._server = server
        return self

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Handler(BaseHTTPRequestHandler):
    receiver: ClassVar[Receiver]
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.receiver.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.receiver.paths.append(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            event = Webhook(self.receiver.secret).verify(body, headers)
        except WebhookVerificationError:
            self._answer(401, {}, b"signature")
            return
        to = event["data"]["to"]
        if to in self.receiver.answers:
            self._answer(*self.receiver.answers[to])
            return
        self.receiver.events.append(event)
        self.receiver.headers.append(headers)
        if to in self.receiver.cut:
            self.close_connection = True
            return
        if to in self.receiver.endless:
            self._answer_without_end()
            return
        if to in self.receiver.trickles:
            self._answer_bit_by_bit(self.receiver.trickles[to])
            return
        self._answer(204, {}, b"")

    def _answer_bit_by_bit(self, part: str) -> None:
        """Take seconds for an answer, or for its body; then say whether the client was still there."""
        slowly = b"HTTP/1.1 204 No Content\r\n" + b"X-Slow: " + b"y" * 60 + b"\r\n\r\n"
        if part != "answer":
            slowly = bytes(90)
            last = {"connection": "close"} if part == "last body" else {}
            self._answer(200, {"content-length": str(len(slowly)), **last}, b"")
        try:
            for byte in slowly:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)
        except OSError:
            self.receiver.trickled.put("cut off")
            self.close_connection = True
        else:
            self.receiver.trickled.put("heard to the end")

    def _answer_without_end(self) -> None:
        self._answer(200, {"content-length": str(10**15)}, b"")
        with suppress(OSError):
            while True:
                self.wfile.write(bytes(65536))

    def do_GET(self) -> None:
        self.receiver.paths.append(self.path)
        self._answer(200, {}, b"")

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204 and "content-length" not in headers:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass
