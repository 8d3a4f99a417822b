"""What every backend of backups must do. Subclass `BackendContract` and give it the fixture `world`.

A backend is seen from outside: `World` lays snapshots down as a backup job does, and shows every byte that
lies there without the adapter's help. What a backend's own oddities are has tests beside the adapter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from lethe.domain.facts import ListedSnapshot
from lethe.ports.backups import (
    Backend,
    BackendError,
    BackendMisconfigured,
    BackendUnavailable,
    DeletionResult,
    Pin,
)

FIRST_NIGHT = datetime(2026, 2, 27, 3, 0, 0, tzinfo=UTC)
NEVER_LISTED = (
    "",
    ".",
    "..",
    "/",
    "*",
    "../x",
    "x/../../y",
    "/etc/hostname",
    "a\0b",
    "no such name",
    "-rf",
    "--all",
    "latest",
    "\n",
    "\udcff",
    "x" * 5000,
)
"""Refs that no listing shows: they escape, or mean something else than a snapshot."""


@dataclass
class World(ABC):
    """A backend under test and the ways of others into the place where its snapshots lie.

    The place is empty at first. Instants are in whole seconds, UTC, and each is given only once.
    """

    backend: Backend

    @abstractmethod
    def put(self, taken_at: datetime) -> str:
        """Let the backup job take a snapshot whose contents are found nowhere else; return its ref."""

    @abstractmethod
    def remove(self, ref: str) -> None:
        """Let somebody else delete a snapshot, bytes and all."""

    @abstractmethod
    def put_elsewhere(self) -> str:
        """Lay a snapshot of the same kind beside what the source covers (another prefix, directory, host).

        Return the ref that would reach it if nobody looked.
        """

    @abstractmethod
    def contents(self) -> Mapping[str, bytes]:
        """Return all that lies there, also beside what the source covers: by name, byte for byte.

        A snapshot's name is its ref; it is absent when no byte of it is left.
        """

    @abstractmethod
    def away(self) -> AbstractContextManager[Backend]:
        """Make the place unreachable, or its credentials wrong, and give a backend that meets this."""

    @abstractmethod
    def misplaced(self) -> tuple[Backend, str]:
        """Return a backend of which one field leads to nowhere, and that field's name."""

    def replace(self, ref: str) -> bool:
        """Put other contents under the name of a snapshot; `False` where names can't be used again."""
        return False

    def put_unparsable(self) -> str | None:
        """Lay something down that does not tell when it was taken, and return its name in the listing.

        `None`: every snapshot tells.
        """
        return None

    def put_unfinished(self) -> str | None:
        """Lay something down that is still being written, and return its name in the listing.

        `None`: what is unfinished does not show.
        """
        return None

    @property
    def secrets(self) -> Sequence[str]:
        """Return the texts that no error may hold."""
        return ()

    def nights(self, count: int) -> list[str]:
        """Take a snapshot in each of `count` nights; return their refs."""
        return [self.put(FIRST_NIGHT + timedelta(days=night)) for night in range(count)]

    def seen(self) -> dict[str, ListedSnapshot]:
        """Return what a listing shows, by ref."""
        return {one.ref: one for one in self.backend.list().snapshots}

    def pin(self, *refs: str) -> list[Pin]:
        """Pin what lies under `refs` now."""
        seen = self.seen()
        return [Pin(ref, seen[ref].pieces) for ref in refs]

    def delete_one(self, pin: Pin) -> DeletionResult:
        """Delete a set of one."""
        (deletion,) = self.backend.delete([pin]).values()
        return deletion.result


