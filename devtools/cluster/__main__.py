"""A control plane in the background, to try things by hand: `python -m devtools.cluster up|down
DIRECTORY`."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

from devtools.servers.children import ServerFailed, wait_until
from devtools.servers.controlplane import ControlPlane


def up(directory: Path) -> None:
    """Start an empty control plane that goes on when this command ends; do nothing when one runs there."""
    directory.mkdir(parents=True, exist_ok=True)
    if _runs(directory):
        print(f"already runs: export KUBECONFIG={directory / 'kubeconfig'}")
        return
    for leftover in directory.iterdir():
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    ready, log = directory / "ready", directory / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "devtools.cluster", "serve", directory],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    wait_until(lambda: ready.exists() or server.poll() is not None, what="the control plane")
    if server.poll() is not None:
        raise ServerFailed(log.read_text())
    print(f"export KUBECONFIG={directory / 'kubeconfig'}")


def down(directory: Path) -> None:
    """Stop what `up` started and remove the folder."""
    if _runs(directory):
        os.kill(int((directory / "pid").read_text()), signal.SIGTERM)
        wait_until(lambda: not _runs(directory), what="the control plane to stop")
    shutil.rmtree(directory, ignore_errors=True)


def serve(directory: Path) -> None:
    """Run a control plane until SIGTERM or Ctrl-C."""
    stopped = threading.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stopped.set())
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (directory / "pid").write_text(str(os.getpid()))
        with ControlPlane(directory):
            (directory / "ready").touch()
            stopped.wait()


def _runs(directory: Path) -> bool:
    """Whether a server holds the lock: a number in a file may belong to somebody else by now."""
    try:
        with (directory / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


if __name__ == "__main__":
    {"up": up, "down": down, "serve": serve}[sys.argv[1]](Path(sys.argv[2]).absolute())
