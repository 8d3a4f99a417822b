"""`SqlStore`: an SQL database as a store of personal data."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import psycopg

from lethe.adapters.hosts import ANYWHERE, Resolver
from lethe.adapters.stores.sql import looking, statistics, vacuums
from lethe.adapters.stores.sql import positions as key_positions
from lethe.adapters.stores.sql import roles as role_gate
from lethe.adapters.stores.sql.catalog import Shape, Table, quoted_table, read_tables, tables_of
from lethe.adapters.stores.sql.checking import ReadBack, rows_to_change
from lethe.adapters.stores.sql.contacting import contacts_of
from lethe.adapters.stores.sql.earlier import mapping_left
from lethe.adapters.stores.sql.erasing import Done, Erasure, outcome_of
from lethe.adapters.stores.sql.errors import AnswerTooLong, ServerSilent, SessionsClosed, reduced
from lethe.adapters.stores.sql.finding import Search, records_with_address
from lethe.adapters.stores.sql.journal import Journal
from lethe.adapters.stores.sql.postgres import Cursor, compose
from lethe.adapters.stores.sql.proving import prove_mapping
from lethe.adapters.stores.sql.sessions import Session, Sessions
from lethe.adapters.stores.sql.staging import Batch, hold, lock_tables
from lethe.adapters.stores.sql.values import Tokens
from lethe.domain.journal import Head, HeadMove, JournalObservation
from lethe.domain.mapping import ProvedMapping, SubjectMapping, widened
from lethe.domain.tombstones import IdentityMatcher, Tombstone
from lethe.ports.keys import Keyring
from lethe.ports.stores import (
    Contact,
    ErasureOutcome,
    Finding,
    FoundRecord,
    JournalEntry,
    JournalSupport,
    MappingInvalid,
    MappingProblem,
    Proof,
    Residue,
    RoleRefused,
    StoreUnreachable,
    Wanted,
)

_MOST_TRIES, _MOST_ENDINGS, _ENDING_SECONDS = 10, 10, 0.05


class SqlStore:
    """A store in PostgreSQL; implements `Store` and `Journaled` of `lethe.ports.stores`.

    `url` is what `DatabaseUrl.parse` takes. `primary` says that this is the Primary: then the key itself
    identifies a person. Unless `allow_plaintext`, all but this machine is spoken to by TLS.
    `journal_schema` is where the journal lies (`None`: in the schema of the subjects' table). The constructor
    opens no connection; it raises `ValueError` for a URL that can't be used, with a text that is fit to
    print. Every call ends also where the server hangs (see `sessions`).
    """

    def __init__(
        self,
        url: str,
        mapping: SubjectMapping,
        *,
        ledger_id: str,
        store: str,
        keyring: Keyring,
        primary: bool = False,
        max_records: int = 5,
        resolver: Resolver = ANYWHERE,
        allow_plaintext: bool = False,
        journal_schema: str | None = None,
    ) -> None:
        self._sessions = Sessions(url, resolver, allow_plaintext=allow_plaintext)
        self._mapping, self._store, self._ledger_id, self._keyring = mapping, store, ledger_id, keyring
        self._proved = mapping  # with its defaults resolved, once `prove` has seen them
        self._primary, self._max_records = primary, max_records
        self._tokens = Tokens(keyring, store)
        self._mappings: dict[str, SubjectMapping] = {}
        self._left: dict[str, SubjectMapping | None] = {}  # of versions that the schema has left behind
        self._schema, self._schema_is_chosen = journal_schema, journal_schema is not None
        self._told: looking.ToldByServer | None = None

    def __repr__(self) -> str:
        return f"SqlStore({self._store!r})"

    # --- the mapping -----------------------------------------------------------------------------------

    @reduced
    def prove(self, recorded: Iterable[ProvedMapping] = ()) -> Proof:
        """See `Store.prove`."""
        self._remember(recorded)
        with self._sessions.alive() as connection:
            tables = tables_of(self._mapping)
            # A journal made in the middle of a restore would be in the way of the one that comes back.
            told = self._told = looking.what_server_tells(connection)
            journal = self._journal(connection)
            observed = looking.look(connection, journal, tables, told=told, settle=False)
            server = looking.system_identifier(connection) if told.system else connection.address
        with self._sessions.transaction(quick=True) as cursor:
            proof = prove_mapping(cursor, self._mapping)
            earlier_tables = {one.table for one in self._mappings.values()}
            gone = earlier_tables - {*read_tables(cursor, earlier_tables)}
            sampled = statistics.sampled_tables(cursor, tables_of(self._mapping))
        with self._sessions.alive() as connection:
            journal = self._journal(connection)
        with self._sessions.transaction(quick=True) as cursor:
            support = journal.ensure(cursor, filled_by=observed.filling)
            kept = support is JournalSupport.KEPT
            ddl, beside = ("", journal.beside(cursor)) if kept else (journal.ddl_text(cursor), ())
        proved, self._proved = self._own_version(proof.proved), proof.proved.mapping
        wider = {
            version: ProvedMapping(f"{version}+{proved.version}", mapping, proved.constraints)
            for version, earlier in self._mappings.items()
            if "+" not in version
            and (earlier.table == self._mapping.table or earlier.table in gone)
            and (mapping := widened(earlier, self._proved)) != earlier
        }
        self._remember([proved, *wider.values()])
        return Proof(
            proved,
            support,
            ddl,
            proof.lookalikes,
            proof.keys_may_repeat,
            server,
            proof.pointing,
            proof.copies,
            wider,
            tuple(statistics.not_permitted(one) for one in sampled if not one.permitted),
            beside,
            proof.possible_copies,
        )

    def _own_version(self, proved: ProvedMapping) -> ProvedMapping:
        """Return a mapping under a version that means nothing else: one that was widened does by now."""
        version = proved.version
        while self._mappings.get(version, proved.mapping) != proved.mapping:
            version = hashlib.sha256(version.encode()).hexdigest()[:16]
        return replace(proved, version=version)

    def _remember(self, mappings: Iterable[ProvedMapping]) -> None:
        self._mappings |= {one.version: one.mapping for one in mappings}
        self._left.clear()

    # --- persons ---------------------------------------------------------------------------------------

    @reduced
    def find(self, wanted: Sequence[Wanted]) -> Finding:
        """See `Store.find`."""
        with self._sessions.transaction(repeatable=True) as cursor:
            return self._search(cursor).find(wanted)

    @reduced
    def contacts(self, wanted: Sequence[Wanted]) -> Mapping[str, tuple[Contact, ...]]:
        """See `Store.contacts`."""
        with self._sessions.transaction(repeatable=True) as cursor:
            return contacts_of(self._search(cursor), wanted, earlier=self._mappings.values())

    @reduced
    def plan(self, tombstones: Sequence[Tombstone]) -> Mapping[int, Mapping[str, int]]:
        """See `Store.plan`."""
        counts: dict[int, dict[str, int]] = {}
        with self._sessions.transaction(repeatable=True) as cursor:
            for shape, batch in self._batches(cursor, tombstones, {}):
                counts |= rows_to_change(cursor, shape, batch, self._tokens)
        return counts

    @reduced
    def erase(
        self,
        tombstones: Sequence[Tombstone],
        matcher: IdentityMatcher,
        *,
        move: HeadMove | None,
        first_number: int | None = None,
        exclusive: bool = False,
    ) -> ErasureOutcome:
        """See `Store.erase`."""
        with self._keeping_others_out(exclusive=exclusive), self._sessions.transaction() as cursor:
            journal = self._journal(cursor.connection)
            before = {} if move is None else journal.take(cursor, move)
            # A deferred constraint would refuse at COMMIT, where no culprit can be told apart any more.
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            shapes: dict[str, Shape] = {}
            batches = list(self._batches(cursor, tombstones, shapes))
            if exclusive:
                lock_tables(cursor, shapes.values(), to_write=True)
            again = first_number is not None
            work: list[tuple[Batch, Done]] = [
                (batch, Erasure(cursor, shape, batch, matcher, exclusive, again).carry_out(self._tokens))
                for shape, batch in batches
            ]
            outcome = outcome_of(tombstones, work, first_number)
            if move is None:
                return outcome
            entries = journal.write(cursor, outcome.entries, move.move)
            journal.note_positions(cursor, _shape(cursor, self._mapping), before)
        return ErasureOutcome(entries, outcome.left_alone, outcome.unclear, outcome.absent, outcome.refused)

    @reduced
    def check(
        self, chunks: Iterable[Sequence[Tombstone]], matcher: IdentityMatcher, *, exclusive: bool = False
    ) -> Residue:
        """See `Store.check`."""
        read_back = ReadBack()
        # Under the lock nobody writes, so the newest state is one state, and no older one is read.
        with (
            self._keeping_others_out(exclusive=exclusive),
            self._sessions.transaction(repeatable=not exclusive) as cursor,
        ):
            shapes: dict[str, Shape] = {}
            if exclusive:
                tables = read_tables(cursor, self._every_table())
                lock_tables(cursor, [Shape(self._mapping, tables)], to_write=False)
            for chunk in chunks:
                for shape, batch in self._batches(cursor, chunk, shapes):
                    read_back.read(cursor, shape, batch, matcher, self._tokens)
        return read_back.residue()

    # --- the journal -----------------------------------------------------------------------------------

    @reduced
    def observe(self, *, settle: bool = False) -> JournalObservation:
        """See `Store.observe`."""
        try:
            return self._observe(settle=settle)
        except (ServerSilent, AnswerTooLong, SessionsClosed, psycopg.errors.ConnectionTimeout):
            raise  # who has been waited for once is not waited for again
        except psycopg.OperationalError as error:
            if error.sqlstate is not None and error.sqlstate[:3] not in {"57P", "080"}:
                raise
        return self._observe(settle=settle)  # the connection was an old one; a new one decides

    def _observe(self, *, settle: bool) -> JournalObservation:
        with self._sessions.connection() as connection:
            if self._told is None:
                self._told = looking.what_server_tells(connection)
            journal, tables = self._journal(connection), tables_of(self._mapping)
            return looking.look(connection, journal, tables, told=self._told, settle=settle)

    @reduced
    def tick(self, move: HeadMove) -> Head:
        """See `Journaled.tick`."""
        with self._sessions.transaction() as cursor:
            journal = self._journal(cursor.connection)
            before = journal.take(cursor, move)
            noted = journal.note_positions(cursor, _shape(cursor, self._mapping), before)
        return Head(move.move, move.digest, noted)

    @reduced
    def entries_of(self, move: int) -> tuple[JournalEntry, ...]:
        """See `Journaled.entries_of`."""
        with self._sessions.transaction(read_only=True) as cursor:
            return self._journal(cursor.connection).of_move(cursor, move)

    def journaled_numbers(self) -> Iterator[Sequence[int]]:
        """See `Journaled.journaled_numbers`."""
        numbers = self._journaled_numbers()
        following: Callable[[], Sequence[int] | None] = reduced(lambda: next(numbers, None))
        while (chunk := following()) is not None:
            yield chunk

    def _journaled_numbers(self) -> Iterator[Sequence[int]]:
        with self._sessions.transaction(read_only=True) as cursor:
            yield from self._journal(cursor.connection).numbers(cursor)

    def addresses(self) -> Iterator[Sequence[FoundRecord]]:
        """See `Journaled.addresses`."""
        chunks = self._addresses()
        following: Callable[[], Sequence[FoundRecord] | None] = reduced(lambda: next(chunks, None))
        while (chunk := following()) is not None:
            yield chunk

    def _addresses(self) -> Iterator[Sequence[FoundRecord]]:
        with self._sessions.transaction(read_only=True) as cursor:
            yield from records_with_address(cursor, _shape(cursor, self._proved))

    @reduced
    def advance_sequences(self, positions: Mapping[str, int]) -> None:
        """See `Journaled.advance_sequences`."""
        with self._keeping_others_out(), self._sessions.transaction() as cursor:
            key_positions.advance(cursor, _shape(cursor, self._mapping), positions)

    @reduced
    def remember_journal(self) -> object:
        """See `Journaled.remember_journal`."""
        with self._sessions.transaction(read_only=True) as cursor:
            return self._journal(cursor.connection).remember(cursor)

    @reduced
    def put_back_journal(self, remembered: object) -> None:
        """See `Journaled.put_back_journal`."""
        with self._sessions.transaction() as cursor:
            row = cast("tuple[str, ...] | None", remembered)
            self._journal(cursor.connection).put_back(cursor, row)

    @reduced
    def tidy(self) -> tuple[str, ...]:
        """See `Journaled.tidy`."""
        with self._sessions.transaction(quick=True) as cursor:
            every = statistics.sampled_tables(cursor, self._every_table())
        left: list[str] = []
        for one in every:
            if not one.permitted:
                left.append(statistics.not_permitted(one))
                continue
            try:
                with self._sessions.transaction() as cursor:
                    statistics.renew(cursor, one)
                    left += statistics.clear_stale(cursor, one)
            except (psycopg.errors.LockNotAvailable, psycopg.errors.InsufficientPrivilege):
                left.append(f"{one.full_name} could not be locked or read; it is tried again")
        return tuple(left)

    @reduced
    def set_roles(self, roles: Sequence[str], *, closed: bool) -> int:
        """See `KeepsRolesOut.set_roles`."""
        mark = role_gate.mark_of(self._store, self._ledger_id)
        change = role_gate.keep_out if closed else role_gate.let_in
        with self._sessions.transaction(quick=True) as cursor:
            seen, refused = _closable(cursor, roles)
        if refused is not None and not closed:
            raise refused
        for role in sorted(one for one in seen if role_gate.needs_change(seen[one], mark, closed=closed)):
            for left in reversed(range(_MOST_TRIES)):
                try:
                    with self._sessions.transaction(quick=True) as cursor:
                        change(cursor, role, mark)
                    break
                except psycopg.errors.InternalError_:  # somebody else altered the role at the same time
                    if not left:
                        raise
        if not closed:
            return 0
        ended = 0
        for _ in range(_MOST_ENDINGS):  # who was let in right before is seen a moment later
            with self._sessions.transaction(quick=True) as cursor:
                found = role_gate.end_sessions(cursor, list(seen)) if seen else 0
            ended += found
            if not found:
                break
            time.sleep(_ENDING_SECONDS)
        if refused is not None:
            raise refused
        return ended

    @reduced
    def close(self) -> None:
        """See `Store.close`. Any thread may call it: a call that is under way ends soon, as unreachable."""
        self._sessions.close()

    # --- parts -----------------------------------------------------------------------------------------

    def _every_table(self) -> list[str]:
        """Return the tables of every version of the mapping, as they are written."""
        versions = (self._mapping, *self._mappings.values())
        return list(dict.fromkeys(table for one in versions for table in tables_of(one)))

    @contextmanager
    def _keeping_others_out(self, *, exclusive: bool = True) -> Iterator[None]:
        """Make autovacuum let go of the tables that are to be locked; say who else does not."""
        if exclusive:
            self._end_vacuums()
        try:
            yield
            return
        except psycopg.errors.LockNotAvailable:
            if not exclusive:
                raise
        with self._sessions.transaction(quick=True) as cursor:  # outside of the handler: see `reduced`
            holder = vacuums.holder(cursor, self._every_table())
        raise StoreUnreachable(holder or "tables are locked by somebody else", "it is tried again")

    def _end_vacuums(self) -> None:
        """Let the server end autovacuum where it keeps tables from being locked, as it does for who waits."""
        every = self._every_table()
        for _ in every:  # a worker whose table was taken from it goes on to the next one
            with self._sessions.transaction(quick=True) as cursor:
                held, seconds = vacuums.held_tables(cursor, every)
            for table in held:
                try:
                    # Each by itself, holding nothing else: so nobody can wait for Lethe and Lethe for them.
                    with self._sessions.transaction(quick=True) as cursor:
                        vacuums.wait_for(cursor, table, seconds=seconds)
                except psycopg.errors.LockNotAvailable:
                    return  # somebody's own VACUUM, which the server does not end
            if not held:
                return

    def _journal(self, connection: psycopg.Connection[tuple[Any, ...]]) -> Journal:
        """Return the journal, where it was said to lie, or in the schema of the subjects' table."""
        schema = self._schema
        if schema is None:
            written = self._mapping.table
            known, current = cast("Session", connection).ask(
                compose(
                    "SELECT (SELECT n.nspname FROM pg_catalog.pg_class c"
                    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                    " WHERE c.oid = pg_catalog.to_regclass({quoted})),"
                    " coalesce(pg_catalog.current_schema(), 'public')",
                    quoted=quoted_table(written).as_string(connection),
                )
            )[0]
            self._schema = known
            # The table may be gone, as in the midst of a restore: where it would be, not remembered.
            schema = known or (written.split(".", 1)[0] if "." in written else current)
        return Journal(
            schema,
            ledger_id=self._ledger_id,
            store=self._store,
            keyring=self._keyring,
            chosen=self._schema_is_chosen,
        )

    def _search(self, cursor: Cursor) -> Search:
        shape = _shape(cursor, self._proved)
        return Search(cursor, shape, self._tokens, self._primary, self._max_records, _encoding(cursor))

    def _batches(
        self, cursor: Cursor, tombstones: Sequence[Tombstone], shapes: dict[str, Shape]
    ) -> Iterator[tuple[Shape, Batch]]:
        """Yield tombstones by mapping version. Raises `MappingInvalid` for one that was never learnt.

        Of those whose table is gone without one that stands in for it, no row can be there.
        """
        by_version: dict[str, list[Tombstone]] = {}
        for one in tombstones:
            by_version.setdefault(one.mapping, []).append(one)
        for version, group in by_version.items():
            if version not in shapes:
                mapping = self._mappings.get(version)
                if mapping is None:
                    raise MappingInvalid([_unknown_version(version)])
                shape = self._shape_of(cursor, version, mapping)
                if shape is None:
                    yield _shape(cursor, self._proved), Batch((), (), tuple(group))
                    continue
                shapes[version] = shape
            yield shapes[version], Batch.of(group, shapes[version], _encoding(cursor))

    def _shape_of(self, cursor: Cursor, version: str, mapping: SubjectMapping) -> Shape | None:
        """Return the live tables of a version; of an earlier one as far as there are any left."""
        if mapping == self._proved:
            return _shape(cursor, mapping)
        if version not in self._left:
            self._left[version] = mapping_left(cursor, mapping, self._proved)
        left = self._left[version]
        if left is None:
            return None
        return replace(_shape(cursor, left), stands_in=left.table != mapping.table)


def _unknown_version(version: str) -> MappingProblem:
    return MappingProblem(
        "sql.subjects",
        f"version {version} of the mapping, by which persons were erased, is not known",
        "the ledger must be the one that erased them",
    )


def _shape(cursor: Cursor, mapping: SubjectMapping) -> Shape:
    """Return the live tables of a mapping, and hold them until the transaction ends.

    Raises `MappingInvalid` if one, or a column, is not there now.
    """
    tables = read_tables(cursor, tables_of(mapping))
    gone = [
        MappingProblem(
            "sql.subjects", f"table {written} does not exist", "wait for the restore, or correct it"
        )
        for written in tables_of(mapping)
        if written not in tables
    ]
    gone += [
        MappingProblem("sql.subjects", f"column {written}.{column} does not exist", "correct the mapping")
        for written, table in tables.items()
        for column in _used_columns(mapping, table)
        if column not in table.columns
    ]
    if gone:
        raise MappingInvalid(gone)
    hold(cursor, tables.values())
    return Shape(mapping, tables)


def _used_columns(mapping: SubjectMapping, table: Table) -> list[str]:
    used: list[str | None] = []
    if table.written == mapping.table:
        quarantine = mapping.quarantine.column if mapping.quarantine else None
        used += [mapping.key, mapping.created_at, mapping.email_column, quarantine]
        used += [*mapping.identifiers.values(), *(rule.column for rule in mapping.clear)]
    for dependent in mapping.dependents:
        if dependent.table == table.written:
            used += [dependent.foreign_key, *(rule.column for rule in dependent.clear)]
    return list(dict.fromkeys(column for column in used if column is not None))


def _encoding(cursor: Cursor) -> str:
    return str(cursor.connection.info.parameter_status("server_encoding") or "UTF8")


def _closable(
    cursor: Cursor, roles: Sequence[str]
) -> tuple[dict[str, role_gate.RoleState], RoleRefused | None]:
    """Return how those stand that can be closed, and why one can't be: it must not keep the others open."""
    seen, refused = dict[str, role_gate.RoleState](), None
    for role in roles:
        try:
            seen[role] = role_gate.check(cursor, role)
        except RoleRefused as one:
            refused = refused or one
    return seen, refused
