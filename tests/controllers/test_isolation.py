"""Whatever a controller fails over, it is one key's trouble, and that object says so."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import lethe.controllers
from devtools.dumps import PATTERN, days_ago, leave_dump
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.adapters.notices.letters import TemplateWriter
from lethe.controllers.backupsnapshot import BackupSnapshotController
from lethe.controllers.backupsource import BackupSourceController
from lethe.controllers.datastore import StoreController
from lethe.controllers.deletionrequest import RequestCompletion, RequestQueue
from lethe.controllers.deletionrequest_status import RequestStatusController
from lethe.controllers.early_warning import EarlyWarning
from lethe.controllers.gate import GateController
from lethe.controllers.last_copies import LastCopies, TombstoneExpiry
from lethe.controllers.legalrequest import LegalRequestController
from lethe.controllers.notices import NoticeSender
from lethe.controllers.operator import Operator
from lethe.controllers.restoredrill import RestoreDrillController
from lethe.controllers.restoreevent import RestoreEventController
from lethe.controllers.runtime import queue
from lethe.controllers.runtime.controller import Controller, RepeatedWork
from lethe.controllers.runtime.metrics import Metrics
from lethe.domain.facts import Accepted, Completed, Fact, Intended, Outcome, Verified
from lethe.domain.periods import Period
from lethe.domain.tombstones import Tombstone
from lethe.logs import Redacting
from tests.controllers.backups_running import NAMESPACE, Faults, _Connector, eventually
from tests.controllers.cluster_in_memory import ClusterInMemory

CANARY = "eve@canary.example"
CULPRIT, OTHER = "culprit", "other"


class Company:
    """An operator with everything that it consists of, over a ledger of its own and objects in memory."""

    def __init__(self, home: Path) -> None:
        (home / "keys").mkdir()
        self.home, keyring = home, FileKeyring(home / "keys")
        self.ledger = open_ledger(f"sqlite:///{home / 'ledger.db'}", keyring)
        self.cluster: Any = ClusterInMemory()
        never: Any = None
        nothing: Any = object()
        self.operator = Operator(
            ledger=self.ledger,
            keyring=keyring,
            cluster=self.cluster,
            connect=never,
            metrics=Metrics(),
            namespaces=[NAMESPACE],
            deadline=Period(0, 30),
            journal_interval=60,
            sweep_interval=3600,
            connect_backend=_Connector(home, Faults()),
            connect_drill=never,
            retention=Period(6, 0),
            scan_interval=300,
            clock_skew=timedelta(milliseconds=1),
            renderer=TemplateWriter(),
            mailer=None,
            notices_per_hour=1,
            others=nothing,
            early_warning={"velero": "velero"},
        )
        for plural in self.operator._kinds:
            self.cluster.watchers[plural] = self._observer(plural)

    def _observer(self, plural: str) -> Callable[[Any, bool], None]:
        return lambda manifest, gone: self.operator.ring(plural, manifest, gone=gone)

    @property
    def controllers(self) -> Sequence[Controller[Any]]:
        """Return everything that is run."""
        return self.operator._supervisor._controllers

    def controller(self, kind: type[Controller[Any]]) -> Controller[Any]:
        """Return the one of a class."""
        return next(one for one in self.controllers if type(one) is kind)

    def request(self, name: str) -> None:
        """Ask to forget somebody."""
        self.cluster.apply("deletionrequests", NAMESPACE, name, {"subject": {"id": f"key-{name}"}})

    def erased(self, name: str) -> None:
        """Let somebody have been erased, as the object says, which no watch shows any more."""
        site, at = f"{NAMESPACE}/site", days_ago(1)
        number = len(self.cluster.objects.get("deletionrequests", {})) + 1
        stone = Tombstone(number, name, "users", f"key-{name}", "m1", None, number.to_bytes(32, "big"))
        accepted = Accepted(
            request=name, namespace=NAMESPACE, name=name, spec_digest="sha256:ab", accepted_at=at,
            requested_at=at, due_at=at, stores=(site,),
        )  # fmt: skip
        facts: list[Fact] = [
            accepted,
            Intended(name, site, (stone,)),
            Verified(name, site, at),
            Completed(name, at, Outcome.ERASED),
        ]
        self.ledger.append(facts)
        ready = {"type": "Ready", "status": "True", "reason": "Erased", "message": "erased and read back"}
        status = {"state": "Erased", "conditions": [ready]}
        del self.cluster.watchers["deletionrequests"]
        self.cluster.apply("deletionrequests", NAMESPACE, name, {}, status=status)
        self.cluster.watchers["deletionrequests"] = self._observer("deletionrequests")
        self.controller(LastCopies).queue.add(name)

    def store(self, name: str) -> None:
        """Apply a store that nobody visits."""
        spec = {"role": "Other", "owner": "ThirdParty", "plugin": {"name": "none"}}
        self.cluster.apply("datastores", NAMESPACE, name, spec)

    def restore(self, name: str) -> None:
        """Declare a restore."""
        spec = {"store": "site", "reason": "Drill", "justification": "the yearly drill"}
        self.cluster.apply("restoreevents", NAMESPACE, name, spec)

    def drill(self, name: str) -> None:
        """Apply a drill that is not due."""
        spec = {
            "source": "nightly",
            "schedule": "0 4 29 2 *",
            "scratch": {"urlSecretRef": {"name": "scratch", "key": "url"}},
            "restore": {"command": "restore"},
        }
        self.cluster.apply("restoredrills", NAMESPACE, name, spec)

    def source(self, name: str) -> None:
        """Apply a source of one dump."""
        (self.home / name).mkdir()
        leave_dump(self.home / name, days_ago(3))
        where = {"path": str(self.home / name), "name": PATTERN}
        self.cluster.apply("backupsources", NAMESPACE, name, {"stores": ["site"], "directory": where})

    def snapshot(self, name: str) -> None:
        """Apply a snapshot of a source that there is not."""
        self.cluster.apply(
            "backupsnapshots",
            NAMESPACE,
            name,
            {"source": "nightly", "ref": name, "takenAt": "2026-01-01T00:00:00Z"},
        )

    def legal(self, name: str) -> None:
        """Apply an order to preserve."""
        spec = {
            "type": "Preservation",
            "authority": {"name": "Sheriff", "level": "Local", "country": "US"},
            "receivedAt": "2026-02-27T10:00:00Z",
            "subject": {"id": f"key-{name}"},
            "preservation": {},
        }
        self.cluster.apply("legalrequests", NAMESPACE, name, spec)


@dataclass(frozen=True)
class Case:
    """How an object comes to a controller, and where its status says what went wrong.

    `plural` is `None` where the work belongs to no object.
    """

    apply: Callable[[Company, str], None]
    plural: str | None = None
    condition: tuple[str, str] = ("Ready", "False")


CASES: Mapping[type[Controller[Any]], Case] = {
    RequestQueue: Case(Company.request, "deletionrequests"),
    RequestCompletion: Case(Company.request, "deletionrequests"),
    RequestStatusController: Case(Company.request, "deletionrequests"),
    StoreController: Case(Company.store, "datastores"),
    GateController: Case(Company.store, "datastores"),
    RestoreEventController: Case(Company.restore, "restoreevents"),
    BackupSourceController: Case(Company.source, "backupsources"),
    BackupSnapshotController: Case(Company.snapshot, "backupsnapshots"),
    LastCopies: Case(Company.erased, "deletionrequests", ("Purged", "Unknown")),
    LegalRequestController: Case(Company.legal, "legalrequests"),
    NoticeSender: Case(Company.legal, "legalrequests"),
    RestoreDrillController: Case(Company.drill, "restoredrills"),
}
WITHOUT_OBJECTS = {RepeatedWork, TombstoneExpiry}
OF_OTHERS = {EarlyWarning}
"""What watches others' objects, kind by kind: tests/e2e/test_early_warning.py."""


