"""The driver's errors, reduced to what is fit to print: their own texts quote rows, and the connection's.

Nothing of a driver's message is ever repeated, and the error that is raised has no `__context__`: whoever
prints a chain of exceptions would print the row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import psycopg

from lethe.adapters.hosts import HostRefused, NameNotAnswered, NameUnknown
from lethe.ports.stores import DiskFull, MappingInvalid, MappingProblem, Refusal, StoreError, StoreUnreachable

P = ParamSpec("P")
R = TypeVar("R")

PLAINTEXT = "spec.sql.allowPlaintext"
SECRET = "the Secret that spec.sql.urlSecretRef names"  # noqa: S105 - where it is, not what

# Classes of SQLSTATE that tell about server, session or schema; everything else is the record's own:
# a constraint (23), a value (22), a view's check (44), a damaged page (XX).
_NOT_OF_A_RECORD = ("08", "25", "28", "2D", "3D", "3F", "42", "53", "57", "58", "72", "F0", "HV")
# What a schema lacks is lacking for everybody, unless it is a trigger that says so.
_OF_THE_SCHEMA = ("3D", "3F", "42")
# How the context of an error begins that a PL/pgSQL function raised, with whatever code it likes: in every
# language the statement stands at the end of the line. Only the first line: further ones quote statements.
_RAISED = re.compile(r"\APL/pgSQL[^\n]*? (?P<function>[^\s(]+)\([^()\n]*\)[^\n]* RAISE$", re.MULTILINE)
_SERIALIZATION, _DEADLOCK, _LOCKED = "40001", "40P01", "55P03"
_TRY_AGAIN = frozenset({_SERIALIZATION, _DEADLOCK, _LOCKED})

_BY_STATE: dict[str, tuple[str, str]] = {
    "25006": (
        "the database is read-only",
        f"let {SECRET} lead to the writable primary, and look at default_transaction_read_only",
    ),
    "3D000": ("the database of the URL does not exist", f"correct its name in {SECRET}"),
    "28P01": ("the server refuses the password", f"correct user and password in {SECRET}"),
    "57P03": ("the server is starting up or shutting down", "it is tried again"),
    "57P01": ("the server ended the connection", "it is tried again"),
    "57P05": ("the server ended the idle connection", "it is tried again"),
    "08P01": (
        "a pooler or the server does not let Lethe speak with it",
        "let the pooler's pool_mode be transaction or session, or name the server itself",
    ),
    "57014": ("a statement took too long and was cancelled", "it is tried again; look for a missing index"),
    "53300": ("the server has no connection left", "raise max_connections, or give Lethe two of them"),
    "53100": ("the server's disk is full", "make room on the server"),
    "53200": ("the server is out of memory", "it is tried again"),
    _LOCKED: ("tables or rows are locked by somebody else", "it is tried again"),
    _DEADLOCK: ("a deadlock with another writer", "it is tried again"),
    _SERIALIZATION: ("another writer was faster", "it is tried again"),
}
_BY_CLASS: dict[str, tuple[str, str]] = {
    "08": ("the connection was lost", "it is tried again"),
    "28": ("the server refuses the user", f"correct user and password in {SECRET}, and look at pg_hba.conf"),
    "53": ("the server lacks a resource", "look at the server's log"),
    "57": ("the server stopped the work", "it is tried again"),
}
_SILENT = (
    "the server does not answer",
    "see whether it hangs, and look at the network policy between Lethe and the server",
)
# libpq reports a refused connection without an SQLSTATE; its words are recognised, never repeated.
_BY_WORDS: tuple[tuple[tuple[str, ...], tuple[str, str]], ...] = (
    (
        ("does not support ssl",),
        (
            "the server offers no TLS",
            f"enable it on the server; or set {PLAINTEXT}: true, if sslmode in {SECRET} allows it, too",
        ),
    ),
    (
        ("no encryption", "ssl off"),
        ("the server takes no connection without TLS", f"write sslmode=verify-full in {SECRET}"),
    ),
    (
        ("certificate", "ssl error", "ssl syscall"),
        ("the server's certificate is not accepted", f"correct sslmode and sslrootcert in {SECRET}"),
    ),
    (("password", "authentication"), _BY_STATE["28P01"]),
    (
        ("pg_hba.conf", "role", "not permitted"),
        ("the server refuses the user", f"correct the user in {SECRET}, and look at pg_hba.conf"),
    ),
    (("database",), _BY_STATE["3D000"]),
    (
        ("refused", "no such file"),
        ("no server listens there", f"start the server, or correct host and port in {SECRET}"),
    ),
    (("timeout", "timed out"), _SILENT),
    (("starting up", "shutting down", "recovery"), _BY_STATE["57P03"]),
    (
        ("session is read-only", "in hot standby"),
        ("the server is not the primary", f"let {SECRET} name the primary, or every host that can be it"),
    ),
    (("too many", "remaining connection"), _BY_STATE["53300"]),
)


class ServerSilent(psycopg.OperationalError):
    """The server was given up: it answered neither here nor on a second connection, or not in time."""


class AnswerTooLong(psycopg.OperationalError):
    """The server sent more than an answer of a store can be, or took too much memory for too long."""


class SessionsClosed(psycopg.OperationalError):
    """Somebody else closed the store meanwhile."""


def name_failure(unknown: NameUnknown | NameNotAnswered) -> StoreUnreachable:
    """Return the port's error for a host of the URL that has no address."""
    if isinstance(unknown, NameUnknown):
        return StoreUnreachable("the server's name is not known", f"correct the host in {SECRET}")
    return StoreUnreachable(
        "nobody answers which address the server's name has",
        "look at the cluster's DNS, and at the network policy between Lethe and it",
    )


