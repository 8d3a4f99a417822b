"""What every ledger must do about backups; a part of `LedgerContract`, whose fixtures it uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, text

from lethe.adapters.ledger.ledger import SqlLedger
from lethe.domain.facts import (
    Completed,
    CopiesGone,
    DetectedBy,
    Fact,
    FoundAgain,
    ListedSnapshot,
    NotAsked,
    NotFound,
    Outcome,
    PruneIntended,
    PrunesConfirmed,
    Reerased,
    Rejoined,
    RestoreDetected,
    RewriteIntended,
    SnapshotDeclared,
    SnapshotFact,
    SnapshotRewritten,
    SnapshotsDeleted,
    SnapshotsPurged,
    SnapshotsSeen,
    SnapshotsVanished,
    SourceDescribed,
    SourceSucceeded,
    TombstonesExpired,
    Verified,
)
from lethe.domain.requests import IllegalTransition, RequestRecord, StoreState
from lethe.domain.snapshots import (
    NO_BACKUPS,
    UNKNOWN_START,
    CopiesLeft,
    CopyStep,
    SnapshotRecord,
    SourceRecord,
    evolve_snapshots,
    succeeded,
)
from lethe.ports.ledger import Fenced, Ledger
from tests.contracts.ledger_facts import NOW, Clock, accepted, erased, intended, tombstone

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
GONE = NOW + 180 * DAY
DECEMBER = datetime(2026, 12, 10, tzinfo=UTC)
JUNE, AUGUST = datetime(2027, 6, 10, tzinfo=UTC), datetime(2027, 8, 10, tzinfo=UTC)


def done(
    request: str, *numbers: int, at: datetime = NOW, store: str = "site", stores: Sequence[str] = ("site",)
) -> list[Fact]:
    """Return the facts of a request that erased these records in one store, and ended."""
    return [
        accepted(request, stores=tuple(stores)),
        intended(request, *numbers, store=store),
        Verified(request, store, at),
        Completed(request, at, Outcome.ERASED),
    ]


def seen(ref: str, *, at: datetime = NOW, source: str = "shop/nightly", pieces: str = "v1") -> SnapshotsSeen:
    return SnapshotsSeen(source, at, ("site",), (ListedSnapshot(ref, (pieces,), at - DAY, (at - HOUR,), 12),))


def purge(ledger: Ledger, *requests: str, at: datetime = NOW) -> None:
    """See to it that no backup holds these people any more."""
    for store in ledger.cleared_stores():
        ledger.grade(store, NO_BACKUPS)
    ledger.append([CopiesGone(at, requests)])


class BackupsInLedgerContract:
    """What the ledger knows of backups."""

    # Sources and snapshots

    def test_a_source_is_what_was_said_of_it_last(self, ledger: Ledger, opened: Callable[[], Ledger]) -> None:
        ledger.append([SourceDescribed("shop/nightly", ("site",), "P6M")])
        ledger.append([PrunesConfirmed("shop/nightly", NOW, 40), PrunesConfirmed("shop/nightly", NOW, 41)])
        ledger.append([SourceDescribed("shop/nightly", ("site", "crm"), "P3M", 60.0)])
        ledger.append([SourceDescribed("shop/weekly", ("site",), "P1M")])
        assert (
            ledger.sources()
            == opened().sources()
            == {
                "shop/nightly": SourceRecord(
                    "shop/nightly", ("site", "crm"), "P3M", 60.0, frozenset({40, 41})
                ),
                "shop/weekly": SourceRecord("shop/weekly", ("site",), "P1M"),
            }
        )

    def test_snapshots_are_what_the_domain_makes_of_their_facts(
        self, ledger: Ledger, opened: Callable[[], Ledger]
    ) -> None:
        appends: list[list[SnapshotFact]] = [
            [seen("a"), seen("b"), SnapshotDeclared("shop/nightly", "c", NOW, NOW - 9 * DAY, ("site",))],
            [seen("a", at=NOW + DAY, pieces="v2"), seen("d", at=NOW + DAY)],
            [SnapshotsVanished("shop/nightly", NOW + DAY, ("b", "unknown"))],
            [PruneIntended("shop/nightly", NOW + DAY, ("a", "d"))],
            [SnapshotsDeleted("shop/nightly", NOW + DAY, ("a",)), seen("b", at=NOW + 2 * DAY)],
            [SnapshotsPurged("shop/nightly", NOW + DAY, ("a",)), seen("e", source="shop/weekly")],
            [SnapshotDeclared("shop/nightly", "d", NOW, NOW, ("crm",))],
        ]
        model: dict[tuple[str, str], SnapshotRecord] = {}
        for facts in appends:
            ledger.append(facts)
            for fact in facts:
                known = {ref: record for (source, ref), record in model.items() if source == fact.source}
                changed = evolve_snapshots(known, fact)
                model |= {(fact.source, ref): record for ref, record in changed.items()}
        expected = [model[at] for at in sorted(model)]
        assert len(expected) == 5
        assert list(ledger.snapshots()) == list(opened().snapshots()) == expected
        assert list(ledger.snapshots("shop/nightly")) == expected[:4]
        assert list(ledger.snapshots("shop/unknown")) == []

    def test_a_source_that_succeeds_another_knows_its_snapshots_and_that_one_none(
        self, ledger: Ledger, opened: Callable[[], Ledger]
    ) -> None:
        ledger.append([seen("a"), seen("b"), seen("c", source="shop/other")])
        ledger.append([SnapshotsPurged("shop/nightly", NOW, ("b",)), seen("a", source="shop/weekly")])
        before = {one.ref: one for one in ledger.snapshots("shop/nightly")}
        mine = ledger.snapshots("shop/weekly")[0]
        ledger.append(
            [
                seen("d"),
                SourceSucceeded("shop/weekly", "shop/nightly", NOW),
                SnapshotsVanished("shop/weekly", NOW, ("d",)),
            ]
        )
        assert list(ledger.snapshots("shop/nightly")) == []
        known = {one.ref: one for one in ledger.snapshots("shop/weekly")}
        assert list(known) == ["a", "b", "d"]
        assert known["a"] == succeeded(before["a"], mine, "shop/weekly")
        assert known["b"] == replace(before["b"], source="shop/weekly")
        assert known["d"].vanished_at == NOW
        assert list(opened().snapshots()) == [ledger.snapshots("shop/other")[0], *known.values()]

    def test_ten_thousand_snapshots_of_one_listing_are_one_fact(self, ledger: Ledger) -> None:
        listed = tuple(ListedSnapshot(f"dump-{n}", (f"v{n}",), NOW - n * HOUR) for n in range(10_001))
        ledger.append([SnapshotsSeen("shop/nightly", NOW, ("site",), listed)])
        ledger.append([PruneIntended("shop/nightly", NOW, tuple(one.ref for one in listed[:6_000]))])
        known = {one.ref: one for one in ledger.snapshots("shop/nightly")}
        assert len(known) == 10_001
        assert sum(one.intended_at == NOW for one in known.values()) == 6_000
        assert ledger.verify().sequence == 3

    def test_what_was_purged_long_ago_is_dropped_from_memory_and_nothing_else(self, ledger: Ledger) -> None:
        ledger.append([seen("a"), seen("b"), seen("c")])
        ledger.append([SnapshotsPurged("shop/nightly", NOW, ("a",))])
        ledger.append([SnapshotsPurged("shop/nightly", NOW + DAY, ("b",))])
        assert ledger.forget_purged(NOW) == 0
        assert ledger.forget_purged(NOW + DAY) == 1
        assert [one.ref for one in ledger.snapshots()] == ["b", "c"]
        ledger.append([seen("b", at=NOW + 2 * DAY)])
        assert ledger.forget_purged(NOW + 9 * DAY) == 0  # another one under its name, and alive
        assert ledger.verify().sequence == 7

    # Clearings

    def test_who_was_erased_may_be_in_the_backups_of_every_store_that_was_asked(self, ledger: Ledger) -> None:
        ledger.append(
            [
                accepted("a", stores=("site", "crm", "hrm")),
                intended("a", 1),
                Verified("a", "site", NOW),
                NotFound("a", "crm", NOW, "canary"),
                NotAsked("a", "hrm"),
            ]
        )
        assert ledger.copies_left(["a"]) == {}
        assert ledger.cleared_stores() == frozenset()
        ledger.append([Completed("a", NOW, Outcome.ERASED)])
        assert ledger.copies_left(["a", "unknown"]) == {"a": CopiesLeft(None, ("crm", "site"))}
        assert ledger.cleared_stores() == {"site", "crm"}
        assert ledger.purgeable() == []

    def test_a_dry_run_leaves_nothing_to_purge(self, ledger: Ledger) -> None:
        ledger.append([accepted("a"), Completed("a", NOW, Outcome.PLANNED)])
        assert (ledger.copies_left(["a"]), ledger.purgeable()) == ({}, [])
        with pytest.raises(IllegalTransition, match="CopiesGone"):
            ledger.append([CopiesGone(NOW, ("a",))])

    def test_who_was_in_no_store_is_in_no_backup(self, ledger: Ledger) -> None:
        ledger.append([accepted("a"), NotAsked("a", "crm"), Completed("a", NOW, Outcome.ERASED)])
        assert ledger.cleared_stores() == frozenset()
        assert ledger.copies_left(["a"]) == {"a": CopiesLeft()}
        assert ledger.purgeable() == ["a"]
        ledger.append([CopiesGone(NOW, ("a",))])
        assert (ledger.copies_left(["a"]), ledger.purgeable()) == ({}, [])

    def test_who_was_purged_is_in_doubt_again_when_an_older_snapshot_turns_up(self, ledger: Ledger) -> None:
        site = "shop/site"
        ledger.append(
            [*done("a", 1, store=site, stores=[site]), *done("b", 2, at=NOW + DAY, store=site, stores=[site])]
        )
        purge(ledger, "a", "b", at=NOW + 2 * DAY)
        found = ListedSnapshot("old", ("v1",), NOW + 12 * HOUR, (), 1)
        ledger.append([SnapshotsSeen("shop/nightly", NOW + 3 * DAY, ("shop/site", "shop/crm"), (found,))])
        known = ledger.requests_by_id("ab")
        assert (known["a"].purged_at, known["b"].purged_at) == (NOW + 2 * DAY, None)
        assert ledger.copies_left("ab") == {"b": CopiesLeft(None, ("shop/crm", "shop/site"))}
        ledger.append([SnapshotsSeen("shop/nightly", NOW + 4 * DAY, ("shop/site",), (found,))])
        assert ledger.requests_by_id("a")["a"].purged_at == NOW + 2 * DAY

    def test_a_grade_is_that_of_the_step_in_which_a_clearing_falls(self, ledger: Ledger) -> None:
        for number, request in enumerate("abcd", 1):
            ledger.append(done(request, number, at=NOW + number * HOUR))
        ledger.append(done("other", 5, at=NOW + 2 * HOUR, store="crm", stores=("crm",)))
        steps = [
            CopyStep(UNKNOWN_START, None, proven=True),
            CopyStep(NOW + 2 * HOUR, GONE, proven=True),
            CopyStep(NOW + 3 * HOUR + timedelta(microseconds=1), GONE + DAY, proven=False),
        ]
        assert ledger.grade("site", steps) == set("abcd")
        assert ledger.copies_left("abcd") == {
            "a": CopiesLeft(),
            "b": CopiesLeft(GONE),
            "c": CopiesLeft(GONE),
            "d": CopiesLeft(GONE + DAY, ("site",)),
        }
        assert ledger.copies_left(["other"]) == {"other": CopiesLeft(None, ("crm",))}
        assert ledger.purgeable() == ["a"]
        assert ledger.grade("site", steps) == frozenset()
        assert ledger.grade("site", [*steps[:2], replace(steps[2], proven=True)]) == {"d"}
        assert ledger.grade("site", [CopyStep(UNKNOWN_START, None, proven=False)]) == set("abcd")

    def test_whose_last_copy_is_past_its_day_is_told_once_for_all_stores(self, ledger: Ledger) -> None:
        for number, request in enumerate("ab", 1):
            facts = done(request, number, stores=("site", "crm"))
            ledger.append([*facts[:3], NotFound(request, "crm", NOW, "canary"), *facts[3:]])
        ledger.grade("site", [CopyStep(UNKNOWN_START, GONE, proven=True)])
        ledger.grade("crm", [CopyStep(UNKNOWN_START, GONE, proven=True)])
        assert ledger.outlived(GONE - timedelta(microseconds=1)) == frozenset()
        assert ledger.outlived(GONE) == {"a", "b"}
        ledger.append(done("c", 3, stores=("site",)))
        ledger.grade("site", NO_BACKUPS)
        ledger.grade("crm", [CopyStep(UNKNOWN_START, GONE + DAY, proven=True)])
        assert ledger.outlived(GONE) == frozenset()

    def test_a_grade_is_no_fact(self, ledger: Ledger) -> None:
        ledger.append(done("a", 1))
        before = ledger.position()
        ledger.grade("site", NO_BACKUPS)
        assert ledger.verify() == ledger.position() == before
        ledger.append(done("b", 2))
        assert ledger.verify().sequence == before.sequence + 4

    def test_who_was_taken_over_notes_nothing(self, ledger: Ledger, opened: Callable[[], Ledger]) -> None:
        ledger.append([*done("a", 1), seen("s"), SnapshotsPurged("shop/nightly", NOW, ("s",))])
        successor = opened()
        successor.take_over()
        with pytest.raises(Fenced):
            ledger.grade("site", NO_BACKUPS)
        with pytest.raises(Fenced):
            ledger.forget_purged(NOW + DAY)
        assert successor.purgeable() == []
        assert len(successor.snapshots()) == 1

    def test_who_was_cleared_by_none_of_some_tombstones_is_told_with_the_moment(self, ledger: Ledger) -> None:
        absent: list[Fact] = [
            accepted("absent", stores=("site",)),
            NotFound("absent", "site", NOW + HOUR, "canary", (b"digest",)),
            Completed("absent", NOW + 2 * HOUR, Outcome.ERASED),
        ]
        elsewhere = done("elsewhere", 1, store="crm", stores=("crm",))
        ledger.append(
            [*done("ada", 1, 2), *done("bob", 3, at=NOW + DAY), *absent, *elsewhere],
        )

        def told(
            *numbers: int, since: datetime = NOW, until: datetime = NOW + 2 * DAY
        ) -> dict[str, datetime]:
            return dict(ledger.cleared_without("site", numbers, since, until))

        assert told() == {"ada": NOW, "absent": NOW + HOUR, "bob": NOW + DAY}
        assert told(1, 2) == {"absent": NOW + HOUR, "bob": NOW + DAY}
        assert told(1, 2, 3) == {"absent": NOW + HOUR}
        assert told(since=NOW + HOUR, until=NOW + DAY) == {"absent": NOW + HOUR}
        assert ledger.last_cleared("site") == NOW + DAY
        assert ledger.last_cleared("analytics") is None

    def test_who_was_purged_is_in_doubt_again_when_a_rewritten_snapshot_is_put_back(
        self, ledger: Ledger
    ) -> None:
        def shown(pieces: str, at: datetime) -> SnapshotsSeen:
            return replace(seen("one", pieces=pieces), at=at, stores=("shop/site",))

        described = SourceDescribed("shop/nightly", ("shop/site",), "P6M")
        ada = done("ada", 1, store="shop/site", stores=("shop/site",))
        ledger.append([described, shown("v1", NOW), *ada])
        cleaned = RewriteIntended("shop/nightly", "one", NOW + DAY, "shop/site", ("v2",), 9, NOW + DAY)
        rewritten = SnapshotRewritten("shop/nightly", "one", NOW + DAY, "shop/site", NOW + DAY)
        ledger.append([cleaned, rewritten])
        # From the intent on nobody is dated as erased before it, whatever the clock says.
        ledger.append(done("bob", 2, store="shop/site", stores=("shop/site",)))
        assert ledger.requests_by_id(["bob"])["bob"].progress("shop/site").at == NOW + DAY
        ledger.grade("shop/site", NO_BACKUPS)
        ledger.append([CopiesGone(NOW + DAY, ("ada",))])
        ledger.append([shown("v2", NOW + 2 * DAY)])
        assert ledger.requests_by_id(["ada"])["ada"].purged_at is not None, "as it was rewritten"
        ledger.append([shown("v1", NOW + 3 * DAY)])
        assert ledger.requests_by_id(["ada"])["ada"].purged_at is None

    def test_a_request_is_purgeable_when_the_backups_of_all_its_stores_are(self, ledger: Ledger) -> None:
        facts = done("a", 1, stores=("site", "crm"))
        ledger.append([*facts[:3], NotFound("a", "crm", NOW, "canary"), *facts[3:]])
        ledger.grade("site", NO_BACKUPS)
        assert ledger.purgeable() == []
        ledger.grade("crm", [CopyStep(UNKNOWN_START, GONE, proven=True)])
        assert ledger.purgeable() == []
        assert ledger.copies_left(["a"]) == {"a": CopiesLeft(GONE)}
        ledger.grade("crm", NO_BACKUPS)
        assert ledger.purgeable() == ["a"]
        assert ledger.copies_left(["a"])["a"].none_left

    def test_the_last_copy_of_all_stores_counts(self, ledger: Ledger) -> None:
        facts = done("a", 1, stores=("site", "crm"))
        ledger.append([*facts[:3], NotFound("a", "crm", NOW, "canary"), *facts[3:]])
        ledger.grade("site", [CopyStep(UNKNOWN_START, GONE, proven=True)])
        ledger.grade("crm", [CopyStep(UNKNOWN_START, GONE + DAY, proven=False)])
        assert ledger.copies_left(["a"]) == {"a": CopiesLeft(GONE + DAY, ("crm",))}

    def test_purgeable_comes_in_portions_until_all_is_recorded(
        self, ledger: Ledger, opened: Callable[[], Ledger]
    ) -> None:
        for number in range(1, 8):
            ledger.append(done(f"r{number}", number))
        ledger.grade("site", NO_BACKUPS)
        recorded = list[str]()
        while some := ledger.purgeable(3):
            assert len(some) <= 3
            ledger.append([CopiesGone(GONE, tuple(some))])
            recorded += some
        assert sorted(recorded) == [f"r{number}" for number in range(1, 8)]
        assert ledger.copies_left(recorded) == {}
        assert ledger.cleared_stores() == frozenset()
        for known in (ledger, opened()):
            assert {one.purged_at for one in known.requests_by_id(recorded).values()} == {GONE}
        named = ledger.requests_named([("shop", "forget-r1")])
        assert named["shop", "forget-r1"].purged_at == GONE

    def test_who_may_still_be_in_a_backup_is_never_recorded_as_purged(self, ledger: Ledger) -> None:
        ledger.append([*done("a", 1), *done("b", 2), accepted("c")])
        ledger.grade("site", [CopyStep(UNKNOWN_START, GONE, proven=True)])
        for request in ("a", "c", "unknown"):
            with pytest.raises(IllegalTransition, match="CopiesGone"):
                ledger.append([CopiesGone(NOW, (request,))])
        ledger.grade("site", [CopyStep(UNKNOWN_START, None, proven=False)])
        with pytest.raises(IllegalTransition, match="CopiesGone"):
            ledger.append([CopiesGone(NOW, ("a",))])
        ledger.grade("site", NO_BACKUPS)
        ledger.append([CopiesGone(NOW, ("a",))])
        with pytest.raises(IllegalTransition, match="CopiesGone"):
            ledger.append([CopiesGone(NOW, ("a", "b"))])
        assert ledger.purgeable() == ["b"]

    def test_requests_are_known_by_their_id(self, ledger: Ledger) -> None:
        ledger.append([accepted("a"), accepted("b"), accepted("c")])
        found = ledger.requests_by_id(["a", "c", "unknown"])
        assert {request: one.accepted for request, one in found.items()} == {
            "a": accepted("a"),
            "c": accepted("c"),
        }

    # People who come back

    def test_people_written_back_may_be_in_every_snapshot_until_they_were_erased_again(
        self, ledger: Ledger
    ) -> None:
        ledger.append([*done("a", 1, 2), *done("b", 3), *done("c", 4)])
        early = [CopyStep(UNKNOWN_START, None, proven=True), CopyStep(NOW + HOUR, GONE, proven=False)]
        ledger.grade("site", early)
        ledger.append([Reerased("site", None, NOW + 2 * HOUR, 9, (2, 3))])
        assert ledger.copies_left("abc") == {
            "a": CopiesLeft(None, ("site",)),
            "b": CopiesLeft(None, ("site",)),
            "c": CopiesLeft(),
        }
        assert ledger.purgeable() == ["c"]
        assert ledger.grade("site", early) == {"a", "b"}
        assert ledger.copies_left("ab")["a"] == CopiesLeft(GONE, ("site",))

    def test_people_of_a_write_back_who_were_purged_are_not_any_more(
        self, ledger: Ledger, opened: Callable[[], Ledger]
    ) -> None:
        facts = done("a", 1, stores=("site", "crm"))
        ledger.append([*facts[:3], NotFound("a", "crm", NOW, "canary"), *facts[3:], *done("b", 2)])
        purge(ledger, "a", "b")
        ledger.append([Reerased("site", None, NOW + HOUR, 9, (1,))])
        assert ledger.copies_left("ab") == {"a": CopiesLeft(None, ("site",))}
        purged = {request: one.purged_at for request, one in opened().requests_by_id("ab").items()}
        assert purged == {"a": None, "b": NOW}
        purge(ledger, "a", at=GONE)
        assert ledger.requests_by_id("a")["a"].purged_at == GONE

    def test_of_a_restore_only_who_was_purged_is_looked_for_again(self, ledger: Ledger) -> None:
        ledger.append([*done("a", 1), *done("b", 2), RestoreDetected("site", "e", NOW, DetectedBy.JOURNAL)])
        ledger.grade("site", NO_BACKUPS)
        ledger.append([CopiesGone(NOW, ("a",))])
        ledger.append([Reerased("site", "e", NOW + HOUR, 9, (1, 2))])
        assert ledger.copies_left("ab") == {"a": CopiesLeft(None, ("site",)), "b": CopiesLeft()}
        assert ledger.requests_by_id("a")["a"].purged_at is None
        assert ledger.purgeable() == ["b"]

    def test_a_write_back_before_a_request_has_ended_counts_as_its_last_clearing(
        self, ledger: Ledger
    ) -> None:
        ledger.append([accepted("a"), intended("a", 1), Verified("a", "site", NOW)])
        ledger.append([Reerased("site", None, NOW + HOUR, 9, (1,))])
        assert ledger.copies_left("a") == {}
        assert ledger.open_requests()[0].progress("site").at == NOW + HOUR
        ledger.append([NotFound("a", "crm", NOW, "canary"), Completed("a", NOW + HOUR, Outcome.ERASED)])
        ledger.grade("crm", NO_BACKUPS)
        ledger.grade("site", [NO_BACKUPS[0], CopyStep(NOW + HOUR, GONE, proven=True)])
        assert ledger.copies_left("a") == {"a": CopiesLeft(GONE)}

    def test_who_is_erased_purged_and_erased_again_in_one_append_is_not_purged(self, ledger: Ledger) -> None:
        nowhere: list[Fact] = [accepted("n"), Completed("n", NOW, Outcome.ERASED), CopiesGone(NOW, ("n",))]
        ledger.append([*done("a", 1), *nowhere, Reerased("site", None, NOW + HOUR, 9, (1,))])
        assert ledger.copies_left("an") == {"a": CopiesLeft(None, ("site",))}
        assert ledger.requests_by_id("n")["n"].purged_at == NOW

    def test_a_long_list_of_people_comes_back_at_once(self, ledger: Ledger) -> None:
        people = [f"r{number}" for number in range(1, 6_002)]
        ledger.append([fact for number, one in enumerate(people, 1) for fact in done(one, number)])
        purge(ledger, *people[:6_000])
        ledger.append([Reerased("site", None, NOW + HOUR, 9_000, tuple(range(1, 6_002)))])
        assert len(ledger.copies_left(people)) == 6_001
        assert all(one.purged_at is None for one in ledger.requests_by_id(people).values())

    # Tombstones end

    def test_a_month_ends_when_all_its_requests_were_purged_before(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        ledger.append([*done("a", 1), *done("b", 2)])
        clock.now = JUNE
        purge(ledger, "a", at=JUNE)
        assert ledger.expired_periods(AUGUST) == {}
        purge(ledger, "b", at=JUNE + DAY)
        clock.now = AUGUST
        assert ledger.expired_periods(JUNE + DAY) == {}
        (month, requests), *others = ledger.expired_periods(JUNE + 2 * DAY).items()
        assert (month, sorted(requests), others) == ("2026-11", ["a", "b"], [])

    def test_the_month_of_now_never_ends(self, ledger: Ledger, clock: Clock) -> None:
        ledger.append([accepted("a"), Completed("a", NOW, Outcome.PLANNED)])
        assert ledger.expired_periods(AUGUST) == {}
        with pytest.raises(IllegalTransition, match="2026-11"):
            ledger.append([TombstonesExpired(NOW, "2026-11", ("a",))])
        clock.now = DECEMBER
        assert ledger.expired_periods(NOW) == {}
        assert ledger.expired_periods(NOW + DAY) == {"2026-11": ["a"]}

    def test_a_month_of_nothing_but_ticks_and_scans_ends_by_its_age(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        ledger.append([seen("a")])
        clock.now = AUGUST
        assert ledger.expired_periods(NOW + DAY) == {}
        assert ledger.expired_periods(DECEMBER) == {"2026-11": []}
        ledger.append([TombstonesExpired(AUGUST, "2026-11", ())])
        assert ledger.expired_periods(DECEMBER) == {}
        assert [one.ref for one in ledger.snapshots()] == ["a"]

    def test_a_request_ends_with_the_last_of_its_months(self, ledger: Ledger, clock: Clock) -> None:
        facts = done("a", 1)
        ledger.append([*facts[:2], accepted("held"), *done("b", 2)])
        clock.now = DECEMBER
        ledger.append([*facts[2:], *done("c", 3)])
        clock.now = JUNE
        purge(ledger, "a", "b", "c", at=JUNE)
        clock.now = AUGUST
        # November waits for a request that is still open, and with it a, which has entries in both.
        assert ledger.expired_periods(JUNE + DAY) == {"2026-12": ["c"]}
        ledger.append([TombstonesExpired(AUGUST, "2026-12", ("c",))])
        ledger.append([Completed("held", AUGUST, Outcome.PLANNED)])
        clock.now = AUGUST + 60 * DAY
        ended = ledger.expired_periods(clock.now)
        assert {month: sorted(requests) for month, requests in ended.items()} == {
            "2026-11": ["a", "b"],
            "2027-06": [],
            "2027-08": ["held"],
        }

    def test_of_two_months_that_end_at_once_the_later_takes_the_request(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        facts = done("a", 1)
        ledger.append(facts[:2])
        clock.now = DECEMBER
        ledger.append(facts[2:])
        clock.now = JUNE
        purge(ledger, "a", at=JUNE)
        clock.now = AUGUST
        ended = ledger.expired_periods(JUNE + DAY)
        assert list(ended.items()) == [("2026-11", []), ("2026-12", ["a"])]
        for month, requests in ended.items():
            ledger.append([TombstonesExpired(AUGUST, month, tuple(requests))])
        assert ledger.requests_by_id("a")["a"].shredded
        assert ledger.verify() == ledger.position()

    def test_what_ends_leaves_that_it_was_asked_and_done(
        self, ledger: SqlLedger, opened: Callable[[], SqlLedger], clock: Clock, behind: Connection
    ) -> None:
        asked = replace(accepted("a"), identifier_digest="sha256:cd")
        ledger.append([asked, intended("a", 1, 2), Verified("a", "site", NOW, {"public.users": 2})])
        absent = NotFound("a", "crm", NOW, "canary", (b"1" * 32,))
        ledger.append([absent, Completed("a", NOW, Outcome.ERASED)])
        ledger.append([FoundAgain("a", "crm", NOW, (tombstone(4, "a"),))])
        clock.now = DECEMBER
        ledger.append(done("b", 3))
        before = ledger.requests_by_id("a")["a"]
        ledger.append(
            [Rejoined("site", "public.users", f"users-key-{n}", NOW, NOW, "CRM", (n,)) for n in (1, 3)]
        )
        clock.now = JUNE
        purge(ledger, "a", at=JUNE)
        ledger.append([TombstonesExpired(AUGUST, "2026-11", ("a",))])
        for known in (ledger, opened()):
            assert known.rejoined("site") == {3: (NOW, NOW)}
            record = known.requests_named([("shop", "forget-a")])["shop", "forget-a"]
            assert record == _stripped(before, purged_at=JUNE)
            assert {name: one.state for name, one in record.stores.items()} == {
                "site": StoreState.VERIFIED,
                "crm": StoreState.NOT_FOUND,
            }
            assert record.progress("site").counts == {"public.users": 2}
            assert known.verify() == known.position()
            assert [one.number for part in known.tombstones("site") for one in part] == [3]
            assert [number for part in known.tombstone_numbers("site") for number in part] == [3]
            assert known.tombstone_count("site") == 1
            assert known.tombstone_count("crm") == 0
            assert known.absent_addresses("crm") == {}
            assert [one.number for one in known.sample_tombstones("site", newest=1, random=9)] == [3]
            mine, others = tombstone(1, "a").email or b"", tombstone(3, "b").email or b""
            assert known.erased_before([mine, others]) == {others}
            assert [fact for _, _, fact in known.facts()][:6] == [None] * 6
        left = behind.execute(text("SELECT count(payload) FROM entries WHERE period = '2026-11'"))
        assert left.scalar_one() == 0
        key = behind.execute(
            text("SELECT wrapped_key, destroyed_at FROM period_keys ORDER BY period")
        ).first()
        assert key == (None, AUGUST.isoformat())

    def test_an_address_that_was_erased_again_outlives_the_first_request(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        ledger.append(done("a", 1))
        clock.now = DECEMBER
        facts = done("b", 2)
        again = replace(tombstone(2, "b"), email=tombstone(1, "a").email)
        ledger.append([facts[0], replace(intended("b", 2), tombstones=(again,)), *facts[2:]])
        clock.now = JUNE
        purge(ledger, "a", at=JUNE)
        ledger.append([TombstonesExpired(JUNE, "2026-11", ("a",))])
        address = again.email or b""
        assert ledger.erased_before([address]) == {address}

    def test_a_month_that_a_request_still_needs_is_never_destroyed(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        ledger.append([*done("a", 1), *done("b", 2)])
        clock.now = DECEMBER
        purge(ledger, "a", at=DECEMBER)
        before = ledger.position()
        for month in ("2026-11", "2026-10", "2027-01"):
            with pytest.raises(IllegalTransition, match=month):
                ledger.append([TombstonesExpired(DECEMBER, month, ("a",))])
        assert ledger.verify() == ledger.position() == before
        assert ledger.tombstone_count("site") == 2
        assert not ledger.requests_by_id("a")["a"].shredded

    def test_a_walk_over_a_month_that_ends_meanwhile_goes_on(self, ledger: SqlLedger, clock: Clock) -> None:
        ledger.append([accepted(f"r{n}") for n in range(3_000)])
        ledger.append([Completed(f"r{n}", NOW, Outcome.PLANNED) for n in range(3_000)])
        clock.now = DECEMBER
        ledger.append(erased("b", 1))
        walk = ledger.facts()
        next(walk)
        ledger.append([TombstonesExpired(DECEMBER, "2026-11", tuple(f"r{n}" for n in range(3_000)))])
        facts = [fact for _, _, fact in walk]
        assert facts[-3:] == erased("b", 1)
        assert facts[-4] in (None, Completed("r2999", NOW, Outcome.PLANNED))  # SQLite shows what was


def _stripped(record: RequestRecord, *, purged_at: datetime) -> RequestRecord:
    return replace(
        record,
        accepted=replace(record.accepted, subject_id=None, identifier_digest=None, reference=None),
        purged_at=purged_at,
        shredded=True,
    )
