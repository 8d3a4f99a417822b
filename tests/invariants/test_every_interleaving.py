"""Invariants 1, 2, 3, 10, 11 and 12 under any interleaving of people, restores, power cuts and visits."""

from __future__ import annotations

import copy
import itertools
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from devtools.servers import PostgresServer
from lethe.domain.mapping import SubjectMapping
from lethe.domain.requests import RequestRecord
from lethe.domain.trust import BlockReason
from tests.invariants.company import MAPPING, WITHOUT_CREATED_AT, Company, Snapshot, StorePass
from tests.search.drawing import assume, note, run_machine

WAYS = st.sampled_from(["volume", "volume", "truncated", "new-database", "tables"])
WHICH = st.integers(min_value=0, max_value=10**6)


class Copy(NamedTuple):
    """A backup with what the application knew of its people when it was taken."""

    snapshot: Snapshot
    rows: dict[str, dict[str, Any]]
    back: dict[str, frozenset[str]]


class Interleaving(RuleBasedStateMachine):
    """People sign up, change, ask, come back; the store is restored; the power fails; the operator visits."""

    server: ClassVar[PostgresServer]
    directory: ClassVar[Path]
    mapping: ClassVar[SubjectMapping] = MAPPING
    numbers: ClassVar[Iterator[int]] = itertools.count(1)

    @initialize()
    def begin(self) -> None:
        self.home = self.directory / f"run-{next(self.numbers)}"
        self.company = Company(self.server, self.home, mapping=self.mapping)
        self.company.now = datetime.now(UTC)  # as the store's clock, which tells how far a restore went back
        # What stands in each person's row, as far as the application knows; it goes back with a restore.
        self.rows: dict[str, dict[str, Any]] = {}
        # By person whose row is hers by a new consent, the requests that were made before it; goes back, too.
        self.back: dict[str, frozenset[str]] = {}
        self.snapshots: list[Copy] = []
        self.emails: dict[str, str] = {}  # by person, the last that was hers
        self.asked: dict[str, set[str]] = {}  # by person: her requests
        self.names = itertools.count(1)
        self.ended: dict[str, RequestRecord] = {}
        self.company.visit_until_safe()
        self._sign_up()
        self._take_snapshot()

    def teardown(self) -> None:
        if not hasattr(self, "company"):
            return
        try:
            self._converge()
        finally:
            self.company.close()
            shutil.rmtree(self.home)

    # --- people ------------------------------------------------------------------------------------------

    def _note_row(self, person: str) -> None:
        row = self.company.row_of(person)
        assert row is not None
        self.rows[person] = row

    def _sign_up(self, key: int | None = None) -> None:
        email = f"p{next(self.names)}@people.example"
        person = self.company.sign_up(email, key=key)
        self.emails[person] = email
        self._note_row(person)

    def _somebody(self, which: int) -> str:
        people = sorted(self.rows, key=lambda person: int(self.rows[person]["id"]))
        assume(people)
        return people[which % len(people)]

    @rule()
    def somebody_signs_up(self) -> None:
        self._sign_up()

    @rule(which=WHICH)
    def a_key_is_taken_that_was_somebody_elses(self, which: int) -> None:
        live = {int(row["id"]) for row in self.rows.values()}
        free = sorted({int(row["id"]) for one in self.snapshots for row in one.rows.values()} - live)
        assume(free)
        self._sign_up(free[which % len(free)])

    @rule(which=WHICH)
    def somebody_living_changes_her_address(self, which: int) -> None:
        person = self._somebody(which)
        assume(person not in self.asked)
        email = f"p{next(self.names)}@people.example"
        self.company.sql("UPDATE users SET email = %s WHERE person = %s", email, person)
        self.emails[person] = email
        self._note_row(person)

    @rule(which=WHICH)
    def somebody_logs_in(self, which: int) -> None:
        person = self._somebody(which)
        self.company.log_in(self.company.key_of(person))
        self._note_row(person)

    @precondition(lambda self: self.asked)
    @rule(which=WHICH)
    def a_stale_session_saves_the_profile_of_somebody_erased(self, which: int) -> None:
        person = list(self.asked)[which % len(self.asked)]
        row = self.rows.get(person)
        assume(row is not None)
        assert row is not None
        self.company.write_back(person, row)

    @precondition(lambda self: self.asked)
    @rule(which=WHICH)
    def somebody_who_was_erased_comes_back_and_a_person_says_so(self, which: int) -> None:
        if not self._visit().safe:
            return  # what is said during a restore counts once it has been dealt with
        erased = [
            person
            for person in sorted(self._erased(), key=lambda person: self.emails[person])
            if person in self.rows and not any(self.company.record(name).open for name in self.asked[person])
        ]
        if not erased:
            return
        person = erased[which % len(erased)]
        key = self.company.key_of(person)
        note(f"{person} comes back in her row {key}")
        self.company.say_rejoined(key)
        hers = {"password_hash": "hash", "locale": "fr-CH", "time_zone": "Asia/Tokyo"}
        names = {"first_name": "Back", "last_name": "Again", "email": self.emails[person]}
        self.company.write_back(person, {**hers, **names})
        self.company.log_in(key)
        self._note_row(person)
        self.back[person] = frozenset(self.asked[person])
        self._visit()

    @rule(which=WHICH, by=st.sampled_from(["id", "email"]))
    def somebody_asks_to_be_erased(self, which: int, by: str) -> None:
        person = self._somebody(which)
        row = self.rows[person]
        if by == "email":
            assume(str(row["email"]) == self.emails[person])
        name = f"r{next(self.names)}"
        self.asked.setdefault(person, set()).add(name)
        note(f"{name}: {person} by {by}, key {row['id']}")
        if by == "id":
            self.company.request(name, key=int(row["id"]))
        else:
            self.company.request(name, email=self.emails[person])

    # --- the operator ------------------------------------------------------------------------------------

    @rule()
    def the_operator_visits(self) -> None:
        self._visit()

    @rule(times=st.integers(min_value=2, max_value=5))
    def the_operator_visits_several_times(self, times: int) -> None:
        for _ in range(times):
            self._visit()

    @rule(look=st.booleans())
    def the_operator_serves_between_two_looks(self, look: bool) -> None:
        self.company.visit(look=look, sweep=False)

    def _visit(self) -> StorePass:
        visit = self.company.visit()
        if visit.safe:
            # Invariant 1: nobody wrote since, so whoever was erased stands cleared.
            scan = self.company.full_scan()
            uncleared = [p for p in self._erased() if not scan.get(p, True)]
            assert not uncleared, f"safe to serve, and {uncleared} stand there"
        return visit

    @rule(moment=st.integers(min_value=1, max_value=12), visits=st.integers(min_value=1, max_value=3))
    def the_power_fails_in_a_visit(self, moment: int, visits: int) -> None:
        def visit() -> None:
            for _ in range(visits):
                self.company.visit()

        self.company.cut_at(moment, visit)

    @rule()
    def the_power_fails(self) -> None:
        self.company.power_cut()

    # --- backups -----------------------------------------------------------------------------------------

    @rule()
    def a_snapshot_is_taken(self) -> None:
        if len(self.snapshots) < 4:
            self._take_snapshot()

    def _take_snapshot(self) -> None:
        # A visit on either side: a restore shows because each interval moves the head.
        self.company.visit()
        self.snapshots.append(Copy(self.company.snapshot(), copy.deepcopy(self.rows), dict(self.back)))
        self.company.visit()

    @rule(which=WHICH, way=WAYS, times=st.integers(min_value=1, max_value=2))
    def a_snapshot_is_put_back(self, which: int, way: str, times: int) -> None:
        for _ in range(times):
            self._put_back(which, way)

    def _put_back(self, which: int, way: str) -> None:
        taken = self.snapshots[which % len(self.snapshots)]
        self.company.restore(taken.snapshot, way)
        self.rows, self.back = copy.deepcopy(taken.rows), dict(taken.back)

    @rule(which=WHICH, way=WAYS, by=st.sampled_from(["id", "email"]), visits=st.integers(0, 6))
    def somebody_comes_and_is_erased_and_the_store_goes_back_to_before_her(
        self, which: int, way: str, by: str, visits: int
    ) -> None:
        """Do at once what single steps seldom come to: her key is given out again."""
        self._sign_up()
        self._visit()
        self.somebody_asks_to_be_erased(len(self.rows) - 1, by)
        for _ in range(visits):
            self._visit()
        self._put_back(which, way)
        self._sign_up()

    # --- what must hold ----------------------------------------------------------------------------------

    def _erased(self) -> set[str]:
        """Return whoever was found and erased by a request that has ended, and has not come back since."""
        found = set()
        for person, names in self.asked.items():
            for name in names - self.back.get(person, frozenset()):
                record = self.company.record(name)
                states = {str(progress.state) for progress in record.stores.values()}
                if str(record.outcome) == "Erased" and "Verified" in states:
                    found.add(person)
        return found

    @invariant()
    def nobody_who_never_asked_was_ever_changed(self) -> None:
        for person, row in self.rows.items():
            if self.asked.get(person, frozenset()) <= self.back.get(person, frozenset()):
                assert self.company.row_of(person) == row, "she never asked, or has consented anew since"

    @invariant()
    def a_request_ends_once_and_its_times_never_change(self) -> None:
        for name in itertools.chain.from_iterable(self.asked.values()):
            record = self.company.record(name)
            if name in self.ended:
                assert record.completed_at == self.ended[name].completed_at
                assert record.accepted == self.ended[name].accepted
                assert record.stores == self.ended[name].stores
            elif not record.open:
                self.ended[name] = record

    def _decide(self) -> None:
        """Answer what the operator asks a person, as one who knows everybody would."""
        company, episode = self.company, self.company.episode()
        if episode is not None:
            owners = {str(company.key_of(p)): p for p in self.rows}
            for table, key in episode.unclear_keys:
                decision = "Erase" if owners.get(key) in self._erased() else "LeaveAlone"
                company.decide(key, decision, table=table)
        for person, names in self.asked.items():
            for name in names:
                blocker = company.store.blockers.get(f"uid-{name}")
                asked_for = company.orders[name].subject_id
                doubtful = blocker is not None and blocker.reason is BlockReason.KEY_ABOVE_RESTORE
                if doubtful and person in self.rows and str(self.rows[person]["id"]) == asked_for:
                    company.apply(name, "KeyAboveRestore")

    def _converge(self) -> None:
        """Left alone, it comes to rest: the gate opens, and whoever is there and was asked for is erased."""
        for _ in range(14):
            self._visit()
            self._decide()
        visit = self.company.visit()
        assert visit.safe, (self.company.episode(), self.company.store.trouble)
        self.nobody_who_never_asked_was_ever_changed()
        scan = self.company.full_scan()
        for person, names in self.asked.items():
            for name in names - self.back.get(person, frozenset()):
                if str(self.company.record(name).outcome) == "Erased":
                    assert scan.get(person, True), f"{name} ended as erased, and she stands there"
        self.company.real_ledger.verify()


class WithoutCreatedAt(Interleaving):
    """The same where nothing but the address tells who somebody is."""

    mapping = WITHOUT_CREATED_AT


@pytest.fixture
def machine(postgres: PostgresServer, ledger_directory: Path) -> type[Interleaving]:
    """Return the machine, at home on this server."""
    Interleaving.server, Interleaving.directory = postgres, ledger_directory
    return Interleaving


@pytest.mark.slow
@pytest.mark.machine
def test_under_every_interleaving_the_erased_stay_erased_and_the_others_untouched(
    machine: type[Interleaving],
) -> None:
    run_machine(Interleaving, examples=25, steps=20)


@pytest.mark.slow
@pytest.mark.machine
def test_under_every_interleaving_also_without_created_at(machine: type[Interleaving]) -> None:
    run_machine(WithoutCreatedAt, examples=6, steps=20)
