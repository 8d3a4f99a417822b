"""People, dumps and everything that may happen to them, beside a model that knows every byte.

A dump holds a canary of everybody who was in its stores while it was taken. Whatever a source has shown is
kept here also when it is moved away, until the ledger calls it proven gone: a copy that vanished counts until
its expiry.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lethe.domain.facts import DetectedBy, Reerased, RestoreDetected, SafeToServe
from lethe.domain.periods import Period
from lethe.domain.pruning import PruneBlock
from lethe.ports.backups import BackendUnavailable, Pin
from lethe.workflows.backup.rewrite import LeftAsItIs, replace_snapshot
from lethe.workflows.backup.scan import Declared, Scan
from tests.invariants.company import PowerCut, Wired
from tests.search.drawing import note
from tests.workflows.backed_up import CRM, DAY, HOUR, MINUTE, SITE, YEAR, Backups, Source, touch

SECOND = timedelta(seconds=1)
LONGEST = timedelta(hours=2)
SIX_MONTHS = Period(6, 0)
WHICH = st.integers(min_value=0, max_value=10**6)
OFFSETS = st.sampled_from([-2 * YEAR, -40 * DAY, -DAY, -HOUR, MINUTE, DAY, 40 * DAY, 3 * YEAR])
WAITS = st.sampled_from([MINUTE, HOUR, 5 * HOUR, DAY, DAY, 20 * DAY, 60 * DAY, 179 * DAY, 190 * DAY])


@dataclass
class Running:
    """A dump that is being taken; it holds whoever was there at any moment of it."""

    source: Source
    began: datetime
    ends: datetime
    way: str
    holds: set[str]


@dataclass
class Sight:
    """What a source has shown under a name: since when it is as it is, and whether it was otherwise."""

    size: int
    mtime: int
    at: datetime
    changed: bool = False


def canary(person: str) -> str:
    """Return the text by which a byte search finds somebody."""
    return f"canary of {person};"


def _piece(path: Path) -> str:
    """Return what the directory's listing knows a dump by."""
    now = path.stat()
    return f"{now.st_size}:{now.st_mtime_ns}"


