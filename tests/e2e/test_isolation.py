"""What is wrong with one DataStore, or its server, stays its own: nobody waits for it, nor its repair."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from devtools.company import SUBJECTS, Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers.controlplane import ControlPlane
from devtools.servers.endless import ENDLESS, EndlessPostgres
from devtools.servers.postgres import PostgresServer
from devtools.servers.tarpit import Tarpit

A_MINUTE = 60.0
SOON = 15.0
"""Seconds within which somebody is served whom nothing is wrong with, on a busy machine."""
MOST_THREADS = 100
"""Of the whole operator, however many stores hang in one namespace."""
TARPITS = 200

MISTYPED = (
    "postgresql://u:hunter2@/db?host=h1,h2&port=5432",  # understood; but nobody has these names
    "postgresql://u:hunter2@/db?host=h1,h2&port=abc",
    "postgresql://u:hunter2@h/db?port=abc",
    "postgresql://u:hunter2@h/db?plugin=x",
    "postgresql://u:hunter2@h:abc/db",
    "postgresql://u:hunter2@::1/db",
    "postgresql://u:hunter2@/db",
    "postgresql://u:hunter2%zz@h/db",
    "postgresql://u:hunter2%00@h/db",
    "postgresql://u:hunter2@h/db?sslmode=requird",
    "postgresql://u:hunter2@h/db?sslkeylogfile=/backups/x.dump",
    "mysql://u:hunter2@h/db",
    "hunter2",
)


SCALE = int(os.environ.get("LETHE_TENANCY_SCALE", "10"))
"""In CI it is a tenth of what one tenant may do to others; 1 is all of it."""
BROKEN_REQUESTS, UNREACHABLE_STORES = 5_000 // SCALE, 200 // SCALE
TIMES = 5
CHART = Path(__file__).parents[2] / "charts" / "lethe" / "values.yaml"


class Company:
    """A namespace with a site that nothing is wrong with."""

    def __init__(self, api: Api, site: Site) -> None:
        self.api, self.site = api, site
        self._asked = 0

    def usual_seconds(self) -> float:
        """Return how long it takes until somebody who asks is erased, in the middle of several."""
        return statistics.median(self._seconds() for _ in range(TIMES))

    def _seconds(self) -> float:
        began = time.monotonic()
        self.require_served()
        return time.monotonic() - began

    def require_served(self) -> None:
        """Require that a person who asks to be erased is, soon."""
        self._asked += 1
        name = f"r{self._asked}"
        (key,) = self.site.sign_up(f"{name}@canary.example")
        self.api.request_by_id(name, key)
        self.api.wait("deletionrequests", name, "Erased", patience=SOON)
        assert self.site.is_cleared(key)


@pytest.fixture
def neighbour(control_plane: ControlPlane, namespace: str, postgres: PostgresServer) -> Iterator[Company]:
    """Another company, which one operator serves as well."""
    name = f"{namespace}-neighbour"
    control_plane.kubectl("create", "namespace", name)
    database = name.replace("-", "_")
    company = Company(Api(control_plane, name), Site(postgres.create_database(database)))
    company.api.sql_store("site", company.site.url)
    yield company
    postgres.drop_database(database)


@pytest.fixture
def operator(
    tmp_path: Path, control_plane: ControlPlane, namespace: str, neighbour: Company
) -> Iterator[OperatorProcess]:
    """The operator of both companies; it is started by the test, after what it is to find."""
    process = OperatorProcess(
        tmp_path / "operator",
        control_plane.kubeconfig_of("operator"),
        namespaces=[namespace, neighbour.api.namespace],
    )
    yield process
    process.stop()


@pytest.fixture
def frozen(tmp_path: Path, operator: OperatorProcess) -> Iterator[PostgresServer]:
    """A server that a test may freeze; it goes on before the operator is stopped."""
    with PostgresServer(tmp_path / "frozen", fsync=False) as server:
        yield server
        server.thaw()


def store_message(api: Api, name: str) -> str:
    """Return the message of a store's Ready, which is not true and says why."""
    ready = api.condition("datastores", name, "Ready")
    assert ready.get("status") == "False", ready
    assert ready.get("reason"), ready
    assert "hunter2" not in json.dumps(api.get("datastores", name))
    return str(ready["message"])


def since(began: float) -> float:
    return time.monotonic() - began


