"""Snapshots in real restic repositories."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devtools.builds.restic.build import restic
from lethe.adapters.backups import restic as restic_adapter
from lethe.adapters.backups.restic import ResticBackend
from lethe.ports.backups import (
    Backend,
    BackendMisconfigured,
    BackendUnavailable,
    DeletionResult,
    Pin,
)
from tests.adapters.backups.quick_key import quicken
from tests.contracts.backups import FIRST_NIGHT, BackendContract, World

PASSWORD = "canary-password-000371q"
WRONG = "canary-password-000372q"
HOST, OTHER_HOST = "db-1", "db-2"
DATABASE = "/dump"


@dataclass
class ResticWorld(World):
    """A repository in a folder; each snapshot has one file, of random bytes, at `/dump` of `db-1`."""

    folder: Path
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    def restic(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run restic as a person would, with a cache of its own."""
        return subprocess.run(
            [restic(), "--no-cache", *arguments],
            input=stdin,
            capture_output=True,
            check=True,
            env={
                "PATH": os.environ["PATH"],
                "RESTIC_REPOSITORY": str(self.repository),
                "RESTIC_PASSWORD": PASSWORD,
            },
        ).stdout.decode()

    def backup(
        self, taken_at: datetime, *, host: str = HOST, path: str = DATABASE, content: bytes = b""
    ) -> str:
        said = self.restic(
            "backup",
            "--json",
            "--stdin",
            f"--stdin-filename={path}",
            f"--host={host}",
            "--tag=nightly",
            f"--time={taken_at.astimezone():%Y-%m-%d %H:%M:%S}",
            stdin=content or os.urandom(20_000),
        )
        identity: str = json.loads(said.splitlines()[-1])["snapshot_id"]
        return identity

    def put(self, taken_at: datetime) -> str:
        return self.backup(taken_at)

    def remove(self, ref: str) -> None:
        self.restic("forget", "--prune", "--max-unused=0", ref)

    def put_elsewhere(self) -> str:
        self.backup(FIRST_NIGHT, path="/other")
        return self.backup(FIRST_NIGHT, host=OTHER_HOST)

    def contents(self) -> Mapping[str, bytes]:
        # A snapshot's file is its description; that all it describes is there and whole says the check.
        self.restic("check", "--read-data")
        return {path.name: path.read_bytes() for path in (self.repository / "snapshots").iterdir()}

    def packs(self) -> set[str]:
        """Return the packs: the files that hold what was backed up, each named by its digest."""
        return {path.name for path in (self.repository / "data").rglob("*") if path.is_file()}

    def locks(self) -> list[Path]:
        """Return the locks that are held; one that is just being written has another name still."""
        return [path for path in (self.repository / "locks").iterdir() if "-tmp-" not in path.name]

    def asked(
        self,
        *,
        repository: str | None = None,
        environment: Mapping[str, str] | None = None,
        roots: Sequence[Path] | None = None,
        binary: str = "",
        look_seconds: float = 300,
        turn_seconds: int = 0,
        pause_seconds: float = 0,
    ) -> ResticBackend:
        return ResticBackend(
            str(self.repository) if repository is None else repository,
            {"RESTIC_PASSWORD": PASSWORD} if environment is None else environment,
            HOST,
            [DATABASE],
            [self.folder] if roots is None else roots,
            binary or str(restic()),
            look_seconds=look_seconds,
            turn_seconds=turn_seconds,
            pause_seconds=pause_seconds,
        )

    @contextmanager
    def away(self) -> Iterator[Backend]:
        yield self.asked(environment={"RESTIC_PASSWORD": WRONG})

    def misplaced(self) -> tuple[Backend, str]:
        return self.asked(repository=str(self.folder / "not mounted")), "spec.restic.repository"

    @property
    def secrets(self) -> Sequence[str]:
        return (PASSWORD, WRONG)


