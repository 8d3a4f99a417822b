"""Finds persons by e-mail address, and shows that somebody would have been found."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lethe.adapters.stores.tryton.reading import AT_ONCE, Reader, held_by
from lethe.adapters.stores.tryton.records import PARTY, Family, Mechanism
from lethe.domain.identifiers import IdentifierKind, PersonalText, normalised_email
from lethe.ports.stores import AnswerUntrusted, Finding, FoundRecord, Wanted


@dataclass(frozen=True, slots=True)
class Search:
    """What a search found: by request the addresses and the parties that carry one, and their families.

    `proof` is how an absence was proved. A party may be without a family: it was deleted meanwhile.
    """

    addresses: Mapping[str, frozenset[str]]
    parties: Mapping[str, tuple[int, ...]]
    families: Mapping[int, Family]
    proof: str


def find(reader: Reader, wanted: Sequence[Wanted], *, canary: str | None, max_records: int) -> Finding:
    """Return every party that carries an address of a wanted person.

    Of a person with more than `max_records` parties only so many are returned, unless every one is wanted.

    Raises `AnswerUntrusted`, `StoreUnreachable`.
    """
    search = search_for(reader, wanted, canary=canary)
    every = {one.request for one in wanted if one.every}
    too_many = frozenset(
        request
        for request, parties in search.parties.items()
        if len(parties) > max_records and request not in every
    )
    records = {
        request: tuple(
            _record(search.families.get(party), search.addresses[request])
            for party in parties[: max_records if request in too_many else None]
        )
        for request, parties in search.parties.items()
    }
    unaskable = frozenset(request for request, asked in search.addresses.items() if not asked)
    return Finding(records, search.proof, unaskable, too_many)


def search_for(reader: Reader, wanted: Sequence[Wanted], *, canary: str | None) -> Search:
    """Return the parties that carry an address of a wanted person.

    Each question also asks for the canary, else for an address that is known to be there (`witness`), and
    an address that nobody can have must find nobody;
    only a database without any e-mail address (`empty`) is believed without.

    Raises `AnswerUntrusted`, `StoreUnreachable`.
    """
    emails = {one.request: _emails(one) for one in wanted}
    searched = sorted({address for addresses in emails.values() for address in addresses})
    known, proof = _known(reader, canary)
    # A server that gives the same answer whatever it is asked would find what is known to be there.
    if reader.proposed_for([f"{secrets.token_hex(16)}@lethe.invalid"]):
        raise AnswerUntrusted("the search finds an address that nobody has")
    parties_of: dict[str, set[int]] = {address: set() for address in searched}
    sought = {*searched, *([normalised_email(known)] if known else [])}
    odd = [(row["party"], one) for row in reader.odd_mechanisms() for one in held_by(row) & sought]
    for start in range(0, len(searched), AT_ONCE):
        batch = searched[start : start + AT_ONCE]
        rows = reader.mechanisms_with([*batch, *([known] if known else [])])
        if proof == "witness" and batch:
            # What is there was not named by anybody: an answer made up to fit it fits no other question.
            rows += reader.mechanisms_with(batch)
        held = [*odd, *((row["party"], address) for row in rows for address in held_by(row))]
        if known and normalised_email(known) not in {address for _, address in held}:
            raise AnswerUntrusted("the search does not find an address that is there")
        for party, address in held:
            if address in parties_of:
                parties_of[address].add(party)
    families = reader.families({party for parties in parties_of.values() for party in parties})
    parties = {
        request: tuple(sorted({party for address in addresses for party in parties_of[address]}))
        for request, addresses in emails.items()
    }
    return Search(emails, {request: ids for request, ids in parties.items() if ids}, families, proof)


def canary_party(reader: Reader, canary: str) -> int:
    """Return the id of the party that carries the canary address.

    Raises `AnswerUntrusted` where it is not found: then nothing that is not found counts.
    """
    for row in reader.mechanisms_with([canary]):
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
    if reader.some_party_has_email():
        raise AnswerUntrusted("the server shows no address, but parties that have one")
    return None, "empty"


def address_of(family: Family | None, addresses: frozenset[str]) -> tuple[Family, Mechanism, PersonalText]:
    """Return a family, its mechanism that holds what was searched for, and the address as it stands there.

    Raises `AnswerUntrusted` for a party that holds no such address.
    """
    for one in family.mechanisms if family else ():
        for text in (one.value, one.compact):
            if family is not None and text and normalised_email(text) in addresses:
                return family, one, text
    raise AnswerUntrusted("a party was found by an address that it does not hold")


def _record(found: Family | None, addresses: frozenset[str]) -> FoundRecord:
    family, _, matching = address_of(found, addresses)
    return FoundRecord(
        PARTY,
        str(family.root.id),
        family.root.created_at,
        matching,
        shared=any(normalised_email(one) not in addresses for one in family.emails),
        cleared=not family.uncleared,
    )


def _emails(wanted: Wanted) -> frozenset[str]:
    return frozenset(
        normalised_email(one.value.reveal())
        for one in wanted.identifiers
        if one.kind is IdentifierKind.EMAIL and one.value.strip()
    )
