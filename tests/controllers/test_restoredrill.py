"""Drills that fail over what their manifest says, or whose manifest is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lethe.api.parse import parse
from lethe.api.v1alpha1.restoredrill import RestoreDrill
from lethe.controllers import restoredrill
from lethe.controllers.datastore_connect import managed_store
from lethe.controllers.holds import HoldEffects
from lethe.controllers.restoredrill import RestoreDrillController
from lethe.controllers.runtime.cache import DrillRun, ObjectCache
from lethe.controllers.runtime.status_writer import ShownStatus
from lethe.domain.drill_facts import DrillResult, DrillStarted
from lethe.domain.legal import Hold
from lethe.domain.trouble import TroubleReason
from lethe.workflows.drill.conduct import Halt
from tests.controllers.backups_running import NAMESPACE
from tests.controllers.test_isolation import Company

KEY = NAMESPACE, "sunday"


def drill(job: Any) -> dict[str, Any]:
    """Return a drill that is to run once, by a Job."""
    return {
        "source": "nightly",
        "schedule": "0 4 29 2 *",
        "runNow": "once",
        "scratch": {"urlSecretRef": {"name": "scratch", "key": "url"}},
        "restore": {"jobTemplate": {"spec": job}},
    }


class Scratch:
    """A scratch server that makes and drops whatever it is told."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.dropped: list[str] = []

    def anew(self) -> Scratch:
        return self

    def place(self) -> Any:
        return SimpleNamespace(servers=frozenset({"server"}), database="1")

    def marked(self, _: str) -> tuple[str, ...]:
        return ()

    def create(self, database: str, _: str) -> None:
        self.made.append(database)

    def drop(self, database: str) -> bool:
        self.dropped.append(database)
        return True

    def url_of(self, database: str) -> str:
        return f"postgresql://scratch.example/{database}"

    def close(self) -> None:
        """There is nothing to close."""


@pytest.mark.parametrize(
    "pod", [{"containers": {"name": "pg"}}, {"containers": [{"name": "pg", "env": {"A": "b"}}]}, "pod"]
)
async def test_a_drill_that_fails_over_its_manifest_does_not_begin_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pod: Any
) -> None:
    company, scratch = Company(tmp_path), Scratch()
    drills: Any = company.controller(RestoreDrillController)
    company.cluster.apply("restoredrills", *KEY, drill({"template": {"spec": pod}}))
    managed = company.operator._cache.drills[KEY]
    snapshot: Any = SimpleNamespace(ref="a.dump", taken_at=drills._clock(), rewrite=None)
    mapped = SimpleNamespace(mapping=SimpleNamespace(table="users", dependents=()))
    session = SimpleNamespace(proof=SimpleNamespace(proved=mapped, server=None))
    key = NAMESPACE, "site"
    store: Any = SimpleNamespace(name=f"{NAMESPACE}/site", session=session, manifest={}, key=key)
    source: Any = SimpleNamespace(name=f"{NAMESPACE}/nightly", source=SimpleNamespace(spec=None))
    monkeypatch.setattr(drills, "_what_is_restored", lambda _: (source, store, snapshot))
    monkeypatch.setattr(restoredrill, "place_and_name", lambda *_: ("/backups", "a.dump"))
    monkeypatch.setattr(
        restoredrill, "parse", lambda kind, one: parse(kind, one) if kind is RestoreDrill else None
    )

    async def made(*_: Any, **__: Any) -> bool:
        return True

    async def none(*_: Any, **__: Any) -> None:
        return None

    async def to_scratch(_: Any) -> Any:
        return scratch

    monkeypatch.setattr(company.cluster, "create_secret", made)
    monkeypatch.setattr(company.cluster, "secret", none)
    monkeypatch.setattr(drills, "_scratch", to_scratch)
    company.operator._token = company.ledger.take_over()
    try:
        for _ in range(8):
            await drills.reconcile(KEY)
            if managed.run is not None:
                await asyncio.wait([managed.run.future], timeout=5)
        assert len(scratch.made) == 1
        assert scratch.dropped == scratch.made
        ended = company.ledger.drills()["/".join(KEY)].ended
        assert ended is not None
        assert "spec.restore.jobTemplate.spec is not that of a batch/v1 Job" in ended.message
    finally:
        company.ledger.close()


