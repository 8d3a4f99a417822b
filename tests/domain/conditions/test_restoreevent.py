"""What a RestoreEvent says of itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, get_args

import pytest

from lethe.domain.conditions.restoreevent import restoreevent_conditions
from lethe.domain.facts import DetectedBy
from lethe.domain.restores import RestoreEpisode
from tests.domain.conditions.reading import sound_statuses

NOW = datetime(2026, 3, 1, tzinfo=UTC)
Shown = Literal["Waiting", "Replaying", "IdentityUnclear", "AwaitingRelease", "MappingDoesNotFit"]


@pytest.mark.parametrize("reason", ["Undeclared", "Drill", "NaturalDisaster"])
@pytest.mark.parametrize("shown", [None, *get_args(Shown)])
@pytest.mark.parametrize("state", ["unseen", "open", "safe", "released"])
def test_a_restore_is_safe_only_when_it_has_ended(reason: str, shown: Shown | None, state: str) -> None:
    episode = None
    if state != "unseen":
        safe_at = None if state == "open" else NOW
        because = "we looked" if state == "released" else None
        episode = RestoreEpisode(
            *("s", "e", NOW, DetectedBy.JOURNAL), safe_at=safe_at, released_because=because
        )
    replay = (shown, "why") if shown and state == "open" else None
    seen = sound_statuses(restoreevent_conditions(episode, reason=reason, replay=replay))
    assert (seen["SafeToServe"] == "True") is (state in ("safe", "released"))
    assert (seen["Permitted"] == "True") is (reason != "Undeclared")
