"""Every kind of restore of a real PostgreSQL: all are erased again before the gate opens, and nobody else.

The kinds are in `devtools/restores.py`, the story and its people in `bench/restores.py`.
"""

from __future__ import annotations

import pytest

from bench.restores import Rehearsed, rehearse
from devtools.restores import KINDS
from devtools.servers.postgres import PostgresServer


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, id=kind.name, marks=[pytest.mark.stage2] if kind.tool else []) for kind in KINDS
    ],
)
def rehearsed(
    request: pytest.FixtureRequest, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Rehearsed:
    """What became of a restore of each kind."""
    try:
        return rehearse(request.param, postgres, tmp_path_factory.mktemp("restored"))
    except SystemExit as missing:
        pytest.skip(str(missing))


def test_everybody_is_erased_again_and_nobody_else(rehearsed: Rehearsed) -> None:
    assert rehearsed.missed == ()
    assert rehearsed.wrong == ()
    assert rehearsed.erased_again == len(rehearsed.kind.back) * rehearsed.kind.times


def test_the_next_look_sees_a_restore_and_the_gate_stays_closed_until_all_are_erased(
    rehearsed: Rehearsed,
) -> None:
    assert rehearsed.detected_after <= 1
    assert rehearsed.exposed == 0, "the gate was open while an erased person stood in the store"
    assert rehearsed.reopened <= rehearsed.kind.times - 1, "it opened before the restore had ended"


def test_a_replay_begins_at_most_two_looks_after_the_last_write(rehearsed: Rehearsed) -> None:
    assert rehearsed.replayed_after <= 2


def test_the_gate_opens_at_most_two_looks_after_the_replay(rehearsed: Rehearsed) -> None:
    assert rehearsed.opened_after_replay <= 2
