"""What PostgreSQL's live catalog says about the tables of a mapping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from psycopg import sql

from lethe.adapters.stores.sql.postgres import Cursor, compose, name, raw
from lethe.domain.mapping import SubjectMapping

TEXT_TYPES = frozenset({"text", "varchar", "bpchar", "citext"})
INTEGER_TYPES = frozenset({"int2", "int4", "int8"})
# Types without an equality, or (of shapes) with one that compares areas.
_WITHOUT_EQUALITY = frozenset(
    {"json", "xml", "point", "line", "lseg", "box", "path", "polygon", "circle", "_json", "_xml"}
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `cast` is its type as SQL without length (a domain's base type for `plain`), `base` the
    name of the base type, `length` the most characters it takes, `collation` as SQL."""

    name: str
    number: int
    cast: str
    plain: str
    shown: str
    base: str
    length: int | None
    not_null: bool
    generated: bool
    identity: bool
    default: str | None
    collation: str | None
    readable: bool
    writable: bool

    @property
    def is_text(self) -> bool:
        """Tell whether the column holds text as such."""
        return self.base in TEXT_TYPES

    @property
    def compared_as_text(self) -> bool:
        """Tell whether two values of the type can be compared by their text only."""
        return self.base in _WITHOUT_EQUALITY

    @property
    def staged(self) -> sql.Composable:
        """Return the type, as SQL, of a temporary column to compare with this one."""
        if self.collation is None:
            return raw(self.plain)
        return compose("{type} COLLATE {collation}", type=raw(self.plain), collation=raw(self.collation))


@dataclass(frozen=True, slots=True)
class Table:
    """A table that exists. `written` is its name in the mapping; `kind` is `pg_class.relkind`."""

    written: str
    schema: str
    name: str
    oid: int
    kind: str
    hides_rows: bool
    readable: bool
    writable: bool
    deletable: bool
    columns: Mapping[str, Column]

    @property
    def sql(self) -> sql.Identifier:
        """Return the qualified, quoted name."""
        return name(self.schema, self.name)

    @property
    def full_name(self) -> str:
        """Return `schema.table`, as in heads and identities."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence behind an integer key."""

    schema: str
    name: str
    oid: int
    table: Table
    column: str
    readable: bool
    movable: bool

    @property
    def full_name(self) -> str:
        """Return `schema.sequence`."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Shape:
    """The live tables of one mapping, by the names that the mapping writes; every one exists.

    `stands_in` says that the subjects' table is another one than the persons were erased from: there, only a
    row that is proven to be a person's is hers, and so are its dependents.
    """

    mapping: SubjectMapping
    tables: Mapping[str, Table]
    stands_in: bool = False

    @property
    def subjects(self) -> Table:
        """Return the table of the subjects."""
        return self.tables[self.mapping.table]

    @property
    def key(self) -> Column:
        """Return the key's column."""
        return self.subjects.columns[self.mapping.key]


def tables_of(mapping: SubjectMapping) -> tuple[str, ...]:
    """Return the names of a mapping's tables as it writes them, the subjects' first, each once."""
    return tuple(dict.fromkeys((mapping.table, *(one.table for one in mapping.dependents))))


def quoted_table(written: str) -> sql.Identifier:
    """Return a mapping's `table` or `schema.table`, quoted."""
    return name(*written.split(".", 1))


def read_tables(cursor: Cursor, names: Iterable[str]) -> dict[str, Table]:
    """Return those of the tables that exist."""
    found: dict[str, Table] = {}
    for written in names:
        quoted = quoted_table(written).as_string(cursor.connection)
        row = cursor.execute(compose(_TABLE, quoted=quoted)).fetchone()
        if row is None:
            continue
        schema, table, oid, kind, hides, readable, writable, deletable = row
        found[written] = Table(
            written, schema, table, oid, kind, hides, readable, writable, deletable, _columns(cursor, oid)
        )
    return found


def _columns(cursor: Cursor, oid: int) -> dict[str, Column]:
    # PostgreSQL 11 has no generated columns, and no column that would say so.
    generated = raw("a.attgenerated <> ''" if cursor.connection.info.server_version >= 120000 else "false")
    rows = cursor.execute(compose(_COLUMNS, oid=oid, generated=generated)).fetchall()
    return {row[0]: Column(*row) for row in rows}


def nearby_tables(cursor: Cursor, written: str) -> list[str]:
    """Return the names of tables that a name could have meant: of its schema, or of the search path."""
    schema = written.split(".", 1)[0] if "." in written else None
    return [row[0] for row in cursor.execute(compose(_NEARBY, schema=schema)).fetchall()]


