"""A person lets a store be served although a restore has not been dealt with: it is said so, and kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lethe.domain.mapping import SubjectMapping
from lethe.domain.restores import RestoreEpisode
from lethe.workflows.backup.last_copy import dirty_windows
from lethe.workflows.restore import detect
from lethe.workflows.restore.replay import ReplayState
from tests.invariants.company import STORE, WITHOUT_CREATED_AT, Company
from tests.invariants.court import Court

MakeCompany = Callable[..., Company]


def episodes(company: Company) -> list[RestoreEpisode]:
    return list(company.real_ledger.episodes(store=STORE))


def released_with_an_unclear_row(make_company: MakeCompany, mapping: SubjectMapping) -> tuple[Company, str]:
    """Let somebody be back of whom nothing tells who she is, and the store be released with her."""
    company = make_company(mapping)
    company.visit_until_safe()
    ada = company.sign_up("ada@old.example")
    company.visit()
    before = company.snapshot()
    company.sql("UPDATE users SET email = 'ada@new.example' WHERE person = %s", ada)
    company.request("ada", email="ada@new.example")
    company.visit_until_safe()
    company.restore(before, "volume")
    company.visit_until(ReplayState.IDENTITY_UNCLEAR)
    company.visit(release="the shop has to open")
    return company, ada


def test_a_released_store_stays_so_with_the_number_left_until_it_goes_back_again(
    make_company: MakeCompany,
) -> None:
    company, ada = released_with_an_unclear_row(make_company, WITHOUT_CREATED_AT)
    before = company.snapshot()
    for pause in (company.visit, company.power_cut):
        pause()
        for sweep in (True, False, True, True):
            company.visit(sweep=sweep)
            assert company.episode() is None, "the gate flaps"
    [episode] = episodes(company)
    assert (episode.released_by, episode.left) == ("by-hand", 1)
    assert not company.is_cleared(ada)
    company.sign_up("moves-the-head@x.example")
    company.visit()
    company.restore(before, "volume")
    company.visit()
    assert company.episode() is not None, "a release holds until the next restore"


def test_what_is_left_goes_on_being_erased_again_and_the_number_follows(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "WRITE_BACK_LIMIT", 2)
    company.visit_until_safe()
    people = [company.sign_up(f"p{n}@x.example") for n in range(6)]
    company.visit()
    before = company.snapshot()
    for n, person in enumerate(people):
        company.request(f"r{n}", key=company.key_of(person))
    company.visit_until_safe()
    company.restore(before, "volume")
    company.visit()
    company.visit(release="the shop has to open")
    assert [episode.left for episode in episodes(company)] == [6]
    company.visit_until_safe()
    assert all(company.is_cleared(person) for person in people)
    assert [episode.left for episode in episodes(company)] == [0]


def test_many_who_are_written_back_after_a_release_close_the_gate_all_the_same(
    make_company: MakeCompany, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "WRITE_BACK_LIMIT", 2)
    company, _ = released_with_an_unclear_row(make_company, WITHOUT_CREATED_AT)
    people = [company.sign_up(f"p{n}@x.example") for n in range(4)]
    rows = [company.row_of(person) for person in people]
    for n, person in enumerate(people):
        company.request(f"r{n}", key=company.key_of(person))
    for _ in range(3):
        company.visit()
    assert all(company.is_cleared(person) for person in people)
    for person, row in zip(people, rows, strict=True):
        assert row is not None
        company.write_back(person, row)
    assert company.visit().opened


def test_the_number_left_does_not_tell_of_whom_is_held_in_secret(company: Company) -> None:
    court = Court(company)
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.restore(before, "volume")
    court.hold(key=company.key_of(ada), secretly=True)
    company.visit_until(ReplayState.AWAITING_RELEASE)
    company.visit(release="the shop has to open")
    for _ in range(3):
        company.visit()
        [episode] = episodes(company)
        assert not episode.open
        assert episode.left is None
    court.lift()
    company.visit_until_safe()
    assert company.is_cleared(ada)
    assert [episode.left for episode in episodes(company)] == [0]


def test_a_dump_of_a_released_store_holds_whom_it_was_released_with(make_company: MakeCompany) -> None:
    company, _ = released_with_an_unclear_row(make_company, WITHOUT_CREATED_AT)
    [window] = dirty_windows(episodes(company))
    assert window.until is None, "she stands in it still"
    company.restore(company.snapshot(), "truncated")
    company.visit_until(ReplayState.IDENTITY_UNCLEAR)
    company.decide("*", "Erase", table="*")
    company.visit_until_safe()
    safe_at = company.last_episode().safe_at
    assert safe_at is not None
    assert [window.until for window in dirty_windows(episodes(company))] == [safe_at, safe_at]
