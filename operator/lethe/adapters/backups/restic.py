"""Snapshots in a restic repository, by the program itself (0.17 or newer: its exit codes say what is wrong).

A snapshot's id is the digest of its description, so it can't be replaced under its name. What it held lies
in packs, together with what others hold: `forget` only takes the description away, `prune` the bytes.

Whether an earlier prune succeeded is written nowhere, and what the program says in a dry run is text for
people. So `gone` prunes: with nothing left to do that changes nothing, and only its success, with no unused
byte tolerated, proves that what no snapshot holds is not there. A forgotten snapshot whose prune failed or
was killed is thus repaired by whoever asks for it next.

A prune locks the repository for as long as it takes, and a backup that comes meanwhile fails. So there is
one a day at most, whoever asks for it, and both commands wait for their turn.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from lethe.adapters.hosts import (
    ANYWHERE,
    HostRefused,
    NameNotAnswered,
    NameUnknown,
    Resolver,
    require_encryption,
)
from lethe.domain.facts import ListedSnapshot
from lethe.domain.hosts import is_host
from lethe.domain.snapshots import is_same
from lethe.ports.backups import (
    BackendError,
    BackendMisconfigured,
    BackendUnavailable,
    Deletion,
    DeletionResult,
    Listing,
    Pin,
)

FROM_SECRET = re.compile(
    "RESTIC_PASSWORD|RESTIC_REST_(USERNAME|PASSWORD)"
    "|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|DEFAULT_REGION|REGION)"
    "|B2_ACCOUNT_(ID|KEY)"
    "|AZURE_ACCOUNT_(NAME|KEY|SAS)|AZURE_ENDPOINT_SUFFIX"
    "|GOOGLE_PROJECT_ID|GOOGLE_ACCESS_TOKEN"
    "|OS_(AUTH_URL|REGION_NAME|USERNAME|USER_ID|PASSWORD|TENANT_ID|TENANT_NAME|USER_DOMAIN_NAME"
    "|USER_DOMAIN_ID|PROJECT_NAME|PROJECT_DOMAIN_NAME|PROJECT_DOMAIN_ID|TRUST_ID|STORAGE_URL|AUTH_TOKEN"
    "|APPLICATION_CREDENTIAL_(ID|NAME|SECRET))"
    "|ST_(AUTH|USER|KEY)"
)
"""The fields of the Secret that restic is given. Those that name a file or a command are not among them:
whoever may write the Secret could have the operator read its own files, or run something."""

_FROM_OPERATOR = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_REMOTE = ("s3:", "rest:", "b2:", "azure:", "gs:", "swift:")
_NEEDS_PROGRAM = ("sftp:", "rclone:")
_ID = re.compile(r"[0-9a-f]{64}")
_LOOK_UP_SECONDS = 10.0
_IDS_AT_ONCE = 1000  # 64 kB of a command line
_ENDING_SECONDS = 30.0
_READ_AT_ONCE = 64 * 1024
MOST_BYTES = 32 * 1024 * 1024
"""Of what one command says: the descriptions of some thirty thousand snapshots."""
_NO_REPOSITORY, _LOCKED, _WRONG_PASSWORD = 10, 11, 12
_FORBIDDEN = "access is denied"
_SYMPTOMS = {
    "access denied": _FORBIDDEN,
    "accessdenied": _FORBIDDEN,
    "permission denied": _FORBIDDEN,
    "operation not permitted": _FORBIDDEN,
    "forbidden": _FORBIDDEN,
    "read-only file system": _FORBIDDEN,
    "connection refused": "the connection is refused",
    "no such host": "there is no such host",
    "x509": "its certificate is not trusted",
    "no credentials found": "the Secret has no credentials for it",
    "i/o timeout": "it does not answer in time",
    "no space left": "no space is left",
    "ciphertext verification failed": "it is damaged",
}
"""What restic's messages tell, in words that hold no address."""
_prunes: dict[str, float] = {}
"""When the last prune of each repository that had its turn began here (monotonic), whatever came of it."""
_UNLOCK = (
    "wait until the other restic has ended; where none runs any more, `restic unlock` removes what it left"
)


class _Locked(BackendUnavailable):
    """Another restic has the repository locked."""


class _SaysTooMuch(Exception):
    """A command says more than may be taken into memory."""


