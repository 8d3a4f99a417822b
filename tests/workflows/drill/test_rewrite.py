"""Backups rewritten, on real PostgreSQL and a real directory: who was erased is gone from dumps in days."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from lethe.adapters.backups.directory import DirectoryBackend
from lethe.adapters.drills.command import Commands
from lethe.domain.drill_facts import DrillEnded, DrillResult, RewriteResult
from lethe.domain.facts import Completed, Outcome, RewriteIntended, SnapshotRewritten
from lethe.domain.legal_facts import HoldPlaced, LegalKind, LegalRegistered, NonDisclosureOrdered
from lethe.domain.mapping import SubjectMapping
from lethe.domain.periods import Period
from lethe.domain.snapshots import SnapshotRecord
from lethe.ports.backups import Pin
from lethe.workflows.backup import last_copy
from lethe.workflows.backup.last_copy import Coverage
from lethe.workflows.backup.rewrite import still_holding
from lethe.workflows.backup.scan import KnownSource, Scan, SourceDescription, scan
from lethe.workflows.drill.conduct import Halt, conduct, end_interrupted
from lethe.workflows.drill.rewrite import Rewriting
from tests.invariants.company import MAPPING, NAMESPACE, STORE, PowerCut, Wired
from tests.workflows.drill.drilling import DRILL, FILE, Drills
from tests.workflows.drill.test_conduct import erase, facts_since, people_of

PATTERN = "site-{takenAt:%Y%m%dT%H%M%SZ}.dump"
DAY, SIX_MONTHS = timedelta(days=1), Period.parse("P6M")
PG_DUMP = '{programs}/pg_dump --format=custom --file={file} "{url}"'


class Rewrites:
    """Drills that rewrite, and a source over the folder in which the dumps lie."""

    def __init__(self, drills: Drills) -> None:
        self.drills, self.company = drills, drills.company
        place = f"directory {drills.dumps}"
        self.description = SourceDescription(
            NAMESPACE, "nightly", (STORE,), "P6M", hold_last=False, place=place, names=PATTERN
        )
        self.dump_with(PG_DUMP.format(programs=drills.server.programs, file=FILE, url="$LETHE_SCRATCH_URL"))
        self.allowed, self.clocks = True, ""
        self.connect()

    def connect(self) -> None:
        """Begin as a new process does."""
        self.backend: Any = DirectoryBackend(str(self.drills.dumps), PATTERN, [self.drills.dumps])
        self.source = KnownSource(self.description, self.backend)

    def dump_with(self, line: str) -> None:
        self.drills.command("dump", line)

    def take(self) -> Path:
        """Take a dump of the store, and let the source see it."""
        self.company.now += DAY
        path = self.drills.dumps / f"site-{self.company.now:%Y%m%dT%H%M%SZ}.dump"
        self.company.server.dump(self.company.database, path)
        path.chmod(0o640)
        os.utime(path, (self.company.now.timestamp(), self.company.now.timestamp()))
        self.company.now += DAY
        self.scan()
        return path

    def scan(self) -> Scan:
        now = lambda: self.company.now  # noqa: E731
        return scan(self.source, self.company.ledger, now=now, clocks=lambda _: None)

    def record(self, path: Path) -> SnapshotRecord:
        (known,) = (
            one for one in self.company.real_ledger.snapshots(self.source.name) if one.ref == path.name
        )
        return known

    def gone_at(self, request: str) -> datetime | None:
        """Scan, grade, and return when the last known copy of somebody dies."""
        self.scan()
        coverage = {STORE: Coverage(covered=True, scanned_at=self.source.proven_until)}
        last_copy.grade(self.company.ledger, coverage, now=self.company.now)
        identity = self.company.record(request).request
        left = self.company.real_ledger.copies_left([identity]).get(identity)
        return left.gone_at if left is not None else None

    def purged(self, request: str) -> bool:
        self.gone_at(request)
        return self.company.record(request).purged_at is not None

    def erase(self, *persons: str) -> None:
        self.company.now += DAY
        erase(self.drills, *persons)
        self.company.now += DAY

    def run(
        self, path: Path, *, nobody: bool = False, wrap: Callable[[Any], Any] = lambda scratch: scratch
    ) -> DrillEnded:
        """Conduct a drill that rewrites a snapshot."""
        commands, drills = Commands(self.drills.folder), self.drills
        restore = partial(commands.restore, "restore")
        rewriting = Rewriting(
            self.source,
            Pin(path.name, self.record(path).pieces),
            self.allowed,
            partial(commands.restore, "dump"),
            restore,
            lambda: self.clocks or None,
            nobody,
        )
        return conduct(
            replace(
                drills.plan(path.name), rewriting=rewriting, rewritten=self.record(path).rewrite is not None
            ),
            self.company.context,
            wrap(drills.scratch()),
            restore,
            drills.session,
            Halt(time.monotonic() + 60),
        )

    def text(self, path: Path) -> str:
        """Return what a dump holds, uncompressed."""
        command = [f"{self.drills.server.programs}/pg_restore", "--file=-", str(path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def restore_in_earnest(self, path: Path) -> None:
        """Restore a dump into production, as an engineer does."""
        command = [f"{self.drills.server.programs}/pg_restore", "--clean", "--if-exists", "--exit-on-error"]
        url = self.company.server.url(self.company.database)
        subprocess.run([*command, f"--dbname={url}", str(path)], check=True, capture_output=True)


@pytest.fixture
def rewrites(drills: Drills) -> Iterator[Rewrites]:
    """A company, a folder of dumps, and a scratch server."""
    yield Rewrites(drills)
    assert drills.left() == set(), "no scratch database is left"


def forget(rewrites: Rewrites, person: str) -> None:
    """Let somebody's account be deleted without Lethe."""
    key = rewrites.company.key_of(person)
    for table, column in (("sessions", "user_id"), ("comments", "author_id"), ("users", "id")):
        rewrites.company.sql(f"DELETE FROM {table} WHERE {column} = %s", key)