class BackupsMachine(RuleBasedStateMachine):
    """Two sources of two stores: one stamps its dumps when they begin, the other when they end."""

    directory: ClassVar[Path]
    numbers: ClassVar[Iterator[int]] = itertools.count(1)

    @initialize(hold_last=st.booleans())
    def begin(self, hold_last: bool) -> None:
        self.home = self.directory / f"run-{next(self.numbers)}"
        self.backups = Backups(self.home)
        longest = LONGEST.total_seconds()
        self.nightly = self.backups.source(longest_duration=longest, most_per_run=2, hold_last=hold_last)
        self.weekly = self.backups.source("weekly", (SITE, CRM), longest_duration=longest, most_per_run=2)
        self.limbo = self.home / "limbo"
        self.limbo.mkdir()
        self.away: dict[str, tuple[Source, Path]] = {}
        self.people = itertools.count(1)
        self.living: dict[str, set[str]] = {SITE: set(), CRM: set()}
        self.erased: dict[str, int] = {}
        self.erased_in: dict[str, tuple[str, ...]] = {}
        self.back: dict[str, tuple[str, set[str]]] = {}
        self.running: list[Running] = []
        self.sights: dict[Path, Sight] = {}
        self.again = itertools.count(1_000_000)
        self._sign_up((SITE, CRM))
        for source in self.backups.sources:
            self._dump(source)
            self._look(source)

    def teardown(self) -> None:
        if not hasattr(self, "backups"):
            return
        try:
            self._converge()
        finally:
            self.backups.close()
            shutil.rmtree(self.home)

    # --- time and people ---------------------------------------------------------------------------------

    def _pass(self, length: timedelta) -> None:
        until = self.backups.true + length
        while due := [one for one in self.running if one.ends <= until]:
            first = min(due, key=lambda one: one.ends)
            self.backups.true = max(self.backups.true, first.ends)
            self._finish(first)
        self.backups.true = until

    @rule(length=WAITS)
    def time_passes(self, length: timedelta) -> None:
        self._pass(length)

    def _sign_up(self, stores: tuple[str, ...]) -> str:
        person = f"p{next(self.people)}"
        for store in stores:
            self.living[store].add(person)
        self._leak_into_running()
        return person

    def _leak_into_running(self) -> None:
        for one in self.running:
            one.holds |= self._content(one.source)

    def _content(self, source: Source) -> set[str]:
        return set().union(*(self.living[store] for store in source.description.stores))

    @rule(stores=st.sampled_from([(SITE,), (CRM,), (SITE, CRM)]))
    def somebody_signs_up(self, stores: tuple[str, ...]) -> None:
        self._sign_up(stores)

    @rule(which=WHICH)
    def somebody_is_erased(self, which: int) -> None:
        people = sorted(set().union(*self.living.values()) - set(self.erased))
        if people:
            self._erase(people[which % len(people)])

    def _erase(self, person: str) -> None:
        stores = tuple(store for store in (SITE, CRM) if person in self.living[store])
        if set(stores) & set(self.back):
            return
        for store in stores:
            self.living[store].discard(person)
        self._pass(SECOND)
        number = len(self.erased) + 1
        self.erased[person], self.erased_in[person] = number, stores
        self.backups.erase(person, number, stores=stores)

    # --- dumps -------------------------------------------------------------------------------------------

    def _source(self, which: int) -> Source:
        applied = [one for one in self.backups.sources if one.applied]
        return applied[which % len(applied)]

    def _dump(self, source: Source) -> None:
        self._pass(SECOND)
        self._write(source, self.backups.true, self._content(source))

    def _write(self, source: Source, stamp: datetime, holds: set[str]) -> Path:
        return source.dump(stamp, "".join(map(canary, sorted(holds))) + "end", mtime=self.backups.true)

    @rule(which=WHICH)
    def a_dump_is_taken(self, which: int) -> None:
        self._dump(self._source(which))

    @rule(which=WHICH, minutes=st.integers(2, 119), way=st.sampled_from(["unseen", "partial", "in place"]))
    def a_slow_dump_begins(self, which: int, minutes: int, way: str) -> None:
        source = self._source(which)
        self._pass(SECOND)
        began = self.backups.true
        one = Running(source, began, began + minutes * MINUTE, way, self._content(source))
        if way == "in place" and source is self.nightly:
            self._write(source, began, one.holds)
        elif way == "partial":
            self._partial(one).write_text("".join(map(canary, sorted(one.holds))))
        self.running.append(one)

    def _partial(self, one: Running) -> Path:
        return one.source.path / f"running-{one.began:%Y%m%dT%H%M%SZ}.tmp"

    def _finish(self, one: Running) -> None:
        self.running.remove(one)
        one.holds |= self._content(one.source)
        self._partial(one).unlink(missing_ok=True)
        self._write(one.source, one.began if one.source is self.nightly else self.backups.true, one.holds)

    @rule(which=WHICH, way=st.sampled_from(["unseen", "partial", "in place"]), looks=st.integers(0, 2))
    def somebody_whom_no_other_dump_holds_is_erased_during_a_slow_dump(
        self, which: int, way: str, looks: int
    ) -> None:
        source = self._source(which)
        if self.back:
            return
        if which % 2:  # so that no older dump keeps her unpurged
            self._pass(190 * DAY)
            for one in [one for one in self.backups.sources if one.applied]:
                self._confirm(one)
        person = self._sign_up(source.description.stores)
        self.a_slow_dump_begins(which, 90, way)
        self._pass(HOUR)
        self._erase(person)
        for one in [one for one in self.backups.sources if one.applied][: looks or None]:
            self._look(one)

    @rule(which=WHICH, later=WAITS)
    def the_last_dump_that_holds_somebody_is_moved_away(self, which: int, later: timedelta) -> None:
        source = self._source(which)
        if self.back:
            return
        person = self._sign_up(source.description.stores)
        self._pass(later)
        self._dump(source)
        path = max(source.path.glob("*.dump"))
        self._erase(person)
        self._look(source)
        key = f"{source.description.short_name}-{path.name}"
        if path.exists() and key not in self.away:
            shutil.move(path, self.limbo / key)
            self.away[key] = source, path
            self._dump(source)
            self._look(source)

    @rule(store=st.sampled_from([SITE, CRM]), which=WHICH, way=st.integers(0, 5))
    def a_dump_is_taken_of_a_store_that_was_restored(self, store: str, which: int, way: int) -> None:
        self.a_restore_brings_people_back(store, -1)
        if way % 2:
            self._look(self._source(which))
        self._dump(self._source(which))
        if store in self.back:
            self._deal_with(store)
        if way % 3:
            self._look(self._source(which))

    # --- what others do to dumps -------------------------------------------------------------------------

    def _shown(self, which: int) -> tuple[Source, Path] | None:
        """Choose a dump that was listed, and that is not being written; `None`: there is none."""
        writing = {f"site-{one.began:%Y%m%dT%H%M%SZ}.dump" for one in self.running}
        shown = [
            (source, path)
            for source in self.backups.sources
            for path in sorted(source.path.glob("*.dump"))
            if path in self.sights and path.name not in writing
        ]
        return shown[which % len(shown)] if shown else None

    @rule(which=WHICH, offset=OFFSETS)
    def a_dump_is_touched(self, which: int, offset: timedelta) -> None:
        if shown := self._shown(which):
            touch(shown[1], self.backups.true + offset)

    @rule(which=WHICH, offset=st.none() | OFFSETS)
    def a_dump_is_replaced(self, which: int, offset: timedelta | None) -> None:
        if not (shown := self._shown(which)):
            return
        source, path = shown
        before = path.stat().st_mtime
        path.write_text(path.read_text() + "".join(map(canary, sorted(self._content(source)))) + "more")
        as_old = datetime.fromtimestamp(before, UTC)
        touch(path, as_old if offset is None else self.backups.true + offset)

    @rule(which=WHICH)
    def a_dump_is_moved_away(self, which: int) -> None:
        if not (shown := self._shown(which)):
            return
        source, path = shown
        key = f"{source.description.short_name}-{path.name}"
        if key in self.away:
            return
        shutil.move(path, self.limbo / key)
        self.away[key] = source, path

    @precondition(lambda self: self.away)
    @rule(which=WHICH)
    def a_dump_is_moved_back(self, which: int) -> None:
        key = sorted(self.away)[which % len(self.away)]
        _, path = self.away[key]
        if path.exists():
            return
        del self.away[key]
        shutil.move(self.limbo / key, path)

    @rule(which=WHICH)
    def a_dump_is_deleted_by_somebody(self, which: int) -> None:
        if shown := self._shown(which):
            shown[1].unlink()

    # --- sources -----------------------------------------------------------------------------------------

    @precondition(lambda self: all(one.source is not self.weekly for one in self.running))
    @rule()
    def a_source_is_deleted_or_applied_again(self) -> None:
        if self.weekly.applied and not self._look(self.weekly):
            return  # what it has not shown yet nobody can count
        self.weekly.applied = not self.weekly.applied
        self.weekly.connect()
        self.backups.grade()

    @precondition(lambda self: all(one.source is not self.weekly for one in self.running))
    @rule()
    def the_stores_of_a_source_are_edited(self) -> None:
        if not self.weekly.applied or not self._look(self.weekly):
            return
        stores = (SITE, CRM) if self.weekly.description.stores == (SITE,) else (SITE,)
        self.weekly.say(stores=stores)
        self.backups.grade()

    # --- restores ----------------------------------------------------------------------------------------

    @rule(store=st.sampled_from([SITE, CRM]), which=WHICH)
    def a_restore_brings_people_back(self, store: str, which: int) -> None:
        gone = sorted(person for person, stores in self.erased_in.items() if store in stores)
        if store in self.back or not gone:
            return
        people = {person for n, person in enumerate(gone) if which >> (n % 20) & 1}
        in_step = self.backups.true
        self._pass(SECOND)
        self.living[store] |= people
        self._leak_into_running()
        episode = f"episode-{next(self.again)}"
        self.back[store] = episode, people
        self._pass(SECOND)
        detected = RestoreDetected(
            store, episode, self.backups.true, DetectedBy.JOURNAL, {}, len(people), in_step
        )
        self.backups.ledger.append([detected])

    @rule(store=st.sampled_from([SITE, CRM]))
    def a_restore_is_dealt_with(self, store: str) -> None:
        if store in self.back:
            self._deal_with(store)

    def _deal_with(self, store: str) -> None:
        episode, people = self.back[store]
        numbers = tuple(sorted(self.erased[person] for person in people))
        self.living[store] -= people
        self._pass(SECOND)
        at = self.backups.true
        if numbers:
            self.backups.ledger.append([Reerased(store, episode, at, next(self.again) * 1000, numbers)])
        self.backups.ledger.append([SafeToServe(store, episode, at)])
        del self.back[store]

    # --- the operator ------------------------------------------------------------------------------------

    @rule(which=WHICH)
    def the_operator_scans(self, which: int) -> None:
        self._look(self._source(which))

    @rule(which=WHICH, offset=OFFSETS)
    def a_job_applies_a_snapshot_with_some_date(self, which: int, offset: timedelta) -> None:
        shown = self._shown(which)
        if shown and shown[0].applied:
            self._look(shown[0], Declared(shown[1].name, self.backups.true + offset))

    @rule(which=WHICH, moment=st.integers(1, 14))
    def the_operator_dies_in_a_scan(self, which: int, moment: int) -> None:
        source = self._source(which)
        self.backups.fuse.at, self.backups.fuse.passed = moment, 0
        try:
            self._look(source)
        except PowerCut:
            note(f"died {self.backups.fuse.names[-1]}")
            self.backups.restart()
        self.backups.fuse.at = None

    @rule(which=WHICH, moment=st.none() | st.integers(1, 8), since=st.booleans())
    def a_drill_rewrites_a_dump(self, which: int, moment: int | None, since: bool) -> None:
        """Let a dump without whoever was erased take a dump's place, as the workflow does; or die over it."""
        shown, source, backups = self._shown(which), self.nightly, self.backups
        if shown is None or shown[0] is not source or SITE in self.back or self._look(source) is None:
            return
        path, ledger = shown[1], backups.real_ledger
        known = source.known.snapshots.get(path.name)
        if not path.exists() or known is None or known.pieces != (_piece(path),):
            return
        place = source.backend.stage()
        cleaned_until = backups.true
        numbers = [number for some in ledger.tombstone_numbers(SITE) for number in some]
        content = path.read_text()
        for person in self.erased:
            content = content.replace(canary(person), "")
        living = sorted(self.living[SITE])
        if since and living:  # while it is cleaned
            self._erase(living[which % len(living)])
        self._pass(SECOND)
        Path(place, path.name).write_text(content)
        pin = Pin(path.name, known.pieces)
        new = source.backend.dress(place, pin)
        sight, before = self.sights[path], _piece(path)
        backups.fuse.at, backups.fuse.passed = moment, 0
        try:
            replace_snapshot(
                source.known,
                Wired(source.backend, backups.fuse, ["replace"]),
                backups.ledger,
                SITE,
                place,
                pin,
                new,
                now=lambda: backups.wall,
                cleaned_until=cleaned_until,
                numbers=numbers,
                absent={},
            )
            source.backend.unstage(place)
        except PowerCut:
            note(f"died {backups.fuse.names[-1]}")
            backups.restart()
        except LeftAsItIs:
            source.backend.unstage(place)
        backups.fuse.at = None
        if _piece(path) != before:
            now = path.stat()
            self.sights[path] = Sight(now.st_size, now.st_mtime_ns, sight.at, sight.changed)
        backups.grade()

    @rule()
    def the_operator_restarts(self) -> None:
        self.backups.restart()

    @rule(which=WHICH, wrong=st.sampled_from([YEAR, -YEAR]), server=st.booleans())
    def the_operator_scans_while_clocks_are_wrong(self, which: int, wrong: timedelta, server: bool) -> None:
        source, before = self._source(which), [one.names for one in self.backups.sources]
        self.backups.wrong, self.backups.server_wrong = wrong, wrong if server else timedelta(0)
        try:
            done = self._look(source)
        finally:
            self.backups.wrong = self.backups.server_wrong = timedelta(0)
        assert done is None or done.plan.waits is PruneBlock.CLOCKS_DISAGREE
        assert before == [one.names for one in self.backups.sources]

    @rule(which=WHICH)
    def a_person_confirms_what_waits(self, which: int) -> None:
        self._confirm(self._source(which))

    def _confirm(self, source: Source) -> None:
        done = self._look(source)
        if done is not None and done.plan.waits is PruneBlock.AWAITING_CONFIRMATION:
            source.say(confirm_prunes=int(done.plan.message.rpartition(" ")[2]))
            self._look(source)

    def _look(self, source: Source, *declared: Declared) -> Scan | None:
        """Scan a source and grade; `None`: its listing was not believed."""
        self._pass(SECOND)
        before = {path: path.stat() for path in sorted(source.path.glob("*.dump"))}
        others = {one for one in source.names if not one.endswith(".dump")}
        sights = dict(self.sights)
        if self.backups.wall == self.backups.true:
            for path, now in before.items():
                was = self.sights.get(path)
                if was is None or (was.size, was.mtime) != (now.st_size, now.st_mtime_ns):
                    changed = was is not None
                    self.sights[path] = Sight(now.st_size, now.st_mtime_ns, self.backups.true, changed)
        try:
            done = source.scan(declared=declared)
        except BackendUnavailable:
            done = None
        except PowerCut:
            self._unsee(source, sights)
            raise
        finally:
            for path in before.keys() - set(source.path.glob("*.dump")):
                self._was_due(path)
                del self.sights[path]
            assert others == {one for one in source.names if not one.endswith(".dump")}
        self._drop_what_is_proven_gone()
        if done is not None:
            self.backups.grade()
        return done

    def _unsee(self, source: Source, sights: dict[Path, Sight]) -> None:
        """Forget what a scan saw and died before it was recorded: nobody has seen that."""
        known = {one.ref: one.pieces for one in self.backups.real_ledger.snapshots(source.known.name)}
        for path, sight in list(self.sights.items()):
            if path.parent == source.path and known.get(path.name) != (f"{sight.size}:{sight.mtime}",):
                del self.sights[path]
                if path in sights:
                    self.sights[path] = sights[path]

    def _was_due(self, path: Path) -> None:
        """See that a dump that was deleted was past six months by every date that spoke of it."""
        sight = self.sights[path]
        stamp = datetime.strptime(path.name, "site-%Y%m%dT%H%M%S%z.dump")
        modified = datetime.fromtimestamp(sight.mtime // 10**9, UTC)
        latest = sight.at if sight.changed else min(max(stamp, modified), sight.at)
        assert SIX_MONTHS.after(latest) <= self.backups.true, f"{path.name}: {latest}"
        if path.parent == self.nightly.path and self.nightly.description.hold_last:
            assert list(path.parent.glob("*.dump")), "the only snapshot left is held"

    def _drop_what_is_proven_gone(self) -> None:
        live = {(one.source, one.ref) for one in self.backups.real_ledger.snapshots() if one.live}
        for key, (source, path) in list(self.away.items()):
            if (source.known.name, path.name) not in live:
                (self.limbo / key).unlink()
                del self.away[key]

    # --- what must hold ----------------------------------------------------------------------------------

    @invariant()
    def who_is_purged_is_in_no_snapshot(self) -> None:
        if not hasattr(self, "backups"):
            return
        ended = self._purged() - set().union(*(people for _, people in self.back.values()), set())
        self._search_for(ended)

    def _purged(self) -> set[str]:
        return {person for person in self.erased if self.backups.purged(person)}

    def _search_for(self, people: set[str]) -> None:
        folders = [*(source.path for source in self.backups.sources), self.limbo]
        for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
            content = path.read_text()
            found = [person for person in sorted(people) if canary(person) in content]
            assert not found, f"{found} purged, and in {path.name}"

    def _converge(self) -> None:
        """Let everything end well: in the end everybody is purged."""
        for store in list(self.back):
            self._deal_with(store)
        self._pass(LONGEST)
        self.weekly.applied = True
        self.weekly.say(stores=(SITE, CRM))
        end, fresh = self.backups.true + 270 * DAY, self.backups.true
        while self.backups.true < end:
            # Nobody is purged too early: look just when something dies.
            dying = [one.expires_at(SIX_MONTHS) for one in self.backups.real_ledger.snapshots() if one.live]
            soon = self.backups.true + 40 * DAY
            self.backups.true = min((soon, *(at for at in dying if at > self.backups.true)))
            for source in self.backups.sources:
                if self.backups.true >= fresh:
                    self._dump(source)
                self._confirm(source)
                self.who_is_purged_is_in_no_snapshot()
            fresh = soon if self.backups.true >= fresh else fresh
        left = set(self.erased) - self._purged()
        assert not left, f"{self.backups.ledger.copies_left(left)}"
        self._search_for(set(self.erased))
        self.backups.real_ledger.verify()
