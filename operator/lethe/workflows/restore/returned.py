"""Whom a restore brought back although the store had not held them when their requests asked for them."""

from __future__ import annotations

from lethe.domain.facts import FoundAgain
from lethe.domain.requests import RequestRecord, StoreState
from lethe.domain.restores import RestoreEpisode, given_out_again
from lethe.domain.snapshots import CLOCK_SKEW
from lethe.domain.tombstones import Tombstone
from lethe.ports.keys import record_digest
from lethe.ports.stores import FoundRecord
from lethe.workflows.journal_head import allot
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import StoreSession


def remember_returned(session: StoreSession, episode: RestoreEpisode, context: PassContext) -> None:
    """Let those count as erased from now on who were not there when they were asked for, and are by now.

    Somebody had deleted her own row before she asked, say, and the restored copy is older. She is known by
    the fingerprint of her address. Raises `StoreUnreachable`.
    """
    absent = context.ledger.absent_addresses(session.name)
    if not absent or session.journaled is None:
        return
    found: dict[bytes, list[FoundRecord]] = {}
    for chunk in session.journaled.addresses():
        for one in chunk:
            digest = session.fingerprints.email(one.email.reveal()) if one.email is not None else b""
            if digest in absent:
                found.setdefault(digest, []).append(one)
    records = context.ledger.requests_by_id({absent[digest] for digest in found})
    signed_up_since = given_out_again([episode])
    last_number = number = context.ledger.known_head(session.name).last_number
    facts: list[FoundAgain] = []
    for digest, there in found.items():
        record = records[absent[digest]]
        rows = [
            one
            for one in there
            if not signed_up_since(one.table, one.key) and not _is_known(session, context, one, record)
        ]
        tombstones: list[Tombstone] = []
        if not record.open:
            sure = len(there) == 1 and _came_with_the_copy(session, episode, there[0], record)
            for row in rows:
                number += 1
                tombstones.append(_tombstone(session, number, row, record, sure=sure))
        if rows:
            facts.append(FoundAgain(record.request, session.name, context.clock(), tuple(tombstones)))
    if facts:
        reserved = number - last_number
        context.ledger.append(facts, moves=allot(session, context, reserved) if reserved else ())


def _is_known(session: StoreSession, context: PassContext, row: FoundRecord, record: RequestRecord) -> bool:
    """Tell whether the request has a tombstone for the row already, or looks for her anyway."""
    if record.open and record.progress(session.name).state is not StoreState.NOT_FOUND:
        return True
    digest = record_digest(context.keyring, session.name, row.table, row.key)
    return context.ledger.who_erased([digest]).get(digest) == record.request


def _came_with_the_copy(
    session: StoreSession, episode: RestoreEpisode, row: FoundRecord, record: RequestRecord
) -> bool:
    """Tell whether a row is of the time before the store was asked, as the whole copy is.

    Else she may have signed up anew after her request, and a person decides.
    """
    asked_at, position = record.progress(session.name).at, episode.position_of(row.table)
    if episode.back_to is None or asked_at is None or position is None:
        return False
    return episode.back_to + CLOCK_SKEW < asked_at and row.key.isdecimal()


def _tombstone(
    session: StoreSession, number: int, row: FoundRecord, record: RequestRecord, *, sure: bool
) -> Tombstone:
    """Return the tombstone of a row; one without fingerprints asks a person whose it is."""
    assert session.proof is not None  # noqa: S101 - a store that is not proved is not replayed
    prints, email = session.fingerprints, row.email
    return Tombstone(
        number=number,
        request=record.request,
        table=row.table,
        key=row.key,
        mapping=session.proof.proved.version,
        created_at=prints.created_at(row.created_at) if sure and row.created_at is not None else None,
        email=prints.email(email.reveal()) if sure and email is not None else None,
    )
