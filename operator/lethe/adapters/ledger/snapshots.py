"""Backup sources and snapshots: what the facts about them have made of each."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection, delete, insert, select

from lethe.adapters.ledger.database import execute_many
from lethe.adapters.ledger.docs import chunked, context, encode, number_of, unsealed
from lethe.adapters.ledger.schema import snapshots, sources
from lethe.domain.facts import (
    RewriteIntended,
    SnapshotDeclared,
    SnapshotFact,
    SnapshotRewritten,
    SnapshotsSeen,
    SourceFact,
    SourceSucceeded,
)
from lethe.domain.snapshots import (
    SnapshotRecord,
    SourceRecord,
    evolve_snapshots,
    evolve_source,
    seen_in,
    succeeded,
)
from lethe.ports.keys import Keyring

_decode_source = msgspec.json.Decoder(SourceRecord).decode
_decode_snapshot = msgspec.json.Decoder(SnapshotRecord).decode


def source_record(keyring: Keyring, source: str, doc: bytes) -> SourceRecord:
    """Return what a row of `sources` holds. Raises `ChainBroken`, as the next does."""
    return _decode_source(unsealed(keyring, doc, context("source", source)))


def snapshot_record(keyring: Keyring, source: str, ref: str, doc: bytes) -> SnapshotRecord:
    """Return what a row of `snapshots` holds."""
    return _decode_snapshot(unsealed(keyring, doc, context("snapshot", source, ref)))


def newest_sight(connection: Connection, keyring: Keyring) -> datetime | None:
    """Return when a listing showed something new last, in any source."""
    records = [source_record(keyring, row.source, row.doc) for row in connection.execute(select(sources))]
    return max((record.seen_at for record in records if record.seen_at is not None), default=None)


class SnapshotProjection:
    """What one append makes of sources and snapshots; loads only those that its facts name."""

    def __init__(self, connection: Connection, keyring: Keyring) -> None:
        self._connection = connection
        self._keyring = keyring
        self._sources: dict[str, SourceRecord] = {}
        self._loaded: dict[str, set[str]] = {}
        self._known: dict[str, dict[str, SnapshotRecord]] = {}
        self._changed: dict[tuple[str, str], SnapshotRecord] = {}

    def take_source(self, fact: SourceFact) -> None:
        """Let a fact about a source have its effect."""
        if isinstance(fact, SourceSucceeded):
            self._succeed(fact)
            return
        self._sources[fact.source] = evolve_source(self._source(fact.source), fact)

    def _succeed(self, fact: SourceSucceeded) -> None:
        self.write()  # what was taken before is among what is read now
        of_before = snapshots.c.source == fact.before
        rows = self._connection.execute(select(snapshots.c.ref, snapshots.c.doc).where(of_before)).all()
        known = self._load(fact.source, [ref for ref, _ in rows])
        for ref, doc in rows:
            before = snapshot_record(self._keyring, fact.before, ref, doc)
            known[ref] = self._changed[fact.source, ref] = succeeded(before, known.get(ref), fact.source)
        self._connection.execute(delete(snapshots).where(of_before))
        self._known.pop(fact.before, None)
        self._loaded.pop(fact.before, None)

    def _source(self, source: str) -> SourceRecord | None:
        if source in self._sources:
            return self._sources[source]
        row = self._connection.execute(select(sources).where(sources.c.source == source)).first()
        return source_record(self._keyring, row.source, row.doc) if row else None

    def take(self, fact: SnapshotFact) -> datetime | None:
        """Let a fact about snapshots have its effect.

        Returns when the first of those began of which nobody had known until now, or that somebody has put
        back as they were before they were rewritten; `None`: there are none.
        """
        source = self._source(fact.source) if isinstance(fact, SnapshotsSeen | RewriteIntended) else None
        if source is not None:
            # From here on no erasure is dated before what a snapshot was cleaned until.
            seen = max(fact.at, fact.cleaned_until) if isinstance(fact, RewriteIntended) else fact.at
            self._sources[fact.source] = seen_in(source, seen)
        known = self._load(fact.source, _refs_of(fact))
        turned_up = []
        for ref, record in evolve_snapshots(known, fact).items():
            before = known.get(ref)
            back = before is not None and before.rewrite is not None and record.rewrite is None
            if record.pieces and (before is None or not before.live or back):
                turned_up.append(source.beginning_of(record) if source else record.began_at(timedelta(0)))
            known[ref] = self._changed[fact.source, ref] = record
        return min(turned_up, default=None)

    def _load(self, source: str, refs: Collection[str]) -> dict[str, SnapshotRecord]:
        known, loaded = self._known.setdefault(source, {}), self._loaded.setdefault(source, set())
        for chunk in chunked(set(refs) - loaded):
            query = select(snapshots.c.ref, snapshots.c.doc)
            wanted = query.where(snapshots.c.source == source, snapshots.c.ref.in_(chunk))
            for ref, doc in self._connection.execute(wanted):
                known[ref] = snapshot_record(self._keyring, source, ref, doc)
        loaded.update(refs)
        return known

    def write(self) -> None:
        """Write what has changed."""
        described = [
            (source, self._keyring.seal(encode(record), context("source", source)))
            for source, record in self._sources.items()
        ]
        execute_many(self._connection, _INSERT_SOURCE, described, then=_REPLACE_SOURCE)
        seen = [
            (
                source,
                ref,
                record.purged_at and number_of(record.purged_at),
                self._keyring.seal(encode(record), context("snapshot", source, ref)),
            )
            for (source, ref), record in self._changed.items()
        ]
        execute_many(self._connection, _INSERT_SNAPSHOT, seen, then=_REPLACE_SNAPSHOT)
        self._sources.clear()
        self._changed.clear()


def _refs_of(fact: SnapshotFact) -> list[str]:
    if isinstance(fact, SnapshotsSeen):
        return [seen.ref for seen in fact.listed]
    if isinstance(fact, SnapshotDeclared | RewriteIntended | SnapshotRewritten):
        return [fact.ref]
    return list(fact.refs)


_INSERT_SOURCE = insert(sources)
_REPLACE_SOURCE = " ON CONFLICT (source) DO UPDATE SET doc = excluded.doc"
_INSERT_SNAPSHOT = insert(snapshots)
_REPLACE_SNAPSHOT = (
    " ON CONFLICT (source, ref) DO UPDATE SET doc = excluded.doc, purged_at = excluded.purged_at"
)
