"""The journal inside the store: two small tables without anything personal."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from psycopg import errors, sql

from lethe.adapters.stores.sql.catalog import Shape
from lethe.adapters.stores.sql.positions import positions
from lethe.adapters.stores.sql.postgres import Cursor, compose, copy_in, fetch_in_chunks, listed, name, raw
from lethe.domain.journal import Filling, Head, HeadMove, merged_positions
from lethe.ports.keys import Keyring
from lethe.ports.stores import (
    AnswerUntrusted,
    BeingFilled,
    HeadMoved,
    JournalEntry,
    JournalNotPermitted,
    JournalSupport,
    StoreError,
)

HEAD, ENTRIES = "lethe_journal_head", "lethe_journal_entries"

_COLUMNS: Mapping[str, Mapping[str, str]] = {
    HEAD: {
        "ledger": "text",
        "move": "bigint",
        "digest": "text",
        "token": "bigint",
        "positions": "text",
        "ticked_at": "timestamp with time zone",
    },
    ENTRIES: {
        "ledger": "text",
        "number": "bigint",
        "of_number": "bigint",
        "move": "bigint",
        "mac": "bytea",
        "counts": "text",
    },
}
_PRIMARY_KEYS = {HEAD: ("ledger",), ENTRIES: ("ledger", "number")}
_ENTRY_COLUMNS = tuple(_COLUMNS[ENTRIES])
_CHUNK = 50_000
_FOR_A_DBA = (
    "Lethe erases personal data in this database, and tells by this journal that it was restored. Before you"
    " drop or replace database or schema, let it go: kubectl -n NAMESPACE patch datastore NAME --type=merge "
    '-p \'{"spec":{"suspend":true}}\'; afterwards the same with false. Lethe\'s docs/operations.md'
)
"""Where a DBA looks who is in the way of Lethe, or it in theirs."""


class Journal:
    """The journal of one ledger in one store."""

    def __init__(
        self, schema: str, *, ledger_id: str, store: str, keyring: Keyring, chosen: bool = False
    ) -> None:
        # Two DataStores may map two tables of one schema: each keeps a head and entries of its own.
        self._ledger, self._store, self._keyring = f"{ledger_id}:{store}", store, keyring
        self.schema, self._chosen = schema, chosen
        self.head, self.entries = name(schema, HEAD), name(schema, ENTRIES)

    # --- existence -------------------------------------------------------------------------------------

    def ddl(
        self, tables: Collection[str], user: str | None = None, *, schema_too: bool = False
    ) -> list[sql.Composed]:
        """Return the statements that make the journal's `tables`, and grant it to a user."""
        schema = compose("CREATE SCHEMA IF NOT EXISTS {schema}", schema=name(self.schema))
        statements = [schema] if schema_too else []
        statements += [
            compose(
                "CREATE TABLE IF NOT EXISTS {table} ({columns}, PRIMARY KEY ({key}))",
                table=name(self.schema, table),
                columns=listed(
                    compose("{column} {type} NOT NULL", column=name(column), type=raw(kind))
                    for column, kind in columns.items()
                ),
                key=listed(name(column) for column in _PRIMARY_KEYS[table]),
            )
            for table, columns in _COLUMNS.items()
        ]
        statements.append(
            compose(
                "CREATE INDEX IF NOT EXISTS {index} ON {entries} (ledger, move)",
                index=name(f"{ENTRIES}_by_move"),
                entries=self.entries,
            )
        )
        statements += [
            compose("COMMENT ON TABLE {table} IS {words}", table=name(self.schema, table), words=_FOR_A_DBA)
            for table in tables
        ]
        if user is not None and schema_too:
            statements.append(
                compose("GRANT USAGE ON SCHEMA {schema} TO {user}", schema=name(self.schema), user=name(user))
            )
        if user is not None:
            statements.append(
                compose(
                    "GRANT SELECT, INSERT, UPDATE, DELETE ON {head}, {entries} TO {user}",
                    head=self.head,
                    entries=self.entries,
                    user=name(user),
                )
            )
        return statements

    def ddl_text(self, cursor: Cursor) -> str:
        """Return what a DBA has to run where Lethe may not."""
        user = cursor.execute("SELECT current_user").fetchone()
        return "".join(
            f"{statement.as_string(cursor.connection)};\n"
            for statement in self.ddl(_COLUMNS, str(user[0]) if user else None, schema_too=self._chosen)
        )

    def ensure(self, cursor: Cursor, *, filled_by: Filling | None = None) -> JournalSupport:
        """Make the journal's tables where they are missing, never a head: a lost one must be seen.

        Raises `StoreError` where tables of these names have other columns, and `BeingFilled` where
        they are missing while the database is being filled: the restore may bring them itself.
        """
        missing = self._missing(cursor)
        if missing:
            quoted = name(self.schema).as_string(cursor.connection)
            there, may = cursor.execute(
                compose(_MAY_CREATE, quoted=quoted, schema=self.schema)
            ).fetchone() or (
                True,
                False,
            )
            if not may:
                return JournalSupport.NOT_PERMITTED
            if filled_by is not None:
                raise BeingFilled(
                    f"{filled_by.what}, so that the journal can't be made now",
                    "it is tried again when the restore or COPY has ended",
                )
            # CREATE … IF NOT EXISTS of two sessions at once can still collide in the catalog.
            cursor.execute("SELECT pg_catalog.pg_advisory_xact_lock(7164843)")
            for statement in self.ddl(missing, schema_too=not there):
                cursor.execute(statement)
        for table, columns in _COLUMNS.items():
            seen: dict[str, str] = dict(
                cursor.execute(compose(_COLUMNS_OF, table=self._quoted(cursor, table))).fetchall()
            )
            if seen != columns:
                raise StoreError(
                    f"the table {self.schema}.{table} is there, but not as Lethe's journal",
                    "rename it, or restore it as it was; an older journal must not be edited by hand",
                )
        granted = [
            cursor.execute(
                compose(
                    "SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege({table}::regclass, p))"
                    " FROM pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p",
                    table=self._quoted(cursor, table),
                )
            ).fetchone()
            for table in _COLUMNS
        ]
        kept = all(row is not None and row[0] for row in granted)
        return JournalSupport.KEPT if kept else JournalSupport.NOT_PERMITTED

    def _quoted(self, cursor: Cursor, table: str) -> str:
        return name(self.schema, table).as_string(cursor.connection)

    def _missing(self, cursor: Cursor) -> list[str]:
        rows = {
            table: cursor.execute(
                compose("SELECT pg_catalog.to_regclass({table}) IS NULL", table=self._quoted(cursor, table))
            ).fetchone()
            for table in _COLUMNS
        }
        return [table for table, row in rows.items() if row is None or row[0]]

    # --- the head --------------------------------------------------------------------------------------

    def take(self, cursor: Cursor, move: HeadMove) -> dict[str, int]:
        """Move the head, as the first thing that a transaction does; return the positions that it had.

        Raises `HeadMoved` where the store does not stand at `move.expected`, or a later token has led.
        """
        denied = False
        try:
            with cursor.connection.transaction():
                row = cursor.execute(
                    self._first(move) if move.expected is None else self._next(move)
                ).fetchone()
        except errors.UndefinedTable:
            row, denied = None, move.expected is None
        except errors.InsufficientPrivilege:
            row, denied = None, True
        if denied:
            raise JournalNotPermitted(
                "the journal's tables are missing, or Lethe may not write to them",
                f"a DBA can make them:\n{self.ddl_text(cursor)}",
            )
        if row is None:
            raise HeadMoved("the journal in the store is not where the ledger left it")
        return _positions(row[0])

    def _first(self, move: HeadMove) -> sql.Composed:
        return compose(
            "INSERT INTO {head} (ledger, move, digest, token, positions, ticked_at)"
            " VALUES ({ledger}, {move}, {digest}, {token}, '{{}}', pg_catalog.now())"
            " ON CONFLICT (ledger) DO NOTHING RETURNING positions",
            head=self.head,
            ledger=self._ledger,
            move=move.move,
            digest=move.digest,
            token=move.token,
        )

    def _next(self, move: HeadMove) -> sql.Composed:
        return compose(
            "UPDATE {head} SET move = {move}, digest = {digest}, token = {token},"
            " ticked_at = pg_catalog.now()"
            " WHERE ledger = {ledger} AND digest = {expected} AND token <= {token} RETURNING positions",
            head=self.head,
            ledger=self._ledger,
            move=move.move,
            digest=move.digest,
            token=move.token,
            expected=move.expected,
        )

    def note_positions(self, cursor: Cursor, shape: Shape, before: Mapping[str, int]) -> dict[str, int]:
        """Note in the head, at the end of a transaction, how far keys and sequences have been given out."""
        merged = merged_positions(before, positions(cursor, shape))
        if merged != before:
            cursor.execute(
                compose(
                    "UPDATE {head} SET positions = {positions} WHERE ledger = {ledger}",
                    head=self.head,
                    positions=json.dumps(merged, sort_keys=True),
                    ledger=self._ledger,
                )
            )
        return merged

    def head_columns(self) -> sql.Composed:
        """Return a subquery with the head's row, for a look that is one statement."""
        return compose(
            "(SELECT move, digest, positions, ticked_at FROM {head} WHERE ledger = {ledger})",
            head=self.head,
            ledger=self._ledger,
        )

    def beside(self, cursor: Cursor) -> tuple[str, ...]:
        """Return the other stores of this ledger whose heads lie in the same table."""
        ledger = self._ledger.removesuffix(f":{self._store}")
        query = compose("SELECT ledger FROM {head} WHERE ledger <> {mine}", head=self.head, mine=self._ledger)
        owners = [str(owner).partition(":") for (owner,) in cursor.execute(query)]
        return tuple(sorted(store for of, _, store in owners if of == ledger))

    def remember(self, cursor: Cursor) -> tuple[str, ...] | None:
        """Return the head's row as it stands, as texts."""
        query = compose(
            "SELECT {columns} FROM {head} WHERE ledger = {ledger}",
            columns=listed(compose("{column}::text", column=name(column)) for column in _COLUMNS[HEAD]),
            head=self.head,
            ledger=self._ledger,
        )
        return cursor.execute(query).fetchone()

    def put_back(self, cursor: Cursor, row: tuple[str, ...] | None) -> None:
        """Let the head be as it was (`None`: none was there), and forget what came with later moves."""
        for table, later in ((self.head, 0), (self.entries, int(row[1]) if row is not None else 0)):
            cursor.execute(
                compose(
                    "DELETE FROM {table} WHERE ledger = {ledger} AND move > {later}",
                    table=table,
                    ledger=self._ledger,
                    later=later,
                )
            )
        if row is not None:
            copy_in(cursor, self.head, tuple(_COLUMNS[HEAD]), [row])

    # --- the entries -----------------------------------------------------------------------------------

    def mac(self, number: int, of: int, move: int) -> bytes:
        """Return what makes an entry genuine: somebody else's rows in the table count for nothing."""
        return self._keyring.fingerprint(
            "journal", self._ledger, self._store, str(number), str(of), str(move)
        )

    def write(self, cursor: Cursor, entries: Sequence[JournalEntry], move: int) -> tuple[JournalEntry, ...]:
        """Write entries; one that is there already stays as it is, and is returned as it is."""
        if not entries:
            return ()
        earlier = self._already_there(cursor, entries)
        texts: dict[tuple[tuple[str, int], ...], str] = {}  # thousands of entries have the same counts

        def text_of(counts: Mapping[str, int]) -> str:
            items = tuple(counts.items())
            if items not in texts:
                texts[items] = json.dumps(counts, sort_keys=True)
            return texts[items]

        copy_in(
            cursor,
            self.entries,
            _ENTRY_COLUMNS,
            (
                (
                    self._ledger,
                    one.number,
                    one.of,
                    move,
                    self.mac(one.number, one.of, move),
                    text_of(one.counts),
                )
                for one in entries
                if one.number not in earlier
            ),
        )
        return tuple(earlier.get(one.number, one) for one in entries)

    def _already_there(self, cursor: Cursor, entries: Sequence[JournalEntry]) -> dict[int, JournalEntry]:
        numbers = [one.number for one in entries]
        rows = cursor.execute(
            compose(
                "SELECT number, of_number, move, mac, counts FROM {entries}"
                " WHERE ledger = {ledger} AND number BETWEEN {first} AND {last} AND number = ANY({numbers})",
                entries=self.entries,
                ledger=self._ledger,
                first=min(numbers),
                last=max(numbers),
                numbers=sql.Literal(numbers),
            )
        ).fetchall()
        genuine: dict[int, JournalEntry] = {}
        forged: list[int] = []
        for number, of, move, mac, counts in rows:
            if hmac.compare_digest(bytes(mac), self.mac(number, of, move)):
                genuine[number] = JournalEntry(number, of, _counted(counts))
            else:
                forged.append(number)
        if forged:
            cursor.execute(
                compose(
                    "DELETE FROM {entries} WHERE ledger = {ledger} AND number = ANY({numbers})",
                    entries=self.entries,
                    ledger=self._ledger,
                    numbers=sql.Literal(forged),
                )
            )
        return genuine

    def of_move(self, cursor: Cursor, move: int) -> tuple[JournalEntry, ...]:
        """Return the genuine entries that were written with a move, by number."""
        rows = cursor.execute(
            compose(
                "SELECT number, of_number, mac, counts FROM {entries}"
                " WHERE ledger = {ledger} AND move = {move} ORDER BY number",
                entries=self.entries,
                ledger=self._ledger,
                move=move,
            )
        ).fetchall()
        return tuple(
            JournalEntry(number, of, _counted(counts))
            for number, of, mac, counts in rows
            if hmac.compare_digest(bytes(mac), self.mac(number, of, move))
        )

    def numbers(self, cursor: Cursor) -> Iterator[list[int]]:
        """Yield the tombstones' numbers of all genuine entries, in chunks."""
        query = compose(
            "SELECT number, of_number, move, mac FROM {entries} WHERE ledger = {ledger} ORDER BY number",
            entries=self.entries,
            ledger=self._ledger,
        )
        for chunk in fetch_in_chunks(cursor, query, size=_CHUNK, called="lethe_numbers"):
            yield [
                of
                for number, of, move, mac in chunk
                if hmac.compare_digest(bytes(mac), self.mac(number, of, move))
            ]


