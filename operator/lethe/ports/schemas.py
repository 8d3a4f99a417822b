"""The port to the schema of a database that nobody has mapped yet. All methods block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from lethe.domain.mapping import SubjectMapping
from lethe.domain.mapping_proposal import SeenTable
from lethe.ports.stores import MappingProblem


class Schema(Protocol):
    """What a live database shows of its schema; nothing in it is changed. Raises `StoreError`."""

    def database(self) -> str:
        """Return the name of the database."""
        ...

    def tables(self) -> Mapping[str, SeenTable]:
        """Return every table that holds rows of the database's users, by the name that a mapping writes."""
        ...

    def problems(self, mapping: SubjectMapping) -> Sequence[MappingProblem]:
        """Return what the live schema refuses of a mapping; nothing: it fits."""
        ...

    def close(self) -> None:
        """Give back every connection."""
        ...
