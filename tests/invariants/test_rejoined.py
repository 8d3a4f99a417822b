"""Who was erased and comes back herself, in her own row, after she has consented anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lethe.domain.mapping import ClearRule, ClearTo, PiiKind
from lethe.domain.requests import StoreState
from lethe.workflows.restore.replay import ReplayState
from lethe.workflows.store_session import Rejoining
from tests.invariants.company import MAPPING, STORE, Company, Snapshot
from tests.invariants.conftest import MakeCompany

ADA = "ada@x.example"
WAYS = ["volume", "truncated", "new-database", "tables"]


def erased(company: Company, *, hours: float) -> tuple[str, dict[str, Any], Snapshot]:
    """Let Ada be erased, by an operator whose clock is this far from the store's.

    Returns her, her row as it was, and a copy that holds it.
    """
    company.now = datetime.now(UTC) + timedelta(hours=hours)
    company.visit_until_safe()
    ada = company.sign_up(ADA)
    company.sign_up("bob@x.example")
    company.visit_until_safe()
    row, copy = company.row_of(ada), company.snapshot()
    assert row is not None
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    assert company.erased("ada")
    return ada, row, copy


def say_rejoined(company: Company, ada: str, *, key: int | None = None) -> None:
    """Say it in `spec.rejoined`; a changed spec makes a new session."""
    company.now += timedelta(seconds=1)
    one = Rejoining("users", str(key or company.key_of(ada)), company.now, "CRM-7")
    company.store.description = replace(company.store.description, rejoined=(one,))


def sign_in(company: Company, ada: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Let her sign in again, by which the application fills her row; return it as it is now."""
    company.write_back(ada, {**row, "first_name": "Ada", "time_zone": "Asia/Tokyo"})
    company.log_in(company.key_of(ada))
    now = company.row_of(ada)
    assert now is not None
    return now


def come_back(company: Company, ada: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Let her come back, and a person say so; return her row as it is now."""
    say_rejoined(company, ada)
    now = sign_in(company, ada, row)
    company.visit_until_safe()
    assert company.row_of(ada) == now
    return now


def test_who_comes_back_unsaid_is_erased_and_named_and_once_said_is_left_alone(company: Company) -> None:
    ada, row, _ = erased(company, hours=0)
    key = str(company.key_of(ada))
    for _ in range(2):
        sign_in(company, ada, row)
        assert company.visit().found
        assert company.is_cleared(ada)
    assert list(company.store.written_back) == company.store.untold == [("users", key)]
    proof = company.record("ada")

    now = come_back(company, ada, row)

    assert company.store.written_back == {}
    for restart in (False, True, False):
        if restart:
            company.power_cut()
        company.visit_until_safe()
        assert company.row_of(ada) == now
    assert company.record("ada") == proof
    assert company.record("ada").progress(STORE).state is StoreState.VERIFIED
    assert company.real_ledger.tombstone_count(STORE) == 1


def test_a_word_that_is_taken_out_of_the_manifest_holds(company: Company) -> None:
    ada, row, _ = erased(company, hours=0)
    now = come_back(company, ada, row)
    company.store.description = replace(company.store.description, rejoined=())
    company.visit_until_safe()
    assert company.row_of(ada) == now


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("asked", [False, True], ids=["erased-first", "written-back-first"])
def test_what_an_older_copy_holds_of_who_came_back_is_erased_or_asked_about(
    company: Company, way: str, asked: bool
) -> None:
    ada, row, copy = erased(company, hours=1)
    if asked:
        sign_in(company, ada, row)
        company.visit()
    come_back(company, ada, row)
    company.restore(copy, way)
    if way == "tables":  # nothing tells how old it is
        company.visit_until(ReplayState.IDENTITY_UNCLEAR)
        assert not company.visit().safe
        company.decide(company.key_of(ada), "Erase")
    company.visit_until_safe()
    assert company.is_cleared(ada)

    sign_in(company, ada, row)
    company.visit()
    assert company.is_cleared(ada), "the word was spoken before that restore"
    come_back(company, ada, row)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_her_time_since_brings_back_whom_nobody_erases(company: Company, way: str) -> None:
    ada, row, _ = erased(company, hours=-1)
    now = come_back(company, ada, row)
    copy = company.snapshot()
    company.request("bob", email="bob@x.example")
    company.visit_until_safe()
    company.restore(copy, way)
    if way != "volume":
        company.visit_until(ReplayState.IDENTITY_UNCLEAR)
        company.decide(company.key_of(ada), "LeaveAlone")
    company.visit_until_safe()
    for restart in (False, True):
        if restart:
            company.power_cut()
        company.visit_until_safe()
        assert company.row_of(ada) == now
    assert [cleared for person, cleared in company.full_scan().items() if person != ada] == [True]


def test_who_came_back_and_asks_again_is_erased_for_good(company: Company) -> None:
    ada, row, _ = erased(company, hours=0)
    come_back(company, ada, row)
    company.now += timedelta(minutes=1)
    company.request("again", key=company.key_of(ada))
    company.visit_until_safe()
    assert company.erased("again")
    assert company.is_cleared(ada)
    for _ in range(2):
        sign_in(company, ada, row)
        company.visit()
        assert company.is_cleared(ada), "the old word stands in the manifest still"
    assert company.store.rejoined_in_vain == (("users", str(company.key_of(ada))),)


def test_nobody_comes_back_by_a_word_about_a_row_in_which_nobody_was_erased(company: Company) -> None:
    ada, row, _ = erased(company, hours=0)
    say_rejoined(company, ada, key=company.key_of(ada) + 1)
    sign_in(company, ada, row)
    company.visit()
    assert company.is_cleared(ada)
    assert company.store.rejoined_in_vain == (("users", str(company.key_of(ada) + 1)),)


def test_a_consent_of_before_she_asked_or_of_tomorrow_counts_for_nothing(company: Company) -> None:
    ada, row, _ = erased(company, hours=0)
    say_rejoined(company, ada)
    (one,) = company.store.description.rejoined
    for hours in (-1, 1):
        moved = replace(one, since=one.since + timedelta(hours=hours))
        company.store.description = replace(company.store.description, rejoined=(moved,))
        sign_in(company, ada, row)
        company.visit()
        assert company.is_cleared(ada)


def test_a_wider_mapping_catches_up_with_nobody_who_came_back(make_company: MakeCompany) -> None:
    clear = [rule for rule in MAPPING.clear if rule.column != "time_zone"]
    company = make_company(replace(MAPPING, clear=tuple(clear)))
    ada, row, _ = erased(company, hours=0)
    now = come_back(company, ada, row)
    said = company.store.description.rejoined
    wider = (*clear, ClearRule("time_zone", PiiKind.TIME_ZONE, ClearTo.DEFAULT))
    company.mapping = replace(MAPPING, clear=wider)
    company.power_cut()
    company.store.description = replace(company.store.description, rejoined=said)
    company.visit_until_safe()
    assert company.store.catch_up is None
    assert company.row_of(ada) == now


def test_power_may_fail_at_any_moment_while_it_is_recorded(company: Company) -> None:
    ada, row, _ = erased(company, hours=0)
    sign_in(company, ada, row)
    moment, cut = 0, True
    while cut:
        moment += 1
        say_rejoined(company, ada)
        cut = company.cut_at(moment, company.visit)
        say_rejoined(company, ada)
        now = sign_in(company, ada, row)
        company.visit_until_safe()
        assert company.row_of(ada) == now
    assert moment > 1
