"""What the ledger knows of legal requests, read again whenever something may have been recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from lethe.controllers.legalrequest_status import LegalRequestStatus
from lethe.controllers.runtime.cache import ObjectCache, ObjectKey
from lethe.domain.legal import LegalRecord
from lethe.domain.legal_facts import LegalFact, Reminded
from lethe.ports.ledger import Ledger

TURN_SECONDS = 5.0
"""How often it is looked whether something has become due that nobody rings for."""


def until_next_turn() -> float:
    """Return the seconds until the next turn: all that is open is looked at together, by one read."""
    return TURN_SECONDS - time.monotonic() % TURN_SECONDS


class LegalRecords:
    """The records of legal requests, in the cache; what became of a letter is an Event once it is seen."""

    def __init__(self, cache: ObjectCache, ledger: Ledger, status: LegalRequestStatus) -> None:
        self._cache, self._ledger, self._status = cache, ledger, status

    async def load(self) -> Collection[LegalRecord]:
        """Read all that there are, at the start."""
        for record in await asyncio.to_thread(self._ledger.legal_requests):
            self._cache.legal_records[record.key] = record
        return self._cache.legal_records.values()

    async def refresh(self, keys: Collection[ObjectKey]) -> list[LegalRecord]:
        """Read what has become of some, and return those that the ledger knows."""
        for record in (await asyncio.to_thread(self._ledger.legal_named, keys)).values():
            await self.note(record)
        known = self._cache.legal_records
        return [known[key] for key in keys if key in known]

    async def note(self, record: LegalRecord) -> None:
        """Take notice of a record that was read, unless a newer one was meanwhile."""
        known = self._cache.legal_records.get(record.key)
        if known is not None and known.sequence > record.sequence:
            return
        self._cache.legal_records[record.key] = record
        if known is not None:
            await self._status.record_events(record, letters_settled_since(known, record))


def letters_settled_since(before: LegalRecord, record: LegalRecord) -> list[LegalFact]:
    """Return what came of letters between two looks at a legal request, and whether a person was reminded."""
    facts: list[LegalFact] = []
    for to, letter in record.letters.items():
        known = before.letters.get(to)
        if letter.settled is not None and (known is None or known.settled != letter.settled):
            facts.append(letter.settled)
    if record.reminded_at is not None and record.reminded_at != before.reminded_at:
        facts.append(Reminded(record.legal, record.reminded_at))
    return facts
