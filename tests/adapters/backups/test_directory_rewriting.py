"""New dumps beside snapshots that are files, and how one takes the place of another."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lethe.adapters.backups.directory import DirectoryBackend
from lethe.ports.backups import BackendUnavailable, Pin, RewriteRefused
from tests.adapters.backups.test_directory import NOBODY, PATTERN, as_nobody

NAME = "site-20260227T030000Z.dump"
STAGING = ".lethe-rewrite"


@dataclass
class Folder:
    """A folder with one dump, and the backend that lists it."""

    path: Path
    backend: DirectoryBackend

    @property
    def pin(self) -> Pin:
        (listed,) = self.backend.list().snapshots
        return Pin(NAME, listed.pieces)

    def staged(self, content: bytes) -> str:
        """Write a new dump."""
        place = self.backend.stage()
        Path(place, NAME).write_bytes(content)
        return place


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with a dump of a day in February."""
    (tmp_path / NAME).write_bytes(b"old dump")
    at = datetime(2026, 2, 27, 3, 20, tzinfo=UTC).timestamp()
    os.utime(tmp_path / NAME, (at, at))
    (tmp_path / NAME).chmod(0o640)
    return Folder(tmp_path, DirectoryBackend(str(tmp_path), PATTERN, [tmp_path]))


def test_a_place_is_unfinished_since_before_it_was_made_until_it_is_destroyed(folder: Folder) -> None:
    before = datetime.now(UTC)
    place = folder.staged(b"new")
    listing = folder.backend.list()
    (unfinished,) = listing.partial
    assert unfinished.name == f"{STAGING}/{Path(place).name}"
    assert before - timedelta(seconds=1) < unfinished.began_at(timedelta(0)) <= datetime.now(UTC)
    assert [one.ref for one in listing.snapshots] == [NAME]
    assert listing.unparsable == []
    other = folder.backend.stage()
    folder.backend.unstage(place)
    assert [one.name for one in folder.backend.list().partial] == [f"{STAGING}/{Path(other).name}"]
    folder.backend.unstage()
    folder.backend.unstage()
    assert [one.name for one in folder.path.iterdir()] == [NAME]


@pytest.mark.parametrize("content", [b"new", b"new dump"], ids=["of another size", "of the same size"])
def test_a_new_dump_is_listed_as_it_was_said_and_told_from_the_old_one(
    folder: Folder, content: bytes
) -> None:
    pin, old = folder.pin, (folder.path / NAME).stat()
    place = folder.staged(content)
    new = folder.backend.dress(place, pin)
    assert new.pieces != pin.pieces
    assert folder.pin == pin, "nothing has happened yet"
    folder.backend.replace(place, pin, new)
    listing = folder.backend.list()
    assert list(listing.snapshots) == [new]
    assert (folder.path / NAME).read_bytes() == content
    status = (folder.path / NAME).stat()
    assert (status.st_mode, status.st_uid, status.st_gid) == (old.st_mode, old.st_uid, old.st_gid)
    assert old.st_mtime - 1 <= status.st_mtime <= old.st_mtime
    with pytest.raises(RewriteRefused):
        folder.backend.replace(place, pin, new)


def test_a_new_dump_looks_like_none_that_a_copy_elsewhere_may_bring_back(folder: Folder) -> None:
    former: list[str] = []
    for content in (b"new", b"old dump", b"new", b"odd dump"):  # shorter, then as long as before
        pin, place = folder.pin, folder.staged(content)
        former += pin.pieces
        new = folder.backend.dress(place, pin, former)
        assert not {*new.pieces} & {*former}
        folder.backend.replace(place, pin, new)


SPOILT: dict[str, Callable[[Folder, Path], object]] = {
    "the new one was written again": lambda _, new: new.write_bytes(b"other"),
    "the new one is gone": lambda _, new: new.unlink(),
    "the old one was touched": lambda folder, _: os.utime(folder.path / NAME),
    "the old one is gone": lambda folder, _: (folder.path / NAME).unlink(),
    "the old one has another name": lambda folder, _: os.link(folder.path / NAME, folder.path / "kept"),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_what_is_not_as_it_was_is_not_replaced(
    folder: Folder, spoil: Callable[[Folder, Path], object]
) -> None:
    pin, place = folder.pin, folder.staged(b"new")
    new = folder.backend.dress(place, pin)
    spoil(folder, Path(place, NAME))
    there = (folder.path / NAME).exists()
    with pytest.raises(RewriteRefused):
        folder.backend.replace(place, pin, new)
    assert (folder.path / NAME).exists() is there
    assert not there or (folder.path / NAME).read_bytes() == b"old dump"


def test_a_place_that_is_gone_is_told_and_nothing_is_replaced(folder: Folder) -> None:
    pin, place = folder.pin, folder.staged(b"new")
    new = folder.backend.dress(place, pin)
    folder.backend.unstage()  # by another source that looks there, say
    for reach in (lambda: folder.backend.dress(place, pin), lambda: folder.backend.replace(place, pin, new)):
        with pytest.raises(BackendUnavailable):
            reach()
    assert (folder.path / NAME).read_bytes() == b"old dump"


def test_who_may_not_give_the_new_dump_its_owner_is_told_whom_to_be(folder: Folder) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can lay down a dump of somebody else's")
    os.chown(folder.path, NOBODY, NOBODY)
    for above in (folder.path, *folder.path.parents[:3]):
        above.chmod(0o755)
    pin = folder.pin
    with as_nobody():
        place = folder.staged(b"new")
        with pytest.raises(RewriteRefused, match="run as user 0"):
            folder.backend.dress(place, pin)
        folder.backend.unstage(place)


def test_a_link_in_place_of_the_folder_leads_nowhere(
    folder: Folder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "precious").write_text("kept")
    (folder.path / STAGING).symlink_to(elsewhere)
    assert folder.backend.list().unparsable == [STAGING]
    for reach in (folder.backend.stage, folder.backend.unstage):
        with pytest.raises(BackendUnavailable):
            reach()
    assert (elsewhere / "precious").read_text() == "kept"
