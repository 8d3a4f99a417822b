"""Finds persons by e-mail address, and shows that somebody would have been found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lethe.adapters.stores.tryton.reading import AT_ONCE, Reader, Row
from lethe.adapters.stores.tryton.records import PARTY, Family
from lethe.domain.identifiers import IdentifierKind, PersonalText, normalised_email
from lethe.ports.stores import AnswerUntrusted, Finding, FoundRecord, Wanted


def find(reader: Reader, wanted: Sequence[Wanted], *, canary: str | None, max_records: int) -> Finding:
    """Return every party that carries an address of a wanted person.

    Each question also asks for the canary, else for an address that is known to be there (`witness`);
    only a database without any e-mail address (`empty`) is believed without.

    Raises `AnswerUntrusted`, `StoreUnreachable`.
    """
    emails = {one.request: _emails(one) for one in wanted}
    searched = sorted({address for addresses in emails.values() for address in addresses})
    known, proof = _known(reader, canary)
    parties_of: dict[str, set[int]] = {address: set() for address in searched}
    for start in range(0, len(searched), AT_ONCE):
        batch = searched[start : start + AT_ONCE]
        rows = reader.mechanisms_with([*batch, *([known] if known else [])])
        held = [(row["party"], address) for row in rows for address in _held(row)]
        if known and normalised_email(known) not in {address for _, address in held}:
            raise AnswerUntrusted("the search does not find an address that is there")
        for party, address in held:
            if address in parties_of:
                parties_of[address].add(party)
    families = reader.families({party for parties in parties_of.values() for party in parties})
    records: dict[str, tuple[FoundRecord, ...]] = {}
    for request, addresses in emails.items():
        parties = sorted({party for address in addresses for party in parties_of[address]})
        if len(parties) > max_records:
            raise AnswerUntrusted(
                f"there are {len(parties)} parties for one person, more than maxRecords ({max_records})",
                f"look at them in Tryton, and merge or correct them (request {request})",
            )
        found = tuple(_record(families[party], addresses) for party in parties if party in families)
        if found:
            records[request] = found
    return Finding(records, proof, frozenset(request for request, asked in emails.items() if not asked))


def canary_party(reader: Reader, canary: str) -> int:
    """Return the id of the party that carries the canary address.

    Raises `AnswerUntrusted` where it is not found: then nothing that is not found counts.
    """
    for row in reader.mechanisms_with([canary]):
        if normalised_email(canary) in _held(row):
            return int(row["party"])
    raise AnswerUntrusted(
        "the canary is not found, so no absence counts",
        "correct the canary of spec.tryton, or the rights of the user of spec.tryton.credentialsSecretRef",
    )


def _known(reader: Reader, canary: str | None) -> tuple[str | None, str]:
    if canary is not None:
        canary_party(reader, canary)
        return canary, "canary"
    witness = reader.any_email()
    if witness is not None:
        return witness, "witness"
    reader.require_sight()
    return None, "empty"


def _record(family: Family, addresses: frozenset[str]) -> FoundRecord:
    held = family.emails
    matching = next((one for one in held if normalised_email(one) in addresses), None)
    return FoundRecord(
        PARTY,
        str(family.root.id),
        family.root.created_at,
        matching or PersonalText(min(addresses)),
        shared=any(normalised_email(one) not in addresses for one in held),
        cleared=not family.uncleared,
    )


def _emails(wanted: Wanted) -> frozenset[str]:
    return frozenset(
        normalised_email(one.value.reveal())
        for one in wanted.identifiers
        if one.kind is IdentifierKind.EMAIL and one.value.strip()
    )


def _held(row: Row) -> Iterator[str]:
    texts: list[Any] = [row["value"], row["value_compact"]]
    yield from {normalised_email(text) for text in texts if text}
