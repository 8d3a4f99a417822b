"""A server that lies: nobody else is erased, nobody is absent without proof, nothing personal is told."""

import gzip
import json
import logging
import socket
import ssl
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from devtools.servers.certificates import write_certificates
from lethe.adapters.stores.tryton import TrytonStore
from lethe.domain.tombstones import match_restored_rows, match_unchanged_rows
from lethe.ports.stores import AnswerUntrusted, StoreUnreachable
from tests.adapters.stores.tryton.conftest import CANARY, FINGERPRINTS, Crm, Opened, found, tombstone, wanted
from tests.adapters.stores.tryton.liar import Liar, Lie, Raw, result_of

FIRST = match_unchanged_rows(FINGERPRINTS)
AGAIN = match_restored_rows(FINGERPRINTS)
SECRET = "Zoe Okafor of 7 Quillfeather Street"


def _searches(question: dict[str, Any]) -> bool:
    return str(question["method"]).endswith(".search_read")


def _about(question: dict[str, Any], model: str) -> bool:
    return bool(question["method"] == f"model.{model}.search_read")


def everybody(question: dict[str, Any], ask: Callable[[Any], Any]) -> Any:
    """A server that ignores what it is asked for, in every search."""
    if not _searches(question):
        return ask(question)
    _, *rest = question["params"]
    return ask({**question, "params": [[], 0, None, *rest[2:]]})


def nobody(question: dict[str, Any], ask: Callable[[Any], Any]) -> Any:
    return [] if _searches(question) else ask(question)


def no_parties(question: dict[str, Any], ask: Callable[[Any], Any]) -> Any:
    """A server that hides parties (as a record rule does) and nothing else."""
    return [] if _about(question, "party.party") and question["params"][0] else ask(question)


def no_mechanisms(question: dict[str, Any], ask: Callable[[Any], Any]) -> Any:
    return [] if _about(question, "party.contact_mechanism") else ask(question)


def always_the_canary(question: dict[str, Any], ask: Callable[[Any], Any]) -> Any:
    """The same answer to every search for an address, and it holds what is known to be there."""
    if not _about(question, "party.contact_mechanism"):
        return ask(question)
    _, *rest = question["params"]
    return ask({**question, "params": [[["value", "=", CANARY]], *rest]})


def another_identity(question: dict[str, Any], ask: Callable[[Any], Any]) -> Any:
    answer = ask(question)
    if not _searches(question):
        return answer
    changed = {"value": SECRET, "value_compact": SECRET, "id": 1}
    return [row | {k: v for k, v in changed.items() if k in row} for row in result_of(answer)]


def another_party(question: dict[str, Any], ask: Callable[[Any], Any]) -> Any:
    """The right rows, but said to belong to somebody else."""
    answer = ask(question)
    if not _searches(question):
        return answer
    changed = {"party": 1, "replaced_by": 1, "resource": "party.party,1"}
    return [row | {k: v for k, v in changed.items() if row.get(k)} for row in result_of(answer)]


def twice(question: dict[str, Any], ask: Callable[[Any], Any]) -> Any:
    answer = ask(question)
    return result_of(answer) * 2 if _searches(question) else answer


def without_fields(question: dict[str, Any], ask: Callable[[Any], Any]) -> Any:
    answer = ask(question)
    return [{"id": row["id"]} for row in result_of(answer)] if _searches(question) else answer


def to_another_question(question: dict[str, Any], ask: Callable[[Any], Any]) -> Any:
    return ask({**question, "id": question["id"] + 1})


def _always(raw: Raw) -> Lie:
    return lambda question, ask: raw


def _json(answer: object) -> Lie:
    return lambda question, ask: Raw(
        200, json.dumps({"id": question["id"], **answer}).encode() if isinstance(answer, dict) else b""
    )