def left_beside(rewrites: Rewrites) -> list[str]:
    return sorted(one.name for one in rewrites.drills.dumps.iterdir() if not one.name.endswith(".dump"))


def test_who_was_erased_is_in_the_rewritten_dump_no_more_and_her_last_copy_is_gone(
    rewrites: Rewrites,
) -> None:
    company = rewrites.company
    ada, bob, cleo = people_of(rewrites.drills, "ada", "bob", "cleo")
    path = rewrites.take()
    rewrites.erase(ada)
    known, at = rewrites.record(path), company.real_ledger.position().sequence
    old, before = path.stat(), rewrites.text(path)
    expires = known.expires_at(SIX_MONTHS)
    assert "ada@canary" in before and "bob@canary" in before  # noqa: PT018
    assert rewrites.gone_at(f"r-{ada}") == expires
    assert not rewrites.purged(f"r-{ada}")

    ended = rewrites.run(path)

    assert (ended.result, ended.rewrite) == (DrillResult.PASSED, RewriteResult.REWRITTEN), ended
    text = rewrites.text(path)
    assert "ada" not in text.lower()
    assert "bob@canary" in text and "cleo@canary" in text  # noqa: PT018
    new = path.stat()
    assert (new.st_mode, new.st_uid, new.st_gid) == (old.st_mode, old.st_uid, old.st_gid)
    assert new.st_mtime_ns == old.st_mtime_ns
    assert left_beside(rewrites) == []
    kinds = [type(one) for one in facts_since(company.real_ledger, at)]
    assert [one for one in kinds if one in (RewriteIntended, SnapshotRewritten)] == [
        RewriteIntended,
        SnapshotRewritten,
    ]
    rewritten = rewrites.record(path)
    assert rewritten.rewrite is not None
    assert ended.replayed_from == rewritten.rewrite.cleaned_until
    assert not rewrites.scan().changed, "a listing shows nothing new: it is the same snapshot, rewritten"
    assert rewrites.record(path) == rewritten == rewrites.source.snapshots[path.name]
    assert rewritten.expires_at(SIX_MONTHS) == expires, "it dies when it would have died"
    assert rewrites.purged(f"r-{ada}")
    # Who is erased later is in it, and says so.
    rewrites.erase(bob)
    assert rewrites.gone_at(f"r-{bob}") == expires
    assert not rewrites.purged(f"r-{bob}")
    assert company.visit().safe
    assert not company.is_cleared(cleo)


