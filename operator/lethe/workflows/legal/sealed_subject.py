"""What is sealed for a legal request: by what to find its subject, and how to reach who was erased since."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lethe.domain.identifiers import Identifier, IdentifierKind, PersonalText, masked_as_personal
from lethe.ports.stores import Contact


@dataclass(frozen=True, slots=True)
class SealedSubject:
    """The identifiers that a Secret named, and how to reach who is erased and still to be told."""

    identifiers: tuple[Identifier, ...] = ()
    contact: Contact | None = None

    def text(self) -> bytes:
        """Return the plain text that is sealed."""
        found: dict[str, object] = {
            "identifiers": [[one.kind.value, one.value.reveal()] for one in self.identifiers]
        }
        if self.contact is not None:
            contact = self.contact
            found["contact"] = {
                "table": contact.table,
                "key": contact.key,
                "email": _revealed(contact.email),
                "locale": contact.locale,
                "timeZone": contact.time_zone,
                "name": _revealed(contact.name),
            }
        return json.dumps(found).encode()

    @classmethod
    def read(cls, text: bytes | None) -> SealedSubject:
        """Return what was sealed; nothing where it was destroyed."""
        if text is None:
            return cls()
        found = json.loads(text)
        identifiers = tuple(
            Identifier(IdentifierKind(kind), PersonalText(value)) for kind, value in found["identifiers"]
        )
        kept = found.get("contact")
        if kept is None:
            return cls(identifiers)
        contact = Contact(
            kept["table"],
            kept["key"],
            masked_as_personal(kept["email"]),
            kept["locale"],
            kept["timeZone"],
            masked_as_personal(kept["name"]),
        )
        return cls(identifiers, contact)


def _revealed(text: PersonalText | None) -> str | None:
    return None if text is None else text.reveal()
