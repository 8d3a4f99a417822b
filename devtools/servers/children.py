"""Server processes that outlive neither their context nor the process that started them."""

import contextlib
import fcntl
import functools
import os
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from devtools.cache import cache

StrPath = str | Path

# Linux sends the parent-death signal when the *thread* that started the child ends. This thread ends with
# the process only, so that servers may be started from any thread.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starts-servers")
_given_ports: set[int] = set()


class ServerFailed(Exception):
    """A server ended by itself or never became ready; says the end of its log."""


class CommandFailed(Exception):
    """A command ended with an error; says what it wrote to stderr."""

    def __init__(self, command: Sequence[StrPath], status: int, stderr: str) -> None:
        self.status = status
        self.stderr = stderr
        super().__init__(f"{Path(command[0]).name} ended with {status}: {stderr.strip()}")


class Server(ABC):
    """A server that a context manager starts, ready to be used, and stops."""

    @abstractmethod
    def start(self) -> Self:
        """Start the server and wait until it can be used."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the server; does nothing when it does not run."""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Child:
    """One server process, which can be started again after it was stopped.

    `run_as` is a numeric user to run as, for servers that refuse to be root; it keeps root's way through
    folders that are closed to others, such as pytest's. `None`: the user of this process.
    """

    def __init__(
        self,
        command: Sequence[StrPath],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        parent_death_signal: signal.Signals = signal.SIGKILL,
        run_as: int | None = None,
    ) -> None:
        self.command = command
        self.log = log
        self._environment = {**os.environ, **(env or {})}
        self._stop_signal = stop_signal
        self._parent_death_signal = parent_death_signal
        self._run_as = run_as
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's id; raises `LookupError` when it does not run."""
        if self._process is None:
            raise LookupError(f"{self.command[0]} does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; does nothing when it runs."""
        if self.running:
            return
        command = [
            "setpriv",
            "--pdeathsig",
            self._parent_death_signal.name.removeprefix("SIG"),
            *_identity(self._run_as),
            "--",
            *self.command,
        ]
        with self.log.open("ab") as log:
            self._process = _starter.submit(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self.log.parent if self._run_as is None else "/",
                start_new_session=True,  # Ctrl-C is for us; we stop our servers in order
            ).result()

    def stop(self, *, patience: float = 30) -> int | None:
        """Ask the process to end and wait; kill it after `patience` seconds.

        Returns its exit code; `None` for one that did not run or had to be killed.
        """
        if self._process is None:
            return None
        self.thaw()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(self._stop_signal)
        code = None
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill9()
        self._process = None
        return code

    def freeze(self) -> None:
        """Stop the process and those that it started where they are: alive, but nobody answers any more."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process and those that it started go on; does nothing to those that run."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        if self._process is not None:
            # The parent first: it must not start another one meanwhile.
            for pid in (self._process.pid, *_children(self._process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def kill9(self) -> None:
        """Kill the process and those that it started, as the kernel does when memory ends."""
        if self._process is None:
            return
        children = _children(self._process.pid)
        self._process.kill()
        self._process.wait()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(alive, children)), what=f"children of {self.command[0]} to end")
        self._process = None


def run(
    command: Sequence[StrPath],
    *,
    input: str | None = None,  # noqa: A002  as subprocess.run calls it
    env: Mapping[str, str] | None = None,
    run_as: int | None = None,
) -> str:
    """Run a command to its end and return what it wrote to stdout.

    Raises `CommandFailed` when it ended with an error.
    """
    whole = command if run_as is None else ["setpriv", *_identity(run_as), "--", *command]
    ended = subprocess.run(
        whole,
        input=input if input is not None else "",
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
        cwd="/" if run_as is not None else None,
    )
    if ended.returncode != 0:
        raise CommandFailed(command, ended.returncode, ended.stderr)
    return ended.stdout


def wait_until(
    ready: Callable[[], bool],
    *,
    what: str,
    children: Sequence[Child] = (),
    patience: float = 120,
) -> None:
    """Wait until `ready` says so.

    Raises `ServerFailed` when one of `children` ends meanwhile, or after `patience` seconds: long, as the
    machine may be busy.
    """
    deadline = time.monotonic() + patience
    while not ready():
        for child in children:
            if not child.running:
                raise ServerFailed(f"{child.command[0]} ended by itself: {_end_of(child.log)}")
        if time.monotonic() > deadline:
            logs = "\n".join(_end_of(child.log) for child in children)
            raise ServerFailed(f"waited {patience:.0f} s for {what}: {logs}")
        time.sleep(0.03)


def outer_address() -> str | None:
    """Return an address by which others reach this machine; `None`: it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses a route
        except OSError:
            return None
        return str(probe.getsockname()[0])


def free_port() -> int:
    """Return a TCP port on which nothing listens, and which is this process's until it ends.

    It lies below the ports that Linux gives to outgoing connections, and no other process of the project's
    is given it meanwhile: what is free now is free still when the server listens.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with contextlib.suppress(OSError):
            fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            if port in _given_ports:
                continue
            _given_ports.add(port)
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", port))
            return port


@functools.cache
def _claims() -> BinaryIO:
    """Return the file of which each byte is a port: who has locked it has the port. It is never closed."""
    return (cache() / "ports").open("ab")


def _identity(run_as: int | None) -> list[str]:
    if run_as is None:
        return []
    return [
        f"--reuid={run_as}",
        f"--regid={run_as}",
        "--clear-groups",
        "--inh-caps=-all,+dac_override",
        "--ambient-caps=-all,+dac_override",
    ]


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold spaces; state and parent follow it.
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                found.append(int(entry.parent.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""
