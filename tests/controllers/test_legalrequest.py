"""Legal requests: what counsel relies on, what one defect may not touch, and to whom a notice goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lethe.workflows.backup.scan import KnownSource, SourceDescription
from tests.controllers.office import Office, manifest, until
from tests.invariants.company import NAMESPACE, STORE


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """The controllers of legal requests."""
    made = Office(tmp_path)
    yield made
    made.ledger.close()


# What counsel relies on: Holding=True


def test_a_hold_waits_for_a_visit_that_had_begun_also_if_the_api_server_failed(
    office: Office,
) -> None:
    office.begin_pass()
    office.apply("a-first", secret="named")
    office.apply("le")
    office.cluster.down = ["delete named"]
    office.turn()
    assert office.record("le") is not None
    office.look_up("le", "le")
    office.turn()
    assert not office.is_holding("le")
    office.site.work = None
    office.turn()
    assert office.is_holding("le")


def test_a_hold_waits_for_a_visit_that_began_before_its_subject_was_known(office: Office) -> None:
    office.apply("le", secret="named")
    office.turn()
    office.begin_pass()  # it reads a hold on an address only
    office.look_up("le", "4711")
    office.turn()
    assert not office.is_holding("le")
    office.site.work = None
    office.turn()
    assert office.is_holding("le")


def test_a_hold_waits_for_a_prune_of_a_source_that_is_gone(office: Office) -> None:
    async def live() -> None:
        no_backend: Any = None
        described = SourceDescription(NAMESPACE, "dumps", (STORE,), "P6M")
        scan: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        source: Any = KnownSource(described, no_backend, abandoned=True)
        office.cache.scans[scan] = source, time.monotonic()
        office.apply("le")
        await office.look()
        office.look_up("le", "le")
        await office.look()
        assert not office.is_holding("le")
        office.cache.scans.clear()
        await office.look()
        assert office.is_holding("le")

    asyncio.run(live())


def test_a_hold_in_a_store_that_does_not_exist_holds_nothing_and_says_so(office: Office) -> None:
    office.apply("le", preservation={"stores": ["stie"]})
    office.turn()
    office.look_up("le", "le")
    office.turn()
    assert not office.is_holding("le")
    held = office.condition("le", "Holding")
    assert held["status"] == "False"
    assert "no DataStore stie" in held["message"]
    office.store("stie")
    office.turn()
    assert office.condition("le", "Holding")["status"] == "True"


def test_one_unreadable_secret_keeps_no_other_hold_from_being_placed(office: Office) -> None:
    office.apply("broken", secret="broken")
    office.apply("le")
    office.cluster.down = ["get broken"] * 99
    office.turn()
    assert office.record("le") is not None
    office.cluster.down = []
    office.turn()
    assert office.record("broken") is not None


def test_a_hold_that_was_prolonged_while_its_end_was_being_decided_goes_on(office: Office) -> None:
    office.apply("le", preservation={"until": "2026-03-02T00:00:00Z"})
    office.turn()
    office.now = office.cluster.time = datetime(2026, 3, 2, 1, tzinfo=UTC)
    record = office.record("le")
    assert record is not None
    telling_the_time = office.cluster.server_time

    async def told_late() -> datetime:
        # The resync has seen the prolongation meanwhile.
        preservation = {"until": "2026-05-01T00:00:00Z"}
        office.cluster.listed = (manifest("le", generation=2, preservation=preservation),)
        await office.legal.take_stock([NAMESPACE])
        return await telling_the_time()

    office.cluster.server_time = told_late  # type: ignore[method-assign]
    office.turn()
    current = office.record("le")
    assert current is not None
    assert current.holding


def test_what_is_changed_while_a_request_is_registered_is_registered_too(office: Office) -> None:
    async def changed_meanwhile(_: str, __: str) -> None:
        if office.record("le") is None:
            office.apply("le", generation=2, secret=None, preservation={"until": "2026-05-01T00:00:00Z"})

    office.cluster.secret = changed_meanwhile  # type: ignore[assignment, method-assign]
    order = {"court": "C", "docket": "D", "issuedAt": "2026-02-02"}
    office.apply("le", courtOrder={**order, "documentSecretRef": {"name": "order", "key": "pdf"}})
    office.turn()
    office.turn()
    record = office.record("le")
    assert record is not None
    assert record.hold is not None
    assert record.hold.until == datetime(2026, 5, 1, tzinfo=UTC)


# Telling


def test_a_notice_that_waited_for_the_limit_goes_to_the_address_of_its_day(
    office: Office,
) -> None:
    for name in ("first", "le"):
        office.apply(name, preservation={"until": "2026-02-28T00:00:00Z"})
        office.turn()
        office.look_up(name, name)
    office.turn()
    office.reach("first", "first@x.example")
    office.turn()
    office.reach("le", "old@x.example")
    office.turn()
    assert office.mail.sent == ["first@x.example"]
    office.now = office.cluster.time = office.now + timedelta(hours=2)
    office.reach("le", "new@x.example")
    office.turn()
    assert office.mail.sent == ["first@x.example", "new@x.example"]


def test_a_typing_error_in_a_subject_keeps_the_ledgers_keys_for_a_month_only(
    office: Office,
) -> None:
    office.apply("typo", type="Disclosure")
    office.turn()
    office.look_up("typo")
    office.turn()
    record = office.record("typo")
    assert record is not None
    assert record.open
    office.now = office.cluster.time = office.now + timedelta(days=31)
    for _ in range(3):
        office.turn()
    record = office.record("typo")
    assert record is not None
    assert not record.open
    assert office.mail.sent == []
    assert office.condition("typo", "UserInformed")["reason"] == "Undeliverable"


# What one defect may not touch


def test_a_defect_over_one_request_is_its_own_condition_and_heals(office: Office) -> None:
    office.cluster.defects = {"get broken"}
    for name in ("a", "b", "c"):
        office.apply(name)
    office.apply("broken", secret="broken")

    async def story() -> None:
        await until(lambda: office.says("broken", "Ready", "InternalError"))
        said = office.condition("broken", "Ready")
        assert said["status"] == "False"
        assert said["message"] == "Lethe failed here (RuntimeError); see its log and report it"
        assert all(office.record(name) is not None for name in ("a", "b", "c"))
        await until(lambda: office.cluster.defects_met >= 3)
        assert office.record("broken") is None
        office.cluster.defects = set()
        await until(lambda: office.record("broken") is not None)
        await until(lambda: not office.says("broken", "Ready", "InternalError"))

    office.live(story)


def test_a_defect_is_tried_again_later_each_time(office: Office) -> None:
    office.cluster.defects = {"get broken"}
    office.apply("broken", secret="broken")

    async def story() -> None:
        await until(lambda: office.cluster.defects_met == 3)
        began = time.monotonic()
        await until(lambda: office.cluster.defects_met == 4)
        assert time.monotonic() - began > 1.5

    office.live(story)


def test_a_defect_over_one_request_at_the_start_keeps_no_other_from_the_ledger(office: Office) -> None:
    office.cluster.defects = {"get broken"}
    office.cluster.listed = (manifest("a"), manifest("broken", secret="broken"), manifest("z"))
    asyncio.run(office.legal.take_stock([NAMESPACE]))
    assert office.record("a") is not None
    assert office.record("z") is not None
    assert office.record("broken") is None


def test_a_request_that_is_gone_without_anybody_having_seen_it_go_is_let_go(office: Office) -> None:
    office.apply("le")
    office.turn()
    office.cluster.listed = (manifest("another"),)
    asyncio.run(office.legal.take_stock([NAMESPACE]))
    assert (NAMESPACE, "le") not in office.cache.legal
    assert office.is_known("le")


def test_what_says_nothing_new_is_not_written(office: Office) -> None:
    office.apply("le")
    office.turn()
    office.look_up("le", "le")
    office.turn()
    written = office.cluster.writes
    office.turn()
    assert office.cluster.writes == written


def test_a_defect_over_the_letter_of_one_keeps_no_other_from_being_told(tmp_path: Path) -> None:
    office = Office(tmp_path, per_hour=50)
    names = ("a", "b", "c", "d")
    office.renderer.defects = {"c's"}
    for name in names:
        authority = {"name": f"{name}'s", "level": "Local", "country": "US"}
        office.apply(name, type="Disclosure", authority=authority)
    office.turn()
    for name in names:
        office.look_up(name, name)
        office.reach(name, f"{name}@x.example")

    async def story() -> None:
        office.legal.ring_open()
        await until(lambda: office.says("c", "Ready", "InternalError"))
        await until(lambda: len(office.mail.sent) == 3)
        assert sorted(office.mail.sent) == ["a@x.example", "b@x.example", "d@x.example"]
        await until(lambda: office.says("a", "UserInformed", "Sent"))
        office.renderer.defects = set()
        await until(lambda: office.says("c", "UserInformed", "Sent"))
        assert not office.says("c", "Ready", "InternalError")
        assert len(office.mail.sent) == 4

    office.live(story)
    office.ledger.close()


def test_a_mail_server_that_hangs_holds_up_no_hold(office: Office) -> None:
    office.mail.takes.clear()
    office.apply("told", type="Disclosure")
    office.turn()
    office.look_up("told", "told")
    office.reach("told", "told@x.example")

    async def story() -> None:
        office.legal.ring_open()
        await until(lambda: office.notices.under_way is not None)
        office.apply("held")
        await until(lambda: office.is_known("held"))
        office.look_up("held", "held")
        office.legal.ring_open()
        await until(lambda: office.says("held", "Holding", "Preserved"))
        assert office.mail.sent == []
        office.mail.takes.set()
        await until(lambda: office.says("told", "UserInformed", "Sent"))

    office.live(story)


def test_letters_under_way_go_on_when_their_sender_is_stopped(office: Office) -> None:
    office.mail.takes.clear()
    office.apply("told", type="Disclosure")
    office.turn()
    office.look_up("told", "told")
    office.reach("told", "told@x.example")

    async def story() -> None:
        sending = asyncio.create_task(office.look())
        await until(lambda: office.notices.under_way is not None)
        sending.cancel()
        await asyncio.wait([sending])
        letters = office.notices.under_way
        assert letters is not None
        assert not letters.done()
        office.mail.takes.set()
        await letters
        record = office.record("told")
        assert record is not None
        assert record.notified

    asyncio.run(story())


def test_a_primary_that_can_not_be_asked_is_said_and_asked_again(office: Office) -> None:
    office.apply("le", type="Disclosure")
    office.turn()
    office.look_up("le", "le")
    office.primary.busy = "waits for DataStore site: it does not answer"
    office.turn()
    assert office.condition("le", "UserInformed")["message"] == office.primary.busy
    office.primary.busy = None
    office.reach("le", "le@x.example")
    office.turn()
    assert office.mail.sent == ["le@x.example"]


def test_after_a_restart_a_status_says_at_once_why_a_notice_waits(office: Office) -> None:
    for name in ("first", "le"):
        office.apply(name, type="Disclosure")
    office.turn()
    for name in ("first", "le"):
        office.look_up(name, name)
        office.reach(name, f"{name}@x.example")
    office.turn()
    office.turn()
    (waiting,) = {"first@x.example", "le@x.example"} - set(office.mail.sent)
    name = waiting.partition("@")[0]
    assert "LETHE_NOTICES_PER_HOUR" in office.condition(name, "UserInformed")["message"]
    office.restart()
    office.turn()
    assert office.cluster.writes == 0


def test_who_is_erased_while_the_primary_is_asked_is_told_at_the_sealed_address(office: Office) -> None:
    office.apply("le", type="Disclosure")
    office.turn()
    office.look_up("le", "le")
    office.primary.meanwhile = lambda: office.erase("le", "le@x.example")
    office.turn()
    assert office.mail.sent == ["le@x.example"]
    assert office.condition("le", "UserInformed")["reason"] == "Sent"
