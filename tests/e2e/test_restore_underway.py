"""Somebody says that a restore begins, and that it has ended."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from devtools.company import Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers import ControlPlane, PostgresServer
from devtools.servers.relay import Relay

LABELS = {"app": "site"}
GATE = {"podSelector": {"matchLabels": LABELS}, "whenAway": "LastVerified"}
BEGUN = {"store": "site", "reason": "NaturalDisaster", "justification": "INC-42", "underway": "Begun"}


def gate_of(api: Api) -> dict[str, Any]:
    """Return what is said at the gate of the site's pod."""
    conditions = (api.get("pods", "web") or {}).get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == "lethe.dev/safe-to-serve"), {"status": ""})


def open_site(api: Api, site: Site, **gate: Any) -> None:
    """Let a site be served by a pod with a gate."""
    api.sql_store("site", site.url, gate={**GATE, **gate})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": LABELS}}
    spec = {"containers": [{"name": "web", "image": "web"}]}
    status, body = api.call("POST", api.path("pods"), {**pod, "spec": spec})
    assert status == 201, body
    eventually(lambda: gate_of(api)["status"] == "True", "the gate to be open")


def end(api: Api, event: str) -> None:
    """Say that a restore has ended."""
    status, body = api.patch_spec("restoreevents", event, {"underway": "Ended"})
    assert status == 200, body


def test_a_restore_that_is_told_of_finds_the_gate_closed_and_the_database_let_go(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer, tmp_path: Path
) -> None:
    database = site.url.rsplit("/", 1)[1]
    ada, bob, cleo = site.sign_up(*(f"{name}@canary.example" for name in ("ada", "bob", "cleo")))
    open_site(api, site)
    dump = postgres.dump(database, tmp_path / "site.dump")
    api.request_by_id("r1", ada)
    api.wait("deletionrequests", "r1", "Erased")

    api.create("restoreevents", "incident-42", BEGUN)
    eventually(lambda: gate_of(api)["status"] == "False", "the gate to be closed")
    assert gate_of(api)["reason"] == "RestoreUnderway"
    api.wait_reason("restoreevents", "incident-42", "Underway")
    api.wait_reason("datastores", "site", "RestoreUnderway")
    safe = api.condition("datastores", "site", "SafeToServe")
    assert (safe["status"], safe["reason"]) == ("False", "RestoreUnderway")
    api.request_by_email("r2", "bob@canary.example")
    api.wait_reason("deletionrequests", "r2", "StoreUnreachable")
    assert "says RestoreEvent incident-42" in api.condition("deletionrequests", "r2", "Ready")["message"]
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND usename IS NOT NULL"
    eventually(lambda: postgres.psql(sessions) == "0", "Lethe to let go")

    operator.kill9()
    opened = [gate_of(api)["lastTransitionTime"]]
    operator.start()
    api.wait_reason("datastores", "site", "RestoreUnderway")
    postgres.psql(f'DROP DATABASE "{database}"')  # without FORCE
    postgres.create_database(database)
    postgres.restore(database, dump)
    assert site.is_intact(ada)
    assert postgres.psql(sessions) == "0"

    end(api, "incident-42")
    end(api, "incident-42")
    event = api.wait("restoreevents", "incident-42", "SafeToServe", patience=60)
    api.wait("deletionrequests", "r2", "Erased", patience=60)
    eventually(lambda: gate_of(api)["status"] == "True", "the gate to be open again")
    assert site.is_cleared(ada)
    assert site.is_cleared(bob)
    assert site.is_intact(cleo)
    assert event["status"]["replay"]["reErased"] == 1
    assert [each["metadata"]["name"] for each in api.list("restoreevents")] == ["incident-42"]
    assert opened[0] <= event["status"]["safeToServeAt"] <= gate_of(api)["lastTransitionTime"]


