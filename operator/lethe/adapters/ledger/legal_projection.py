"""Legal requests: what the facts about them have made of each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select, update

from lethe.adapters.ledger.chain import Entry
from lethe.adapters.ledger.database import execute_many
from lethe.adapters.ledger.docs import chunked, context, encode, unsealed
from lethe.adapters.ledger.schema import legal_requests
from lethe.domain.legal import LegalRecord, evolve_legal
from lethe.domain.legal_facts import LegalFact
from lethe.ports.keys import Keyring

_decode = msgspec.json.Decoder(LegalRecord).decode


def legal_record(keyring: Keyring, legal: str, doc: bytes) -> LegalRecord:
    """Return what a row of `legal_requests` holds. Raises `ChainBroken`."""
    return _decode(unsealed(keyring, doc, context("legal", legal)))


def oldest_open_period(connection: Connection) -> str | None:
    """Return the month in which the first open legal request was registered; `None`: none is open."""
    query = select(func.min(legal_requests.c.period)).where(legal_requests.c.open.is_(True))
    period: str | None = connection.execute(query).scalar_one()
    return period


@dataclass(slots=True)
class _Changing:
    """A legal request while an append changes it. `registered` is its first entry if that is of this append
    and not written yet, `changed_by` the last entry of its own that is not written yet."""

    record: LegalRecord
    registered: Entry | None = None
    changed_by: Entry | None = None


class LegalProjection:
    """What one append makes of legal requests; `wanted` are those that it may change or seal a text for."""

    def __init__(self, connection: Connection, keyring: Keyring, wanted: Collection[str]) -> None:
        self._connection = connection
        self._keyring = keyring
        self._known: dict[str, _Changing] = {}
        self._changed: set[str] = set()
        for chunk in chunked(wanted):
            query = select(legal_requests.c.legal, legal_requests.c.doc)
            for legal, doc in connection.execute(query.where(legal_requests.c.legal.in_(chunk))):
                self._known[legal] = _Changing(legal_record(keyring, legal, doc))

    def __contains__(self, legal: str) -> bool:
        """Tell whether this is a legal request that was registered."""
        return legal in self._known

    def has_notice_pending(self, legal: str) -> bool:
        """Tell whether the user has still to be told of a known legal request."""
        return not self._known[legal].record.notified

    @property
    def notified(self) -> list[str]:
        """Return the legal requests of this append of which nothing is left to be told."""
        return [legal for legal in self._changed if self._known[legal].record.notified]

    def take(self, entry: Entry, fact: LegalFact) -> None:
        """Let one entry have its effect. Raises `IllegalTransition`."""
        changing = self._known.get(fact.legal)
        record = evolve_legal(changing.record if changing else None, fact)
        if changing is None:
            changing = self._known[fact.legal] = _Changing(record, registered=entry)
        changing.record, changing.changed_by = record, entry
        self._changed.add(fact.legal)

    def write(self) -> None:
        """Write what has changed."""
        new, known = [], []
        for legal, changing in self._known.items():
            entry, first = changing.changed_by, changing.registered
            if entry is None:
                continue
            digest = f"sha256:{entry.digest.hex()}"
            record = changing.record = replace(changing.record, sequence=entry.sequence, digest=digest)
            doc = self._keyring.seal(encode(record), context("legal", legal))
            if first is not None:
                new.append((legal, *record.key, record.open, first.sequence, first.period, doc))
            else:
                known.append((record.open, doc, legal))
            changing.registered = changing.changed_by = None
        execute_many(self._connection, _INSERT, new)
        execute_many(self._connection, _UPDATE, known)


_INSERT = insert(legal_requests)
_UPDATE = (
    update(legal_requests)
    .where(legal_requests.c.legal == bindparam("which"))
    .values(open=bindparam("now_open"), doc=bindparam("now_doc"))
)
