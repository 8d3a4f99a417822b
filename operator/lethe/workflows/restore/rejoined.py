"""Who was erased and has come back herself, in her own row, as a person says in `spec.rejoined`."""

from __future__ import annotations

from lethe.domain.facts import Rejoined
from lethe.domain.tombstones import Tombstone
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import Rejoining, StoreSession


def remember_rejoined(session: StoreSession, context: PassContext) -> None:
    """Record who has come back by her own will: what was erased before is no reason to erase her again.

    What was asked for after her consent counts on. To be asked of a store that has not gone back.
    """
    now = context.clock()
    said = {(one.table, one.key): one for one in session.description.rejoined if one.since <= now}
    session.note_rejoined_in_vain(())
    if not said:
        return
    erased: dict[Rejoining, list[Tombstone]] = {one: [] for one in said.values()}
    for chunk in context.ledger.tombstones(session.name):
        for tombstone in chunk:
            one = said.get((tombstone.table, tombstone.key))
            if one is not None:
                erased[one].append(tombstone)
    known = context.ledger.rejoined(session.name)
    wanted = {tombstone.request for found in erased.values() for tombstone in found}
    records, facts, in_vain = context.ledger.requests_by_id(wanted), list[Rejoined](), []
    for one, found in erased.items():
        before = [each for each in found if records[each.request].accepted.accepted_at < one.since]
        if len(before) < len(found) or not found:
            in_vain.append((one.table, one.key))
        fresh = tuple(
            each.number for each in before if each.number not in known or known[each.number][0] < one.since
        )
        if fresh:
            facts.append(Rejoined(session.name, one.table, one.key, one.since, now, one.because, fresh))
            session.forget_written_back((one.table, one.key))
    if facts:
        context.ledger.append(facts)
    session.note_rejoined_in_vain(in_vain)