class _Failed(Exception):
    """A command of restic's ended with an error that tells of the repository, not of its settings."""

    def __init__(self, symptom: str) -> None:
        self.symptom = symptom
        super().__init__(symptom)


@dataclass(frozen=True, slots=True)
class _Found:
    """What lies in the repository: snapshots of the source by id, those of others, those nobody can read."""

    ours: Mapping[str, ListedSnapshot]
    others: frozenset[str]
    unreadable: frozenset[str]


class ResticBackend:
    """The snapshots of `host` (`None`: any) that hold all of `paths`, in one repository.

    `environment` is the Secret; only what `FROM_SECRET` matches is used. A repository on a file system must
    lie in one of `allowed_roots`. A look may last `look_seconds`, a prune `prune_seconds`; then it is ended.
    Forgetting and pruning wait `turn_seconds` for another restic; prunes begin `pause_seconds` apart.
    """

    def __init__(
        self,
        repository: str,
        environment: Mapping[str, str],
        host: str | None,
        paths: Sequence[str],
        allowed_roots: Sequence[Path],
        binary: str = "restic",
        resolver: Resolver = ANYWHERE,
        *,
        allow_plaintext: bool = False,
        look_seconds: float = 300,
        prune_seconds: float = 6 * 3600,
        turn_seconds: int = 600,
        pause_seconds: float = 23 * 3600,  # a day, less what a scan comes later on the next
    ) -> None:
        """Touch nothing yet: what is wrong with the arguments shows in use."""
        self._repository = repository
        self._given = {name: value for name, value in environment.items() if FROM_SECRET.fullmatch(name)}
        self._host = host
        self._paths = frozenset(paths)
        self._allowed_roots = allowed_roots
        self._binary = binary
        self._resolver, self._allow_plaintext = resolver, allow_plaintext
        self._look_seconds = look_seconds
        self._prune_seconds = prune_seconds
        self._turn = f"--retry-lock={turn_seconds}s"
        self._turn_seconds, self._pause_seconds = turn_seconds, pause_seconds
        self._cache: tempfile.TemporaryDirectory[str] | None = None

    def list(self) -> Listing:
        """Return the snapshots of host and paths; those that restic can't read are unparsable."""
        found = self._look()
        return Listing(list(found.ours.values()), sorted(found.unreadable))

    def delete(self, pins: Sequence[Pin]) -> Mapping[str, Deletion]:
        """Forget exactly the snapshots that are pinned. Their bytes go with the prune of `gone`."""
        if not pins:
            return {}
        found = self._look()
        results = {pin.ref: self._refusal(pin, found) for pin in pins}
        wanted = [ref for ref, refused in results.items() if refused is None]
        failure = self._forget(wanted)
        left = self._ids() if wanted else frozenset[str]()
        return {
            ref: refused or (failure if ref in left else Deletion(DeletionResult.ACCEPTED, "it is forgotten"))
            for ref, refused in results.items()
        }

    def gone(self, refs: Collection[str]) -> Mapping[str, str]:
        """Return which snapshots are not forgotten, and, unless a prune succeeds here and now, all others."""
        if not refs:
            return {}
        ids = self._ids()
        remains = {}
        for ref in refs:
            if not _ID.fullmatch(ref):
                remains[ref] = "is no full id of a restic snapshot; nobody has looked for it"
            elif ref in ids:
                remains[ref] = "the repository still has a snapshot of this id"
        forgotten = [ref for ref in refs if ref not in remains]
        problem = self._prune() if forgotten else ""
        return remains | (dict.fromkeys(forgotten, problem) if problem else {})

    def close(self) -> None:
        """Remove the cache: what it holds is encrypted, as in the repository."""
        if self._cache is not None:
            self._cache.cleanup()
            self._cache = None

    # What lies there

    def _look(self) -> _Found:
        """Return what the repository holds, unlocked: a backup that runs for hours must not hide the rest.

        restic leaves out the snapshots that it can't read and calls that a success, so all ids are counted.
        """
        before = self._ids()
        readable = self._snapshots()
        ours, others = {}, set()
        for one in readable:
            seen = _listed(one)
            held = one.get("paths")
            paths = held if isinstance(held, list) else []
            if self._host in {None, one.get("hostname")} and self._paths <= set(paths):
                ours[seen.ref] = seen
            else:
                others.add(seen.ref)
        # What was forgotten in between is not unreadable.
        missing = before - ours.keys() - others
        return _Found(ours, frozenset(others), missing & self._ids() if missing else frozenset())

    def _ids(self) -> frozenset[str]:
        """Return the ids of all snapshots, also of those that can't be read."""
        lines = self._ask("list", "snapshots", "--no-lock").split()
        if not all(_ID.fullmatch(line) for line in lines):
            raise _not_understood()
        return frozenset(lines)

    def _snapshots(self) -> Sequence[Mapping[str, object]]:
        try:
            answer = json.loads(self._ask("snapshots", "--json", "--no-lock"))
        except ValueError:
            raise _not_understood() from None
        if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
            raise _not_understood()
        return answer

    def _refusal(self, pin: Pin, found: _Found) -> Deletion | None:
        """Return what becomes of a pin without anything being deleted; `None`: it is to be forgotten."""
        if not _ID.fullmatch(pin.ref):
            return Deletion(DeletionResult.FAILED, "is no full id of a restic snapshot; nothing was touched")
        if pin.ref in found.others:
            return Deletion(DeletionResult.FAILED, "is a snapshot of another host or of other paths")
        if pin.ref in found.unreadable:
            return Deletion(
                DeletionResult.FAILED, "restic can't read the snapshot; `restic repair snapshots` may help"
            )
        if pin.ref not in found.ours:
            return Deletion(DeletionResult.ACCEPTED, "it was forgotten before")
        if not is_same(pin.pieces, found.ours[pin.ref].pieces):
            return Deletion(DeletionResult.IDENTITY_MISMATCH, "the snapshot of this id has another tree")
        return None

    # What is done there

    def _forget(self, ids: Sequence[str]) -> Deletion:
        """Forget snapshots by their full ids, never by a rule; return what those are told that stay."""
        failure = Deletion(DeletionResult.FAILED, "restic did not forget it")
        for start in range(0, len(ids), _IDS_AT_ONCE):
            try:
                some = ids[start : start + _IDS_AT_ONCE]
                self._run(self._look_seconds + self._turn_seconds, "forget", "--json", self._turn, *some)
            except _Locked as locked:
                return Deletion(DeletionResult.FAILED, f"restic did not forget it: {locked}")
            except _Failed as failed:
                result = (
                    DeletionResult.NOT_PERMITTED if _FORBIDDEN in failed.symptom else DeletionResult.FAILED
                )
                failure = Deletion(result, f"restic did not forget it: {failed.symptom}")
        return failure

    def _prune(self) -> str:
        """Remove all bytes that no snapshot holds; return why they may still be there, or nothing.

        By itself restic tolerates a share of unused bytes in packs that are in use: a person's among them.
        """
        waits = "forgotten, but its bytes stay until a prune succeeds"
        began = time.monotonic()
        if began < _prunes.get(self._repository, float("-inf")) + self._pause_seconds:
            return f"{waits}: the next one is a day after the last, for it keeps backups waiting"
        before = _prunes.get(self._repository)
        _prunes[self._repository] = began
        try:
            self._run(self._prune_seconds + self._turn_seconds, "prune", "--max-unused", "0", self._turn)
        except _Locked as locked:  # it has not had its turn
            if before is None:
                del _prunes[self._repository]
            else:
                _prunes[self._repository] = before
            return f"{waits}: {locked}"
        except _Failed as failed:
            return f"{waits}: {failed.symptom}"
        except BackendError as error:
            return f"{waits}: {error}"
        return ""

    # The program

    def _ask(self, *arguments: str) -> str:
        try:
            return self._run(self._look_seconds, *arguments)
        except _Failed as failed:
            raise BackendUnavailable(
                f"the restic repository of spec.restic.repository can't be read: {failed.symptom}",
                "see whether restic reaches it from this pod",
            ) from None

    def _run(self, seconds: float, *arguments: str) -> str:
        """Run restic to its end and return what it said. None of its texts of errors is passed on: they
        hold addresses, and addresses hold credentials."""
        environment = self._environment()
        try:
            running = subprocess.Popen(
                [self._binary, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError:
            raise BackendMisconfigured(
                "spec.restic: the program restic can't be run in this pod",
                "use an image that has restic 0.17 or newer on its PATH",
            ) from None
        try:
            stdout, stderr = _said_by(running, seconds, MOST_BYTES)
        except TimeoutError:
            self._end(running)
            raise _Failed(f"restic {arguments[0]} had not ended after {seconds:.0f} s") from None
        except _SaysTooMuch:
            self._end(running)
            raise BackendUnavailable(
                f"restic {arguments[0]} says more than {MOST_BYTES // 2**20} MiB of the repository of "
                "spec.restic.repository",
                "correct it, or let it hold fewer snapshots (`restic forget`)",
            ) from None
        except BaseException:
            self._end(running)
            raise
        finally:
            for pipe in (running.stdout, running.stderr):
                if pipe is not None:
                    pipe.close()
        if running.returncode != 0:
            raise self._error(running.returncode, stderr.decode(errors="replace"))
        return stdout.decode(errors="replace")

    @staticmethod
    def _end(running: subprocess.Popen[bytes]) -> None:
        """End restic so that it takes its lock away; kill it where it does not."""
        running.terminate()
        try:
            _said_by(running, _ENDING_SECONDS, None)
        except TimeoutError:
            running.kill()
            running.wait()

    @staticmethod
    def _error(status: int, stderr: str) -> Exception:
        match status:
            case code if code == _NO_REPOSITORY:
                return BackendMisconfigured(
                    "spec.restic.repository leads to no restic repository",
                    "correct it; is the volume mounted?",
                )
            case code if code == _LOCKED:
                return _Locked("the restic repository is locked", _UNLOCK)
            case code if code == _WRONG_PASSWORD:
                return BackendUnavailable(
                    "the restic repository does not open with this password",
                    "correct RESTIC_PASSWORD in the Secret that spec.restic.credentialsSecretRef names",
                )
        said = stderr.lower()
        symptoms = dict.fromkeys(symptom for text, symptom in _SYMPTOMS.items() if text in said)
        return _Failed(", ".join(symptoms) or f"restic ended with status {status}")

    def _environment(self) -> dict[str, str]:
        """Return all that restic may know: nothing of it stands on its command line, where others see it."""
        if not self._given.get("RESTIC_PASSWORD"):
            raise BackendMisconfigured(
                "the Secret that spec.restic.credentialsSecretRef names has no RESTIC_PASSWORD", "add it"
            )
        for name, value in {"spec.restic.repository": self._repository, **self._given}.items():
            if "\0" in value:
                raise BackendMisconfigured(f"{name} has a zero byte", "correct it")
        self._require_allowed()
        if self._cache is None:
            # Without a cache a prune asks a remote repository for each folder of each snapshot.
            self._cache = tempfile.TemporaryDirectory(prefix="restic-")
        own = {name: os.environ[name] for name in _FROM_OPERATOR if name in os.environ}
        return {
            **own,
            **self._given,
            "RESTIC_REPOSITORY": self._repository,
            "RESTIC_CACHE_DIR": self._cache.name,
            "TMPDIR": self._cache.name,
        }

    def _urls(self) -> Iterator[tuple[str, str]]:
        """Yield the URLs that manifest and Secret have restic use, each with the field that says it."""
        kind, _, rest = self._repository.partition(":")
        match kind:
            case "rest":
                yield "spec.restic.repository", rest
            case "s3":
                rest = rest.removeprefix("//")
                encrypted = rest if rest.startswith(("http://", "https://")) else f"https://{rest}"
                yield "spec.restic.repository", encrypted
            case "azure":
                account, suffix = self._given.get("AZURE_ACCOUNT_NAME", ""), "AZURE_ENDPOINT_SUFFIX"
                yield suffix, f"https://{account}.blob.{self._given.get(suffix) or 'core.windows.net'}/"
            case "swift":
                names = ("OS_AUTH_URL", "OS_STORAGE_URL", "ST_AUTH")
                yield from ((name, self._given[name]) for name in names if self._given.get(name))

    def _require_host(self, field: str, url: str) -> None:
        """Refuse a host that is not allowed, or is to be spoken to without TLS.

        restic looks the name up once more itself: docs/adr/0022 says what that leaves.
        """
        host, port, scheme = None, None, ""
        if url.isascii() and url.isprintable() and " " not in url:
            try:
                parts = urlsplit(url)
                host, scheme = parts.hostname, parts.scheme
                port = parts.port or (80 if scheme == "http" else 443)
            except ValueError:
                host = None  # its text quotes the URL
        if host is None or port is None or scheme not in {"http", "https"} or not is_host(host):
            raise BackendMisconfigured(f"{field} holds no http or https URL with a host", "correct it")
        try:
            addresses = self._resolver.addresses_of(host, port, seconds=_LOOK_UP_SECONDS)
            if scheme == "http" and not self._allow_plaintext:
                require_encryption(addresses, "spec.restic.allowPlaintext")
        except HostRefused as refused:
            raise BackendMisconfigured(f"{field} can't be used: {refused.problem}", refused.remedy) from None
        except (NameUnknown, NameNotAnswered):
            if any(proxy in os.environ for proxy in ("HTTPS_PROXY", "HTTP_PROXY")):
                return  # which knows names that are not known here
            raise BackendUnavailable(f"the name of the host in {field} is not known", "correct it") from None

    def _require_allowed(self) -> None:
        """Refuse repositories that lie elsewhere in this pod, or need programs that it does not have."""
        if self._repository.startswith(_REMOTE):
            for field, url in self._urls():
                self._require_host(field, url)
            return
        if self._repository.startswith(_NEEDS_PROGRAM):
            raise BackendMisconfigured(
                "spec.restic.repository is reached by another program (ssh, rclone)",
                f"use one of {' '.join(_REMOTE)} or a directory",
            )
        path = Path(self._repository.removeprefix("local:"))
        try:
            real = path.resolve()
            allowed = path.is_absolute() and any(
                real.is_relative_to(root.resolve()) for root in self._allowed_roots
            )
        except (OSError, RuntimeError):  # links in a circle
            allowed = False
        if not allowed:
            raise BackendMisconfigured(
                "spec.restic.repository is in none of the directories that are allowed",
                "the setting LETHE_BACKUP_DIRECTORIES lists the directories that backups may lie in",
            )


def _said_by(running: subprocess.Popen[bytes], seconds: float, most: int | None) -> tuple[bytes, bytes]:
    """Return what a program writes to its two pipes until it has ended; `most` is `None`: nothing is kept.

    Raises `TimeoutError`, `_SaysTooMuch`.
    """
    until, said = time.monotonic() + seconds, dict[int, bytearray]()
    with selectors.DefaultSelector() as waiting:
        for pipe in (running.stdout, running.stderr):
            if pipe is not None:
                waiting.register(pipe, selectors.EVENT_READ)
                said[pipe.fileno()] = bytearray()
        while waiting.get_map():
            if time.monotonic() > until:
                raise TimeoutError
            for ready, _ in waiting.select(until - time.monotonic()):
                piece = os.read(ready.fd, _READ_AT_ONCE)
                if not piece:
                    waiting.unregister(ready.fd)
                if most is not None:
                    said[ready.fd] += piece
                    if len(said[ready.fd]) > most:
                        raise _SaysTooMuch
    try:
        running.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    stdout, stderr = said.values()
    return bytes(stdout), bytes(stderr)


def _not_understood() -> BackendUnavailable:
    return BackendUnavailable(
        "restic's answer is not what it should be", "use an image that has restic 0.17 or newer"
    )


def _listed(described: Mapping[str, object]) -> ListedSnapshot:
    """Return what restic's JSON says of a snapshot.

    Its time is the start of the backup, unless somebody stated another one (`--time`); the summary that
    newer versions write tells when it really ran, and is evidence.
    """
    try:
        summary = described.get("summary")
        fields = summary if isinstance(summary, dict) else {}
        evidence = [_instant(fields[name]) for name in ("backup_start", "backup_end") if fields.get(name)]
        size = fields.get("total_bytes_processed")
        identity, tree = str(described["id"]), str(described["tree"])
        if not _ID.fullmatch(identity):
            raise ValueError(identity)
        return ListedSnapshot(
            identity,
            (f"{identity}:{tree}",),
            _instant(described["time"]),
            tuple(sorted(set(evidence))),
            size if isinstance(size, int) else None,
        )
    except (KeyError, ValueError, OverflowError):
        raise _not_understood() from None


def _instant(text: object) -> datetime:
    moment = datetime.fromisoformat(str(text))
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment.astimezone(UTC)
