"""Legal requests as what follows from facts: what is decided, when the user may be told, who is held."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lethe.domain.legal import (
    COURT_ORDER,
    NO_COURT_ORDER,
    PRESERVATION,
    REVIEWED,
    Holds,
    LegalRecord,
    NoticeState,
    day_ends,
    decision_of,
    evolve_legal,
    gag_ends,
    held_back_until,
    is_gagged,
    may_be_said,
    notice_of,
)
from lethe.domain.legal_facts import (
    Addressee,
    AddressKept,
    CourtOrderGiven,
    DocumentSeen,
    HoldEnded,
    HoldPlaced,
    HoldTookEffect,
    LegalDecided,
    LegalFact,
    LegalKind,
    LegalOutcome,
    LegalRegistered,
    LetterIntended,
    LetterSettled,
    NonDisclosureOrdered,
    Reminded,
    SubjectResolved,
)
from lethe.domain.requests import IllegalTransition
from tests.search.drawing import run_machine

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
REGISTERED = LegalRegistered(
    "le",
    "shop",
    "le-1",
    "digest",
    NOW,
    LegalKind.DISCLOSURE,
    "Sheriff",
    "Local",
    "US",
    NOW,
    emails=(b"by-secret",),
)
BY_ID = replace(REGISTERED, subject_id="4711", emails=())


def legal(*facts: LegalFact, registered: LegalRegistered = REGISTERED) -> LegalRecord:
    """Return what a registered request becomes by facts."""
    record = evolve_legal(None, registered)
    for fact in facts:
        record = evolve_legal(record, fact)
    return record


def decided(outcome: LegalOutcome, at: datetime = NOW) -> LegalDecided:
    return LegalDecided("le", at, outcome, "why")


def intended(
    number: int = 1, *, to: Addressee = Addressee.USER, outcome: LegalOutcome = LegalOutcome.REJECTED
) -> LetterIntended:
    return LetterIntended("le", NOW, to, number, f"{number}@x", outcome)


def settled(number: int = 1, *, to: Addressee = Addressee.USER, delivered: bool = True) -> LetterSettled:
    return LetterSettled("le", NOW + HOUR, to, number, delivered)


def gagged(until: date | None, zone: str | None = "UTC", lifted: str | None = None) -> NonDisclosureOrdered:
    return NonDisclosureOrdered("le", NOW, "18 U.S.C. 2705(b)", until, zone if until else None, lifted)


# When a day has ended


# Zones whose clocks change at midnight, over it, or by a whole day, besides those that never change.
PECULIAR = (
    "America/Sao_Paulo",
    "America/Havana",
    "America/St_Johns",
    "America/Nuuk",
    "Africa/Cairo",
    "Asia/Beirut",
    "Antarctica/Casey",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "UTC",
)
ZONES = st.one_of(st.sampled_from(PECULIAR), st.sampled_from(sorted(available_timezones() - {"localtime"})))


def _changes(zone: str, first: int = 2004, last: int = 2030) -> list[date]:
    """Return the days about which a zone's clock changes."""
    there = ZoneInfo(zone)
    days = (date(first, 1, 1) + timedelta(n) for n in range((last - first) * 366))
    noons = [datetime(day.year, day.month, day.day, 12, tzinfo=UTC) for day in days]
    pairs = itertools.pairwise(noons)
    return [a.date() for a, b in pairs if a.astimezone(there).utcoffset() != b.astimezone(there).utcoffset()]


def _is_over_from_then_on(until: date, zone: str) -> None:
    ends, there = day_ends(until, zone).astimezone(UTC), ZoneInfo(zone)
    assert (ends - MOMENT).astimezone(there).date() <= until, "the day had ended before"
    for after in range(0, 30 * 60, 15):
        local = (ends + timedelta(minutes=after)).astimezone(there)
        assert local.date() > until, f"it is still {until} at {local}"


@given(until=st.dates(date(1985, 1, 1), date(2100, 1, 1)), zone=ZONES)
@example(until=date(2018, 11, 3), zone="America/Sao_Paulo")  # the next day begins at 01:00
@example(until=date(2026, 4, 23), zone="Africa/Cairo")
@example(until=date(2026, 10, 31), zone="America/Havana")  # midnight comes twice, the day does not
@example(until=date(2011, 12, 29), zone="Pacific/Apia")  # there is no 30th
@example(until=date(2011, 12, 30), zone="Pacific/Apia")
def test_a_day_ends_at_the_first_moment_from_which_on_no_clock_shows_it(until: date, zone: str) -> None:
    _is_over_from_then_on(until, zone)


