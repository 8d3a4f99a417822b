"""What is recorded carries the time at which it was so: a pass takes long, and snapshots begin meanwhile.

Whoever is dated as erased too early is believed to be in no snapshot that began since.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from lethe.domain.facts import Fact, Reerased
from lethe.workflows.restore import detect
from tests.invariants.company import STORE, Company
from tests.invariants.conftest import company, ledger_directory, make_company

__all__ = ["company", "ledger_directory", "make_company"]

HOUR = timedelta(hours=1)


class Slow:
    """A store in which every call takes an hour; `ended` is when the last of each kind had its answer."""

    def __init__(self, company: Company) -> None:
        self._company, self._inner = company, company.store.port
        self.ended: dict[str, datetime] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def call(*args: Any, **options: Any) -> Any:
            answer = found(*args, **options)
            self._company.now += HOUR
            self.ended[name] = self._company.now
            return answer

        return call


def slowed(company: Company) -> Slow:
    """Let everything that the store is asked take an hour from now on."""
    slow: Any = Slow(company)
    company.store.port = slow
    made: Slow = slow
    return made


def test_an_erasure_is_dated_when_it_had_been_read_back(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    company.request("ada", key=company.key_of(ada))
    slow = slowed(company)
    company.visit()
    assert company.record("ada").progress(STORE).at == slow.ended["check"]


def test_an_absence_is_dated_when_the_store_had_been_searched(company: Company) -> None:
    company.visit_until_safe()
    company.request("eve", email="eve@x.example")
    slow = slowed(company)
    company.visit()
    found_at = company.record("eve").progress(STORE).at
    assert found_at is not None
    assert found_at >= slow.ended["find"]


def test_who_was_written_back_counts_as_erased_only_when_that_was_undone(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    row = company.row_of(ada)
    assert row is not None
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.write_back(ada, row)
    slow, facts = slowed(company), recorded(company)
    company.visit()
    (again,) = (fact for fact in facts if isinstance(fact, Reerased))
    assert again.at == slow.ended["erase"]


def test_a_store_is_safe_from_when_everything_had_been_read_back(company: Company) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.restore(before, "volume")
    slow = slowed(company)
    company.visit_until_safe()
    assert company.last_episode().safe_at == slow.ended["observe"] > slow.ended["check"]


def test_what_a_sweep_finds_may_have_been_so_since_the_sweep_before(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = company.sign_up("ada@x.example")
    row = company.row_of(ada)
    assert row is not None
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    monkeypatch.setattr(detect, "PROBE_NEWEST", 0)
    monkeypatch.setattr(detect, "PROBE_RANDOM", 0)
    monkeypatch.setattr(detect, "WRITE_BACK_LIMIT", 0)
    slowed(company)
    written_back_at = company.now
    company.write_back(ada, row)
    company.visit()
    since = company.last_episode().missing_since
    assert since is not None
    assert since <= written_back_at


def recorded(company: Company) -> list[Fact]:
    """Return a list that fills with what is recorded from now on."""
    facts: list[Fact] = []
    append = company.ledger.append

    def note(found: Sequence[Fact] = (), **more: Any) -> None:
        append(found, **more)
        facts.extend(found)

    company.ledger.append = note
    return facts
