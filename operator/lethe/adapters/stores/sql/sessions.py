"""Connections to one database, of which every wait ends, whatever becomes of the server.

A server that is frozen (stopped, or waiting for a dead disk) is not noticed by what PostgreSQL and TCP have
for it: its `statement_timeout` is its own to enforce, and its machine goes on acknowledging packets and
keepalives. A cancellation would wait for it as well. And silence alone proves nothing, since erasing a
million rows may well take an hour. So a session that has heard nothing for a while asks on a second
connection whether the server answers anybody, and gives it up if not.

| what hangs | the wait is ended by | after |
| --- | --- | --- |
| the name service | `addresses_of` | 5 s |
| connecting: TCP, TLS or the login | the deadline of the attempt, and of all of them | 5 s, 15 s |
| the server, frozen, or behind a wall that drops packets | no answer on a second connection | 25 to 30 s |
| the server that was there before a failover | another server's answer there | 25 to 30 s |
| this connection alone, while it is idle | no answer to `SELECT 1` | 5 s |
| this connection alone, in a statement | the kernel: keepalives, TCP_USER_TIMEOUT | 60 s |
| this session of a server that lives | the limit of the wait | 45 s; 61 min for a set |
| nothing: the server answers without end | the bytes that came (`answers`) | 16 MiB |

Beginning, COPY, COMMIT and ROLLBACK are waits like any other. Closing is none: libpq's farewell is not
waited for. A wait also ends, within a tenth of a second, when another thread closes the `Sessions`; while
it connects or asks, within the deadline of that.
"""

from __future__ import annotations

import re
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString, Self

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.abc import RV, PQGen, PQGenConn
from psycopg.pq import TransactionStatus

from lethe.adapters.hosts import ANYWHERE, HostRefused, NameNotAnswered, NameUnknown, Resolver
from lethe.adapters.stores.sql.answers import Answer, bounded
from lethe.adapters.stores.sql.errors import (
    AnswerTooLong,
    ServerSilent,
    SessionsClosed,
    certificates_missing,
    encryption_missing,
    host_refused,
    name_failure,
)
from lethe.adapters.stores.sql.postgres import compose, listed
from lethe.adapters.stores.sql.url import DatabaseUrl
from lethe.domain.hosts import is_loopback
from lethe.ports.stores import StoreUnreachable

ATTEMPT_SECONDS = 5.0
CONNECT_SECONDS = 15.0
"""How long one address is waited for, and all addresses of all hosts together."""
QUICK_SECONDS = 5.0
"""How long an answer is waited for that costs the server nothing."""
ASK_AFTER_SECONDS = 10.0
"""How long a session hears nothing before it is asked whether the server answers anybody."""
ASK_AGAIN_SECONDS = 3.0
ASK_SECONDS = 8.0
"""How long a second connection may take to be made, and its answer to come."""
GIVE_UP_SECONDS = 25.0
"""After how long without any answer, and with one question at least, a server is given up."""
LOOK_SECONDS = 45.0
BULK_SECONDS = 61 * 60.0
"""How long one statement may take: a little longer than its `statement_timeout` lets it."""
CLIENT_SECONDS = 10.0
"""How often a server that is at work looks whether Lethe is still there."""
_MOST_IDLE = 2
_LARGEST_CERTIFICATES = 8 * 1024 * 1024

# Said in each transaction, and never to a session: a pooler lends that to the application next, which is to
# find it as it was. And what the application left in it, its role or search_path, does not count here.
_SET_UP: LiteralString = (
    "SET LOCAL role TO DEFAULT; SET LOCAL search_path TO DEFAULT;"
    " SELECT pg_catalog.set_config(name, value, true) FROM (VALUES"
    " ('row_security', 'off'),"  # raises where a policy would hide rows: hidden is not absent
    " ('TimeZone', 'UTC'), ('DateStyle', 'ISO, YMD'), ('IntervalStyle', 'iso_8601'),"
    " ('extra_float_digits', '1'), ('bytea_output', 'hex'),"
    # A look must be over soon; a set of a million takes minutes, and is bounded only against hanging for
    # ever. A lock is waited for far less long than PostgreSQL's deadlock_timeout (1 s): where Lethe and a
    # pg_restore, or an application, wait for each other, it is Lethe that steps back, not they that fail.
    # That holds for whoever began to wait last, too, only because no table is waited for late (`hold`).
    " ('lock_timeout', '500ms'), ('statement_timeout', {statement_timeout}),"
    " ('idle_in_transaction_session_timeout', '10min'){further}) AS settings (name, value)"
)
_QUICK, _LONG = "30s", "60min"
# The server's own errors have two blanks behind the severity, in every language; libpq's have none of this.
_SAID_BY_SERVER = re.compile(r"failed: [^:\n]+:  ")
_ESCAPED = re.compile(r"\\(.)")

