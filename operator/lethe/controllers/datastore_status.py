"""The status of DataStores, and what is measured of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime

from lethe.api.status.datastore import datastore_status
from lethe.controllers.runtime.cache import ManagedSource, ManagedStore, ObjectCache
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.status_writer import StatusKind, StatusWriter, without_counters
from lethe.domain.conditions.base import ConditionSet, ConditionStatus
from lethe.domain.conditions.datastore import LET_GO, DataStoreObservation, datastore_conditions
from lethe.domain.mapping import StoreOwner
from lethe.domain.periods import instant
from lethe.domain.trouble import TroubleReason
from lethe.workflows.store_session import StoreSession

DATA_STORE = StatusKind(
    "datastores",
    "DataStore",
    essence=without_counters,
    detail=lambda status: status,  # when it was last seen is written every few minutes only for its own sake
    patience=300.0,
)


class StoreStatus:
    """Says in the status of each DataStore what is known of its store."""

    def __init__(
        self, cache: ObjectCache, metrics: Metrics, writer: StatusWriter, clock: Callable[[], datetime]
    ) -> None:
        self._cache, self._metrics, self._writer, self._clock = cache, metrics, writer, clock
        self._swept: dict[str, datetime] = {}

    async def write(self, managed: ManagedStore) -> None:
        """Write a DataStore's status, if it says something new."""
        session, proof = managed.session, managed.session.proof if managed.session else None
        lookalikes, pointing = (proof.lookalikes, proof.pointing) if proof else ((), ())
        copies, possible = (proof.copies, proof.possible_copies) if proof else ((), ())
        catch_up = session.catch_up if session else None
        mapping = proof.proved.mapping if proof else None
        primary = managed.description.role == "Primary"
        sources = self._cache.sources_of(managed.name)
        trouble, unsafe = managed.trouble or managed.gate_trouble, self._cache.why_unsafe(managed)
        if trouble is not None and trouble.reason in LET_GO:  # on purpose: then its gate is what matters
            unsafe = trouble.reason.value, trouble.message
            trouble = managed.gate_trouble or trouble
        elif managed.let_go and (unsafe is None or unsafe[0] not in LET_GO):
            # The next process knows it by this alone: what was verified before counts no more.
            unsafe = TroubleReason.SUSPENDED.value, "Lethe had let go of it, and has not looked at it since"
        observed = DataStoreObservation(
            third_party=managed.description.owner == "ThirdParty",
            proved=proof is not None,
            trouble=trouble,
            kinds_unmapped=[kind.value for kind in mapping.kinds_unmapped()] if mapping and primary else [],
            lookalikes=lookalikes,
            pointing=pointing,
            copies=copies,
            possible_copies=[(one.name, one.why) for one in possible],
            catch_up=(
                len(catch_up.left),
                len(catch_up.unclear),
                proof.proved.version,
                managed.description.catch_up == proof.proved.version,
            )
            if catch_up and proof
            else None,
            uncounted=bool(proof and proof.widened) and catch_up is None,
            journal=proof.journal.value if proof else "NotSupported",
            journal_message=_journal_message(proof.journal.value, proof.journal_ddl) if proof else "",
            without_backups=managed.without_backups,
            snapshots_remain=managed.snapshots_remain,
            looked=session is not None and session.last_observed_at is not None,
            replay=unsafe,
            release=managed.release,
            notes=_notes(session),
            samples_left=_samples_left(session),
            sources=[source.description.short_name for source in sources],
            plaintext=managed.plaintext,
            snapshots_seen=any(_may_have_snapshots(source) for source in sources),
        )
        now = self._clock()
        generation = managed.manifest["metadata"].get("generation", 1)
        condition_set = datastore_conditions(observed)
        self._measure_mapping(managed.name, condition_set)
        status = datastore_status(
            condition_set,
            managed.shown.status,
            generation=generation,
            now=now,
            seen_at=session.last_observed_at if session else None,
            swept_at=session.last_sweep_at if session else None,
            applied=managed.applied,
            missing=managed.missing,
            journal_number=managed.journal_number,
            unmapped=sorted({*lookalikes, *pointing, *copies, *(one.name for one in possible)}),
        )
        await self._writer.write(DATA_STORE, managed.key, managed.shown, status)

    def measure(self) -> None:
        """Refresh who owns the stores, and how long ago each was swept: since it was met, if it never was.

        By name: what is held of a store is made anew when its manifest changes.
        """
        now, stores = self._clock(), self._cache.stores.values()
        owners = Counter(managed.description.owner for managed in stores)
        for owner in StoreOwner:
            self._metrics.stores.labels(owner.value).set(owners[owner])
        before, self._swept = self._swept, {}
        for managed in stores:
            if managed.description.owner is StoreOwner.THIRD_PARTY:
                if managed.name in before:  # it was the company's own until now
                    self._metrics.forget_store(managed.name)
                continue
            swept = managed.session.last_sweep_at if managed.session else None
            self._swept[managed.name] = since = swept or before.get(managed.name, now)
            self._metrics.sweep_age.labels(managed.name).set((now - since).total_seconds())

    def _measure_mapping(self, store: str, condition_set: ConditionSet) -> None:
        """Show a store's MappingComplete; while it is not proved there is none, and no sample."""
        statuses = [c.status for c in condition_set.conditions if c.type == "MappingComplete"]
        if statuses:
            self._metrics.mapping_complete.labels(store).set(statuses == [ConditionStatus.TRUE])
        else:
            with suppress(KeyError):
                self._metrics.mapping_complete.remove(store)


def records_named(records: Collection[tuple[str, str]]) -> str:
    """Say how many records and which, a few of them by table and key."""
    named = ", ".join(f"{table} {key}" for table, key in list(records)[:5])
    return f"{len(records)} records of erased people ({named}{', …' if len(records) > 5 else ''})"


def _notes(session: StoreSession | None) -> Sequence[str]:
    """Return what somebody should know of a store that is well."""
    if session is None or session.proof is None:
        return ()
    notes, back = [], session.written_back
    if session.proof.keys_may_repeat:
        notes.append(f"keys may repeat: {', '.join(session.proof.keys_may_repeat)}")
    if back:
        since = instant(min(back.values()))
        notes.append(
            f"since {since} {records_named(back)} were written back; at each look they are erased again"
        )
    if session.rejoined_in_vain:
        named = ", ".join(f"{table} {key}" for table, key in session.rejoined_in_vain[:5])
        notes.append(
            f"of {named} spec.rejoined says for nothing that somebody came back: nobody was erased there, or "
            "she has asked for it again since"
        )
    return notes


def _may_have_snapshots(source: ManagedSource) -> bool:
    """Tell whether a source has ever shown a snapshot; of one that was not read yet, nobody says no."""
    known = source.known
    return known is None or not known.loaded or bool(known.snapshots)


def _samples_left(session: StoreSession | None) -> Sequence[str] | None:
    """Return which statistics may hold what was erased; `None`: they were not renewed yet, and can be."""
    if session is None or session.proof is None:
        return None
    return session.proof.samples_stay or None if session.samples_left is None else session.samples_left


def _journal_message(journal: str, ddl: str) -> str:
    match journal:
        case "Kept":
            return "any restore of this store shows within LETHE_JOURNAL_INTERVAL"
        case "NotPermitted":
            return f"Lethe may not create its journal; have a DBA run: {ddl}"
        case _:
            return "this kind of store keeps no journal; a restore shows at the next probe or sweep"
