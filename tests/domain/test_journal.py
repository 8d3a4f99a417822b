"""The comparison of a store's head with the ledger, as a table, and what moves and identities promise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.journal import (
    MOST_NAMES,
    Head,
    HeadFinding,
    HeadMove,
    JournalObservation,
    KnownHead,
    StoreIdentity,
    TooMuchToRemember,
    changed_identity,
    compare,
    merged_positions,
    next_move,
    remembered_identity,
)

HERE = StoreIdentity({"system": "1"}, {"users": "10:10"})
SWAPPED = StoreIdentity({"system": "1"}, {"users": "11:11"})
OTHER_SERVER = StoreIdentity({"system": "2"}, {"users": "10:10"})
KNOWN = Head(5, "five")
PENDING = HeadMove("five", 6, "six", 1)
FIRST = HeadMove(None, 1, "one", 1)

TABLE = [
    # known head, pending, the store's head, its identity: what it means
    (None, None, None, HERE, HeadFinding.NEVER_JOURNALED),
    (None, None, Head(1, "one"), HERE, HeadFinding.LEDGER_BEHIND),
    (None, FIRST, None, HERE, HeadFinding.PENDING_LOST),
    (None, FIRST, Head(1, "one"), HERE, HeadFinding.PENDING_COMMITTED),
    (None, FIRST, Head(1, "other"), HERE, HeadFinding.REWOUND),
    (None, FIRST, Head(2, "other"), HERE, HeadFinding.LEDGER_BEHIND),
    (KNOWN, None, KNOWN, HERE, HeadFinding.IN_STEP),
    (KNOWN, None, KNOWN, SWAPPED, HeadFinding.IDENTITY_CHANGED),
    (KNOWN, None, KNOWN, OTHER_SERVER, HeadFinding.IDENTITY_CHANGED),
    (KNOWN, None, None, HERE, HeadFinding.REWOUND),
    (KNOWN, None, Head(4, "four"), HERE, HeadFinding.REWOUND),
    (KNOWN, None, Head(5, "another five"), HERE, HeadFinding.REWOUND),
    (KNOWN, None, Head(6, "six"), HERE, HeadFinding.LEDGER_BEHIND),
    (KNOWN, PENDING, KNOWN, HERE, HeadFinding.PENDING_LOST),
    (KNOWN, PENDING, KNOWN, SWAPPED, HeadFinding.IDENTITY_CHANGED),
    (KNOWN, PENDING, Head(6, "six"), HERE, HeadFinding.PENDING_COMMITTED),
    (KNOWN, PENDING, Head(6, "another six"), HERE, HeadFinding.REWOUND),
    (KNOWN, PENDING, Head(7, "seven"), HERE, HeadFinding.LEDGER_BEHIND),
    (KNOWN, PENDING, Head(4, "four"), HERE, HeadFinding.REWOUND),
    (KNOWN, PENDING, None, HERE, HeadFinding.REWOUND),
]


@pytest.mark.parametrize(("head", "pending", "seen", "identity", "finding"), TABLE)
def test_what_a_stores_head_tells(
    head: Head | None,
    pending: HeadMove | None,
    seen: Head | None,
    identity: StoreIdentity,
    finding: HeadFinding,
) -> None:
    known = KnownHead(head, pending, identity=HERE if head else None)
    assert compare(known, JournalObservation(seen, identity)) is finding


NAMES = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["1", "2"]), max_size=4)
IDENTITIES = st.builds(StoreIdentity, NAMES, NAMES)


@given(IDENTITIES, IDENTITIES, IDENTITIES)
def test_a_table_that_is_gone_for_a_while_and_comes_back_as_another_one_is_noticed(
    known: StoreIdentity, between: StoreIdentity, after: StoreIdentity
) -> None:
    remembered = remembered_identity(known, between)
    for name, text in known.tables.items():
        if name not in between.tables and after.tables.get(name, text) != text:
            assert changed_identity(remembered, after)
    assert not changed_identity(remembered, between)
    assert remembered_identity(None, after) == after


@given(st.integers(0, 99), st.integers(0, 99), st.binary(min_size=16, max_size=16))
def test_a_move_is_numbered_above_all_that_either_side_knows(stood: int, known: int, nonce: bytes) -> None:
    move = next_move(Head(stood, "d"), after_move=known, token=1, nonce=nonce)
    assert move.move == max(stood, known) + 1
    assert move.expected == "d"
    other = next_move(Head(stood, "d"), after_move=known, token=1, nonce=nonce + b"x")
    assert other.digest != move.digest, "a rewound head that moves again never repeats a digest"
    assert next_move(None, after_move=known, token=1, nonce=nonce).expected is None


POSITIONS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9))


@given(POSITIONS, POSITIONS)
def test_positions_only_ever_grow(one: dict[str, int], other: dict[str, int]) -> None:
    merged = merged_positions(one, other)
    assert merged == merged_positions(other, one)
    assert all(merged[name] >= position for each in (one, other) for name, position in each.items())
    assert merged_positions(merged, one) == merged


def test_a_store_that_shows_other_names_each_time_is_not_remembered_for_ever() -> None:
    many = {f"table:t{number}": number for number in range(MOST_NAMES)}
    assert merged_positions(many, {"table:t0": 7}) == many | {"table:t0": 7}
    with pytest.raises(TooMuchToRemember):
        merged_positions(many, {"table:other": 1})
    identity = StoreIdentity(tables=dict.fromkeys(many, "1:2"))
    assert remembered_identity(identity, identity) == identity
    with pytest.raises(TooMuchToRemember):
        remembered_identity(identity, StoreIdentity(tables={"public.other": "1:2"}))
