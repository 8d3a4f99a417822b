"""What a RestoreEvent says of itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal, get_args

import pytest

from lethe.domain.conditions.datastore import datastore_conditions
from lethe.domain.conditions.restoreevent import restoreevent_conditions
from lethe.domain.facts import DetectedBy
from lethe.domain.restores import RestoreEpisode
from tests.domain.conditions.reading import sound_statuses
from tests.gitops.states import SIGHT

NOW = datetime(2026, 3, 1, tzinfo=UTC)
Shown = Literal["Waiting", "Replaying", "IdentityUnclear", "AwaitingRelease", "MappingDoesNotFit"]


@pytest.mark.parametrize("reason", ["Undeclared", "Drill", "NaturalDisaster"])
@pytest.mark.parametrize("shown", [None, *get_args(Shown)])
@pytest.mark.parametrize(
    "state",
    ["unseen", "expired", "expected", "expected no more", "open", "safe", "released", "released, 0 left"],
)
def test_a_restore_is_safe_only_when_it_has_ended(reason: str, shown: Shown | None, state: str) -> None:
    episode = None
    if state in ("open", "safe", "released", "released, 0 left"):
        safe_at = None if state == "open" else NOW
        because = "we looked" if "released" in state else None
        episode = RestoreEpisode(
            *("s", "e", NOW, DetectedBy.JOURNAL),
            safe_at=safe_at,
            released_because=because,
            left=0 if state == "released, 0 left" else None,
        )
    replay = (shown, "why") if shown and state == "open" else None
    conditions = restoreevent_conditions(
        episode,
        reason=reason,
        replay=replay,
        expired=state == "expired",
        expected=("why", state == "expected no more") if "expected" in state else None,
    )
    seen = sound_statuses(conditions)
    assert (seen["SafeToServe"] == "True") is (state in ("safe", "released, 0 left"))
    assert (seen["Permitted"] == "True") is (reason != "Undeclared")


@pytest.mark.parametrize("open_", [None, True, False])
def test_a_restore_under_way_is_safe_to_serve_whatever_was_found_before_it_in_no_case(
    open_: bool | None,
) -> None:
    found = RestoreEpisode("s", "e", NOW, DetectedBy.JOURNAL, safe_at=None if open_ else NOW)
    conditions = restoreevent_conditions(
        None if open_ is None else found, reason="Drill", replay=None, underway="has let go"
    )
    assert sound_statuses(conditions)["SafeToServe"] == "False"
    assert (conditions.state, conditions.ready.message) == ("Underway", "has let go")


@pytest.mark.parametrize(("by", "re_erased"), [(by, count) for by in DetectedBy for count in (0, 3)])
def test_that_nothing_came_back_is_said_only_of_a_mere_word(by: DetectedBy, re_erased: int) -> None:
    said = restoreevent_conditions(
        RestoreEpisode("s", "e", NOW, by, safe_at=NOW, re_erased=re_erased), reason="Drill", replay=None
    )
    assert (said.state == "NothingCameBack") is (by is DetectedBy.DECLARATION and not re_erased)
    assert sound_statuses(said)["SafeToServe"] == "True"


@pytest.mark.parametrize("left", [None, 0, 1, 300])
def test_what_a_person_released_is_never_called_verified(left: int | None) -> None:
    episode = RestoreEpisode(
        *("s", "e", NOW, DetectedBy.JOURNAL),
        safe_at=NOW,
        released_because="the shop has to open",
        released_by="incident-42",
        left=left,
    )
    said = restoreevent_conditions(episode, reason="Drill", replay=None).conditions
    of_store = datastore_conditions(replace(SIGHT, release=episode)).conditions
    for one in (*said, *of_store):
        if one.type in ("Replayed", "SafeToServe"):
            assert one.reason == "Released"
            assert (one.status == "True") is (left == 0)
            assert "incident-42" in one.message
            assert "the shop has to open" in one.message
            assert left is None or left == 0 or f"{left} erased persons" in one.message
