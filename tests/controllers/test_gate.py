"""Gates that the API server does not let Lethe set."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lethe.controllers.datastore import StoreController
from lethe.controllers.datastore_connect import managed_store
from lethe.controllers.gate import GateController
from lethe.controllers.runtime.status_writer import ShownStatus
from lethe.domain.gates import GateState
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.ports.cluster import ClusterRefused, ClusterUnavailable
from lethe.ports.stores import RoleRefused
from lethe.workflows.store_pass import StorePass
from tests.controllers.backups_running import NAMESPACE, eventually
from tests.controllers.test_isolation import Company


async def test_a_store_whose_gate_is_refused_says_so_until_it_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    company = Company(tmp_path)
    set_gate = company.cluster.set_gate

    async def refused(*_: Any, **__: Any) -> Any:
        raise ClusterRefused("the API server refused GET pods (HTTP 403); check the operator's RBAC", 403)

    monkeypatch.setattr(company.cluster, "set_gate", refused)
    run = asyncio.create_task(company.operator.run(asyncio.Event()))
    try:
        await asyncio.wait_for(company.operator.started.wait(), 10)
        gate = {"podSelector": {"matchLabels": {"app": "site"}}}
        spec = {"role": "Other", "owner": "ThirdParty", "plugin": {"name": "none"}, "gate": gate}
        company.cluster.apply("datastores", NAMESPACE, "site", spec)

        def ready() -> Any:
            return company.cluster.condition("datastores", NAMESPACE, "site")

        await eventually(lambda: ready().get("reason") == "Misconfigured", 10)
        assert ready()["status"] == "False"
        assert ready()["message"].startswith("the gate of its pods can't be set: ")
        assert "check the operator's RBAC" in ready()["message"]
        monkeypatch.setattr(company.cluster, "set_gate", set_gate)
        await eventually(lambda: ready().get("reason") == "ThirdParty", 15)
        assert company.cluster.gates
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        company.ledger.close()


async def test_a_store_in_recovery_stays_closed_while_its_server_restarts(tmp_path: Path) -> None:
    """What was verified last, before somebody put the directory of another day in place, does not count."""
    company = Company(tmp_path)
    stores: Any = company.controller(StoreController)
    gate = {"podSelector": {"matchLabels": {"app": "site"}}, "whenAway": "LastVerified"}
    spec = {"role": "Other", "owner": "Self", "plugin": {"name": "none"}, "gate": gate}
    manifest = company.cluster.apply("datastores", NAMESPACE, "site", spec)
    managed = company.operator._cache.stores[NAMESPACE, "site"] = managed_store(manifest, ShownStatus("u"))
    managed.was_safe = True
    try:
        for reason in (TroubleReason.IN_RECOVERY, TroubleReason.UNREACHABLE):
            managed.unusable = Trouble(reason, "so it is")
            await stores._show_safety(managed)
            await company.controller(GateController).reconcile((NAMESPACE, "site"))
            assert company.cluster.gates[-1].state is GateState.CLOSED
        managed.unusable = None
        await stores._show_safety(managed)
        assert managed.replay is None
    finally:
        company.ledger.close()


async def test_a_look_that_has_not_ended_opens_nothing(tmp_path: Path) -> None:
    """What was read is compared only afterwards: a store that went back while Lethe was away shows then."""
    company = Company(tmp_path)
    stores: Any = company.controller(StoreController)
    gate = {"podSelector": {"matchLabels": {"app": "site"}}}
    spec = {"role": "Other", "owner": "Self", "plugin": {"name": "none"}, "gate": gate}
    manifest = company.cluster.apply("datastores", NAMESPACE, "site", spec)
    managed = company.operator._cache.stores[NAMESPACE, "site"] = managed_store(manifest, ShownStatus("u"))
    session: Any = SimpleNamespace(last_observed_at=datetime.now(UTC), trouble=None)
    managed.session = session
    try:
        for done, state in (
            (None, GateState.AS_IT_IS),
            (StorePass(looked=True, head_moved=True), GateState.AS_IT_IS),
            (StorePass(looked=True), GateState.OPEN),
        ):
            if done is not None:
                await stores._follow_restores(managed, done)
            await company.controller(GateController).reconcile((NAMESPACE, "site"))
            assert company.cluster.gates[-1].state is state
    finally:
        company.ledger.close()


async def test_roles_are_closed_though_the_api_server_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    company = Company(tmp_path)

    async def away(*_: Any, **__: Any) -> Any:
        raise ClusterUnavailable("the API server does not answer")

    monkeypatch.setattr(company.cluster, "set_gate", away)
    gate = {"podSelector": {"matchLabels": {"app": "site"}}, "role": {"names": ["shop"]}}
    sql = {"urlSecretRef": {"name": "site-db", "key": "url"}}
    spec = {"role": "Other", "owner": "Self", "gate": gate, "sql": sql}
    manifest = company.cluster.apply("datastores", NAMESPACE, "site", spec)
    managed = company.operator._cache.stores[NAMESPACE, "site"] = managed_store(manifest, ShownStatus("u"))
    said: list[bool] = []
    port = SimpleNamespace(set_roles=lambda _, *, closed: said.append(closed))
    session: Any = SimpleNamespace(port=port, trouble=None, last_observed_at=None)
    managed.session, managed.replay = session, ("RestoreDetected", "it went back")
    try:
        with pytest.raises(ClusterUnavailable):
            await company.controller(GateController).reconcile((NAMESPACE, "site"))
        assert said == [True]
    finally:
        company.ledger.close()


async def test_that_the_gate_cant_be_closed_is_known_before_anybody_is_told_to_restore(
    tmp_path: Path,
) -> None:
    """Who writes the status right after says so, and not that the restore may begin."""
    company = Company(tmp_path)

    def refused(*_: Any, **__: Any) -> None:
        raise RoleRefused("there is no role shop", "create it")

    spec = {"role": "Other", "owner": "Self", "gate": {"role": {"names": ["shop"]}}}
    spec |= {"sql": {"urlSecretRef": {"name": "site-db", "key": "url"}}}
    manifest = company.cluster.apply("datastores", NAMESPACE, "site", spec)
    managed = company.operator._cache.stores[NAMESPACE, "site"] = managed_store(manifest, ShownStatus("u"))
    session: Any = SimpleNamespace(
        port=SimpleNamespace(set_roles=refused), trouble=None, last_observed_at=None
    )
    managed.session, managed.replay = session, ("RestoreUnderway", "a restore is under way")
    try:
        gates: Any = company.controller(GateController)
        await gates.heed(managed)
        assert managed.gate_trouble is not None
        assert "there is no role shop" in managed.gate_trouble.message
    finally:
        company.ledger.close()


async def test_one_pooler_that_is_not_there_keeps_no_other_going(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    company = Company(tmp_path)
    waiting: list[str] = []

    async def pause(_: str, pooler: str, *__: Any, paused: bool) -> None:
        if pooler == "gone":
            raise ClusterRefused("there is no Pooler gone", 404)
        assert paused
        waiting.append(pooler)

    monkeypatch.setattr(company.cluster, "pause_pooler", pause)
    spec = {"role": "Other", "owner": "Self", "plugin": {"name": "none"}}
    spec |= {"gate": {"cnpgPooler": {"names": ["gone", "site-rw"]}}}
    manifest = company.cluster.apply("datastores", NAMESPACE, "site", spec)
    managed = company.operator._cache.stores[NAMESPACE, "site"] = managed_store(manifest, ShownStatus("u"))
    managed.replay = ("RestoreDetected", "it went back")
    try:
        await company.controller(GateController).reconcile((NAMESPACE, "site"))
        assert waiting == ["site-rw"]
        assert managed.gate_trouble is not None
        assert "there is no Pooler gone" in managed.gate_trouble.message
    finally:
        company.ledger.close()
