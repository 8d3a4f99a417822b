"""Others' objects close a store's gate before the data that they bring back is there."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devtools.company import Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers.controlplane import ControlPlane
from devtools.servers.postgres import PostgresServer
from tests.e2e import crashing
from tests.e2e.conftest import StartOperator
from tests.e2e.others_kinds import Others, install
from tests.e2e.set_clocks import ClockedOperator

GATE = {"podSelector": {"matchLabels": {"app": "site"}}}
CONTAINER = {"name": "restore", "image": "restore"}
MOST = 4
"""How many expected restores of one store are told at a time."""


@pytest.fixture
def others(control_plane: ControlPlane, api: Api) -> Others:
    """Whoever restores by others' tools, whose kinds are installed."""
    install(control_plane)
    control_plane.kubectl("create", "namespace", velero_of(api))
    return Others(api)


def velero_of(api: Api) -> str:
    return f"velero-{api.namespace}"


def everything(api: Api) -> str:
    return f"velero={velero_of(api)},cloudNativePG,volumeSnapshots,jobs"


class Web:
    """A pod of the site."""

    def __init__(self, api: Api) -> None:
        self._api = api
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "site"}}}
        status, body = api.call("POST", api.path("pods"), pod | {"spec": {"containers": [CONTAINER]}})
        assert status == 201, body

    def gate(self) -> tuple[str, str]:
        """Return status and reason of its gate."""
        conditions = (self._api.get("pods", "web") or {}).get("status", {}).get("conditions") or ()
        found: Mapping[str, str] = next(
            (one for one in conditions if one["type"] == "lethe.dev/safe-to-serve"), {}
        )
        return found.get("status", ""), found.get("reason", "")

    def is_opened(self) -> None:
        """Wait until it is open."""
        eventually(lambda: self.gate()[0] == "True", lambda: f"the gate to be open; it is {self.gate()}")

    def is_closed(self, reason: str = "RestoreExpected") -> None:
        """Wait until it is closed."""
        met = ("False", reason)
        eventually(lambda: self.gate() == met, lambda: f"the gate to be {met}; it is {self.gate()}")


@pytest.fixture
def web(api: Api) -> Web:
    """A pod of the site."""
    return Web(api)


def apply_store(api: Api, site: Site, tmp_path: Path, **gate: str) -> None:
    """Apply the site with all that tells where it runs, and where its backups lie."""
    dumps = {"path": str(tmp_path), "name": "site-{takenAt:%Y%m%d}.dump", "claimName": "dumps"}
    api.create("backupsources", "nightly", {"stores": ["site"], "directory": dumps})
    runs_in = {"cloudNativePG": "shop", "claims": ["data-postgres-0"]}
    api.sql_store("site", site.url, gate=GATE | gate, runsIn=runs_in)


def mounting(claim: str) -> dict[str, Any]:
    volumes = [{"name": "dumps", "persistentVolumeClaim": {"claimName": claim}}]
    return {"restartPolicy": "Never", "containers": [CONTAINER], "volumes": volumes}


def begin(others: Others, api: Api, kind: str, name: str) -> str:
    """Let a restore begin by an object of a kind; return its uid."""
    if kind == "Restore":
        spec: Mapping[str, Any] = {"backupName": "nightly", "includedNamespaces": ["*"]}
        return others.create(kind, name, spec, namespace=velero_of(api))
    if kind == "Cluster":
        return others.create(kind, name, {"instances": 1, "bootstrap": {"recovery": {"source": "shop"}}})
    if kind == "PersistentVolumeClaim":
        snapshot = f"of-{name}"
        others.create(
            "VolumeSnapshot", snapshot, {"source": {"persistentVolumeClaimName": "data-postgres-0"}}
        )
        source = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot}
        resources = {"requests": {"storage": "1Gi"}}
        return others.create(
            kind, name, {"accessModes": ["ReadWriteOnce"], "resources": resources, "dataSource": source}
        )
    if kind == "Job":
        return others.create(kind, name, {"template": {"spec": mounting("dumps")}})
    return others.create(kind, name, mounting("dumps"))


def end(others: Others, api: Api, kind: str, name: str) -> None:
    """Let a restore by an object of a kind have ended."""
    ended: dict[str, Mapping[str, Any]] = {
        "Cluster": {"phase": "Cluster in healthy state"},
        "PersistentVolumeClaim": {"phase": "Bound"},
        "Pod": {"phase": "Succeeded"},
        "Restore": {"phase": "Completed"},
        "Job": {
            "startTime": "2026-01-01T00:00:00Z",
            "completionTime": "2026-01-01T00:01:00Z",
            "conditions": [
                {"type": "SuccessCriteriaMet", "status": "True"},
                {"type": "Complete", "status": "True"},
            ],
        },
    }
    others.tell(kind, name, ended[kind], namespace=velero_of(api) if kind == "Restore" else "")


