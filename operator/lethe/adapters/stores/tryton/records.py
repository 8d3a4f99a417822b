"""What Tryton holds of a person, as records read over RPC, and what of it an erasure has yet to clear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from lethe.domain.identifiers import PersonalText, email_identifier, same_email

PARTY = "party.party"
MECHANISM = "party.contact_mechanism"
ADDRESS = "party.address"
IDENTIFIER = "party.identifier"
LANGUAGE = "party.party.lang"
ATTACHMENT = "ir.attachment"
AVATAR = "ir.avatar"

ERASED = "erased"
_ERASED_TEXTS = frozenset({ERASED, "****"})
"""What a cleared text is: ours, or what Tryton's own wizard writes."""

ADDRESS_FIELDS = (
    "party_name", "attn", "street_unstructured", "street_name", "building_name", "building_number",
    "unit_number", "floor_number", "room_number", "post_box", "private_bag", "post_office",
    "postal_code", "city", "country", "subdivision",
)  # fmt: skip
"""What the wizard empties in an address."""


@dataclass(frozen=True, slots=True)
class Party:
    """One row of `party.party`, last written at `changed_at`.

    `languages` are its rows of `party.party.lang`, one per company.
    """

    id: int
    active: bool
    name: PersonalText | None
    created_at: str | None
    changed_at: str | None = None
    languages: tuple[int, ...] = ()

    @property
    def clear(self) -> bool:
        """Tell whether nothing is left of the person in the row itself."""
        return not self.active and not self.name


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One row of `party.contact_mechanism`. Tryton keeps the value twice; its wizard erases it once."""

    id: int
    type: str
    value: PersonalText | None
    compact: PersonalText | None
    described: bool
    languages: tuple[int, ...] = ()

    @property
    def clear(self) -> bool:
        """Tell whether neither copy of the value nor anything beside it is left."""
        return (
            all(text is None or text in _ERASED_TEXTS for text in (self.value, self.compact))
            and not self.described
            and not self.languages
        )

    @property
    def value_was_erased(self) -> bool:
        """Tell whether an erasure went over the value, whatever the second copy still holds."""
        return self.value in _ERASED_TEXTS

    @property
    def emails(self) -> tuple[PersonalText, ...]:
        """Return the addresses that this row holds as e-mail, and those that somebody's earlier use of the
        wizard left in the second copy."""
        texts = [self.value, self.compact] if self.type == "email" else []
        if self.value in _ERASED_TEXTS and self.compact is not None and _is_email(self.compact):
            texts.append(self.compact)
        found: list[PersonalText] = []
        for text in texts:
            if text and text not in _ERASED_TEXTS and not any(same_email(text, other) for other in found):
                found.append(text)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Family:
    """A party and those that were merged into it (`replaced_by`), which the wizard erases with it; the
    first of `parties` is the one that was asked for. `resources` are ids by model."""

    parties: tuple[Party, ...]
    mechanisms: tuple[Mechanism, ...] = ()
    uncleared_addresses: tuple[int, ...] = ()
    uncleared_identifiers: tuple[int, ...] = ()
    resources: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    files: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def root(self) -> Party:
        """Return the party that was asked for."""
        return self.parties[0]

    @property
    def emails(self) -> tuple[PersonalText, ...]:
        """Return every e-mail address that any row of the family holds."""
        return tuple(address for mechanism in self.mechanisms for address in mechanism.emails)

    @property
    def uncleared(self) -> dict[str, int]:
        """Return how many rows of each model an erasure has yet to change; empty is cleared."""
        counts = Counter(
            {
                PARTY: sum(not party.clear for party in self.parties),
                LANGUAGE: sum(len(party.languages) for party in self.parties),
                MECHANISM: sum(not mechanism.clear for mechanism in self.mechanisms),
                ADDRESS: len(self.uncleared_addresses),
                IDENTIFIER: len(self.uncleared_identifiers),
            }
        )
        counts.update({model: len(ids) for model, ids in self.resources.items()})
        return {model: count for model, count in counts.items() if count}


def is_erased_text(text: str | None) -> bool:
    """Tell whether a text that can't be NULL holds what an erasure writes."""
    return not text or text in _ERASED_TEXTS


def _is_email(text: str) -> bool:
    try:
        email_identifier(text)
    except ValueError:
        return False
    return True
