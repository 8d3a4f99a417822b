"""Pods of real stores: who may serve while one of them went back in time, or is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devtools.company import Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers.controlplane import ControlPlane
from devtools.servers.postgres import PostgresServer

GATE = "lethe.dev/safe-to-serve"
PODS = {"podSelector": {"matchLabels": {"app": "site"}}}
A_FEW_LOOKS = 3.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    with PostgresServer(tmp_path / "away", fsync=False) as server:
        yield server


class Pods:
    """The pods of the site, as far as an API server goes without a node."""

    def __init__(self, control_plane: ControlPlane, api: Api) -> None:
        self._control_plane, self._api = control_plane, api
        control_plane.kubectl("create", "serviceaccount", "default", "-n", api.namespace)

    def run(self, name: str) -> None:
        """Let one more come up."""
        where = ("-n", self._api.namespace, "--image=site", "--labels=app=site,of=site")
        self._control_plane.kubectl("run", name, *where)

    def gate(self, name: str) -> dict[str, Any]:
        """Return the condition of one; empty if there is none."""
        conditions = (self._api.get("pods", name) or {})["status"].get("conditions", ())
        return next((dict(one) for one in conditions if one["type"] == GATE), {})

    def wait(self, name: str, status: str, reason: str = "") -> dict[str, Any]:
        """Wait until one is open, or closed."""

        def met() -> bool:
            gate = self.gate(name)
            return gate.get("status") == status and reason in ("", gate["reason"])

        eventually(met, lambda: f"the gate of {name} to be {status} {reason}; it is {self.gate(name)}", 60)
        return self.gate(name)


@pytest.fixture
def pods(control_plane: ControlPlane, api: Api) -> Pods:
    """The pods of the site."""
    return Pods(control_plane, api)


def restore_as_before(server: PostgresServer, database: str, dump: Path) -> None:
    server.restore(database, dump, "--clean", "--if-exists")


def test_a_pod_of_two_stores_serves_only_if_both_are_safe_and_names_which_is_not(
    api: Api,
    pods: Pods,
    site: Site,
    operator: OperatorProcess,
    control_plane: ControlPlane,
    postgres: PostgresServer,
    server: PostgresServer,
    tmp_path: Path,
) -> None:
    crm = Site(server.create_database("crm"))
    (ada,) = site.sign_up("ada@canary.example")
    crm.sign_up("ada@canary.example")
    by_another_label = {"matchExpressions": [{"key": "of", "operator": "In", "values": ["site", "crm"]}]}
    api.sql_store("site", site.url, gate=PODS)
    api.sql_store("crm", crm.url, role="CRM", gate={"podSelector": by_another_label, "release": "Manual"})
    pods.run("web")
    pods.wait("web", "True")
    dump = tmp_path / "crm.dump"
    server.dump("crm", dump)
    api.request_by_email("ada", "ada@canary.example")
    api.wait("deletionrequests", "ada", "Erased")
    assert pods.gate("web")["status"] == "True"
    open_since = len(written(control_plane, api))

    restore_as_before(server, "crm", dump)

    closed = pods.wait("web", "False", "AwaitingRelease")
    assert closed["message"].startswith("DataStore crm: ")
    api.wait("datastores", "crm", "SafeToServe", "False")
    until = time.monotonic() + A_FEW_LOOKS
    while time.monotonic() < until:  # in which the site's store says ten times that it is safe
        assert pods.gate("web")["status"] == "False"
    assert api.condition("datastores", "site", "SafeToServe")["status"] == "True"
    since = written(control_plane, api)[open_since:]
    made = since.index(("create", "restoreevents"))
    assert ("patch", "pods") in since[:made], "closed before anything is told"

    event = api.list("restoreevents")[0]["metadata"]["name"]
    api.patch_spec("restoreevents", event, {"release": {"because": "verified"}})
    pods.wait("web", "True")
    assert site.is_cleared(ada)


def test_while_a_store_is_away_who_serves_goes_on_and_new_pods_wait_unless_told_else(
    api: Api, pods: Pods, operator: OperatorProcess, server: PostgresServer
) -> None:
    for name, app in {"site": "Closed", "trusted": "LastVerified"}.items():
        gate = {"podSelector": {"matchLabels": {"of": name}}, "whenAway": app}
        api.sql_store(name, Site(server.create_database(name)).url, role="Other", gate=gate)
        run_of(api, pods, f"{name}-old", name)
        pods.wait(f"{name}-old", "True")

    server.stop()
    for name in ("site", "trusted"):
        api.wait_reason("datastores", name, "Unreachable", patience=60)
        run_of(api, pods, f"{name}-new", name)
    waits = pods.wait("site-new", "False", "StoreAway")
    assert waits["message"].startswith("DataStore site can't be looked at: ")
    pods.wait("trusted-new", "True", "LastVerified")

    assert operator.stop() == 0  # what is known of them now stands in the ledger only
    operator.start()
    for name in ("site", "trusted"):
        api.wait_reason("datastores", name, "Unreachable", patience=60)
        run_of(api, pods, f"{name}-newest", name)
    pods.wait("site-newest", "False", "StoreAway")
    pods.wait("trusted-newest", "True", "LastVerified")
    for name in ("site-old", "trusted-old", "trusted-new"):
        assert pods.gate(name)["status"] == "True"

    server.start()
    pods.wait("site-newest", "True", "Verified")


def test_what_was_verified_before_a_store_was_let_go_counts_no_more_after_a_restart(
    api: Api, pods: Pods, operator: OperatorProcess, server: PostgresServer, tmp_path: Path
) -> None:
    """Whoever suspended it may have restored meanwhile, which nobody can look at while it is away."""
    site = Site(server.create_database("site"))
    api.sql_store("site", site.url, gate={**PODS, "whenAway": "LastVerified"})
    (ada,) = site.sign_up("ada@canary.example")
    pods.run("old")
    pods.wait("old", "True")
    server.dump("site", tmp_path / "site.dump")
    api.request_by_id("ada", ada)
    api.wait("deletionrequests", "ada", "Erased")
    api.patch_spec("datastores", "site", {"suspend": True})
    pods.wait("old", "False", "Suspended")
    api.wait_reason("datastores", "site", "Suspended", patience=60)
    restore_as_before(server, "site", tmp_path / "site.dump")
    server.stop()

    operator.kill9()
    operator.start()
    pods.run("new")
    pods.wait("new", "False", "Suspended")

    api.patch_spec("datastores", "site", {"suspend": None})
    api.wait_reason("datastores", "site", "Unreachable", patience=60)
    operator.kill9()
    operator.start()  # and the next one knows it from the one before
    pods.run("newest")
    pods.wait("newest", "False", "StoreAway")
    until = time.monotonic() + A_FEW_LOOKS
    while time.monotonic() < until:
        assert {pods.gate(one)["status"] for one in ("old", "new", "newest")} == {"False"}
    server.start()
    for name in ("old", "newest"):
        pods.wait(name, "True", "Verified")
    assert site.is_cleared(ada)


def test_a_store_that_went_back_and_is_away_lets_nobody_serve(
    api: Api, pods: Pods, operator: OperatorProcess, server: PostgresServer, tmp_path: Path
) -> None:
    site = Site(server.create_database("site"))
    api.sql_store("site", site.url, gate={**PODS, "release": "Manual", "whenAway": "LastVerified"})
    (ada,) = site.sign_up("ada@canary.example")
    api.wait("datastores", "site", "SafeToServe")
    server.dump("site", tmp_path / "site.dump")
    api.request_by_id("ada", ada)
    api.wait("deletionrequests", "ada", "Erased")
    restore_as_before(server, "site", tmp_path / "site.dump")
    eventually(lambda: bool(api.list("restoreevents")), "a RestoreEvent", 60)
    server.stop()
    api.wait_reason("datastores", "site", "Unreachable", patience=60)
    assert operator.stop() == 0
    operator.start()
    pods.run("web")
    assert pods.wait("web", "False", "Replaying")["message"].startswith("DataStore site: ")
    api.wait("datastores", "site", "SafeToServe", "False")
    server.start()
    pods.wait("web", "False", "AwaitingRelease")


def test_a_role_and_a_networkpolicy_keep_out_who_needs_no_pod_until_it_is_safe(
    *,
    api: Api,
    operator: OperatorProcess,
    control_plane: ControlPlane,
    server: PostgresServer,
    tmp_path: Path,
) -> None:
    """The application is outside of the cluster, and the policy is for those that are inside."""
    site = Site(server.create_database("site"))
    (ada,) = site.sign_up("ada@canary.example")
    server.psql("CREATE ROLE app LOGIN PASSWORD 'secret'")
    server.psql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO app", database="site")
    network = {"podSelector": {"matchLabels": {"app": "db"}}}
    gate = {"role": {"names": ["app"]}, "networkPolicy": network, "release": "Manual"}
    api.sql_store("site", site.url, gate=gate)
    api.wait("datastores", "site", "SafeToServe")
    dump = server.dump("site", tmp_path / "site.dump")
    api.request_by_id("ada", ada)
    api.wait("deletionrequests", "ada", "Erased")
    app = psycopg.connect(server.url("site", user="app", password="secret"), autocommit=True)
    assert is_in(server)
    assert policies(control_plane, api) == []

    restore_as_before(server, "site", dump)
    event = eventually_undeclared(api)
    api.wait_reason("restoreevents", event, "AwaitingRelease", patience=60)
    with pytest.raises(psycopg.OperationalError):
        app.execute("SELECT email FROM users")
    assert not is_in(server)
    assert policies(control_plane, api) == ["lethe-gate-site"]
    operator.kill9()
    operator.start()  # remembers nothing, and need not
    api.wait_reason("restoreevents", event, "AwaitingRelease", patience=60)
    assert not is_in(server)

    api.patch_spec("restoreevents", event, {"release": {"because": "verified"}})
    eventually(lambda: is_in(server), "the role to be let in", 60)
    eventually(lambda: policies(control_plane, api) == [], "the policy to be gone", 60)
    assert site.is_cleared(ada)
    assert api.condition("datastores", "site", "SafeToServe")["reason"] == "Verified"

    # Lethe lets go of the store, and has closed the gate before.
    api.patch_spec("datastores", "site", {"suspend": True})
    eventually(lambda: not is_in(server), "the role to be out", 60)
    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'site' AND application_name = 'lethe'"
    eventually(lambda: server.psql(ours) == "0", "Lethe to let go", 60)
    api.patch_spec("datastores", "site", {"suspend": None})
    eventually(lambda: is_in(server), "the role to be let in again", 60)

    # A restore that is told of: the role is out before, and whatever comes back.
    told = {"store": "site", "reason": "Drill", "justification": "a drill", "underway": "Begun"}
    api.create("restoreevents", "told", told)
    api.wait_reason("restoreevents", "told", "Underway", patience=60)
    eventually(lambda: not is_in(server), "the role to be out", 60)
    eventually(lambda: server.psql(ours) == "0", "Lethe to let go", 60)
    server.psql("DROP DATABASE site")  # without FORCE
    server.restore(server.create_database("site").rpartition("/")[2], dump)
    assert not is_in(server)
    api.patch_spec("restoreevents", "told", {"underway": "Ended"})
    api.wait_reason("restoreevents", "told", "AwaitingRelease", patience=60)
    assert not is_in(server)
    api.patch_spec("restoreevents", "told", {"release": {"because": "verified"}})
    eventually(lambda: is_in(server), "the role to be let in after the drill", 60)
    assert site.is_cleared(ada)

    # What can't be closed is said while all is well.
    api.patch_spec("datastores", "site", {"gate": {"role": {"names": ["app", "gone"]}}})
    said = api.wait_reason("datastores", "site", "Misconfigured", patience=60)
    assert "there is no role gone; create it, or correct spec.gate.role.names" in str(said["status"])


def is_in(server: PostgresServer) -> bool:
    """Tell whether the application can connect."""
    return server.psql("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'app'") == "t"


def policies(control_plane: ControlPlane, api: Api) -> list[str]:
    """Return the names of the namespace's NetworkPolicies."""
    names = "-o=jsonpath={.items[*].metadata.name}"
    return control_plane.kubectl("get", "networkpolicies", f"--namespace={api.namespace}", names).split()


def eventually_undeclared(api: Api) -> str:
    """Wait for the RestoreEvent that Lethe makes; return its name."""
    eventually(lambda: bool(api.list("restoreevents")), "a RestoreEvent", 60)
    return str(api.list("restoreevents")[0]["metadata"]["name"])


def written(control_plane: ControlPlane, api: Api) -> list[tuple[str, str]]:
    """Return what was done to which kind of object in a namespace, in the order in which it ended."""
    return [
        (event["verb"], event["objectRef"]["resource"])
        for event in control_plane.audit_events()
        if event.get("objectRef", {}).get("namespace") == api.namespace
        and event["stage"] == "ResponseComplete"
    ]


def run_of(api: Api, pods: Pods, name: str, store: str) -> None:
    """Let a pod of one store come up."""
    pods.run(name)
    api.call(
        "PATCH",
        api.path("pods", name),
        {"metadata": {"labels": {"of": store}}},
        "application/merge-patch+json",
    )
