"""The port to where snapshots lie. Every method takes a set; one snapshot is a set of one.

All methods block and are called in a worker thread, never two at once on one backend. A backend never
touches what its listing would not show: other prefixes, names that don't parse, what lies behind links. What
`Rewritable` adds may be called while another method goes on; `replace` is called in between only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, cast

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


class RewriteRefused(Exception):
    """A snapshot was left as it is; `problem` says why, and is fit to print. `changed`: it is gone by now, or
    another one, and nothing is wrong."""

    def __init__(self, problem: str, *, changed: bool = False) -> None:
        self.problem, self.changed = problem, changed
        super().__init__(problem)


class Rewritable(Protocol):
    """What a backend offers besides `Backend` whose snapshots can be replaced by others.

    A new one is written in a place of its own, which `list` shows as unfinished since before it was made.
    """

    def stage(self) -> str:
        """Make a place for new snapshots, and return it. Raises as `Backend.list` does."""
        ...

    def dress(self, place: str, pin: Pin, former: Collection[str] = ()) -> ListedSnapshot:
        """Give what was written to a place, under the name of a snapshot, the dates, owner and mode of that;
        return it as `list` will show it once it has replaced that: with none of its pieces, nor of the
        `former` ones that it had. Raises `RewriteRefused`, and as `list`.
        """
        ...

    def replace(self, place: str, pin: Pin, new: ListedSnapshot) -> None:
        """Let the new one be in the snapshot's place, at once, if both still are what they were; lastingly.

        Raises `RewriteRefused` (nothing was done), and as `list` does (what was done is in doubt).
        """
        ...

    def unstage(self, place: str | None = None) -> None:
        """Destroy a place and what lies there; all there are if none is named. Raises as `list` does."""
        ...


def rewritable(backend: Backend) -> Rewritable | None:
    """Return the backend, if its snapshots can be replaced."""
    return cast("Rewritable", backend) if callable(getattr(backend, "unstage", None)) else None
