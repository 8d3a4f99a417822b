"""Taking from the application's roles the right to connect, and giving back what was taken.

What Lethe has taken stands in the role's own comment, a line for each store: it is written in the transaction
that takes, lies beside what was taken, and goes back with it. So no crash and no restore parts the two, a
DBA sees it in `\\du+`, and stores that share a role, be they another Lethe's, leave each other's lines alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from lethe.adapters.stores.sql.postgres import Cursor, compose, listed, name
from lethe.ports.stores import RoleRefused

_MARK = "Lethe keeps this role from connecting: "
"""How the line of each store begins."""


def mark_of(store: str, ledger_id: str) -> str:
    """Return the line that tells that a store wants a role kept out."""
    return f"{_MARK}{store} is not safe to serve (ledger {ledger_id})"


@dataclass(frozen=True, slots=True)
class RoleState:
    """Whether a role can log in, and the lines of its comment."""

    can_login: bool
    lines: tuple[str, ...]

    @property
    def kept_by(self) -> tuple[str, ...]:
        """Return the lines of all stores that keep it out."""
        return tuple(line for line in self.lines if line.startswith(_MARK))


def check(cursor: Cursor, role: str) -> RoleState:
    """Return how a role stands. Raises `RoleRefused` if it is not one that Lethe can, or ever does, close."""
    row = cursor.execute(compose(_SEEN, role=role)).fetchone()
    if row is None:
        raise RoleRefused(f"there is no role {role}", "create it, or correct spec.gate.role.names")
    can_login, is_super, is_own, comment, may_alter, may_end, me, quoted, by_option, out_of_reach = row
    own = "let the application have a role of its own, and name that in spec.gate.role.names"
    if is_super:
        raise RoleRefused(f"role {role} is a superuser, and no superuser can be kept out", own)
    if is_own:
        raise RoleRefused(f"role {role} is the one that Lethe itself connects as", own)
    if out_of_reach:
        problem = f"before PostgreSQL 16 only a superuser may alter role {role}: it has REPLICATION"
        raise RoleRefused(problem, f"let a DBA run: ALTER ROLE {quoted} NOREPLICATION")
    if not (may_alter and may_end):
        grant = f"ALTER ROLE {me} CREATEROLE INHERIT; GRANT {quoted} TO {me}"
        if by_option:
            options = "WITH ADMIN TRUE, INHERIT TRUE, SET FALSE"
            grant = f"ALTER ROLE {me} CREATEROLE; GRANT {quoted} TO {me} {options}"
        problem = f"Lethe's user may not take and give back the right of role {role} to connect"
        raise RoleRefused(problem, f"let a DBA run: {grant}")
    return RoleState(can_login, tuple(comment.splitlines()))


def keep_out(cursor: Cursor, role: str, mark: str) -> None:
    """Take a role's right to connect, and remember it; one that an administrator has taken is left alone."""
    seen = _locked(cursor, role)
    if not seen.can_login and not seen.kept_by:
        return
    if mark not in seen.lines:
        _comment(cursor, role, (*seen.lines, mark))
    if seen.can_login:
        cursor.execute(compose("ALTER ROLE {role} NOLOGIN", role=name(role)))


def let_in(cursor: Cursor, role: str, mark: str) -> None:
    """Give a role back what was taken for this store, unless it is kept out for another one, too."""
    seen = _locked(cursor, role)
    if mark not in seen.lines:
        return
    _comment(cursor, role, [line for line in seen.lines if line != mark])
    if not seen.can_login and seen.kept_by == (mark,):
        cursor.execute(compose("ALTER ROLE {role} LOGIN", role=name(role)))


def needs_change(seen: RoleState, mark: str, *, closed: bool) -> bool:
    """Tell whether a role stands otherwise than it is to."""
    if closed:
        return seen.can_login or bool(seen.kept_by and mark not in seen.lines)
    return mark in seen.lines


def end_sessions(cursor: Cursor, roles: Sequence[str]) -> int:
    """End the sessions of roles in this database, a pooler's, too; return how many there were."""
    quoted = listed(sql.Literal(role) for role in roles)
    return len(cursor.execute(compose(_END, roles=quoted)).fetchall())


def _locked(cursor: Cursor, role: str) -> RoleState:
    """Return how a role stands, from when on nobody else can alter it until the transaction has ended."""
    cursor.execute(compose("ALTER ROLE {role}", role=name(role)))
    return check(cursor, role)


def _comment(cursor: Cursor, role: str, lines: Sequence[str]) -> None:
    text = "\n".join(lines) or None
    cursor.execute(compose("COMMENT ON ROLE {role} IS {text}", role=name(role), text=text))


_SEEN: LiteralString = """
SELECT r.rolcanlogin, r.rolsuper, r.rolname IN (session_user, current_user),
       coalesce(pg_catalog.shobj_description(r.oid, 'pg_authid'), ''),
       me.rolsuper OR (me.rolcreaterole AND (v.number < 160000
         OR pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER WITH ADMIN OPTION'))),
       me.rolsuper OR pg_catalog.pg_has_role(me.oid, r.oid, 'USAGE')
         OR pg_catalog.pg_has_role(me.oid, 'pg_signal_backend', 'USAGE'),
       pg_catalog.quote_ident(me.rolname), pg_catalog.quote_ident(r.rolname), v.number >= 160000,
       r.rolreplication AND NOT me.rolsuper AND v.number < 160000
  FROM pg_catalog.pg_roles r, pg_catalog.pg_roles me,
       (SELECT pg_catalog.current_setting('server_version_num')::int) AS v (number)
 WHERE r.rolname = {role} AND me.rolname = current_user
"""

_END: LiteralString = """
SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND usename IN ({roles})
   AND coalesce(backend_type, 'client backend')  -- hidden from who only ends sessions
       IN ('client backend', 'walsender')
"""