def test_the_gate_stays_closed_until_all_that_was_begun_is_over_though_nothing_came_back(
    api: Api, site: Site, operator: OperatorProcess
) -> None:
    open_site(api, site)
    for event in ("first", "second", "third"):
        api.create("restoreevents", event, BEGUN)
    for event in ("first", "second", "third"):
        api.wait_reason("restoreevents", event, "Underway")
    end(api, "first")
    api.delete("restoreevents", "third")
    operator.stop()
    operator.start()
    eventually(
        lambda: "says RestoreEvent second:" in api.condition("datastores", "site", "Ready")["message"],
        "the one that is left to be named",
    )
    assert gate_of(api)["status"] == "False"
    end(api, "second")
    for event in ("first", "second"):
        api.wait("restoreevents", event, "SafeToServe", patience=60)
        said = api.wait_reason("restoreevents", event, "NothingCameBack")
        assert said["status"]["state"] == "NothingCameBack"
    eventually(lambda: gate_of(api)["status"] == "True", "the gate to be open again")
    api.create("restoreevents", "fourth", BEGUN)
    eventually(lambda: gate_of(api)["status"] == "False", "the gate to be closed")
    api.wait_reason("datastores", "site", "RestoreUnderway")
    operator.stop()
    api.delete("restoreevents", "fourth")
    operator.start()
    eventually(lambda: gate_of(api)["status"] == "True", "the gate to be open again")
    seen = (api.get("datastores", "site") or {})["status"]["lastSeenAt"]
    assert seen <= gate_of(api)["lastTransitionTime"]


def test_what_was_found_before_it_was_told_of_is_answered_for_and_waits_for_its_end(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer, tmp_path: Path
) -> None:
    """The gate that a person releases keeps the restore open until somebody begins another one."""
    database = site.url.rsplit("/", 1)[1]
    ada, bob = site.sign_up("ada@canary.example", "bob@canary.example")
    open_site(api, site, release="Manual")
    dump = postgres.dump(database, tmp_path / "site.dump")
    for name, key in (("r1", ada), ("r2", bob)):
        api.request_by_id(name, key)
        api.wait("deletionrequests", name, "Erased")
    postgres.restore(database, dump, "--clean", "--if-exists")
    eventually(lambda: bool(api.list("restoreevents")), "a RestoreEvent", 60)
    (found,) = (event["metadata"]["name"] for event in api.list("restoreevents"))
    api.wait_reason("restoreevents", found, "AwaitingRelease", patience=60)
    assert site.is_cleared(ada)

    api.create("restoreevents", "incident-42", BEGUN)
    api.wait_reason("restoreevents", "incident-42", "Underway")
    api.wait_reason("datastores", "site", "RestoreUnderway")
    eventually(lambda: operator.metric("lethe_restore_underway_seconds") > 0, "it to be measured")
    eventually(lambda: operator.metric("lethe_restores_without_reason") == 0, "it to be answered for")
    postgres.restore(database, dump, "--clean", "--if-exists")  # once more, and nobody looks
    end(api, "incident-42")
    eventually(lambda: site.is_cleared(ada) and site.is_cleared(bob), "both to be erased again", 60)
    api.wait_reason("restoreevents", "incident-42", "AwaitingRelease", patience=60)
    assert gate_of(api)["status"] == "False"
    api.patch_spec("restoreevents", "incident-42", {"release": {"because": "verified"}})
    eventually(lambda: gate_of(api)["status"] == "True", "the gate to be open again", 60)
    assert {event["metadata"]["name"] for event in api.list("restoreevents")} == {found, "incident-42"}
    assert operator.metric("lethe_restores_without_reason") == 0


KILLED_WHILE_BEGUN = ("after take_over", "after write_status")
KILLED_AFTERWARDS = (
    *("before append", "after append", "before erase", "after erase"),
    *("before tick", "after tick", "after write_status"),
)