def half(question: dict[str, Any], ask: Callable[[Any], Any]) -> Any:
    body = ask(question).body
    return Raw(200, body[: len(body) // 2], length=len(body))


def half_zipped(question: dict[str, Any], ask: Callable[[Any], Any]) -> Any:
    body = gzip.compress(ask(question).body)
    return Raw(200, body[: len(body) // 2])


HTML = f"<html><title>Sign in</title>{SECRET}</html>".encode()
LIES_ABOUT_RECORDS: dict[str, Lie] = {
    one.__name__: one
    for one in (
        everybody,
        nobody,
        no_parties,
        no_mechanisms,
        always_the_canary,
        another_identity,
        another_party,
        twice,
    )
}
LIES: dict[str, Lie] = LIES_ABOUT_RECORDS | {
    "without fields": without_fields,
    "to another question": to_another_question,
    "404 for all": _always(Raw(404, HTML)),
    "401 for all": _always(Raw(401, HTML)),
    "500 for all": _always(Raw(500, HTML)),
    "a redirect": _always(Raw(302, HTML)),
    "200 with HTML": _always(Raw(200, HTML)),
    "nothing at all": _always(Raw(200, b"")),
    "half an answer": half,
    "half a zipped answer": half_zipped,
    "deeply nested": _always(Raw(200, b"[" * 100_000)),
    "UserError": _json({"error": ["UserError", [SECRET, SECRET, None]]}),
    "UserWarning": _json({"error": ["UserWarning", [SECRET, SECRET, SECRET]]}),
    "a traceback": _json({"error": [SECRET, f"Traceback: {SECRET}"]}),
    "null": _json({"result": None}),
    "a text": _json({"result": SECRET}),
    "numbers": _json({"result": [1, 2, 3]}),
    "no result": _json({}),
    "a session that no header can hold": _json({"result": [1, "\ud800"]}),
}


def _told(error: BaseException, caplog: pytest.LogCaptureFixture) -> str:
    return "".join((*traceback.format_exception(error), repr(error), caplog.text))


@pytest.mark.parametrize(
    ("lie", "canary"), [*((lie, CANARY) for lie in LIES), *((lie, None) for lie in LIES_ABOUT_RECORDS)]
)
def test_a_liar_neither_makes_anybody_absent_nor_gets_anybody_erased(
    crm: Crm, opened: Opened, liar: Liar, caplog: pytest.LogCaptureFixture, *, lie: str, canary: str | None
) -> None:
    caplog.set_level(logging.DEBUG)
    person = crm.person()
    store = opened(liar.url, canary=canary)
    stone = tombstone(found(store, person.email))
    before = crm.people()
    liar.lie = LIES[lie]
    asking: dict[str, Callable[[], object]] = {
        "find": lambda: store.find([wanted(person.email)]),
        "erase": lambda: store.erase([stone], FIRST, move=None),
        "check": lambda: store.check([[stone]], AGAIN),
        "plan": lambda: store.plan([stone]),
    }
    if lie == "no_mechanisms":
        del asking["erase"], asking["check"], asking["plan"]  # who is hidden so is told of below
    for ask in asking.values():
        with pytest.raises((AnswerUntrusted, StoreUnreachable)) as caught:
            ask()
        told = _told(caught.value, caplog)
        for text in (person.mark, person.email, "Okafor", "Quillfeather", crm.server.password):
            assert text not in told
    assert crm.people() == before


def test_who_is_hidden_while_being_erased_is_not_taken_for_clear(
    crm: Crm, opened: Opened, liar: Liar
) -> None:
    person = crm.person()
    store = opened(liar.url, canary=None)
    stone = tombstone(found(store, person.email))
    liar.lie = no_mechanisms
    store.erase([stone], FIRST, move=None)
    liar.lie = None
    assert store.check([[stone]], AGAIN).uncleared == (1,)
    store.erase([stone], FIRST, move=None)
    assert crm.lines_with(person.mark) == []


def test_a_wizard_that_only_says_so_is_not_believed(crm: Crm, opened: Opened, liar: Liar) -> None:
    person = crm.person()
    store = opened(liar.url)
    stone = tombstone(found(store, person.email))
    liar.lie = lambda question, ask: {} if ".erase.execute" in question["method"] else ask(question)
    store.erase([stone], FIRST, move=None)
    assert store.check([[stone]], AGAIN).uncleared == (1,)


def test_nothing_else_is_ever_written_to(crm: Crm, opened: Opened, liar: Liar) -> None:
    person = crm.person()
    store = opened(liar.url)
    stone = tombstone(found(store, person.email))
    others = [line for line in crm.people() if person.mark not in line]
    liar.questions.clear()
    store.erase([stone], FIRST, move=None)
    written = [
        q for q in liar.questions if str(q["method"]).rpartition(".")[2] in ("write", "delete", "create")
    ]
    assert written
    assert [line for line in crm.people() if line in others] == others
    assert liar.paths == {"/crm/rpc/"}
    assert person.email not in json.dumps(written)


def test_a_connection_that_the_server_closed_is_opened_again(crm: Crm, opened: Opened, liar: Liar) -> None:
    store = opened(liar.url)
    store.observe()
    connection = store._rpc._connection._http
    assert connection is not None
    connection.sock.shutdown(socket.SHUT_RDWR)
    store.observe()


def test_a_server_that_never_ends_its_answer_is_left_after_the_bound(opened: Opened, liar: Liar) -> None:
    liar.lie = _always(Raw(200, b"x" * (17 * 1024 * 1024)))
    with pytest.raises(AnswerUntrusted):
        opened(liar.url).observe()
    liar.lie = _always(Raw(200, gzip.compress(b"0" * (64 * 1024 * 1024))))
    with pytest.raises(AnswerUntrusted):
        opened(liar.url).observe()


def test_a_certificate_that_nobody_trusts_gets_no_password(crm: Crm, opened: Opened, tmp_path: Path) -> None:
    write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(StoreUnreachable, match="SSLCertVerificationError"):
            opened(f"https://127.0.0.1:{server.server_address[1]}").observe()
        server.shutdown()
    assert asked == []


def test_a_proxy_of_the_environment_is_not_asked(
    crm: Crm, store: TrytonStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    store.observe()
