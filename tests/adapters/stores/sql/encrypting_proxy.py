"""TLS for the tests' PostgreSQL, which is built without."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self


class EncryptingProxy:
    """Offers TLS before a server that has none, and passes everything on as long as `passes` is set.

    `server` is the server's port; `None`: TLS is promised, and then nothing comes. `address` is its own.
    """

    def __init__(self, certificates: Path, server: int | None, address: str = "127.0.0.1") -> None:
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificates / "server.crt", certificates / "server.key")
        self._server = server
        self._listener = socket.create_server((address, 0))
        self._open: list[socket.socket] = [self._listener]
        self.port = int(self._listener.getsockname()[1])
        self.passes = threading.Event()
        self.passes.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.passes.set()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            client.recv(8)  # SSLRequest
            client.sendall(b"S")
            if self._server is None:
                return
            encrypted = self._tls.wrap_socket(client, server_side=True)
            plain = socket.create_connection(("127.0.0.1", self._server))
            self._open += [encrypted, plain]
            threading.Thread(target=self._pass, args=(plain, encrypted), daemon=True).start()
            self._pass(encrypted, plain)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while self.passes.wait() and (some := source.recv(65536)):
                self.passes.wait()
                target.sendall(some)
