"""What tests that draw examples share: how many, state machines, and notes that survive as code.

`make test` draws the same few each time, `make search` others for as long as it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import hypothesis
from hypothesis import HealthCheck, Phase, currently_in_test_context, settings
from hypothesis.stateful import RuleBasedStateMachine, get_state_machine_test

InnerTest = Callable[..., None]


class Bound:
    """What a search lays around each example of the test that runs; nothing by default."""

    around: Callable[[InnerTest], InnerTest] | None = None


def examples(count: int) -> settings:
    """Return how many examples a test draws that would take too long for the usual hundred.

    In a search its time decides instead.
    """
    return settings() if _searching() else settings(max_examples=count)


def run_machine(
    machine: type[RuleBasedStateMachine], *, examples: int, steps: int, shrink: bool = False
) -> None:
    """Run a state machine as a test, `steps` rules in each of the `examples`.

    Without `shrink`, what fails is told as it was met, which in a test of seconds per example is soon;
    `make search` always makes it smaller.
    """
    phases = list(Phase) if shrink else [Phase.explicit, Phase.generate]
    sizes = settings(stateful_step_count=steps, suppress_health_check=list(HealthCheck))
    if not _searching():
        sizes = settings(sizes, max_examples=examples, phases=phases)
    test: Any = get_state_machine_test(machine, settings=sizes)
    if Bound.around is not None:
        test.hypothesis.inner_test = Bound.around(test.hypothesis.inner_test)
    test()


def note(text: str) -> None:
    """Tell something beside the steps of a failing machine, as a comment; in a plain test nothing."""
    if currently_in_test_context():
        hypothesis.note("\n".join(f"# {line}" for line in text.splitlines()))


def assume(condition: object) -> Literal[True]:
    """Give an example up unless a condition holds; where steps are replayed it has to hold."""
    if currently_in_test_context():
        return hypothesis.assume(condition)
    assert condition, "the machine would not take this step here"
    return True


def _searching() -> bool:
    return settings.get_current_profile_name() == "search"