@pytest.mark.slow
def test_a_kill_at_any_step_from_begin_to_end_lets_nobody_be_served_who_came_back(
    api: Api, site: Site, control_plane: ControlPlane, postgres: PostgresServer, tmp_path: Path
) -> None:
    """The erasure of bob is in flight when the restore begins: committed in the store, not in the ledger."""
    database = site.url.rsplit("/", 1)[1]
    ada, bob, cleo = site.sign_up(*(f"{name}@canary.example" for name in ("ada", "bob", "cleo")))

    def operator(fatal: str) -> OperatorProcess:
        return OperatorProcess(
            tmp_path / "operator",
            control_plane.kubeconfig_of("operator"),
            namespaces=[api.namespace],
            module="tests.e2e.crashing",
            arguments=(fatal, str(tmp_path / "moments")),
        )

    def run(fatal: str) -> None:
        """Run an operator until it kills itself; one that never comes to that moment has nothing to do."""
        process = operator(fatal)
        process.begin()
        try:
            until = time.monotonic() + 15
            while process.running and time.monotonic() < until:
                assert gate_of(api)["status"] != "True" or site.is_cleared(ada), fatal
                time.sleep(0.02)
        finally:
            process.kill9()

    first = operator("0")
    first.start()
    try:
        open_site(api, site)
        dump = postgres.dump(database, tmp_path / "site.dump")
        api.request_by_id("r1", ada)
        api.wait("deletionrequests", "r1", "Erased")
    finally:
        first.kill9()
    api.request_by_id("r2", bob)
    run("after erase")
    assert site.is_cleared(bob)
    api.create("restoreevents", "incident-42", BEGUN)
    for moment in KILLED_WHILE_BEGUN:
        run(moment)
    told = operator("0")
    told.start()  # those may have died before they came to the gate
    try:
        eventually(lambda: gate_of(api)["status"] == "False", "the gate to be closed")
    finally:
        told.kill9()
    postgres.psql(f'DROP DATABASE "{database}"')
    postgres.create_database(database)
    postgres.restore(database, dump)
    end(api, "incident-42")
    for moment in KILLED_AFTERWARDS:
        run(moment)
    last = operator("0")
    last.start()
    try:
        event = api.wait("restoreevents", "incident-42", "SafeToServe", patience=60)
        api.wait("deletionrequests", "r2", "Erased", patience=60)
        eventually(lambda: gate_of(api)["status"] == "True", "the gate to be open again")
    finally:
        last.kill9()
    assert event["status"]["state"] == "SafeToServe"
    assert site.is_cleared(ada)
    assert site.is_cleared(bob)
    assert site.is_intact(cleo)
    assert [each["metadata"]["name"] for each in api.list("restoreevents")] == ["incident-42"]


def test_an_api_server_that_goes_away_while_a_restore_is_under_way_opens_nothing(
    api: Api, site: Site, namespace: str, control_plane: ControlPlane, tmp_path: Path
) -> None:
    with Relay(urlsplit(control_plane.url).port or 443) as relay:
        config = json.loads(control_plane.kubeconfig_of("operator").read_text())
        for cluster in config["clusters"]:
            cluster["cluster"]["server"] = f"https://127.0.0.1:{relay.port}"
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        operator = OperatorProcess(tmp_path / "operator", tmp_path / "kubeconfig", namespaces=[namespace])
        operator.start()
        try:
            open_site(api, site)
            api.create("restoreevents", "incident-42", BEGUN)
            api.wait_reason("datastores", "site", "RestoreUnderway")
            eventually(lambda: gate_of(api)["status"] == "False", "the gate to be closed")
            relay.hold()
            end(api, "incident-42")
            operator.kill9()
            operator.begin()
            time.sleep(3)
            assert gate_of(api)["reason"] == "RestoreUnderway"
            relay.let_go()
            api.wait_reason("restoreevents", "incident-42", "NothingCameBack", patience=60)
            eventually(lambda: gate_of(api)["status"] == "True", "the gate to be open again")
        finally:
            relay.let_go()
            operator.stop()
