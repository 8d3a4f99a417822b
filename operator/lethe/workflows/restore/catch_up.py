"""A mapping that clears more than the one by which people were erased: they are caught up with.

What was erased under an earlier version is counted as the present one would have it; cleared so once a person
has confirmed; and, when nothing is left, recorded as meaning so from then on, in every sweep and replay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from lethe.domain.facts import Fact, MappingProved
from lethe.domain.legal import Holds
from lethe.domain.mapping import ProvedMapping
from lethe.domain.tombstones import Tombstone, undecided
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.episode import judge_restored_rows
from lethe.workflows.restore.re_erase import held_numbers, re_erase
from lethe.workflows.store_session import CatchUp, StoreSession

AT_ONCE = 20_000
"""Tombstones of one pass, so that requests and looks have their turn, and the status its progress."""


def count_catch_up(session: StoreSession, context: PassContext) -> bool:
    """Count who was erased before the mapping was widened and stands uncleared by it.

    Tell whether that is nobody any more, so that earlier versions mean the same from now on.
    """
    wider = session.proof.widened if session.proof else {}
    session.note_catch_up(None)
    if not wider:
        return False
    residue = session.port.check(
        _of_earlier(context.ledger.tombstones(session.name), wider),
        judge_restored_rows(session, context, undecided),
    )
    if residue.uncleared or residue.unclear:
        left = frozenset(residue.uncleared)
        chunks = _of_earlier(context.ledger.tombstones(session.name, chunk=AT_ONCE), wider)
        session.note_catch_up(CatchUp(left, residue.unclear, chunks))
        return False
    facts: list[Fact] = [
        MappingProved(session.name, replace(proved, version=version)) for version, proved in wider.items()
    ]
    context.ledger.append(facts)
    return True


def carry_on(session: StoreSession, context: PassContext, holds: Holds) -> None:
    """Clear the next of them, if a person has confirmed this version. Whom a hold preserves stays."""
    catch_up, proof = session.catch_up, session.proof
    if catch_up is None or proof is None or session.description.catch_up != proof.proved.version:
        return
    chunk = next(catch_up.chunks, None)
    if chunk is None:
        if catch_up.cleared:
            session.want_sweep()  # it counts anew
        return
    wanted = [one for one in chunk if one.number in catch_up.left]
    held = held_numbers(session, holds, wanted)
    free = [one for one in wanted if one.number not in held]
    if free:
        re_erase(session, context, free, episode=None, exclusive=False)
        catch_up.note_cleared(one.number for one in free)


def _of_earlier(
    chunks: Iterator[Sequence[Tombstone]], wider: Mapping[str, ProvedMapping]
) -> Iterator[list[Tombstone]]:
    for chunk in chunks:
        yield [replace(one, mapping=wider[one.mapping].version) for one in chunk if one.mapping in wider]
