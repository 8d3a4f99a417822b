"""An S3 service that knows less than others, or answers strangely: a real one, with something in front."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

Reply = tuple[int, str]


class Odd:
    """A service in front of another. `answer` replies to a request, says for which other path to ask the
    one behind, or lets the request through (`None`)."""

    def __init__(self, behind: str, answer: Callable[[BaseHTTPRequestHandler], Reply | str | None]) -> None:
        outer = self
        self.asked = list[str]()

        class Passing(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                outer.asked.append(f"{self.command} {self.path}")
                said = answer(self)
                if isinstance(said, tuple):
                    with suppress(ConnectionError):  # who has left hears nothing more
                        self.say(*said)
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(
                    behind + (said or self.path),
                    data=body or None,
                    headers=dict(self.headers),
                    method=self.command,
                )
                try:
                    with urlopen(request) as reply:
                        self.say(reply.status, reply.read().decode())
                except HTTPError as refused:
                    self.say(refused.code, refused.read().decode())

            do_GET = do_POST = do_DELETE = do_HEAD = handle_one  # noqa: N815 - as http.server wants it

            def say(self, status: int, body: str) -> None:
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                if status != 204 and self.command != "HEAD":
                    self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Passing)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Odd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def refusal(code: str) -> str:
    """Return what S3 says when it refuses."""
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
