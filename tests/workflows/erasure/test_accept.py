"""Taking requests on, against a real ledger: the same manifest is the same request, another one is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import SqlLedger, open_ledger
from lethe.domain.identifiers import email_identifier
from lethe.domain.periods import Period
from lethe.domain.trust import BlockReason
from lethe.workflows.erasure.accept import ErasureOrder, Intake, accept
from lethe.workflows.pass_context import PassContext

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
BY_ID = ErasureOrder("shop", "ada", "uid-1", "spec", NOW, subject_id="4711")
BY_EMAIL = ErasureOrder("shop", "bob", "uid-2", "spec", NOW, identifier=email_identifier("Bob@x.example"))


class Desk:
    """Takes orders in, over one ledger."""

    def __init__(self, directory: Path) -> None:
        (directory / "keys").mkdir()
        self.keyring = FileKeyring(directory / "keys")
        self.ledger: SqlLedger = open_ledger(f"sqlite:///{directory / 'ledger.db'}", self.keyring)
        self.token = self.ledger.take_over()

    def take(self, order: ErasureOrder, now: datetime = NOW) -> Intake:
        context = PassContext(self.ledger, self.keyring, self.token, lambda: now)
        taken = accept([order], context, deadline=Period(1, 0), stores={"shop": ["shop/site"]})
        return taken[order.namespace, order.name]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.ledger.close()


@pytest.mark.parametrize("order", [BY_ID, BY_EMAIL], ids=["id", "email"])
def test_the_same_manifest_again_is_the_same_request_with_its_times(desk: Desk, order: ErasureOrder) -> None:
    first = desk.take(order)
    later = NOW + timedelta(days=9)
    again = desk.take(replace(order, uid="uid-new", created_at=later), later)
    assert again == first
    assert first.record is not None
    assert first.record.accepted.due_at == datetime(2026, 2, 28, 12, tzinfo=UTC)
    assert len(desk.ledger.open_requests()) == 1


def test_without_its_secret_a_known_request_is_itself_and_an_unknown_one_kept_out(
    desk: Desk,
) -> None:
    without = replace(BY_EMAIL, identifier=None)
    refused = desk.take(without)
    assert refused.record is None
    assert refused.blocker is not None
    assert refused.blocker.reason is BlockReason.SECRET_MISSING
    desk.take(BY_EMAIL)
    assert desk.take(without).blocker is None


@pytest.mark.parametrize(
    "other",
    [replace(BY_EMAIL, spec_text="other"), replace(BY_EMAIL, identifier=email_identifier("eve@x.example"))],
    ids=["another spec", "another person"],
)
def test_a_name_that_comes_to_mean_something_else_is_refused_and_not_confirmed(
    desk: Desk, other: ErasureOrder
) -> None:
    desk.take(BY_EMAIL)
    refused = desk.take(replace(other, confirmed=("NothingFound",)))
    assert refused.blocker is not None
    assert refused.blocker.reason is BlockReason.NAME_REUSED
    assert "eve" not in refused.blocker.message
    assert refused.record is not None
    assert refused.record.confirmed == frozenset()


def test_a_capital_letter_does_not_make_another_person(desk: Desk) -> None:
    desk.take(BY_EMAIL)
    assert desk.take(replace(BY_EMAIL, identifier=email_identifier(" bob@X.example"))).blocker is None


def test_nobody_asked_in_the_future(desk: Desk) -> None:
    taken = desk.take(replace(BY_ID, requested_at=NOW + timedelta(days=400)))
    assert taken.record is not None
    assert taken.record.accepted.requested_at == NOW


def test_an_answer_is_recorded_once_and_what_is_sealed_opens_again(desk: Desk) -> None:
    desk.take(BY_EMAIL)
    taken = desk.take(replace(BY_EMAIL, confirmed=("NothingFound",)))
    assert taken.record is not None
    assert taken.record.confirmed == {"NothingFound"}
    position = desk.ledger.position()
    desk.take(replace(BY_EMAIL, confirmed=("NothingFound",)))
    assert desk.ledger.position() == position
    assert b"Bob@x.example" in desk.ledger.sealed(["uid-2"])["uid-2"]