@pytest.fixture(scope="session")
def empty_repository(built_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("restic")
    ResticWorld(None, folder).restic("init")  # type: ignore[arg-type]  # nobody asks the backend here
    quicken(folder / "repository", PASSWORD)
    return folder / "repository"


@pytest.fixture
def world(open_folder: Path, empty_repository: Path) -> Iterator[ResticWorld]:
    subprocess.run(["cp", "-a", empty_repository, open_folder / "repository"], check=True)
    world = ResticWorld(None, open_folder)  # type: ignore[arg-type]  # it comes in the next line
    world.backend = world.asked()
    yield world
    world.backend.close()


class TestResticBackend(BackendContract):
    """restic passes the suite."""


def test_when_a_backup_really_ran_is_evidence_beside_the_time_that_was_stated(world: ResticWorld) -> None:
    before = datetime.now(UTC)
    ref = world.backup(FIRST_NIGHT)
    seen = world.seen()[ref]
    assert seen.taken_at == FIRST_NIGHT
    assert len(seen.evidence) == 2
    assert all(before <= moment <= datetime.now(UTC) for moment in seen.evidence)


def test_only_snapshots_of_the_host_with_all_of_the_paths_are_listed(world: ResticWorld) -> None:
    ours, *others = (
        world.backup(FIRST_NIGHT),
        world.backup(FIRST_NIGHT, path="/below"),
        world.backup(FIRST_NIGHT, path="/dumped"),
        world.backup(FIRST_NIGHT, host=OTHER_HOST),
        world.backup(FIRST_NIGHT, host="db-11"),
    )
    assert set(world.seen()) == {ours}
    for ref in others:
        pin = Pin(ref, tuple(piece for one in world.seen().values() for piece in one.pieces))
        assert world.delete_one(pin) is DeletionResult.FAILED
    everything = ResticBackend(
        str(world.repository), {"RESTIC_PASSWORD": PASSWORD}, None, [], [world.folder], str(restic())
    )
    assert {one.ref for one in everything.list().snapshots} == {ours, *others}
    everything.close()


def test_bytes_that_only_a_deleted_snapshot_held_are_gone_from_the_packs(world: ResticWorld) -> None:
    world.backup(FIRST_NIGHT)
    before = world.packs()
    deleted = world.backup(FIRST_NIGHT)
    only_its = world.packs() - before
    assert only_its
    assert world.delete_one(*world.pin(deleted)) is DeletionResult.ACCEPTED
    assert world.backend.gone([deleted]) == {}
    assert world.packs() == before
    assert world.backend.gone([deleted]) == {}


def test_not_even_the_unused_bytes_that_restic_would_tolerate_stay(world: ResticWorld) -> None:
    # One pack with a large file that stays and a small one that goes: restic leaves 5 % unused by default,
    # save in packs of less than a 25th of their full size (16 MiB).
    kept = world.folder / "kept"
    kept.write_bytes(os.urandom(3_000_000))
    small = world.folder / "small"
    small.write_bytes(os.urandom(1_000))
    both = world.restic("backup", "--json", f"--host={HOST}", str(kept), str(small))
    world.restic("backup", f"--host={HOST}", str(kept))
    deleted: str = json.loads(both.splitlines()[-1])["snapshot_id"]
    (blob,) = json.loads(world.restic("cat", "tree", f"{deleted}:{world.folder}"))["nodes"][1]["content"]
    assert blob in world.restic("list", "blobs")
    backend = ResticBackend(
        str(world.repository),
        {"RESTIC_PASSWORD": PASSWORD},
        HOST,
        [str(small)],
        [world.folder],
        str(restic()),
    )
    world.backend = backend
    assert world.delete_one(*world.pin(deleted)) is DeletionResult.ACCEPTED
    assert world.backend.gone([deleted]) == {}
    assert blob not in world.restic("list", "blobs")


def test_what_two_snapshots_share_outlives_one_of_them(world: ResticWorld) -> None:
    content = os.urandom(20_000)
    first, second = (
        world.backup(FIRST_NIGHT, content=content),
        world.backup(FIRST_NIGHT, host=OTHER_HOST, content=content),
    )
    kept = world.contents()[second]
    world.backend.delete(world.pin(first))
    assert world.contents() == {second: kept}


def test_a_locked_repository_is_left_alone_with_a_hint(world: ResticWorld) -> None:
    deleted, kept = world.nights(2)
    pins = world.pin(deleted)
    with locked(world):
        assert set(world.seen()) == {deleted, kept}
        (deletion,) = world.backend.delete(pins).values()
    assert deletion.result is DeletionResult.FAILED
    assert "restic unlock" in deletion.message
    assert set(world.seen()) == {deleted, kept}


def test_a_prune_of_others_hides_no_snapshot_however_long_it_lasts(world: ResticWorld) -> None:
    (ref,) = world.nights(1)
    pins = world.pin(ref)
    while True:  # once more, should it have ended before it was halted
        prune = subprocess.Popen(
            [restic(), "--no-cache", "--quiet", "prune"],
            stderr=subprocess.DEVNULL,
            env={"RESTIC_REPOSITORY": str(world.repository), "RESTIC_PASSWORD": PASSWORD},
        )
        while not world.locks() and prune.poll() is None:
            pass
        prune.send_signal(signal.SIGSTOP)
        if world.locks():
            break
        prune.send_signal(signal.SIGCONT)
        prune.wait()
    try:
        assert set(world.seen()) == {ref}
        assert world.delete_one(*pins) is DeletionResult.FAILED
    finally:
        prune.send_signal(signal.SIGCONT)
        prune.wait()
    assert world.delete_one(*pins) is DeletionResult.ACCEPTED


def test_a_snapshot_forgotten_but_not_pruned_is_not_gone_until_somebody_asks_again(
    world: ResticWorld,
) -> None:
    (ref,) = world.nights(1)
    packs = world.packs()
    world.restic("forget", ref)
    with locked(world):
        remains = world.asked().gone([ref])
    assert "prune" in remains[ref]
    assert "restic unlock" in remains[ref]
    assert world.packs() == packs
    assert world.asked().gone([ref]) == {}
    assert not world.packs()


def test_a_prune_that_fails_after_forgetting_leaves_a_deletion_accepted_and_not_gone(
    world: ResticWorld,
) -> None:
    (ref,) = world.nights(1)
    packs = world.packs()
    failing = world.folder / "failing"
    failing.write_text(f'#!/bin/sh\n[ "$1" != prune ] || exit 1\nexec {restic()} "$@"\n')
    failing.chmod(0o755)
    backend = world.asked(binary=str(failing))
    (deletion,) = backend.delete(world.pin(ref)).values()
    assert deletion.result is DeletionResult.ACCEPTED
    assert "its bytes stay" in backend.gone([ref])[ref]
    assert world.packs() == packs
    assert world.delete_one(Pin(ref, ("whatever it was",))) is DeletionResult.ACCEPTED
    assert world.backend.gone([ref]) == {}
    assert not world.packs()
    backend.close()


def test_pruning_and_forgetting_wait_for_their_turn(world: ResticWorld) -> None:
    first, second = world.nights(2)
    pins = world.pin(first, second)
    patient = world.asked(turn_seconds=60)
    with ThreadPoolExecutor(1) as waiting:
        with locked(world):
            deleting = waiting.submit(patient.delete, pins[:1])
            with pytest.raises(FutureTimeout):
                deleting.result(timeout=3)
        assert deleting.result()[first].result is DeletionResult.ACCEPTED
        with locked(world):
            pruning = waiting.submit(patient.gone, [first])
            with pytest.raises(FutureTimeout):
                pruning.result(timeout=3)
        assert pruning.result() == {}
    assert set(world.seen()) == {second}
    patient.close()


def test_a_repository_is_pruned_once_a_day_whoever_asks_and_goes_on_after_a_lock(world: ResticWorld) -> None:
    refs = world.nights(3)
    pins = world.pin(*refs)
    daily = world.asked(pause_seconds=3600)
    assert daily.delete(pins[:1])[refs[0]].result is DeletionResult.ACCEPTED
    with locked(world):
        assert "is locked" in daily.gone([refs[0]])[refs[0]]
    assert daily.gone([refs[0]]) == {}, "what had no turn was no prune"
    packs = world.packs()
    another = world.asked(pause_seconds=3600)
    for ref, pinned, backend in zip(refs[1:], pins[1:], (daily, another), strict=True):
        assert backend.delete([pinned])[ref].result is DeletionResult.ACCEPTED
        assert "a day after the last" in backend.gone([ref])[ref]
    assert world.packs() == packs
    assert world.backend.gone(refs) == {}, "and the next day it resumes"
    assert not world.packs()
    daily.close()
    another.close()


def test_a_snapshot_that_restic_can_not_read_is_reported_instead_of_being_left_out(
    world: ResticWorld,
) -> None:
    damaged, whole = world.nights(2)
    pins = world.pin(damaged)
    path = world.repository / "snapshots" / damaged
    path.chmod(0o600)
    path.write_bytes(bytes(100))
    world.backend.close()  # and with it what it has in its cache
    listing = world.backend.list()
    assert list(listing.unparsable) == [damaged]
    assert [one.ref for one in listing.snapshots] == [whole]
    assert world.delete_one(*pins) is DeletionResult.FAILED
    assert set(world.backend.gone([damaged])) == {damaged}
    # No prune can tell then what is in use: that another one is gone is not proven either.
    assert world.delete_one(*world.pin(whole)) is DeletionResult.ACCEPTED
    assert set(world.backend.gone([whole])) == {whole}
    assert path.exists()


def test_only_full_ids_are_deleted(world: ResticWorld) -> None:
    (ref,) = world.nights(1)
    (pin,) = world.pin(ref)
    for short in (ref[:8], ref[:63], ref.upper(), f"{ref} ", f"{ref}:/", f"{ref}\n"):
        assert world.delete_one(replace(pin, ref=short)) is DeletionResult.FAILED
        assert world.backend.gone([short])
    assert set(world.seen()) == {ref}


def test_a_wrong_password_names_the_field_of_the_secret(world: ResticWorld) -> None:
    with pytest.raises(BackendUnavailable, match="RESTIC_PASSWORD"):
        world.asked(environment={"RESTIC_PASSWORD": WRONG}).list()
    for environment in ({}, {"RESTIC_PASSWORD": ""}, {"RESTIC_PASSWORD_COMMAND": f"echo {PASSWORD}"}):
        with pytest.raises(BackendMisconfigured, match="RESTIC_PASSWORD"):
            world.asked(environment=environment).list()
    with pytest.raises(BackendMisconfigured, match="zero byte") as raised:
        world.asked(environment={"RESTIC_PASSWORD": f"{PASSWORD}\0"}).list()
    assert PASSWORD not in str(raised.value)


def test_a_folder_that_is_no_repository_is_named(world: ResticWorld) -> None:
    (world.folder / "empty").mkdir()
    with pytest.raises(BackendMisconfigured, match=r"spec\.restic\.repository"):
        world.asked(repository=str(world.folder / "empty")).list()


def test_an_image_without_restic_is_told_what_it_lacks(world: ResticWorld) -> None:
    for binary in ("no-such-restic", str(world.folder)):
        with pytest.raises(BackendMisconfigured, match="has restic"):
            world.asked(binary=binary).list()
    with pytest.raises(BackendUnavailable, match="restic"):
        world.asked(binary="/bin/true").list()
    with pytest.raises(BackendUnavailable, match="restic"):
        world.asked(binary="/bin/echo").list()


def test_a_repository_outside_of_what_is_allowed_is_refused(world: ResticWorld) -> None:
    allowed = world.folder / "allowed"
    allowed.mkdir()
    (allowed / "link").symlink_to(world.repository)
    (allowed / "circle").symlink_to(allowed / "circle")
    for path in (
        world.repository,
        f"local:{world.repository}",
        allowed / "link",
        allowed / "circle",
        f"{allowed}/../repository",
        "repository",
        "s3",
        "",
        "S3:http://127.0.0.1/x",
    ):
        with pytest.raises(BackendMisconfigured, match="LETHE_BACKUP_DIRECTORIES"):
            world.asked(repository=str(path), roots=[allowed]).list()
    for path in ("sftp:-oProxyCommand=touch:/x", "rclone:remote:x"):
        with pytest.raises(BackendMisconfigured, match=r"spec\.restic\.repository"):
            world.asked(repository=path, roots=[Path("/")]).list()


def test_restic_is_given_nothing_but_what_it_needs(
    world: ResticWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = world.folder / "spy"
    seen = world.folder / "seen"
    spy.write_text(f'#!/bin/sh\nenv >>{seen}; echo "$@" >>{seen}.arguments\nexec {restic()} "$@"\n')
    spy.chmod(0o755)
    monkeypatch.setenv("LETHE_LEDGER_URL", "of the operator")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "of the operator")
    monkeypatch.setenv("RESTIC_PASSWORD", "of the operator")
    secret = {
        "RESTIC_PASSWORD": PASSWORD,
        "AWS_ACCESS_KEY_ID": "canary-key-000373q",
        "AWS_CONFIG_FILE": "/x",
        "AWS_SHARED_CREDENTIALS_FILE": "/x",
        "RESTIC_PASSWORD_COMMAND": "touch /x",
        "RESTIC_REPOSITORY": "/x",
        "GOOGLE_APPLICATION_CREDENTIALS": "/x",
        "LD_PRELOAD": "/x",
        "PATH": "/x",
    }
    (ref,) = world.nights(1)
    pins = world.pin(ref)
    backend = world.asked(binary=str(spy), environment=secret)
    backend.list()
    backend.delete(pins)
    assert backend.gone([ref]) == {}
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} - {"SSL_CERT_FILE", "SSL_CERT_DIR"} - {
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
    } == {"PATH", "TMPDIR", "RESTIC_CACHE_DIR", "RESTIC_REPOSITORY", "RESTIC_PASSWORD", "AWS_ACCESS_KEY_ID"}
    assert "/x" not in seen.read_text()
    arguments = Path(f"{seen}.arguments").read_text()
    assert PASSWORD not in arguments
    assert str(world.repository) not in arguments
    assert [line.split()[0] for line in arguments.splitlines()].count("forget") == 1
    cache = next(line for line in seen.read_text().splitlines() if line.startswith("RESTIC_CACHE_DIR="))
    assert Path(cache.partition("=")[2]).is_dir()
    backend.close()
    assert not Path(cache.partition("=")[2]).exists()