_DRIVER: dict[str, Any] = {
    "application_name": "lethe",
    "autocommit": True,
    "client_encoding": "utf8",  # of a database in SQL_ASCII the driver would read names as bytes
    "prepare_threshold": None,  # a pooler like PgBouncer gives each transaction another session
    "gssencmode": "disable",  # would ask a Kerberos server, for as long as that takes
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    # Not shorter: a server that is too busy to read a COPY is alive.
    "tcp_user_timeout": 60_000,
}


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection that gives up a server which does not answer, raising `ServerSilent`.

    It is broken then, and whatever is asked of it (a ROLLBACK, the end of a COPY) fails at once.
    """

    place: tuple[str, str, int] = ("", "", 0)
    """Host, address and port of the server."""
    server_started: int | None = None
    """When the server was started, in microseconds since 1970."""
    search_path: str | None = None
    """The search_path of the URL; `None`: that of the user."""
    ends_for_the_dead = False
    """Whether the server can end a statement of which nobody waits for the answer any more."""
    limit = LOOK_SECONDS
    """After how many seconds a wait ends although the server answers others."""
    answers: Callable[[Session], bool] | None = None
    """Tells, on a second connection, whether the server answers; `None`: nobody asks."""
    closing: threading.Event | None = None
    """Set when nobody is interested any more."""
    _gave_up: type[psycopg.OperationalError] | None = None

    @property
    def address(self) -> str:
        """Return `host:port`, as a ledger names a server that does not tell its identifier."""
        host, _, port = self.place
        return f"{host}:{port}"

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Let every wait end after so many seconds."""
        before, self.limit = self.limit, seconds
        try:
            yield
        finally:
            self.limit = before

    def ask(self, query: sql.Composed) -> list[tuple[Any, ...]]:
        """Return the rows of a query. Where no transaction is open it is one by itself, in one round trip."""
        alone = self.pgconn.transaction_status == TransactionStatus.IDLE
        cursor = self.execute(listed([self.set_up(_QUICK), query], "; ") if alone else query)
        while cursor.nextset():
            pass
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows

    def set_up(self, statement_timeout: str) -> sql.Composed:
        """Return the statements by which each transaction begins."""
        further = {"search_path": self.search_path}
        if self.ends_for_the_dead:
            further["client_connection_check_interval"] = f"{CLIENT_SECONDS * 1000:.0f}ms"
        named = (
            compose(", ({setting}, {text})", setting=setting, text=text)
            for setting, text in further.items()
            if text is not None
        )
        return compose(_SET_UP, statement_timeout=statement_timeout, further=listed(named, ""))

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """See `psycopg.Connection.wait`. Raises `ServerSilent`, `SessionsClosed`."""
        if self._gave_up is not None:
            raise self._gave_up
        self._require_open()
        return super().wait(self._watched(gen), interval, timeout)

    def _watched(self, gen: PQGen[RV]) -> PQGen[RV]:
        """Pass a wait through, and look at the clock whenever it is woken: each `interval` at least."""
        silence, answer = _Silence(self), Answer(self.pgconn.socket)
        try:
            state = next(gen)
            while True:
                ready = yield state
                self._require_open()
                if answer.is_too_long():
                    raise self._given_up(AnswerTooLong)
                if silence.is_too_long(heard=bool(ready)):
                    raise self._given_up(ServerSilent)
                state = gen.send(ready)
        except StopIteration as ended:
            result: RV = ended.value
            return result
        finally:
            answer.close()

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
        return bounded(super()._connect_gen(conninfo))

    def _require_open(self) -> None:
        if self.closing is not None and self.closing.is_set():
            raise self._given_up(SessionsClosed)

    def _given_up(self, why: type[psycopg.OperationalError]) -> psycopg.OperationalError:
        self._gave_up = why
        self.close()  # at once: whoever comes to clean up must not wait anew
        return why()