def test_a_rewritten_dump_restored_in_earnest_is_found_out_and_nobody_comes_back(
    rewrites: Rewrites,
) -> None:
    company = rewrites.company
    early, ada, bob, cleo = people_of(rewrites.drills, "early", "ada", "bob", "cleo")
    rewrites.erase(early)
    path = rewrites.take()
    rewrites.erase(ada)
    assert rewrites.run(path).rewrite is RewriteResult.REWRITTEN
    rewrites.erase(bob)
    rewrites.restore_in_earnest(path)
    visit = company.visit()
    assert not visit.safe
    assert company.last_episode().missing == 2, "as with the original: neither is in its journal"
    company.visit_until_safe()
    assert company.last_episode().re_erased == 1, "bob alone had come back"
    assert company.full_scan() == {early: True, ada: True, bob: True, cleo: False}


WRONG = {
    "fails": ("exit 3", "ended with 3"),
    "writes nothing": ("exit 0", "has written no file"),
    "writes no dump": (f"echo hello > {FILE}", "ended with 1"),
    "writes the old dump again": (
        f"cp $(dirname $(dirname $LETHE_SNAPSHOT_PLACE))/$LETHE_SNAPSHOT {FILE}",
        "differ",
    ),
    "leaves a table out": (
        "{programs}/pg_dump -Fc -T comments -f " + FILE + ' "$LETHE_SCRATCH_URL"',
        "public.comments",
    ),
    "dumps production": ("{programs}/pg_dump -Fc -f " + FILE + " '{production}'", "differ"),
    "links to the old dump": (
        f"ln $(dirname $(dirname $LETHE_SNAPSHOT_PLACE))/$LETHE_SNAPSHOT {FILE}",
        "other name",
    ),
}


@pytest.mark.parametrize(("line", "said"), WRONG.values(), ids=WRONG)
def test_a_dump_that_is_not_that_of_the_cleaned_copy_leaves_the_original(
    rewrites: Rewrites, line: str, said: str
) -> None:
    ada, _ = people_of(rewrites.drills, "ada", "bob")
    path = rewrites.take()
    rewrites.erase(ada)
    production = rewrites.company.server.url(rewrites.company.database)
    rewrites.dump_with(line.format(programs=rewrites.drills.server.programs, production=production))
    before = path.read_bytes(), path.stat().st_mtime_ns
    ended = rewrites.run(path)
    assert (ended.result, ended.rewrite) == (DrillResult.REWRITE_FAILED, RewriteResult.FAILED), ended
    assert said in ended.message
    assert "canary" not in ended.message
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert left_beside(rewrites) == []
    assert not rewrites.purged(f"r-{ada}")


def test_who_stands_in_the_new_dump_is_found_by_reading_back_as_well(rewrites: Rewrites) -> None:
    ada, _ = people_of(rewrites.drills, "ada", "bob")
    path = rewrites.take()
    rewrites.erase(ada)
    rewrites.dump_with(WRONG["writes the old dump again"][0])
    before = path.read_bytes()

    class Alike(Wired):
        """A scratch server to which all databases look the same."""

        def contents(self, _: str) -> dict[str, str]:
            return {}

        def anew(self) -> Any:
            return Alike(self._inner.anew(), self._fuse, ())

    ended = rewrites.run(path, wrap=lambda scratch: Alike(scratch, rewrites.company.fuse, ()))
    assert ended.result is DrillResult.REWRITE_FAILED
    assert "1 erased persons stand in the new dump" in ended.message
    assert path.read_bytes() == before


@pytest.mark.parametrize("secretly", [False, True])
def test_a_hold_leaves_the_snapshot_as_it_is_and_a_secret_one_is_not_told(
    rewrites: Rewrites, *, secretly: bool
) -> None:
    ada, _ = people_of(rewrites.drills, "ada", "bob")
    path = rewrites.take()
    rewrites.erase(ada)
    before, ledger, now = path.read_bytes(), rewrites.company.ledger, rewrites.company.now
    registered = LegalRegistered(
        legal="le-1",
        namespace=NAMESPACE,
        name="le-1",
        spec_digest="ab",
        at=now,
        kind=LegalKind.PRESERVATION,
        authority="County Sheriff's Office",
        level="Local",
        country="US",
        received_at=now,
        subject_id="7",
    )
    order = [NonDisclosureOrdered("le-1", now, "18 U.S.C. 2705(b)")] if secretly else []
    ledger.append([registered, *order, HoldPlaced("le-1", now, ())])
    rewrites.dump_with(f"touch {rewrites.drills.folder}/dumped")
    ended = rewrites.run(path)
    assert not (rewrites.drills.folder / "dumped").exists(), "nothing is even dumped"
    assert ended.result is DrillResult.PASSED
    assert ended.rewrite is (RewriteResult.KEPT if secretly else RewriteResult.HELD)
    assert ("legal" in ended.message) is not secretly
    assert path.read_bytes() == before


