"""Which snapshots die now, which are held, and what keeps the others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lethe.domain.periods import Period
from lethe.domain.pruning import PruneBlock, PruneRules, RetentionHold, prune_plan
from lethe.domain.snapshots import SnapshotRecord

NOW = datetime(2027, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SIX_MONTHS = Period(6, 0)
RULES = PruneRules(SIX_MONTHS, hold_last=False)


def snapshot(ref: str, taken_at: datetime = NOW - 300 * DAY, **more: object) -> SnapshotRecord:
    return SnapshotRecord("shop/nightly", ref, ("shop/site",), NOW, taken_at, pieces=("v1",), **more)  # type: ignore[arg-type]


OLD = [snapshot(f"old-{n}") for n in range(4)]
FRESH = snapshot("fresh", NOW - DAY)


def refs(snapshots: tuple[SnapshotRecord, ...]) -> list[str]:
    return [one.ref for one in snapshots]


def test_what_is_past_its_time_goes_the_one_that_expired_first_before_the_others() -> None:
    older = snapshot("z", NOW - 400 * DAY)
    plan = prune_plan([FRESH, OLD[1], OLD[0], older], RULES, now=NOW)
    assert (refs(plan.to_delete), plan.due, plan.waits) == (["z", "old-0", "old-1"], 3, None)
    assert plan.next == (older, older.expires_at(SIX_MONTHS))


@given(st.lists(st.integers(-400, 10), max_size=9), st.integers(0, 400), st.booleans())
def test_nothing_goes_before_its_expiry_and_everything_else_goes_held_or_waits(
    days: list[int], later: int, hold_last: bool
) -> None:
    snapshots = [snapshot(f"{n}", NOW + day * DAY) for n, day in enumerate(days)]
    now = NOW + later * DAY
    plan = prune_plan(snapshots, PruneRules(SIX_MONTHS, hold_last), now=now)
    due = {one.ref for one in snapshots if one.expires_at(SIX_MONTHS) <= now}
    held = set(plan.held or {})
    assert set(refs(plan.to_delete)) | held == due
    assert not set(refs(plan.to_delete)) & held
    assert len(held) == (1 if hold_last and due and len(due) == len(snapshots) else 0)


def test_what_was_purged_is_no_snapshot_any_more() -> None:
    purged = snapshot("gone", purged_at=NOW)
    plan = prune_plan([purged, OLD[0]], PruneRules(SIX_MONTHS), now=NOW)
    assert (plan.to_delete, plan.held) == ((), {"old-0": RetentionHold.LAST_SNAPSHOT})


@pytest.mark.parametrize("gone", [{"vanished_at": NOW}, {"deleted_at": NOW}], ids=["vanished", "deleted"])
def test_what_is_not_there_is_not_the_only_snapshot_left(gone: dict[str, datetime]) -> None:
    newest = snapshot("newest", NOW - 200 * DAY, **gone)
    plan = prune_plan([newest, OLD[0]], PruneRules(SIX_MONTHS), now=NOW)
    assert (refs(plan.to_delete), plan.held) == (["newest"], {"old-0": RetentionHold.LAST_SNAPSHOT})


def test_a_legal_hold_beats_expiry_and_counts_as_a_snapshot_that_is_left() -> None:
    held = snapshot("held", NOW - 200 * DAY)
    both = SnapshotRecord("s", "both", ("shop/crm", "shop/site"), NOW, NOW - 300 * DAY, pieces=("v",))
    crm = SnapshotRecord("s", "crm", ("shop/crm",), NOW, NOW - 300 * DAY, pieces=("v",))
    plan = prune_plan(
        [held, both, crm],
        PruneRules(SIX_MONTHS),
        now=NOW,
        held_stores={"shop/site": RetentionHold.LEGAL_HOLD},
    )
    assert plan.held == {"held": RetentionHold.LEGAL_HOLD, "both": RetentionHold.LEGAL_HOLD}
    assert refs(plan.to_delete) == ["crm"]


@pytest.mark.parametrize(
    ("due", "confirmed", "goes"),
    [(2, None, True), (3, None, False), (3, 2, False), (3, 3, True), (3, 9, True)],
)
def test_more_than_allowed_at_once_needs_a_number_that_covers_it(
    due: int, confirmed: int | None, goes: bool
) -> None:
    rules = PruneRules(SIX_MONTHS, False, most_per_run=2, confirmed=confirmed)
    plan = prune_plan([*OLD[:due], FRESH], rules, now=NOW)
    assert plan.due == due
    assert len(plan.to_delete) == (due if goes else 0)
    assert plan.waits is (None if goes else PruneBlock.AWAITING_CONFIRMATION)


def test_what_was_let_go_before_and_what_only_has_to_be_proven_gone_needs_no_consent() -> None:
    intended = [snapshot(f"intended-{n}", intended_at=NOW) for n in range(5)]
    vanished = [snapshot(f"vanished-{n}", vanished_at=NOW) for n in range(5)]
    plan = prune_plan([*intended, *vanished], PruneRules(SIX_MONTHS, False, most_per_run=0), now=NOW)
    assert (len(plan.to_delete), plan.due, plan.waits) == (10, 0, None)


def test_the_number_that_is_asked_for_was_not_used_up_before() -> None:
    rules = PruneRules(SIX_MONTHS, False, most_per_run=1, used_confirmations=frozenset({4, 5, 7}))
    plan = prune_plan(OLD, rules, now=NOW)
    assert plan.message.endswith("set spec.confirmPrunes to 6")


@pytest.mark.parametrize(
    ("rules", "disagree", "reason"),
    [
        (PruneRules(SIX_MONTHS, False, too_long=True, suspended=True), "x", PruneBlock.RETENTION_TOO_LONG),
        (PruneRules(SIX_MONTHS, False, suspended=True), "x", PruneBlock.SUSPENDED),
        (PruneRules(SIX_MONTHS, False, most_per_run=1), "x", PruneBlock.CLOCKS_DISAGREE),
    ],
)
def test_while_something_waits_nothing_goes_and_what_goes_next_is_told(
    rules: PruneRules, disagree: str, reason: PruneBlock
) -> None:
    plan = prune_plan([*OLD, FRESH], rules, now=NOW, clocks_disagree=disagree)
    assert (plan.to_delete, plan.waits, plan.due) == ((), reason, 4)
    assert plan.next == (OLD[0], OLD[0].expires_at(SIX_MONTHS))


def test_a_source_waits_also_when_nothing_is_due_except_for_a_confirmation() -> None:
    assert prune_plan([FRESH], RULES, now=NOW, clocks_disagree="x").waits is PruneBlock.CLOCKS_DISAGREE
    assert prune_plan([FRESH], PruneRules(SIX_MONTHS, most_per_run=0), now=NOW).waits is None
