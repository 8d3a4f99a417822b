"""What may keep what an erasure clears: views, triggers, subscribers, tables of what was."""

from __future__ import annotations

import re
from collections.abc import Iterator

from psycopg import sql

from lethe.adapters.stores.sql.catalog import Shape, Table
from lethe.adapters.stores.sql.postgres import Cursor, compose
from lethe.ports.stores import PossibleCopy

# Of the languages whose text can be read: what a function has to say to put a row elsewhere.
_READABLE = frozenset({"sql", "plpgsql"})
_KEEPS = re.compile(
    r"\b(insert|merge|copy|call|execute|perform|notify|pg_notify|dblink\w*|http\w*|pg_logical_emit_message)\b",
    re.IGNORECASE,
)
_CALLED_NAMES = re.compile(r"([^\W\d]\w*)\"?\s*\(")
_UPDATES = re.compile(r"\bupdate\b", re.IGNORECASE)
_LITERALS_AND_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
# The server's own, and those of its extensions, that change the row itself or look at others.
_HARMLESS = frozenset(
    {
        "suppress_redundant_updates_trigger",
        "tsvector_update_trigger",
        "tsvector_update_trigger_column",
        "moddatetime",
        "autoinc",
        "insert_username",
        "check_primary_key",
        "check_foreign_key",
        "lo_manage",
    }
)
_OF_WHAT_WAS = re.compile(
    r"(?:_|^)(?:histor\w*|hist|audit\w*|aud|logs?|versions?|revisions?|archived?|old|bak|backup|copy|shadow"
    r"|deleted|trash|tmp|temp|\d{4,})(?:_|$)"
)
_ALIKE, _ENOUGH = 4, 0.8
"""From how many cleared columns on, and which share of them, another table is as one that is mapped."""


def views_of(cursor: Cursor, shape: Shape) -> tuple[str, ...]:
    """Return the materialized views, not ignored, that were made of what is cleared: they keep it."""
    columns: list[tuple[int, int]] = []
    for written, table in shape.tables.items():
        cleared, whole = _cleared(shape, written)
        columns += [(table.oid, one.number) for one in table.columns.values() if whole or one.name in cleared]
        columns.append((table.oid, 0))
    oids, numbers = (sql.Literal(list(part)) for part in zip(*columns, strict=True))
    rows = cursor.execute(compose(_COPIES, oids=oids, numbers=numbers)).fetchall()
    ignored = set(shape.mapping.ignore)
    return tuple(sorted(written for written, full_name in rows if not {written, full_name} & ignored))


def possible_copies(cursor: Cursor, shape: Shape) -> tuple[PossibleCopy, ...]:
    """Return what else may keep it, and nobody has acknowledged in `ignore`, by the name it has there."""
    found = [
        *_triggers(cursor, shape),
        *_rules(cursor, shape),
        *_publications(cursor, shape),
        *_slots(cursor),
        *_old_rows_logged(cursor, shape),
        *_tables_of_what_was(cursor, shape),
    ]
    ignored = set(shape.mapping.ignore)
    return tuple(one for one in found if one.name not in ignored)


def _cleared(shape: Shape, written: str) -> tuple[set[str], bool]:
    """Return which columns of a table are cleared, and whether rows of it are deleted."""
    rules = shape.mapping.clear if written == shape.mapping.table else ()
    of_table = [one for one in shape.mapping.dependents if one.table == written]
    cleared = {rule.column for rule in (*rules, *(rule for one in of_table for rule in one.clear))}
    return cleared, any(one.delete for one in of_table)


def _by_oid(shape: Shape) -> dict[int, Table]:
    return {table.oid: table for table in shape.tables.values()}


def _oids(shape: Shape) -> sql.Literal:
    return sql.Literal(sorted(_by_oid(shape)))


def _triggers(cursor: Cursor, shape: Shape) -> Iterator[PossibleCopy]:
    tables = _by_oid(shape)
    rows = cursor.execute(compose(_TRIGGERS, oids=_oids(shape))).fetchall()
    for oid, trigger, function, language, text in rows:
        if function in _HARMLESS:
            continue
        table = tables[oid]
        told = _LITERALS_AND_COMMENTS.sub(" ", text or "")
        if language in _READABLE and not (
            _KEEPS.search(told) or _updates_with(told, shape, table) or _calls_what_keeps(cursor, told)
        ):
            continue
        yield PossibleCopy(
            f"trigger:{table.written}.{trigger}",
            f"calls {function}, which may put the old row elsewhere",
        )


