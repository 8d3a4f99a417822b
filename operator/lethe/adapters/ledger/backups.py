"""The part of the ledger that knows of backups: what lies where, and who may still be in it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, select

from lethe.adapters.ledger import clearings, tombstone_expiry
from lethe.adapters.ledger.docs import chunked, number_of
from lethe.adapters.ledger.part import PartOfLedger
from lethe.adapters.ledger.projections import drill_record
from lethe.adapters.ledger.schema import drills, snapshots, sources
from lethe.adapters.ledger.schema import requests as request_rows
from lethe.adapters.ledger.snapshots import snapshot_record, source_record
from lethe.domain.drills import DrillRecord
from lethe.domain.requests import RequestRecord
from lethe.domain.snapshots import CopiesLeft, CopyStep, SnapshotRecord, SourceRecord


class BackupsInLedger(PartOfLedger):
    """What `SqlLedger` answers about backups. Notes that are no facts are written here too."""

    @abstractmethod
    def _records(self, connection: Connection, query: Select[Any]) -> Iterator[RequestRecord]: ...

    def sources(self) -> Mapping[str, SourceRecord]:
        """Return every BackupSource that was ever described, by `known_as` (domain)."""
        with self._reading() as connection:
            return {
                source: source_record(self._keyring, source, doc)
                for source, doc in connection.execute(select(sources).order_by(sources.c.source))
            }

    def snapshots(self, source: str | None = None) -> Sequence[SnapshotRecord]:
        """Return the snapshots of a source (`None`: of all) that are known, by source and ref."""
        query = select(snapshots.c.source, snapshots.c.ref, snapshots.c.doc)
        if source is not None:
            query = query.where(snapshots.c.source == source)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(snapshots.c.source, snapshots.c.ref))
            return [snapshot_record(self._keyring, *row) for row in rows]

    def drills(self) -> Mapping[str, DrillRecord]:
        """Return what every RestoreDrill that ever began has come to, by `namespace/name`."""
        with self._reading() as connection:
            rows = connection.execute(select(drills.c.drill, drills.c.doc).order_by(drills.c.drill))
            return {drill: drill_record(self._keyring, drill, doc) for drill, doc in rows}

    def forget_purged(self, before: datetime) -> int:
        """Drop from memory what was purged before an instant (its facts stay); return how many."""
        with self._noting() as connection:
            shredded = delete(snapshots).where(snapshots.c.purged_at < number_of(before))
            return connection.execute(shredded).rowcount

    def requests_by_id(self, requests: Collection[str]) -> Mapping[str, RequestRecord]:
        """Return requests by the ledger's own id, as far as they are known."""
        with self._reading() as connection:
            return {
                record.request: record
                for chunk in chunked(requests)
                for record in self._records(connection, select().where(request_rows.c.request.in_(chunk)))
            }

    def outlived(self, at: datetime) -> frozenset[str]:
        """Return the requests of which a snapshot was to be gone by an instant, and is not."""
        with self._reading() as connection:
            return clearings.outlived(connection, at)

    def cleared_stores(self) -> frozenset[str]:
        """Return the stores in which somebody was erased whose copies in backups are not proven gone."""
        with self._reading() as connection:
            return clearings.stores_with_clearings(connection)

    def grade(self, store: str, steps: Sequence[CopyStep]) -> frozenset[str]:
        """Note what the backups of a store still hold of everybody who was erased in it; see the port.

        What is written is what a reading has found different, for most rows are as they were.
        """
        with self._reading() as connection:
            rows = clearings.outdated(connection, store, steps)
        if not rows:
            return frozenset()
        with self._noting() as connection:
            return clearings.regrade(connection, rows)

    def cleared_between(self, store: str, since: datetime, until: datetime) -> frozenset[str]:
        """Return the requests that erased somebody in a store meanwhile; see the port."""
        with self._reading() as connection:
            return clearings.cleared_between(connection, store, since, until)

    def cleared_without(
        self, store: str, numbers: Sequence[int], since: datetime, until: datetime
    ) -> Mapping[str, datetime]:
        """Return who was cleared in a store meanwhile by none of these tombstones; see the port."""
        with self._reading() as connection:
            return clearings.cleared_without(connection, store, numbers, since, until)

    def last_cleared(self, store: str) -> datetime | None:
        """Return when somebody was cleared in a store last whom backups may hold."""
        with self._reading() as connection:
            return clearings.last_cleared(connection, store)

    def copies_left(self, requests: Collection[str]) -> Mapping[str, CopiesLeft]:
        """Return what backups hold of erased requests, as graded last; absent for one that is purged."""
        with self._reading() as connection:
            return clearings.copies_left(connection, requests)

    def purgeable(self, limit: int = 5_000) -> Sequence[str]:
        """Return erased requests, none of whose stores' backups holds them any more, as graded last."""
        with self._reading() as connection:
            return clearings.purgeable(connection, limit)

    def expired_periods(self, before: datetime) -> Mapping[str, Sequence[str]]:
        """Return the months that nothing needs any more, oldest first, with the requests that end with it."""
        with self._reading() as connection:
            return tombstone_expiry.expired_periods(connection, before, self._now())

    def forgotten_until(self, namespace: str) -> datetime | None:
        """Return when the last of those was erased whose tombstones have ended; `None`: nobody's have."""
        with self._reading() as connection:
            return tombstone_expiry.forgotten_until(connection, namespace)
