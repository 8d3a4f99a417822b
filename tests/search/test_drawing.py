"""The examples of `make test` are the same each time, and a failing machine's steps can be replayed."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.search.drawing import assume, note, run_machine


class Remembering(RuleBasedStateMachine):
    """Keeps all that was drawn."""

    drawn: ClassVar[list[int]]

    @rule(number=st.integers())
    def something_is_drawn(self, number: int) -> None:
        assume(number != 7)
        note(f"drew {number}")
        self.drawn.append(number)


def test_a_machine_takes_the_same_steps_each_time() -> None:
    runs = []
    for _ in range(2):
        Remembering.drawn = []
        run_machine(Remembering, examples=5, steps=4)
        runs.append(Remembering.drawn)
    assert runs[0] == runs[1]
    assert len(runs[0]) >= 20


def test_a_property_draws_the_same_examples_each_time() -> None:
    drawn: list[int] = []

    @given(st.integers())
    def draw(number: int) -> None:
        drawn.append(number)

    draw()
    first, drawn = drawn, []
    draw()
    assert drawn == first


def test_no_example_is_too_slow_and_none_is_kept_for_another_run() -> None:
    assert settings().deadline is None
    assert settings().database is None


def test_the_steps_of_a_machine_can_be_replayed_by_a_plain_test() -> None:
    Remembering.drawn = []
    state = Remembering()
    state.something_is_drawn(number=3)
    state.teardown()
    assert Remembering.drawn == [3]


def test_a_replayed_step_that_its_machine_would_not_take_is_refused() -> None:
    state = Remembering()
    with pytest.raises(AssertionError, match="would not take this step"):
        state.something_is_drawn(number=7)
