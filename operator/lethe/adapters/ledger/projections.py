"""What follows from the facts, kept beside the chain: requests, restores, tombstones, heads, mappings.

Docs are sealed with the ledger's key, for they repeat what the chain's payloads hold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, delete, insert, select, update

from lethe.adapters.ledger.chain import Entry
from lethe.adapters.ledger.database import execute_many
from lethe.adapters.ledger.schema import (
    episodes,
    erased_identifiers,
    mappings,
    requests,
    store_heads,
    tombstones,
)
from lethe.domain.facts import (
    REQUEST_FACTS,
    RESTORE_FACTS,
    Completed,
    Fact,
    Intended,
    MappingProved,
    RequestFact,
    RestoreFact,
    Verified,
)
from lethe.domain.journal import Head, HeadMove, KnownHead, StoreIdentity, merged_positions
from lethe.domain.mapping import ProvedMapping
from lethe.domain.requests import IllegalTransition, RequestRecord, StoreState, evolve
from lethe.domain.restores import RestoreEpisode, evolve_episode
from lethe.ports.keys import Keyring, SealBroken, record_digest
from lethe.ports.ledger import ChainBroken, MoveIntended, MoveNote, MoveSettled

_T = TypeVar("_T")

IN_ONE_QUERY = 5_000
"""How many values go into one IN list; SQLite takes 32,766 parameters, PostgreSQL 65,535."""


def portions(values: Iterable[_T]) -> Iterator[Sequence[_T]]:
    """Yield the values in lists that fit into one query."""
    listed = list(values)
    for start in range(0, len(listed), IN_ONE_QUERY):
        yield listed[start : start + IN_ONE_QUERY]


@dataclass(slots=True)
class RequestDoc:
    """A request's record, with the sequences of its `Intended` entries by store."""

    record: RequestRecord
    intents: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Changing:
    """A request while an append changes it. `new` tells an insert from an update."""

    doc: RequestDoc
    new: bool
    accepted_sequence: int
    changed_by: Entry | None = None


_encode = msgspec.json.Encoder().encode
_decode_request = msgspec.json.Decoder(RequestDoc).decode
_decode_episode = msgspec.json.Decoder(RestoreEpisode).decode
_decode_mapping = msgspec.json.Decoder(ProvedMapping).decode
_decode_positions = msgspec.json.Decoder(dict[str, int]).decode
_decode_identity = msgspec.json.Decoder(StoreIdentity).decode


def request_doc(keyring: Keyring, request: str, doc: bytes) -> RequestDoc:
    """Return what a row of `requests` holds. Raises `ChainBroken`, as the next two do."""
    return _decode_request(_unsealed(keyring, doc, _context("request", request)))


def restore_episode(keyring: Keyring, store: str, episode: str, doc: bytes) -> RestoreEpisode:
    """Return what a row of `episodes` holds."""
    return _decode_episode(_unsealed(keyring, doc, _context("episode", store, episode)))


def proved_mapping(keyring: Keyring, store: str, version: str, doc: bytes) -> ProvedMapping:
    """Return what a row of `mappings` holds."""
    return _decode_mapping(_unsealed(keyring, doc, _context("mapping", store, version)))


def known_head(connection: Connection, store: str) -> KnownHead:
    """Return what is known of a store's journal; an empty `KnownHead` for a store never met."""
    query = select(store_heads).where(store_heads.c.store == store)
    row = connection.execute(query).mappings().one_or_none()
    return KnownHead() if row is None else _head_of(row)


def _head_of(row: RowMapping) -> KnownHead:
    head = pending = None
    if row["head_digest"] is not None:
        head = Head(row["head_move"], row["head_digest"], _decode_positions(row["head_positions"]))
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
    )


def _row_of(store: str, known: KnownHead) -> dict[str, Any]:
    head, pending = known.head, known.pending
    return {
        "store": store,
        "head_move": head and head.move,
        "head_digest": head and head.digest,
        "head_positions": _encode(head.positions if head else {}).decode(),
        "pending_expected": pending and pending.expected,
        "pending_move": pending and pending.move,
        "pending_digest": pending and pending.digest,
        "pending_token": pending and pending.token,
        "positions": _encode(known.positions).decode(),
        "last_number": known.last_number,
        "identity": known.identity and _encode(known.identity).decode(),
    }


def note_moves(connection: Connection, notes: Sequence[MoveNote]) -> None:
    """Record head moves, in the order in which they are noted."""
    heads: dict[str, KnownHead] = {}
    for note in notes:
        before = heads.get(note.store) or known_head(connection, note.store)
        heads[note.store] = _moved(before, note)
    if heads:
        connection.execute(delete(store_heads).where(store_heads.c.store.in_(heads)))
        connection.execute(insert(store_heads), [_row_of(store, known) for store, known in heads.items()])


