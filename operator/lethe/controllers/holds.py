"""When a legal hold has taken effect: what had begun before it was placed has ended."""

from __future__ import annotations

import time

from lethe.controllers.runtime.cache import ObjectCache, ObjectKey
from lethe.domain.legal import LegalRecord


class HoldEffects:
    """Tells of each hold whether it has taken effect; since when it is seen here, only this process knows."""

    def __init__(self, cache: ObjectCache) -> None:
        self._cache = cache
        self._placed: dict[ObjectKey, tuple[object, float]] = {}

    def has_taken_effect(self, record: LegalRecord) -> bool:
        """Tell whether nothing can erase any more what is held: whatever had begun before has ended.

        What begins after the hold was first seen here reads all of it. What an earlier process had begun has
        ended in a store, or is refused there, once this one has visited it.
        """
        hold, namespace = record.hold, record.registered.namespace
        if hold is None or not hold.active:
            self._placed.pop(record.key, None)
            return False
        if hold.effective_at is not None or record.resolved_at is None:
            return False
        since = self._seen_since(record)
        stores = self._cache.stores_of(namespace)
        if not {one.name for one in stores}.issuperset(hold.stores):
            return False
        concerned = [one for one in stores if not hold.stores or one.name in hold.stores]
        if any(one.earlier_work_may_go_on for one in concerned):
            return False
        began = [one.pass_began_at for one in concerned]
        began += [
            moment
            for source, moment in self._cache.scans.values()
            if not source.listing  # what follows a listing reads the holds anew
            and (
                (not hold.stores and source.description.namespace == namespace)
                or not source.stores.isdisjoint(hold.stores)
            )
        ]
        began += [
            one.run.halt.replacing_since
            for one in self._cache.drills.values()
            if one.run is not None and one.key[0] == namespace
        ]
        return all(moment is None or moment > since for moment in began)

    def _seen_since(self, record: LegalRecord) -> float:
        """Return since when (monotonic) all that is held now has been seen here."""
        held = record.hold, record.keys, record.emails
        known, since = self._placed.get(record.key, (None, 0.0))
        if known != held:
            since = time.monotonic()
            self._placed[record.key] = held, since
        return since