def host_refused(refused: HostRefused) -> StoreUnreachable:
    """Return the port's error for a host of the URL that Lethe does not connect to."""
    return StoreUnreachable(f"{SECRET} holds a URL that can't be used: {refused.problem}", refused.remedy)


def encryption_missing() -> StoreUnreachable:
    """Return the port's error for a URL that rules TLS out, for a server that is not on this machine."""
    return StoreUnreachable(
        "sslmode=disable in the URL rules TLS out, and all that is asked could be read on the way",
        f"write sslmode=verify-full in {SECRET}, or set {PLAINTEXT}: true",
    )


def certificates_missing() -> StoreUnreachable:
    """Return the port's error for an `sslrootcert` that can't be read."""
    return StoreUnreachable(
        "sslrootcert of the URL leads to no file of certificates in Lethe's pod",
        f"mount it (the chart's extraCA), or correct it in {SECRET}",
    )


def reduced(method: Callable[P, R]) -> Callable[P, R]:
    """Let a method raise a `StoreError` where the driver raised; the driver's own error ends here."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except psycopg.Error as error:
            failure = store_error(error)
        raise failure  # outside of the handler, so that the driver's error isn't its __context__

    return call


def store_error(error: psycopg.Error) -> StoreError:
    """Return the port's error for the driver's: the store is away, or its schema is not what was proved."""
    code = error.sqlstate
    if code is None:
        return StoreUnreachable(*_without_code(error))
    if code in _BY_STATE:
        return (DiskFull if code == "53100" else StoreUnreachable)(*_BY_STATE[code])
    if code == "42501":
        what = _named(error)
        return MappingInvalid(
            [
                MappingProblem(
                    "sql.urlSecretRef",
                    f"the database user lacks a privilege{f' ({what})' if what else ''}",
                    "GRANT it, or name another user",
                )
            ]
        )
    if code[:2] in {"42", "3F"}:
        return MappingInvalid(
            [
                MappingProblem(
                    "sql.subjects",
                    f"the schema is not what the mapping was proved against (SQLSTATE {code})",
                    "compare tables and columns with the live schema",
                )
            ]
        )
    problem, remedy = _BY_CLASS.get(code[:2], ("the database refused", "look at the server's log"))
    return StoreUnreachable(f"{problem} (SQLSTATE {code})", remedy)


def refusal(error: psycopg.Error) -> Refusal | None:
    """Return why a record was refused; `None` where the error is not about a record."""
    code, context = error.sqlstate, error.diag.context or ""
    if code is None:
        return None
    raised = _RAISED.search(context)
    if raised is not None:
        return Refusal(code, ", ".join(filter(None, [f"function {raised['function']}", _named(error)])))
    if code[:2] in _NOT_OF_A_RECORD and not (context and code[:2] in _OF_THE_SCHEMA):
        return None
    return Refusal(code, _named(error), retry=code in _TRY_AGAIN)


def _named(error: psycopg.Error) -> str:
    """Return what the server named in its error's fields, never in its text."""
    diagnosis = error.diag
    table = ".".join(part for part in (diagnosis.schema_name, diagnosis.table_name) if part)
    named = (
        ("table", table),
        ("column", diagnosis.column_name),
        ("constraint", diagnosis.constraint_name),
        ("type", diagnosis.datatype_name),
    )
    return ", ".join(f"{kind} {name}" for kind, name in named if name)


def _without_code(error: psycopg.Error) -> tuple[str, str]:
    if isinstance(error, ServerSilent):
        return _SILENT
    if isinstance(error, AnswerTooLong):
        return (
            "the server answers with more than Lethe can take in",
            "map no column that holds files, and see that it is PostgreSQL that answers",
        )
    if isinstance(error, SessionsClosed):
        return "the store was closed meanwhile", "it is tried again"
    # Before it stand the names of user and host, which may hold any of the words.
    said = str(error).rpartition("failed: ")[2].lower()
    for words, answer in _BY_WORDS:
        if any(word in said for word in words):
            return answer
    return ("the database can't be reached", f"look at host and port in {SECRET}")