class BackendContract:
    """`world` is a place without any snapshot."""

    def test_an_empty_place_has_no_snapshots(self, world: World) -> None:
        listing = world.backend.list()
        assert (list(listing.snapshots), list(listing.unparsable), list(listing.partial)) == ([], [], [])

    def test_every_snapshot_is_listed_with_the_moment_it_was_taken(self, world: World) -> None:
        nights = [FIRST_NIGHT + timedelta(days=night, seconds=night) for night in range(4)]
        refs = [world.put(night) for night in nights]
        listing = world.backend.list()
        assert {one.ref: one.taken_at for one in listing.snapshots} == dict(zip(refs, nights, strict=True))
        assert len(listing.snapshots) == len(refs)
        for one in listing.snapshots:
            assert one.pieces
            assert one.size is None or one.size > 0
            for moment in (one.taken_at, *one.evidence):
                assert moment.utcoffset() == timedelta(0)
        assert not listing.unparsable
        assert not listing.partial

    def test_two_listings_of_what_nobody_touched_are_equal(self, world: World) -> None:
        world.nights(3)
        first = world.seen()
        assert len(first) == 3
        assert world.seen() == first

    def test_a_backends_clock_tells_the_present(self, world: World) -> None:
        date = world.backend.list().date
        if date is None:
            pytest.skip("this backend has no clock")
        assert abs(date - datetime.now(UTC)) < timedelta(minutes=5)

    def test_what_does_not_tell_when_it_was_taken_is_reported_and_never_deleted(self, world: World) -> None:
        name = world.put_unparsable()
        if name is None:
            pytest.skip("every snapshot tells when it was taken")
        (ref,) = world.nights(1)
        listing = world.backend.list()
        assert list(listing.unparsable) == [name]
        assert [one.ref for one in listing.snapshots] == [ref]
        self._is_never_touched(world, name)

    def test_what_is_unfinished_is_reported_and_never_deleted(self, world: World) -> None:
        name = world.put_unfinished()
        if name is None:
            pytest.skip("what is unfinished does not show")
        (ref,) = world.nights(1)
        listing = world.backend.list()
        assert [one.name for one in listing.partial] == [name]
        changed_at = listing.partial[0].changed_at
        assert changed_at is None or abs(changed_at - datetime.now(UTC)) < timedelta(minutes=5)
        assert [one.ref for one in listing.snapshots] == [ref]
        self._is_never_touched(world, name)

    def test_a_deleted_snapshot_is_proven_gone_and_no_other_is_touched(self, world: World) -> None:
        first, second, third = world.nights(3)
        world.put_elsewhere()
        before = world.contents()
        assert world.delete_one(*world.pin(second)) is DeletionResult.ACCEPTED
        assert world.backend.gone([second]) == {}
        assert world.contents() == {name: content for name, content in before.items() if name != second}
        assert set(world.seen()) == {first, third}

    def test_a_set_is_deleted_at_once(self, world: World) -> None:
        refs = world.nights(5)
        results = world.backend.delete(world.pin(*refs[:4]))
        assert {ref: one.result for ref, one in results.items()} == dict.fromkeys(
            refs[:4], DeletionResult.ACCEPTED
        )
        assert world.backend.gone(refs[:4]) == {}
        assert set(world.seen()) == {refs[4]}

    def test_all_of_them_may_be_deleted(self, world: World) -> None:
        refs = world.nights(2)
        world.backend.delete(world.pin(*refs))
        assert world.backend.gone(refs) == {}
        assert not world.seen()

    def test_nothing_asked_nothing_done(self, world: World) -> None:
        world.nights(1)
        before = world.contents()
        assert world.backend.delete([]) == {}
        assert world.backend.gone([]) == {}
        assert world.contents() == before

    def test_what_still_lies_there_is_not_gone(self, world: World) -> None:
        refs = world.nights(2)
        remains = world.backend.gone(refs)
        assert set(remains) == set(refs)
        assert all(remains.values())

    def test_contents_that_were_replaced_since_the_listing_are_not_deleted(self, world: World) -> None:
        replaced, other = world.nights(2)
        pins = world.pin(replaced, other)
        if not world.replace(replaced):
            pytest.skip("a name can't be used again")
        before = world.contents()
        results = world.backend.delete(pins)
        assert results[replaced].result is DeletionResult.IDENTITY_MISMATCH
        assert results[replaced].message
        assert results[other].result is DeletionResult.ACCEPTED
        assert world.contents() == {name: content for name, content in before.items() if name != other}
        assert set(world.backend.gone([replaced, other])) == {replaced}

    def test_contents_that_were_replaced_show_in_the_pieces(self, world: World) -> None:
        (ref,) = world.nights(1)
        before = world.seen()[ref]
        if not world.replace(ref):
            pytest.skip("a name can't be used again")
        assert not set(world.seen()[ref].pieces) <= set(before.pieces)

    def test_a_snapshot_of_which_other_pieces_were_pinned_is_not_deleted(self, world: World) -> None:
        one, another = world.nights(2)
        pins = world.pin(one, another)
        before = world.contents()
        for pieces in ((), ("something else",), pins[1].pieces):
            assert world.delete_one(Pin(one, pieces)) is DeletionResult.IDENTITY_MISMATCH
        assert world.contents() == before

    def test_deleting_again_is_harmless(self, world: World) -> None:
        deleted, kept = world.nights(2)
        pins = world.pin(deleted)
        for _ in range(2):
            assert world.delete_one(*pins) is DeletionResult.ACCEPTED
            assert world.backend.gone([deleted]) == {}
        assert set(world.seen()) == {kept}

    def test_what_somebody_else_deleted_is_accepted_and_gone(self, world: World) -> None:
        removed, kept = world.nights(2)
        pins = world.pin(removed)
        world.remove(removed)
        before = world.contents()
        assert world.delete_one(*pins) is DeletionResult.ACCEPTED
        assert world.backend.gone([removed]) == {}
        assert world.contents() == before
        assert set(world.seen()) == {kept}

    def test_a_ref_that_no_listing_shows_touches_nothing(self, world: World) -> None:
        world.nights(1)
        self._is_never_touched(world, *NEVER_LISTED)

    def test_what_lies_beside_the_source_is_neither_listed_nor_touched(self, world: World) -> None:
        elsewhere = world.put_elsewhere()
        (ref,) = world.nights(1)
        assert set(world.seen()) == {ref}
        self._is_never_touched(world, elsewhere)

    def test_a_backend_that_is_away_says_so_without_its_credentials(self, world: World) -> None:
        (ref,) = world.nights(1)
        pins = world.pin(ref)
        with world.away() as backend:
            for asked in (backend.list, lambda: backend.delete(pins), lambda: backend.gone([ref])):
                with pytest.raises(BackendUnavailable) as raised:
                    asked()
                self._is_fit_to_print(world, raised.value)
        assert set(world.seen()) == {ref}

    def test_a_field_that_leads_to_nowhere_is_named(self, world: World) -> None:
        backend, field = world.misplaced()
        with pytest.raises(BackendMisconfigured) as raised:
            backend.list()
        self._is_fit_to_print(world, raised.value)
        assert field in str(raised.value)
        for asked in (lambda: backend.delete([Pin("x", ("y",))]), lambda: backend.gone(["x"])):
            with pytest.raises(BackendMisconfigured):
                asked()

    @staticmethod
    def _is_never_touched(world: World, *refs: str) -> None:
        """Neither is any deleted, nor does anybody claim that it is gone: nobody has looked for it."""
        pieces = [piece for one in world.seen().values() for piece in one.pieces]
        before = world.contents()
        for pinned in ((), ("something else",), tuple(pieces)):
            deletions = world.backend.delete([Pin(ref, pinned) for ref in refs])
            assert set(deletions) == set(refs)
            for ref, deletion in deletions.items():
                assert deletion.result is not DeletionResult.ACCEPTED, ref
                assert deletion.message
        remains = world.backend.gone(refs)
        assert set(remains) == set(refs)
        assert all(remains.values())
        assert world.contents() == before

    @staticmethod
    def _is_fit_to_print(world: World, error: BackendError) -> None:
        text = f"{error!r} {error} {error.problem} {error.remedy}"
        assert error.problem
        assert not any(secret in text for secret in world.secrets)
