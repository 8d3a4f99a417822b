"""What follows from the facts, kept beside the chain: requests, restores, tombstones, heads, mappings.

Docs are sealed with the ledger's key, for they repeat what the chain's payloads hold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, assert_never

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, delete, insert, select, update

from lethe.adapters.ledger.chain import Entry
from lethe.adapters.ledger.clearings import (
    Clearing,
    clearings_of,
    doubt_purged,
    ending_of,
    insert_clearings,
    open_people,
    put_back,
    record_gone,
)
from lethe.adapters.ledger.database import execute_many
from lethe.adapters.ledger.docs import chunked, context, encode, unsealed
from lethe.adapters.ledger.legal_projection import LegalProjection
from lethe.adapters.ledger.request_docs import RequestDoc, request_doc, sealed_request
from lethe.adapters.ledger.schema import (
    absent_addresses,
    drills,
    episodes,
    erased_identifiers,
    mappings,
    rejoined,
    request_months,
    requests,
    store_heads,
    tombstones,
)
from lethe.adapters.ledger.snapshots import SnapshotProjection
from lethe.adapters.ledger.tombstone_expiry import end
from lethe.domain.drill_facts import DrillFact
from lethe.domain.drills import DrillRecord, evolve_drill
from lethe.domain.facts import (
    Completed,
    CopiesGone,
    Fact,
    FoundAgain,
    Intended,
    MappingProved,
    NotFound,
    Reerased,
    Rejoined,
    RequestFact,
    RestoreFact,
    SnapshotFact,
    SnapshotsSeen,
    SourceFact,
    TombstonesExpired,
    TookOver,
    Verified,
)
from lethe.domain.journal import Head, HeadMove, KnownHead, StoreIdentity
from lethe.domain.legal_facts import LegalFact
from lethe.domain.mapping import ProvedMapping
from lethe.domain.requests import IllegalTransition, StoreState, erased_again, evolve
from lethe.domain.restores import RestoreEpisode, evolve_episode
from lethe.domain.tombstones import Tombstone
from lethe.ports.keys import Keyring, record_digest
from lethe.ports.ledger import MoveNote, moved


@dataclass(slots=True)
class _Changing:
    """A request while an append changes it. `new` tells an insert from an update, `touched` that it differs
    from what is written; `changed_by` is the last entry of its own."""

    doc: RequestDoc
    new: bool
    accepted_sequence: int
    changed_by: Entry | None = None
    touched: bool = False


_decode_drill = msgspec.json.Decoder(DrillRecord).decode
_decode_episode = msgspec.json.Decoder(RestoreEpisode).decode
_decode_mapping = msgspec.json.Decoder(ProvedMapping).decode
_decode_positions = msgspec.json.Decoder(dict[str, int]).decode
_decode_identity = msgspec.json.Decoder(StoreIdentity).decode


def restore_episode(keyring: Keyring, store: str, episode: str, doc: bytes) -> RestoreEpisode:
    """Return what a row of `episodes` holds. Raises `ChainBroken`, as the next does."""
    return _decode_episode(unsealed(keyring, doc, context("episode", store, episode)))


def drill_record(keyring: Keyring, drill: str, doc: bytes) -> DrillRecord:
    """Return what a row of `drills` holds."""
    return _decode_drill(unsealed(keyring, doc, context("drill", drill)))


def proved_mapping(keyring: Keyring, store: str, version: str, doc: bytes) -> ProvedMapping:
    """Return what a row of `mappings` holds."""
    return _decode_mapping(unsealed(keyring, doc, context("mapping", store, version)))


def known_head(connection: Connection, store: str) -> KnownHead:
    """Return what is known of a store's journal; an empty `KnownHead` for a store never met."""
    query = select(store_heads).where(store_heads.c.store == store)
    row = connection.execute(query).mappings().one_or_none()
    return KnownHead() if row is None else _head_of(row)


def _head_of(row: RowMapping) -> KnownHead:
    head = pending = None
    if row["head_digest"] is not None:
        head = Head(
            row["head_move"],
            row["head_digest"],
            _decode_positions(row["head_positions"]),
            _instant(row["head_at"]),
        )
    if row["pending_digest"] is not None:
        pending = HeadMove(
            row["pending_expected"], row["pending_move"], row["pending_digest"], row["pending_token"]
        )
    return KnownHead(
        head,
        pending,
        _decode_positions(row["positions"]),
        row["last_number"],
        None if row["identity"] is None else _decode_identity(row["identity"]),
        _instant(row["settled_at"]),
    )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()


