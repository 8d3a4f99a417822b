"""Servers that answer without end are left, and nobody else is."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator

import psycopg
import pytest

from devtools.servers.endless import ENDLESS, EndlessPostgres
from lethe.adapters.stores.sql import answers
from lethe.adapters.stores.sql.answers import MOST_BYTES, Answer
from lethe.adapters.stores.sql.errors import AnswerTooLong
from lethe.adapters.stores.sql.sessions import Sessions
from lethe.ports.stores import StoreUnreachable
from tests.adapters.stores.sql.conftest import Site, store_of

MORE_AT_MOST = 400 * 1024
"""Kilobytes that the process may have taken at its highest: many times an answer's bytes, for its rows."""


TOO_MUCH = "answers with more than Lethe can take in|does not answer"
"""On a busy machine a greeting that never ends takes too long before it is too long."""


def highest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture
def sessions(database: str) -> Iterator[Sessions]:
    sessions = Sessions(database)
    yield sessions
    sessions.close()


@pytest.mark.parametrize("answer", ENDLESS, ids=lambda one: one.__name__)
def test_a_store_that_answers_without_end_is_in_trouble_and_takes_little(
    answer: Callable[[Callable[[bytes], object]], None],
) -> None:
    before = highest()
    with EndlessPostgres(answer) as server:
        store = store_of(f"postgresql://u:p@127.0.0.1:{server.port}/db")
        try:
            for _ in range(3):
                with pytest.raises(StoreUnreachable, match=TOO_MUCH):
                    store.prove()
        finally:
            store.close()
    assert highest() - before < MORE_AT_MOST


@pytest.mark.parametrize(
    "query",
    [
        "SELECT repeat('x', 400 * 1024 * 1024)",
        "SELECT n FROM generate_series(1, 100000000) AS n",
        "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)",
    ],
)
def test_a_real_server_that_answers_too_much_is_left_and_asked_anew(sessions: Sessions, query: str) -> None:
    before = highest()
    with pytest.raises(AnswerTooLong), sessions.alive() as session:
        session.execute(query)
    assert highest() - before < MORE_AT_MOST
    with sessions.alive() as session:
        assert session.execute("SELECT repeat('x', 1024 * 1024)").fetchone() == ("x" * 1024 * 1024,)


def test_an_address_of_400_megabytes_is_the_trouble_of_its_store_alone(site: Site) -> None:
    site.sql.execute("ALTER TABLE users ALTER first_name TYPE text, ALTER email TYPE text")
    site.sql.execute("DROP INDEX users_lower_idx")
    site.sql.execute("ALTER TABLE users DROP CONSTRAINT users_email_key")
    site.sql.execute(
        "INSERT INTO users (email, password_hash) VALUES (repeat('x', 400 * 1024 * 1024) || '@x.de', '!')"
    )
    before = highest()
    with pytest.raises(StoreUnreachable, match="more than Lethe can take in"):
        site.find_by_email("ada@canary.example")
    assert highest() - before < MORE_AT_MOST


@pytest.fixture
def pairs() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Make connections."""
    made: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pair() -> tuple[socket.socket, socket.socket]:
            near = socket.create_connection(listener.getsockname())
            far = listener.accept()[0]
            made.extend((near, far))
            return near, far

        yield pair
    for one in made:
        one.close()


def pour(far: socket.socket, near: socket.socket, size: int) -> None:
    """Let so many bytes arrive and be read."""
    sent = 0
    while sent < size:
        sent += far.send(bytes(min(65536, size - sent)))
        near.recv(1 << 20)


def test_of_many_that_answer_at_length_the_one_that_takes_longest_is_left(
    pairs: Callable[[], tuple[socket.socket, socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MOST_TOGETHER", 5 * 1024 * 1024)
    (slow, far), (quick, far2) = pairs(), pairs()
    kept, going_on = Answer(slow.fileno()), Answer(quick.fileno())
    pour(far, slow, 2 * 1024 * 1024)
    assert not kept.is_too_long()  # and there it stays
    for _ in range(3):
        pour(far2, quick, 1024 * 1024)
        assert not going_on.is_too_long()
    pour(far2, quick, 1024 * 1024)
    assert not going_on.is_too_long()
    assert kept.is_too_long()
    for one in (kept, going_on):
        one.close()
    again = Answer(quick.fileno())
    pour(far2, quick, 4 * 1024 * 1024)
    assert not again.is_too_long()
    again.close()


def test_an_answer_is_too_long_by_itself_whatever_others_leave_it(
    pairs: Callable[[], tuple[socket.socket, socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MOST_BYTES", 2 * 1024 * 1024)
    near, far = pairs()
    answer = Answer(near.fileno())
    pour(far, near, 2 * 1024 * 1024)
    assert not answer.is_too_long()
    pour(far, near, 1024 * 1024)
    assert answer.is_too_long()
    answer.close()


def test_a_system_that_counts_no_bytes_bounds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_TCP_INFO", None)
    assert not Answer(0).is_too_long()


def test_an_answer_of_fifty_thousand_numbers_takes_less_than_half_of_what_may_be(sessions: Sessions) -> None:
    query = (
        "SELECT n, n, n, pg_catalog.sha256(n::text::bytea), '{\"users\": 1}' FROM generate_series(1, 50000) n"
    )
    with sessions.alive() as session:
        answer = Answer(session.pgconn.socket)
        assert len(session.execute(query).fetchall()) == 50_000
        size = answers._received(session.pgconn.socket) - answer._before
        answer.close()
    assert size < MOST_BYTES / 2
    assert isinstance(session, psycopg.Connection)