def head_of(row: tuple[int, str, str, datetime]) -> Head:
    """Return the head from the columns of `Journal.head_columns`.

    Raises `AnswerUntrusted` for one that Lethe can't have written: whoever may write into the store may write
    there what they like, and it goes from here into the ledger.
    """
    move, digest, noted, ticked_at = row
    if not 0 < move < LARGEST_MOVE or not _DIGEST.fullmatch(digest):
        raise _not_lethes(HEAD)
    return Head(move, digest, _positions(noted), ticked_at.astimezone(UTC))


def _positions(text: str) -> dict[str, int]:
    return _numbers(HEAD, text)


def _counted(text: str) -> dict[str, int]:
    return _numbers(ENTRIES, text)


def _numbers(table: str, text: str) -> dict[str, int]:
    """Return numbers by name, as Lethe writes them. Raises `AnswerUntrusted`."""
    try:
        numbers = _decode_numbers(text) if len(text) <= LONGEST_TEXT else None
    except (msgspec.DecodeError, UnicodeEncodeError):
        numbers = None
    if numbers is None or len(numbers) > MOST_NUMBERS or not all(map(_is_numbered, numbers.items())):
        raise _not_lethes(table)
    return numbers


def _is_numbered(item: tuple[str, int]) -> bool:
    called, number = item
    return len(called) <= LONGEST_NAME and "\0" not in called and -(2**63) <= number < 2**63


def _not_lethes(table: str) -> AnswerUntrusted:
    return AnswerUntrusted(
        f"what stands in the journal's table {table} is not what Lethe writes there",
        f"see who may write to it; let a DBA put back the rows that it had, or DROP TABLE {table},"
        " which is treated as a restore",
    )


LARGEST_MOVE = 2**62
"""No journal comes to so many moves, and one that stands near 2^63 could not move on."""
LONGEST_TEXT, LONGEST_NAME, MOST_NUMBERS = 256 * 1024, 512, 1024
"""How many characters, characters of a name, and names positions and counts have at the most."""
_DIGEST = re.compile("[0-9a-f]{64}")
_decode_numbers = msgspec.json.Decoder(dict[str, int]).decode


_MAY_CREATE = """
SELECT s.there, CASE WHEN s.there THEN pg_catalog.has_schema_privilege({schema}, 'CREATE')
                     ELSE pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') END
  FROM (SELECT pg_catalog.to_regnamespace({quoted}) IS NOT NULL AS there) AS s
"""

_COLUMNS_OF = """
SELECT attname, pg_catalog.format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute
 WHERE attrelid = {table}::regclass AND attnum > 0 AND NOT attisdropped
"""