def test_a_server_that_never_answers_is_given_up_and_its_credentials_are_not_told(world: ResticWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        backend = world.asked(
            repository=f"rest:http://somebody:{WRONG}@127.0.0.1:{silent.getsockname()[1]}/", look_seconds=2
        )
        with pytest.raises(BackendUnavailable, match="had not ended") as raised:
            backend.list()
    assert WRONG not in repr(raised.value)
    assert PASSWORD not in repr(raised.value)


def test_a_repository_of_which_restic_says_too_much_is_told_and_left_unlocked(
    world: ResticWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = world.nights(8)
    monkeypatch.setattr(restic_adapter, "MOST_BYTES", 1024)
    with pytest.raises(BackendUnavailable, match=r"than 0 MiB .* spec\.restic\.repository"):
        world.backend.list()
    monkeypatch.undo()
    assert set(world.seen()) == set(refs)
    assert not world.locks()


def test_a_program_that_writes_without_end_is_ended_and_takes_no_memory(
    world: ResticWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = world.folder / "endless"
    endless.write_text("#!/bin/sh\ntrap 'exit 1' TERM\nyes >&2 &\nyes\n")
    endless.chmod(0o755)
    monkeypatch.setattr(restic_adapter, "_ENDING_SECONDS", 0.5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BackendUnavailable, match="says more than 32 MiB"):
        world.asked(binary=str(endless)).list()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_a_repository_that_may_not_be_written_permits_nothing(world: ResticWorld) -> None:
    deleted, kept = world.nights(2)
    pins = world.pin(deleted)
    subprocess.run(["chmod", "-R", "a+rX,a-w", world.repository], check=True)
    powerless = world.folder / "powerless"
    drop = "setpriv --reuid=65534 --inh-caps=-all" if os.geteuid() == 0 else "exec"
    powerless.write_text(f'#!/bin/sh\n{drop} {world.folder}/restic "$@"\n')
    powerless.chmod(0o755)
    # Others may not enter the folder of the cache.
    subprocess.run(["cp", restic(), world.folder / "restic"], check=True)
    backend = world.asked(binary=str(powerless))
    (deletion,) = backend.delete(pins).values()
    assert deletion.result is DeletionResult.NOT_PERMITTED
    subprocess.run(["chmod", "-R", "u+w", world.repository], check=True)
    assert set(world.seen()) == {deleted, kept}


@contextmanager
def locked(world: ResticWorld) -> Iterator[None]:
    """Have another restic at work: a backup that waits for its input."""
    backup = subprocess.Popen(
        [
            restic(),
            "--no-cache",
            "backup",
            "--stdin",
            f"--host={OTHER_HOST}",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"RESTIC_REPOSITORY": str(world.repository), "RESTIC_PASSWORD": PASSWORD},
    )
    try:
        while not world.locks():
            assert backup.poll() is None
        yield
    finally:
        # Asked to end it may take the end of its input for the whole of it, and leave a snapshot behind.
        backup.kill()
        backup.communicate()
        for lock in (world.repository / "locks").iterdir():
            lock.unlink()
