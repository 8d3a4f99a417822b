"""Snapshots that are files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lethe.adapters.backups.directory import DirectoryBackend
from lethe.ports.backups import (
    Backend,
    BackendMisconfigured,
    BackendUnavailable,
    DeletionResult,
    Pin,
)
from tests.contracts.backups import FIRST_NIGHT, BackendContract, World

PATTERN = "site-{takenAt:%Y%m%dT%H%M%SZ}.dump"
NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user without rights for a while, where one is root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@dataclass
class DirectoryWorld(World):
    root: Path
    pattern: str = PATTERN

    @property
    def folder(self) -> Path:
        return self.root / "backups"

    def put(self, taken_at: datetime) -> str:
        name = f"site-{taken_at:%Y%m%dT%H%M%SZ}.dump"
        (self.folder / name).write_bytes(os.urandom(100))
        at = int((taken_at + timedelta(minutes=20)).timestamp())
        os.utime(self.folder / name, (at, at))
        return name

    def remove(self, ref: str) -> None:
        (self.folder / ref).unlink()

    def replace(self, ref: str) -> bool:
        (self.folder / ref).write_bytes(os.urandom(100))
        return True

    def put_unparsable(self) -> str:
        (self.folder / "site-20260230T030000Z.dump").write_bytes(b"a day that February does not have")
        return "site-20260230T030000Z.dump"

    def put_unfinished(self) -> str:
        (self.folder / "site-20260228T030000Z.dump.part").write_bytes(b"half")
        return "site-20260228T030000Z.dump.part"

    def put_elsewhere(self) -> str:
        (self.root / "others").mkdir(exist_ok=True)
        (self.root / "others" / "site-20260101T030000Z.dump").write_bytes(b"of others")
        return "../others/site-20260101T030000Z.dump"

    def contents(self) -> Mapping[str, bytes]:
        return {
            os.path.relpath(path, self.folder): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and not path.is_symlink()
        }

    @contextmanager
    def away(self) -> Iterator[Backend]:
        self.folder.chmod(0)
        try:
            with as_nobody():
                yield self.backend
        finally:
            self.folder.chmod(0o755)

    def misplaced(self) -> tuple[Backend, str]:
        nowhere = self.root / "not mounted"
        return DirectoryBackend(str(nowhere), PATTERN, [self.root]), "spec.directory.path"


@pytest.fixture
def world(open_folder: Path) -> DirectoryWorld:
    (open_folder / "backups").mkdir()
    return DirectoryWorld(DirectoryBackend(str(open_folder / "backups"), PATTERN, [open_folder]), open_folder)


class TestDirectoryBackend(BackendContract):
    """A directory passes the suite."""


def test_the_modification_time_is_evidence_and_the_size_is_told(world: DirectoryWorld) -> None:
    ref = world.put(FIRST_NIGHT)
    (seen,) = world.seen().values()
    assert (seen.ref, seen.size) == (ref, 100)
    assert seen.evidence == (FIRST_NIGHT + timedelta(minutes=20),)


def test_a_link_is_reported_and_neither_it_nor_what_it_leads_to_is_touched(world: DirectoryWorld) -> None:
    world.put_elsewhere()
    target = world.root / "others" / "site-20260101T030000Z.dump"
    link = world.folder / "site-20260101T030000Z.dump"
    link.symlink_to(target)
    assert list(world.backend.list().unparsable) == [link.name]
    status = target.stat()
    for pieces in ((), (f"{status.st_size}:{status.st_mtime_ns}",)):
        assert world.delete_one(Pin(link.name, pieces)) is DeletionResult.IDENTITY_MISMATCH
    assert link.is_symlink()
    assert target.read_bytes() == b"of others"
    assert set(world.backend.gone([link.name])) == {link.name}


def test_a_snapshot_that_became_a_link_is_not_deleted(world: DirectoryWorld) -> None:
    ref = world.put(FIRST_NIGHT)
    pins = world.pin(ref)
    (world.folder / ref).rename(world.root / "moved")
    (world.folder / ref).symlink_to(world.root / "moved")
    assert world.delete_one(*pins) is DeletionResult.IDENTITY_MISMATCH
    assert (world.folder / ref).is_symlink()
    assert (world.root / "moved").exists()


@pytest.mark.parametrize("name", ["site-20260101T030000Z.dump", "folder", "lost+found"])
def test_a_folder_is_never_a_snapshot(world: DirectoryWorld, name: str) -> None:
    (world.folder / name).mkdir()
    (world.folder / name / "site-20260101T030000Z.dump").write_bytes(b"below")
    listing = world.backend.list()
    assert not listing.snapshots
    assert list(listing.unparsable) == ([] if name == "lost+found" else [name])
    assert world.delete_one(Pin(name, ())) is not DeletionResult.ACCEPTED
    assert (world.folder / name / "site-20260101T030000Z.dump").exists()


def test_a_pipe_is_reported_without_waiting_for_a_writer(world: DirectoryWorld) -> None:
    os.mkfifo(world.folder / "site-20260101T030000Z.dump")
    assert list(world.backend.list().unparsable) == ["site-20260101T030000Z.dump"]


def test_a_file_with_a_name_elsewhere_is_refused_because_its_bytes_would_stay(world: DirectoryWorld) -> None:
    ref, other = world.nights(2)
    (world.root / "elsewhere").hardlink_to(world.folder / ref)
    deletions = world.backend.delete(world.pin(ref, other))
    assert deletions[ref].result is DeletionResult.FAILED
    assert "1 other name " in deletions[ref].message
    assert deletions[other].result is DeletionResult.ACCEPTED
    assert set(world.seen()) == {ref}


def test_names_of_one_file_are_deleted_together_or_not_at_all(world: DirectoryWorld) -> None:
    first, second, third = (
        world.put(FIRST_NIGHT),
        "site-20260228T040000Z.dump",
        "site-20260228T050000Z.dump",
    )
    for name in (second, third):
        (world.folder / name).hardlink_to(world.folder / first)
    deletions = world.backend.delete(world.pin(first, second))
    assert {one.result for one in deletions.values()} == {DeletionResult.FAILED}
    assert set(world.seen()) == {first, second, third}
    deletions = world.backend.delete(world.pin(first, second, third))
    assert {one.result for one in deletions.values()} == {DeletionResult.ACCEPTED}
    assert not world.contents()


def test_a_pin_that_does_not_fit_does_not_count_as_a_name_that_goes(world: DirectoryWorld) -> None:
    first, second = world.put(FIRST_NIGHT), "site-20260228T040000Z.dump"
    (world.folder / second).hardlink_to(world.folder / first)
    (pin,) = world.pin(first)
    deletions = world.backend.delete([pin, Pin(second, ("something else",))])
    assert deletions[first].result is DeletionResult.FAILED
    assert set(world.seen()) == {first, second}


def test_a_directory_that_may_not_be_written_permits_nothing(world: DirectoryWorld) -> None:
    (ref,) = world.nights(1)
    world.folder.chmod(0o555)
    with as_nobody():
        (deletion,) = world.backend.delete(world.pin(ref)).values()
    world.folder.chmod(0o755)
    assert deletion.result is DeletionResult.NOT_PERMITTED
    assert set(world.seen()) == {ref}


def test_names_of_any_bytes_are_reported_as_one_printable_line(tmp_path: Path) -> None:
    for name in (b"a\nb-20260101", b"\xff\xfe-20260101", b"\xe2\x80\xae-20260101", "ä-20260101".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    backend = DirectoryBackend(str(tmp_path), "*-{takenAt:%Y%m%d}", [tmp_path])
    listing = backend.list()
    assert [one.ref for one in listing.snapshots] == ["ä-20260101"]
    assert set(listing.unparsable) == {r"a\nb-20260101", r"\udcff\udcfe-20260101", r"\u202e-20260101"}
    for ref in ("a\nb-20260101", "\udcff\udcfe-20260101", *listing.unparsable):
        assert backend.delete([Pin(ref, ())])[ref].result is not DeletionResult.ACCEPTED
        assert backend.gone([ref])
    assert len(list(tmp_path.iterdir())) == 4


def test_unfinished_files_are_told_by_their_names(tmp_path: Path) -> None:
    names = [
        "x-20260101.tmp",
        "x-20260101.part",
        "x-20260101.partial",
        "x-20260101.incomplete",
        ".x-20260101",
    ]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    backend = DirectoryBackend(str(tmp_path), "*x-{takenAt:%Y%m%d}*", [tmp_path])
    listing = backend.list()
    assert sorted(one.name for one in listing.partial) == sorted(names)
    assert {one.taken_at for one in listing.partial} == {datetime(2026, 1, 1, tzinfo=UTC)}
    assert not listing.snapshots
    assert not listing.unparsable


def test_a_modification_time_beyond_the_calendar_is_reported(world: DirectoryWorld) -> None:
    ref = world.put(FIRST_NIGHT)
    os.utime(world.folder / ref, ns=(0, 260_000_000_000 * 10**9))
    if (world.folder / ref).stat().st_mtime < 250_000_000_000:
        pytest.skip("this file system has no such dates")
    assert list(world.backend.list().unparsable) == [ref]


def test_a_directory_outside_of_what_is_allowed_is_refused(tmp_path: Path) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "allowed-not"
    for folder in (allowed, outside):
        folder.mkdir()
    (outside / "site-20260101T030000Z.dump").write_bytes(b"x")
    (allowed / "link").symlink_to(outside)
    (tmp_path / "way-in").symlink_to(allowed)
    for path in (
        outside,
        allowed / "link",
        allowed / ".." / outside.name,
        tmp_path,
        Path("/"),
        Path("allowed"),
    ):
        for roots in ([allowed], []):
            backend = DirectoryBackend(str(path), PATTERN, roots)
            with pytest.raises(BackendMisconfigured, match="LETHE_BACKUP_DIRECTORIES"):
                backend.list()
    assert not DirectoryBackend(str(tmp_path / "way-in"), PATTERN, [allowed]).list().snapshots
    assert not DirectoryBackend(str(allowed), PATTERN, [tmp_path / "way-in"]).list().snapshots


def test_a_directory_that_is_exchanged_while_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    (allowed / "in").mkdir(parents=True)
    (outside / "backups").mkdir(parents=True)
    (allowed / "in" / "backups").mkdir()
    real_open = os.open

    def exchange(path: Path, flags: int) -> int:
        (allowed / "in").rename(allowed / "was")
        (allowed / "in").symlink_to(outside)
        return real_open(path, flags)

    monkeypatch.setattr(os, "open", exchange)
    with pytest.raises(BackendMisconfigured, match="LETHE_BACKUP_DIRECTORIES"):
        DirectoryBackend(str(allowed / "in" / "backups"), PATTERN, [allowed]).list()


@pytest.mark.parametrize("pattern", ["site.dump", "nightly/site-{takenAt:%Y%m%d}.dump", "{takenAt:%Y/%m/%d}"])
def test_a_bad_pattern_is_named(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(BackendMisconfigured, match=r"spec\.directory\.name"):
        DirectoryBackend(str(tmp_path), pattern, [tmp_path])


def test_a_path_that_no_file_system_has_is_named(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "file").write_bytes(b"")
    for path in (f"{tmp_path}/a\0b", f"{tmp_path}/circle", f"{tmp_path}/file", f"{tmp_path}/{'x' * 300}"):
        with pytest.raises(BackendMisconfigured, match=r"spec\.directory\.path"):
            DirectoryBackend(path, PATTERN, [tmp_path]).list()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_a_volume_that_fails_is_unavailable_and_proves_nothing(
    world: DirectoryWorld, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    # No file system here can be made to fail like a server that went away; so the kernel's answer is given.
    (ref,) = world.nights(1)
    pins = world.pin(ref)

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "x")

    for call in ("stat", "unlink", "fsync", "listdir"):
        with monkeypatch.context() as failing:
            failing.setattr(os, call, fail)
            asked = {
                "stat": lambda: world.backend.gone([ref]),
                "unlink": lambda: world.backend.delete(pins),
                "fsync": lambda: world.backend.delete(pins),
                "listdir": world.backend.list,
            }[call]
            with pytest.raises(BackendUnavailable):
                asked()


def test_ten_thousand_files_are_listed(world: DirectoryWorld) -> None:
    start = datetime(2000, 1, 1, tzinfo=UTC)
    for hour in range(10_000):
        moment = start + timedelta(hours=hour)
        (world.folder / f"site-{moment:%Y%m%dT%H%M%SZ}.dump").write_bytes(b"x")
    assert len(world.backend.list().snapshots) == 10_000


def container_layout(root: Path, at: datetime) -> Mapping[str, DirectoryBackend]:
    """Lay down what the usual dump container does in one run; return a backend for each of its folders."""
    patterns = {"last": "%Y%m%d-%H%M%S", "daily": "%Y%m%d", "weekly": "%G%V", "monthly": "%Y%m"}
    for folder, written in patterns.items():
        (root / folder).mkdir(exist_ok=True)
        dump, latest = root / folder / f"site-{at:{written}}.sql.gz", root / folder / "site-latest.sql.gz"
        if folder == "last":
            dump.write_bytes(os.urandom(100))
            os.utime(dump, (at.timestamp() + 60, at.timestamp() + 60))
        else:
            dump.unlink(missing_ok=True)
            dump.hardlink_to(root / "last" / f"site-{at:%Y%m%d-%H%M%S}.sql.gz")
        latest.unlink(missing_ok=True)
        latest.symlink_to(dump.name)
    return {
        folder: DirectoryBackend(str(root / folder), f"site-{{takenAt:{written}}}.sql.gz", [root])
        for folder, written in patterns.items()
    }


def test_the_layout_of_the_usual_dump_container_is_understood(tmp_path: Path) -> None:
    nights = [datetime(2026, 12, 31, 3, tzinfo=UTC) + timedelta(days=night) for night in range(2)]
    container_layout(tmp_path, nights[0])
    backends = container_layout(tmp_path, nights[1])
    listings = {folder: backend.list() for folder, backend in backends.items()}
    assert [list(one.unparsable) + list(one.partial) for one in listings.values()] == [[]] * 4
    taken = {folder: [seen.taken_at for seen in listing.snapshots] for folder, listing in listings.items()}
    assert taken == {
        "last": nights,
        "daily": [night.replace(hour=0) for night in nights],
        "weekly": [datetime(2026, 12, 28, tzinfo=UTC)],
        "monthly": [datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)],
    }
    for listing in listings.values():
        assert all(seen.taken_at <= min(seen.evidence) for seen in listing.snapshots)
    (pin,) = [Pin(one.ref, one.pieces) for one in listings["weekly"].snapshots]
    told = backends["weekly"].delete([pin])[pin.ref]
    assert told.result is DeletionResult.FAILED
    for other in (
        "last/site-20270101-030000.sql.gz",
        "daily/site-20270101.sql.gz",
        "monthly/site-202701.sql.gz",
    ):
        assert str(tmp_path / other) in told.message
        (tmp_path / other).unlink()
    assert backends["weekly"].delete([pin])[pin.ref].result is DeletionResult.ACCEPTED


def test_another_name_of_a_snapshot_is_no_other_bytes(world: DirectoryWorld) -> None:
    ref = world.put(FIRST_NIGHT)
    (world.folder / "site-latest.dump").hardlink_to(world.folder / ref)
    assert not world.backend.list().unparsable
    assert world.delete_one(*world.pin(ref)) is DeletionResult.FAILED, "its bytes would stay"
    (world.folder / ref).rename(world.folder / "site.dump")
    assert set(world.backend.list().unparsable) == {"site-latest.dump", "site.dump"}


@pytest.mark.parametrize("target", ["gone.dump", "../elsewhere.dump", "notes.txt", "site-latest.dump"])
def test_a_link_that_leads_to_no_snapshot_here_is_reported(world: DirectoryWorld, target: str) -> None:
    (world.root / "elsewhere.dump").write_bytes(b"x")
    (world.folder / "notes.txt").write_bytes(b"x")
    (world.folder / "site-latest.dump").symlink_to(target)
    assert "site-latest.dump" in world.backend.list().unparsable