def concrete_controllers() -> set[type[Controller[Any]]]:
    """Return every controller that there is, wherever in the package."""
    for module in pkgutil.walk_packages(lethe.controllers.__path__, "lethe.controllers."):
        importlib.import_module(module.name)
    found, left = set[type[Controller[Any]]](), list[Any]([Controller])
    while left:
        subclasses = left.pop().__subclasses__()
        found |= {one for one in subclasses if one.__module__.startswith("lethe.")}
        left += subclasses
    return {one for one in found if not inspect.isabstract(one)}


def test_every_controller_has_a_case() -> None:
    assert concrete_controllers() == {*CASES, *WITHOUT_OBJECTS, *OF_OTHERS}


def test_the_operator_runs_every_controller(tmp_path: Path) -> None:
    async def made() -> Company:
        return Company(tmp_path)

    assert {type(one) for one in asyncio.run(made()).controllers} == concrete_controllers()


class Sabotage:
    """Lets a controller fail over keys of which it is told, and notes which others it reconciles."""

    def __init__(self, controller: Controller[Any], is_culprit: Callable[[Any], bool]) -> None:
        self.failed, self.well, self.over = 0, set[str](), False
        reconcile, reconcile_set = controller.reconcile, controller.reconcile_set

        async def one(key: Any) -> float | None:
            self._meet([key], is_culprit)
            return await reconcile(key)

        async def several(keys: Sequence[Any]) -> Mapping[Any, float | None]:
            self._meet(keys, is_culprit)
            pauses = await reconcile_set(keys)
            self.well |= {_name(key) for key in keys}
            return pauses

        controller.reconcile, controller.reconcile_set = one, several  # type: ignore[method-assign]

    def _meet(self, keys: Sequence[Any], is_culprit: Callable[[Any], bool]) -> None:
        if not self.over and any(is_culprit(key) for key in keys):
            self.failed += 1
            raise RuntimeError(f"row of {CANARY}")


