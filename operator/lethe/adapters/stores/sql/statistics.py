"""What the server keeps of values for its planner: samples of each column, readable in `pg_stats`.

ANALYZE of a table renews those of its columns, of the expressions of its indexes, and its extended ones.
It leaves the old ones of a table (or of a partial index) without rows, and where a statistics target is 0;
where the user may not, it says so in a warning, and does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from lethe.adapters.stores.sql.catalog import quoted_table
from lethe.adapters.stores.sql.postgres import Cursor, compose, listed, name, raw


@dataclass(frozen=True, slots=True)
class Sampled:
    """A table whose values the planner knows: a mapped one, a part of it, or one that it is a part of.

    `permitted`: the user may ANALYZE it. `taken_along`: by the ANALYZE of another one of them.
    """

    schema: str
    table: str
    oid: int
    permitted: bool
    taken_along: bool

    @property
    def full_name(self) -> str:
        """Return `schema.table`."""
        return f"{self.schema}.{self.table}"

    @property
    def sql(self) -> sql.Identifier:
        """Return the qualified, quoted name."""
        return name(self.schema, self.table)


def sampled_tables(cursor: Cursor, written: Iterable[str]) -> list[Sampled]:
    """Return whose statistics may hold values of these tables."""
    version = cursor.connection.info.server_version
    may = "pg_catalog.has_table_privilege(c.oid, 'MAINTAIN')" if version >= 170000 else "false"
    # Since 18 each is analyzed alone; before, a partitioned table takes its partitions along.
    taken_along = "false" if version >= 180000 else "c.relispartition"
    quoted = listed(sql.Literal(quoted_table(one).as_string(cursor.connection)) for one in written)
    query = compose(_SAMPLED, tables=quoted, may=raw(may), taken_along=raw(taken_along))
    return [Sampled(*row) for row in cursor.execute(query).fetchall()]


def not_permitted(sampled: Sampled) -> str:
    """Say what right is missing, since the server only warns, and does nothing."""
    return (
        f"the user may not ANALYZE {sampled.full_name}: GRANT MAINTAIN on it (PostgreSQL 17 and later), or"
        " let its owner connect"
    )


def renew(cursor: Cursor, sampled: Sampled) -> None:
    """Take the samples of one table anew."""
    if not sampled.taken_along:
        only = "ONLY " if cursor.connection.info.server_version >= 180000 else ""
        cursor.execute(compose("ANALYZE {only}{table}", only=raw(only), table=sampled.sql))


def clear_stale(cursor: Cursor, sampled: Sampled) -> list[str]:
    """Clear what ANALYZE leaves, where the server can (since 18); say what stays, and what to do."""
    version = cursor.connection.info.server_version
    hollow = [sampled.oid] if _is_hollow(cursor, sampled, raw("true")) else []
    predicates = cursor.execute(compose(_PARTIAL, oid=sampled.oid)).fetchall()
    hollow += [index for index, where in predicates if hollow or _is_hollow(cursor, sampled, raw(where))]
    columns = compose(
        _STALE,
        oid=sampled.oid,
        hollow=sql.Literal(hollow),
        seen=raw("true" if version >= 180000 else _SEEN),
    )
    cleared = raw(_CLEARED if version >= 180000 else "SELECT schema, relation, attribute FROM stale")
    left = cursor.execute(
        compose("WITH stale AS ({stale}) {cleared}", stale=columns, cleared=cleared)
    ).fetchall()
    if version >= 140000:
        empty = sampled.oid in hollow
        left += cursor.execute(compose(_STALE_EXTENDED, oid=sampled.oid, empty=raw(str(empty)))).fetchall()
    return [
        f"ANALYZE leaves the old statistics of {'.'.join(names)}, whose table is empty or whose statistics"
        " target is 0: set a target, or DROP and CREATE what is extended"
        for names in left
    ]


def _is_hollow(cursor: Cursor, sampled: Sampled, where: sql.Composable) -> bool:
    """Tell whether ANALYZE finds no row of a table, or of an index of it, to take a sample of."""
    query = compose("SELECT EXISTS (SELECT FROM {table} WHERE {where})", table=sampled.sql, where=where)
    row = cursor.execute(query).fetchone()
    return row is not None and not row[0]


_SAMPLED = """
WITH RECURSIVE parts (relid) AS (
       SELECT pg_catalog.to_regclass(w.quoted)::oid FROM pg_catalog.unnest(ARRAY[{tables}]) AS w (quoted)
       UNION SELECT i.inhrelid FROM parts p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.relid),
  wholes (relid) AS (
       SELECT relid FROM parts
       UNION SELECT i.inhparent FROM wholes w JOIN pg_catalog.pg_inherits i ON i.inhrelid = w.relid)
SELECT n.nspname, c.relname, c.oid::bigint,
       {may} OR pg_catalog.pg_has_role(c.relowner, 'USAGE') OR pg_catalog.pg_has_role(d.datdba, 'USAGE'),
       {taken_along}
  FROM wholes w JOIN pg_catalog.pg_class c ON c.oid = w.relid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
 WHERE c.relkind IN ('r', 'p')
 ORDER BY 1, 2
"""

_PARTIAL = """
SELECT indexrelid::bigint, coalesce(pg_catalog.pg_get_expr(indpred, indrelid), 'true')
  FROM pg_catalog.pg_index WHERE indrelid = {oid} AND indexprs IS NOT NULL
"""

_STALE = """
SELECT n.nspname AS schema, c.relname AS relation, a.attname AS attribute
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE (c.oid = {oid} OR c.oid IN (SELECT indexrelid FROM pg_catalog.pg_index
                                    WHERE indrelid = {oid} AND indexprs IS NOT NULL))
   AND (c.oid = ANY ({hollow}::oid[]) OR a.attstattarget = 0) AND {seen}
 ORDER BY 1, 2, a.attnum
"""

_SEEN = """EXISTS (
       SELECT FROM pg_catalog.pg_stats s
        WHERE s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname)"""

_CLEARED = """
SELECT schema, relation, attribute FROM (
       SELECT schema, relation, attribute,
              pg_catalog.pg_clear_attribute_stats(schema, relation, attribute, inherited)::text AS done
         FROM stale CROSS JOIN (VALUES (false), (true)) AS i (inherited) OFFSET 0) AS cleared
 WHERE done IS NULL
"""

# Extended statistics can only be made anew. They are not, either, where a column of theirs is not sampled.
_STALE_EXTENDED = """
SELECT n.nspname, x.stxname
  FROM pg_catalog.pg_statistic_ext x JOIN pg_catalog.pg_namespace n ON n.oid = x.stxnamespace
 WHERE x.stxrelid = {oid}
   AND (EXISTS (SELECT FROM pg_catalog.pg_stats_ext e
                 WHERE e.statistics_schemaname = n.nspname AND e.statistics_name = x.stxname
                   AND e.most_common_vals IS NOT NULL)
        OR EXISTS (SELECT FROM pg_catalog.pg_stats_ext_exprs e
                    WHERE e.statistics_schemaname = n.nspname AND e.statistics_name = x.stxname))
   AND ({empty} OR x.stxstattarget = 0
        OR EXISTS (SELECT FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = x.stxrelid AND a.attnum = ANY (x.stxkeys::int2[])
                      AND a.attstattarget = 0))
 ORDER BY 1, 2
"""
