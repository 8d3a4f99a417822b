"""The ports of a drill: where a copy is restored to be looked at, and what restores it. All methods block."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol


class RestoreFailed(Exception):
    """What restores has failed; `problem` is fit to print. `full`: the disk was, as its own words tell.
    `refused`: it was not begun, for whoever runs Lethe has not provided for it.
    """

    def __init__(self, problem: str, *, full: bool = False, refused: bool = False) -> None:
        self.problem, self.full, self.refused = problem, full, refused
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class ScratchPlace:
    """Which server it is, by everything that may be known of it, and the database connected to there, by its
    number on that server (`None`: not known)."""

    servers: frozenset[str]
    database: str | None


class ScratchServer(Protocol):
    """A server on which databases are made and dropped. Raises `StoreError`."""

    def place(self) -> ScratchPlace:
        """Connect, and return where that has led."""
        ...

    def create(self, database: str, mark: str) -> None:
        """Make an empty database that its role alone may connect to; `mark` stands in its comment."""
        ...

    def marked(self, mark: str) -> Collection[str]:
        """Return the databases that bear a mark: what a process left behind that has ended."""
        ...

    def drop(self, database: str) -> bool:
        """Drop a database with all connections to it; `False` if there was none."""
        ...

    def size(self, database: str) -> int:
        """Return the size of a database in bytes."""
        ...

    def missing(self, database: str, tables: Collection[str]) -> Collection[str]:
        """Return which of these tables a database lacks."""
        ...

    def is_empty(self, database: str, table: str) -> bool:
        """Tell whether a table has no row."""
        ...

    def contents(self, database: str) -> Mapping[str, str]:
        """Return a digest of each thing in a database, by kind and name, equal for two that hold the same.
        That of a table is of its rows, in any order.
        """
        ...

    def url_of(self, database: str) -> str:
        """Return the URL of a database on this server, as libpq takes it. It holds the password."""
        ...

    def anew(self) -> ScratchServer:
        """Return the same server, after `close`."""
        ...

    def close(self) -> None:
        """Give back every connection; what is under way ends soon."""
        ...


URL_VARIABLE = "LETHE_SCRATCH_URL"
"""The variable that is secret: the password is in it."""


@dataclass(frozen=True, slots=True)
class RestoreOrder:
    """What is to be restored: a snapshot as its source calls it, where that looks, into which database."""

    snapshot: str
    place: str
    url: str = field(repr=False)  # the password is in it

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that tell it; `URL_VARIABLE` is secret."""
        return {
            "LETHE_SNAPSHOT": self.snapshot,
            "LETHE_SNAPSHOT_PLACE": self.place,
            URL_VARIABLE: self.url,
        }


Restorer = Callable[[RestoreOrder, Callable[[], bool]], None]
"""Restores a snapshot, and returns when that has ended. The function that it is given tells whether to stop:
then it ends what it has begun, and returns. Raises `RestoreFailed`.
"""
