"""Who was erased where and when, and what the backups of that store still hold of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    false,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from lethe.adapters.ledger.database import execute_many
from lethe.adapters.ledger.docs import chunked, instant_of, number_of, table_of
from lethe.adapters.ledger.schema import (
    NOWHERE,
    clearings,
    entries,
    request_months,
    requests,
    tombstones,
)
from lethe.domain.facts import CopiesGone, Outcome, Reerased
from lethe.domain.requests import IllegalTransition, RequestRecord, StoreState
from lethe.domain.snapshots import CopiesLeft, CopyStep

_CLEARED = (StoreState.VERIFIED, StoreState.NOT_FOUND)
"""A person who is not found in a store now may still be in its old backups."""

Clearing = tuple[str, str, int, int | None, bool]
"""A row of `clearings`, in the order of its columns."""


def clearings_of(record: RequestRecord) -> list[Clearing]:
    """Return the clearings of a request that has just ended."""
    if record.outcome is not Outcome.ERASED or record.completed_at is None:
        return []
    cleared: list[Clearing] = [
        (record.request, store, number_of(progress.at or record.completed_at), None, False)
        for store, progress in record.stores.items()
        if progress.state in _CLEARED
    ]
    return cleared or [(record.request, NOWHERE, number_of(record.completed_at), None, True)]


def ending_of(record: RequestRecord) -> tuple[int | None, str | None]:
    """Return what the columns `completed_at` and `outcome` say of a request."""
    ended, outcome = record.completed_at, record.outcome
    return None if ended is None else number_of(ended), None if outcome is None else outcome.value


def insert_clearings(connection: Connection, rows: Sequence[Clearing]) -> None:
    """Note who was cleared where."""
    execute_many(connection, _INSERT, rows)


_INSERT = insert(clearings)


# What facts about many change


def put_back(connection: Connection, fact: Reerased) -> None:
    """Note that people were back in a store and were erased again.

    Those of a write-back may be in every snapshot until now. Those of a restore are in none that its dirty
    window does not tell of, but who was purged already is not any more.
    """
    at, again = number_of(fact.at), requests.c.outcome == Outcome.ERASED.value
    if fact.episode is not None:
        again = and_(again, requests.c.purged_at.is_not(None))
    columns = (requests.c.request, literal(fact.store), literal(at), null(), false())
    people = _people(connection, fact, again, *columns)
    upsert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    cleared = upsert(clearings).from_select([column.name for column in clearings.c], people)
    anew = {"cleared_at": at, "gone_at": None, "proven": False}
    connection.execute(cleared.on_conflict_do_update(index_elements=["request", "store"], set_=anew))
    of_store = and_(clearings.c.store == fact.store, clearings.c.cleared_at == at)
    back = requests.c.request.in_(select(clearings.c.request).where(of_store))
    was_purged = requests.c.purged_at.is_not(None)
    connection.execute(update(requests).where(was_purged, back).values(purged_at=None))


def open_people(connection: Connection, fact: Reerased) -> list[str]:
    """Return the requests that have not ended of those whose people were erased again."""
    query = _people(connection, fact, requests.c.open.is_(True), requests.c.request)
    return list(connection.execute(query).scalars())


def _people(
    connection: Connection, fact: Reerased, which: ColumnElement[bool], *columns: ColumnElement[Any]
) -> Select[Any]:
    where_they_stand = select(tombstones.c.sequence).where(
        tombstones.c.store == fact.store, tombstones.c.number.in_(table_of(connection, fact.numbers))
    )
    whose = select(entries.c.request).where(entries.c.sequence.in_(where_they_stand))
    return select(*columns).where(requests.c.request.in_(whose), which)


def record_gone(connection: Connection, fact: CopiesGone) -> None:
    """Note that no backup holds these people any more.

    Raises `IllegalTransition` for one of whom that was not found, or not any more.
    """
    people = table_of(connection, fact.requests)
    held = select(func.count()).where(clearings.c.request.in_(people), ~_GONE)
    graded = select(func.count(clearings.c.request.distinct())).where(clearings.c.request.in_(people))
    unique = len(set(fact.requests))
    if connection.execute(held).scalar_one() or connection.execute(graded).scalar_one() != unique:
        raise IllegalTransition("CopiesGone for a request that backups may still hold")
    connection.execute(delete(clearings).where(clearings.c.request.in_(people)))
    purged = update(requests).where(requests.c.request.in_(people))
    connection.execute(purged.values(purged_at=number_of(fact.at)))


def doubt_purged(connection: Connection, stores: Collection[str], began: datetime) -> None:
    """Take back that nothing is left of people whom a snapshot may hold that has turned up since.

    It began then. Whose tombstones have ended are left out: nothing is known of them any more.
    """
    for store in stores:
        maybe = and_(
            requests.c.namespace == store.partition("/")[0],
            requests.c.outcome == Outcome.ERASED.value,
            requests.c.purged_at.is_not(None),
            requests.c.completed_at >= number_of(began),
            requests.c.request.in_(select(request_months.c.request)),
        )
        columns = (requests.c.request, literal(store), requests.c.completed_at, null(), false())
        upsert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        doubted = upsert(clearings).from_select(
            [column.name for column in clearings.c], select(*columns).where(maybe)
        )
        connection.execute(doubted.on_conflict_do_nothing())
    back = select(clearings.c.request).where(clearings.c.store.in_(list(stores)))
    was_purged = and_(requests.c.purged_at.is_not(None), requests.c.request.in_(back))
    connection.execute(update(requests).where(was_purged).values(purged_at=None))


# Grading

_GONE = and_(clearings.c.proven.is_(True), clearings.c.gone_at.is_(None))


Outdated = Mapping[str, Any]
"""A step, as the parameters of the statement that grades the rows which it changes."""


def outdated(connection: Connection, store: str, steps: Sequence[CopyStep]) -> list[Outdated]:
    """Return the steps that some row does not agree with.

    Reads an index only, so that the writers' lock is taken for what has changed: mostly nothing.
    """
    ends = [*(number_of(step.since) for step in steps[1:]), _NO_END]
    found: list[Outdated] = []
    for step, end in zip(steps, ends, strict=True):
        values = {
            "of_store": store,
            "from": number_of(step.since),
            "to": end,
            "gone": _gone_at(step),
            "said": step.proven,
        }
        if connection.execute(_ANY_UNLIKE, values).first():
            found.append(values)
    return found


_NO_END = 2**62
# One statement for all steps: to make one for each takes longer than the database does.
_UNLIKE = and_(
    clearings.c.store == bindparam("of_store"),
    clearings.c.cleared_at >= bindparam("from"),
    clearings.c.cleared_at < bindparam("to"),
    or_(
        clearings.c.gone_at.is_distinct_from(bindparam("gone", type_=BigInteger())),
        clearings.c.proven != bindparam("said"),
    ),
)
_ANY_UNLIKE = select(literal(1)).where(_UNLIKE).limit(1)
_REGRADE = (
    update(clearings)
    .where(_UNLIKE)
    .values(gone_at=bindparam("gone", type_=BigInteger()), proven=bindparam("said"))
    .returning(clearings.c.request)
)


def outlived(connection: Connection, at: datetime) -> frozenset[str]:
    """Return whose last copy should be gone by now, and is not proven to be."""
    query = select(clearings.c.request).distinct().where(clearings.c.gone_at <= number_of(at))
    return frozenset(connection.execute(query).scalars())


def cleared_between(connection: Connection, store: str, since: datetime, until: datetime) -> frozenset[str]:
    """Return who was cleared in a store from `since` on and before `until`, as far as backups may hold it."""
    query = select(clearings.c.request).where(
        clearings.c.store == store,
        clearings.c.cleared_at >= number_of(since),
        clearings.c.cleared_at < number_of(until),
    )
    return frozenset(connection.execute(query).scalars())


def cleared_without(
    connection: Connection, store: str, numbers: Sequence[int], since: datetime, until: datetime
) -> Mapping[str, datetime]:
    """Return who was cleared in a store from `since` on and before `until` by none of these tombstones."""
    by_these = (
        select(entries.c.request)
        .join(tombstones, tombstones.c.sequence == entries.c.sequence)
        .where(tombstones.c.store == store, tombstones.c.number.in_(table_of(connection, numbers or [0])))
    )
    query = select(clearings.c.request, clearings.c.cleared_at).where(
        clearings.c.store == store,
        clearings.c.cleared_at >= number_of(since),
        clearings.c.cleared_at < number_of(until),
        clearings.c.request.not_in(by_these.where(entries.c.request.is_not(None))),
    )
    cleared = {request: instant_of(at) for request, at in connection.execute(query)}
    return {request: at for request, at in cleared.items() if at is not None}


def last_cleared(connection: Connection, store: str) -> datetime | None:
    """Return when somebody was cleared in a store last whom backups may hold; `None`: nobody was."""
    query = select(func.max(clearings.c.cleared_at)).where(clearings.c.store == store)
    return instant_of(connection.execute(query).scalar_one())


def _gone_at(step: CopyStep) -> int | None:
    return None if step.gone_at is None else number_of(step.gone_at)


def regrade(connection: Connection, steps: Sequence[Outdated]) -> frozenset[str]:
    """Give the rows of each condition what its step says; return the requests that were changed."""
    changed = set[str]()
    for step in steps:
        changed.update(connection.execute(_REGRADE, dict(step)).scalars())
    return frozenset(changed)


# Reading


def stores_with_clearings(connection: Connection) -> frozenset[str]:
    """Return the stores of all clearings; a few steps through the index, whatever the number of rows."""
    found, last = set[str](), NOWHERE
    while True:
        query = select(func.min(clearings.c.store)).where(clearings.c.store > last)
        last = connection.execute(query).scalar_one()
        if last is None:
            return frozenset(found)
        found.add(last)


def copies_left(connection: Connection, of: Collection[str]) -> Mapping[str, CopiesLeft]:
    """Return what backups hold of these requests; absent for who has no clearing."""
    rows: dict[str, list[tuple[str, int | None, bool]]] = {}
    columns = (clearings.c.request, clearings.c.store, clearings.c.gone_at, clearings.c.proven)
    for chunk in chunked(of):
        for request, *row in connection.execute(select(*columns).where(clearings.c.request.in_(chunk))):
            rows.setdefault(request, []).append(tuple(row))
    return {
        request: CopiesLeft(
            instant_of(max((gone for _, gone, _ in stores if gone is not None), default=None)),
            tuple(sorted(store for store, _, proven in stores if not proven)),
        )
        for request, stores in rows.items()
    }


def purgeable(connection: Connection, limit: int) -> list[str]:
    """Return requests all of whose clearings are proven to be in no backup any more."""
    others = clearings.alias()
    still_held = (
        select(literal(1))
        .where(others.c.request == clearings.c.request)
        .where(or_(others.c.proven.is_not(True), others.c.gone_at.is_not(None)))
    )
    query = select(clearings.c.request).distinct().where(_GONE, ~still_held.exists()).limit(limit)
    return list(connection.execute(query).scalars())
