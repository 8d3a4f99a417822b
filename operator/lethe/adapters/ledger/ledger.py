"""The ledger port over SQLAlchemy Core."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from threading import RLock
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, insert, select, update

from lethe.adapters.ledger.backups import BackupsInLedger
from lethe.adapters.ledger.chain import (
    GENESIS,
    PeriodKeys,
    chained,
    checked,
    end_mac,
    period_of,
    walk,
)
from lethe.adapters.ledger.database import (
    connect,
    errors_without_values,
    execute_many,
    migrate,
    server_identity,
    truncate_wal,
)
from lethe.adapters.ledger.docs import by_namespace, instant_of
from lethe.adapters.ledger.legal import LegalInLedger
from lethe.adapters.ledger.projections import (
    Projections,
    known_head,
    note_moves,
    proved_mapping,
    refuse_sealing_for_ended,
    restore_episode,
)
from lethe.adapters.ledger.request_docs import request_doc
from lethe.adapters.ledger.schema import (
    entries,
    episodes,
    ledger,
    mappings,
    requests,
    sealed,
    sealed_legal,
)
from lethe.adapters.ledger.sealing import destroy, opened
from lethe.adapters.ledger.sealing import seal as seal_texts
from lethe.adapters.ledger.snapshots import newest_sight
from lethe.adapters.ledger.tombstones import TombstonesInLedger
from lethe.domain.facts import Fact, NotFound, Reerased, TookOver, Verified
from lethe.domain.journal import KnownHead
from lethe.domain.mapping import ProvedMapping
from lethe.domain.requests import RequestRecord
from lethe.domain.restores import RestoreEpisode
from lethe.ports.keys import Keyring
from lethe.ports.ledger import (
    ChainBroken,
    Fenced,
    KeysDoNotMatch,
    LedgerPosition,
    LedgerUnavailable,
    MoveNote,
)


def utc_now() -> datetime:
    """Return the system's time."""
    return datetime.now(UTC)


def open_ledger(url: str, keyring: Keyring, *, now: Callable[[], datetime] = utc_now) -> SqlLedger:
    """Open the ledger at `sqlite:////…` or `postgresql://…`; make or migrate it if need be.

    `now` dates the entries (UTC). Raises `LedgerUnavailable` naming the setting and the remedy,
    `KeysDoNotMatch` for a ledger of other keys, `LedgerError` for a schema that another Lethe has made.
    """
    engine = connect(url)
    try:
        with errors_without_values(engine.url):
            with engine.connect() as connection, connection.execution_options(writes=True).begin():
                migrate(connection)
                ledger_id = _ledger_of_these_keys(connection, keyring, now)
            return SqlLedger(engine, keyring, now, ledger_id, server_identity(engine))
    except BaseException:
        engine.dispose()
        raise


def _ledger_of_these_keys(connection: Connection, keyring: Keyring, now: Callable[[], datetime]) -> str:
    row = connection.execute(select(ledger)).one_or_none()
    if row is None:
        ledger_id = uuid.uuid4().hex
        connection.execute(
            insert(ledger),
            {
                "ledger_id": ledger_id,
                "created_at": now().isoformat(),
                "check_value": keyring.check_value,
                "token": 0,
                "end_mac": end_mac(keyring, ledger_id, 0, GENESIS),
            },
        )
        return ledger_id
    if row.check_value != keyring.check_value:
        raise KeysDoNotMatch(
            "The ledger at LETHE_LEDGER_URL was written with other keys than the mounted ones; "
            "mount the key Secret that belongs to it, from its backup if need be."
        )
    return str(row.ledger_id)