def _row_of(store: str, known: KnownHead) -> dict[str, Any]:
    head, pending = known.head, known.pending
    return {
        "store": store,
        "head_move": head and head.move,
        "head_digest": head and head.digest,
        "head_positions": encode(head.positions if head else {}).decode(),
        "pending_expected": pending and pending.expected,
        "pending_move": pending and pending.move,
        "pending_digest": pending and pending.digest,
        "pending_token": pending and pending.token,
        "positions": encode(known.positions).decode(),
        "last_number": known.last_number,
        "identity": known.identity and encode(known.identity).decode(),
        "head_at": head and _text(head.at),
        "settled_at": _text(known.settled_at),
    }


def note_moves(connection: Connection, notes: Sequence[MoveNote], now: datetime) -> None:
    """Record head moves, in the order in which they are noted. What is settled is settled `now`."""
    heads: dict[str, KnownHead] = {}
    for note in notes:
        before = heads.get(note.store) or known_head(connection, note.store)
        heads[note.store] = moved(before, note, now)
    if heads:
        connection.execute(delete(store_heads).where(store_heads.c.store.in_(heads)))
        connection.execute(insert(store_heads), [_row_of(store, known) for store, known in heads.items()])


class Projections:
    """What one append makes of the projections: loaded at first, evolved in memory, written at the end."""

    def __init__(
        self, connection: Connection, keyring: Keyring, facts: Sequence[Fact], sealing: Collection[str]
    ) -> None:
        self._connection = connection
        self._keyring = keyring
        self._requests: dict[str, _Changing] = {}
        self._episodes: dict[tuple[str, str], tuple[int, RestoreEpisode]] = {}
        self._mappings: dict[tuple[str, str], ProvedMapping] = {}
        self._drills: dict[str, DrillRecord] = {}
        self._tombstones: list[tuple[str, int, int, int]] = []
        self._erased: list[tuple[bytes, str]] = []
        self._absent: list[tuple[str, bytes, str]] = []
        self._rejoined: dict[tuple[str, int], tuple[str | None, str | None]] = {}
        self._clearings: list[Clearing] = []
        self._months: list[tuple[str, str]] = []
        self._snapshots = SnapshotProjection(connection, keyring)
        self.completed: list[str] = []
        """The requests that have ended in this append."""
        self.expired_periods: list[str] = []
        """The months whose tombstones have ended in this append."""
        changed = {fact.request for fact in facts if isinstance(fact, RequestFact)}
        self._load_requests(changed | {*sealing})
        changed_legal = {fact.legal for fact in facts if isinstance(fact, LegalFact)}
        others = {owner for owner in sealing if owner not in changed and owner not in self._requests}
        self.legal = LegalProjection(connection, keyring, changed_legal | others)

    def _load_requests(self, wanted: Collection[str]) -> None:
        columns = (requests.c.request, requests.c.accepted_sequence, requests.c.doc)
        for chunk in chunked(wanted):
            for request, accepted, doc in self._connection.execute(
                select(*columns).where(requests.c.request.in_(chunk))
            ):
                self._requests[request] = _Changing(request_doc(self._keyring, request, doc), False, accepted)

    def is_open(self, request: str) -> bool:
        """Tell whether a request is known and has not ended."""
        changing = self._requests.get(request)
        return changing is not None and changing.doc.record.open

    def take(self, entry: Entry, fact: Fact) -> None:
        """Let one entry have its effect. Raises `IllegalTransition`."""
        if isinstance(fact, RequestFact):
            self._take_request_fact(entry, fact)
        elif isinstance(fact, LegalFact):
            self.legal.take(entry, fact)
        elif isinstance(fact, RestoreFact):
            self._take_restore_fact(entry, fact)
        elif isinstance(fact, MappingProved):
            self._mappings[fact.store, fact.proved.version] = fact.proved
        elif isinstance(fact, SnapshotFact):
            began = self._snapshots.take(fact)
            if began is not None and isinstance(fact, SnapshotsSeen):
                doubt_purged(self._connection, fact.stores, began)
        elif isinstance(fact, SourceFact):
            self._snapshots.take_source(fact)
        elif isinstance(fact, DrillFact):
            self._take_drill_fact(fact)
        elif isinstance(fact, Rejoined):
            since, at = _text(fact.since), _text(fact.at)
            self._rejoined.update({(fact.store, number): (since, at) for number in fact.numbers})
        elif isinstance(fact, Reerased | CopiesGone | TombstonesExpired):
            self.write()  # these change sets of rows, and what was taken before them is among these
            self._take_fact_of_many(entry, fact)
        elif not isinstance(fact, TookOver):  # of which nothing follows
            assert_never(fact)

    def _take_fact_of_many(self, entry: Entry, fact: Reerased | CopiesGone | TombstonesExpired) -> None:
        if isinstance(fact, CopiesGone):
            record_gone(self._connection, fact)
        elif isinstance(fact, TombstonesExpired):
            end(self._connection, self._keyring, fact, now=entry.period)
            self.expired_periods.append(fact.period)
        else:
            put_back(self._connection, fact)
            if fact.episode is None:
                self._clear_again(fact)

    def _clear_again(self, fact: Reerased) -> None:
        """Note for requests that are still open that the clearing of a store was not their last one."""
        people = open_people(self._connection, fact)
        self._load_requests(set(people) - self._requests.keys())
        for request in people:
            changing = self._requests[request]
            changing.doc.record = erased_again(changing.doc.record, fact.store, fact.at)
            changing.touched = True

    def _take_request_fact(self, entry: Entry, fact: RequestFact) -> None:
        changing = self._requests.get(fact.request)
        before = changing.doc.record if changing else None
        record = evolve(before, fact)
        if changing is None:
            changing = self._requests[fact.request] = _Changing(RequestDoc(record), True, entry.sequence)
        changing.doc.record = record
        changing.changed_by = entry
        changing.touched = True
        if entry.period not in changing.doc.months:
            changing.doc.months.append(entry.period)
            self._months.append((entry.period, fact.request))
        if isinstance(fact, Intended):
            changing.doc.intents[fact.store] = entry.sequence
        elif isinstance(fact, Verified) and before is not None:
            progress = before.progress(fact.store)
            if progress.state is StoreState.INTENDED:  # else verified once more: they count already
                sequence = changing.doc.intents[fact.store]
                self._take_tombstones(fact.request, fact.store, sequence, progress.tombstones)
                self._absent += [(fact.store, digest, fact.request) for digest in progress.addresses]
        elif isinstance(fact, FoundAgain):
            self._take_tombstones(fact.request, fact.store, entry.sequence, fact.tombstones)
        elif isinstance(fact, NotFound):
            self._absent += [(fact.store, digest, fact.request) for digest in fact.addresses]
        elif isinstance(fact, Completed):
            self.completed.append(fact.request)
            self._clearings += clearings_of(record)

    def _take_tombstones(
        self, request: str, store: str, sequence: int, tombstones: Sequence[Tombstone]
    ) -> None:
        for position, tombstone in enumerate(tombstones):
            self._tombstones.append((store, tombstone.number, sequence, position))
            if tombstone.email is not None:
                self._erased.append((tombstone.email, request))
            digest = record_digest(self._keyring, store, tombstone.table, tombstone.key)
            self._erased.append((digest, request))

    def _take_drill_fact(self, fact: DrillFact) -> None:
        before = self._drills.get(fact.drill)
        if before is None:
            query = select(drills.c.doc).where(drills.c.drill == fact.drill)
            doc = self._connection.execute(query).scalar_one_or_none()
            before = None if doc is None else drill_record(self._keyring, fact.drill, doc)
        record = evolve_drill(before, fact)
        if record is not None:
            self._drills[fact.drill] = record

    def _take_restore_fact(self, entry: Entry, fact: RestoreFact) -> None:
        at = (fact.store, fact.episode)
        sequence, before = self._episodes.get(at) or self._stored_episode(at) or (entry.sequence, None)
        self._episodes[at] = (sequence, evolve_episode(before, fact))

    def _stored_episode(self, at: tuple[str, str]) -> tuple[int, RestoreEpisode] | None:
        query = select(episodes.c.detected_sequence, episodes.c.doc).where(
            episodes.c.store == at[0], episodes.c.episode == at[1]
        )
        row = self._connection.execute(query).one_or_none()
        return row and (row.detected_sequence, restore_episode(self._keyring, *at, row.doc))

    def write(self) -> None:
        """Write what has changed."""
        self._write_requests()
        self._snapshots.write()
        self.legal.write()
        execute_many(self._connection, _INSERT_TOMBSTONE, self._tombstones)
        execute_many(self._connection, _INSERT_ERASED, self._erased, then=_ERASED_ONCE_MORE)
        execute_many(self._connection, _INSERT_MONTH, self._months, then=" ON CONFLICT DO NOTHING")
        insert_clearings(self._connection, self._clearings)
        execute_many(self._connection, _INSERT_ABSENT, self._absent, then=_ABSENT_ONCE_MORE)
        rows = [(*which, *moments) for which, moments in self._rejoined.items()]
        execute_many(self._connection, _INSERT_REJOINED, rows, then=_REJOINED_ONCE_MORE)
        self._rejoined.clear()
        for written in (self._tombstones, self._erased, self._absent, self._months, self._clearings):
            written.clear()
        for (store, version), proved in self._mappings.items():
            doc = self._keyring.seal(encode(proved), context("mapping", store, version))
            where = (mappings.c.store == store) & (mappings.c.version == version)
            self._connection.execute(delete(mappings).where(where))
            self._connection.execute(insert(mappings), {"store": store, "version": version, "doc": doc})
        for drill, record in self._drills.items():
            doc = self._keyring.seal(encode(record), context("drill", drill))
            self._connection.execute(delete(drills).where(drills.c.drill == drill))
            self._connection.execute(insert(drills), {"drill": drill, "doc": doc})
        for (store, episode), (sequence, restore) in self._episodes.items():
            doc = self._keyring.seal(encode(restore), context("episode", store, episode))
            where = (episodes.c.store == store) & (episodes.c.episode == episode)
            self._connection.execute(delete(episodes).where(where))
            self._connection.execute(
                insert(episodes),
                {
                    "store": store,
                    "episode": episode,
                    "open": restore.open,
                    "detected_sequence": sequence,
                    "doc": doc,
                },
            )

    def _write_requests(self) -> None:
        new, known = [], []
        for request, changing in self._requests.items():
            if not changing.touched:
                continue
            doc, entry = changing.doc, changing.changed_by
            if entry is not None:
                digest = f"sha256:{entry.digest.hex()}"
                doc.record = replace(doc.record, sequence=entry.sequence, digest=digest)
            record, sealed_doc = doc.record, sealed_request(self._keyring, doc)
            state = (record.sequence, sealed_doc, *ending_of(record))
            if changing.new:
                names = (request, record.accepted.namespace, record.accepted.name)
                new.append((*names, record.open, changing.accepted_sequence, *state, None))
            else:
                known.append((record.open, *state, request))
            changing.new = changing.touched = False
            changing.changed_by = None
        execute_many(self._connection, _INSERT_REQUEST, new)
        execute_many(self._connection, _UPDATE_REQUEST, known)


