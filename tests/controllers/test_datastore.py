"""A store that answers, but so slowly that nothing comes of it, is left and said to be in trouble."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from devtools.company import SUBJECTS
from devtools.servers.postgres import PostgresServer
from devtools.servers.relay import Relay
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.adapters.notices.letters import TemplateWriter
from lethe.connectors import StoreConnector
from lethe.controllers import datastore
from lethe.controllers.datastore import StoreController
from lethe.controllers.datastore_connect import managed_store
from lethe.controllers.operator import Operator
from lethe.controllers.runtime.metrics import Metrics
from lethe.controllers.runtime.status_writer import ShownStatus
from lethe.domain.periods import Period
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.ports.cluster import SecretContent
from tests.controllers.backups_running import NAMESPACE, Faults, _Connector, eventually
from tests.controllers.cluster_in_memory import ClusterInMemory
from tests.controllers.test_isolation import Company
from tests.invariants.company import SCHEMA


@pytest.fixture
def relay(postgres: PostgresServer) -> Iterator[Relay]:
    """What stands before the server, and can slow its answers down."""
    with Relay(postgres.port) as relay:
        yield relay


@pytest.mark.parametrize("sets", [False, True], ids=["a look", "a sweep"])
async def test_answers_that_drip_end_a_pass_in_time_and_are_told(
    database: str,
    relay: Relay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres: PostgresServer,
    *,
    sets: bool,
) -> None:
    monkeypatch.setattr(datastore, "LOOK_SECONDS", 1.0)
    monkeypatch.setattr(datastore, "SET_SECONDS", 1.0 if sets else 3600.0)
    with psycopg.connect(database) as sql:
        sql.execute(SCHEMA)
    (tmp_path / "keys").mkdir()
    keyring = FileKeyring(tmp_path / "keys")
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}", keyring)
    cluster: Any = ClusterInMemory()
    url = database.replace(f":{postgres.port}/", f":{relay.port}/")
    cluster.secrets[NAMESPACE, "site-db"] = SecretContent("Opaque", {"url": url.encode()}, "uid", "1")
    operator = Operator(
        ledger=ledger,
        keyring=keyring,
        cluster=cluster,
        connect=StoreConnector(ledger, keyring, lambda port: port),
        metrics=Metrics(),
        namespaces=[NAMESPACE],
        deadline=Period(0, 30),
        journal_interval=0.2,
        sweep_interval=0.2 if sets else 3600,
        connect_backend=_Connector(tmp_path, Faults()),
        connect_drill=cast("Any", None),
        retention=Period(6, 0),
        scan_interval=300,
        clock_skew=timedelta(0),
        renderer=TemplateWriter(),
        mailer=None,
        notices_per_hour=1,
    )
    cluster.watchers["datastores"] = lambda manifest, gone: operator.ring("datastores", manifest, gone=gone)
    subjects = {**json.loads(json.dumps(SUBJECTS)), "ignore": ["users.person"]}
    sql_store = {"urlSecretRef": {"name": "site-db", "key": "url"}, "subjects": subjects}
    run = asyncio.create_task(operator.run(asyncio.Event()))

    def ready() -> Any:
        return cluster.condition("datastores", NAMESPACE, "site")

    try:
        await asyncio.wait_for(operator.started.wait(), 10)
        cluster.apply("datastores", NAMESPACE, "site", {"role": "Primary", "owner": "Self", "sql": sql_store})
        await eventually(lambda: run.done() or ready().get("status") == "True", 20)
        relay.drip(0.05)
        await eventually(lambda: run.done() or ready().get("status") == "False", 20)
        assert (ready()["reason"], "longer than 0 min" in ready()["message"]) == ("Unreachable", True), (
            ready()
        )
        assert cluster.condition("datastores", NAMESPACE, "site", "SafeToServe").get("status") != "True"
        relay.drip(0)
        await eventually(lambda: run.done() or ready().get("status") == "True", 20)
        assert not run.done(), run
    finally:
        relay.drip(0)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        ledger.close()


async def test_that_lethe_had_let_go_is_remembered_until_it_has_looked(tmp_path: Path) -> None:
    company = Company(tmp_path)
    stores: Any = company.controller(StoreController)
    gate = {"podSelector": {"matchLabels": {"app": "site"}}, "whenAway": "LastVerified"}
    spec = {"role": "Other", "owner": "Self", "plugin": {"name": "none"}, "gate": gate}
    manifest = company.cluster.apply("datastores", NAMESPACE, "site", spec)
    suspended = {"type": "SafeToServe", "status": "False", "reason": "Suspended", "message": "let go"}
    conditions = [suspended | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]
    shown = ShownStatus(manifest["metadata"]["uid"], {"conditions": conditions})
    managed = company.operator._cache.stores[NAMESPACE, "site"] = managed_store(manifest, shown)
    try:
        await stores._recall(managed)
        assert managed.let_go
        # As after spec.suspend was taken out, while the database does not answer yet.
        managed.unusable = Trouble(TroubleReason.UNREACHABLE, "it is away")
        await stores._status.write(managed)
        again = managed_store(manifest, managed.shown)
        await stores._recall(again)  # the next process
        assert again.let_go
    finally:
        company.ledger.close()