def event_of(api: Api, uid: str) -> dict[str, Any]:
    """Return the RestoreEvent that tells of an object; empty: there is none."""
    events = api.list("restoreevents")
    return next((one for one in events if one["spec"].get("expected", {}).get("uid") == uid), {})


def wait_state(api: Api, uid: str, state: str) -> dict[str, Any]:
    def told() -> str:
        return str(event_of(api, uid).get("status", {}).get("state"))

    eventually(lambda: told() == state, lambda: f"{state}; it is {event_of(api, uid)}")
    return event_of(api, uid)


BY = ("Restore", "Cluster", "PersistentVolumeClaim", "Job", "Pod")


def test_what_announces_a_restore_closes_the_gate_until_it_has_ended_and_nothing_came(
    api: Api,
    others: Others,
    site: Site,
    web: Web,
    start_operator: StartOperator,
    tmp_path: Path,
) -> None:
    start_operator(LETHE_EARLY_WARNING=everything(api))
    apply_store(api, site, tmp_path)
    (ada,) = site.sign_up("ada@canary.example")
    for kind in BY:
        name = f"again-{kind.lower()}"
        web.is_opened()
        uid = begin(others, api, kind, name)
        web.is_closed()
        event = wait_state(api, uid, "Expected")
        where = velero_of(api) if kind == "Restore" else api.namespace
        noticed_at = event["spec"]["expected"].pop("noticedAt")
        assert timedelta() <= datetime.now(UTC) - datetime.fromisoformat(noticed_at) < timedelta(minutes=2)
        assert event["spec"] == {
            "store": "site",
            "reason": "Undeclared",
            "expected": {"kind": kind, "namespace": where, "name": name, "uid": uid},
        }
        api.wait("datastores", "site", "SafeToServe", "False")
        assert api.condition("datastores", "site", "SafeToServe")["reason"] == "RestoreExpected"
        end(others, api, kind, name)
        event = wait_state(api, uid, "Expired")
        assert f"{kind} {where}/{name}" in event["status"]["conditions"][0]["message"]
    web.is_opened()
    api.request_by_id("ada", ada)
    api.wait("deletionrequests", "ada", "Erased")
    assert len(api.list("restoreevents")) == len(BY)


def test_a_restore_that_was_announced_is_its_events_from_when_it_is_found(
    api: Api,
    others: Others,
    site: Site,
    web: Web,
    start_operator: StartOperator,
    postgres: PostgresServer,
    tmp_path: Path,
) -> None:
    start_operator(LETHE_EARLY_WARNING=everything(api))
    apply_store(api, site, tmp_path)
    web.is_opened()
    people = site.sign_up(*(f"p{n}@canary.example" for n in range(len(BY) - 1)))
    database = site.url.rsplit("/", 1)[1]
    dump = postgres.dump(database, tmp_path / "site.dump")
    before = begin(others, api, "Restore", "brought-nothing")
    wait_state(api, before, "Expected")
    end(others, api, "Restore", "brought-nothing")
    wait_state(api, before, "Expired")
    for n, (kind, person) in enumerate(zip(BY[:-1], people, strict=True)):
        api.request_by_email(f"p{n}", f"p{n}@canary.example")
        api.wait("deletionrequests", f"p{n}", "Erased")
        uid = begin(others, api, kind, f"back-{kind.lower()}")
        web.is_closed()
        assert site.is_cleared(person), "the data is not there yet"
        postgres.restore(database, dump, "--clean", "--if-exists")
        event = wait_state(api, uid, "SafeToServe")
        assert event["status"]["detectedBy"] in ("Journal", "TableIdentity")
        assert site.is_cleared(person)
        web.is_opened()
    assert len(api.list("restoreevents")) == 1 + len(people)
    wait_state(api, before, "Expired")  # what came later was not what it had announced


def test_what_is_announced_while_another_restore_is_dealt_with_keeps_the_gate_closed(
    api: Api,
    others: Others,
    site: Site,
    web: Web,
    start_operator: StartOperator,
    postgres: PostgresServer,
    tmp_path: Path,
) -> None:
    start_operator(LETHE_EARLY_WARNING=everything(api))
    apply_store(api, site, tmp_path, release="Manual")
    (ada,) = site.sign_up("ada@canary.example")
    web.is_opened()
    database = site.url.rsplit("/", 1)[1]
    dump = postgres.dump(database, tmp_path / "site.dump")
    api.request_by_email("ada", "ada@canary.example")
    api.wait("deletionrequests", "ada", "Erased")
    postgres.restore(database, dump, "--clean", "--if-exists")
    web.is_closed("AwaitingRelease")
    (first,) = api.list("restoreevents")
    uid = begin(others, api, "Restore", "second")
    wait_state(api, uid, "Expected")
    api.patch_spec("restoreevents", first["metadata"]["name"], {"release": {"because": "looked at"}})
    web.is_closed()
    end(others, api, "Restore", "second")
    wait_state(api, uid, "Expired")
    web.is_opened()
    assert site.is_cleared(ada)


