"""A server between Lethe and the real Tryton that lies as it is told to."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Question = dict[str, Any]
Lie = Callable[[Question, Callable[[Question], Any]], Any]
"""Makes an answer to a question; may ask the real Tryton. A result, or a `Raw`."""


class Raw:
    """An answer as it is sent: its bytes, and a length that need not be theirs."""

    def __init__(
        self, status: int, body: bytes, *, content_type: str = "text/html", length: int | None = None
    ) -> None:
        self.status = status
        self.body = body
        self.headers = {
            "Content-Type": content_type,
            "Content-Length": str(len(body) if length is None else length),
        }


class Liar:
    """Tells the truth until `lie` is set. `questions` are all that it was asked, `paths` where."""

    def __init__(self, truth: str) -> None:
        self.lie: Lie | None = None
        self.questions: list[Question] = []
        self.paths: set[str] = set()
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                question = json.loads(body)
                liar.questions.append(question)
                liar.paths.add(self.path)

                def ask(asked: Question) -> Any:
                    headers = {"Content-Type": "application/json"}
                    if "Authorization" in self.headers:
                        headers["Authorization"] = self.headers["Authorization"]
                    request = urllib.request.Request(truth + self.path, json.dumps(asked).encode(), headers)
                    try:
                        with urllib.request.urlopen(request, timeout=60) as response:
                            return Raw(200, response.read(), content_type="application/json")
                    except urllib.error.HTTPError as error:
                        return Raw(error.code, error.read())

                answer = ask(question) if liar.lie is None else liar.lie(question, ask)
                if not isinstance(answer, Raw):
                    text = json.dumps({"id": question["id"], "result": answer}).encode()
                    answer = Raw(200, text, content_type="application/json")
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
                if int(answer.headers["Content-Length"]) != len(answer.body):
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as its base calls it
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def result_of(answer: Any) -> Any:
    """The result within an answer of the real Tryton."""
    return json.loads(answer.body)["result"]
