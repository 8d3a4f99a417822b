"""Invariant 5: a ledger that went back in time is noticed, or refused with a way out."""

from __future__ import annotations

import shutil

import pytest

from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.ports.ledger import Fenced, KeysDoNotMatch
from lethe.workflows.store_pass import LEDGER_BEHIND
from tests.invariants.company import Company


def _copy_of_ledger(company: Company) -> str:
    """Copy the ledger as it lies on disk, and return the copy's path."""
    company.power_cut()
    copy = company.directory / "backup.db"
    for suffix in ("", "-wal"):
        source = company.directory / f"{company.ledger_file.name}{suffix}"
        if source.exists():
            shutil.copy(source, f"{copy}{suffix}")
    return str(copy)


def _put_back(company: Company, copy: str) -> None:
    company.real_ledger.close()
    for suffix in ("", "-wal", "-shm"):
        company.directory.joinpath(f"{company.ledger_file.name}{suffix}").unlink(missing_ok=True)
    for suffix in ("", "-wal"):
        source = company.directory / f"backup.db{suffix}"
        if source.exists():
            shutil.copy(source, company.directory / f"{company.ledger_file.name}{suffix}")
    company.power_cut()


def test_an_old_copy_of_the_ledger_is_noticed_and_nothing_is_erased(company: Company) -> None:
    ada, bob = company.sign_up("ada@x.example"), company.sign_up("bob@x.example")
    company.visit_until_safe()
    copy = _copy_of_ledger(company)
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    _put_back(company, copy)
    company.request("bob", key=company.key_of(bob))
    rows = company.everything()
    for _ in range(4):
        assert not company.visit().safe
        assert company.store.trouble == LEDGER_BEHIND
    assert company.everything() == rows


def test_an_old_copy_of_the_ledger_does_not_go_on_with_the_replay_of_a_restore(
    company: Company,
) -> None:
    ada, bob = company.sign_up("ada@x.example"), company.sign_up("bob@x.example")
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    before = company.snapshot()
    company.visit_until_safe()
    company.restore(before, "volume")
    company.visit()
    assert company.episode() is not None
    copy = _copy_of_ledger(company)
    company.visit_until_safe()
    company.request("bob", key=company.key_of(bob))
    company.visit_until_safe()
    _put_back(company, copy)
    rows = company.everything()
    for _ in range(6):
        assert not company.visit().safe
    assert company.store.trouble == LEDGER_BEHIND
    assert company.everything() == rows


def test_the_newest_ledger_put_back_in_place_is_the_way_out(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    copy = _copy_of_ledger(company)
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.power_cut()
    newest = company.directory / "newest.db"
    for suffix in ("", "-wal"):
        source = company.directory / f"{company.ledger_file.name}{suffix}"
        if source.exists():
            shutil.copy(source, f"{newest}{suffix}")
    _put_back(company, copy)
    company.visit()
    assert company.store.trouble == LEDGER_BEHIND
    company.real_ledger.close()
    company.ledger_file = newest
    company.power_cut()
    company.visit_until_safe()
    assert company.erased("ada")
    assert company.is_cleared(ada)


def test_ledger_and_store_both_rewound_erase_again_what_is_asked_again(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    copy, before = _copy_of_ledger(company), company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    _put_back(company, copy)
    company.restore(before, "volume")
    company.visit_until_safe()
    assert not company.is_cleared(ada)
    company.apply("ada")
    company.visit_until_safe()
    assert company.erased("ada")
    assert company.is_cleared(ada)


def test_keys_of_another_ledger_are_refused(company: Company) -> None:
    (company.directory / "other").mkdir()
    other = FileKeyring(company.directory / "other")
    with pytest.raises(KeysDoNotMatch):
        open_ledger(f"sqlite:///{company.ledger_file}", other)


def test_who_was_taken_over_can_neither_record_nor_erase(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    company.request("ada", key=company.key_of(ada))
    second = open_ledger(f"sqlite:///{company.ledger_file}", company.keyring)
    second.take_over()
    rows = company.everything()
    with pytest.raises(Fenced):
        company.visit()
    assert company.everything() == rows
    second.close()