def sequences_of(cursor: Cursor, table: Table, columns: Iterable[str]) -> list[Sequence]:
    """Return the sequences that fill these columns: owned, identity, or named in the default by `nextval`."""
    found: list[Sequence] = []
    for column in columns:
        number = table.columns[column].number
        rows = cursor.execute(compose(_SEQUENCES, oid=table.oid, number=number)).fetchall()
        found += [
            Sequence(schema, called, oid, table, column, readable, movable)
            for schema, called, oid, readable, movable in rows
        ]
    return found


def integer_keys(cursor: Cursor, tables: Iterable[Table]) -> list[tuple[Table, str]]:
    """Return the primary keys, of these tables, that are one integer column."""
    keys: list[tuple[Table, str]] = []
    for table in tables:
        row = cursor.execute(compose(_PRIMARY_KEY, oid=table.oid)).fetchone()
        if row is not None and table.columns[row[0]].base in INTEGER_TYPES:
            keys.append((table, row[0]))
    return keys


_TABLE = """
SELECT n.nspname, c.relname, c.oid::bigint, c.relkind::text, pg_catalog.row_security_active(c.oid),
       pg_catalog.has_table_privilege(c.oid, 'SELECT'), pg_catalog.has_table_privilege(c.oid, 'UPDATE'),
       pg_catalog.has_table_privilege(c.oid, 'DELETE')
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = pg_catalog.to_regclass({quoted})
"""

_COLUMNS = """
SELECT a.attname, a.attnum::int, pg_catalog.format_type(a.atttypid, -1), pg_catalog.format_type(b.oid, -1),
       pg_catalog.format_type(a.atttypid, a.atttypmod), b.typname,
       CASE WHEN b.typname IN ('varchar', 'bpchar') AND b.typmod > 4 THEN b.typmod - 4 END,
       a.attnotnull OR b.not_null, {generated}, a.attidentity <> '',
       coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), t.typdefault),
       CASE WHEN o.oid IS NOT NULL THEN
            pg_catalog.quote_ident(s.nspname) || '.' || pg_catalog.quote_ident(o.collname) END,
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT'),
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'UPDATE')
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 CROSS JOIN LATERAL (
       WITH RECURSIVE below (oid, typname, typtype, over, typmod, not_null) AS (
         SELECT t.oid, t.typname, t.typtype, t.typbasetype,
                CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END, t.typnotnull
         UNION ALL
         SELECT u.oid, u.typname, u.typtype, u.typbasetype,
                CASE WHEN u.typtype = 'd' THEN u.typtypmod ELSE d.typmod END, d.not_null OR u.typnotnull
           FROM below d JOIN pg_catalog.pg_type u ON u.oid = d.over WHERE d.typtype = 'd')
       SELECT oid, typname, typmod, not_null FROM below WHERE typtype <> 'd') b
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation
  LEFT JOIN pg_catalog.pg_namespace s ON s.oid = o.collnamespace
 WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
"""

_NEARBY = """
SELECT CASE WHEN {schema}::text IS NULL THEN c.relname ELSE n.nspname || '.' || c.relname END
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p')
   AND CASE WHEN {schema}::text IS NULL THEN pg_catalog.pg_table_is_visible(c.oid)
            ELSE n.nspname !~ '^(pg_|information_schema)' END
   AND n.nspname <> 'pg_catalog'
 ORDER BY 1 LIMIT 2000
"""

# An identity or serial sequence depends on its column; a default's nextval depends on its sequence.
_SEQUENCES = """
SELECT n.nspname, c.relname, c.oid::bigint,
       pg_catalog.has_sequence_privilege(c.oid, 'USAGE, SELECT'),
       pg_catalog.has_sequence_privilege(c.oid, 'UPDATE')
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'S' AND c.oid IN (
       SELECT objid FROM pg_catalog.pg_depend
        WHERE classid = 'pg_catalog.pg_class'::regclass AND refclassid = 'pg_catalog.pg_class'::regclass
          AND refobjid = {oid} AND refobjsubid = {number} AND deptype IN ('a', 'i')
       UNION ALL
       SELECT x.refobjid FROM pg_catalog.pg_depend x JOIN pg_catalog.pg_attrdef d ON d.oid = x.objid
        WHERE x.classid = 'pg_catalog.pg_attrdef'::regclass AND x.refclassid = 'pg_catalog.pg_class'::regclass
          AND d.adrelid = {oid} AND d.adnum = {number} AND x.refobjid <> d.adrelid)
 ORDER BY 1, 2
"""

_PRIMARY_KEY = """
SELECT a.attname FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
 WHERE i.indrelid = {oid} AND i.indisprimary AND i.indnkeyatts = 1
"""