def _updates_with(text: str, shape: Shape, table: Table) -> bool:
    """Tell whether a function writes something of the old row that is cleared into rows that are there."""
    cleared, whole = _cleared(shape, table.written)
    if whole:  # but what only tells which other rows are meant
        cleared = cleared | {one for one in table.columns if one != "id" and not one.endswith("_id")}
    columns = "|".join(map(re.escape, sorted(cleared))) or r"(?!)"
    of_old = rf'\bold\s*\.\s*(?:\*|"?(?:{columns})\b)|\(\s*old\s*[,)]'
    return bool(_UPDATES.search(text) and re.search(of_old, text, re.IGNORECASE))


def _calls_what_keeps(cursor: Cursor, text: str) -> bool:
    """Tell whether a function calls others, of the users' own, that keep something or can't be read."""
    seen, wanted = set[str](), _called_in(text)
    while wanted := wanted - seen:
        seen |= wanted
        rows = cursor.execute(compose(_FUNCTIONS, names=sql.Literal(sorted(wanted)))).fetchall()
        wanted = set()
        for language, source in rows:
            told = _LITERALS_AND_COMMENTS.sub(" ", source)
            if language not in _READABLE or not source or _KEEPS.search(told):
                return True
            wanted |= _called_in(told)
    return False


def _called_in(text: str) -> set[str]:
    return {name for one in _CALLED_NAMES.findall(text) for name in (one, one.lower())}


def _rules(cursor: Cursor, shape: Shape) -> Iterator[PossibleCopy]:
    tables = _by_oid(shape)
    for oid, rule in cursor.execute(compose(_RULES, oids=_oids(shape))):
        yield PossibleCopy(
            f"rule:{tables[oid].written}.{rule}", "does something besides, which may keep the old row"
        )


def _publications(cursor: Cursor, shape: Shape) -> Iterator[PossibleCopy]:
    for name, updates, deletes, tables in cursor.execute(compose(_PUBLICATIONS, oids=_oids(shape))):
        lacking = [event for event, told in (("UPDATE", updates), ("DELETE", deletes)) if not told]
        tells = (
            f"never tells subscribers of {tables} of an {' or '.join(lacking)}"
            if lacking
            else f"has subscribers of {tables}"
        )
        yield PossibleCopy(f"publication:{name}", tells)


def _slots(cursor: Cursor) -> Iterator[PossibleCopy]:
    for name, plugin, active in cursor.execute(_SLOTS):
        reads = "reads changes" if active else "keeps the write-ahead log until somebody reads it"
        yield PossibleCopy(f"slot:{name}", f"{plugin} {reads}")


def _old_rows_logged(cursor: Cursor, shape: Shape) -> Iterator[PossibleCopy]:
    tables = _by_oid(shape)
    for (oid,) in cursor.execute(compose(_FULL_IDENTITY, oids=_oids(shape))):
        yield PossibleCopy(
            f"replica-identity:{tables[oid].written}", "FULL: old rows are written into the write-ahead log"
        )


def _tables_of_what_was(cursor: Cursor, shape: Shape) -> Iterator[PossibleCopy]:
    """Yield the tables that are called after a mapped one as of old, or have the columns that it clears."""
    known = {one.partition(".")[0] for one in shape.mapping.ignore} | set(shape.mapping.ignore)
    cleared = {written: _cleared(shape, written)[0] for written in shape.tables}
    names = sorted(set[str]().union(*cleared.values()))
    rows = cursor.execute(
        compose(_SIMILAR, oids=_oids(shape), names=sql.Literal(names), schema=shape.subjects.schema)
    )
    for written, full_name, columns in rows.fetchall():
        if {written, full_name} & known:
            continue
        for table, of_table in cleared.items():
            if _is_of_what_was(full_name, shape.tables[table].name, of_table & set(columns), of_table):
                yield PossibleCopy(f"table:{written}", f"has columns of {table} that are cleared there")
                break


def _is_of_what_was(full_name: str, mapped: str, shared: set[str], cleared: set[str]) -> bool:
    if not shared:
        return False
    if len(shared) >= max(_ALIKE, _ENOUGH * len(cleared)):
        return True
    stem = mapped.lower().removesuffix("s")
    before, found, after = full_name.lower().replace(".", "_").rpartition(stem)
    rest = before + after.removeprefix("s")
    return bool(found) and _OF_WHAT_WAS.search(rest) is not None


