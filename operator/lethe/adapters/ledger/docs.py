"""What the projections share: sealed docs, instants as numbers, and sets of values in one query."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ARRAY, BigInteger, Connection, Select, Text, cast, func, literal, select

from lethe.domain import chunks
from lethe.ports.keys import Keyring, SealBroken
from lethe.ports.ledger import ChainBroken

_T = TypeVar("_T")

IN_ONE_QUERY = 5_000
"""How many values go into one IN list; SQLite takes 32,766 parameters, PostgreSQL 65,535."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

encode = msgspec.json.Encoder().encode


def chunked(values: Iterable[_T]) -> Iterator[Sequence[_T]]:
    """Yield the values in lists that fit into one query."""
    return chunks.chunked(values, IN_ONE_QUERY)


def by_namespace(names: Collection[tuple[str, str]]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield each namespace with its names, as many as fit into one query."""
    grouped: dict[str, list[str]] = {}
    for namespace, name in names:
        grouped.setdefault(namespace, []).append(name)
    for namespace, wanted in grouped.items():
        for chunk in chunked(wanted):
            yield namespace, chunk


def table_of(connection: Connection, values: Sequence[int] | Sequence[str]) -> Select[Any]:
    """Return a query that yields these values, however many, from a single parameter."""
    if connection.dialect.name == "sqlite":
        return select(func.json_each(json.dumps(values)).table_valued("value").c.value)
    kind = BigInteger() if values and isinstance(values[0], int) else Text()
    listed = cast(literal(list(values), ARRAY(kind)), ARRAY(kind))
    return select(func.unnest(listed).table_valued("value").render_derived().c.value)


def number_of(at: datetime) -> int:
    """Return an instant as the microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def instant_of(number: int | None) -> datetime | None:
    """Return the instant of `number_of`, in UTC."""
    return None if number is None else _EPOCH + timedelta(microseconds=number)


def context(kind: str, *names: str) -> str:
    """Return what a doc is bound to, so that none opens in another's place."""
    return ":".join((kind, *(f"{len(name)}:{name}" for name in names)))


def unsealed(keyring: Keyring, doc: bytes, bound_to: str) -> bytes:
    """Return a doc's plain text. Raises `ChainBroken`."""
    try:
        return keyring.unseal(doc, bound_to)
    except SealBroken:
        raise ChainBroken("A doc beside the chain was changed.") from None
