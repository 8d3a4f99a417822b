"""The sealed docs of requests."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from lethe.adapters.ledger.docs import context, encode, unsealed
from lethe.domain.requests import RequestRecord
from lethe.ports.keys import Keyring


@dataclass(slots=True)
class RequestDoc:
    """A request's record, the sequences of its `Intended` entries by store, and the months it has entries in.

    The record's `purged_at` is not kept here but in its column.
    """

    record: RequestRecord
    intents: dict[str, int] = field(default_factory=dict)
    months: list[str] = field(default_factory=list)


_decode = msgspec.json.Decoder(RequestDoc).decode


def request_doc(keyring: Keyring, request: str, doc: bytes) -> RequestDoc:
    """Return what a row of `requests` holds. Raises `ChainBroken`."""
    return _decode(unsealed(keyring, doc, context("request", request)))


def sealed_request(keyring: Keyring, doc: RequestDoc) -> bytes:
    """Return a row's doc."""
    return keyring.seal(encode(doc), context("request", doc.record.request))