# A view's rule depends on the columns that it reads, or on the table where it reads whole rows.
_COPIES = """
WITH RECURSIVE made (oid, kind) AS (
  SELECT r.ev_class, c.relkind
    FROM ROWS FROM (pg_catalog.unnest({oids}::bigint[]), pg_catalog.unnest({numbers}::int[]))
         AS m (oid, number)
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::regclass
     AND d.refobjid = m.oid::oid AND d.refobjsubid = m.number
     AND d.classid = 'pg_catalog.pg_rewrite'::regclass
    JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
  UNION
  SELECT r.ev_class, c.relkind FROM made m
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::regclass
     AND d.refobjid = m.oid AND d.classid = 'pg_catalog.pg_rewrite'::regclass
    JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid JOIN pg_catalog.pg_class c ON c.oid = r.ev_class)
SELECT CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN '' ELSE n.nspname || '.' END || c.relname,
       n.nspname || '.' || c.relname
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid IN (SELECT oid FROM made WHERE kind = 'm')
"""

# A partition may have, or be published by, something of its own.
_WITH_PARTITIONS = """
WITH RECURSIVE mapped (oid, root) AS (
  SELECT m.oid::oid, m.oid::oid FROM pg_catalog.unnest({oids}::bigint[]) AS m (oid)
  UNION SELECT i.inhrelid, m.root FROM mapped m JOIN pg_catalog.pg_inherits i ON i.inhparent = m.oid)
"""

# tgtype: 8 is DELETE, 16 UPDATE. Those that fire on a replica only, or are disabled, keep nothing here.
_TRIGGERS = f"""
{_WITH_PARTITIONS}
SELECT DISTINCT m.root::bigint, t.tgname, p.proname, l.lanname, p.prosrc
  FROM mapped m JOIN pg_catalog.pg_trigger t ON t.tgrelid = m.oid
  JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgtype::int & 24 <> 0
 ORDER BY 1, 2
"""  # noqa: S608 - of constants

# Those of extensions make keys and the like; what puts a row elsewhere is known by name.
_FUNCTIONS = """
SELECT l.lanname, p.prosrc FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE p.proname = ANY ({names}) AND p.provolatile = 'v'
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid
                      AND d.deptype = 'e')
"""

# An UPDATE is 2, a DELETE 4.
_RULES = f"""
{_WITH_PARTITIONS}
SELECT DISTINCT m.root::bigint, r.rulename FROM mapped m JOIN pg_catalog.pg_rewrite r ON r.ev_class = m.oid
 WHERE r.ev_type IN ('2', '4') AND r.ev_enabled IN ('O', 'A')
   AND pg_catalog.pg_get_ruledef(r.oid) !~ 'NOTHING;$'
 ORDER BY 1, 2
"""  # noqa: S608 - of constants

_PUBLICATIONS = f"""
{_WITH_PARTITIONS}
SELECT p.pubname, p.pubupdate, p.pubdelete,
       pg_catalog.string_agg(DISTINCT r.relname::text, ', ' ORDER BY r.relname::text)
  FROM mapped m JOIN pg_catalog.pg_class c ON c.oid = m.oid JOIN pg_catalog.pg_class r ON r.oid = m.root
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_publication_tables t ON t.schemaname = n.nspname AND t.tablename = c.relname
  JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname
 GROUP BY 1, 2, 3 ORDER BY 1
"""  # noqa: S608 - of constants

_SLOTS = """
SELECT slot_name, plugin, active FROM pg_catalog.pg_replication_slots
 WHERE slot_type = 'logical' AND database = pg_catalog.current_database() AND NOT temporary ORDER BY 1
"""

# Below `logical`, a table's replica identity puts nothing into the write-ahead log.
_FULL_IDENTITY = f"""
{_WITH_PARTITIONS}
SELECT DISTINCT m.root::bigint FROM mapped m JOIN pg_catalog.pg_class c ON c.oid = m.oid
 WHERE c.relreplident = 'f' AND pg_catalog.current_setting('wal_level') = 'logical'
 ORDER BY 1
"""  # noqa: S608 - of constants

_SIMILAR = """
SELECT CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN '' ELSE n.nspname || '.' END || c.relname,
       n.nspname || '.' || c.relname, pg_catalog.array_agg(a.attname::text)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
   AND c.oid <> ALL ({oids}::bigint[]) AND a.attname = ANY ({names})
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND (n.nspname = {schema} OR n.nspname ~ '(histor|audit|log|archiv|backup|old)')
 GROUP BY c.oid, n.nspname, c.relname ORDER BY 1
"""
