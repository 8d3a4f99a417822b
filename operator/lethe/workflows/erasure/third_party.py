"""Stores that belong to somebody else: nothing is ever sent to them, and a request says so of each."""

from __future__ import annotations

from collections.abc import Sequence

from lethe.domain.facts import NotAsked
from lethe.domain.requests import RequestRecord
from lethe.workflows.pass_context import PassContext


def not_asked(records: Sequence[RequestRecord], store: str, context: PassContext) -> Sequence[RequestRecord]:
    """Record that a store (`namespace/name`) is not asked for requests; return for which that is new.

    So it ends also where an erasure had begun before the store was given up: nobody will see any more whether
    it was carried out, and the request says so (`UNCONFIRMED`).
    """
    waiting = [record for record in records if not record.progress(store).state.settled]
    if waiting:  # as the ledger knows them now: a pass may have ended in between
        names = {(one.accepted.namespace, one.accepted.name) for one in waiting}
        known = context.ledger.requests_named(names).values()
        waiting = [one for one in known if one.open and not one.progress(store).state.settled]
    if waiting:
        context.ledger.append([NotAsked(record.request, store) for record in waiting])
    return waiting
