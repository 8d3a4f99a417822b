"""What every store that keeps a journal must do besides. Subclass `JournaledContract`, with `world`."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import pytest

from lethe.domain.journal import Head, HeadMove, next_move
from lethe.domain.tombstones import match_unchanged_rows
from lethe.ports.stores import HeadMoved, Journaled, JournalSupport
from tests.contracts.store_contract import World, somebody


@dataclass
class JournaledWorld(World):
    """A store that keeps a journal; `token` is the fencing token of whoever leads."""

    token: int = 1

    @property
    def journal(self) -> Journaled:
        assert isinstance(self.store, Journaled)
        return self.store

    def head(self) -> Head | None:
        """Return where the journal stands."""
        return self.store.observe().head

    def move(self) -> HeadMove:
        return next_move(self.head(), after_move=0, token=self.token, nonce=secrets.token_bytes(8))


class JournaledContract:
    """`world` has a journal that nothing was written to yet."""

    def test_it_says_that_it_keeps_a_journal(self, world: JournaledWorld) -> None:
        assert world.store.prove().journal is JournalSupport.KEPT
        assert world.head() is None

    def test_a_tick_moves_the_head_and_the_next_look_shows_it(self, world: JournaledWorld) -> None:
        for number in (1, 2, 3):
            moved = world.journal.tick(world.move())
            assert (moved.move, world.head()) == (number, moved)

    def test_a_first_head_is_made_only_where_there_is_none(self, world: JournaledWorld) -> None:
        world.journal.tick(world.move())
        with pytest.raises(HeadMoved):
            world.journal.tick(HeadMove(None, 9, "f" * 64, 1))

    def test_a_move_from_where_the_head_does_not_stand_commits_nothing(self, world: JournaledWorld) -> None:
        person = somebody()
        world.enter(person)
        tombstones, late = world.tombstones_of(person), world.move()
        head, before = world.journal.tick(world.move()), world.everything()
        with pytest.raises(HeadMoved):
            world.journal.tick(late)
        with pytest.raises(HeadMoved):
            world.store.erase(tombstones, match_unchanged_rows(world.fingerprints), move=late)
        assert (world.head(), world.everything()) == (head, before)

    def test_an_earlier_leader_is_fenced_out(self, world: JournaledWorld) -> None:
        world.token = 2
        world.journal.tick(world.move())
        world.token = 1
        with pytest.raises(HeadMoved):
            world.journal.tick(world.move())

    def test_entries_tell_what_a_move_did(self, world: JournaledWorld) -> None:
        persons = [somebody() for _ in range(3)]
        for person in persons:
            world.enter(person)
        tombstones, move = world.tombstones_of(*persons), world.move()
        outcome = world.store.erase(tombstones, match_unchanged_rows(world.fingerprints), move=move)
        assert world.journal.entries_of(move.move) == outcome.entries
        assert world.journal.entries_of(move.move + 1) == ()
        numbers = [number for chunk in world.journal.journaled_numbers() for number in chunk]
        assert sorted(numbers) == [one.number for one in tombstones]

    def test_what_was_erased_again_stands_for_the_tombstone_that_it_is_of(
        self, world: JournaledWorld
    ) -> None:
        person = somebody()
        world.enter(person)
        (tombstone,) = world.tombstones_of(person)
        world.erase([tombstone])
        world.write_back(tombstone.key, person)
        (again,) = world.erase_again([tombstone]).entries
        assert (again.of, again.number > tombstone.number) == (tombstone.number, True)
        numbers = {number for chunk in world.journal.journaled_numbers() for number in chunk}
        assert numbers == {tombstone.number}

    def test_nothing_of_a_person_is_changed_by_what_is_done_besides_erasing(
        self, world: JournaledWorld
    ) -> None:
        world.enter(somebody())
        head, before = world.journal.tick(world.move()), world.everything()
        world.journal.tidy()
        world.journal.advance_sequences(head.positions)
        assert (world.head(), world.everything()) == (head, before)
