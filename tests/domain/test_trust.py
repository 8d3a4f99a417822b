"""Whom to believe: found records, keys after restores, endings, and whose a row is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.facts import Accepted, DetectedBy, Outcome
from lethe.domain.identifiers import NotAnEmailAddress, PersonalText, email_identifier
from lethe.domain.requests import RequestRecord, StoreProgress, StoreState
from lethe.domain.restores import RestoreEpisode
from lethe.domain.tombstones import (
    Fingerprints,
    Identity,
    SeenRecord,
    Tombstone,
    match_restored_rows,
    match_unchanged_rows,
)
from lethe.domain.trust import (
    EARLIER_ERASURE,
    Blocker,
    BlockReason,
    RecordTrait,
    blocker_of_found,
    blocker_of_key,
    ending_of,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _restored(
    at: datetime, position: int | None, *, safe_at: datetime | None = None, superseded: bool = False
) -> RestoreEpisode:
    positions = {} if position is None else {"table:public.users": position}
    by = "the next" if superseded else None
    return RestoreEpisode(
        *("s", f"e-{at}", at, DetectedBy.JOURNAL, positions), safe_at=safe_at, superseded_by=by
    )


BEFORE = NOW - HOUR / 2
"""When a restore of before had been dealt with."""


@pytest.mark.parametrize(
    ("key", "episodes", "waits"),
    [
        ("11", [], False),
        ("11", [_restored(NOW - HOUR, 10, safe_at=BEFORE)], False),
        ("11", [_restored(NOW - HOUR, 10)], True),
        ("10", [_restored(NOW - HOUR, 10)], False),
        ("11", [_restored(NOW - HOUR, 10, safe_at=NOW + HOUR)], True),
        ("11", [_restored(NOW - HOUR, 10, superseded=True), _restored(BEFORE, 12, safe_at=NOW)], False),
        ("11", [_restored(NOW - HOUR, 10, superseded=True), _restored(NOW + HOUR, 12)], True),
        ("11", [_restored(NOW + HOUR, 10)], True),
        ("10", [_restored(NOW + HOUR, 10)], False),
        ("1", [_restored(NOW + HOUR, None)], True),
        ("11", [_restored(NOW - HOUR, 10, safe_at=BEFORE), _restored(NOW + HOUR, 12)], True),
        ("9", [_restored(NOW - HOUR, 10, safe_at=BEFORE), _restored(NOW + HOUR, 12)], False),
        ("a-uuid", [_restored(NOW + HOUR, None)], False),
        (None, [_restored(NOW + HOUR, 0)], False),
    ],
)
def test_a_key_waits_for_a_person_where_a_restore_may_have_given_it_out_again(
    key: str | None, episodes: list[RestoreEpisode], waits: bool
) -> None:
    for table in ("users", "public.users"):
        blocker = blocker_of_key(key, NOW, episodes, table=table, confirmed=())
        assert (blocker is not None) is waits
        if blocker is not None:
            assert blocker.reason is BlockReason.KEY_ABOVE_RESTORE
        assert blocker_of_key(key, NOW, episodes, table=table, confirmed=["KeyAboveRestore"]) is None


def _stopped(
    records: list[RecordTrait], *confirmed: str, too_many: bool = False, one_owner: bool = False
) -> Blocker | None:
    return blocker_of_found(
        records, too_many=too_many, max_records=5, one_owner=one_owner, confirmed=confirmed, store="site"
    )


def test_more_records_than_one_person_has_stop_and_so_does_one_that_is_shared() -> None:
    many = [RecordTrait("users", str(n), by_key=True, shared=False) for n in range(5)]
    stopped = _stopped(many, too_many=True)
    assert stopped is not None
    assert stopped.reason is BlockReason.FIND_UNTRUSTED
    assert _stopped(many, "TooManyRecords") is None
    assert _stopped(many) is None
    shared = [RecordTrait("party", "7", by_key=False, shared=True)]
    for stopped in (_stopped(shared, "TooManyRecords"), _stopped(shared, one_owner=True)):
        assert stopped is not None
        assert stopped.reason is BlockReason.SHARED_RECORD
    assert _stopped(shared, "SharedRecord") is None


def test_several_records_of_one_address_ask_a_person_and_are_named_by_key() -> None:
    family = [RecordTrait("users", str(n), by_key=False, shared=False) for n in (11, 12, 13)]
    linked = RecordTrait("users", "14", by_key=True, shared=False)
    for records in (family, [linked, family[0]]):
        stopped = _stopped(records)
        assert stopped is not None
        assert stopped.reason is BlockReason.SHARED_RECORD
        assert "users " + ", ".join(one.key for one in records) in stopped.message
        assert _stopped(records, "SharedRecord") is None
        assert _stopped(records, "TooManyRecords") is None
        assert _stopped(records, one_owner=True) is None
    assert _stopped(family[:1]) is None
    assert _stopped([linked, linked]) is None
    stopped = _stopped([RecordTrait("users", f"{n:030}", by_key=False, shared=False) for n in range(900)])
    assert stopped is not None
    assert "900 records" in stopped.message
    assert len(stopped.message) < 500, "a status cuts it there"


STATES = st.sampled_from(StoreState)


@given(st.dictionaries(st.sampled_from("abc"), STATES, max_size=3), st.booleans(), st.booleans())
def test_nothing_is_called_erased_before_every_store_settled_and_somebody_was_found(
    states: dict[str, StoreState], confirmed: bool, has_primary: bool
) -> None:
    accepted = Accepted("r", "ns", "n", "d", NOW, NOW, NOW)
    progress = {name: StoreProgress(state, proof="canary") for name, state in states.items()}
    answers = frozenset({"NothingFound"}) if confirmed else frozenset[str]()
    record = RequestRecord(accepted, stores=progress, confirmed=answers)
    ending = ending_of(record, ["a", "z"], has_primary=has_primary)
    settled = all(record.progress(name).state.settled for name in {*states, "a", "z"})
    if ending.outcome is not None:
        assert settled
        assert has_primary
        assert confirmed or StoreState.VERIFIED in states.values()
    elif settled:
        assert ending.blocker is not None
    else:
        assert ending.waits_for


def test_a_person_whom_an_earlier_request_erased_is_erased_and_an_unknown_one_is_not() -> None:
    accepted = Accepted("r", "ns", "n", "d", NOW, NOW, NOW)

    def outcome(proof: str) -> Outcome | None:
        stores = {"a": StoreProgress(StoreState.NOT_FOUND, proof=proof)}
        return ending_of(RequestRecord(accepted, stores=stores), ["a"], has_primary=True).outcome

    assert outcome(EARLIER_ERASURE) is Outcome.ERASED
    assert outcome("canary") is None


FINGERPRINTS = Fingerprints(
    created_at=lambda text: b"c" + text.encode(), email=lambda text: b"e" + text.encode()
)
TEXTS = st.none() | st.sampled_from(["1", "2"])


SAID = st.none() | st.sampled_from([Identity.SAME, Identity.OTHER])


@given(TEXTS, TEXTS, TEXTS, TEXTS, SAID, st.booleans())
def test_a_row_is_touched_only_if_created_at_or_email_or_a_person_says_so(
    created: str | None,
    email: str | None,
    now_created: str | None,
    now_email: str | None,
    said: Identity | None,
    again: bool,
) -> None:
    tombstone = Tombstone(
        *(1, "r", "users", "7", "v"),
        created_at=None if created is None else FINGERPRINTS.created_at(created),
        email=None if email is None else FINGERPRINTS.email(email),
    )
    seen = SeenRecord("7", now_created, None if now_email is None else PersonalText(now_email))
    judge = match_restored_rows(FINGERPRINTS, lambda table, key: said, lambda table, key: again)
    verdict = judge([(tombstone, seen)])[0]
    alike = email is not None and email == now_email
    if created is not None and now_created is not None:
        if created == now_created:
            assert verdict is Identity.SAME
        elif not alike:
            assert verdict is Identity.OTHER
        else:
            assert verdict is (said or (Identity.OTHER if again else Identity.UNCLEAR))
        assert bool(judge.same_address) is (created != now_created and alike and verdict is Identity.OTHER)
    elif email is not None and email == now_email:
        assert verdict is Identity.SAME
    else:
        assert verdict is (said or Identity.UNCLEAR)
    first = match_unchanged_rows(FINGERPRINTS)([(tombstone, seen)])[0]
    if first is Identity.SAME:
        assert now_created == created
        assert created is not None or now_email == email
    else:
        assert first is Identity.UNCLEAR


@pytest.mark.parametrize(
    "text", ["", "a", "@", "a@", "@b", "a b@c", "a@b, c@d", "a@b\nc@d", "a@b@c", "a" * 320 + "@b"]
)
def test_what_is_not_one_address_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(NotAnEmailAddress) as refused:
        email_identifier(text)
    assert not text or text not in str(refused.value) or len(text) == 1


def test_personal_text_never_shows_itself_by_accident() -> None:
    personal = email_identifier("ada@canary.example")
    assert "canary" not in f"{personal!r} {personal.value} {personal.value!r} {personal}"