def _moved(known: KnownHead, note: MoveNote) -> KnownHead:
    if isinstance(note, MoveIntended):
        return replace(known, pending=note.move, last_number=known.last_number + note.reserve)
    if isinstance(note, MoveSettled):
        return replace(
            known,
            head=note.head,
            pending=None,
            positions=merged_positions(known.positions, note.head.positions),
            identity=note.identity or known.identity,
        )
    return replace(known, pending=None)


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
        self._tombstones: list[tuple[str, int, int, int]] = []
        self._erased: list[tuple[bytes, str]] = []
        self.completed: list[str] = []
        """The requests that have ended in this append."""
        self._load_requests({fact.request for fact in facts if isinstance(fact, REQUEST_FACTS)} | {*sealing})

    def _load_requests(self, wanted: Collection[str]) -> None:
        columns = (requests.c.request, requests.c.accepted_sequence, requests.c.doc)
        for some in portions(wanted):
            for request, accepted, doc in self._connection.execute(
                select(*columns).where(requests.c.request.in_(some))
            ):
                self._requests[request] = _Changing(request_doc(self._keyring, request, doc), False, accepted)

    def is_open(self, request: str) -> bool:
        """Tell whether a request is known and has not ended."""
        changing = self._requests.get(request)
        return changing is not None and changing.doc.record.open

    def take(self, entry: Entry, fact: Fact) -> None:
        """Let one entry have its effect. Raises `IllegalTransition`."""
        if isinstance(fact, REQUEST_FACTS):
            self._take_request_fact(entry, fact)
        elif isinstance(fact, RESTORE_FACTS):
            self._take_restore_fact(entry, fact)
        elif isinstance(fact, MappingProved):
            self._mappings[fact.store, fact.proved.version] = fact.proved

    def _take_request_fact(self, entry: Entry, fact: RequestFact) -> None:
        changing = self._requests.get(fact.request)
        before = changing.doc.record if changing else None
        record = evolve(before, fact)
        if changing is None:
            changing = self._requests[fact.request] = _Changing(RequestDoc(record), True, entry.sequence)
        changing.doc.record = record
        changing.changed_by = entry
        if isinstance(fact, Intended):
            changing.doc.intents[fact.store] = entry.sequence
        elif isinstance(fact, Verified) and before is not None:
            self._take_tombstones(before, fact, changing.doc.intents)
        elif isinstance(fact, Completed):
            self.completed.append(fact.request)

    def _take_tombstones(self, before: RequestRecord, fact: Verified, intents: dict[str, int]) -> None:
        progress = before.progress(fact.store)
        if progress.state is not StoreState.INTENDED:
            return  # verified once more: they count already
        for position, tombstone in enumerate(progress.tombstones):
            self._tombstones.append((fact.store, tombstone.number, intents[fact.store], position))
            if tombstone.email is not None:
                self._erased.append((tombstone.email, fact.request))
            digest = record_digest(self._keyring, fact.store, tombstone.table, tombstone.key)
            self._erased.append((digest, fact.request))

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
        execute_many(self._connection, _INSERT_TOMBSTONE, self._tombstones)
        execute_many(self._connection, _INSERT_ERASED, self._erased, then=" ON CONFLICT (digest) DO NOTHING")
        for (store, version), proved in self._mappings.items():
            doc = self._keyring.seal(_encode(proved), _context("mapping", store, version))
            where = (mappings.c.store == store) & (mappings.c.version == version)
            self._connection.execute(delete(mappings).where(where))
            self._connection.execute(insert(mappings), {"store": store, "version": version, "doc": doc})
        for (store, episode), (sequence, restore) in self._episodes.items():
            doc = self._keyring.seal(_encode(restore), _context("episode", store, episode))
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
            entry = changing.changed_by
            if entry is None:
                continue
            doc = changing.doc
            digest = f"sha256:{entry.digest.hex()}"
            record = doc.record = replace(doc.record, sequence=entry.sequence, digest=digest)
            sealed_doc = self._keyring.seal(_encode(doc), _context("request", request))
            if changing.new:
                names = (request, record.accepted.namespace, record.accepted.name)
                new.append((*names, record.open, changing.accepted_sequence, entry.sequence, sealed_doc))
            else:
                known.append((record.open, entry.sequence, sealed_doc, request))
        execute_many(self._connection, _INSERT_REQUEST, new)
        execute_many(self._connection, _UPDATE_REQUEST, known)


_INSERT_TOMBSTONE = insert(tombstones)
_INSERT_ERASED = insert(erased_identifiers)
_INSERT_REQUEST = insert(requests)
_UPDATE_REQUEST = (
    update(requests)
    .where(requests.c.request == bindparam("which"))
    .values(open=bindparam("now_open"), sequence=bindparam("now_at"), doc=bindparam("now_doc"))
)


def refuse_sealing_for_ended(projections: Projections, sealing: Iterable[str]) -> None:
    """Raise `IllegalTransition` for a text that nothing would ever destroy."""
    for request in sealing:
        if not projections.is_open(request) and request not in projections.completed:
            raise IllegalTransition(f"a text is to be sealed for request {request}, which is not open")


def _context(kind: str, *names: str) -> str:
    return ":".join((kind, *(f"{len(name)}:{name}" for name in names)))


def _unsealed(keyring: Keyring, doc: bytes, context: str) -> bytes:
    try:
        return keyring.unseal(doc, context)
    except SealBroken:
        raise ChainBroken("A doc beside the chain was changed.") from None
