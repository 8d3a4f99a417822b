"""Whatever happens in any order, what a condition says is what the bytes say (docs/claims.md)."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from devtools.company import SUBJECTS
from devtools.dumps import PATTERN, leave_dump
from devtools.servers import PostgresServer
from lethe.adapters.stores.sql import sessions
from lethe.domain.gates import GateState
from lethe.domain.requests import StoreState
from lethe.ports.cluster import SecretContent
from tests.invariants.company import SCHEMA, Database, Snapshot
from tests.invariants.operator_by_hand import (
    JOURNAL_INTERVAL,
    NAMESPACE,
    SCAN_INTERVAL,
    OperatorByHand,
    controllers_by_hand,
)
from tests.search.drawing import assume, note, run_machine

LOOK = JOURNAL_INTERVAL + 1
OPTIONAL = ("phone", "fax")
PODS = {
    "site": {"app": "site"},
    "crm": {"crm": "used"},
    "both": {"app": "site", "crm": "used"},
}
SELECTORS = {"site": {"app": "site"}, "crm": {"crm": "used"}}
WAYS = st.sampled_from(["volume", "volume", "truncated", "new-database", "tables"])
WHICH = st.integers(min_value=0, max_value=10**6)
ENDED_WELL = {("Verified", "AllReErased"), ("Released", "Released")}
FAST_CLOCKS = {
    "ATTEMPT_SECONDS": 0.5,
    "CONNECT_SECONDS": 0.7,
    "QUICK_SECONDS": 0.3,
    "ASK_AFTER_SECONDS": 0.2,
    "ASK_AGAIN_SECONDS": 0.1,
    "ASK_SECONDS": 0.5,
    "GIVE_UP_SECONDS": 0.6,
}
"""How long a server is waited for that answers nobody anyway."""
PROMISES = ("SafeToServe", "MappingComplete")
STORES = st.sampled_from(["site", "site", "crm"])


class Store(Database):
    """A store's database beside the operator: who stands in it, in which columns.

    `ledger_name` is the first name of its DataStore, `name` the one of now. `mapped` are the optional columns
    of its mapping, `written_at` is when somebody else than the operator wrote last.
    """

    def __init__(self, server: PostgresServer, operator: OperatorByHand, name: str, role: str) -> None:
        columns = "".join(f"ALTER TABLE users ADD {column} text;" for column in OPTIONAL)
        super().__init__(server, schema=SCHEMA + columns)
        self.operator, self.ledger_name, self.name, self.role = operator, name, name, role
        self.names = {name}
        self.mapped: tuple[str, ...] = ()
        self.catch_up: str | None = None
        self.formerly: str | None = None
        self.written_at = operator.hand.now()
        self.snapshots: list[Snapshot] = []
        self.profiles: dict[str, tuple[str, dict[str, Any]]] = {}
        self.without_backups = role != "Primary"
        content = {"url": server.url(self.database).encode()}
        secret = SecretContent("Opaque", content, f"uid-{name}-db", "1")
        operator.cluster.secrets[NAMESPACE, f"{name}-db"] = secret
        self.apply()

    def apply(self) -> None:
        """Apply its DataStore as it is to be now."""
        subjects = json.loads(json.dumps(SUBJECTS))
        for column in self.mapped:
            subjects["clear"].append({"column": column, "holds": "LastName", "to": "SetNull"})
        subjects["ignore"] = ["users.person", *(f"users.{c}" for c in OPTIONAL if c not in self.mapped)]
        spec: dict[str, Any] = {
            "role": self.role,
            "owner": "Self",
            "sql": {"urlSecretRef": {"name": f"{self.ledger_name}-db", "key": "url"}, "subjects": subjects},
            "gate": {"podSelector": {"matchLabels": SELECTORS[self.ledger_name]}},
        }
        if self.without_backups:
            spec["backups"] = "None"
        said = {"catchUp": self.catch_up, "formerly": self.formerly}
        spec |= {field: value for field, value in said.items() if value is not None}
        self.names.add(self.name)
        self.operator.cluster.apply("datastores", NAMESPACE, self.name, spec)

    def _journal_ddl(self) -> str:
        port: Any = self.operator.stores()[self.name].session
        with port.port._sessions.transaction() as cursor:
            return str(port.port._journal(cursor.connection).ddl_text(cursor))

    def written(self) -> None:
        """Note that somebody else than the operator has written."""
        self.written_at = self.operator.hand.now()

    def enter(self, person: str) -> None:
        """Let a person sign up."""
        row = self.sign_up(f"{person}@people.example")
        values = [f"{person} {column}" for column in OPTIONAL]
        self.sql("UPDATE users SET phone = %s, fax = %s WHERE person = %s", *values, row)
        self.profiles[person] = row, self.row_of(row) or {}
        self.written()

    def save_old_profile(self, person: str) -> None:
        """Let a session of the application, begun before she was erased, save what it knows."""
        row, profile = self.profiles[person]
        self.write_back(row, profile)
        self.written()

    def standing(self) -> dict[str, set[str]]:
        """Read every row of every table: in which columns each person's canary stands."""
        found: dict[str, set[str]] = defaultdict(set)
        for table in self._tables():
            for (row,) in self.sql(f"SELECT to_jsonb(t) FROM {table} t"):
                for column, value in row.items():
                    for person in re.findall(r"canary-\d{4}", str(value), re.IGNORECASE):
                        found[person.lower()].add(f"{table}.{column}")
        return found

    def key(self, person: str) -> int | None:
        """Return the key of whoever stands there with this person's address."""
        rows = self.sql("SELECT id FROM users WHERE email = %s", f"{person}@people.example")
        return int(rows[0][0]) if rows else None

    @property
    def seen(self) -> bool:
        """Tell whether the operator has looked since somebody wrote."""
        managed = self.operator.stores().get(self.name)
        looked = managed.session.last_observed_at if managed and managed.session else None
        return looked is not None and looked > self.written_at

    def condition(self, kind: str) -> Mapping[str, Any]:
        """Return a condition of its DataStore; empty if there is none."""
        return self.operator.conditions("datastores").get(self.name, {}).get(kind, {})


