"""What every store must do. Subclass `StoreContract` and give it the fixture `world`.

A store is seen from outside: `World` makes persons, reads their records as the application does, and puts
back what was erased. What a journal needs besides is in `journaled_contract`; what a store proves or refuses
beyond this has tests of its own.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from lethe.domain.identifiers import (
    Identifier,
    IdentifierKind,
    PersonalText,
    email_identifier,
    normalised_email,
)
from lethe.domain.journal import HeadMove
from lethe.domain.tombstones import Fingerprints, Tombstone, match_restored_rows, match_unchanged_rows
from lethe.ports.keys import Keyring
from lethe.ports.stores import (
    Contact,
    ErasureOutcome,
    FoundRecord,
    Journaled,
    JournalSupport,
    Residue,
    Store,
    Wanted,
)

_names = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Person:
    """A made-up person; every text is found nowhere else."""

    email: str
    first_name: str
    last_name: str

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.email, self.first_name, self.last_name)


def somebody() -> Person:
    """Return a person that no other call returns."""
    number = next(_names)
    return Person(f"Canary.{number:06}q@Example.org", f"Firstcanary{number:06}q", f"Lastcanary{number:06}q")


@dataclass
class World(ABC):
    """A store under test and the way of the application into it."""

    store: Store
    keyring: Keyring
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @abstractmethod
    def enter(self, person: Person) -> None:
        """Let the application make a record of a person."""

    @abstractmethod
    def everything(self) -> str:
        """Return all that the application could show of all persons, as one text."""

    @abstractmethod
    def write_back(self, key: str, person: Person) -> None:
        """Let the application write a person's values into the record again, as a stale session does."""

    def move(self) -> HeadMove | None:
        """Return the move of the next transaction; `None` for a store without journal."""
        return None

    @property
    def mapping_version(self) -> str:
        """Return the version of the mapping that was proved."""
        return self.store.prove().proved.version

    @property
    def fingerprints(self) -> Fingerprints:
        return Fingerprints(
            lambda text: self.keyring.fingerprint("created-at", text),
            lambda text: self.keyring.fingerprint("email", normalised_email(text)),
        )

    def find(self, *identifiers: Identifier) -> Sequence[FoundRecord]:
        """Return the records of one person."""
        return self.store.find([Wanted("request", identifiers)]).records.get("request", ())

    def find_by_email(self, email: str) -> Sequence[FoundRecord]:
        return self.find(email_identifier(email))

    def reach(self, *identifiers: Identifier) -> Sequence[Contact]:
        """Return how one person is reached."""
        return self.store.contacts([Wanted("request", identifiers)]).get("request", ())

    def tombstones_of(self, *persons: Person) -> list[Tombstone]:
        """Find persons and return the tombstones of all their records."""
        version, digests = self.mapping_version, self.fingerprints
        return [
            Tombstone(
                next(self.numbers),
                "request",
                one.table,
                one.key,
                version,
                None if one.created_at is None else digests.created_at(one.created_at),
                None if one.email is None else digests.email(one.email.reveal()),
            )
            for person in persons
            for one in self.find_by_email(person.email)
        ]

    def erase(self, tombstones: Sequence[Tombstone]) -> ErasureOutcome:
        """Erase for the first time."""
        return self.store.erase(tombstones, match_unchanged_rows(self.fingerprints), move=self.move())

    def erase_again(self, tombstones: Sequence[Tombstone]) -> ErasureOutcome:
        """Erase as a replay or sweep does."""
        first = max((one.number for one in tombstones), default=0) + 1_000
        return self.store.erase(
            tombstones, match_restored_rows(self.fingerprints), move=self.move(), first_number=first
        )

    def check(self, *chunks: Sequence[Tombstone]) -> Residue:
        return self.store.check(chunks, match_restored_rows(self.fingerprints))