_INSERT_TOMBSTONE = insert(tombstones)
_INSERT_ERASED = insert(erased_identifiers)
# Of the last request that erased it, so that it outlives the tombstones of the earlier ones.
_ERASED_ONCE_MORE = " ON CONFLICT (digest) DO UPDATE SET request = excluded.request"
_INSERT_ABSENT = insert(absent_addresses)
_ABSENT_ONCE_MORE = " ON CONFLICT (store, digest) DO UPDATE SET request = excluded.request"
_INSERT_REJOINED = insert(rejoined)
_REJOINED_ONCE_MORE = " ON CONFLICT (store, number) DO UPDATE SET since = excluded.since, at = excluded.at"
_INSERT_MONTH = insert(request_months)
_INSERT_REQUEST = insert(requests)
_UPDATE_REQUEST = (
    update(requests)
    .where(requests.c.request == bindparam("which"))
    .values(
        open=bindparam("now_open"),
        sequence=bindparam("now_at"),
        doc=bindparam("now_doc"),
        completed_at=bindparam("ended"),
        outcome=bindparam("how"),
    )
)


def refuse_sealing_for_ended(projections: Projections, sealing: Iterable[str]) -> None:
    """Raise `IllegalTransition` for a text that nothing would ever destroy."""
    for owner in sealing:
        if owner in projections.legal:
            if not projections.legal.has_notice_pending(owner):
                raise IllegalTransition(f"a text is to be sealed for {owner}, of which nobody is to be told")
        elif not projections.is_open(owner) and owner not in projections.completed:
            raise IllegalTransition(f"a text is to be sealed for request {owner}, which is not open")
