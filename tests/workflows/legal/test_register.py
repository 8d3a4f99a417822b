"""Taking legal requests down, against a real ledger: what it knows only grows, until a person ends it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import SqlLedger, open_ledger
from lethe.domain.identifiers import email_identifier
from lethe.domain.legal import LegalRecord, is_gagged
from lethe.domain.legal_facts import Addressee, LegalKind, LegalOutcome, LetterIntended, LetterSettled
from lethe.domain.trust import BlockReason
from lethe.workflows.legal.register import (
    ITS_DAY_HAS_COME,
    REFUSED,
    CourtOrder,
    LegalOrder,
    NonDisclosure,
    PreservationWanted,
    Registration,
    end_holds,
    register,
)
from lethe.workflows.legal.sealed_subject import SealedSubject
from lethe.workflows.pass_context import PassContext

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
DAY = timedelta(days=1)
ORDER = CourtOrder("Superior Court", "26-CV-1182", date(2026, 11, 19), documented=False)
DOCUMENTED = replace(ORDER, documented=True)
DISCLOSURE = LegalOrder(
    "shop", "le-1", "uid-1", "spec", LegalKind.DISCLOSURE, "Sheriff", "Local", "US", NOW, subject_id="4711"
)
BY_EMAIL = replace(DISCLOSURE, subject_id=None, identifier=email_identifier("Ada@x.example"))
PRESERVATION = replace(DISCLOSURE, kind=LegalKind.PRESERVATION, preservation=PreservationWanted())
GAG = NonDisclosure("18 U.S.C. 2705(b)", date(2027, 2, 20), "America/New_York")


class Desk:
    """Takes orders down, over one ledger; the manifest is deleted and applied anew each time."""

    def __init__(self, directory: Path) -> None:
        (directory / "keys").mkdir()
        self.keyring = FileKeyring(directory / "keys")
        self.ledger: SqlLedger = open_ledger(f"sqlite:///{directory / 'ledger.db'}", self.keyring)
        self.token = self.ledger.take_over()
        self._uids = itertools.count(2)

    def at(self, now: datetime) -> PassContext:
        """Return the surroundings of what is done at a moment."""
        return PassContext(self.ledger, self.keyring, self.token, lambda: now)

    def take(self, order: LegalOrder, now: datetime = NOW) -> Registration:
        return self.take_all(order, now=now)[order.key]

    def take_all(self, *orders: LegalOrder, now: datetime = NOW) -> dict[tuple[str, str], Registration]:
        anew = [replace(one, uid=f"uid-{next(self._uids)}") for one in orders]
        return dict(register(anew, self.at(now)))

    def know(self, order: LegalOrder, now: datetime = NOW) -> LegalRecord:
        taken = self.take(order, now)
        assert taken.blocker is None
        assert taken.record is not None
        return taken.record


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.ledger.close()


FULL = replace(
    BY_EMAIL,
    order=DOCUMENTED,
    document="sha256:ab",
    gag=GAG,
    preservation=PreservationWanted(("shop/site",), NOW + 90 * DAY),
    review="Comply",
    reviewer="counsel",
)


@pytest.mark.parametrize("order", [DISCLOSURE, BY_EMAIL, PRESERVATION, FULL], ids=lambda one: one.kind.value)
def test_the_same_manifest_again_adds_nothing(desk: Desk, order: LegalOrder) -> None:
    first = desk.take(order)
    position = desk.ledger.position()
    for later in (0, 1, 400):
        again = desk.take(order, NOW + later * DAY)
        assert again == Registration(first.record)
    assert desk.ledger.position() == position
    assert len(desk.ledger.legal_requests()) == 1


def test_a_set_of_orders_is_one_entry_into_the_ledger_and_each_gets_its_own_answer(desk: Desk) -> None:
    other, nobody = replace(DISCLOSURE, name="le-2"), replace(BY_EMAIL, name="le-3", identifier=None)
    taken = desk.take_all(DISCLOSURE, other, nobody)
    assert taken["shop", "le-1"].record is not None
    assert taken["shop", "le-2"].record is not None
    blocker = taken["shop", "le-3"].blocker
    assert blocker is not None
    assert blocker.reason is BlockReason.SECRET_MISSING
    assert taken["shop", "le-3"].record is None


@pytest.mark.parametrize(
    "other",
    [replace(BY_EMAIL, spec_text="other"), replace(BY_EMAIL, identifier=email_identifier("eve@x.example"))],
    ids=["another spec", "another person"],
)
def test_a_name_that_comes_to_mean_something_else_is_refused_and_adds_nothing(
    desk: Desk, other: LegalOrder
) -> None:
    known = desk.know(BY_EMAIL)
    position = desk.ledger.position()
    refused = desk.take(
        replace(other, order=ORDER, gag=GAG, review="Comply", preservation=PreservationWanted())
    )
    assert refused.blocker is not None
    assert refused.blocker.reason is BlockReason.NAME_REUSED
    assert "eve" not in refused.blocker.message
    assert (refused.record, refused.news) == (known, ())
    assert desk.ledger.position() == position


def test_a_known_request_needs_its_secret_no_more_and_capitals_are_no_other_person(desk: Desk) -> None:
    first = desk.know(BY_EMAIL)
    for again in (None, email_identifier("ada@X.EXAMPLE"), email_identifier(" Ada@x.example ")):
        assert desk.know(replace(BY_EMAIL, identifier=again)) == first
    sealed = SealedSubject.read(desk.ledger.sealed([first.legal])[first.legal])
    assert [one.value.reveal() for one in sealed.identifiers] == ["Ada@x.example"]
    assert sealed.contact is None


# What is decided


@pytest.mark.parametrize("level", ["Local", "Federal", "Foreign"])
def test_a_disclosure_without_an_order_is_rejected_at_once_whatever_else_it_asks_for(
    desk: Desk, level: str
) -> None:
    asked = replace(DISCLOSURE, level=level, review="Comply", preservation=PreservationWanted())
    record = desk.know(asked)
    assert record.decided is not None
    assert (record.decided.outcome, record.decided.reason) == (LegalOutcome.REJECTED, "NoCourtOrder")
    assert record.hold is None
    assert record.decided.reviewer is None


def test_an_order_reopens_a_rejected_disclosure_and_holds_what_it_asks_for(
    desk: Desk,
) -> None:
    asked = replace(DISCLOSURE, preservation=PreservationWanted())
    desk.know(asked)
    record = desk.know(replace(asked, order=ORDER), NOW + DAY)
    assert record.decided is not None
    assert record.decided.outcome is LegalOutcome.AWAITING_REVIEW
    assert record.holding
    # To leave the order out again takes nothing back.
    position = desk.ledger.position()
    desk.know(asked, NOW + 2 * DAY)
    assert desk.ledger.position() == position


def test_to_comply_counts_once_the_document_was_seen_and_needs_it_no_more(
    desk: Desk,
) -> None:
    asked = replace(DISCLOSURE, order=DOCUMENTED, review="Comply", reviewer="counsel")
    record = desk.know(asked)
    assert record.decided is not None
    assert record.decided.outcome is LegalOutcome.AWAITING_REVIEW
    record = desk.know(replace(asked, document="sha256:ab"), NOW + DAY)
    assert record.decided is not None
    assert (record.document, record.decided.outcome) == ("sha256:ab", LegalOutcome.COMPLIED)
    assert record.decided.reviewer == "counsel"
    again = desk.know(asked, NOW + 2 * DAY)
    assert (again.document, again.decided) == (record.document, record.decided)
    other = desk.know(replace(asked, document="sha256:cd"), NOW + 3 * DAY)
    assert (other.document, other.decided) == ("sha256:cd", record.decided), "that it changed is recorded"


def test_a_manifest_that_hides_that_there_is_a_document_does_not_make_it_needless(desk: Desk) -> None:
    desk.know(replace(DISCLOSURE, order=DOCUMENTED))
    record = desk.know(replace(DISCLOSURE, order=ORDER, review="Comply"))
    assert record.decided is not None
    assert record.decided.outcome is LegalOutcome.AWAITING_REVIEW


@pytest.mark.parametrize(("review", "outcome"), [("Comply", "Complied"), ("Refuse", "Refused")])
def test_a_review_stands_until_it_is_decided_otherwise(desk: Desk, review: str, outcome: str) -> None:
    asked = replace(DISCLOSURE, order=ORDER)
    decided = desk.know(replace(asked, review=review, reviewer="counsel")).decided
    assert decided is not None
    assert decided.outcome.value == outcome
    assert desk.know(asked, NOW + DAY).decided == decided
    assert desk.know(replace(asked, review=review, reviewer="somebody else"), NOW + DAY).decided == decided
    other = "Refuse" if review == "Comply" else "Comply"
    changed = desk.know(replace(asked, review=other, reviewer="another"), NOW + 2 * DAY).decided
    assert changed is not None
    assert changed.outcome is not decided.outcome
    assert changed.reviewer == "another"


# An order that forbids to tell


def test_a_gag_is_only_ever_moved_later_and_by_no_manifest_taken_away(desk: Desk) -> None:
    gagged = replace(DISCLOSURE, gag=GAG)
    first = desk.know(gagged).gag
    sooner = replace(GAG, until=date(2027, 2, 19))
    east = replace(GAG, time_zone="Pacific/Kiritimati")  # the same day ends there 18 hours before
    for weaker in (None, sooner, east):
        assert desk.know(replace(DISCLOSURE, gag=weaker), NOW + DAY).gag == first
    later = desk.know(replace(DISCLOSURE, gag=replace(GAG, until=date(2027, 6, 1))), NOW + DAY).gag
    assert later is not None
    assert (later.until, later.time_zone) == (date(2027, 6, 1), "America/New_York")
    west = desk.know(replace(DISCLOSURE, gag=replace(GAG, until=date(2027, 6, 1), time_zone="Pacific/Niue")))
    assert west.gag is not None
    assert west.gag.time_zone == "Pacific/Niue"
    endless = desk.know(replace(DISCLOSURE, gag=replace(GAG, until=None, time_zone=None)), NOW + 2 * DAY)
    assert endless.gag is not None
    assert endless.gag.until is None
    assert is_gagged(endless, NOW + 9999 * DAY)


def test_what_a_gag_rests_on_is_what_it_was_first_said_to_rest_on(desk: Desk) -> None:
    desk.know(replace(DISCLOSURE, gag=GAG))
    later = replace(GAG, legal_basis="because I say so", until=date(2027, 6, 1))
    gag = desk.know(replace(DISCLOSURE, gag=later)).gag
    assert gag is not None
    assert gag.legal_basis == GAG.legal_basis


def test_a_gag_that_a_person_lifted_stays_lifted(desk: Desk) -> None:
    desk.know(replace(DISCLOSURE, gag=GAG))
    lifted = desk.know(replace(DISCLOSURE, gag=replace(GAG, lifted="the court said so")), NOW + DAY)
    assert not is_gagged(lifted, NOW + DAY)
    position = desk.ledger.position()
    for again in (GAG, replace(GAG, until=date(2028, 1, 1)), replace(GAG, until=None, time_zone=None), None):
        assert desk.know(replace(DISCLOSURE, gag=again), NOW + 2 * DAY).gag == lifted.gag
    assert desk.ledger.position() == position


def test_a_gag_that_is_lifted_by_a_manifest_that_names_an_earlier_day_is_lifted(desk: Desk) -> None:
    desk.know(replace(DISCLOSURE, gag=GAG))
    sooner = replace(GAG, until=date(2026, 12, 1), lifted="the court said so")
    record = desk.know(replace(DISCLOSURE, gag=sooner), NOW + DAY)
    assert not is_gagged(record, NOW + DAY)
    assert record.gag is not None
    assert record.gag.until == GAG.until


# Holds


def held(
    stores: tuple[str, ...] = (), until: datetime | None = None, lifted: str | None = None
) -> LegalOrder:
    return replace(PRESERVATION, preservation=PreservationWanted(stores, until, lifted))


def test_a_hold_only_gets_wider_and_longer(desk: Desk) -> None:
    def shape(order: LegalOrder) -> tuple[tuple[str, ...], datetime | None]:
        hold = desk.know(order, NOW + DAY).hold
        assert hold is not None
        assert hold.active
        assert hold.placed_at == NOW
        return hold.stores, hold.until

    desk.know(held(("shop/site",), NOW + 90 * DAY))
    site, both = ("shop/site",), ("shop/crm", "shop/site")
    assert shape(held(site, NOW + 10 * DAY)) == (site, NOW + 90 * DAY)
    assert shape(replace(PRESERVATION, preservation=None)) == (site, NOW + 90 * DAY)
    assert shape(held(("shop/crm",), NOW + 90 * DAY)) == (both, NOW + 90 * DAY)
    assert shape(held(site, NOW + 99 * DAY)) == (both, NOW + 99 * DAY)
    assert shape(held((), NOW + 9 * DAY)) == ((), NOW + 99 * DAY)
    assert shape(held(site, NOW + 9 * DAY)) == ((), NOW + 99 * DAY)
    assert shape(held(site, None)) == ((), None)


def test_a_hold_that_a_person_lifted_stays_lifted(desk: Desk) -> None:
    desk.know(held(until=NOW + 90 * DAY))
    lifted = desk.know(held(until=NOW + 90 * DAY, lifted="the case was closed"), NOW + DAY)
    assert lifted.hold is not None
    assert lifted.hold.ended is not None
    assert lifted.hold.ended.because == "the case was closed"
    position = desk.ledger.position()
    for again in (held(), held(until=NOW + 900 * DAY), held(("shop/site",), NOW + 90 * DAY)):
        assert desk.know(again, NOW + 2 * DAY).hold == lifted.hold
    assert desk.ledger.position() == position


def test_a_preservation_that_counsel_refuses_ends_and_does_not_begin_again(desk: Desk) -> None:
    assert desk.know(held()).holding
    refused = desk.know(replace(held(), review="Refuse", reviewer="counsel"), NOW + DAY)
    assert refused.hold is not None
    assert refused.hold.ended is not None
    assert refused.hold.ended.because == REFUSED
    for again in (held(until=NOW + 900 * DAY), replace(held(), review="Refuse")):
        assert not desk.know(again, NOW + 2 * DAY).holding
    never = desk.know(replace(held(), name="le-2", review="Refuse"))
    assert never.hold is None


def test_a_preservation_needs_no_order_and_is_held_from_the_first_moment(desk: Desk) -> None:
    record = desk.know(held())
    assert record.holding
    assert record.decided is not None
    assert record.decided.outcome is LegalOutcome.AWAITING_REVIEW


def test_what_a_refused_disclosure_had_preserved_stays_until_it_is_lifted(desk: Desk) -> None:
    asked = replace(DISCLOSURE, order=ORDER, preservation=PreservationWanted())
    assert desk.know(asked).holding
    assert desk.know(replace(asked, review="Refuse"), NOW + DAY).holding


def test_holds_whose_day_has_come_end_and_no_others(desk: Desk) -> None:
    desk.know(held(until=NOW + DAY))
    desk.know(replace(held(until=NOW + 2 * DAY), name="le-2"))
    desk.know(replace(held(), name="le-3"))
    desk.know(replace(DISCLOSURE, name="le-4"))

    def end(at: datetime) -> list[str]:
        return [one.key[1] for one in end_holds(desk.ledger.legal_requests(), desk.at(at))]

    position = desk.ledger.position()
    assert end(NOW + DAY - timedelta(seconds=1)) == []
    assert desk.ledger.position() == position
    assert end(NOW + DAY) == ["le-1"]
    assert end(NOW + DAY) == []
    assert end(NOW + 900 * DAY) == ["le-2"]
    hold = desk.ledger.legal_named([("shop", "le-1")])["shop", "le-1"].hold
    assert hold is not None
    assert hold.ended is not None
    assert hold.ended.because == ITS_DAY_HAS_COME


def test_a_hold_whose_day_came_goes_on_where_it_is_prolonged_after_it(desk: Desk) -> None:
    desk.know(held(("shop/site",), NOW + DAY))
    end_holds(desk.ledger.legal_requests(), desk.at(NOW + DAY))
    position = desk.ledger.position()
    for same in (held(("shop/site",), NOW + DAY), held(("shop/site",), NOW)):
        assert not desk.know(same, NOW + 2 * DAY).holding
    assert desk.ledger.position() == position
    prolonged = desk.know(held(("shop/crm",), NOW + 9 * DAY), NOW + 2 * DAY)
    assert prolonged.holding
    assert prolonged.hold is not None
    assert (prolonged.hold.stores, prolonged.hold.until) == (("shop/crm", "shop/site"), NOW + 9 * DAY)
    assert prolonged.hold.placed_at == NOW + 2 * DAY
    end_holds(desk.ledger.legal_requests(), desk.at(NOW + 9 * DAY))
    assert desk.know(held(("shop/site",), None), NOW + 10 * DAY).holding


def test_a_hold_prolonged_after_everything_was_closed_looks_for_its_subject_anew(desk: Desk) -> None:
    record = desk.know(replace(held(until=NOW + DAY), review="Comply"))
    end_holds([record], desk.at(NOW + DAY))
    told = LegalOutcome.COMPLIED
    desk.ledger.append(
        [
            LetterIntended(record.legal, NOW, Addressee.USER, 1, "m@x", told),
            LetterSettled(record.legal, NOW, Addressee.USER, 1, delivered=True),
        ]
    )
    assert desk.ledger.legal_requests(open_only=True) == []
    prolonged = desk.know(replace(held(until=NOW + 9 * DAY), review="Comply"), NOW + 2 * DAY)
    assert prolonged.holding
    assert prolonged.resolved_at is None
    assert [one.legal for one in desk.ledger.legal_requests(open_only=True)] == [prolonged.legal]


def test_nothing_is_recorded_where_nothing_is_asked(desk: Desk) -> None:
    position = desk.ledger.position()
    assert desk.take_all() == {}
    assert end_holds([], desk.at(NOW)) == []
    assert desk.ledger.position() == position
