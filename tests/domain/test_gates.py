"""What becomes of a pod that several stores select."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.gates import MOST_CHARACTERS, GateState, GateVerdict, for_pod, verdict_of
from lethe.domain.trouble import Trouble, TroubleReason

SAID = st.builds(GateVerdict, st.sampled_from(GateState), st.text(), st.text())
REPLAY = ("Replaying", "the store went back in time")
AWAY = Trouble(TroubleReason.UNREACHABLE, "the server does not answer")


@given(st.lists(SAID, min_size=1))
def test_a_pod_serves_only_if_all_stores_let_it_and_stays_closed_if_one_says_so(
    said: list[GateVerdict],
) -> None:
    states = [one.state for one in said]
    verdict = for_pod(said)
    assert (verdict.state is GateState.OPEN) == all(one is GateState.OPEN for one in states)
    assert (verdict.state is GateState.CLOSED) == (GateState.CLOSED in states)
    assert verdict in said or len(set(said)) > 1
    assert len(verdict.message) <= MOST_CHARACTERS


@given(st.lists(SAID, min_size=1))
def test_the_order_of_stores_changes_nothing_of_what_is_said(said: list[GateVerdict]) -> None:
    assert for_pod(said) == for_pod(reversed(said))


def test_a_closed_pod_says_which_stores_keep_it_out() -> None:
    said = [verdict_of(name, REPLAY, None, seen=True, was_safe=True) for name in ("crm", "site")]
    well = verdict_of("hrm", None, None, seen=True, was_safe=True)
    verdict = for_pod([*said, well])
    assert verdict.reason == "Replaying"
    assert verdict.message.startswith("DataStore crm: the store went back")
    assert "DataStore site: the store went back" in verdict.message
    assert "hrm" not in verdict.message


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("trouble", [AWAY, Trouble(TroubleReason.MAPPING_INVALID, "no such column")])
def test_while_a_store_is_away_what_was_verified_last_counts_only_where_asked_for(
    trouble: Trouble, seen: bool
) -> None:
    assert verdict_of("s", None, trouble, seen=seen, was_safe=False).state is GateState.AS_IT_IS
    assert verdict_of("s", None, trouble, seen=seen, was_safe=True).state is GateState.OPEN
    assert verdict_of("s", REPLAY, trouble, seen=seen, was_safe=True).state is GateState.CLOSED


@pytest.mark.parametrize("reason", [TroubleReason.LEDGER_BEHIND, TroubleReason.LEDGER_ON_SAME_SERVER])
def test_a_ledger_that_went_back_does_not_say_what_was_verified_last(reason: TroubleReason) -> None:
    said = verdict_of("s", None, Trouble(reason, "the ledger went back"), seen=True, was_safe=True)
    assert said.state is GateState.AS_IT_IS
