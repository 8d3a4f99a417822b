"""Stores that belong to somebody else: nothing is ever sent to them, and a request says so of each."""

from __future__ import annotations

from collections.abc import Sequence

from lethe.domain.facts import NotAsked
from lethe.domain.requests import RequestRecord
from lethe.workflows.pass_context import PassContext


def not_asked(records: Sequence[RequestRecord], store: str, context: PassContext) -> Sequence[RequestRecord]:
    """Record that a store (`namespace/name`) is not asked for requests; return for which that is new."""
    waiting = [record for record in records if not record.progress(store).state.settled]
    if waiting:
        context.ledger.append([NotAsked(record.request, store) for record in waiting])
    return waiting
