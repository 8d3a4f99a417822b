import hashlib
from dataclasses import dataclass

import pytest

from lethe.domain.journal import HeadMove
from lethe.ports.stores import JournalNotPermitted
from tests.adapters.stores.tryton.conftest import Crm, NoKeys, Opened
from tests.contracts.store_contract import Person, StoreContract, World, somebody


class Fingerprinting(NoKeys):
    """Digests for the contract's tombstones; the store itself is given no keys."""

    def fingerprint(self, purpose: str, *parts: str) -> bytes:
        return hashlib.sha256(repr((purpose, parts)).encode()).digest()


@dataclass
class TrytonWorld(World):
    """The database `crm` as its application, the Tryton client, uses it."""

    crm: Crm | None = None

    def enter(self, person: Person) -> None:
        assert self.crm is not None
        self.crm.person(person.email, name=f"{person.first_name} {person.last_name}")

    def everything(self) -> str:
        assert self.crm is not None
        return "\n".join(self.crm.people())

    def write_back(self, key: str, person: Person) -> None:
        assert self.crm is not None
        values = {"active": True, "name": f"{person.first_name} {person.last_name}"}
        self.crm.rpc("model.party.party.write", [int(key)], values)
        email = {"party": int(key), "type": "email", "value": person.email}
        self.crm.rpc("model.party.contact_mechanism.create", [email])


class TestTrytonStore(StoreContract):
    @pytest.fixture
    def world(self, crm: Crm, opened: Opened) -> TrytonWorld:
        return TrytonWorld(opened(), Fingerprinting(), crm=crm)

    def test_erasing_twice_changes_nothing_more(self, world: World) -> None:
        """Without a journal nothing remembers the counts of the first time: of the second there are none."""
        person = somebody()
        world.enter(person)
        tombstones = world.tombstones_of(person)
        first = world.erase(tombstones)
        before = world.everything()
        again = world.erase(tombstones)
        assert [(e.number, e.of, e.counts) for e in again.entries] == [
            (e.number, e.of, {}) for e in first.entries
        ]
        assert not world.erase_again(tombstones).entries
        assert world.everything() == before

    def test_a_move_of_a_head_that_it_does_not_have_is_refused(self, world: World) -> None:
        with pytest.raises(JournalNotPermitted):
            world.store.erase([], lambda pairs: [], move=HeadMove(None, 1, "0" * 64, 1))
