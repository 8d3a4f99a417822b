"""Telling erased persons' requests what backups hold: each alone, and again where it failed."""

from pathlib import Path
from typing import Any

import pytest

from devtools.dumps import days_ago
from lethe.controllers import last_copies
from lethe.controllers.runtime import queue
from lethe.controllers.runtime.cache import ManagedStore
from lethe.controllers.runtime.status_writer import ShownStatus
from lethe.domain.conditions.deletionrequest import deletionrequest_conditions
from lethe.domain.facts import Accepted, Completed, Fact, Intended, Outcome, SnapshotsPurged, Verified
from lethe.domain.mapping import StoreOwner, StoreRole
from lethe.domain.tombstones import Tombstone
from lethe.workflows.store_session import StoreDescription
from tests.controllers.backups_running import NAMESPACE, BackupsRunning, eventually

ERASED_AT = days_ago(1)
SITE = f"{NAMESPACE}/site"
REMAINS = ("False", "SnapshotsRemain")


@pytest.fixture
async def backups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackupsRunning:
    """A source whose one dump holds everybody who is erased."""
    monkeypatch.setattr(queue, "FIRST_PAUSE", 0.05)
    made = BackupsRunning(tmp_path)
    described = StoreDescription(NAMESPACE, "site", StoreRole.PRIMARY, StoreOwner.SELF)
    made.cache.stores[NAMESPACE, "site"] = ManagedStore({}, described, ShownStatus(""))
    made.apply("nightly")
    return made


def erased(backups: BackupsRunning, person: str, number: int, *, said: str = "Erased") -> None:
    """Let a person have been erased, as the status of the request says."""
    stone = Tombstone(number, person, "users", f"key-{number}", "m1", None, number.to_bytes(32, "big"))
    facts: list[Fact] = [
        Accepted(
            request=person,
            namespace=NAMESPACE,
            name=f"forget-{person}",
            spec_digest="sha256:ab",
            accepted_at=ERASED_AT,
            requested_at=ERASED_AT,
            due_at=ERASED_AT,
            stores=(SITE,),
        ),
        Intended(person, SITE, (stone,)),
        Verified(person, SITE, ERASED_AT),
        Completed(person, ERASED_AT, Outcome.ERASED),
    ]
    backups.ledger.append(facts)
    ready = {"type": "Ready", "status": "True", "reason": "Erased", "message": "erased and read back"}
    status = {"state": said, "conditions": [ready]}
    backups.cluster.apply("deletionrequests", NAMESPACE, f"forget-{person}", {}, status=status)


def purged(backups: BackupsRunning, person: str) -> Any:
    """Return status and reason of a request's Purged."""
    condition = backups.cluster.condition("deletionrequests", NAMESPACE, f"forget-{person}", "Purged")
    return condition.get("status"), condition.get("reason")


async def test_a_request_that_lethe_fails_over_is_told_alone_and_heals(
    backups: BackupsRunning, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions, failures = deletionrequest_conditions, list[str]()
    broken = {"eve"}

    def fails(record: Any, *given: Any, **more: Any) -> Any:
        if record.request in broken:
            failures.append(record.request)
            raise RuntimeError("eve@example.org")
        return conditions(record, *given, **more)

    monkeypatch.setattr(last_copies, "deletionrequest_conditions", fails)
    people = ["ada", "bob", "eve", "kim"]
    for number, person in enumerate(people, 1):
        erased(backups, person, number)
    async with backups.running():
        others = [person for person in people if person != "eve"]
        await eventually(lambda: all(purged(backups, one) == REMAINS for one in others))
        await eventually(lambda: purged(backups, "eve") == ("Unknown", "InternalError"))
        told = backups.cluster.condition("deletionrequests", NAMESPACE, "forget-eve", "Purged")
        assert told["message"] == "Lethe failed here (RuntimeError); see its log and report it"
        ready = backups.cluster.condition("deletionrequests", NAMESPACE, "forget-eve")
        assert (ready["status"], ready["reason"]) == ("True", "Erased"), "which stays true"
        await eventually(lambda: len(failures) > 5)
        assert backups.cluster.writes["deletionrequests", "forget-eve"] == 1
        assert backups.cluster.writes["deletionrequests", "forget-ada"] == 1
        broken.clear()
        await eventually(lambda: purged(backups, "eve") == REMAINS)


async def test_a_request_that_does_not_say_yet_that_it_is_erased_is_told_later(
    backups: BackupsRunning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_copies, "FIRST_RETRY_SECONDS", 0.05)
    erased(backups, "ada", 1, said="Erasing")
    async with backups.running():
        await eventually(lambda: backups.copies._tries)
        assert purged(backups, "ada") == (None, None)
        backups.cluster.apply("deletionrequests", NAMESPACE, "forget-ada", {})["status"]["state"] = "Erased"
        await eventually(lambda: purged(backups, "ada") == REMAINS)


async def test_nobody_is_asked_for_ever_about_a_request_that_never_says_so(
    backups: BackupsRunning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_copies, "FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(last_copies, "RETRY_SECONDS", 0.001)
    erased(backups, "ada", 1, said="Erasing")
    async with backups.running():
        await eventually(lambda: backups.copies._tries)
        await eventually(lambda: not backups.copies._tries and not backups.copies.queue)


async def test_an_api_server_that_is_away_is_told_later(
    backups: BackupsRunning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_copies, "RETRY_SECONDS", 0.05)
    erased(backups, "ada", 1)
    async with backups.running():
        await eventually(lambda: backups.ready("nightly") == "Scanned")
        backups.cluster.away = True  # within the moment that scans may gather
        await eventually(lambda: "ada" in backups.copies.queue)
        backups.cluster.away = False
        await eventually(lambda: purged(backups, "ada") == REMAINS)


async def test_a_store_said_to_have_no_backups_purges_nobody_while_its_snapshots_live(
    backups: BackupsRunning,
) -> None:
    erased(backups, "ada", 1)
    store = backups.cache.stores[NAMESPACE, "site"]
    async with backups.running():
        await eventually(lambda: purged(backups, "ada") == REMAINS)
        backups.cluster.remove("backupsources", NAMESPACE, "nightly")
        store.without_backups = True
        await eventually(lambda: not backups.cache.sources)
        await backups.copies.grade()
        record = backups.ledger.requests_by_id(["ada"])["ada"]
        assert not backups.copies.observe(record).without_backups
        await backups.copies.reconcile("ada")
        assert purged(backups, "ada") == REMAINS
        assert store.snapshots_remain
        (snapshot,) = backups.ledger.snapshots()
        backups.ledger.append([SnapshotsPurged(snapshot.source, days_ago(0), (snapshot.ref,))])
        await backups.copies.grade()
        await eventually(lambda: purged(backups, "ada") == ("True", "NoBackups"))
        assert not store.snapshots_remain
