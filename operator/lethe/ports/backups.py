"""The port to where snapshots lie. Every method takes a set; one snapshot is a set of one.

All methods block and are called in a worker thread, never two at once on one backend. A backend never
touches what its listing would not show: other prefixes, names that don't parse, what lies behind links.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from lethe.domain.facts import ListedSnapshot
from lethe.domain.snapshots import UnfinishedSnapshot


class BackendError(Exception):
    """A backend can't be used. `problem` and `remedy` are fit to print: no credentials, no content."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}; {remedy}" if remedy else problem)


class BackendUnavailable(BackendError):
    """The backend is away, or refuses these credentials. It is tried again; nothing is concluded."""


class BackendMisconfigured(BackendError):
    """The manifest can't be meant like this: no such bucket, no such directory, a bad name pattern."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a backend, complete.

    `unparsable` are names of which nobody can tell when they were taken, `partial` what is still being
    written, or was left behind unfinished; neither is ever deleted. `date` is the backend's own clock
    (`None`: it has none).
    """

    snapshots: Sequence[ListedSnapshot]
    unparsable: Sequence[str] = ()
    partial: Sequence[UnfinishedSnapshot] = ()
    date: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pin:
    """Exactly the snapshot that is meant: nothing is deleted if `ref` holds any other piece by now."""

    ref: str
    pieces: tuple[str, ...]


class DeletionResult(StrEnum):
    """What came of one deletion."""

    ACCEPTED = "Accepted"
    """The backend said yes, or there was nothing left to delete."""
    IDENTITY_MISMATCH = "IdentityMismatch"
    """Something else lies there by now. Nothing of it was deleted."""
    LOCKED = "ObjectLocked"
    """A retention lock or legal hold of the backend keeps it."""
    NOT_PERMITTED = "NotPermitted"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Deletion:
    """What came of one deletion; `message` is for a person, `until` when a lock ends, where it is known."""

    result: DeletionResult
    message: str = ""
    until: datetime | None = None


class Backend(Protocol):
    """One place in which snapshots lie, configured with its credentials."""

    def list(self) -> Listing:
        """Return everything that lies there, page by page to the end.

        Raises `BackendUnavailable`, `BackendMisconfigured`.
        """
        ...

    def delete(self, pins: Sequence[Pin]) -> Mapping[str, Deletion]:
        """Delete snapshots, each only if it still is what was pinned, compared right before; by ref.

        One that can't be deleted does not stop the others. Calling it again is harmless.
        Raises `BackendUnavailable` (what was done is in doubt: call again), `BackendMisconfigured`.
        """
        ...

    def gone(self, refs: Collection[str]) -> Mapping[str, str]:
        """Look for the bytes of snapshots that were deleted; return what remains of each, by ref. It may
        be what removes them, where a repository does so for many at once.

        A ref that is absent from the answer is proven gone: no version, no delete marker, no unfinished
        upload, no file. The texts are for a person. Raises as `delete` does.
        """
        ...

    def close(self) -> None:
        """Give back every connection."""
        ...