def test_what_was_noticed_when_the_operator_was_killed_is_told_by_the_next(
    api: Api,
    others: Others,
    site: Site,
    web: Web,
    start_operator: StartOperator,
    control_plane: ControlPlane,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "operator"
    (folder / "keys").mkdir(parents=True)
    environment = {
        "LETHE_KUBECONFIG": str(control_plane.kubeconfig_of("operator")),
        "LETHE_NAMESPACES": api.namespace,
        "LETHE_LEDGER_URL": f"sqlite:///{folder / 'ledger.db'}",
        "LETHE_KEYS_DIR": str(folder / "keys"),
        "LETHE_STORE_HOSTS": "*,127.0.0.0/8,[::1]",
        "LETHE_JOURNAL_INTERVAL": "300ms",
        "LETHE_METRICS_ADDRESS": "127.0.0.1:0",
        "LETHE_EARLY_WARNING": everything(api),
        "LETHE_LOG_FORMAT": "text",
    }
    fragile = multiprocessing.get_context("spawn").Process(
        target=crashing.run_forked,
        args=(environment, "before create", tmp_path / "moments", tmp_path / "fragile.log"),
    )
    apply_store(api, site, tmp_path)
    uid = begin(others, api, "Restore", "killed")
    fragile.start()
    fragile.join(60)
    assert fragile.exitcode == -9
    assert not event_of(api, uid)
    operator = start_operator(LETHE_EARLY_WARNING=everything(api))
    wait_state(api, uid, "Expected")
    web.is_closed()
    operator.kill9()
    others.tell("Restore", "killed", {"phase": "Failed"}, namespace=velero_of(api))
    operator.start()
    wait_state(api, uid, "Expired")
    web.is_opened()


def test_a_kind_that_comes_later_is_watched_and_one_that_goes_harms_nothing(
    api: Api,
    others: Others,
    site: Site,
    web: Web,
    start_operator: StartOperator,
    control_plane: ControlPlane,
    tmp_path: Path,
) -> None:
    control_plane.kubectl("delete", "crd", "restores.velero.io", "--wait=true")
    operator = start_operator(LETHE_EARLY_WARNING=everything(api))
    apply_store(api, site, tmp_path)
    eventually(lambda: operator.metric("lethe_early_warning_up") == 5, "the kinds to be told")
    install(control_plane, "restores.velero.io")
    control_plane.api_server.kill9()
    control_plane.start()
    uid = begin(others, api, "Restore", "late")
    wait_state(api, uid, "Expected")
    web.is_closed()

    control_plane.kubectl("delete", "crd", "restores.velero.io", "--wait=true")
    wait_state(api, uid, "Expired")
    web.is_opened()
    said = [line for line in operator.log.read_text().splitlines() if "restores" in line and "WARN" in line]
    assert said == [], "what is not installed is nothing to complain of"


def test_without_the_right_it_is_said_once_and_everything_else_goes_on(
    api: Api,
    others: Others,
    site: Site,
    web: Web,
    control_plane: ControlPlane,
    tmp_path: Path,
) -> None:
    kubeconfig = without_velero(control_plane, api, tmp_path / "kubeconfig")
    operator = OperatorProcess(
        tmp_path / "operator",
        kubeconfig,
        namespaces=[api.namespace],
        environment={"LETHE_EARLY_WARNING": everything(api)},
    )
    try:
        operator.start()
        apply_store(api, site, tmp_path)
        begin(others, api, "Restore", "unseen")
        uid = begin(others, api, "Cluster", "shop")
        wait_state(api, uid, "Expected")
        eventually(lambda: "no early warning by restores" in operator.log.read_text(), "it to be said")
        assert 'lethe_early_warning_up{kind="restores"} 0.0' in operator.page("metrics")
        assert 'lethe_early_warning_up{kind="clusters"} 1.0' in operator.page("metrics")
        end(others, api, "Cluster", "shop")
        wait_state(api, uid, "Expired")
        web.is_opened()
        eventually(lambda: refusals(control_plane, api) > 1, "it to be tried again")
        said = operator.log.read_text().count("no early warning by restores")
        assert said == 1
    finally:
        operator.stop()


def refusals(control_plane: ControlPlane, api: Api) -> int:
    """Return how often somebody was not let list Velero's Restores."""
    return sum(
        one.get("objectRef", {}).get("namespace") == velero_of(api) and one["responseStatus"]["code"] == 403
        for one in control_plane.audit_events()
        if one["stage"] == "ResponseComplete"
    )


def without_velero(control_plane: ControlPlane, api: Api, file: Path) -> Path:
    """Write the kubeconfig of somebody who may do everything in the namespace, and nothing elsewhere."""
    where = ("-n", api.namespace)
    control_plane.kubectl("create", "serviceaccount", "lethe", *where)
    account = f"--serviceaccount={api.namespace}:lethe"
    control_plane.kubectl("create", "rolebinding", "lethe", *where, "--clusterrole=cluster-admin", account)
    content = json.loads(control_plane.kubeconfig.read_text())
    content["users"][0]["user"] = {"token": control_plane.kubectl("create", "token", "lethe", *where).strip()}
    file.write_text(json.dumps(content))
    return file


def test_what_never_ends_closes_the_gate_for_an_hour_and_not_again(
    api: Api,
    others: Others,
    site: Site,
    web: Web,
    control_plane: ControlPlane,
    tmp_path: Path,
) -> None:
    environment = {"LETHE_EARLY_WARNING": everything(api)}
    with ClockedOperator(tmp_path / "operator", control_plane, api.namespace, environment) as operator:
        operator.start()
        apply_store(api, site, tmp_path)
        (ada,) = site.sign_up("ada@canary.example")
        uid = begin(others, api, "Restore", "endless")
        wait_state(api, uid, "Expected")
        web.is_closed()
        api.delete("secrets", "site-db")
        operator.restart_in(timedelta(minutes=61))
        api.wait_reason("datastores", "site", "SecretMissing")
        assert event_of(api, uid)["status"]["state"] == "Expected", "nobody has looked whether it came"
        web.is_closed()
        api.secret("site-db", {"url": site.url})
        event = wait_state(api, uid, "Expired")
        assert "an hour" in event["status"]["conditions"][0]["message"]
        web.is_opened()
        api.delete("restoreevents", event["metadata"]["name"])
        others.tell("Restore", "endless", {"phase": "InProgress"}, namespace=velero_of(api))
        # As the operator's clock says, this one was made an hour ago, too.
        begin(others, api, "Restore", "as-old")
        api.request_by_id("ada", ada)
        api.wait("deletionrequests", "ada", "Erased")
        assert api.list("restoreevents") == []


def test_a_hundred_restores_at_once_make_few_events_and_whoever_releases_one_is_heard(
    api: Api,
    others: Others,
    site: Site,
    web: Web,
    start_operator: StartOperator,
    tmp_path: Path,
) -> None:
    start_operator(LETHE_EARLY_WARNING=everything(api))
    apply_store(api, site, tmp_path)
    web.is_opened()
    for n in range(100):
        begin(others, api, "Restore", f"restore-{n}")
    web.is_closed()
    eventually(lambda: len(api.list("restoreevents")) == MOST, "the first of them")
    uid = begin(others, api, "Restore", "one-more")
    for n in range(100):
        others.delete("Restore", f"restore-{n}", namespace=velero_of(api))
    wait_state(api, uid, "Expected")
    told = api.list("restoreevents")
    assert len(told) <= MOST + 1 + MOST, "not one for each"
    name = event_of(api, uid)["metadata"]["name"]
    api.patch_spec("restoreevents", name, {"release": {"because": "a clone for the test stage"}})
    event = wait_state(api, uid, "Expired")
    assert "a person" in event["status"]["conditions"][0]["message"]
    web.is_opened()


def test_an_object_that_concerns_no_store_or_has_ended_before_does_nothing(
    api: Api,
    others: Others,
    site: Site,
    web: Web,
    start_operator: StartOperator,
    tmp_path: Path,
) -> None:
    elsewhere = {"backupName": "nightly", "includedNamespaces": ["another"]}
    uids = [begin(others, api, kind, f"old-{kind.lower()}") for kind in BY]
    for kind in BY:
        end(others, api, kind, f"old-{kind.lower()}")
    start_operator(LETHE_EARLY_WARNING=everything(api))
    apply_store(api, site, tmp_path)
    uids.append(others.create("Restore", "elsewhere", elsewhere, namespace=velero_of(api)))
    backup = {"template": {"spec": mounting("dumps")}}
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": "8b4c", "controller": True}
    uids.append(others.create("Job", "nightly-1", backup, owners=[cron]))
    uids.append(others.create("Job", "unrelated", {"template": {"spec": mounting("scratch")}}))
    uids.append(others.create("Cluster", "shop-next", {"instances": 1, "bootstrap": {"initdb": {}}}))
    last = begin(others, api, "Job", "last")
    wait_state(api, last, "Expected")  # whatever came before has been seen
    assert len(api.list("restoreevents")) == 1
    assert not any(event_of(api, uid) for uid in uids)
