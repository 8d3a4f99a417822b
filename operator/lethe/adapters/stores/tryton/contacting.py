"""How persons are reached: the address that was searched for, the party's name and language."""

from __future__ import annotations

from collections.abc import Sequence

from lethe.adapters.stores.tryton.finding import address_of, search_for
from lethe.adapters.stores.tryton.reading import Reader
from lethe.adapters.stores.tryton.records import PARTY, Family, Mechanism, Party
from lethe.domain.identifiers import PersonalText, email_identifier
from lethe.ports.stores import Contact, Wanted


def contacts_of(
    reader: Reader, wanted: Sequence[Wanted], *, canary: str | None, max_records: int
) -> dict[str, tuple[Contact, ...]]:
    """Return how each wanted person is reached, by request, of at most `max_records` parties each.

    Raises `AnswerUntrusted`, `StoreUnreachable`.
    """
    search = search_for(reader, wanted, canary=canary)
    held = {
        request: [
            address_of(search.families.get(party), search.addresses[request])
            for party in parties[:max_records]
        ]
        for request, parties in search.parties.items()
    }
    codes = reader.language_codes(family.root.id for found in held.values() for family, _, _ in found)
    return {
        request: tuple(_contact(family, mechanism, text, codes) for family, mechanism, text in found)
        for request, found in held.items()
    }


def _contact(family: Family, mechanism: Mechanism, text: PersonalText, codes: dict[int, str]) -> Contact:
    party = family.root
    if not family.uncleared or mechanism.value_was_erased:
        return Contact(PARTY, str(party.id), None, cleared=True)
    return Contact(PARTY, str(party.id), _address(text), codes.get(party.id), None, _name(party))


def _address(text: PersonalText) -> PersonalText | None:
    try:
        return email_identifier(text.reveal()).value
    except ValueError:
        return None


def _name(party: Party) -> PersonalText | None:
    words = party.name.reveal().split() if party.name is not None else []
    return PersonalText(" ".join(words)) if words else None
