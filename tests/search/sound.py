"""Tests without a fault, on which a search must end by its time. Not collected by themselves either."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.search.drawing import run_machine


class Counter(RuleBasedStateMachine):
    """Counts."""

    @initialize()
    def begin(self) -> None:
        self.sum = 0

    @rule(number=st.integers(min_value=1))
    def one_more(self, number: int) -> None:
        before, self.sum = self.sum, self.sum + number
        assert self.sum > before


@pytest.mark.machine
def test_it_counts() -> None:
    run_machine(Counter, examples=1, steps=20)


@given(number=st.integers())
def test_a_number_is_itself(number: int) -> None:
    assert number == int(str(number))


@given(true=st.booleans())
def test_what_is_drawn_completely_leaves_its_time_to_others(true: bool) -> None:
    assert true in {True, False}


def test_a_plain_test_is_not_run() -> None:
    raise AssertionError("a search runs what draws, and nothing else")