class SqlLedger(TombstonesInLedger, BackupsInLedger, LegalInLedger):
    """A ledger in SQLite or PostgreSQL. Safe for threads: writers wait for one another, readers don't."""

    def __init__(
        self,
        engine: Engine,
        keyring: Keyring,
        now: Callable[[], datetime],
        ledger_id: str,
        server: str | None,
    ) -> None:
        self._engine = engine
        self._keyring = keyring
        self._now = now
        self._ledger_id = ledger_id
        self._server = server
        self._keys = PeriodKeys(keyring)
        self._writers = RLock()
        self._token: int | None = None
        self._ends: set[tuple[int, bytes]] = set()
        self._next_end = (0, GENESIS)
        self._ciphertext_lingers = False

    @property
    def ledger_id(self) -> str:
        """Return the random id under which this ledger keeps its journals in stores."""
        return self._ledger_id

    @property
    def server(self) -> str | None:
        """Return PostgreSQL's system identifier (or the address of what only speaks its protocol);

        `None` for a file.
        """
        return self._server

    # Writing

    @contextmanager
    def _writing(self) -> Iterator[tuple[Connection, int]]:
        """Open a transaction that alone may write; yields the token in force with it."""
        with self._writers, errors_without_values(self._engine.url):
            with self._engine.connect() as connection, connection.execution_options(writes=True).begin():
                token = connection.execute(select(ledger.c.token).with_for_update()).scalar_one()
                yield connection, token
            self._ends = {self._next_end}
            self._wipe_what_lingers()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with errors_without_values(self._engine.url), self._engine.connect() as connection:
            yield connection

    def take_over(self) -> int:
        """Become the one that writes, and return the fencing token; every earlier holder is `Fenced`."""
        with self._writing() as (connection, before):
            token = before + 1
            connection.execute(update(ledger).values(token=token))
            self._ends = {_end_of_chain(connection)}
            self._chain(connection, [TookOver(token)], Projections(connection, self._keyring, (), ()), token)
        self._token = token
        return token

    def append(
        self,
        facts: Sequence[Fact] = (),
        *,
        seal: Mapping[str, bytes] | None = None,
        moves: Sequence[MoveNote] = (),
    ) -> None:
        """Record facts, sealed texts and head moves in one durable transaction; see the port."""
        seal = seal or {}
        with self._writing() as (connection, token):
            self._refuse_unless_mine(token)
            facts = self._dated(connection, facts)
            projections = Projections(connection, self._keyring, facts, seal)
            self._chain(connection, facts, projections, token)
            refuse_sealing_for_ended(projections, seal)
            self._seal(connection, projections, seal)
            note_moves(connection, moves, self._now())

    def _dated(self, connection: Connection, facts: Sequence[Fact]) -> Sequence[Fact]:
        """Date no erasure before a listing of backups that came before it, whatever this host's clock says.

        Else snapshots that hold the person would seem to have begun after she was erased.
        """
        if not any(isinstance(fact, _ERASURES) for fact in facts):
            return facts
        seen = newest_sight(connection, self._keyring)
        if seen is None:
            return facts
        return [
            replace(fact, at=seen) if isinstance(fact, _ERASURES) and fact.at < seen else fact
            for fact in facts
        ]

    @contextmanager
    def _noting(self) -> Iterator[Connection]:
        """Open a transaction for what is no fact. Raises as `append` does."""
        with self._writing() as (connection, token):
            self._refuse_unless_mine(token)
            self._next_end = self._expected_end(connection)
            yield connection

    def confirm(self) -> None:
        """See that nobody has taken over; see the port."""
        with self._reading() as connection:
            self._refuse_unless_mine(connection.execute(select(ledger.c.token)).scalar_one())

    def _refuse_unless_mine(self, token: int) -> None:
        if token != self._token:
            raise Fenced(
                "Another operator process writes this ledger; this one must end."
                if self._token is not None
                else "This process has not taken the ledger over, so it may not write."
            )

    def _expected_end(self, connection: Connection) -> tuple[int, bytes]:
        end = _end_of_chain(connection)
        if end not in self._ends:
            raise ChainBroken(
                f"The ledger ends at entry {end[0]}, and not where this process has written last: it went "
                "back in time, or was changed. Restart the operator once its newest copy is in place."
            )
        return end

    def _chain(
        self, connection: Connection, facts: Sequence[Fact], projections: Projections, token: int
    ) -> None:
        end = self._next_end = self._expected_end(connection)
        if not facts:
            return
        at = self._now()
        key = self._keys.for_writing(connection, period_of(at))
        rows = chained(facts, after=end, at=at, token=token, key=key)
        execute_many(connection, _INSERT_ENTRY, rows)
        last = rows[-1].sequence, rows[-1].digest
        connection.execute(update(ledger).values(end_mac=end_mac(self._keyring, self._ledger_id, *last)))
        for entry, fact in zip(rows, facts, strict=True):
            projections.take(entry, fact)
        projections.write()
        for period in projections.expired_periods:
            self._keys.forget(period)
            self._ciphertext_lingers = True
        # Until the commit is known to have succeeded or failed, the chain may end at either.
        self._ends, self._next_end = {end, last}, last

    def _seal(self, connection: Connection, projections: Projections, texts: Mapping[str, bytes]) -> None:
        """Seal texts, and destroy those of what has ended."""
        of_requests = {owner: texts[owner] for owner in texts if projections.is_open(owner)}
        of_legal = {owner: texts[owner] for owner in texts if owner in projections.legal}
        gone = [
            seal_texts(connection, self._keyring, sealed, of_requests),
            seal_texts(connection, self._keyring, sealed_legal, of_legal),
            destroy(connection, sealed, projections.completed),
            destroy(connection, sealed_legal, projections.legal.notified),
        ]
        self._ciphertext_lingers |= any(gone)

    def _wipe_what_lingers(self) -> None:
        """Empty SQLite's WAL, which still shows pages as they were before something was destroyed.

        A reader may hold it; then the next append tries again, and `close` does.
        """
        if not self._ciphertext_lingers or self._engine.dialect.name != "sqlite":
            return
        self._ciphertext_lingers = not truncate_wal(self._engine)

    # Reading

    def position(self) -> LedgerPosition:
        """Return where the chain ends."""
        with self._reading() as connection:
            sequence, digest = _end_of_chain(connection)
        return LedgerPosition(sequence, digest.hex())

    def requests_named(self, names: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], RequestRecord]:
        """Return the requests of these (namespace, name), as far as they are known."""
        queries = [
            select().where(requests.c.namespace == namespace, requests.c.name.in_(chunk))
            for namespace, chunk in by_namespace(names)
        ]
        with self._reading() as connection:
            records = [record for query in queries for record in self._records(connection, query)]
        return {(record.accepted.namespace, record.accepted.name): record for record in records}

    def open_requests(self) -> Sequence[RequestRecord]:
        """Return every request that has not ended, oldest first."""
        with self._reading() as connection:
            query = select().where(requests.c.open.is_(True)).order_by(requests.c.accepted_sequence)
            return list(self._records(connection, query))

    def _records(self, connection: Connection, query: Select[Any]) -> Iterator[RequestRecord]:
        columns = (requests.c.request, requests.c.doc, requests.c.purged_at)
        for request, doc, purged_at in connection.execute(query.add_columns(*columns)):
            record = request_doc(self._keyring, request, doc).record
            yield replace(record, purged_at=instant_of(purged_at)) if purged_at is not None else record

    def sealed(self, requests: Collection[str]) -> Mapping[str, bytes]:
        """Return the plain text of what is sealed for these requests, or legal requests, if there is any."""
        with self._reading() as connection:
            return {
                owner: text
                for table in (sealed, sealed_legal)
                for owner, text in opened(connection, self._keyring, table, requests)
            }

    def known_head(self, store: str) -> KnownHead:
        """Return what is known of a store's journal; an empty `KnownHead` for a store never met."""
        with self._reading() as connection:
            return known_head(connection, store)

    def mappings(self, store: str) -> Mapping[str, ProvedMapping]:
        """Return every mapping version that was proved for a store."""
        query = select(mappings.c.version, mappings.c.doc).where(mappings.c.store == store)
        with self._reading() as connection:
            return {
                version: proved_mapping(self._keyring, store, version, doc)
                for version, doc in connection.execute(query)
            }

    def episodes(self, *, store: str | None = None, open_only: bool = False) -> Sequence[RestoreEpisode]:
        """Return the restores, oldest first."""
        query = select(episodes).order_by(episodes.c.detected_sequence)
        if store is not None:
            query = query.where(episodes.c.store == store)
        if open_only:
            query = query.where(episodes.c.open.is_(True))
        with self._reading() as connection:
            return [
                restore_episode(self._keyring, row.store, row.episode, row.doc)
                for row in connection.execute(query)
            ]

    # The whole chain

    def facts(self) -> Iterator[tuple[LedgerPosition, datetime, Fact | None]]:
        """Yield every entry's position, instant and fact (`None`: destroyed), proved as by `verify`.

        Raises `ChainBroken`.
        """
        with self._reading() as connection:
            until, digest, mac = connection.execute(_END_WITH_MAC).one()
            if mac != end_mac(self._keyring, self._ledger_id, until, digest or GENESIS):
                raise ChainBroken(f"The ledger does not end where it was written last: now at entry {until}.")
            connection.rollback()
            entry = None
            for entry, fact in checked(
                walk(connection, until=until), lambda period: self._keys.for_reading(connection, period)
            ):
                position = LedgerPosition(entry.sequence, entry.digest.hex())
                yield position, datetime.fromisoformat(entry.at), fact
            if until and (entry is None or entry.digest != digest):
                raise ChainBroken(f"Entry {until} is missing or was changed.")

    def verify(self) -> LedgerPosition:
        """Walk the whole chain and every payload that still exists. Raises `ChainBroken`."""
        verified = LedgerPosition(0, GENESIS.hex())
        for position, _, _ in self.facts():
            verified = position
        return verified

    def close(self) -> None:
        """Checkpoint and close the database."""
        with self._writers:
            self._ciphertext_lingers = True
            try:
                with errors_without_values(self._engine.url):
                    self._wipe_what_lingers()
            except LedgerUnavailable:
                pass  # it is away; there is nothing of it to close
            self._engine.dispose()


_ERASURES = (Verified, NotFound, Reerased)
_INSERT_ENTRY = insert(entries)
_LAST = select(entries.c.sequence, entries.c.digest).order_by(entries.c.sequence.desc()).limit(1)
_last = _LAST.subquery()
# One statement, so that end and MAC are of the same moment.
_END_WITH_MAC = select(func.coalesce(_last.c.sequence, 0), _last.c.digest, ledger.c.end_mac).select_from(
    ledger.outerjoin(_last, ledger.c.token >= 0)
)


def _end_of_chain(connection: Connection) -> tuple[int, bytes]:
    row = connection.execute(_LAST).one_or_none()
    return (0, GENESIS) if row is None else (row.sequence, row.digest)