@pytest.mark.parametrize("zone", PECULIAR)
def test_a_day_ends_once_and_for_all_about_every_change_of_a_clock(zone: str) -> None:
    for changed in _changes(zone):
        for near in range(-2, 3):
            _is_over_from_then_on(changed + timedelta(near), zone)


@pytest.mark.parametrize(
    ("until", "zone", "at"),
    [
        (date(2027, 2, 20), "America/New_York", datetime(2027, 2, 21, 5, tzinfo=UTC)),
        (date(2027, 7, 20), "America/New_York", datetime(2027, 7, 21, 4, tzinfo=UTC)),
        (date(2027, 2, 20), "Pacific/Kiritimati", datetime(2027, 2, 20, 10, tzinfo=UTC)),
        # No midnight: the clock goes from 23:59:59 to 01:00.
        (date(2018, 11, 3), "America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),
        # Two midnights, an hour apart: the first one ends the day.
        (date(2026, 10, 31), "America/Havana", datetime(2026, 11, 1, 4, tzinfo=UTC)),
        # At 00:01 the clock was put back to 23:01 of the day before, which ended a second time.
        (date(2006, 10, 28), "America/St_Johns", datetime(2006, 10, 29, 3, 30, tzinfo=UTC)),
        (date(2028, 2, 29), "UTC", datetime(2028, 3, 1, tzinfo=UTC)),
    ],
)
def test_the_instant_at_which_a_day_ends(until: date, zone: str, at: datetime) -> None:
    assert day_ends(until, zone).astimezone(UTC) == at


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/New_York"])
def test_a_gag_until_the_last_day_that_there_is_does_not_end_and_breaks_nothing(zone: str) -> None:
    record = legal(gagged(date.max, zone), decided(LegalOutcome.REJECTED))
    assert is_gagged(record, datetime(2999, 1, 1, tzinfo=UTC))
    assert notice_of(record, NOW).state is NoticeState.DEFERRED
    ends = day_ends(date.max, zone)
    assert ends.astimezone(UTC) > NOW
    assert ends > day_ends(date(9999, 12, 30), "UTC") - DAY


# Who may be told, and when


def test_nobody_is_gagged_without_an_order() -> None:
    assert not is_gagged(legal(), NOW)
    assert held_back_until(legal()) is None
    assert gag_ends(None) is None


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Kiritimati", "UTC"])
def test_a_gag_holds_through_the_end_of_its_day_in_the_zone_of_its_authority(zone: str) -> None:
    until = date(2027, 2, 20)
    record, ends = legal(gagged(until, zone)), day_ends(until, zone).astimezone(UTC)
    assert is_gagged(record, ends - MOMENT)
    assert not is_gagged(record, ends)
    assert held_back_until(record) == ends


def test_a_gag_without_a_day_or_without_a_zone_lasts_until_a_person_lifts_it() -> None:
    far = NOW + timedelta(days=36_500)
    for order in (gagged(None), NonDisclosureOrdered("le", NOW, "law", date(2027, 1, 1), None)):
        record = legal(order)
        assert is_gagged(record, far)
        assert held_back_until(record) is None
        lifted = legal(order, replace(order, at=NOW + DAY, lifted="the court said so"))
        assert not is_gagged(lifted, NOW + DAY)
        assert held_back_until(lifted) == NOW + DAY


def test_a_gag_held_back_until_it_was_lifted_or_until_its_day_if_that_came_first() -> None:
    until = date(2027, 2, 20)
    for at, since in ((NOW + DAY, NOW + DAY), (NOW + 900 * DAY, day_ends(until, "UTC"))):
        record = legal(gagged(until), replace(gagged(until, lifted="why"), at=at))
        assert not is_gagged(record, at)
        assert held_back_until(record) == since


def test_a_gag_that_is_prolonged_holds_until_the_later_day() -> None:
    record = legal(gagged(date(2027, 1, 1)), gagged(date(2027, 6, 1)))
    assert held_back_until(record) == datetime(2027, 6, 2, tzinfo=UTC)


REJECTED = decided(LegalOutcome.REJECTED)
NOBODY, SOMEBODY = SubjectResolved("le", NOW), SubjectResolved("le", NOW, ("4711",), (b"mail",))
GAG = gagged(date(2027, 2, 20))
NOTICES: dict[str, tuple[list[LegalFact], NoticeState, datetime | None]] = {
    "new": ([], NoticeState.PENDING, NOW),
    "decided": ([REJECTED], NoticeState.PENDING, NOW),
    "known": ([REJECTED, SOMEBODY], NoticeState.PENDING, NOW),
    "intended": ([REJECTED, SOMEBODY, intended()], NoticeState.PENDING, NOW),
    "sent": ([REJECTED, SOMEBODY, intended(), settled()], NoticeState.SENT, NOW),
    "refused by the server": (
        [REJECTED, SOMEBODY, intended(), settled(delivered=False)],
        NoticeState.UNDELIVERABLE,
        NOW,
    ),
    "nobody of that key": ([REJECTED, NOBODY], NoticeState.UNDELIVERABLE, NOW),
    "nobody any more, but the address is kept": (
        [REJECTED, NOBODY, AddressKept("le", NOW)],
        NoticeState.PENDING,
        NOW,
    ),
    "nobody, and found after all": ([REJECTED, NOBODY, SOMEBODY], NoticeState.PENDING, NOW),
    "gagged": ([GAG, REJECTED, SOMEBODY], NoticeState.DEFERRED, datetime(2027, 2, 21, tzinfo=UTC)),
    "gagged, of nobody": ([GAG, REJECTED, NOBODY], NoticeState.DEFERRED, datetime(2027, 2, 21, tzinfo=UTC)),
    "gagged until a person lifts it": ([gagged(None), REJECTED], NoticeState.DEFERRED, None),
    "told before the order came": ([REJECTED, intended(), settled(), GAG], NoticeState.SENT, None),
    "told of a rejection, and taken up again": (
        [REJECTED, intended(), settled(), decided(LegalOutcome.AWAITING_REVIEW)],
        NoticeState.PENDING,
        NOW,
    ),
}


@pytest.mark.parametrize(("facts", "state", "due_at"), NOTICES.values(), ids=NOTICES.keys())
def test_where_a_notice_stands(facts: list[LegalFact], state: NoticeState, due_at: datetime | None) -> None:
    observed = notice_of(legal(*facts), NOW)
    assert observed.state is state
    if state is not NoticeState.SENT:
        assert observed.due_at == due_at


# What is decided


@pytest.mark.parametrize("review", [None, "Comply", "Refuse"])
@pytest.mark.parametrize("documented", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("kind", LegalKind)
def test_what_is_decided_and_why(
    kind: LegalKind, ordered: bool, documented: bool, review: str | None
) -> None:
    found = decision_of(kind, ordered=ordered, documented=documented, review=review)
    disclosure = kind is LegalKind.DISCLOSURE
    table: dict[tuple[bool, bool, str | None], tuple[LegalOutcome, str]] = {
        # Whether there is an order, whether its document was seen, and what counsel said.
        (True, True, None): (LegalOutcome.AWAITING_REVIEW, COURT_ORDER),
        (True, False, None): (LegalOutcome.AWAITING_REVIEW, COURT_ORDER),
        (True, True, "Comply"): (LegalOutcome.COMPLIED, REVIEWED),
        (True, False, "Comply"): (LegalOutcome.AWAITING_REVIEW, COURT_ORDER),
        (True, True, "Refuse"): (LegalOutcome.REFUSED, REVIEWED),
        (True, False, "Refuse"): (LegalOutcome.REFUSED, REVIEWED),
    }
    without: dict[tuple[bool, str | None], tuple[LegalOutcome, str]] = {
        # Of a preservation: to keep something takes no order.
        (True, None): (LegalOutcome.AWAITING_REVIEW, PRESERVATION),
        (False, None): (LegalOutcome.AWAITING_REVIEW, PRESERVATION),
        (True, "Comply"): (LegalOutcome.COMPLIED, REVIEWED),
        (False, "Comply"): (LegalOutcome.AWAITING_REVIEW, PRESERVATION),
        (True, "Refuse"): (LegalOutcome.REFUSED, REVIEWED),
        (False, "Refuse"): (LegalOutcome.REFUSED, REVIEWED),
    }
    if ordered:
        assert found == table[ordered, documented, review]
    elif disclosure:
        assert found == (LegalOutcome.REJECTED, NO_COURT_ORDER)
    else:
        assert found == without[documented, review]


# What follows from facts


@pytest.mark.parametrize(
    ("before", "fact"),
    [
        ([], REGISTERED),
        ([], HoldEnded("le", NOW, "why")),
        ([], HoldTookEffect("le", NOW)),
        ([HoldPlaced("le", NOW), HoldEnded("le", NOW, "why")], HoldEnded("le", NOW, "again")),
        ([HoldPlaced("le", NOW), HoldEnded("le", NOW, "why")], HoldTookEffect("le", NOW)),
        ([], settled()),
        ([intended(1)], settled(2)),
        ([intended(1)], settled(1, to=Addressee.AUTHORITY)),
    ],
)
def test_what_cant_follow_is_refused(before: list[LegalFact], fact: LegalFact) -> None:
    record = legal(*before)
    told = repr(record)
    with pytest.raises(IllegalTransition):
        evolve_legal(record, fact)
    assert repr(record) == told


def test_a_request_that_was_never_registered_takes_no_fact() -> None:
    with pytest.raises(IllegalTransition):
        evolve_legal(None, HoldPlaced("le", NOW))


def test_a_prolonged_hold_keeps_its_beginning_and_waits_anew_where_it_is_wider() -> None:
    placed = HoldPlaced("le", NOW, ("shop/site",), NOW + DAY)
    record = legal(placed, HoldTookEffect("le", NOW + HOUR), replace(placed, at=NOW + 2 * HOUR, until=None))
    assert record.hold is not None
    assert (record.hold.placed_at, record.hold.until, record.hold.effective_at) == (NOW, None, NOW + HOUR)
    wider = evolve_legal(record, replace(placed, stores=()))
    assert wider.hold is not None
    assert wider.hold.effective_at is None


def test_a_day_that_has_come_does_not_end_a_hold_by_itself() -> None:
    record = legal(HoldPlaced("le", NOW, (), NOW - DAY))
    assert record.holding


def test_who_is_held_anew_after_everything_was_closed_is_asked_for_addresses_anew() -> None:
    closed = legal(REJECTED, SOMEBODY, intended(), settled(), *_answered(1), registered=BY_ID)
    assert not closed.open
    again = evolve_legal(closed, HoldPlaced("le", NOW + DAY))
    assert (again.open, again.resolved_at, again.keys) == (True, None, ("4711",))
    held = legal(HoldPlaced("le", NOW), SOMEBODY)
    assert evolve_legal(held, HoldPlaced("le", NOW + DAY)).resolved_at == NOW, "they are still known"


def test_the_address_of_a_secret_is_shredded_with_the_last_duty_and_not_before() -> None:
    told: list[LegalFact] = [REJECTED, SOMEBODY, intended(), settled()]
    assert legal(*told).registered.emails == (b"by-secret",), "the authority has no answer yet"
    closed = legal(*told, *_answered(1))
    assert (closed.emails, closed.registered.emails) == ((), ())


def _answered(number: int) -> tuple[LegalFact, LegalFact]:
    return intended(number, to=Addressee.AUTHORITY), settled(number, to=Addressee.AUTHORITY)


def test_numbers_of_letters_go_on_after_a_settled_one_and_an_intent_keeps_its_own() -> None:
    assert legal().next_number(Addressee.USER) == 1
    assert legal(intended(1)).next_number(Addressee.USER) == 1
    assert legal(intended(1), settled(1)).next_number(Addressee.USER) == 2
    assert legal(intended(1), settled(1)).next_number(Addressee.AUTHORITY) == 1
    assert legal(intended(1)).intended(Addressee.USER) == intended(1)
    assert legal(intended(1), settled(1)).intended(Addressee.USER) is None


INSTANTS = st.integers(0, 400).map(lambda days: NOW + timedelta(days=days))
OUTCOMES = st.sampled_from(LegalOutcome)
ADDRESSEES = st.sampled_from(Addressee)
NUMBERS = st.integers(1, 4)
LEGAL_FACTS = st.one_of(
    st.just(REGISTERED),
    st.builds(CourtOrderGiven, st.just("le"), INSTANTS, st.just("court"), st.just("1"), st.dates()),
    st.builds(DocumentSeen, st.just("le"), INSTANTS, st.sampled_from(["sha256:a", "sha256:b"])),
    st.builds(gagged, st.none() | st.dates(), st.just("Europe/Berlin"), st.sampled_from([None, "lifted"])),
    st.builds(LegalDecided, st.just("le"), INSTANTS, OUTCOMES, st.just("why")),
    st.builds(
        SubjectResolved,
        st.just("le"),
        INSTANTS,
        st.sampled_from([(), ("4711",), ("4711", "4712")]),
        st.sampled_from([(), (b"mail",), (b"other",)]),
    ),
    st.builds(
        HoldPlaced,
        st.just("le"),
        INSTANTS,
        st.sampled_from([(), ("shop/site",), ("shop/crm", "shop/site")]),
        st.none() | INSTANTS,
    ),
    st.builds(HoldTookEffect, st.just("le"), INSTANTS),
    st.builds(HoldEnded, st.just("le"), INSTANTS, st.just("why")),
    st.builds(AddressKept, st.just("le"), INSTANTS),
    st.builds(LetterIntended, st.just("le"), INSTANTS, ADDRESSEES, NUMBERS, st.just("m@x"), OUTCOMES),
    st.builds(LetterSettled, st.just("le"), INSTANTS, ADDRESSEES, NUMBERS, st.booleans()),
    st.builds(Reminded, st.just("le"), INSTANTS),
)


class AnyFacts(RuleBasedStateMachine):
    """Facts in any order, as if the ledger had been written by a worse program than this one."""

    @initialize(registered=st.sampled_from([REGISTERED, BY_ID]))
    def begin(self, registered: LegalRegistered) -> None:
        self.record = evolve_legal(None, registered)

    @rule(fact=LEGAL_FACTS)
    def something_is_recorded(self, fact: LegalFact) -> None:
        before, shown = self.record, repr(self.record)
        try:
            after = evolve_legal(before, fact)
        except IllegalTransition:
            assert repr(before) == shown, "nothing was changed"
            return
        assert repr(before) == shown, "a record is never changed in place"
        assert replace(after.registered, emails=()) == replace(before.registered, emails=())
        assert set(after.keys) >= set(before.keys), "who was found once stays known by key"
        if before.holding:
            assert after.holding != isinstance(fact, HoldEnded), (
                "a hold ends by HoldEnded, and by nothing else"
            )
        if before.notified and not after.notified:
            self._was_not_the_last_word(before, after, fact)
        self.record = after

    def _was_not_the_last_word(self, before: LegalRecord, after: LegalRecord, fact: LegalFact) -> None:
        """Whoever was told of a rejection that no longer is one, or could not be reached, is told again."""
        last = before.letters[Addressee.USER]
        if isinstance(fact, LegalDecided):
            assert last.intended.outcome is LegalOutcome.REJECTED
            assert after.decided is not None
            assert after.decided.outcome is not LegalOutcome.REJECTED
        else:
            assert isinstance(fact, LetterIntended)
            assert last.settled is not None
            assert not last.settled.delivered, "who was told is not told again of the same"

    @rule(number=NUMBERS, outcome=OUTCOMES, delivered=st.booleans())
    def the_user_is_told(self, number: int, outcome: LegalOutcome, delivered: bool) -> None:
        number = self.record.next_number(Addressee.USER)
        self.something_is_recorded(intended(number, outcome=outcome))
        self.something_is_recorded(settled(number, delivered=delivered))

    @rule(outcome=st.sampled_from([LegalOutcome.REJECTED, LegalOutcome.REFUSED, LegalOutcome.COMPLIED]))
    def everything_is_done(self, outcome: LegalOutcome) -> None:
        self.something_is_recorded(decided(outcome))
        if self.record.holding:
            self.something_is_recorded(HoldEnded("le", NOW, "lifted"))
        for to in Addressee:
            number = self.record.next_number(to)
            self.something_is_recorded(intended(number, to=to, outcome=outcome))
            self.something_is_recorded(settled(number, to=to))
        assert not self.record.open

    @invariant()
    def what_is_closed_holds_no_digest_of_an_address(self) -> None:
        if not self.record.open:
            assert (self.record.emails, self.record.registered.emails) == ((), ())
            assert not self.record.holding

    @invariant()
    def no_address_is_kept_for_who_was_told(self) -> None:
        assert not (self.record.notified and self.record.address_kept)

    @invariant()
    def what_is_to_be_decided_told_or_held_is_open(self) -> None:
        undecided = self.record.decided is None or self.record.decided.outcome is LegalOutcome.AWAITING_REVIEW
        if undecided or self.record.holding or not self.record.notified:
            assert self.record.open


@pytest.mark.machine
def test_facts_in_any_order_break_nothing_that_a_legal_request_promises() -> None:
    run_machine(AnyFacts, examples=80, steps=25, shrink=True)


def test_a_user_notified_of_a_rejection_is_to_be_notified_again_once_an_order_comes() -> None:
    told = legal(REJECTED, intended(), settled())
    assert told.notified
    up_again = evolve_legal(told, decided(LegalOutcome.AWAITING_REVIEW))
    assert not up_again.notified
    final = intended(2, outcome=LegalOutcome.COMPLIED)
    record = legal(REJECTED, intended(), settled(), decided(LegalOutcome.COMPLIED), final, settled(2))
    assert record.notified
    assert evolve_legal(record, decided(LegalOutcome.REFUSED)).notified


# Who is held


def _held(
    name: str, *, keys: tuple[str, ...] = (), emails: tuple[bytes, ...] = (), stores: tuple[str, ...] = ()
) -> LegalRecord:
    record = evolve_legal(None, replace(REGISTERED, legal=name, emails=emails))
    record = evolve_legal(record, SubjectResolved(name, NOW, keys))
    return evolve_legal(record, HoldPlaced(name, NOW, stores))


ADA, BOB = _held("ada", keys=("1",), emails=(b"ada",)), _held("bob", keys=("2",), stores=("shop/crm",))


def test_whoever_shares_a_key_or_an_address_with_a_hold_is_held_and_nobody_else() -> None:
    holds = Holds((ADA, BOB), {"erased-ada": (ADA,)})
    assert holds.of(frozenset({"1"}), frozenset()) == (ADA,)
    assert holds.of(frozenset(), frozenset({b"ada"})) == (ADA,)
    assert holds.of(frozenset({"2", "3"}), frozenset({b"ada"})) == (ADA, BOB)
    assert holds.of(frozenset({"3"}), frozenset({b"eve"})) == ()
    assert holds.of(frozenset(), frozenset()) == ()
    assert holds.of(frozenset({"1"}), frozenset(), "erased-ada") == (ADA,), "named once"
    assert holds.of(frozenset(), frozenset(), "erased-ada") == (ADA,)
    assert holds.of(frozenset(), frozenset(), "erased-eve") == ()


def test_a_hold_is_on_the_stores_that_it_names_or_on_all_of_its_own_namespace() -> None:
    holds = Holds((ADA, BOB), {"r": (ADA, BOB), "s": (BOB,)})
    assert holds.on("shop/crm") == holds
    assert holds.on("shop/site") == Holds((ADA,), {"r": (ADA,)})
    assert not holds.on("elsewhere/site")
    assert holds.on("shop/site").names == {"ada"}
    assert not holds.on("shoplifting/site"), "a namespace is not a prefix"


def test_a_hold_may_show_where_one_of_those_that_name_the_person_is_no_secret() -> None:
    secret = evolve_legal(_held("secret"), replace(GAG, legal="secret"))
    assert not may_be_said((secret,), NOW)
    assert may_be_said((secret, ADA), NOW)
    lapsed = day_ends(date(2027, 2, 20), "UTC")
    assert not may_be_said((secret,), lapsed), "this host's clock alone may be wrong"
    review = LegalOutcome.AWAITING_REVIEW
    secret = evolve_legal(secret, replace(intended(outcome=review), legal="secret"))
    secret = evolve_legal(secret, replace(settled(), legal="secret"))
    assert may_be_said((secret,), lapsed), "the user was told, for which two clocks agreed"
    assert not may_be_said((), NOW)
