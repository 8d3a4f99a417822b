"""A restore that is under way keeps the gate closed, by the object alone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lethe.controllers.datastore_connect import managed_store
from lethe.controllers.gate import GateController
from lethe.controllers.restoreevent import RestoreEventController
from lethe.controllers.runtime.cache import RestoreEventView
from lethe.controllers.runtime.status_writer import ShownStatus
from lethe.domain.facts import DetectedBy, RestoreDetected, RestoreExplained, SafeToServe, Superseded
from lethe.domain.gates import GateState
from tests.controllers.backups_running import NAMESPACE, eventually
from tests.controllers.test_isolation import Company

GATE = {"podSelector": {"matchLabels": {"app": "site"}}, "whenAway": "LastVerified"}
SITE = {"role": "Other", "owner": "Self", "plugin": {"name": "none"}, "gate": GATE}
BEGUN = {"store": "site", "reason": "Drill", "justification": "the yearly drill", "underway": "Begun"}
KEY = NAMESPACE, "site"


def says(company: Company, plural: str, name: str, reason: str) -> bool:
    """Tell whether Ready of an object has a reason."""
    return bool(company.cluster.condition(plural, NAMESPACE, name).get("reason") == reason)


async def test_nobody_connects_or_opens_a_gate_while_an_event_says_so_however_often_it_starts(
    tmp_path: Path,
) -> None:
    """`connect` of this company is a defect: whoever opens a session says so in the status."""
    objects: dict[str, Any] = {}
    for life in ("first", "second"):
        (tmp_path / life).mkdir()
        company = Company(tmp_path / life)
        company.cluster.objects = objects
        if life == "first":
            company.cluster.apply("datastores", NAMESPACE, "site", SITE)
            company.cluster.apply("restoreevents", NAMESPACE, "incident-42", BEGUN)
        run = asyncio.create_task(company.operator.run(asyncio.Event()))
        try:
            await asyncio.wait_for(company.operator.started.wait(), 10)

            await eventually(partial(says, company, "datastores", "site", "RestoreUnderway"), 10)
            await eventually(partial(says, company, "restoreevents", "incident-42", "Underway"), 10)
            await eventually(partial(bool, company.cluster.gates), 10)
        finally:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            company.ledger.close()
        assert {(one.state, one.reason) for one in company.cluster.gates} == {
            (GateState.CLOSED, "RestoreUnderway")
        }


async def test_a_list_that_is_older_than_the_watch_begins_no_restore_again(tmp_path: Path) -> None:
    company = Company(tmp_path)
    restores: Any = company.controller(RestoreEventController)
    try:
        begun = company.cluster.apply("restoreevents", NAMESPACE, "incident-42", BEGUN)
        older = {**begun, "metadata": {**begun["metadata"], "resourceVersion": "7"}}
        newer = {**older, "metadata": {**older["metadata"], "resourceVersion": "8"}}
        restores.observe({**newer, "spec": {**BEGUN, "underway": "Ended"}})
        restores.observe(older)
        [announced] = company.operator._cache.announced[KEY].values()
        assert announced.underway == "Ended"
    finally:
        company.ledger.close()


@pytest.mark.parametrize("missed", [True, False])
async def test_an_event_that_is_deleted_closes_no_longer_though_nobody_saw_it_go(
    tmp_path: Path, *, missed: bool
) -> None:
    company = Company(tmp_path)
    restores: Any = company.controller(RestoreEventController)
    try:
        company.cluster.apply("restoreevents", NAMESPACE, "incident-42", BEGUN)
        assert company.operator._cache.announced[KEY]
        assert company.controller(GateController).queue
        if missed:
            company.cluster.watchers.clear()
        company.cluster.remove("restoreevents", NAMESPACE, "incident-42")
        if missed:
            await restores.take_stock([NAMESPACE])
        assert not company.operator._cache.announced[KEY]
    finally:
        company.ledger.close()


@pytest.mark.parametrize(
    ("noticed", "is_its"), [("10:00:00.300000", True), ("10:00:00.900000", False)], ids=["before", "after"]
)
async def test_what_is_expected_is_no_restore_that_was_found_before_in_the_same_second(
    tmp_path: Path, noticed: str, *, is_its: bool
) -> None:
    company = Company(tmp_path)
    restores: Any = company.controller(RestoreEventController)
    store = f"{NAMESPACE}/site"
    found = datetime(2026, 11, 29, 10, 0, 0, 400_000, UTC)
    over = SafeToServe(store, "site-1", found + timedelta(milliseconds=300))
    by = {"kind": "Cluster", "namespace": NAMESPACE, "name": "back", "uid": "1"}
    by["noticedAt"] = f"2026-11-29T{noticed}+00:00"
    spec = {"store": "site", "reason": "Undeclared", "expected": by}
    try:
        company.operator._token = company.ledger.take_over()
        company.ledger.append([RestoreDetected(store, "site-1", found, DetectedBy.JOURNAL), over])
        company.cluster.apply("datastores", *KEY, SITE)
        made = company.cluster.apply("restoreevents", NAMESPACE, "site-expected-1", spec)
        made["metadata"]["creationTimestamp"] = "2026-11-29T10:00:00Z"
        view = RestoreEventView(made, ShownStatus("u"))
        managed: Any = SimpleNamespace(name=store)
        episode = await restores._episode_for(managed, view, "Undeclared")
        assert (episode is not None) == is_its
    finally:
        company.ledger.close()


async def test_a_restore_that_a_person_answers_for_meanwhile_is_told_of_once(tmp_path: Path) -> None:
    company = Company(tmp_path)
    restores: Any = company.controller(RestoreEventController)
    found_at = datetime(2026, 11, 29, 10, tzinfo=UTC)
    found = RestoreDetected(f"{NAMESPACE}/site", "site-1", found_at, DetectedBy.JOURNAL)
    try:
        company.operator._token = company.ledger.take_over()
        company.ledger.append([found])
        company.cluster.apply("datastores", *KEY, SITE)
        [as_seen] = company.ledger.episodes(store=found.store)
        company.ledger.append([RestoreExplained(found.store, "site-1", "incident-42", "Drill")])
        managed = company.operator._cache.stores.get(KEY) or managed_store(
            company.operator._cache.datastores[KEY], ShownStatus("u")
        )
        await restores.tell(managed, [as_seen])
        assert not [one async for one in company.cluster.list("restoreevents", [NAMESPACE])]
    finally:
        company.ledger.close()


@pytest.mark.parametrize("announced", ["underway", "expected"])
async def test_who_told_of_a_restore_goes_on_with_the_next_and_is_not_called_superseded(
    tmp_path: Path, announced: str
) -> None:
    """Once the store has gone back again, before the first restore was dealt with."""
    company, store = Company(tmp_path), f"{NAMESPACE}/site"
    restores: Any = company.controller(RestoreEventController)
    found_at = datetime(2026, 11, 29, 10, tzinfo=UTC)
    by = {"kind": "Cluster", "namespace": NAMESPACE, "name": "back", "uid": "1"}
    by["noticedAt"] = "2026-11-29T09:59:00Z"
    expected = {"store": "site", "reason": "Undeclared", "expected": by}
    spec: Any = {**BEGUN, "underway": "Ended"} if announced == "underway" else expected
    try:
        company.operator._token = company.ledger.take_over()
        company.cluster.apply("datastores", *KEY, SITE)
        company.cluster.apply("restoreevents", NAMESPACE, "incident-42", spec)
        cache = company.operator._cache
        managed = cache.stores[KEY] = managed_store(cache.datastores[KEY], ShownStatus("u"))
        first = RestoreDetected(store, "site-1", found_at, DetectedBy.JOURNAL)
        second = RestoreDetected(store, "site-2", found_at + timedelta(seconds=9), DetectedBy.JOURNAL)
        company.ledger.append([first, RestoreExplained(store, "site-1", "incident-42", spec["reason"])])
        await restores.recall(managed)
        company.ledger.append([Superseded(store, "site-1", second.at, "site-2"), second])

        await restores.tell(managed, company.ledger.episodes(store=store))

        assert [event.reason for event in company.cluster.events] == ["Replaying"]
        assert [name for _, name in company.cluster.objects["restoreevents"]] == ["incident-42"]
        assert company.ledger.episodes(store=store)[1].events == {"incident-42": spec["reason"]}
    finally:
        company.ledger.close()
