"""A server in recovery can be read, and shows whom it brings back, before anything can be erased in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.company import Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers.controlplane import ControlPlane
from devtools.servers.postgres import NOBODY, PostgresServer

GATE = "lethe.dev/safe-to-serve"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server that a test may restore."""
    with PostgresServer(tmp_path / "recovering", fsync=False) as server:
        yield server


@pytest.mark.parametrize("known_before", [True, False], ids=["known-before", "new-process"])
def test_the_gate_is_closed_while_the_server_answers_in_recovery(
    api: Api,
    operator: OperatorProcess,
    server: PostgresServer,
    control_plane: ControlPlane,
    known_before: bool,
) -> None:
    site = Site(server.create_database("site"))
    control_plane.kubectl("create", "serviceaccount", "default", "-n", api.namespace)
    control_plane.kubectl("run", "web", "-n", api.namespace, "--image=site", "--labels=app=site")
    api.sql_store("site", site.url, gate={"podSelector": {"matchLabels": {"app": "site"}}})

    def gate() -> tuple[str, str]:
        conditions = (api.get("pods", "web") or {})["status"].get("conditions", ())
        return next(((c["status"], c["reason"]) for c in conditions if c["type"] == GATE), ("", ""))

    eventually(lambda: gate() == ("True", "Verified"), "the gate to open", 60)
    if not known_before:
        operator.stop()
    server.stop()
    signal = server.data_directory / "standby.signal"
    signal.touch()
    if os.geteuid() == 0:
        os.chown(signal, NOBODY, NOBODY)
    server.start()
    if not known_before:
        operator.start()
    assert site.sql("SELECT count(*) FROM users") == [(0,)], "the application can read"
    eventually(
        lambda: gate() == ("False", "InRecovery"),
        lambda: f"the gate to close: {api.get('datastores', 'site')}",
        60,
    )
    api.wait_reason("datastores", "site", "InRecovery")
    assert api.condition("datastores", "site", "SafeToServe")["status"] == "False"

    site.sql("SELECT pg_promote()")

    eventually(lambda: gate() == ("True", "Verified"), lambda: f"the gate to open; it is {gate()}", 60)
    api.wait("datastores", "site", "SafeToServe")
