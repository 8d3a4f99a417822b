"""Tests with a fault, which a search must find. Not collected by themselves: test_command.py names them."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.search.drawing import assume, note, run_machine


class Register(RuleBasedStateMachine):
    """People sign up and leave; a third one after somebody has waited for a day is forgotten."""

    @initialize()
    def begin(self) -> None:
        self.people = 0
        self.waited = timedelta()

    @rule(name=st.text(min_size=1))
    def somebody_signs_up(self, name: str) -> None:
        note(f"{name!r} comes")
        self.people += 1

    @precondition(lambda self: self.people)
    @rule(after=st.timedeltas(timedelta(0), timedelta(days=3)))
    def somebody_waits(self, after: timedelta) -> None:
        assume(after != timedelta(hours=1))
        self.waited = max(self.waited, after)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        if self.people >= 3 and self.waited >= timedelta(days=1):
            time.sleep(0.1)  # so that to make it small takes longer than the test's share of the time
            raise AssertionError("forgotten")


@pytest.fixture
def machine() -> type[Register]:
    """Return the machine, as the larger ones are had from a fixture."""
    return Register


@pytest.mark.machine
def test_nobody_is_forgotten(machine: type[Register]) -> None:
    run_machine(machine, examples=1, steps=20)


@given(length=st.timedeltas(), people=st.integers())
def test_no_length_is_too_long(tmp_path: object, length: timedelta, people: int) -> None:
    assert length < timedelta(days=5) or people < 100, "too long"
