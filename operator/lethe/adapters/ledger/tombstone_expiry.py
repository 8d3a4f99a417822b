"""When tombstones end: the months that nobody can be restored from any more, and their destruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import (
    Connection,
    Integer,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from lethe.adapters.ledger.chain import period_of
from lethe.adapters.ledger.database import execute_many
from lethe.adapters.ledger.docs import chunked, instant_of, number_of, table_of
from lethe.adapters.ledger.legal_projection import oldest_open_period
from lethe.adapters.ledger.request_docs import RequestDoc, request_doc, sealed_request
from lethe.adapters.ledger.schema import (
    absent_addresses,
    entries,
    erased_identifiers,
    period_keys,
    rejoined,
    request_months,
    requests,
    tombstones,
)
from lethe.domain.facts import FoundAgain, Intended, Outcome, TombstonesExpired
from lethe.domain.requests import IllegalTransition, shred
from lethe.ports.keys import Keyring

_of_month = request_months.c.request == requests.c.request
_never_erased = requests.c.outcome == Outcome.PLANNED.value


def expired_periods(connection: Connection, before: datetime, now: datetime) -> Mapping[str, Sequence[str]]:
    """Return the months that can end, oldest first, each with the requests that end with it.

    A month waits for every request that has an entry in it. A request ends with the last of its months, so
    that nothing of it is left in any. What was recorded since the oldest open legal request waits for it:
    an authority may have asked for just that.
    """
    limit = number_of(before)
    needed = or_(
        requests.c.open.is_(True),
        and_(_never_erased, requests.c.completed_at >= limit),
        and_(~_never_erased, or_(requests.c.purged_at.is_(None), requests.c.purged_at >= limit)),
    )
    period = period_keys.c.period
    of_period = request_months.c.period == period
    waits = exists(select(literal(1)).where(of_period, _of_month, needed))
    of_requests = exists(select(literal(1)).where(of_period))
    query = (
        select(period)
        .where(period_keys.c.wrapped_key.is_not(None), period < period_of(now), ~waits)
        # A month of nothing but ticks and scans is as old as its name says.
        .where(or_(of_requests, period < period_of(before)))
        .order_by(period)
    )
    oldest = oldest_open_period(connection)
    if oldest is not None:
        query = query.where(period < oldest)
    ending: dict[str, list[str]] = {month: [] for month in connection.execute(query).scalars()}
    if ending:
        month = request_months.c.period
        whose = select(request_months.c.request).where(month.in_(ending))
        last = (
            select(func.max(month), request_months.c.request)
            .where(request_months.c.request.in_(whose))
            .group_by(request_months.c.request)
            .having(func.count() == func.sum(month.in_(ending).cast(Integer)))
        )
        for period_of_last, request in connection.execute(last):
            ending[period_of_last].append(request)
    return ending


def forgotten_until(connection: Connection, namespace: str) -> datetime | None:
    """Return when the last erasure of a namespace was completed of which nothing is left but that it was."""
    months = exists(select(literal(1)).where(_of_month))
    query = select(func.max(requests.c.completed_at)).where(
        requests.c.namespace == namespace, requests.c.purged_at.is_not(None), ~_never_erased, ~months
    )
    return instant_of(connection.execute(query).scalar())


def end(connection: Connection, keyring: Keyring, fact: TombstonesExpired, *, now: str) -> None:
    """Destroy a month's key, payloads and tombstones, and of its requests what tells who they were.

    `now` is the month in which the fact was recorded. Raises `IllegalTransition` where a month is named that
    has not ended, or is not known, or that a request or an open legal request still needs: what is destroyed
    here never comes back.
    """
    oldest = oldest_open_period(connection)
    if oldest is not None and fact.period >= oldest:
        raise IllegalTransition(
            f"TombstonesExpired for {fact.period}, which an open legal request still needs"
        )
    of_period = request_months.c.period == fact.period
    needed = or_(requests.c.open.is_(True), and_(~_never_erased, requests.c.purged_at.is_(None)))
    if connection.execute(select(literal(1)).where(of_period, _of_month, needed).limit(1)).first():
        raise IllegalTransition(f"TombstonesExpired for {fact.period}, which a request still needs")
    key = period_keys.c.wrapped_key.is_not(None)
    destroyed = update(period_keys).where(period_keys.c.period == fact.period, key)
    when = {"wrapped_key": None, "destroyed_at": fact.at.isoformat()}
    if fact.period >= now or not connection.execute(destroyed.values(when)).rowcount:
        raise IllegalTransition(f"TombstonesExpired for {fact.period}, which has no key or has not ended")
    in_period = entries.c.period == fact.period
    kinds = [Intended.__name__, FoundAgain.__name__]
    intents = select(entries.c.sequence).where(in_period, entries.c.kind.in_(kinds))
    ended = select(tombstones.c.store, tombstones.c.number).where(tombstones.c.sequence.in_(intents))
    connection.execute(delete(rejoined).where(tuple_(rejoined.c.store, rejoined.c.number).in_(ended)))
    connection.execute(delete(tombstones).where(tombstones.c.sequence.in_(intents)))
    connection.execute(update(entries).where(in_period).values(payload=None))
    connection.execute(delete(request_months).where(of_period))
    people = table_of(connection, fact.requests)
    for digests in (erased_identifiers, absent_addresses):
        connection.execute(delete(digests).where(digests.c.request.in_(people)))
    for chunk in chunked(fact.requests):
        query = select(requests.c.request, requests.c.doc).where(requests.c.request.in_(chunk))
        rows = connection.execute(query).all()
        stripped = [(shred(request_doc(keyring, *row).record), row.request) for row in rows]
        execute_many(
            connection,
            _UPDATE_DOC,
            [(sealed_request(keyring, RequestDoc(record)), request) for record, request in stripped],
        )


_UPDATE_DOC = (
    update(requests).where(requests.c.request == bindparam("which")).values(doc=bindparam("now_doc"))
)