class _Silence:
    """How long a session has heard nothing in one wait, and what was done to learn what that means."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._began = self._heard = time.monotonic()
        self._ask_at = self._began + ASK_AFTER_SECONDS
        self._asked_in_vain = False

    def is_too_long(self, *, heard: bool) -> bool:
        """Tell whether the server is to be given up; asks it on a second connection when it is time to."""
        now = time.monotonic()
        if heard:
            self._note_answer(now)
        elif self._asked_in_vain and now - self._heard >= GIVE_UP_SECONDS:
            return True
        elif self._session.answers is not None and now >= self._ask_at:
            answered = self._session.answers(self._session)
            now = time.monotonic()
            if answered:
                self._note_answer(now)
            else:
                self._asked_in_vain, self._ask_at = True, now + ASK_AGAIN_SECONDS
        return now - self._began >= self._session.limit

    def _note_answer(self, now: float) -> None:
        self._heard, self._ask_at, self._asked_in_vain = now, now + ASK_AFTER_SECONDS, False


class Sessions:
    """The sessions of one database, opened when they are needed, of which two are kept.

    Lent to one thread at a time; `close` may be called by any. Unless `allow_plaintext`, all are encrypted
    but those with this machine. Raises `ValueError` as `DatabaseUrl.parse`.
    """

    def __init__(self, url: str, resolver: Resolver = ANYWHERE, *, allow_plaintext: bool = False) -> None:
        self._url = DatabaseUrl.parse(url)
        self._settings = {name: text for name, text in self._url.settings.items() if name != "options"}
        self._search_path = _search_path_in(self._url.settings.get("options"))
        self._resolver, self._allow_plaintext = resolver, allow_plaintext
        self._idle: list[Session] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def close(self) -> None:
        """Close every session, without waiting: those that are lent when their wait ends, which is soon."""
        self._closed.set()
        self._drop_idle()

    @contextmanager
    def connection(self) -> Iterator[Session]:
        """Lend a session in autocommit mode, which may have been cut off while it was idle."""
        with self._lent(self._take_idle() or self._connect()) as session:
            yield session

    @contextmanager
    def alive(self) -> Iterator[Session]:
        """Lend a session that has just answered, so that a server's restart costs nobody an attempt."""
        with self._lent(self._take_answering() or self._connect()) as session:
            yield session

    @contextmanager
    def transaction(
        self, *, repeatable: bool = False, read_only: bool = False, quick: bool = False
    ) -> Iterator[psycopg.Cursor[tuple[Any, ...]]]:
        """Run one transaction, committed at the end; an exception rolls it back. `quick`: it is soon over."""
        with self.alive() as session, session.within(LOOK_SECONDS if quick else BULK_SECONDS):
            session.isolation_level = (
                IsolationLevel.REPEATABLE_READ if repeatable else IsolationLevel.READ_COMMITTED
            )
            # Not `False`: that would override a database which its DBA made read-only.
            session.read_only = True if read_only else None
            with session.transaction(), session.cursor() as cursor:
                cursor.execute(session.set_up(_QUICK if quick else _LONG))
                yield cursor
            if session.closed:  # then the driver left out the COMMIT, and said nothing
                raise ServerSilent

    # --- lending ---------------------------------------------------------------------------------------

    @contextmanager
    def _lent(self, session: Session) -> Iterator[Session]:
        try:
            yield session
        except psycopg.OperationalError:
            if session.closed:  # what ended this one has ended those that nobody uses, too
                self._drop_idle()
            raise
        finally:
            self._take_back(session)

    def _take_idle(self) -> Session | None:
        if self._closed.is_set():
            raise SessionsClosed
        with self._lock:
            session = self._idle.pop() if self._idle else None
        if session is not None:  # whoever had it before may have read only
            session.read_only = session.isolation_level = None
        return session

    def _take_answering(self) -> Session | None:
        """Return an idle session that answers; where one does not, none of them is trusted."""
        session = self._take_idle()
        if session is None:
            return None
        try:
            with session.within(QUICK_SECONDS):
                session.execute("SELECT 1")
        except psycopg.OperationalError:
            session.close()
            self._drop_idle()
            return None
        return session

    def _take_back(self, session: Session) -> None:
        idle = session.pgconn.transaction_status == TransactionStatus.IDLE
        with self._lock:
            if idle and not self._closed.is_set() and len(self._idle) < _MOST_IDLE:
                self._idle.append(session)
                return
        session.close()

    def _drop_idle(self) -> None:
        with self._lock:
            dropped, self._idle = self._idle, []
        for session in dropped:
            session.close()

    # --- connecting ------------------------------------------------------------------------------------

    def _connect(self) -> Session:
        """Return a new session to the first host that lets Lethe in.

        Raises `psycopg.Error` or `StoreUnreachable` of a server that answered, where one did.
        """
        until = time.monotonic() + CONNECT_SECONDS
        failures: list[Exception] = []
        for host, address, port in self._places(until, failures):
            try:
                seconds = min(ATTEMPT_SECONDS, until - time.monotonic())
                return self._begin(self._open(host, address, port, seconds=seconds))
            except psycopg.Error as error:
                failures.append(error)
            if self._closed.is_set():
                raise SessionsClosed
        answered = (one for one in failures if _SAID_BY_SERVER.search(str(one)))
        raise next(answered, failures[-1])

    def _places(self, until: float, failures: list[Exception]) -> Iterator[tuple[str, str, int]]:
        """Yield host, address and port of all that can be tried in time; append which names can't."""
        for host, port in self._url.hosts:
            left = until - time.monotonic()
            try:
                seconds = min(ATTEMPT_SECONDS, left)
                addresses = self._resolver.addresses_of(host, port, seconds=seconds) if left > 0 else ()
            except (NameUnknown, NameNotAnswered) as unknown:
                failures.append(name_failure(unknown))
                continue
            except HostRefused as refused:
                raise host_refused(refused) from None
            for address in addresses:
                if time.monotonic() < until:
                    yield host, address, port

    def _begin(self, session: Session) -> Session:
        """Set a session up, and let it look after itself."""
        try:
            with session.within(QUICK_SECONDS):
                session.server_started = _started(session)
                session.ends_for_the_dead = _can_end_for_the_dead(session)
        except BaseException:
            session.close()
            raise
        session.answers = self._answers
        session.closing = self._closed
        return session

    def _answers(self, silent: Session) -> bool:
        """Tell whether the server of a session answers somebody else."""
        try:
            other = self._open(*silent.place, seconds=ASK_SECONDS, target_session_attrs="any")
        except psycopg.Error as error:
            # One that has no connection left, or is shutting down, says so.
            return _SAID_BY_SERVER.search(str(error)) is not None
        except StoreUnreachable:
            return False
        try:
            with other.within(ASK_SECONDS):
                return _started(other) == silent.server_started
        except psycopg.Error as error:
            return error.sqlstate is not None
        finally:
            other.close()

    def _open(self, host: str, address: str, port: int, *, seconds: float, **settings: str) -> Session:
        """Return a new connection to one address."""
        given: dict[str, Any] = {**self._settings, **settings}
        if not (self._allow_plaintext or is_loopback(address)):
            given["sslmode"] = _encrypted(given.get("sslmode", "prefer"))
        _require_certificates(given.get("sslrootcert", "system"))
        session = Session.connect(
            host=host,
            hostaddr=address,
            port=port,
            connect_timeout=max(1, int(min(seconds, self._url.connect_seconds or seconds))),
            **_DRIVER,
            **given,
        )
        session.place, session.search_path = (host, address, port), self._search_path
        return session


