"""Whoever was taken over does nothing more that can't be undone, also where no append comes before it.

Each test lets an operator get as far as it can before the act, lets another take the ledger over, and then
lets the first go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.adapters.notices.letters import TemplateWriter
from lethe.domain.identifiers import PersonalText
from lethe.domain.mapping import StoreOwner, StoreRole
from lethe.ports.backups import BackendUnavailable
from lethe.ports.ledger import Fenced
from lethe.ports.notices import Delivery, DeliveryResult, Letter
from lethe.workflows.journal_head import intend_move
from lethe.workflows.legal.notify import Mailer, answer_authorities
from lethe.workflows.pass_context import PassContext
from lethe.workflows.store_session import StoreDescription, StoreSession
from tests.workflows.backed_up import EXPIRY, NIGHT, Backups, Source
from tests.workflows.legal.test_register import DISCLOSURE, NOW, Desk


def take_over(home: Path) -> None:
    """Let another operator open the same ledger and take it over."""
    other = open_ledger(f"sqlite:///{home / 'ledger.db'}", FileKeyring(home / "keys"))
    other.take_over()
    other.close()


def test_it_prunes_nothing_that_it_had_meant_to(backups: Backups, nightly: Source) -> None:
    nightly.dump(NIGHT)
    nightly.scan()
    backups.true = EXPIRY
    away = BackendUnavailable("the backend is away", "wait")
    with patch.object(nightly.backend, "delete", side_effect=away), pytest.raises(BackendUnavailable):
        nightly.scan()  # the intent is recorded now: the next scan has nothing to append before it deletes
    take_over(backups.home)
    with pytest.raises(Fenced):
        nightly.scan()
    assert len(nightly.names) == 1
    backups.restart()
    assert nightly.scan().purged
    assert nightly.names == []


def test_it_erases_nothing_in_a_store_without_a_journal(backups: Backups) -> None:
    nothing: Any = None  # as of a Tryton: nothing in it refuses who was fenced
    described = StoreDescription("shop", "crm", StoreRole.CRM, StoreOwner.SELF)
    without = StoreSession(described, nothing, nothing)
    context = PassContext(backups.real_ledger, backups.keyring, 1, lambda: NOW)
    assert intend_move(without, context) is None
    take_over(backups.home)
    with pytest.raises(Fenced):
        intend_move(without, context)


class Busy:
    """A mail server that takes nothing now, and counts who asked it."""

    def __init__(self) -> None:
        self.asked = 0

    def send(self, letters: Sequence[Letter]) -> Mapping[str, Delivery]:
        self.asked += 1
        return {one.message_id: Delivery(DeliveryResult.LATER, "451") for one in letters}

    def close(self) -> None:
        return


def test_it_sends_no_letter_that_it_had_meant_to(tmp_path: Path) -> None:
    desk, mail = Desk(tmp_path), Busy()
    record = desk.know(DISCLOSURE)
    to = {record.legal: PersonalText("sheriff@county.example")}
    mailer = Mailer(TemplateWriter(), mail, "smtp", "site.example")
    told = answer_authorities(to, desk.at(NOW), mailer)
    assert [one.result for one in told.values()] == [DeliveryResult.LATER]
    take_over(tmp_path)
    with pytest.raises(Fenced):
        answer_authorities(to, desk.at(NOW), mailer)
    assert mail.asked == 1
    desk.ledger.close()
