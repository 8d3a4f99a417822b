"""By which identifiers a request is searched for in a store, and whether they still mean whom they meant."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lethe.domain.identifiers import Identifier, IdentifierKind, PersonalText
from lethe.domain.requests import RequestRecord, StoreState
from lethe.domain.restores import RestoreEpisode
from lethe.domain.trust import Blocker, blocker_of_key, key_in_doubt
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import StoreSession


def sealed_identifiers(identifiers: Sequence[Identifier]) -> bytes:
    """Return the plain text that is sealed for a request: its identifiers by kind."""
    by_kind: dict[str, list[str]] = {}
    for identifier in identifiers:
        by_kind.setdefault(identifier.kind.value, []).append(identifier.value.reveal())
    return json.dumps(by_kind, sort_keys=True).encode()


def unsealed_identifiers(plaintext: bytes) -> tuple[Identifier, ...]:
    """Return the identifiers that were sealed for a request."""
    return tuple(
        Identifier(IdentifierKind(kind), PersonalText(value))
        for kind, values in json.loads(plaintext).items()
        for value in values
    )


@dataclass(frozen=True, slots=True)
class KeysOfPrimary:
    """The Primary's keys link the stores, and a restore of it may give them out again.

    `primary` is its name, `table` where they stand (`None`: no Primary yet), `episodes` are its restores.
    """

    primary: str | None
    table: str | None
    episodes: Sequence[RestoreEpisode]

    @classmethod
    def read(cls, context: PassContext, primary: str | None) -> KeysOfPrimary:
        """Read from the ledger what is known of them."""
        if primary is None:
            return cls(None, None, ())
        tables = [proved.mapping.table for proved in context.ledger.mappings(primary).values()]
        return cls(primary, tables[-1] if tables else None, context.ledger.episodes(store=primary))

    def identifiers_of(
        self, session: StoreSession, record: RequestRecord, sealed: bytes | None
    ) -> tuple[Identifier, ...]:
        """Return what a request is searched by in a store.

        In the Primary a linked key that a restore may have given out again is left out: the address that
        the request names tells whom it means.
        """
        known = unsealed_identifiers(sealed) if sealed else ()
        if session.is_primary:
            known = tuple(
                one
                for one in known
                if one.kind is not IdentifierKind.PRIMARY_KEY or not self._in_doubt(record, one.value)
            )
        if record.accepted.subject_id is not None:
            by_id = Identifier(IdentifierKind.PRIMARY_KEY, PersonalText(record.accepted.subject_id))
            known = tuple(dict.fromkeys((*known, by_id)))
        return known

    def _in_doubt(self, record: RequestRecord, key: PersonalText) -> bool:
        noted_at = record.accepted.accepted_at
        return key_in_doubt(key.reveal(), noted_at, self.episodes, table=self.table or "")[0]

    def _noted_at(self, record: RequestRecord) -> datetime:
        """Return as of when a request's key means its person: since the Primary was seen to be clear of her.

        Before that, who asks by id has looked the key up before the request reached the ledger.
        """
        progress = record.progress(self.primary) if self.primary is not None else None
        if progress is not None and progress.state is StoreState.VERIFIED and progress.at is not None:
            return progress.at
        return min(record.accepted.requested_at, record.accepted.accepted_at)

    def blocker(
        self, session: StoreSession, record: RequestRecord, identifiers: Sequence[Identifier]
    ) -> Blocker | None:
        """Decide whether the keys by which a store was searched may be followed."""
        keys = {record.accepted.subject_id} if session.is_primary else set()
        if session.description.needs_primary_key:
            keys |= {i.value.reveal() for i in identifiers if i.kind is IdentifierKind.PRIMARY_KEY}
        asked_at = self._noted_at(record)
        for key in sorted(key for key in keys if key is not None):
            blocker = blocker_of_key(
                key, asked_at, self.episodes, table=self.table or "", confirmed=record.confirmed
            )
            if blocker is not None:
                return blocker
        return None
