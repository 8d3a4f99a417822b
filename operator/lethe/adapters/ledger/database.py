"""The database behind LETHE_LEDGER_URL: opening, migrating, and errors without values in them."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from sqlalchemy import (
    URL,
    Connection,
    Dialect,
    Engine,
    Insert,
    Update,
    create_engine,
    event,
    inspect,
    make_url,
    text,
    update,
)
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError

from lethe.adapters.ledger.schema import VERSIONS, ledger, metadata
from lethe.domain.hosts import is_loopback
from lethe.domain.requests import IllegalTransition
from lethe.ports.ledger import LedgerError, LedgerUnavailable

_FORMS = "sqlite:////folder/ledger.db or postgresql://user:password@host/database"
_BUSY_MILLISECONDS = 10_000
_CHECKPOINT_WAIT_MILLISECONDS = 250
MIGRATIONS = Path(__file__).with_name("migrations")
_MIGRATION_LOCK = 0x6C65746865  # "lethe": any number will do that other users of advisory locks don't take


def connect(url: str) -> Engine:
    """Return the engine for a ledger's URL; nothing has been asked of a PostgreSQL server yet.

    Raises `LedgerUnavailable` for a URL of another form and for a file that can't be made.
    """
    parsed = _parsed(url)
    if parsed.drivername == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise LedgerUnavailable(f"LETHE_LEDGER_URL names no file; write {_FORMS}.")
        _make_private(Path(parsed.database))
        engine = create_engine(
            parsed,
            hide_parameters=True,
            connect_args={"check_same_thread": False, "timeout": _BUSY_MILLISECONDS / 1000},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        parsed = parsed.set(drivername="postgresql+psycopg")
        if "connect_timeout" not in parsed.query:
            parsed = parsed.update_query_dict({"connect_timeout": "10"})
        if "sslmode" not in parsed.query and not is_loopback(parsed.host or "localhost"):
            # libpq's own default goes on without TLS as soon as anybody on the way says that there is none.
            parsed = parsed.update_query_dict({"sslmode": "require"})
        engine = create_engine(
            parsed, hide_parameters=True, pool_size=2, pool_pre_ping=True, paramstyle="format"
        )
        event.listen(engine, "do_connect", _connect_postgresql)
        event.listen(engine, "connect", _prepare_postgresql)
        return engine
    raise LedgerUnavailable(f"LETHE_LEDGER_URL is for a database that Lethe doesn't know; write {_FORMS}.")


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise LedgerUnavailable(f"LETHE_LEDGER_URL is not a URL; write {_FORMS}.") from None


def _make_private(path: Path) -> None:
    """See to it that the file exists with mode 0600; SQLite gives its WAL the same."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise LedgerUnavailable(
            f"LETHE_LEDGER_URL names {path}, which can't be opened for writing ({error.strerror}); "
            "mount a volume there that the operator's user may write."
        ) from None
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        try:
            path.chmod(0o600)
        except PermissionError:
            pass  # somebody else's file, as a volume with fsGroup makes them: its mode is the volume's matter


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGINs come too late; see _begin_sqlite
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    _use_wal(connection)
    for pragma in ("synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Set the journal mode; SQLite does not wait its busy timeout here when two connections do it at once."""
    patience = time.monotonic() + _BUSY_MILLISECONDS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > patience:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: one that began by reading can't always become a writer.
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _connect_postgresql(
    _dialect: Dialect, _record: object, arguments: list[Any], settings: dict[str, Any]
) -> object:
    from lethe.adapters.ledger.waiting import connected  # noqa: PLC0415 - a ledger in a file needs no driver

    return connected(*arguments, **settings)


def _prepare_postgresql(connection: Any, _record: object) -> None:
    connection.execute("SET synchronous_commit = on")
    # A node that is gone without a word must not keep its lock on the ledger for the two hours of TCP's own.
    for setting, seconds in (("idle", 10), ("interval", 5), ("count", 3)):
        connection.execute(f"SET tcp_keepalives_{setting} = {seconds}")
    connection.commit()


def execute_many(
    connection: Connection, statement: Insert | Update, rows: Sequence[tuple[object, ...]], then: str = ""
) -> None:
    """Execute a statement for many rows, whose values stand in the order of its parameters.

    Straight through the driver: SQLAlchemy's way from dictionaries takes longer than the database does.
    `then` is put after the statement.
    """
    if rows:
        connection.exec_driver_sql(_sql(statement, connection.dialect) + then, list(rows))


@lru_cache(maxsize=64)
def _sql(statement: Insert | Update, dialect: Dialect) -> str:
    return statement.compile(dialect=dialect).string


@contextmanager
def errors_without_values(url: URL) -> Iterator[None]:
    """Turn the database's errors, whose texts can quote whole rows, into `LedgerUnavailable`."""
    try:
        yield
    except IntegrityError as error:
        raise IllegalTransition(f"a fact contradicts what the ledger holds ({_code(error)})") from None
    except (DataError, OverflowError) as error:  # of what is appended, not of the database
        code = _code(error) if isinstance(error, DataError) else type(error).__name__
        raise IllegalTransition(f"a fact holds what can't be recorded ({code})") from None
    except DBAPIError as error:
        raise LedgerUnavailable(_what_to_do(url, error)) from None
    except SQLAlchemyError as error:
        raise LedgerUnavailable(
            f"The ledger's database can't be used ({type(error).__name__}); check LETHE_LEDGER_URL."
        ) from None


def _code(error: DBAPIError) -> str:
    """Return the error's code: all of it that can't hold a value."""
    names = (getattr(error.orig, "sqlstate", None), getattr(error.orig, "sqlite_errorname", None))
    return next((f"{name}" for name in names if name), type(error.orig).__name__)


def _what_to_do(url: URL, error: DBAPIError) -> str:
    code = _code(error)
    if url.get_backend_name() == "sqlite":
        remedy = {
            "SQLITE_NOTADB": "is not a ledger; name another file, or restore this one",
            "SQLITE_CORRUPT": "is damaged; restore it from its backup or mirror",
            "SQLITE_FULL": "can't grow; make room on its volume",
            "SQLITE_BUSY": "is locked by another process; see who else has it open",
        }.get(code, "can't be used; check that its folder and volume are writable")
        return f"LETHE_LEDGER_URL names {url.database}, which {remedy} ({code})."
    where = f"{url.host or 'localhost'}:{url.port or 5432}/{url.database or ''}"
    # libpq gives no code for a refused log-in, and its text can be trusted for these words only.
    if code in ("28P01", "28000") or "authentication failed" in str(error.orig):
        return f"LETHE_LEDGER_URL: {where} refuses this user or password; correct them."
    if code == "3D000" or (code == "OperationalError" and "does not exist" in str(error.orig)):
        return f"LETHE_LEDGER_URL: {where} does not exist; create the database and its user."
    if "does not support SSL" in str(error.orig):
        return f"LETHE_LEDGER_URL: {where} offers no TLS; enable it there, or do without by ?sslmode=disable."
    return (
        f"LETHE_LEDGER_URL: {where} is away or refuses ({code}); see that it runs and lets this user write."
    )


def look_into(url: str) -> None:
    """See that a ledger in PostgreSQL answers and that no other Lethe has made it; change nothing.

    A file is not looked at: to open one makes it. Raises `LedgerUnavailable`, `LedgerError`.
    """
    if _parsed(url).drivername == "sqlite":
        return
    engine = connect(url)
    try:
        with errors_without_values(engine.url), engine.connect() as connection:
            _refuse_foreign(connection, _version(connection))
    finally:
        engine.dispose()


def _refuse_foreign(connection: Connection, version: str | None) -> None:
    """Refuse a schema that is not this Lethe's, or not whole, before anything in it is misread."""
    if version is None:
        return
    if version not in VERSIONS:
        raise LedgerError(
            f"The ledger at LETHE_LEDGER_URL has schema {version}, which this Lethe does not know (it knows "
            f"{', '.join(VERSIONS)}): a newer Lethe has written it, or a development version from before "
            "0.1.0. Run the Lethe that has written it, or name another ledger."
        )
    lacking = metadata.tables.keys() - inspect(connection).get_table_names()
    if version == VERSIONS[-1] and lacking:
        raise LedgerError(
            f"The ledger at LETHE_LEDGER_URL has schema {version}, but lacks the tables "
            f"{', '.join(sorted(lacking))}: it was restored in part, or a development version from before "
            "0.1.0 has written it. Restore all of it, or name another ledger."
        )


def migrate(connection: Connection) -> None:
    """Bring the schema to the newest version; within the caller's transaction, under a lock.

    Raises `LedgerError` for a schema that another Lethe has made, or that is not whole.
    """
    version = _version(connection)
    if version != VERSIONS[-1] and connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        version = _version(connection)
    _refuse_foreign(connection, version)
    if version == VERSIONS[-1]:
        return
    # Half a second and ten megabytes, paid only by the start that needs them.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")
    # Who still works with the version before must not write into this one's tables.
    connection.execute(update(ledger).values(token=ledger.c.token + 1))


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def truncate_wal(engine: Engine) -> bool:
    """Empty SQLite's WAL; tell whether that was done. A reader may hold it for longer than is waited."""
    pooled = engine.raw_connection()
    try:
        connection = cast("sqlite3.Connection", pooled.driver_connection)
        connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_WAIT_MILLISECONDS}")
        try:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError:
            return False  # what was appended is durable; that its past lingers must not look like a failure
        finally:
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    finally:
        pooled.close()
    return not busy


def server_identity(engine: Engine) -> str | None:
    """Return what tells one database server from another; `None` for a file.

    That is PostgreSQL's system identifier, or the address for servers that only speak its protocol.
    """
    if engine.dialect.name == "sqlite":
        return None
    try:
        with engine.connect() as connection:
            query = text("SELECT system_identifier FROM pg_control_system()")
            return str(connection.execute(query).scalar_one())
    except DBAPIError:
        return f"{engine.url.host}:{engine.url.port or 5432}"
