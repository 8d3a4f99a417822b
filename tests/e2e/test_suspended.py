"""A DBA makes Lethe let go of a database, replaces it, and lets it come back."""

from __future__ import annotations

from pathlib import Path

from devtools.company import Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers import PostgresServer


def gate_of(api: Api) -> str:
    conditions = (api.get("pods", "web") or {}).get("status", {}).get("conditions") or ()
    return next((one["status"] for one in conditions if one["type"] == "lethe.dev/safe-to-serve"), "")


def test_a_store_is_let_go_with_its_gate_closed_until_it_is_taken_up_again(
    api: Api, site: Site, operator: OperatorProcess, postgres: PostgresServer, tmp_path: Path
) -> None:
    database = site.url.rsplit("/", 1)[1]
    ada, bob = site.sign_up("ada@canary.example", "bob@canary.example")
    labels = {"app": "site"}
    api.sql_store("site", site.url, gate={"podSelector": {"matchLabels": labels}})
    api.wait("datastores", "site", "SafeToServe")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": labels}}
    status, body = api.call(
        "POST", api.path("pods"), pod | {"spec": {"containers": [{"name": "web", "image": "web"}]}}
    )
    assert status == 201, body
    eventually(lambda: gate_of(api) == "True", "the gate to be open")
    dump = postgres.dump(database, tmp_path / "site.dump")
    api.request_by_id("r1", ada)
    api.wait("deletionrequests", "r1", "Erased")

    api.patch_spec("datastores", "site", {"suspend": True})
    api.wait_reason("datastores", "site", "Suspended")
    safe = api.condition("datastores", "site", "SafeToServe")
    assert (safe["status"], safe["reason"]) == ("False", "Suspended")
    assert operator.metric("lethe_store_safe_to_serve") == 0
    assert gate_of(api) == "False"
    api.request_by_email("r2", "bob@canary.example")
    api.wait_reason("deletionrequests", "r2", "StoreUnreachable")
    assert "spec.suspend is set" in api.condition("deletionrequests", "r2", "Ready")["message"]

    ours = f"datname = '{database}' AND application_name = 'lethe'"
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE {ours}"
    eventually(lambda: postgres.psql(sessions) == "0", "Lethe to let go")
    postgres.psql(f'DROP DATABASE "{database}"')  # without FORCE
    postgres.create_database(database)
    postgres.restore(database, dump)
    assert site.is_intact(ada)

    api.patch_spec("datastores", "site", {"suspend": None})
    api.wait("deletionrequests", "r2", "Erased", patience=60)
    api.wait("datastores", "site", "SafeToServe")
    eventually(lambda: gate_of(api) == "True", "the gate to be open again")
    assert site.is_cleared(ada)
    assert site.is_cleared(bob)
    assert [event["spec"]["reason"] for event in api.list("restoreevents")] == ["Undeclared"]