def test_a_hold_that_is_placed_while_the_new_dump_is_read_back_counts(rewrites: Rewrites) -> None:
    (ada,) = people_of(rewrites.drills, "ada")
    path = rewrites.take()
    rewrites.erase(ada)
    before, company = path.read_bytes(), rewrites.company

    class Placing(DirectoryBackend):
        def dress(self, *args: Any) -> Any:
            now = company.now
            of = {"legal": "le-1", "namespace": NAMESPACE, "name": "le-1", "spec_digest": "ab", "at": now}
            who = {"authority": "Sheriff", "level": "Local", "country": "US", "received_at": now}
            registered = LegalRegistered(**of, **who, kind=LegalKind.PRESERVATION, subject_id="7")  # type: ignore[arg-type]
            company.ledger.append([registered, HoldPlaced("le-1", now, ())])
            return super().dress(*args)

    rewrites.source.backend = Placing(str(rewrites.drills.dumps), PATTERN, [rewrites.drills.dumps])
    assert rewrites.run(path).rewrite is RewriteResult.HELD
    assert path.read_bytes() == before


def test_a_power_cut_at_any_moment_leaves_one_of_the_two_dumps_and_the_truth(rewrites: Rewrites) -> None:
    company = rewrites.company
    ada, bob = people_of(rewrites.drills, "ada", "bob")
    path = rewrites.take()
    rewrites.erase(ada)
    original, touched = path.read_bytes(), path.stat().st_mtime_ns

    class Dead(Wired):
        """After the cut nothing is heard of this process any more."""

        def __getattr__(self, name: str) -> Any:
            found = super().__getattr__(name)
            if self._fuse.names and self._fuse.at is None and company.fuse.passed >= cut_at:
                raise PowerCut(name)
            return found

    def begin(moment: int) -> bool:
        rewrites.connect()
        rewrites.scan()
        rewrites.source.backend = Dead(rewrites.backend, company.fuse, ["dress", "replace"])
        return company.cut_at(moment, lambda: rewrites.run(path))

    cut_at = 1_000
    assert not begin(cut_at)
    first = company.fuse.names.index("after dress") + 2  # before the intent is recorded
    moments = range(first, first + 6)  # until it is recorded that it was done
    path.write_bytes(original)
    os.utime(path, ns=(touched, touched))
    assert not rewrites.purged(f"r-{ada}"), "the old dump is there again"
    seen = set[bool]()
    for cut_at in moments:
        assert begin(cut_at)
        new = path.read_bytes() != original
        seen.add(new)
        text = rewrites.text(path)
        assert ("ada@canary" in text) is not new
        assert "bob@canary" in text
        company.prove()
        record = company.real_ledger.drills().get(DRILL)
        if record is not None and record.ended is None:
            end_interrupted(record, company.context, rewrites.drills.scratch(), "")
        rewrites.connect()
        company.visit_until_safe()
        assert rewrites.purged(f"r-{ada}") is new, company.fuse.names
        assert left_beside(rewrites) == []
        if new:
            path.write_bytes(original)
            os.utime(path, ns=(touched, touched))
            assert not rewrites.purged(f"r-{ada}"), "the old dump is there again"
    assert seen == {False, True}
    assert not company.is_cleared(bob)


def test_an_original_that_is_put_back_takes_back_that_nobody_is_left(rewrites: Rewrites) -> None:
    ada, _ = people_of(rewrites.drills, "ada", "bob")
    path = rewrites.take()
    rewrites.erase(ada)
    original = path.read_bytes()
    assert rewrites.run(path).rewrite is RewriteResult.REWRITTEN
    assert rewrites.purged(f"r-{ada}")
    path.write_bytes(original)
    assert not rewrites.purged(f"r-{ada}")
    assert rewrites.gone_at(f"r-{ada}") is not None
    assert rewrites.record(path).rewrite is None