class EveryClaim(RuleBasedStateMachine):
    """Two stores under one operator: people, restores, releases, edits, renames; and what is said of it."""

    server: ClassVar[PostgresServer]
    directory: ClassVar[Path]
    hand: ClassVar[Any]
    numbers: ClassVar[Iterator[int]] = itertools.count(1)

    @initialize(skew=st.sampled_from([-4, 0, 4]))
    def begin(self, skew: int = 0) -> None:
        self.skew = timedelta(minutes=skew)  # by how much the clock of whoever takes dumps is ahead
        self.home = self.directory / f"run-{next(self.numbers)}"
        self.operator = OperatorByHand(self.hand, self.home, PODS)
        site = Store(self.server, self.operator, "site", "Primary")
        self.stores = {"site": site, "crm": Store(self.server, self.operator, "crm", "CRM")}
        self.site = site
        self.count = itertools.count(1)
        # By store and person: the optional columns of which she has to be clear once she is erased.
        self.cleared_of: dict[tuple[str, str], set[str]] = {}
        self.asked: set[str] = set()
        self.places = [self.home / "here", self.home / "there"]
        for place in self.places:
            place.mkdir()
        self.place = self.places[0]
        self.unlisted: set[str] = set()  # dumps that no source has had a chance to show
        self.proven: set[str] = set()  # RestoreEvents that have said so
        self._apply_source()
        self.operator.advance(LOOK)
        for in_crm in (True, False):
            self._sign_up(in_crm)
        self.operator.advance(LOOK)
        for store in self.stores.values():
            store.snapshots.append(store.snapshot())
        self._dump()
        self._ask("canary-0001")
        self.operator.advance(LOOK)

    def teardown(self) -> None:
        if not hasattr(self, "stores"):
            return
        try:
            self._converge()
        finally:
            self.operator.close()
            for store in self.stores.values():
                store.drop()
            shutil.rmtree(self.home)

    # --- people ------------------------------------------------------------------------------------------

    def _sign_up(self, in_crm: bool) -> str:
        person = f"canary-{next(self.count):04}"
        self.site.enter(person)
        if in_crm:
            self.stores["crm"].enter(person)
        return person

    @rule(in_crm=st.booleans())
    def somebody_signs_up(self, in_crm: bool) -> None:
        self._sign_up(in_crm)

    @rule(which=WHICH)
    def somebody_asks_to_be_erased(self, which: int) -> None:
        living = sorted(p for p in self.site.standing() if p not in self.asked and self.site.key(p))
        assume(living)
        self._ask(living[which % len(living)])

    def _ask(self, person: str) -> None:
        note(f"{person} asks")
        self.asked.add(person)
        for name, store in self.stores.items():
            self.cleared_of[name, person] = {f"users.{column}" for column in store.mapped}
        subject = {"id": str(self.site.key(person))}
        self.operator.cluster.apply("deletionrequests", NAMESPACE, person, {"subject": subject})

    @rule(name=STORES, which=WHICH)
    def a_stale_session_saves_the_profile_of_somebody_erased(self, name: str, which: int) -> None:
        store = self.stores[name]
        known = sorted(self._erased_in(store) & store.profiles.keys())
        if known:
            store.save_old_profile(known[which % len(known)])

    # --- the stores --------------------------------------------------------------------------------------

    @rule(name=STORES)
    def a_snapshot_is_taken(self, name: str) -> None:
        if len(self.stores[name].snapshots) < 3:
            self._take_snapshot(name)

    def _take_snapshot(self, name: str) -> None:
        # A look on either side: a restore shows because each moves the head.
        store = self.stores[name]
        self.operator.advance(LOOK)
        store.snapshots.append(store.snapshot())
        self.operator.advance(LOOK)

    @rule(name=STORES, which=WHICH, way=WAYS)
    def a_snapshot_is_put_back(self, name: str, which: int, way: str) -> None:
        store = self.stores[name]
        assume(store.snapshots and (way != "new-database" or store.seen))
        store.restore(store.snapshots[which % len(store.snapshots)], way)
        store.written()

    @rule(name=STORES, way=WAYS, looks=st.integers(1, 4))
    def somebody_is_erased_and_her_store_goes_back(self, name: str, way: str, looks: int) -> None:
        person = self._sign_up(in_crm=True)
        self._take_snapshot(name)
        self._ask(person)
        for _ in range(looks):
            self.operator.advance(LOOK)
        if self.stores[name].seen or way != "new-database":
            self.a_snapshot_is_put_back(name, len(self.stores[name].snapshots) - 1, way)

    @rule(looks=st.integers(1, 2), way=st.none() | WAYS)
    def the_server_of_both_stores_freezes(self, looks: int, way: str | None) -> None:
        """Nothing is said of a store that answers nobody; and who puts a dump back is faster than Lethe."""
        serving = self._serving()
        with self.frozen():
            for _ in range(looks):
                self.operator.advance(LOOK)
                self.nothing_is_said_of_who_answers_nobody()
                self.operator.advance(2)
                self.nothing_is_said_of_who_answers_nobody()
        assert self._serving() <= serving, "a pod that waited serves, and nobody has looked"
        if way is not None:
            self.a_snapshot_is_put_back("site", 0, "volume" if way == "new-database" else way)
        self.operator.advance(2 * LOOK)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the server; who waits for it gives it up soon."""
        with pytest.MonkeyPatch.context() as patch:
            for name, seconds in FAST_CLOCKS.items():
                patch.setattr(sessions, name, seconds)
            self.server.freeze()
            try:
                yield
            finally:
                self.server.thaw()

    def nothing_is_said_of_who_answers_nobody(self) -> None:
        for store in self.stores.values():
            ready, safe = store.condition("Ready"), store.condition("SafeToServe")
            assert ready.get("status") == "False", f"frozen, and {ready}"
            assert safe.get("status") != "True", f"frozen, and {safe}"

    # --- dumps of the site -------------------------------------------------------------------------------

    def _apply_source(self) -> None:
        directory = {"path": str(self.place), "name": PATTERN}
        spec = {"stores": ["site"], "retention": "P30D", "lastSnapshot": "Prune", "directory": directory}
        self.operator.cluster.apply("backupsources", NAMESPACE, "nightly", spec)

    def _dump(self) -> None:
        addresses = [row[0] for row in self.site.sql("SELECT email FROM users")]
        dump = leave_dump(self.place, self.hand.now() + self.skew, "\n".join(addresses).encode())
        if not self.listed:
            self.unlisted.add(dump.name)

    @property
    def listed(self) -> bool:
        """Tell whether there is a source."""
        return bool(self.operator.cluster.objects["backupsources"])

    @rule()
    def a_dump_is_taken(self) -> None:
        self.operator.advance(1)  # no two of one name
        self._dump()

    @rule()
    def the_site_is_said_to_have_no_backups_any_more(self) -> None:
        self.operator.advance(SCAN_INTERVAL)  # what it has never shown nobody can count
        if self.listed:
            self.operator.cluster.remove("backupsources", NAMESPACE, "nightly")
        self.site.without_backups = True
        self.site.apply()

    @rule()
    def the_source_is_applied_again(self) -> None:
        if not self.listed:
            self.site.without_backups = False
            self.site.apply()
            self._apply_source()
            self.operator.advance(SCAN_INTERVAL)
            self.unlisted -= {dump.name for dump in self.place.iterdir()}

    @rule(which=st.sampled_from([0, 1]), scanned=st.booleans())
    def the_source_is_told_to_look_elsewhere(self, which: int, scanned: bool) -> None:
        if scanned:  # what it has never shown nobody can count
            self.operator.advance(SCAN_INTERVAL)
        elif any(self.place.iterdir()):
            return
        self.place = self.places[which]
        if self.listed:
            self._apply_source()

    @rule(days=st.sampled_from([1, 20, 40]), dumped=st.booleans())
    def days_pass(self, days: int, dumped: bool) -> None:
        self.operator.advance(SCAN_INTERVAL)
        self.operator.leap(timedelta(days=days))
        if dumped:
            self._dump()
        for _ in range(2):
            self.operator.advance(SCAN_INTERVAL)
        for store in self.stores.values():  # what nobody lists, and outlives retention, is not covered
            safe = store.seen and store.condition("SafeToServe").get("status") == "True"
            store.snapshots = [store.snapshot()] if safe else []

    # --- what persons apply ------------------------------------------------------------------------------

    @rule(name=STORES)
    def somebody_releases_a_store(self, name: str) -> None:
        store = self.stores[name]
        if store.condition("SafeToServe").get("status") != "False":
            return
        self._release(store)

    def _release(self, store: Store) -> None:
        self.operator.advance(2)  # a RestoreEvent is dated in whole seconds, and must not be older
        spec = {
            "store": store.name,
            "reason": "Drill",
            "justification": "the yearly drill",
        }
        name, cluster = f"release-{next(self.count)}", self.operator.cluster
        uid = cluster.apply("restoreevents", NAMESPACE, name, spec)["metadata"]["uid"]
        release = {"because": "the shop has to open", "uid": uid}
        cluster.apply("restoreevents", NAMESPACE, name, {**spec, "release": release})

    @rule(mapped=st.sampled_from([(), ("phone",), ("phone", "fax"), ("fax",)]))
    def the_mapping_is_edited(self, mapped: tuple[str, ...]) -> None:
        self.site.mapped = mapped
        for (name, _), columns in self.cleared_of.items():
            if name == "site":
                columns &= {f"users.{column}" for column in mapped}
        self.site.apply()

    @rule()
    def the_catch_up_is_confirmed(self) -> None:
        self._confirm()

    def _confirm(self) -> None:
        said = self.site.condition("MappingComplete")
        version = re.search(r"set spec.catchUp to (\S+?)(;|$)", said.get("message", ""))
        if version:
            self.site.catch_up = version[1]
            self.site.apply()

    @rule(name=STORES, forgets=st.booleans(), restored=st.booleans())
    def a_store_is_renamed(self, name: str, forgets: bool, restored: bool) -> None:
        store = self.stores[name]
        self.operator.cluster.remove("datastores", NAMESPACE, store.name)
        self.operator.advance(1)
        if restored and store.snapshots:
            store.restore(store.snapshots[-1], "volume")
            store.written()
        store.name = f"{name}-{next(self.count)}"
        store.formerly = name
        if forgets and self._erased_in(store):
            store.formerly = None
            store.apply()
            self.operator.advance(LOOK)
            self.what_is_said_is_so()
            store.formerly = name
        store.apply()

    # --- the operator ------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([LOOK, 3 * LOOK, 6 * LOOK]))
    def time_passes(self, seconds: float) -> None:
        self.operator.advance(seconds)

    @rule()
    def the_operator_restarts(self) -> None:
        self.operator.restart()

    # --- what is said, and what is so --------------------------------------------------------------------

    def _erased_in(self, store: Store) -> set[str]:
        """Return whom the ledger calls erased in a store."""
        records = self.operator.ledger.requests_named([(NAMESPACE, person) for person in self.asked])
        name = f"{NAMESPACE}/{store.ledger_name}"
        return {
            person
            for (_, person), record in records.items()
            if str(record.outcome) == "Erased" or record.progress(name).state is StoreState.VERIFIED
        }

    @invariant()
    def what_is_said_is_so(self) -> None:
        self.operator.advance(1)
        for store in self.stores.values():
            self._check_store(store)
        self._check_pods()
        self._check_restores()
        self._check_purged()

    def _check_purged(self) -> None:
        dumps = [dump for place in self.places for dump in place.iterdir() if dump.name not in self.unlisted]
        held = {dump.name: dump.read_text() for dump in dumps}
        for person, said in self.operator.conditions("deletionrequests").items():
            if said.get("Purged", {}).get("status") == "True":
                holding = [name for name, content in held.items() if f"{person}@" in content]
                assert not holding, f"{person} is said to be purged: {said['Purged']}, {holding}"
        covered = self.site.condition("BackupsCovered")
        if (covered.get("status"), covered.get("reason")) == ("True", "NoBackupsDeclared"):
            assert not held, f"{covered}, and there are {[*held]}"

    def _check_restores(self) -> None:
        """Check what RestoreEvents say, each when it says so first: later restores have others."""
        specs = self.operator.cluster.objects.get("restoreevents", {})
        for name, said in self.operator.conditions("restoreevents").items():
            if not said:
                continue  # it was applied just now
            store = next(
                s for s in self.stores.values() if specs[NAMESPACE, name]["spec"]["store"] in s.names
            )
            reason, safe, replayed = (
                specs[NAMESPACE, name]["spec"]["reason"],
                said["SafeToServe"],
                said["Replayed"],
            )
            assert (said["Permitted"]["status"] == "True") is (reason != "Undeclared"), said
            assert safe["status"] == replayed["status"], said
            if safe["status"] == "True":
                assert (safe["reason"], replayed["reason"]) in ENDED_WELL, said
                if name not in self.proven and store.seen:
                    assert not self._uncleared(store), f"RestoreEvent {name} says {safe}"
                self.proven.add(name)
            elif said["Ready"]["status"] == "False" and safe["reason"] != "Declared":
                there = store.condition("SafeToServe")
                assert there.get("status") != "True", f"RestoreEvent {name} says {safe}, its store {there}"

    def _uncleared(self, store: Store) -> dict[str, set[str]]:
        """Return who was erased and stands in a store, in columns of which she has to be clear."""
        standing, uncleared = store.standing(), {}
        for person in self._erased_in(store):
            optional = {f"users.{c}" for c in OPTIONAL} - self.cleared_of[store.ledger_name, person]
            if left := standing.get(person, set()) - optional:
                uncleared[person] = left
        return uncleared

    def _check_store(self, store: Store) -> None:
        uncleared = self._uncleared(store)
        if not store.seen:
            return  # what was written since the last look is not covered
        safe = store.condition("SafeToServe")
        if safe.get("status") == "True":
            assert not uncleared, f"{store.name} is said to be safe to serve: {safe}"
        if safe.get("reason") == "Released" and safe["status"] == "False":
            left = re.search(r"(\d+) erased persons stand in it", safe["message"])
            assert left is None or int(left[1]) >= len(uncleared), (safe, uncleared)
        if safe.get("status") != "False":
            requests = self.operator.conditions("deletionrequests")
            for person in uncleared:
                assert requests[person].get("Erased", {}).get("status") != "True", f"{person} is not erased"
        self._check_mapping(store, {*uncleared})

    def _check_mapping(self, store: Store, back: set[str]) -> None:
        """Check that who was erased is clear of what is mapped by now, or that the number is told.

        Whom a restore has brought `back` altogether is another claim's.
        """
        said, mapped = store.condition("MappingComplete"), {f"users.{column}" for column in store.mapped}
        safe = store.condition("SafeToServe").get("status") == "True"
        erased, standing = self._erased_in(store), store.standing()
        left = {p for p in erased - back if standing.get(p, set()) & mapped}
        if said.get("status") == "True":
            assert not left, f"the mapping of {store.name} is said to be complete: {left}"
            if safe:
                for person in erased:
                    self.cleared_of[store.ledger_name, person] |= mapped
        elif safe and said.get("reason") == "ErasedBefore" and "to clear them" in said["message"]:
            assert int(said["message"].split()[0]) == len(left), (said, left)

    def _serving(self) -> set[str]:
        """Return the pods that serve."""
        return {name for name, said in self.operator.cluster.pods.items() if said.state is GateState.OPEN}

    def _check_pods(self) -> None:
        pods, serving = self.operator.cluster.pods, self._serving()
        if "both" in serving:
            assert {"site", "crm"} <= serving, f"it serves, and one of its stores alone does not: {pods}"
        for pod in serving:
            for name in [pod] if pod != "both" else ["site", "crm"]:
                store = self.stores[name]
                safe = store.condition("SafeToServe")
                if store.seen and safe.get("reason") != "Released":
                    assert safe.get("status") != "False", f"{pod} serves, and {name} says {safe}"
                    assert not self._uncleared(store), f"{pod} serves"

    def _converge(self) -> None:
        """Left alone, with its questions answered, it comes to rest: all is safe, complete, and so."""
        stores = list(self.stores.values())
        for _ in range(12):
            self.operator.advance(LOOK)
            self.what_is_said_is_so()
            if all(store.condition(kind).get("status") == "True" for store in stores for kind in PROMISES):
                break
            self._confirm()
        for store in stores:
            if store.condition("SafeToServe").get("status") != "True":
                note(f"{store.name} waits: {store.condition('SafeToServe')}")
                self._release(store)
                self.operator.advance(2 * LOOK)
                self.what_is_said_is_so()
        for store in stores:
            said = {kind: store.condition(kind) for kind in PROMISES}
            assert all(one.get("status") == "True" for one in said.values()), said
            assert not self._uncleared(store)
        self.operator.ledger.verify()


@pytest.fixture
def machine(postgres: PostgresServer, ledger_directory: Path) -> Iterator[type[EveryClaim]]:
    """Return the machine, at home on this server."""
    EveryClaim.server, EveryClaim.directory = postgres, ledger_directory
    with controllers_by_hand() as hand:
        EveryClaim.hand = hand
        yield EveryClaim


@pytest.mark.slow
@pytest.mark.machine
def test_whatever_is_said_in_any_order_is_what_the_bytes_say(machine: type[EveryClaim]) -> None:
    run_machine(machine, examples=4, steps=10)


@pytest.fixture
def two_stores(machine: type[EveryClaim]) -> Iterator[EveryClaim]:
    """Two stores after the beginning: somebody has been erased."""
    state = machine()
    state.begin()
    yield state
    state.teardown()


def test_a_mapping_that_was_widened_is_not_called_complete_before_it_is_counted(
    two_stores: EveryClaim,
) -> None:
    two_stores.the_mapping_is_edited(("phone",))
    two_stores.operator.advance(LOOK)
    two_stores.a_snapshot_is_put_back("site", 0, "volume")
    two_stores.operator.advance(LOOK)
    assert two_stores.site.condition("SafeToServe")["status"] == "False"
    two_stores.the_operator_restarts()
    two_stores.what_is_said_is_so()
    said = two_stores.site.condition("MappingComplete")
    assert (said["status"], said["reason"]) == ("Unknown", "ErasedBefore"), said
    assert "counted once no restore is being dealt with" in said["message"]


def test_who_was_cleared_by_a_wider_mapping_is_said_to_be_counted_anew(two_stores: EveryClaim) -> None:
    two_stores.the_mapping_is_edited(("phone",))
    two_stores.operator.advance(1)
    two_stores.the_catch_up_is_confirmed()
    two_stores.operator.advance(1)
    assert "counted anew" in two_stores.site.condition("MappingComplete")["message"]
    two_stores.operator.advance(2 * LOOK)
    assert two_stores.site.condition("MappingComplete")["status"] == "True"


def test_a_server_that_answers_nobody_is_unreachable_until_a_look_was_answered(
    two_stores: EveryClaim,
) -> None:
    with two_stores.frozen():
        two_stores.operator.advance(LOOK)
        for _ in range(8):  # between two looks as well
            two_stores.nothing_is_said_of_who_answers_nobody()
            two_stores.operator.advance(1)
    two_stores.operator.advance(LOOK)
    assert {store.condition("Ready")["status"] for store in two_stores.stores.values()} == {"True"}


def test_a_store_of_which_snapshots_are_known_is_not_said_to_have_none_by_a_new_process(
    two_stores: EveryClaim,
) -> None:
    two_stores.the_site_is_said_to_have_no_backups_any_more()
    two_stores.what_is_said_is_so()
    two_stores.the_operator_restarts()
    for _ in range(3):
        two_stores.what_is_said_is_so()
        two_stores.operator.advance(LOOK)
    assert two_stores.site.condition("BackupsCovered")["reason"] == "SnapshotsRemain"