def names_secret_and_remedy(api: Api, name: str) -> bool:
    """Whether a store's message says which Secret is wrong, and what to do."""
    message = store_message(api, name)
    return f"Secret {name}-db" in message or "Secret that spec.sql.urlSecretRef names" in message


def test_a_mistyped_url_is_told_by_its_store_and_ends_nothing(
    api: Api, neighbour: Company, operator: OperatorProcess, postgres: PostgresServer, site: Site
) -> None:
    typos = {f"typo{number}": url for number, url in enumerate(MISTYPED)}
    first, *later = typos
    api.sql_store(first, typos[first], role="Other")
    operator.start()
    for name in later:
        api.sql_store(name, typos[name], role="Other")
    for _ in range(2):
        for name in typos:
            api.wait("datastores", name, "Ready", "False", patience=SOON)
            eventually(partial(names_secret_and_remedy, api, name), partial(store_message, api, name), SOON)
        neighbour.require_served()
        assert operator.stop() == 0
        operator.start()
    api.secret("typo3-db", {"url": site.url})
    api.wait("datastores", "typo3", "Ready", patience=A_MINUTE)
    neighbour.require_served()
    assert operator.running


@pytest.fixture
def tarpit(operator: OperatorProcess) -> Iterator[Callable[..., int]]:
    """Make tarpits and return their ports; all of them end before the operator does."""
    made: list[Tarpit] = []

    def make(*, accepts: bool = True) -> int:
        made.append(Tarpit(accepts=accepts).start())
        return made[-1].port

    yield make
    for one in made:
        one.stop()


def test_servers_that_hang_are_unreachable_and_hold_up_neither_repair_nor_others(
    api: Api,
    neighbour: Company,
    operator: OperatorProcess,
    frozen: PostgresServer,
    tarpit: Callable[..., int],
    site: Site,
) -> None:
    for name in ("kept", "replaced", "mended"):
        api.sql_store(name, Site(frozen.create_database(name)).url, role="Other")
    operator.start()
    for name in ("kept", "replaced", "mended"):
        api.wait("datastores", name, "Ready")
    frozen.freeze()
    began = time.monotonic()
    silent, walled = tarpit(), tarpit(accepts=False)
    for name, port in {"silent": silent, "walled": walled}.items():
        api.sql_store(f"{name}-gone", f"postgresql://u:hunter2@127.0.0.1:{port}/db", role="Other")
        api.sql_store(name, f"postgresql://u:hunter2@127.0.0.1:{port}/db", role="Other")
        api.tryton_store(f"{name}-crm", f"http://127.0.0.1:{port}", "crm", "admin", "hunter2")
    time.sleep(1)  # by now each of them is waited for
    neighbour.require_served()

    # What hangs is given up by whoever replaces it, not waited for.
    for name in ("replaced", "silent-gone", "walled-gone"):
        api.delete("datastores", name)
        api.sql_store(name, site.url, role="Other")
    replaced_at = time.monotonic()
    for name in ("replaced", "silent-gone", "walled-gone"):
        eventually(partial(is_seen_and_ready, api, name), f"{name} to be ready", SOON - since(replaced_at))

    for name in ("kept", "mended", "silent", "walled", "silent-crm", "walled-crm"):
        api.wait_reason("datastores", name, "Unreachable", patience=A_MINUTE - since(began))
        assert store_message(api, name)
        assert api.condition("datastores", name, "SafeToServe").get("status") != "True"
        for metric in ("lethe_store_up", "lethe_store_safe_to_serve"):
            assert f'{metric}{{store="{api.namespace}/{name}"}} 1.0' not in operator.page("metrics")
    neighbour.require_served()
    api.secret("mended-db", {"url": site.url})
    eventually(partial(is_seen_and_ready, api, "mended"), "a mended Secret to be taken", A_MINUTE)
    assert api.condition("datastores", "kept", "Ready")["status"] == "False"
    frozen.thaw()
    api.wait("datastores", "kept", "Ready", patience=A_MINUTE)


def is_seen_and_ready(api: Api, name: str) -> bool:
    """Whether a store is ready, and was seen since its object was made or its Secret was changed."""
    made_at = (api.get("datastores", name) or {})["metadata"]["creationTimestamp"]
    changed_at = (api.get("secrets", f"{name}-db") or {})["metadata"]["creationTimestamp"]
    seen_at = (api.get("datastores", name) or {}).get("status", {}).get("lastSeenAt", "")
    ready = api.condition("datastores", name, "Ready").get("status") == "True"
    return ready and bool(seen_at >= max(made_at, changed_at))