class StoreContract:
    """`world` holds nobody yet but the canaries that it needs."""

    def test_it_can_do_what_a_journal_needs_unless_it_says_that_it_can_t(self, world: World) -> None:
        supported = world.store.prove().journal is not JournalSupport.NOT_SUPPORTED
        assert isinstance(world.store, Journaled) is supported

    def test_a_person_is_found_by_an_address_in_other_letters(self, world: World) -> None:
        person = somebody()
        world.enter(person)
        for written in (person.email, person.email.upper(), f"  {person.email.lower()} "):
            (found,) = world.find_by_email(written)
            assert found.email is not None
            assert found.email.reveal() == person.email

    def test_only_an_exact_address_finds_anybody(self, world: World) -> None:
        person = somebody()
        world.enter(person)
        local, _, domain = person.email.partition("@")
        for other in (f"{local}@x{domain}", f"x{local}@{domain}", f"%@{domain}", f"{local[:-1]}_@{domain}"):
            assert not world.find_by_email(other)

    def test_what_looks_like_sql_or_a_pattern_finds_nobody(self, world: World) -> None:
        world.enter(somebody())
        for text in ("'or'1'='1'--@example.org", "*@example.org", "%@%", "\\@example.org", '"@example.org'):
            assert not world.find_by_email(text)

    def test_each_request_gets_its_own_persons_record(self, world: World) -> None:
        persons = [somebody() for _ in range(5)]
        for person in persons:
            world.enter(person)
        wanted = [Wanted(person.first_name, (email_identifier(person.email),)) for person in persons]
        found = world.store.find(wanted).records
        for person in persons:
            (record,) = found[person.first_name]
            assert record.email is not None
            assert record.email.reveal() == person.email

    def test_an_absence_is_proved(self, world: World) -> None:
        world.enter(somebody())
        finding = world.store.find([Wanted("nobody", (email_identifier(somebody().email),))])
        assert not finding.records
        assert finding.proof is not None

    def test_an_erased_person_is_read_back_as_cleared(self, world: World) -> None:
        person = somebody()
        world.enter(person)
        tombstones = world.tombstones_of(person)
        outcome = world.erase(tombstones)
        assert [entry.of for entry in outcome.entries] == [one.number for one in tombstones]
        assert not any(text.lower() in world.everything().lower() for text in person.texts)
        assert world.check(tombstones) == Residue()
        assert not world.find_by_email(person.email)

    def test_somebody_elses_record_is_untouched(self, world: World) -> None:
        person, other = somebody(), somebody()
        world.enter(person)
        world.enter(other)
        world.erase(world.tombstones_of(person))
        assert all(text in world.everything() for text in other.texts)

    def test_erasing_twice_changes_nothing_more(self, world: World) -> None:
        person = somebody()
        world.enter(person)
        tombstones = world.tombstones_of(person)
        first = world.erase(tombstones)
        before = world.everything()
        assert world.erase(tombstones).entries == first.entries
        assert not world.erase_again(tombstones).entries
        assert world.everything() == before

    def test_a_person_who_is_written_back_is_residue_and_erased_again(self, world: World) -> None:
        person, other = somebody(), somebody()
        world.enter(person)
        world.enter(other)
        tombstones = world.tombstones_of(person)
        world.erase(tombstones)
        world.write_back(tombstones[0].key, person)
        assert tombstones[0].number in world.check(tombstones).uncleared
        assert [entry.of for entry in world.erase_again(tombstones).entries] == [tombstones[0].number]
        assert not any(text.lower() in world.everything().lower() for text in person.texts)
        assert all(text in world.everything() for text in other.texts)
        assert world.check(tombstones) == Residue()

    def test_a_plan_changes_nothing(self, world: World) -> None:
        person = somebody()
        world.enter(person)
        tombstones = world.tombstones_of(person)
        before = world.everything()
        counts = world.store.plan(tombstones)
        assert sum(counts[tombstones[0].number].values()) >= 1
        assert world.everything() == before

    def test_a_person_does_not_show_in_a_records_repr(self, world: World) -> None:
        person = somebody()
        world.enter(person)
        shown = repr(world.find_by_email(person.email)).lower()
        assert not any(text.lower() in shown for text in person.texts)

    def test_a_key_that_nobody_has_finds_nobody(self, world: World) -> None:
        world.enter(somebody())
        for text in (
            "0",
            "-1",
            "99999999999999999999999999",
            "1; DROP TABLE users",
            "1 OR 1=1",
            "",
            "١",
            "\0",
        ):
            assert not world.find(Identifier(IdentifierKind.PRIMARY_KEY, PersonalText(text)))

    def test_a_person_is_reached_by_the_address_and_the_name_that_stand_there(self, world: World) -> None:
        person = somebody()
        world.enter(person)
        (found,) = world.find_by_email(person.email)
        (contact,) = world.reach(email_identifier(person.email.upper()))
        assert (contact.table, contact.key, contact.cleared) == (found.table, found.key, False)
        assert contact.email is not None
        assert contact.email.reveal() == person.email
        assert contact.name is not None
        assert contact.name.reveal() == f"{person.first_name} {person.last_name}"

    def test_each_request_gets_its_own_persons_contact_and_nobodys_gets_none(self, world: World) -> None:
        persons = [somebody() for _ in range(5)]
        for person in persons:
            world.enter(person)
        wanted = [Wanted(one.first_name, (email_identifier(one.email),)) for one in (*persons, somebody())]
        again = Wanted("again", (email_identifier(persons[0].email.lower()),))
        contacts = world.store.contacts([*wanted, again])
        emails = {
            request: [one.email.reveal() for one in found if one.email is not None]
            for request, found in contacts.items()
        }
        assert emails == {one.first_name: [one.email] for one in persons} | {"again": [persons[0].email]}

    def test_nobody_is_reached_by_what_an_erasure_wrote(self, world: World) -> None:
        person = somebody()
        world.enter(person)
        (tombstone,) = world.tombstones_of(person)
        world.erase([tombstone])
        assert not world.reach(email_identifier(person.email))
        key = Identifier(IdentifierKind.PRIMARY_KEY, PersonalText(tombstone.key))
        assert all(
            one == Contact(tombstone.table, tombstone.key, None, cleared=True) for one in world.reach(key)
        )

    def test_looking_for_contacts_changes_nothing(self, world: World) -> None:
        person = somebody()
        world.enter(person)
        before = world.everything()
        assert world.reach(email_identifier(person.email))
        assert world.everything() == before

    def test_a_person_does_not_show_in_a_contacts_repr(self, world: World) -> None:
        person = somebody()
        world.enter(person)
        contacts = world.reach(email_identifier(person.email))
        assert contacts
        assert not any(text.lower() in repr(contacts).lower() for text in person.texts)