async def test_of_a_drill_that_is_gone_and_had_not_ended_the_copy_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    company = Company(tmp_path)
    drills: Any = company.controller(RestoreDrillController)
    company.operator._token = company.ledger.take_over()
    now, store, source = drills._clock(), f"{NAMESPACE}/site", f"{NAMESPACE}/nightly"
    begun = DrillStarted("/".join(KEY), now, store, source, "a.dump", now, "lethe_drill_1234567890")
    try:
        company.ledger.append([begun])
        with caplog.at_level(logging.WARNING, logger="lethe"):
            await drills.take_stock([NAMESPACE])
            await drills.take_stock([NAMESPACE])
        [told] = [one.getMessage() for one in caplog.records if "drop database" in one.getMessage()]
        assert "lethe_drill_1234567890" in told
    finally:
        company.ledger.close()


def restore_ahead(how: str) -> dict[str, Any]:
    """Return a RestoreEvent that tells of a restore ahead."""
    if how != "Expected":
        return {"store": "site", "reason": "Drill", "justification": "the yearly drill", "underway": how}
    by = {"kind": "Cluster", "namespace": NAMESPACE, "name": "back", "uid": "1"}
    return {
        "store": "site",
        "reason": "Undeclared",
        "expected": {**by, "noticedAt": "2026-11-29T10:00:00.000000+00:00"},
    }


@pytest.mark.parametrize(
    ("how", "gives_way"), [(None, False), ("Begun", True), ("Ended", False), ("Expected", False)]
)
async def test_a_drill_gives_way_to_a_restore_that_has_begun_and_none_begins_while_one_is_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str | None, *, gives_way: bool
) -> None:
    company = Company(tmp_path)
    monkeypatch.setattr(restoredrill, "in_daemon", lambda _, work: work())
    drills: Any = company.controller(RestoreDrillController)
    site = {"role": "Other", "owner": "Self", "plugin": {"name": "none"}}
    company.cluster.apply("datastores", NAMESPACE, "site", site)
    cache, key = company.operator._cache, (NAMESPACE, "site")
    company.cluster.apply("restoredrills", *KEY, drill({"template": {"spec": {"containers": []}}}))
    store = managed_store(cache.datastores[key], ShownStatus("u"))
    store.manifest, store.bound = {"spec": {"sql": {}}}, {}
    cache.stores[key] = store
    source: Any = SimpleNamespace(description=SimpleNamespace(stores=(store.name,)), known=None)
    cache.sources[NAMESPACE, "nightly"] = source
    halt = Halt(inf)
    run = DrillRun(asyncio.get_running_loop().create_future(), halt, drills._clock(), store.name)
    try:
        if how is not None:
            company.cluster.apply("restoreevents", NAMESPACE, "incident-42", restore_ahead(how))
        managed = cache.drills[KEY]
        await drills._halt_if_need_be(managed, run)
        assert (halt.because is DrillResult.GAVE_WAY) == gives_way
        hinders = drills._what_is_restored(managed)
        waits = hinders.reason is TroubleReason.RESTORE_UNDERWAY
        assert waits == (how is not None), hinders
    finally:
        company.ledger.close()


def test_a_hold_takes_effect_only_when_a_replacement_that_had_begun_before_has_ended() -> None:
    cache, now = ObjectCache(), datetime(2026, 11, 29, tzinfo=UTC)
    hold = Hold((), now)
    record: Any = SimpleNamespace(
        hold=hold,
        registered=SimpleNamespace(namespace=NAMESPACE),
        key=KEY,
        resolved_at=now,
        keys=(),
        emails=(),
    )
    halt = Halt(inf)
    drill: Any = SimpleNamespace(run=SimpleNamespace(halt=halt), key=KEY)
    cache.drills[KEY] = drill
    effects = HoldEffects(cache)
    halt.replacing_since = time.monotonic()
    assert not effects.has_taken_effect(record)
    halt.replacing_since = None
    assert effects.has_taken_effect(record)
    halt.replacing_since = time.monotonic()  # which has read the hold
    assert effects.has_taken_effect(record)