def _started(session: Session) -> int | None:
    """Return when the server of a session was started: which of those it is that stood at its address."""
    row = session.execute(
        "SELECT (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint"
    ).fetchone()
    return row[0] if row else None


def _can_end_for_the_dead(session: Session) -> bool:
    if session.info.server_version < 140000:
        return False
    try:
        session.execute("SELECT pg_catalog.set_config('client_connection_check_interval', '10s', true)")
    except psycopg.errors.InvalidParameterValue:
        return False  # a server on a system that can't look whether a client is there
    return True


def _search_path_in(options: str | None) -> str | None:
    """Return the search_path of the URL's `options`, which a transaction takes where a pooler takes none."""
    return None if options is None else _ESCAPED.sub(r"\1", options.partition("=")[2])


def _encrypted(mode: str) -> str:
    """Return the `sslmode` that takes no less than TLS. Raises `StoreUnreachable` where TLS is ruled out."""
    if mode == "disable":
        raise encryption_missing()
    # libpq's own default is to go on without, as soon as anybody on the way says that the server has none.
    return "require" if mode in ("allow", "prefer") else mode


def _require_certificates(path: str) -> None:
    """Raise `StoreUnreachable` unless a path leads to a file: a device or a pipe could be read for ever."""
    if path == "system":
        return
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        raise certificates_missing() from None
    if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= _LARGEST_CERTIFICATES:
        raise certificates_missing()
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError):
        # The same for what is no certificate as for what is not there: nobody learns what files a pod has.
        raise certificates_missing() from None
