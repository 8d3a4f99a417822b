"""What other controllers ask of a store: calls that are answered between two passes, or refused in time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from lethe.workflows.reaching import SubjectContact

CONTACT_SECONDS = 10.0
"""How long a Primary may take to say how subjects are reached; notices of other namespaces wait as long."""


class StoreBusy(Exception):
    """A store can't answer now; the message says why, for a person."""


class AsksPrimary(Protocol):
    """Asks the Primary of a namespace."""

    async def find_contacts(self, namespace: str, legals: Collection[str]) -> Mapping[str, SubjectContact]:
        """Ask the Primary of a namespace how subjects of legal requests are reached, between two passes.

        Raises `StoreBusy` (message for a person: no Primary, in trouble, being replayed, or it did not answer
        within CONTACT_SECONDS).
        """
        ...
