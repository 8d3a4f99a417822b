"""Invariants 1 and 3: a rewound store is noticed, nothing commits on it, and all is erased again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from lethe.domain.facts import DetectedBy
from lethe.domain.journal import next_move
from lethe.domain.mapping import ProvedMapping
from lethe.domain.tombstones import match_restored_rows
from lethe.ports.stores import HeadMoved, JournalSupport, Proof
from lethe.workflows.restore.replay import ReplayState
from tests.invariants.company import STORE, Company

WAYS = ["volume", "truncated", "new-database"]


@pytest.mark.parametrize("way", WAYS)
def test_what_a_restore_brings_back_is_erased_again_and_nobody_else(company: Company, way: str) -> None:
    company.visit_until_safe()
    early, ada, bob, cleo = (company.sign_up(f"{n}@x.example") for n in ("early", "ada", "bob", "cleo"))
    company.request("early", key=company.key_of(early))
    company.visit_until_safe()
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.request("bob", email="bob@x.example")
    company.visit_until_safe()
    assert company.erased("ada")
    assert company.erased("bob")
    untouched = company.row_of(cleo)

    company.restore(before, way)

    assert company.visit().opened
    company.visit_until_safe()
    assert company.full_scan() == {early: True, ada: True, bob: True, cleo: False}
    assert company.row_of(cleo) == untouched
    episode = company.last_episode()
    assert (episode.missing, episode.re_erased, episode.left_alone, episode.unclear) == (2, 2, 0, 0)
    assert episode.detected_by is DetectedBy.JOURNAL


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("missing", [0, 1])
def test_nothing_commits_on_a_rewound_store(company: Company, way: str, missing: int) -> None:
    ada, bob = company.sign_up("ada@x.example"), company.sign_up("bob@x.example")
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    before = company.snapshot()
    if missing:
        company.request("bob", key=company.key_of(bob))
    company.visit_until_safe()
    tombstones = [t for chunk in company.real_ledger.tombstones(STORE) for t in chunk]
    assert len(tombstones) == 1 + missing

    company.restore(before, way)

    rows = company.everything()
    known = company.real_ledger.known_head(STORE).head
    assert known is not None
    move = next_move(known, after_move=known.move, token=company.token, nonce=b"x")
    matcher = match_restored_rows(company.store.fingerprints)
    port = company.store.port
    with pytest.raises(HeadMoved):
        company.journal.tick(move)
    with pytest.raises(HeadMoved):
        port.erase(tombstones, matcher, move=move, first_number=99)
    with pytest.raises(HeadMoved):
        port.erase(tombstones, matcher, move=move, first_number=99, exclusive=True)
    assert company.everything() == rows
    company.visit()
    assert company.episode() is not None, "also a restore that lost no erasure is noticed"


def test_a_request_served_before_the_next_check_changes_nothing_on_a_rewound_store(
    company: Company,
) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.visit_until_safe()
    company.restore(before, "volume")
    rows = company.everything()
    company.request("ada", key=company.key_of(ada))
    visit = company.visit(look=False)
    assert visit.served is not None
    assert visit.served.head_moved
    assert company.everything() == rows
    company.visit_until_safe()
    company.visit_until_safe()
    assert company.erased("ada")
    assert company.is_cleared(ada)


def test_a_second_restore_in_the_middle_of_a_replay_starts_it_over(company: Company) -> None:
    ada, bob = company.sign_up("ada@x.example"), company.sign_up("bob@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.restore(before, "volume")
    for _ in range(3):
        company.visit()
    company.restore(before, "volume")
    company.visit_until_safe()
    assert company.full_scan() == {ada: True, bob: False}
    assert company.last_episode().re_erased in (1, 2)


@pytest.mark.parametrize("way", WAYS)
def test_a_restore_between_reading_back_and_opening_the_gate_keeps_it_closed(
    company: Company, way: str
) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.restore(before, "volume")
    company.visit()
    check = company.store.port._inner.check  # type: ignore[attr-defined]

    def check_and_be_restored(*args: object, **options: object) -> object:
        residue = check(*args, **options)
        company.store.port._inner.check = check  # type: ignore[attr-defined]
        company.restore(before, way)
        return residue

    company.store.port._inner.check = check_and_be_restored  # type: ignore[attr-defined]
    for _ in range(3):
        visit = company.visit(sweep=False)
        if visit.step is not None and visit.step.state is ReplayState.SAFE:
            assert company.is_cleared(ada), "the gate is open while she stands there as she was"
    company.visit_until_safe()
    assert company.is_cleared(ada)


def test_a_restore_of_the_sites_tables_alone_is_told_by_their_identity(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.restore(before, "tables")
    assert company.visit().opened
    assert company.last_episode().detected_by is DetectedBy.TABLE_IDENTITY
    company.visit_until_safe()
    assert company.is_cleared(ada)


def test_vacuum_full_looks_like_a_restore_and_the_gate_opens_again(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.sql("VACUUM FULL users")
    assert company.visit().opened
    company.visit_until_safe()
    episode = company.last_episode()
    assert (episode.missing, episode.re_erased, episode.unclear) == (0, 0, 0)


def test_a_database_of_before_the_journal_counts_as_fully_rewound(company: Company) -> None:
    ada, bob = company.sign_up("ada@x.example"), company.sign_up("bob@x.example")
    before = company.snapshot()
    assert "lethe_journal_head" not in before.rows
    company.visit_until_safe()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.restore(before, "new-database")
    assert company.visit().opened
    company.visit_until_safe()
    assert company.full_scan() == {ada: True, bob: False}
    assert company.last_episode().missing == 1


def test_a_journal_that_a_dba_makes_again_ends_the_restore_that_took_it(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = company.sign_up("ada@x.example")
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.sql("DROP TABLE lethe_journal_head, lethe_journal_entries")
    company.power_cut()
    prove = company.store.port.prove

    def may_not_make_tables(recorded: Iterable[ProvedMapping] = ()) -> Proof:
        proof = prove(recorded)
        company.sql("DROP TABLE lethe_journal_head, lethe_journal_entries")
        return replace(proof, journal=JournalSupport.NOT_PERMITTED, journal_ddl="CREATE TABLE")

    with monkeypatch.context() as patched:
        patched.setattr(company.store.port, "prove", may_not_make_tables)
        steps = [company.visit().step for _ in range(5)]
    assert steps[-1] is not None
    assert "DBA" in steps[-1].message
    company.visit_until_safe()
    company.visit_until_safe()
    assert len(company.real_ledger.episodes()) == 1


def test_a_few_that_are_written_back_are_erased_again_without_an_episode(company: Company) -> None:
    people = [company.sign_up(f"p{n}@x.example") for n in range(3)]
    rows = [company.row_of(person) for person in people]
    for n, person in enumerate(people):
        company.request(f"r{n}", key=company.key_of(person))
    company.visit_until_safe()
    for person, row in zip(people, rows, strict=True):
        assert row is not None
        company.write_back(person, row)
        company.log_in(company.key_of(person))
    visit = company.visit()
    assert visit.found == 3
    assert company.episode() is None
    assert all(company.is_cleared(person) for person in people)


def test_a_crowd_that_comes_back_around_the_journal_is_a_restore(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lethe.workflows.restore.detect.WRITE_BACK_LIMIT", 2)
    people = [company.sign_up(f"p{n}@x.example") for n in range(3)]
    rows = [company.row_of(person) for person in people]
    for n, person in enumerate(people):
        company.request(f"r{n}", key=company.key_of(person))
    company.visit_until_safe()
    for person, row in zip(people, rows, strict=True):
        assert row is not None
        company.write_back(person, row)
    assert company.visit().opened
    company.visit_until_safe()
    assert all(company.is_cleared(person) for person in people)


def test_a_person_who_releases_the_store_goes_on_from_where_it_stands(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.restore(before, "volume")
    company.visit()
    while (visit := company.visit(manual=True)).step is None or visit.step.state is ReplayState.WAITING:
        pass
    assert visit.step is not None
    assert visit.step.state is ReplayState.AWAITING_RELEASE
    assert company.episode() is not None
    company.visit(release="we looked")
    assert company.last_episode().released_because == "we looked"
    company.visit_until_safe()
    assert company.is_cleared(ada)


def test_a_release_before_the_replay_does_not_forget_whom_to_erase(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.restore(before, "truncated")
    company.visit()
    company.visit(release="traffic now")
    assert company.episode() is None
    company.visit_until_safe()
    assert company.is_cleared(ada)
