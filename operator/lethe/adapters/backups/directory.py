"""Snapshots that are files of a directory, mounted into the operator's pod.

Only regular files that lie in the directory itself count, and only by the name that they have there: a
link leads out of it, and what is below it belongs to somebody else. The directory is opened once for each
call and everything is asked of what was opened, so that nobody can exchange it meanwhile.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lethe.domain.facts import ListedSnapshot
from lethe.domain.snapshot_names import InvalidName, NamePattern
from lethe.domain.snapshots import UnfinishedSnapshot, is_same
from lethe.ports.backups import (
    BackendError,
    BackendMisconfigured,
    BackendUnavailable,
    Deletion,
    DeletionResult,
    Listing,
    Pin,
    RewriteRefused,
)

_PARTIAL = (".tmp", ".part", ".partial", ".incomplete")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALLOW = "the setting LETHE_BACKUP_DIRECTORIES lists the directories that backups may lie in"
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
# mkfs makes it, root alone may look into it, and fsck puts nameless files there: no backup job does.
_NOT_OURS = "lost+found"
_STAGING, _STAMP = ".lethe-rewrite", "%Y%m%dT%H%M%S.%fZ"
"""The folder in which new dumps are written, and what each place there is called: when it was made."""


@dataclass(frozen=True, slots=True)
class _File:
    """A regular file as it was found under a name; `inode` is its device and number."""

    name: str
    taken_at: datetime
    changed_at: datetime
    piece: str
    size: int
    inode: tuple[int, int]
    names: int


class DirectoryBackend:
    """The regular files directly in `path` whose names `name_pattern` understands.

    `path` must lie in one of `allowed_roots` once all links are followed: a manifest may not lead the
    operator to files of the node or of its own. What `siblings` list, other folders whose snapshots hold the
    same stores, is known to lie there: a name may go while another one is theirs.
    """

    def __init__(
        self,
        path: str,
        name_pattern: str,
        allowed_roots: Sequence[Path],
        siblings: Callable[[], Iterable[DirectoryBackend]] = tuple,
    ) -> None:
        """Raise `BackendMisconfigured` for a bad pattern; whether the directory is there shows in use."""
        try:
            self._pattern = NamePattern.parse(name_pattern)
        except InvalidName as invalid:
            raise BackendMisconfigured(f"spec.directory.name: {invalid}") from None
        if "/" in name_pattern:
            raise BackendMisconfigured(
                f"spec.directory.name {name_pattern!r} has a slash",
                "snapshots lie directly in spec.directory.path; name the folder there",
            )
        self._path = path
        self._allowed_roots = allowed_roots
        self._siblings = siblings
        self._closed = False

    def list(self) -> Listing:
        """Return the files that lie there; links, folders and the like are reported as unparsable.

        Empty files with a dot in front hold nothing and don't count, unless they are named like a snapshot,
        nor does another name of a snapshot (`site-latest.dump`), a link or not.
        """
        snapshots, partial = [], []
        inodes, others = set[tuple[int, int]](), dict[str, tuple[int, int]]()
        with self._opened() as directory:
            for name in sorted(self._names(directory)):
                shown = _printable(name)
                status = self._status(directory, name)
                if status is None:
                    continue  # deleted since its name was read
                file = self._file(name, status)
                if file is not None:
                    inodes.add(file.inode)
                    snapshots.append(
                        ListedSnapshot(name, (file.piece,), file.taken_at, (file.changed_at,), file.size)
                    )
                elif stat.S_ISREG(status.st_mode) and _is_partial(name):
                    taken_at = self._told_by(name)
                    if status.st_size or taken_at is not None or not name.startswith("."):
                        partial.append(UnfinishedSnapshot(shown, _changed_at(status), taken_at))
                elif name == _STAGING and stat.S_ISDIR(status.st_mode):
                    partial += self._staged(directory)
                elif name != _NOT_OURS and not self._leads_to_one(directory, name, status):
                    others[shown] = status.st_dev, status.st_ino
        # Another name of a snapshot's own file, such as `site-latest.dump`, is no other bytes.
        unparsable = [name for name, inode in others.items() if inode not in inodes]
        return Listing(snapshots, unparsable, partial)

    def delete(self, pins: Sequence[Pin]) -> Mapping[str, Deletion]:
        """Unlink files that still are what was pinned, and sync the directory.

        A file of several names is left alone unless all others are pinned here and now, or are snapshots
        of a sibling: to unlink one leaves the bytes under the others.
        """
        if not pins:
            return {}
        with self._opened() as directory:
            found: dict[str, _File] = {}
            results: dict[str, Deletion] = {}
            for pin in pins:
                looked = self._look(directory, pin)
                if isinstance(looked, Deletion):
                    results[pin.ref] = looked
                else:
                    found[pin.ref] = looked
            names_left = Counter(file.inode for file in found.values())
            for file in found.values():
                others = file.names - names_left[file.inode]
                if others > 0:
                    others -= self._names_of_siblings(file.inode)
                results[file.name] = (
                    Deletion(
                        DeletionResult.FAILED,
                        f"{others} other name{'s' * (others != 1)} of this file (hard links) would keep its "
                        f"bytes{self._where(file)}; remove them, or let them expire at once with it",
                    )
                    if others > 0
                    else self._unlink(directory, file)
                )
            self._sync(directory)
        return results

    def gone(self, refs: Collection[str]) -> Mapping[str, str]:
        """Return the refs under which something lies, or may not be looked for."""
        remains = {}
        with self._opened() as directory:
            for ref in refs:
                if not self._is_listed(ref):
                    remains[ref] = "is no name that this source lists; nobody has looked for it"
                elif self._status(directory, ref) is not None:
                    remains[ref] = "a file of this name lies in the directory"
        return remains

    # Rewriting

    def stage(self) -> str:
        """Make a folder beside the snapshots, on the same file system."""
        name = datetime.now(UTC).strftime(_STAMP)
        with self._opened() as directory, self._reporting():
            like = os.fstat(directory)
            with suppress(FileExistsError):
                os.mkdir(_STAGING, dir_fd=directory)
            with self._staging(directory) as places:
                os.mkdir(name, dir_fd=places)
                with self._staging(directory, name) as place:
                    for folder in (places, place):  # as they were opened: a name may lead elsewhere by now
                        with suppress(
                            PermissionError
                        ):  # else only this user may write there, as may be meant
                            os.fchown(folder, -1, like.st_gid)
                        os.fchmod(folder, stat.S_IMODE(like.st_mode))
        return str(Path(self._path) / _STAGING / name)

    def dress(self, place: str, pin: Pin, former: Collection[str] = ()) -> ListedSnapshot:
        """Give the file dates, owner and mode of the snapshot, and sync it.

        Of a file of several names the others would keep the old bytes: refused.
        """
        with self._opened() as directory, self._reporting(), self._staging(directory, place) as folder:
            known = self._replaceable(directory, pin)
            old = os.stat(pin.ref, dir_fd=directory, follow_symlinks=False)
            found = self._status(folder, pin.ref)
            if found is None or not stat.S_ISREG(found.st_mode) or not found.st_size or found.st_nlink != 1:
                raise RewriteRefused(
                    "the dump says that it went well, and has written no file "
                    "$LETHE_SNAPSHOT_PLACE/$LETHE_SNAPSHOT"
                )
            # Of two that differ in nothing that is listed, nobody could tell which one lies there: not now,
            # nor when an earlier one is put back from elsewhere.
            written_at, taken = old.st_mtime_ns, {*pin.pieces, *former}
            while _piece(found.st_size, written_at) in taken:
                written_at -= 10**9
            try:
                file = os.open(pin.ref, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                try:
                    if (found.st_uid, found.st_gid) != (old.st_uid, old.st_gid):
                        os.fchown(file, old.st_uid, old.st_gid)
                    os.fchmod(file, stat.S_IMODE(old.st_mode))
                    os.utime(file, ns=(written_at, written_at))
                    os.fsync(file)
                    dressed = self._file(pin.ref, os.fstat(file))
                finally:
                    os.close(file)
            except PermissionError:
                raise RewriteRefused(
                    f"user {os.geteuid()} may not give the new dump owner ({old.st_uid}:{old.st_gid}), mode "
                    f"and date of the old one; let Lethe, and what dumps, run as user {old.st_uid}"
                ) from None
        if dressed is None or dressed.piece in taken:
            raise RewriteRefused("the volume keeps no dates by which the new dump is told from the old one")
        evidence = (dressed.changed_at,)
        return ListedSnapshot(known.name, (dressed.piece,), known.taken_at, evidence, dressed.size)

    def replace(self, place: str, pin: Pin, new: ListedSnapshot) -> None:
        """Rename the new file over the old one, each compared right before, and sync the directory."""
        with self._opened() as directory, self._reporting(), self._staging(directory, place) as folder:
            status = self._status(folder, pin.ref)
            file = self._file(pin.ref, status) if status is not None else None
            if file is None or (file.piece,) != new.pieces:
                raise RewriteRefused("the new dump was changed after it had been read back")
            self._replaceable(directory, pin)
            try:
                os.rename(pin.ref, pin.ref, src_dir_fd=folder, dst_dir_fd=directory)
            except OSError as error:
                refusal = _refusal(error)
                if refusal is None:
                    raise self._unavailable(error) from None
                raise RewriteRefused(refusal.message) from None
            self._sync(directory)

    def unstage(self, place: str | None = None) -> None:
        """Remove a folder of `stage`, or all."""
        with self._opened() as directory, self._reporting():
            try:
                with self._staging(directory) as places:
                    for name in self._names(places) if place is None else [Path(place).name]:
                        with suppress(FileNotFoundError):
                            found = os.stat(name, dir_fd=places, follow_symlinks=False)
                            if stat.S_ISDIR(found.st_mode):
                                shutil.rmtree(name, dir_fd=places)
                            else:
                                os.unlink(name, dir_fd=places)
                os.rmdir(_STAGING, dir_fd=directory)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:  # another drill writes there
                    raise
            self._sync(directory)

    @contextmanager
    def _staging(self, directory: int, place: str | None = None) -> Iterator[int]:
        """Open the folder of all places, or one; whatever a link leads to is none of them."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        opened = [os.open(_STAGING, flags, dir_fd=directory)]
        try:
            if place is not None:
                opened.append(os.open(Path(place).name, flags, dir_fd=opened[0]))
            yield opened[-1]
        finally:
            for descriptor in opened:
                os.close(descriptor)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Say of what the kernel refuses what it says of the directory."""
        try:
            yield
        except OSError as error:
            raise self._unavailable(error) from None

    def _staged(self, directory: int) -> Sequence[UnfinishedSnapshot]:
        """Return the places: what is written there holds nobody who was erased before it was made."""
        found = []
        with self._reporting(), suppress(FileNotFoundError), self._staging(directory) as places:
            for name in self._names(places):
                status, stamp = self._status(places, name), None
                with suppress(ValueError):
                    stamp = datetime.strptime(name, _STAMP).replace(tzinfo=UTC)
                if status is not None:
                    changed_at = _changed_at(status) if stamp is not None else None
                    shown = _printable(f"{_STAGING}/{name}")
                    found.append(UnfinishedSnapshot(shown, changed_at, stamp))
        return found

    def _replaceable(self, directory: int, pin: Pin) -> _File:
        """Return the file that is pinned. Raises `RewriteRefused` where its bytes would not go with it."""
        looked = self._look(directory, pin)
        if isinstance(looked, Deletion):
            raise RewriteRefused(looked.message, changed=looked.result is not DeletionResult.FAILED)
        others = looked.names - 1 - (self._names_of_siblings(looked.inode) if looked.names > 1 else 0)
        if others > 0:
            raise RewriteRefused(
                f"{others} other name{'s' * (others != 1)} of this file (hard links) would keep its "
                f"bytes{self._where(looked)}; remove them"
            )
        return looked

    def close(self) -> None:
        """Be nobody's sibling any more; the directory is open during a call only."""
        self._closed = True

    # What lies there

    def _file(self, name: str, status: os.stat_result) -> _File | None:
        taken_at = self._taken_at(name)
        if taken_at is None or not stat.S_ISREG(status.st_mode):
            return None
        changed_at = _changed_at(status)
        if changed_at is None:
            return None
        # Neither device nor inode: both change when a volume is mounted elsewhere or served over a
        # network, and every snapshot would look replaced.
        piece, inode = _piece(status.st_size, status.st_mtime_ns), (status.st_dev, status.st_ino)
        return _File(name, taken_at, changed_at, piece, status.st_size, inode, status.st_nlink)

    def _is_listed(self, ref: str) -> bool:
        """Tell whether a regular file of this name would be listed as a snapshot."""
        return self._taken_at(ref) is not None

    def _taken_at(self, name: str) -> datetime | None:
        # A name that can't be printed as it is can't be carried in a manifest either.
        if "/" in name or _printable(name) != name or _is_partial(name):
            return None
        return self._pattern.taken_at(name)

    def _leads_to_one(self, directory: int, name: str, status: os.stat_result) -> bool:
        """Tell whether it is a link without a date that leads to a snapshot in this very directory."""
        if not stat.S_ISLNK(status.st_mode) or self._taken_at(name) is not None:
            return False
        try:
            target = os.readlink(name, dir_fd=directory)
        except OSError:
            return False  # another thing by now
        if not self._is_listed(target):
            return False
        found = self._status(directory, target)
        return found is not None and stat.S_ISREG(found.st_mode)

    def _told_by(self, name: str) -> datetime | None:
        """Return what an unfinished file's name tells, whatever its writer has put around the later one."""
        stem = name.lstrip(".")
        for suffix in _PARTIAL:
            stem = stem.removesuffix(suffix)
        return self._pattern.taken_at(stem) or self._pattern.taken_at(stem.rpartition(".")[0])

    def _look(self, directory: int, pin: Pin) -> _File | Deletion:
        """Return the file that is pinned, or why there is nothing to unlink."""
        if not self._is_listed(pin.ref):
            return Deletion(DeletionResult.FAILED, "is no name that this source lists; nothing was touched")
        status = self._status(directory, pin.ref)
        if status is None:
            return Deletion(DeletionResult.ACCEPTED, "there is no file of this name any more")
        file = self._file(pin.ref, status)
        if file is None:
            return Deletion(DeletionResult.IDENTITY_MISMATCH, "no regular file any more, but something else")
        if not is_same(pin.pieces, (file.piece,)):
            return Deletion(
                DeletionResult.IDENTITY_MISMATCH, "the file has another size or modification time by now"
            )
        return file

    def _names_of_siblings(self, inode: tuple[int, int]) -> int:
        """Count the names of a file that siblings list as their snapshots."""
        mine, found = Path(self._path).resolve(), set[tuple[Path, str]]()
        for sibling in self._siblings():
            folder = Path(sibling._path).resolve()  # noqa: SLF001 - one of its own kind
            if sibling._closed or folder == mine:  # noqa: SLF001
                continue
            with suppress(BackendError), sibling._opened() as directory:  # noqa: SLF001
                found |= {(folder, name) for name in sibling._listed_as(directory, inode)}  # noqa: SLF001
        return len(found)

    def _listed_as(self, directory: int, inode: tuple[int, int]) -> Iterator[str]:
        for name in self._names(directory):
            status = self._status(directory, name)
            if status is not None and (status.st_dev, status.st_ino) == inode and self._file(name, status):
                yield name

    def _where(self, file: _File) -> str:
        """Tell a person where other names of a file may be: those beside the directory that are found."""
        below, found = Path(self._path).resolve().parent, list[str]()
        if any(below.is_relative_to(root.resolve()) for root in self._allowed_roots):
            with suppress(OSError), os.scandir(below) as folders:
                for folder in [one.path for one in folders if one.is_dir(follow_symlinks=False)]:
                    with suppress(OSError), os.scandir(folder) as names:
                        found += [one.path for one in names if one.inode() == file.inode[1]]
        return f" ({', '.join(map(_printable, sorted(found)[:4]))})" if found else ""

    def _unlink(self, directory: int, file: _File) -> Deletion:
        looked = self._look(directory, Pin(file.name, (file.piece,)))
        if isinstance(looked, Deletion):
            return looked
        if looked.inode != file.inode:
            return Deletion(DeletionResult.IDENTITY_MISMATCH, "the file was replaced just now")
        try:
            os.unlink(file.name, dir_fd=directory)
        except FileNotFoundError:
            return Deletion(DeletionResult.ACCEPTED, "there is no file of this name any more")
        except OSError as error:
            refusal = _refusal(error)
            if refusal is None:
                raise self._unavailable(error) from None
            return refusal
        return Deletion(DeletionResult.ACCEPTED)

    # The directory

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the directory, if it is allowed; yield the descriptor."""
        try:
            real = Path(self._path).resolve()
            roots = [root.resolve() for root in self._allowed_roots]
        except (ValueError, RuntimeError, OSError):  # a NUL; links in a circle
            raise self._misconfigured("is no path that can be followed", "correct it") from None
        self._require_allowed(real, roots)
        try:
            directory = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}:
                raise self._misconfigured(
                    "is not a directory in this pod", "is the volume mounted?"
                ) from None
            raise self._unavailable(error) from None
        try:
            # What was opened, not what was asked for: a link may have been exchanged in between.
            self._require_allowed(Path(f"/proc/self/fd/{directory}").readlink(), roots)
            yield directory
        finally:
            os.close(directory)

    def _require_allowed(self, real: Path, roots: Sequence[Path]) -> None:
        if not any(real.is_relative_to(root) for root in roots) or not Path(self._path).is_absolute():
            raise self._misconfigured("is in none of the directories that are allowed", _ALLOW)

    def _names(self, directory: int) -> Sequence[str]:
        try:
            return os.listdir(directory)
        except OSError as error:
            raise self._unavailable(error) from None

    def _status(self, directory: int, name: str) -> os.stat_result | None:
        """Return what lies under a name, itself and not where it leads; `None`: nothing."""
        try:
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None  # nothing can have that name
            raise self._unavailable(error) from None

    def _sync(self, directory: int) -> None:
        try:
            os.fsync(directory)
        except OSError as error:
            # Some file systems have nothing to sync in a directory and say so with EINVAL.
            if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
                raise self._unavailable(error) from None

    def _misconfigured(self, problem: str, remedy: str) -> BackendMisconfigured:
        return BackendMisconfigured(f"spec.directory.path {_printable(self._path)} {problem}", remedy)

    def _unavailable(self, error: OSError) -> BackendUnavailable:
        remedy = (
            f"let user {os.geteuid()} read the directory"
            if error.errno in _FORBIDDEN
            else "is the volume's server up?"
        )
        text = os.strerror(error.errno) if error.errno else "unknown error"
        return BackendUnavailable(
            f"spec.directory.path {_printable(self._path)} can't be used: {text}", remedy
        )


def _refusal(error: OSError) -> Deletion | None:
    """Return what the kernel's refusal to unlink means; `None`: it tells of the volume, not of the file."""
    if error.errno == errno.EROFS:
        return Deletion(DeletionResult.NOT_PERMITTED, "the volume is mounted read-only; mount it writable")
    if error.errno in _FORBIDDEN:
        return Deletion(
            DeletionResult.NOT_PERMITTED,
            f"user {os.geteuid()} may not delete in the directory; let it write there",
        )
    return Deletion(DeletionResult.FAILED, "the file is in use") if error.errno == errno.EBUSY else None


def _changed_at(status: os.stat_result) -> datetime | None:
    """Return when a file was written last; `None`: a date that no calendar has tells nothing."""
    try:
        return _EPOCH + timedelta(microseconds=status.st_mtime_ns // 1000)
    except OverflowError:
        return None


def _piece(size: int, written_at: int) -> str:
    """Return what makes a file itself; `written_at` is in nanoseconds."""
    return f"{size}:{written_at}"


def _is_partial(name: str) -> bool:
    return name.startswith(".") or name.endswith(_PARTIAL)


def _printable(name: str) -> str:
    """Return a name of any bytes as text of one line that every encoding can carry.

    A backslash is escaped as well, so that no other file has this text for its name.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(
        one if one.isprintable() and one != "\\" else one.encode("unicode_escape").decode() for one in name
    )
