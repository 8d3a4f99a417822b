"""What a LegalRequest shows, row by row as the table of statuses promises it (docs/troubleshooting.md)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.conditions.base import Condition, ConditionStatus
from lethe.domain.conditions.legalrequest import LegalRequestObservation, answer_of, legalrequest_conditions
from lethe.domain.legal import LegalRecord, evolve_legal, notice_of
from lethe.domain.legal_facts import (
    Addressee,
    AddressKept,
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
    SubjectResolved,
)
from lethe.domain.requests import IllegalTransition
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.domain.trust import Blocker, BlockReason

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
REGISTERED = LegalRegistered(
    "le", "shop", "le-1", "digest", NOW, LegalKind.DISCLOSURE, "Sheriff", "Local", "US", NOW, subject_id="7"
)
PRESERVATION = replace(REGISTERED, kind=LegalKind.PRESERVATION)
KNOWN = SubjectResolved("le", NOW, ("7",), (b"mail",))
NOBODY = SubjectResolved("le", NOW)
GAG = NonDisclosureOrdered("le", NOW, "18 U.S.C. 2705(b)", date(2027, 2, 20), "America/New_York")


def decided(outcome: LegalOutcome = LegalOutcome.REJECTED) -> LegalDecided:
    return LegalDecided("le", NOW, outcome, "why")


def letter_facts(*, delivered: bool = True, by: str = "", to: Addressee = Addressee.USER) -> list[LegalFact]:
    return [
        LetterIntended("le", NOW, to, 1, "1@x", LegalOutcome.REJECTED),
        LetterSettled("le", NOW, to, 1, delivered, answer=by),
    ]


def record(*facts: LegalFact, registered: LegalRegistered = REGISTERED) -> LegalRecord:
    made = evolve_legal(None, registered)
    for fact in facts:
        made = evolve_legal(made, fact)
    return made


def shown(
    known: LegalRecord | None, *, at: datetime = NOW, blocker: Blocker | None = None, **more: Any
) -> dict[str, Condition]:
    """Return the conditions of what is known, by type."""
    observed = LegalRequestObservation(known, notice_of(known, at) if known else None, blocker, **more)
    conditions = legalrequest_conditions(observed).conditions
    assert len({one.type for one in conditions}) == len(conditions), "each type once"
    return {one.type: one for one in conditions}


def said(condition: Condition) -> tuple[str, str]:
    return str(condition.status), condition.reason


REUSED = Blocker(BlockReason.NAME_REUSED, "another spec")
MISSING = Blocker(BlockReason.SECRET_MISSING, "Secret le-1 is missing")

# What is known; Ready, and whether it is Stalled, Reconciling or at rest.
READY: dict[str, tuple[LegalRecord | None, dict[str, object], str, str, str | None]] = {
    "not seen yet": (None, {}, "False", "Pending", "Reconciling"),
    "its Secret is not there": (None, {"blocker": MISSING}, "False", "SecretMissing", "Reconciling"),
    "its name means something else": (record(), {"blocker": REUSED}, "False", "NameReused", "Stalled"),
    "told": (record(decided(), KNOWN, *letter_facts()), {}, "True", "Registered", None),
    "the notice is scheduled": (record(GAG, decided(), KNOWN), {}, "True", "Registered", None),
    "about to be told": (record(decided(), KNOWN), {}, "False", "NoticePending", "Reconciling"),
    "no way to send it": (
        record(decided(), KNOWN),
        {"waits": "no way to send it is set"},
        "False",
        "NoticePending",
        "Reconciling",
    ),
    "nobody of that key": (record(decided(), NOBODY), {}, "False", "SubjectUnknown", None),
    "nobody of that key, under a gag": (record(GAG, decided(), NOBODY), {}, "False", "SubjectUnknown", None),
    "nobody any more, and the address is kept": (
        record(decided(), NOBODY, AddressKept("le", NOW)),
        {},
        "False",
        "NoticePending",
        "Reconciling",
    ),
    "refused by the mail server": (
        record(decided(), KNOWN, *letter_facts(delivered=False, by="550 no such user")),
        {},
        "False",
        "NoticeUndeliverable",
        "Stalled",
    ),
    "the document is not there": (
        record(decided(LegalOutcome.AWAITING_REVIEW), KNOWN),
        {"document_problem": "Secret order is missing"},
        "False",
        "DocumentMissing",
        None,
    ),
    "the document was there, and is not any more": (
        record(
            decided(LegalOutcome.AWAITING_REVIEW), KNOWN, DocumentSeen("le", NOW, "sha256:a"), *letter_facts()
        ),
        {"document_problem": "Secret order is missing"},
        "False",
        "NoticePending",
        "Reconciling",
    ),
    "its Secret can't be deleted": (
        record(decided(), KNOWN, *letter_facts()),
        {"blocker": MISSING},
        "False",
        "SecretMissing",
        "Reconciling",
    ),
    "told, and the authority waits for its answer": (
        record(decided(), KNOWN, *letter_facts()),
        {"answer_waits": "Secret le-1-answer exists and holds something else"},
        "False",
        "AnswerPending",
        "Reconciling",
    ),
    "told and answered": (
        record(decided(), KNOWN, *letter_facts(), *letter_facts(to=Addressee.AUTHORITY)),
        {"answer_waits": "an old reason"},
        "True",
        "Registered",
        None,
    ),
}


@pytest.mark.parametrize(("known", "more", "status", "reason", "progress"), READY.values(), ids=READY.keys())
def test_ready(
    known: LegalRecord | None, more: dict[str, object], status: str, reason: str, progress: str | None
) -> None:
    conditions = shown(known, **more)  # type: ignore[arg-type]
    assert said(conditions["Ready"]) == (status, reason)
    assert {"Stalled", "Reconciling"} & conditions.keys() == ({progress} if progress else set())
    if progress is not None:
        assert said(conditions[progress]) == ("True", reason)
    assert {"Decided", "UserInformed", "Holding"} <= conditions.keys()


def test_of_a_request_whose_name_was_another_s_nothing_of_the_other_is_shown() -> None:
    other = record(decided(), KNOWN, *letter_facts(), HoldPlaced("le", NOW))
    conditions = shown(other, blocker=REUSED)
    for kind in ("Decided", "UserInformed", "Holding"):
        assert said(conditions[kind]) == ("Unknown", "Pending")


@pytest.mark.parametrize(
    ("facts", "status", "reason"),
    [
        ([], "Unknown", "Pending"),
        ([decided(LegalOutcome.REJECTED)], "True", "Rejected"),
        ([decided(LegalOutcome.AWAITING_REVIEW)], "False", "AwaitingReview"),
        ([decided(LegalOutcome.COMPLIED)], "True", "Complied"),
        ([decided(LegalOutcome.REFUSED)], "True", "Refused"),
    ],
)
def test_decided(facts: list[LegalFact], status: str, reason: str) -> None:
    assert said(shown(record(*facts))["Decided"]) == (status, reason)


@pytest.mark.parametrize(
    ("facts", "status", "reason", "message"),
    [
        ([decided(), KNOWN], "False", "Pending", "about to be sent"),
        ([decided(), KNOWN, *letter_facts()], "True", "Sent", "was told"),
        ([GAG, decided(), KNOWN], "False", "Deferred", "2027-02-21T05:00:00Z"),
        ([replace(GAG, until=None, time_zone=None), decided()], "False", "Deferred", "nonDisclosure.lifted"),
        ([decided(), NOBODY], "False", "Undeliverable", "knows nobody"),
        (
            [decided(), KNOWN, *letter_facts(delivered=False, by="550 gone")],
            "False",
            "Undeliverable",
            "550 gone",
        ),
        ([decided(), KNOWN, *letter_facts(delivered=False)], "False", "Undeliverable", "refused"),
    ],
)
def test_user_informed(facts: list[LegalFact], status: str, reason: str, message: str) -> None:
    condition = shown(record(*facts))["UserInformed"]
    assert said(condition) == (status, reason)
    assert message in condition.message


PLACED = HoldPlaced("le", NOW, ("shop/crm", "shop/site"), NOW + timedelta(days=90))


@pytest.mark.parametrize(
    ("registered", "facts", "status", "reason", "message"),
    [
        (REGISTERED, [], "False", "NoPreservation", "nothing is preserved"),
        (PRESERVATION, [], "False", "Lifted", "before it began"),
        (PRESERVATION, [PLACED, KNOWN], "False", "Placing", "crm, site"),
        (PRESERVATION, [PLACED, HoldTookEffect("le", NOW)], "True", "Preserved", "2027-02-20T10:00:00Z"),
        (
            PRESERVATION,
            [HoldPlaced("le", NOW), HoldTookEffect("le", NOW)],
            "True",
            "Preserved",
            "until a person lifts it",
        ),
        (PRESERVATION, [PLACED, HoldEnded("le", NOW, "the court said so")], "False", "Lifted", "the court"),
    ],
)
def test_holding(
    registered: LegalRegistered, facts: list[LegalFact], status: str, reason: str, message: str
) -> None:
    condition = shown(record(*facts, registered=registered))["Holding"]
    assert said(condition) == (status, reason)
    assert message in condition.message


def test_a_hold_is_not_said_to_be_in_effect_before_it_is() -> None:
    assert shown(record(PLACED, KNOWN, registered=PRESERVATION))["Holding"].status is ConditionStatus.FALSE


def test_what_is_said_of_the_answer() -> None:
    def answered(delivered: bool, channel: str) -> LegalRecord:
        to = Addressee.AUTHORITY
        return record(
            decided(),
            LetterIntended("le", NOW, to, 1, "1@x", LegalOutcome.REJECTED),
            LetterSettled("le", NOW, to, 1, delivered, answer="le-1-answer", channel=channel),
        )

    assert answer_of(record(decided())) is None
    assert answer_of(answered(True, "secret")) == ("Drafted", "le-1-answer", None, None)
    assert answer_of(answered(True, "smtp")) == ("Sent", None, NOW, "1@x")
    assert answer_of(answered(False, "smtp")) == ("Undeliverable", None, None, "1@x")


FACTS = st.sampled_from(
    [
        decided(LegalOutcome.REJECTED),
        decided(LegalOutcome.AWAITING_REVIEW),
        decided(LegalOutcome.COMPLIED),
        GAG,
        replace(GAG, lifted="why"),
        KNOWN,
        NOBODY,
        AddressKept("le", NOW),
        DocumentSeen("le", NOW, "sha256:a"),
        *letter_facts(),
        letter_facts(delivered=False)[1],
        *letter_facts(to=Addressee.AUTHORITY),
        PLACED,
        HoldTookEffect("le", NOW),
        HoldEnded("le", NOW, "why"),
    ]
)
HINDRANCES = st.sampled_from([None, REUSED, MISSING])
WORDS = st.none() | st.just("why")


@given(
    facts=st.lists(FACTS, max_size=10),
    blocker=HINDRANCES,
    later=st.integers(0, 200),
    problems=st.tuples(WORDS, WORDS, WORDS),
)
def test_whatever_is_known_a_request_is_never_stalled_and_worked_on_at_once(
    facts: list[LegalFact],
    blocker: Blocker | None,
    later: int,
    problems: tuple[str | None, str | None, str | None],
) -> None:
    known = record()
    for fact in facts:
        try:
            known = evolve_legal(known, fact)
        except IllegalTransition:
            continue
    document, waits, answer = problems
    at = NOW + timedelta(days=later)
    observed = LegalRequestObservation(known, notice_of(known, at), blocker, document, waits, answer)
    conditions = {one.type: one for one in legalrequest_conditions(observed).conditions}
    progress = {"Stalled", "Reconciling"} & conditions.keys()
    assert len(progress) <= 1
    ready = conditions["Ready"]
    for kind in progress:
        assert conditions[kind].reason == ready.reason
        assert ready.status is not ConditionStatus.TRUE


def test_a_defect_of_lethe_is_said_instead_of_anything_that_may_follow_from_it() -> None:
    defect = Trouble(TroubleReason.INTERNAL_ERROR, "see its log")
    missing = Blocker(BlockReason.SECRET_MISSING, "create it")
    for conditions in (shown(None, trouble=defect, blocker=missing), shown(record(), trouble=defect)):
        assert said(conditions["Ready"]) == ("False", "InternalError")
        assert said(conditions["Reconciling"]) == ("True", "InternalError")
        assert conditions["Ready"].message == "see its log"


def test_a_name_that_is_taken_is_said_whatever_defect_there_is() -> None:
    defect = Trouble(TroubleReason.INTERNAL_ERROR, "see its log")
    conditions = shown(None, trouble=defect, blocker=Blocker(BlockReason.NAME_REUSED, "taken"))
    assert said(conditions["Ready"]) == ("False", "NameReused")
    assert conditions["Ready"].message == "taken"