def test_who_could_not_be_looked_for_in_the_copy_is_not_taken_for_gone(rewrites: Rewrites) -> None:
    company = rewrites.company
    ada, eve = people_of(rewrites.drills, "ada", "eve")
    path = rewrites.take()
    key = company.key_of(eve)
    forget(rewrites, eve)
    rewrites.erase(ada)
    company.request("r-eve", key=key)  # by her key alone: nothing is known of her address
    company.visit_until_safe()
    company.now += DAY
    assert rewrites.run(path).rewrite is RewriteResult.REWRITTEN
    assert "eve@canary" in rewrites.text(path)
    assert rewrites.purged(f"r-{ada}")
    company.ledger.append([Completed("uid-r-eve", company.now, Outcome.ERASED)])  # another store held her
    for _ in range(2):  # rewritten once more, now that her request has ended
        assert not rewrites.purged("r-eve")
        assert rewrites.gone_at("r-eve") == rewrites.record(path).expires_at(SIX_MONTHS)
        assert rewrites.run(path).rewrite is RewriteResult.REWRITTEN


def test_who_has_an_older_row_under_another_key_there_is_not_taken_for_gone(
    rewrites: Rewrites,
) -> None:
    company = rewrites.company
    ada, bob = people_of(rewrites.drills, "ada", "bob")
    path = rewrites.take()
    forget(rewrites, ada)
    again = company.sign_up("ada@canary.example")
    rewrites.erase(bob)
    rewrites.erase(again)
    assert rewrites.run(path).rewrite is RewriteResult.REWRITTEN
    assert "ada@canary" in rewrites.text(path)
    assert rewrites.purged(f"r-{bob}")
    assert not rewrites.purged(f"r-{again}")


def test_who_signed_up_after_the_journal_s_last_move_is_not_taken_for_gone(
    rewrites: Rewrites,
) -> None:
    company = rewrites.company
    (ada,) = people_of(rewrites.drills, "ada")
    late = company.sign_up("late@canary.example")  # of whom the journal in the dump knows nothing
    path = rewrites.take()
    forget(rewrites, late)
    rewrites.erase(ada)
    company.request("r-late", email="late@canary.example")
    company.visit_until_safe()
    company.ledger.append([Completed("uid-r-late", company.now, Outcome.ERASED)])  # another store held her
    company.now += DAY
    assert rewrites.run(path).rewrite is RewriteResult.REWRITTEN
    assert "late@canary" in rewrites.text(path)
    assert rewrites.purged(f"r-{ada}")
    assert rewrites.gone_at("r-late") == rewrites.record(path).expires_at(SIX_MONTHS)


def test_who_is_erased_while_the_copy_is_cleaned_is_not_taken_for_gone(rewrites: Rewrites) -> None:
    company = rewrites.company
    ada, bob = people_of(rewrites.drills, "ada", "bob")
    path = rewrites.take()
    rewrites.erase(ada)
    at = company.now

    class Erasing(DirectoryBackend):
        def dress(self, *args: Any) -> Any:
            company.now = at - timedelta(hours=1)  # the host's clock was set back meanwhile
            erase(rewrites.drills, bob)
            company.now = at
            return super().dress(*args)

    rewrites.source.backend = Erasing(str(rewrites.drills.dumps), PATTERN, [rewrites.drills.dumps])
    assert rewrites.run(path).rewrite is RewriteResult.REWRITTEN
    assert "bob@canary" in rewrites.text(path)
    company.now += DAY
    assert rewrites.purged(f"r-{ada}")
    assert not rewrites.purged(f"r-{bob}")


