"""Legal holds, as every pass reads them again before it erases: whose data must stay where it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime

from lethe.domain.identifiers import Identifier, IdentifierKind, PersonalText
from lethe.domain.legal import Holds, LegalRecord, may_be_said
from lethe.domain.legal_facts import HoldTookEffect
from lethe.domain.pruning import RetentionHold
from lethe.domain.tombstones import Tombstone
from lethe.domain.trust import Blocker, BlockReason
from lethe.ports.keys import record_digest
from lethe.ports.ledger import Ledger
from lethe.ports.stores import FoundRecord, Wanted
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import StoreSession, email_digest


def read_holds(session: StoreSession, context: PassContext, *, primary: str | None = None) -> Holds:
    """Return the holds on a store as the ledger has them now. Cheap where there are none."""
    holds = _active(context.ledger, session.description.namespace)
    if not holds:
        return Holds()
    return Holds(tuple(holds), _erased_before(holds, context, primary)).on(session.name)


def _active(ledger: Ledger, namespace: str) -> list[LegalRecord]:
    return [one for one in ledger.legal_requests(namespace=namespace, open_only=True) if one.holding]


def _erased_before(
    holds: Sequence[LegalRecord], context: PassContext, primary: str | None
) -> dict[str, tuple[LegalRecord, ...]]:
    """Return the requests that erased held persons before: their tombstones are not acted on."""
    mappings = context.ledger.mappings(primary) if primary is not None else {}
    tables = {proved.mapping.table for proved in mappings.values()}
    whose: dict[bytes, list[LegalRecord]] = {}
    for hold in holds:
        digests = {*hold.emails}
        if primary is not None:
            digests |= {
                record_digest(context.keyring, primary, table, key) for table in tables for key in hold.keys
            }
        for digest in digests:
            whose.setdefault(digest, []).append(hold)
    found: dict[str, list[LegalRecord]] = {}
    for digest, request in context.ledger.who_erased(whose).items():
        found.setdefault(request, []).extend(whose[digest])
    return {request: tuple(records) for request, records in found.items()}


def held_by_identifiers(
    holds: Holds, identifiers: Iterable[Identifier], context: PassContext
) -> tuple[LegalRecord, ...]:
    """Return the holds on whoever a request names."""
    known = list(identifiers)
    keys = frozenset(one.value.reveal() for one in known if one.kind is IdentifierKind.PRIMARY_KEY)
    emails = frozenset(
        email_digest(context.keyring, one.value.reveal()) for one in known if one.kind is IdentifierKind.EMAIL
    )
    return holds.of(keys, emails)


def held_by_records(
    holds: Holds, session: StoreSession, found: Sequence[FoundRecord]
) -> tuple[LegalRecord, ...]:
    """Return the holds on whoever these records belong to."""
    keys = frozenset(one.key for one in found) if session.is_primary else frozenset[str]()
    emails = frozenset(
        session.fingerprints.email(one.email.reveal()) for one in found if one.email is not None
    )
    return holds.of(keys, emails)


RowsOfHeld = Mapping[tuple[str, str], tuple[LegalRecord, ...]]
"""Rows by table and key, with the holds on whoever they belong to."""


def rows_of_held(session: StoreSession, holds: Holds) -> RowsOfHeld:
    """Return the rows of held persons in a store that is linked by the Primary's key, by table and key.

    Her address there may be an old one, by which somebody else's request, or her own, would find her.

    Raises `StoreUnreachable`, `AnswerUntrusted`.
    """
    wanted = [
        Wanted(
            one.legal, tuple(Identifier(IdentifierKind.PRIMARY_KEY, PersonalText(key)) for key in one.keys)
        )
        for one in holds.holds
        if one.keys
    ]
    if session.is_primary or not session.description.needs_primary_key or not wanted:
        return {}
    rows: dict[tuple[str, str], tuple[LegalRecord, ...]] = {}
    records = session.port.find(wanted).records
    for hold in holds.holds:
        for found in records.get(hold.legal, ()):
            row = found.table, found.key
            rows[row] = (*rows.get(row, ()), hold)
    return rows


def held_by_tombstones(
    holds: Holds, session: StoreSession, tombstones: Sequence[Tombstone], rows: RowsOfHeld
) -> tuple[LegalRecord, ...]:
    """Return the holds on whoever is about to be erased by these tombstones."""
    held: dict[str, LegalRecord] = {}
    for one in tombstones:
        keys = frozenset({one.key}) if session.is_primary else frozenset[str]()
        emails = frozenset({one.email}) if one.email is not None else frozenset[bytes]()
        named = (*holds.of(keys, emails, one.request), *rows.get((one.table, one.key), ()))
        held.update({hold.legal: hold for hold in named})
    return tuple(held.values())


def holds_tombstone(holds: Holds, session: StoreSession) -> Callable[[Tombstone], bool]:
    """Return what tells of a tombstone whether its person is held here."""
    keys = (
        frozenset(key for one in holds.holds for key in one.keys) if session.is_primary else frozenset[str]()
    )
    emails = frozenset(email for one in holds.holds for email in one.emails)
    requests = holds.requests
    return lambda tombstone: (
        tombstone.email in emails or tombstone.key in keys or tombstone.request in requests
    )


def blocker_of_hold(holds: tuple[LegalRecord, ...], now: datetime) -> Blocker:
    """Return what a request is told whose person is held: nothing, while an order forbids to tell."""
    if not may_be_said(holds, now):
        return Blocker(BlockReason.PENDING, "waits to be carried out")
    return Blocker(
        BlockReason.HELD,
        "this person's data is under a legal hold; the request is carried out once that has ended",
    )


def stores_under_hold(ledger: Ledger, stores: Collection[str], now: datetime) -> Mapping[str, RetentionHold]:
    """Return in which of these stores (`namespace/name`) somebody is held: no snapshot of theirs may die."""
    found: dict[str, RetentionHold] = {}
    for namespace in {store.partition("/")[0] for store in stores}:
        mine = [store for store in stores if store.startswith(f"{namespace}/")]
        for hold in _active(ledger, namespace):
            named = hold.hold.stores if hold.hold is not None else ()
            keeps = RetentionHold.LEGAL_HOLD if may_be_said((hold,), now) else RetentionHold.UNSAID
            for store in mine:
                if (not named or store in named) and found.get(store) is not RetentionHold.LEGAL_HOLD:
                    found[store] = keeps
    return found


def take_effect(records: Sequence[LegalRecord], context: PassContext) -> None:
    """Record that nothing which had begun before can erase any more what these hold."""
    if records:
        at = context.clock()
        context.ledger.append([HoldTookEffect(record.legal, at) for record in records])
