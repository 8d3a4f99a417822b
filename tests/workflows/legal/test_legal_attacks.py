"""Legal requests under attack: ways in which somebody was told, held or erased who must not be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lethe.domain.identifiers import email_identifier
from lethe.domain.legal import LegalRecord
from lethe.domain.legal_facts import LegalKind
from lethe.domain.periods import Period
from lethe.domain.pruning import PruneRules, RetentionHold, prune_plan
from lethe.domain.snapshots import SnapshotRecord
from lethe.domain.trust import BlockReason
from lethe.ports.stores import HeadMoved
from lethe.workflows.legal.contact import SubjectContact, find_contacts, resolve
from lethe.workflows.legal.holds import stores_under_hold
from lethe.workflows.legal.register import LegalOrder, NonDisclosure, PreservationWanted, register
from lethe.workflows.legal.sealed_subject import SealedSubject
from lethe.workflows.restore.episode import open_episode_of
from lethe.workflows.restore.replay import ReplayState
from lethe.workflows.store_pass import PassPlan, reconcile_store
from tests.invariants.company import NAMESPACE, STORE, Company
from tests.invariants.conftest import company, ledger_directory, make_company

__all__ = ["company", "ledger_directory", "make_company"]

ENDLESS = NonDisclosure("18 U.S.C. 2705(b)")


def ask(
    company: Company, name: str, *, key: int | None = None, email: str | None = None, **more: Any
) -> LegalRecord:
    """Apply a LegalRequest about somebody; return what the ledger knows of it."""
    order = LegalOrder(
        namespace=NAMESPACE,
        name=name,
        uid=f"uid-{name}",
        spec_text=f"{name} {key}",
        kind=more.pop("kind", LegalKind.DISCLOSURE),
        authority="County Sheriff's Office",
        level="Local",
        country="US",
        received_at=more.pop("received_at", company.now),
        subject_id=None if key is None else str(key),
        identifier=None if email is None else email_identifier(email),
        **more,
    )
    record = register([order], company.context)[order.key].record
    assert record is not None
    return record


def known(company: Company, name: str) -> LegalRecord:
    """Return what the ledger knows of a legal request."""
    return company.real_ledger.legal_named([(NAMESPACE, name)])[NAMESPACE, name]


def reached(company: Company, name: str, *, look: bool = True) -> SubjectContact | None:
    """Ask the Primary how to reach a subject, as a visit does."""
    company.now += timedelta(seconds=1)
    reconcile_store(
        company.store,
        company.real_ledger.open_requests(),
        company.context,
        PassPlan(look=look),
        primary=STORE,
    )
    if open_episode_of(company.store, company.context) is not None:
        return None  # as a controller refuses to ask then
    try:
        return find_contacts(company.store, company.context, [f"uid-{name}"]).get(f"uid-{name}")
    except HeadMoved:
        return None


def address(found: SubjectContact | None) -> str | None:
    """Return where a notice would go."""
    contact = found.contact if found else None
    return contact.email.reveal() if contact and contact.email else None


def sealed_address(company: Company, name: str) -> str | None:
    """Return what is sealed for a deferred notice."""
    contact = SealedSubject.read(company.real_ledger.sealed([f"uid-{name}"]).get(f"uid-{name}")).contact
    return contact.email.reveal() if contact and contact.email else None


def test_who_has_the_key_since_a_restore_before_the_lookup_is_not_notified(
    company: Company,
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    key = company.key_of(company.sign_up("x@x.example"))
    company.visit_until_safe()
    ask(company, "le", key=key)
    company.restore(before, "volume")
    assert company.key_of(company.sign_up("y@x.example")) == key
    company.visit_until_safe()
    assert address(reached(company, "le")) is None


def test_whoever_has_the_key_since_a_restore_between_two_looks_is_not_told(company: Company) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    key = company.key_of(company.sign_up("x@x.example"))
    company.visit_until_safe()
    ask(company, "le", key=key)
    company.restore(before, "volume")
    assert company.key_of(company.sign_up("y@x.example")) == key
    assert address(reached(company, "le", look=False)) is None
    company.visit_until_safe()
    assert address(reached(company, "le")) is None


def test_who_has_the_key_since_a_restore_after_the_request_came_is_not_notified(
    company: Company,
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    key, received_at = company.key_of(company.sign_up("x@x.example")), company.now
    company.visit_until_safe()
    company.restore(before, "volume")
    assert company.key_of(company.sign_up("y@x.example")) == key
    company.visit_until_safe()
    ask(company, "le", key=key, received_at=received_at)
    company.visit()
    assert address(reached(company, "le")) is None


def test_nobody_elses_address_is_sealed_for_a_subject_whose_key_was_given_out_again(
    company: Company,
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    key = company.key_of(company.sign_up("x@x.example"))
    company.visit_until_safe()
    ask(company, "le", key=key, gag=ENDLESS)
    company.visit()
    assert known(company, "le").subject_known
    company.restore(before, "volume")
    y = company.sign_up("y@x.example")
    assert company.key_of(y) == key
    company.visit_until_safe()
    company.request("y", email="y@x.example")
    company.visit_until_safe()
    assert company.is_cleared(y)
    assert sealed_address(company, "le") is None


def test_nobody_elses_address_is_sealed_who_has_taken_over_the_subjects_former_one(company: Company) -> None:
    x = company.sign_up("x@x.example")
    company.visit_until_safe()
    ask(company, "le", key=company.key_of(x), gag=ENDLESS)
    company.visit()
    company.sql("UPDATE users SET email = 'new-x@x.example' WHERE person = %s", x)
    z = company.sign_up("x@x.example")
    company.request("z", key=company.key_of(z))
    company.visit_until_safe()
    assert company.is_cleared(z)
    assert sealed_address(company, "le") is None
    assert address(reached(company, "le")) == "new-x@x.example"


def test_who_has_the_key_since_an_unnoticed_restore_is_neither_notified_nor_sealed(
    company: Company,
) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    key = company.key_of(company.sign_up("x@x.example"))
    company.visit_until_safe()
    ask(company, "told", key=key)
    ask(company, "kept", key=key, gag=ENDLESS)
    company.visit()
    company.restore(before, "volume")
    assert company.key_of(company.sign_up("y@x.example")) == key
    company.request("y", email="y@x.example")
    assert address(reached(company, "told", look=False)) is None
    company.visit(look=False)
    assert sealed_address(company, "kept") is None
    company.visit_until_safe()
    assert sealed_address(company, "kept") is None


def test_whoever_registered_anew_after_a_restore_is_known_by_the_address_and_told(company: Company) -> None:
    company.visit_until_safe()
    before = company.snapshot()
    key = company.key_of(company.sign_up("x@x.example"))
    company.visit_until_safe()
    ask(company, "le", key=key, gag=ENDLESS)
    company.visit()
    company.restore(before, "volume")
    company.sign_up("y@x.example")
    company.visit_until_safe()
    again = company.sign_up("x@x.example")
    assert company.key_of(again) != key
    company.request("x", email="x@x.example")
    company.visit_until_safe()
    assert company.is_cleared(again)
    assert sealed_address(company, "le") == "x@x.example"


# What gives an order away that forbids to tell


def held_and_back(company: Company, **more: Any) -> str:
    """Let somebody be erased, held, and come back by a restore; return the `person`."""
    x = company.sign_up("x@x.example")
    company.visit_until_safe()
    before = company.snapshot()
    company.request("x", key=company.key_of(x))
    company.visit_until_safe()
    ask(
        company,
        "le",
        key=company.key_of(x),
        kind=LegalKind.PRESERVATION,
        preservation=PreservationWanted(),
        **more,
    )
    company.visit()
    company.restore(before, "volume")
    return x


def test_no_restore_event_says_that_somebody_is_held_in_secret(company: Company) -> None:
    x = held_and_back(company, gag=ENDLESS)
    step = company.visit_until(ReplayState.AWAITING_RELEASE).step
    assert step is not None
    assert "preserved" not in step.message
    assert "hold" not in step.message
    assert not company.is_cleared(x)


def test_a_store_that_was_released_stays_so_whoever_else_is_held_later(company: Company) -> None:
    x = held_and_back(company)
    company.visit_until(ReplayState.HELD_ROWS_RETURNED)
    company.visit(release="counsel has seen it")
    company.visit_until_safe()
    ask(
        company,
        "another",
        key=4711,
        kind=LegalKind.PRESERVATION,
        preservation=PreservationWanted(),
    )
    company.visit()
    company.visit()
    assert company.episode() is None
    assert not company.is_cleared(x)


def test_a_lapsed_order_is_given_away_by_nothing_before_the_user_was_told(company: Company) -> None:
    """For which two clocks agree; this host's alone may be wrong by months."""
    x = company.sign_up("x@x.example")
    company.visit_until_safe()
    gag = NonDisclosure("18 U.S.C. 2705(b)", (company.now + timedelta(days=30)).date(), "UTC")
    wanted = PreservationWanted()
    ask(company, "le", key=company.key_of(x), kind=LegalKind.PRESERVATION, preservation=wanted, gag=gag)
    company.now += timedelta(days=60)
    company.request("x", key=company.key_of(x))
    company.visit()
    assert company.store.blockers["uid-x"].reason is BlockReason.PENDING
    assert stores_under_hold(company.real_ledger, [STORE], company.now) == {STORE: RetentionHold.UNSAID}


def test_a_snapshot_that_is_kept_in_secret_is_announced_like_any_other(company: Company) -> None:
    at = company.now
    piece = SnapshotRecord("shop/dumps", "dump", (STORE,), at, at, pieces=("v1",))
    rules = PruneRules(Period(6, 0), hold_last=False)
    plain = prune_plan([piece], rules, now=at)
    secret = prune_plan([piece], rules, now=at, held_stores={STORE: RetentionHold.UNSAID})
    assert plain.next is not None
    assert secret.next == plain.next


# Telling


def test_an_address_that_nobody_has_fills_no_ledger(company: Company) -> None:
    company.visit_until_safe()
    ask(company, "le", email="nobody@x.example")
    before = company.real_ledger.position().sequence
    for _ in range(24 * 3):
        company.now += timedelta(hours=1)
        resolve(company.store, company.context)
    assert company.real_ledger.position().sequence - before < 12