def test_a_rewritten_dump_that_is_older_than_who_is_known_is_rewritten_again(
    rewrites: Rewrites, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = people_of(rewrites.drills, "ada", "bob")
    path = rewrites.take()
    rewrites.erase(ada)
    assert rewrites.run(path).rewrite is RewriteResult.REWRITTEN
    rewrites.erase(bob)
    # Of who was erased until then nothing is known any more; they were in no snapshot that was.
    monkeypatch.setattr(
        rewrites.company.real_ledger, "forgotten_until", lambda _: datetime.max.replace(tzinfo=UTC)
    )
    assert rewrites.run(path).rewrite is RewriteResult.REWRITTEN
    assert rewrites.purged(f"r-{bob}")


def test_a_dump_that_holds_nobody_erased_is_left_and_the_drill_says_so(rewrites: Rewrites) -> None:
    ada, _ = people_of(rewrites.drills, "ada", "bob")
    before = rewrites.take()
    rewrites.erase(ada)
    after = rewrites.take()
    company = rewrites.company
    known = list(rewrites.source.snapshots.values())
    assert set(still_holding(company.real_ledger, known, STORE)) == {before.name}
    content = after.read_bytes()
    ended = rewrites.run(after, nobody=True)
    assert (ended.result, ended.rewrite) == (DrillResult.PASSED, RewriteResult.NOBODY_ERASED)
    assert after.read_bytes() == content


def test_a_source_that_does_not_allow_it_or_is_of_another_kind_is_refused(rewrites: Rewrites) -> None:
    people_of(rewrites.drills, "ada")
    path = rewrites.take()
    rewrites.allowed = False
    assert "spec.rewrite is Forbidden" in rewrites.run(path).message
    rewrites.allowed = True
    described = rewrites.source.description
    rewrites.source.description = replace(described, stores=(STORE, "shop/crm"))
    assert "of one store" in rewrites.run(path).message
    rewrites.source.description = described

    class Other:
        """A backend of another kind."""

    other: Any = Other()
    rewrites.source.backend = other
    ended = rewrites.run(path)
    assert ended.result is DrillResult.REFUSED
    assert "in a directory" in ended.message


def test_a_snapshot_that_was_replaced_or_linked_meanwhile_is_left_alone(rewrites: Rewrites) -> None:
    ada, _ = people_of(rewrites.drills, "ada", "bob")
    path = rewrites.take()
    rewrites.erase(ada)
    other = path.with_name("kept-by-somebody")
    os.link(path, other)
    ended = rewrites.run(path)
    assert ended.result is DrillResult.REWRITE_FAILED
    assert "other name" in ended.message
    other.unlink()
    os.utime(path)
    ended = rewrites.run(path)
    assert ended.rewrite is RewriteResult.KEPT
    assert "modification time" in ended.message


@pytest.mark.parametrize("came", ["pruned", "replaced"])
def test_a_snapshot_that_is_pruned_or_replaced_meanwhile_is_no_failure(rewrites: Rewrites, came: str) -> None:
    ada, _ = people_of(rewrites.drills, "ada", "bob")
    path = rewrites.take()
    rewrites.erase(ada)

    class Meanwhile(DirectoryBackend):
        def stage(self) -> str:
            if came == "pruned":  # the oldest is the next one to be
                path.unlink()
            else:
                path.write_bytes(b"taken once more")
            return super().stage()

    rewrites.source.backend = Meanwhile(str(rewrites.drills.dumps), PATTERN, [rewrites.drills.dumps])
    ended = rewrites.run(path)
    assert (ended.result, ended.rewrite) == (DrillResult.PASSED, RewriteResult.KEPT), ended
    assert path.exists() is (came == "replaced")
    assert left_beside(rewrites) == []


def with_a_newer_account(rewrites: Rewrites) -> tuple[str, str, Path, str]:
    """Return Ada, whose account is gone since a dump, Bob, that dump, and her account under a new address."""
    company = rewrites.company
    company.now = datetime.now(UTC)  # as the database's own clock, by which it tells of when a copy is
    ada, bob = people_of(rewrites.drills, "ada", "bob")
    path = rewrites.take()
    forget(rewrites, ada)
    second = company.sign_up("adas-new@canary.example")
    return ada, bob, path, second


def test_an_address_that_a_request_named_besides_her_key_is_looked_for_in_the_copy(
    rewrites: Rewrites,
) -> None:
    company = rewrites.company
    _, bob, path, second = with_a_newer_account(rewrites)
    rewrites.erase(bob)
    company.request("r-ada", key=company.key_of(second), email="ada@canary.example")
    company.visit_until_safe()
    company.now += DAY
    assert rewrites.run(path).rewrite is RewriteResult.REWRITTEN
    assert "ada@canary" not in rewrites.text(path)
    assert rewrites.purged("r-ada")


def test_the_older_account_that_a_request_named_is_erased_after_a_restore_in_earnest(
    rewrites: Rewrites,
) -> None:
    company = rewrites.company
    ada, _, path, second = with_a_newer_account(rewrites)
    company.now += DAY
    company.request("r-ada", key=company.key_of(second), email="ada@canary.example")
    company.visit_until_safe()
    rewrites.restore_in_earnest(path)
    company.visit_until_safe()
    assert company.is_cleared(ada)


# What a dump may leave out, and rows alone don't show.
LEFT_OUT = {
    "comments": ("--no-comments", "COMMENT ON COLUMN users.locale IS 'BCP 47'", "comment column"),
    "publications": ("--no-publications", "CREATE PUBLICATION site FOR TABLE comments", "published site"),
    "grants": ("--no-privileges", "GRANT SELECT ON comments TO PUBLIC", "grant public.comments"),
}


@pytest.mark.parametrize(("option", "ddl", "said"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_dump_that_leaves_out_what_the_copy_holds_besides_rows_is_none_of_it(
    rewrites: Rewrites, option: str, ddl: str, said: str
) -> None:
    ada, _ = people_of(rewrites.drills, "ada", "bob")
    rewrites.company.sql(ddl)
    path = rewrites.take()
    rewrites.erase(ada)
    programs = rewrites.drills.server.programs
    rewrites.dump_with(f'{programs}/pg_dump -Fc {option} -f {FILE} "$LETHE_SCRATCH_URL"')
    ended = rewrites.run(path)
    assert ended.rewrite is RewriteResult.FAILED, ended
    assert said in ended.message


OF_EVERY_KIND = """
CREATE TYPE mood AS ENUM ('ok', 'bad'); CREATE DOMAIN short AS varchar(20) CHECK (VALUE IN ('a', 'b'));
CREATE TABLE odd (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood DEFAULT 'ok', s short,
  v varchar(5) CHECK (v IN ('x', 'y')), f float8, j jsonb, b bytea, n numeric,
  g text GENERATED ALWAYS AS (upper(v)) STORED, arr text[] DEFAULT ARRAY['a']::varchar[]);
INSERT INTO odd (s, v, f, n, j, b) VALUES ('a', 'x', 0.1, 1.50, '{"a": 1}', 'raw');
CREATE TABLE part (id int, at date) PARTITION BY RANGE (at); CREATE TABLE part_d PARTITION OF part DEFAULT;
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE INDEX ON part (id) WHERE id IN (1, 2, 3); INSERT INTO part VALUES (1, '2020-05-05'), (2, '2024-01-01');
CREATE VIEW seen AS SELECT * FROM odd WHERE v IN ('x', 'y') AND m <> 'bad';
CREATE MATERIALIZED VIEW made AS SELECT v, count(*) AS c FROM seen GROUP BY v;
CREATE RULE quiet AS ON UPDATE TO seen DO INSTEAD NOTHING;
CREATE FUNCTION more(a int DEFAULT 3) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT a + 1; END;
CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE TABLE kid (extra text) INHERITS (comments); CREATE STATISTICS both_of ON v, n FROM odd;
CREATE TRIGGER same BEFORE UPDATE ON odd FOR EACH ROW WHEN (OLD.v IS DISTINCT FROM NEW.v)
  EXECUTE FUNCTION suppress_redundant_updates_trigger();
ALTER TABLE odd ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON odd USING (v IN ('x', 'y'));
SELECT lo_from_bytea(0, 'abc'); COMMENT ON COLUMN odd.v IS 'of two'; COMMENT ON TABLE part IS 'by year';
CREATE PUBLICATION some_of FOR TABLE odd;
GRANT SELECT (v), UPDATE ON odd TO PUBLIC; GRANT SELECT ON seen TO PUBLIC;
"""


def test_a_dump_of_whatever_postgresql_has_is_the_same_as_its_copy(rewrites: Rewrites) -> None:
    ada, _ = people_of(rewrites.drills, "ada", "bob")
    rewrites.company.sql(OF_EVERY_KIND)
    path = rewrites.take()
    rewrites.erase(ada)
    ended = rewrites.run(path)
    assert ended.rewrite is RewriteResult.REWRITTEN, ended.message


@pytest.fixture
def plain_role(rewrites: Rewrites) -> Iterator[None]:
    """The scratch server's role may make databases, and nothing besides."""
    drills, role = rewrites.drills, f"drill_{os.getpid()}"
    drills.server.psql(f"CREATE ROLE {role} LOGIN CREATEDB PASSWORD '{drills.server.password}'")
    drills.url = drills.server.url("postgres", user=role, password=drills.server.password)
    yield
    drills.server.psql(f"DROP ROLE {role}")


@pytest.mark.usefixtures("plain_role")
def test_a_role_that_is_no_superuser_suffices(rewrites: Rewrites) -> None:
    ada, _ = people_of(rewrites.drills, "ada", "bob")
    path = rewrites.take()
    rewrites.erase(ada)
    assert rewrites.run(path).rewrite is RewriteResult.REWRITTEN
    assert rewrites.purged(f"r-{ada}")


@pytest.mark.usefixtures("plain_role")
def test_rows_that_a_policy_hides_from_the_scratch_role_are_not_lost(rewrites: Rewrites) -> None:
    ada, _ = people_of(rewrites.drills, "ada", "bob")
    rewrites.company.sql(
        "CREATE TABLE notes (id int); INSERT INTO notes VALUES (1), (2);"
        " ALTER TABLE notes ENABLE ROW LEVEL SECURITY; ALTER TABLE notes FORCE ROW LEVEL SECURITY;"
        " CREATE POLICY one ON notes USING (id = 1)"
    )
    path = rewrites.take()
    rewrites.erase(ada)
    rewrites.dump_with(
        f'{rewrites.drills.server.programs}/pg_dump -Fc --enable-row-security -f {FILE} "$LETHE_SCRATCH_URL"'
    )
    before = path.read_bytes()
    ended = rewrites.run(path)
    assert ended.result.counts_as_failure, ended
    assert path.read_bytes() == before


def test_who_was_erased_before_the_mapping_was_widened_is_caught_up_with_first(rewrites: Rewrites) -> None:
    company = rewrites.company

    def go_on_with(mapping: SubjectMapping) -> None:
        company.mapping = mapping
        company.power_cut()
        company.visit()

    ignored = (*MAPPING.ignore, "comments.author_id")
    go_on_with(replace(MAPPING, dependents=MAPPING.dependents[:1], ignore=ignored))
    ada, _ = people_of(rewrites.drills, "ada", "bob")
    company.sql("UPDATE comments SET signature = 'ada of old' WHERE author_id = %s", company.key_of(ada))
    path = rewrites.take()
    rewrites.erase(ada)
    go_on_with(MAPPING)
    assert rewrites.run(path).rewrite is RewriteResult.KEPT
    assert not rewrites.purged(f"r-{ada}")
    assert company.store.proof is not None
    company.store.description = replace(
        company.store.description, catch_up=company.store.proof.proved.version
    )
    for _ in range(4):
        company.visit()
    assert rewrites.run(path).rewrite is RewriteResult.REWRITTEN
    assert "ada of old" not in rewrites.text(path)
    company.now += DAY
    assert rewrites.purged(f"r-{ada}")


@pytest.mark.parametrize("kind", ["a link", "a file", "a folder that stays"])
def test_what_lies_where_new_dumps_are_written_keeps_nobody_from_listing(
    rewrites: Rewrites, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = people_of(rewrites.drills, "ada", "bob")
    path = rewrites.take()
    rewrites.erase(ada)
    at = rewrites.drills.dumps / ".lethe-rewrite"
    if kind == "a link":
        at.symlink_to(tmp_path)
    elif kind == "a file":
        at.write_text("somebody's")
    else:  # of a Job that ran as another user
        (at / f"{rewrites.company.now - DAY:%Y%m%dT%H%M%S.%fZ}").mkdir(parents=True)
        monkeypatch.setattr(shutil, "rmtree", Mock(side_effect=PermissionError(errno.EACCES, "")))
    rewrites.connect()
    rewrites.scan()
    path.unlink()
    rewrites.take()
    assert rewrites.record(path).vanished_at is not None
    rewrites.erase(bob)
    assert not rewrites.purged(f"r-{bob}"), "what is unfinished there may hold anybody"


def test_clocks_that_disagree_leave_the_snapshot_as_it_is(rewrites: Rewrites) -> None:
    (ada,) = people_of(rewrites.drills, "ada")
    path = rewrites.take()
    rewrites.erase(ada)
    before = path.read_bytes()
    rewrites.clocks = "the clocks are apart"
    assert rewrites.run(path).rewrite is RewriteResult.KEPT
    assert path.read_bytes() == before
