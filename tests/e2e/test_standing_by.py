"""One operator works, others stand by: `LETHE_LEASE` on a real API server, with a ledger in PostgreSQL."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.company import Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers import ControlPlane, PostgresServer

pytestmark = pytest.mark.slow

A_MINUTE = 60.0
StandBy = Callable[[str], OperatorProcess]
"""Starts an operator of a name and waits until it leads or stands by."""


@pytest.fixture
def ledgers(tmp_path: Path) -> Iterator[PostgresServer]:
    """A database server beside the one of the stores: a ledger on theirs would be refused."""
    with PostgresServer(tmp_path / "ledgers", fsync=False) as running:
        yield running


@pytest.fixture
def stand_by(
    tmp_path: Path, control_plane: ControlPlane, namespace: str, ledgers: PostgresServer
) -> Iterator[StandBy]:
    """Operators that share a ledger, keys and a Lease."""
    shared = {
        "LETHE_LEDGER_URL": ledgers.create_database("ledger"),
        "LETHE_KEYS_DIR": str(tmp_path / "keys"),
        "LETHE_LEASE": f"{namespace}/lethe",
    }
    (tmp_path / "keys").mkdir()
    kubeconfig = control_plane.kubeconfig_of("operator")
    started: list[OperatorProcess] = []

    def start(name: str) -> OperatorProcess:
        operator = OperatorProcess(tmp_path / name, kubeconfig, namespaces=[namespace], environment=shared)
        started.append(operator)
        operator.begin()
        eventually(lambda: ready(operator) in {"ready", "standing by"}, f"{name} to be ready", 60)
        return operator

    yield start
    for operator in started:
        operator.kill9()


def ready(operator: OperatorProcess) -> str:
    """Return what an operator says of itself."""
    try:
        return operator.page("readyz").strip()
    except OSError:
        return "silent, or starting"


def holder(api: Api) -> str:
    """Return who has the Lease."""
    lease = api.get("leases", "lethe")
    return str(lease["spec"].get("holderIdentity", "")) if lease else ""


def test_who_stands_by_takes_over_from_who_ends_and_from_who_was_killed(
    api: Api, site: Site, stand_by: StandBy
) -> None:
    ada, bob, eve = site.sign_up("ada@canary.example", "bob@canary.example", "eve@canary.example")
    api.sql_store("site", site.url)
    one, two = stand_by("one"), stand_by("two")
    assert (ready(one), ready(two)) == ("ready", "standing by")
    assert (one.metric("lethe_leader"), two.metric("lethe_leader")) == (1, 0)
    api.request_by_id("r1", ada)
    api.wait("deletionrequests", "r1", "Erased", patience=60)

    before = holder(api)
    assert one.stop() == 0
    eventually(lambda: ready(two) == "ready", "the second to lead", 10)
    assert holder(api) not in {"", before}
    api.request_by_id("r2", bob)
    api.wait("deletionrequests", "r2", "Erased", patience=60)

    three = stand_by("three")
    assert ready(three) == "standing by"
    two.kill9()
    eventually(lambda: ready(three) == "ready", "the third to lead", 60)
    api.request_by_id("r3", eve)
    api.wait("deletionrequests", "r3", "Erased", patience=60)
    assert site.is_cleared(ada)
    assert site.is_cleared(bob)
    assert site.is_cleared(eve)
    lease = api.get("leases", "lethe")
    assert lease is not None
    assert lease["spec"]["leaseTransitions"] >= 2
    assert lease["spec"]["acquireTime"] <= lease["spec"]["renewTime"]


def test_a_leader_whose_lease_is_anothers_ends(api: Api, site: Site, stand_by: StandBy) -> None:
    api.sql_store("site", site.url)
    operator = stand_by("one")
    taken = {"spec": {"holderIdentity": "somebody"}}
    api.call("PATCH", api.path("leases", "lethe"), taken, "application/merge-patch+json")
    eventually(lambda: not operator.running, "the operator to end", 30)
    assert operator.stop() == 3
    assert f"Lease {api.namespace}/lethe is held by somebody; this one ends" in operator.log.read_text()
    assert holder(api) == "somebody"


def test_a_leader_whose_ledger_freezes_says_so_and_lets_who_stands_by_work(
    api: Api, site: Site, stand_by: StandBy, ledgers: PostgresServer
) -> None:
    one, other = stand_by("one"), stand_by("other")
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "SafeToServe")
    ledgers.freeze()
    try:
        eventually(lambda: not one.running, "the leader to end", 2 * A_MINUTE)
        assert "LETHE_LEDGER_URL: 127.0.0.1" in one.log.read_text()
        assert "is away or refuses" in one.log.read_text()
        eventually(lambda: not holder(api).endswith("one"), "its Lease to be given back", A_MINUTE)
    finally:
        ledgers.thaw()
    if not other.running:  # as a pod is started anew whose ledger does not answer
        other.begin()
    eventually(lambda: ready(other) == "ready", lambda: f"the other to lead, {ready(other)}", 2 * A_MINUTE)
    (ada,) = site.sign_up("ada@canary.example")
    api.request_by_id("ada", ada)
    api.wait("deletionrequests", "ada", "Erased")


def test_who_could_not_open_the_ledger_does_not_stand_by(
    api: Api, stand_by: StandBy, ledgers: PostgresServer, control_plane: ControlPlane, tmp_path: Path
) -> None:
    stand_by("one")
    nowhere = ledgers.url("not_there")
    settings = {"LETHE_LEDGER_URL": nowhere, "LETHE_LEASE": f"{api.namespace}/lethe"}
    settings["LETHE_KEYS_DIR"] = str(tmp_path / "keys")
    wrong = OperatorProcess(tmp_path / "wrong", control_plane.kubeconfig_of("operator"), environment=settings)
    wrong.begin()
    eventually(lambda: not wrong.running, "it to end", 60)
    assert wrong.stop() == 2
    assert "not_there does not exist; create the database and its user" in wrong.log.read_text()


def test_without_the_right_to_the_lease_it_says_so_and_does_nothing(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    kubeconfig = json.loads(control_plane.kubeconfig.read_text())
    control_plane.kubectl("create", "serviceaccount", "powerless", "-n", namespace)
    token = control_plane.kubectl("create", "token", "powerless", "-n", namespace)
    kubeconfig["users"][0]["user"] = {"token": token.strip()}
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    lease = {"LETHE_LEASE": f"{namespace}/lethe"}
    operator = OperatorProcess(tmp_path / "operator", tmp_path / "kubeconfig", environment=lease)
    operator.begin()
    try:
        said = f"the API server refused GET /apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/lethe"
        eventually(lambda: said in operator.log.read_text(), "the refusal to be said", 30)
        assert "check the operator's RBAC" in operator.log.read_text()
        assert ready(operator) == "silent, or starting"
        assert not operator.ledger.exists()
    finally:
        operator.stop()
