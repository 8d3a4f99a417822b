"""Databases that Lethe makes to restore into, and drops: `ScratchServer` of `lethe.ports.drills`."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from typing import Any

from psycopg import errors, sql

from lethe.adapters.hosts import ANYWHERE, Resolver
from lethe.adapters.stores.sql.catalog import quoted_table
from lethe.adapters.stores.sql.errors import reduced
from lethe.adapters.stores.sql.looking import SERVER_IS
from lethe.adapters.stores.sql.postgres import compose, listed, name, raw
from lethe.adapters.stores.sql.sessions import BULK_SECONDS, Session, Sessions
from lethe.domain.drills import DATABASE_PREFIX
from lethe.ports.drills import ScratchPlace
from lethe.ports.stores import StoreUnreachable

MAKING_SECONDS = 30.0
LOOK_SECONDS = 0.05
_END_MAKERS = (
    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
    " WHERE pid <> pg_catalog.pg_backend_pid() AND state <> 'idle'"
    " AND pg_catalog.starts_with(query, 'CREATE DATABASE') AND pg_catalog.strpos(query, {own}) > 0"
)
_OWNED = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_KINDS = {"r": "table", "m": "materialized view", "S": "sequence"}
_WITH_ROWS = (
    "SELECT c.relkind::text, n.nspname, c.relname FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE {own} AND (c.relkind IN ('r', 'S') OR c.relkind = 'm' AND c.relispopulated)"
)
_ROWS = (
    "SELECT pg_catalog.concat_ws(':', pg_catalog.count(*),"
    " pg_catalog.sum(pg_catalog.hashtextextended((t.*)::text, 0)::numeric)) FROM ONLY {table} AS t"
)
_LAST_VALUE = "SELECT pg_catalog.concat_ws(':', last_value, is_called) FROM {table}"
_THINGS = (
    # What rows alone don't show, and a restore needs: the kind, and the name with what else tells it.
    "SELECT 'relation', pg_catalog.concat(n.nspname, '.', c.relname, ' ', c.relkind, ' ',"
    " c.relrowsecurity, c.relforcerowsecurity, ' ', pg_catalog.pg_get_expr(c.relpartbound, c.oid),"
    " CASE WHEN c.relkind IN ('i', 'I') THEN pg_catalog.pg_get_indexdef(c.oid)"
    " WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END)"
    " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {own}"
    " UNION ALL SELECT 'grant', pg_catalog.concat(n.nspname, '.', c.relname, ' ', a.privilege_type, ' ',"
    " a.grantee::regrole) FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a WHERE {own}"
    " UNION ALL SELECT 'parent', pg_catalog.concat(i.inhrelid::regclass, ' ', i.inhparent::regclass)"
    " FROM pg_catalog.pg_inherits i"
    " UNION ALL SELECT 'column', pg_catalog.concat(n.nspname, '.', c.relname, '.', a.attname, ' ',"
    " pg_catalog.format_type(a.atttypid, a.atttypmod), ' ', a.attnotnull, a.attidentity,"
    " pg_catalog.pg_get_expr(d.adbin, d.adrelid))"
    " FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
    " WHERE {own} AND a.attnum > 0 AND NOT a.attisdropped"
    " UNION ALL SELECT 'constraint', pg_catalog.concat(n.nspname, '.', o.conname, ' ',"
    " pg_catalog.pg_get_constraintdef(o.oid)) FROM pg_catalog.pg_constraint o"
    " JOIN pg_catalog.pg_namespace n ON n.oid = o.connamespace WHERE {own}"
    " UNION ALL SELECT 'function', pg_catalog.concat(n.nspname, '.', p.proname, ' ',"
    " pg_catalog.pg_get_function_identity_arguments(p.oid), ' ', pg_catalog.md5(CASE p.prokind WHEN 'a'"
    " THEN p.prosrc ELSE pg_catalog.pg_get_functiondef(p.oid) END))"
    " FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE {own}"
    " UNION ALL SELECT 'type', pg_catalog.concat(n.nspname, '.', y.typname, ' ',"
    " (SELECT pg_catalog.string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder)"
    " FROM pg_catalog.pg_enum e WHERE e.enumtypid = y.oid)) FROM pg_catalog.pg_type y"
    " JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace WHERE {own}"
    " UNION ALL SELECT 'trigger', pg_catalog.concat(g.tgname, ' ', g.tgenabled, ' ',"
    " pg_catalog.pg_get_triggerdef(g.oid)) FROM pg_catalog.pg_trigger g WHERE NOT g.tgisinternal"
    " UNION ALL SELECT 'rule', pg_catalog.concat(r.rulename, ' ', pg_catalog.pg_get_ruledef(r.oid))"
    " FROM pg_catalog.pg_rewrite r WHERE r.oid >= 16384 AND r.rulename <> '_RETURN'"
    " UNION ALL SELECT 'policy', pg_catalog.concat(p.polname, ' ', p.polrelid::regclass, ' ', p.polcmd, ' ',"
    " pg_catalog.pg_get_expr(p.polqual, p.polrelid), ' ',"
    " pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)) FROM pg_catalog.pg_policy p"
    " UNION ALL SELECT 'comment', pg_catalog.concat("
    "pg_catalog.pg_describe_object(d.classoid, d.objoid, d.objsubid), ' ', pg_catalog.md5(d.description))"
    " FROM pg_catalog.pg_description d WHERE d.objoid >= 16384"
    " UNION ALL SELECT 'published', pg_catalog.concat(p.pubname, ' ', r.prrelid::regclass)"
    " FROM pg_catalog.pg_publication p LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid"
    " UNION ALL SELECT 'other', pg_catalog.pg_describe_object(o.class, o.oid, 0) FROM ("
    "SELECT tableoid AS class, oid FROM pg_catalog.pg_event_trigger"
    " UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_statistic_ext"
    " UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_foreign_server"
    " UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_cast"
    " UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_operator"
    " UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_collation"
    " UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_ts_config"
    " UNION ALL SELECT tableoid, oid FROM pg_catalog.pg_ts_dict) AS o WHERE o.oid >= 16384"
    " UNION ALL SELECT 'extension', pg_catalog.concat(e.extname, ' ', e.extversion)"
    " FROM pg_catalog.pg_extension e"
    " UNION ALL SELECT 'object', pg_catalog.concat(l.oid, ' ', pg_catalog.md5(pg_catalog.lo_get(l.oid)))"
    " FROM pg_catalog.pg_largeobject_metadata l"
)
_URL = re.compile(r"[^:]+://(?P<authority>[^/?]*)(/[^?]*)?(?P<query>\?.*)?", re.DOTALL)


class SqlScratchServer:
    """A PostgreSQL server to which `url` leads; the constructor raises `ValueError` as `SqlStore`'s does."""

    def __init__(self, url: str, resolver: Resolver = ANYWHERE, *, allow_plaintext: bool = False) -> None:
        self._url, self._resolver, self._allow_plaintext = url, resolver, allow_plaintext
        self._sessions = Sessions(url, resolver, allow_plaintext=allow_plaintext)

    @reduced
    def place(self) -> ScratchPlace:
        """See `ScratchServer.place`."""
        with self._sessions.alive() as session:
            known = [session.address, *(_if_permitted(session, expression) for expression in SERVER_IS)]
            oid = session.ask(
                compose("SELECT oid::text FROM pg_catalog.pg_database WHERE datname = current_database()")
            )
        return ScratchPlace(frozenset(one for one in known if one is not None), str(oid[0][0]))

    @reduced
    def create(self, database: str, mark: str) -> None:
        """See `ScratchServer.create`."""
        own = name(_own(database))
        with self._sessions.alive() as session, session.within(BULK_SECONDS):
            try:
                session.execute(compose("CREATE DATABASE {own} TEMPLATE template0", own=own))
            except errors.InsufficientPrivilege:
                refused = True
            else:
                refused = False
                session.execute(compose("COMMENT ON DATABASE {own} IS {mark}", own=own, mark=mark))
                # What comes back in it was erased elsewhere: nobody but its owner reads it.
                session.execute(compose("REVOKE ALL ON DATABASE {own} FROM PUBLIC", own=own))
        if refused:
            raise StoreUnreachable(
                "the role of the scratch server may make no database",
                "ALTER ROLE … CREATEDB, or name another role in the Secret of spec.scratch.urlSecretRef",
            )

    @reduced
    def marked(self, mark: str) -> Collection[str]:
        """See `ScratchServer.marked`."""
        with self._sessions.alive() as session:
            rows = session.ask(
                compose(
                    "SELECT datname FROM pg_catalog.pg_database"
                    " WHERE pg_catalog.starts_with(datname, {prefix})"
                    " AND pg_catalog.shobj_description(oid, 'pg_database') = {mark}",
                    prefix=DATABASE_PREFIX,
                    mark=mark,
                )
            )
        return [str(row[0]) for row in rows]

    @reduced
    def drop(self, database: str) -> bool:
        """See `ScratchServer.drop`."""
        with self._sessions.alive() as session, session.within(BULK_SECONDS):
            # Who has died, or was cut off, while it was being made has left a session that goes on making it.
            until = time.monotonic() + MAKING_SECONDS
            while session.ask(compose(_END_MAKERS, own=_own(database))) and time.monotonic() < until:
                time.sleep(LOOK_SECONDS)
            try:
                session.execute(compose("DROP DATABASE {own} WITH (FORCE)", own=name(_own(database))))
            except errors.InvalidCatalogName:
                return False
        return True

    @reduced
    def size(self, database: str) -> int:
        """See `ScratchServer.size`."""
        with self._sessions.alive() as session, session.within(BULK_SECONDS):
            return int(session.ask(compose("SELECT pg_catalog.pg_database_size({own})", own=database))[0][0])

    @reduced
    def missing(self, database: str, tables: Collection[str]) -> Collection[str]:
        """See `ScratchServer.missing`."""
        asked = list(tables)
        rows = self._ask(
            database,
            lambda session: compose(
                "SELECT n FROM pg_catalog.unnest(ARRAY[{tables}]) WITH ORDINALITY AS w (quoted, n)"
                " WHERE pg_catalog.to_regclass(w.quoted) IS NULL",
                tables=listed(sql.Literal(quoted_table(one).as_string(session)) for one in asked),
            ),
        )
        return [asked[row[0] - 1] for row in rows]

    @reduced
    def is_empty(self, database: str, table: str) -> bool:
        """See `ScratchServer.is_empty`."""
        rows = self._ask(
            database, lambda _: compose("SELECT NOT EXISTS (SELECT FROM {table})", table=quoted_table(table))
        )
        return bool(rows[0][0])

    @reduced
    def contents(self, database: str) -> Mapping[str, str]:
        """See `ScratchServer.contents`."""
        own, url = raw(_OWNED), self.url_of(database)
        sessions = Sessions(url, self._resolver, allow_plaintext=self._allow_plaintext)
        try:
            with sessions.alive() as session, session.within(BULK_SECONDS):
                found = {f"{kind} {called}": "" for kind, called in session.ask(compose(_THINGS, own=own))}
                for kind, schema, called in session.ask(compose(_WITH_ROWS, own=own)):
                    query = _LAST_VALUE if kind == "S" else _ROWS
                    told = session.ask(compose(query, table=name(schema, called)))[0][0]
                    found[f"{_KINDS[kind]} {schema}.{called}"] = str(told)
                return found
        finally:
            sessions.close()

    def _ask(self, database: str, query: Any) -> list[tuple[Any, ...]]:
        sessions = Sessions(self.url_of(database), self._resolver, allow_plaintext=self._allow_plaintext)
        try:
            with sessions.alive() as session:
                return list(session.ask(query(session)))
        finally:
            sessions.close()

    def url_of(self, database: str) -> str:
        """See `ScratchServer.url_of`."""
        parts = _URL.fullmatch(self._url.strip())
        if parts is None:  # which no URL that was parsed is
            raise ValueError("it is not the URL of a PostgreSQL server")
        return f"postgresql://{parts['authority']}/{_own(database)}{parts['query'] or ''}"

    def anew(self) -> SqlScratchServer:
        """See `ScratchServer.anew`."""
        return SqlScratchServer(self._url, self._resolver, allow_plaintext=self._allow_plaintext)

    def close(self) -> None:
        """See `ScratchServer.close`."""
        self._sessions.close()


def _if_permitted(session: Session, expression: sql.Composable) -> str | None:
    try:
        return str(session.ask(compose("SELECT {expression}", expression=expression))[0][0])
    except errors.InsufficientPrivilege:
        return None


def _own(database: str) -> str:
    """Return a name if it is one that Lethe gives: no other database is ever made, dropped or filled."""
    if not re.fullmatch(rf"{DATABASE_PREFIX}[0-9a-f]+", database):
        raise ValueError("that is no scratch database of Lethe's")
    return database