def test_two_hundred_stores_that_hang_leave_the_neighbour_served(
    api: Api, neighbour: Company, operator: OperatorProcess, tarpit: Callable[..., int]
) -> None:
    api.secret("tarpit-db", {"url": f"postgresql://u:p@127.0.0.1:{tarpit()}/db"})
    sql = {"urlSecretRef": {"name": "tarpit-db", "key": "url"}, "subjects": SUBJECTS}
    operator.start()
    neighbour.require_served()
    for number in range(TARPITS):
        api.create("datastores", f"tarpit{number}", {"role": "Other", "owner": "Self", "sql": sql})
    most = 0
    for _ in range(3):
        neighbour.require_served()
        most = max(most, operator.threads)
        time.sleep(2)
    assert most <= MOST_THREADS

    # Found at the start, they hold up nobody either.
    assert operator.stop() == 0
    operator.start()
    neighbour.require_served()
    assert operator.threads <= MOST_THREADS


@pytest.fixture
def patient_operator(
    tmp_path: Path, control_plane: ControlPlane, namespace: str, neighbour: Company
) -> Iterator[OperatorProcess]:
    """An operator of both that looks at stores nearly as seldom as it does by default."""
    process = OperatorProcess(
        tmp_path / "operator",
        control_plane.kubeconfig_of("operator"),
        namespaces=[namespace, neighbour.api.namespace],
        environment={"LETHE_JOURNAL_INTERVAL": "3s"},
    )
    yield process
    process.stop()


def test_a_hostile_tenant_costs_its_neighbour_neither_time_nor_memory(
    api: Api, neighbour: Company, patient_operator: OperatorProcess, site: Site
) -> None:
    operator = patient_operator.start()
    neighbour.require_served()
    usual, process = neighbour.usual_seconds(), operator.pid
    with contextlib.ExitStack() as servers:
        for number, answer in enumerate(ENDLESS):
            port = servers.enter_context(EndlessPostgres(answer)).port
            api.sql_store(f"endless{number}", f"postgresql://u:p@127.0.0.1:{port}/db", role="Other")
        silent = servers.enter_context(Tarpit()).port
        api.sql_store("tarpit", f"postgresql://u:p@127.0.0.1:{silent}/db", role="Other")
        api.sql_store("absurd", site.url)
        api.wait("datastores", "absurd", "SafeToServe")

        def is_absurd() -> bool:  # what a tick in between has written over is written once more
            site.sql(f"UPDATE lethe_journal_head SET move = {2**63 - 1}")
            return api.condition("datastores", "absurd", "Ready").get("reason") == "Unreachable"

        eventually(is_absurd, "an absurd journal to be told", A_MINUTE)
        assert "is not what Lethe writes there" in store_message(api, "absurd")
        nowhere = {"urlSecretRef": {"name": "nowhere-db", "key": "url"}, "subjects": SUBJECTS}
        api.secret("nowhere-db", {"url": "postgresql://u:p@127.0.0.1:1/db"})
        for number in range(UNREACHABLE_STORES):
            api.create("datastores", f"away{number}", {"role": "Other", "owner": "Self", "sql": nowhere})
        for number in range(BROKEN_REQUESTS):
            subject = {"identifierSecretRef": {"name": f"none{number}", "key": "email"}}
            api.create("deletionrequests", f"broken{number}", {"subject": subject})
        neighbour.require_served()  # also in the midst of it

        for number in range(len(ENDLESS)):
            api.wait_reason("datastores", f"endless{number}", "Unreachable", patience=A_MINUTE)
        last = f"broken{BROKEN_REQUESTS - 1}"
        api.wait_reason("deletionrequests", last, "SecretMissing", patience=3 * A_MINUTE)
        under_load = neighbour.usual_seconds()
    assert under_load <= 2 * max(usual, 1.0)
    limit = str(yaml.safe_load(CHART.read_text())["resources"]["limits"]["memory"])
    assert operator.peak_memory < int(limit.removesuffix("Mi")) * 1024 * 1024
    assert (operator.running, operator.pid) == (True, process)