def _name(key: Any) -> str:
    return key if isinstance(key, str) else key[-1]


@pytest.fixture
def lines() -> Any:
    """What the operator's log says meanwhile."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(self.format(record))

    handler, root = Listener(), logging.getLogger()
    handler.addFilter(Redacting())
    root.addHandler(handler)
    yield said
    root.removeHandler(handler)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what failed be tried again soon."""
    monkeypatch.setattr(queue, "FIRST_PAUSE", 0.05)


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
async def test_one_object_says_that_lethe_fails_over_it_others_go_on_and_it_heals(
    kind: type[Controller[Any]], tmp_path: Path, lines: list[str]
) -> None:
    case, company = CASES[kind], Company(tmp_path)
    sabotage = Sabotage(company.controller(kind), lambda key: _name(key) == CULPRIT)
    run = asyncio.create_task(company.operator.run(asyncio.Event()))
    try:
        await asyncio.wait_for(company.operator.started.wait(), 10)
        case.apply(company, CULPRIT)
        case.apply(company, OTHER)
        type_, status = case.condition

        def said() -> Any:
            return company.cluster.condition(case.plural, NAMESPACE, CULPRIT, type_)

        await eventually(lambda: run.done() or OTHER in sabotage.well, 10)
        await eventually(lambda: run.done() or said().get("reason") == "InternalError", 10)
        await eventually(lambda: run.done() or sabotage.failed >= 3, 10)
        assert not run.done(), run
        assert said()["status"] == status
        assert "see its log and report it" in said()["message"]
        other = company.cluster.condition(case.plural, NAMESPACE, OTHER, type_)
        assert other.get("reason") != "InternalError"
        sabotage.over = True
        await eventually(lambda: run.done() or said().get("reason") != "InternalError", 15)
        assert not run.done(), run
        assert CANARY not in str(company.cluster.objects) + str(company.cluster.events) + "".join(lines)
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        company.ledger.close()


async def test_work_of_no_object_that_fails_is_tried_again_and_holds_up_nothing(
    tmp_path: Path, lines: list[str]
) -> None:
    company = Company(tmp_path)
    repeated = [one for one in company.controllers if isinstance(one, RepeatedWork)]
    assert {type(one) for one in repeated} == WITHOUT_OBJECTS
    broken = {one.name: Sabotage(one, lambda _: True) for one in repeated}
    requests = Sabotage(company.controller(RequestQueue), lambda _: False)
    run = asyncio.create_task(company.operator.run(asyncio.Event()))
    try:
        await asyncio.wait_for(company.operator.started.wait(), 10)
        for one in repeated:
            one.ring()
        company.request(OTHER)
        await eventually(lambda: run.done() or OTHER in requests.well, 10)
        await eventually(lambda: run.done() or all(one.failed >= 3 for one in broken.values()), 10)
        assert not run.done(), run
        assert CANARY not in "".join(lines)
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        company.ledger.close()
