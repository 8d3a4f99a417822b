"""The operator as a child process: started, killed and looked at from outside."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from devtools.servers.children import Child, free_port, wait_until

CHECKOUT = Path(__file__).resolve().parents[1]


class OperatorProcess:
    """`lethe run` with a ledger and keys of its own in `directory`; they outlive any kill.

    `module` is what is run instead of the command, with `arguments`: the operator that kills itself.
    """

    def __init__(
        self,
        directory: Path,
        kubeconfig: Path,
        *,
        namespaces: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        module: str = "lethe.cli.main",
        arguments: Sequence[str] = ("run",),
    ) -> None:
        (directory / "keys").mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.ledger = directory / "ledger.db"
        self.log = directory / "operator.log"
        self.port = free_port()
        self._child = Child(
            [sys.executable, "-m", module, *arguments],
            log=self.log,
            env={
                **os.environ,
                "PYTHONPATH": f"{CHECKOUT / 'operator'}:{CHECKOUT}",
                "KUBECONFIG": str(kubeconfig),
                "LETHE_NAMESPACES": ",".join(namespaces),
                "LETHE_LEDGER_URL": f"sqlite:///{self.ledger}",
                "LETHE_KEYS_DIR": str(directory / "keys"),
                "LETHE_STORE_HOSTS": "*,127.0.0.0/8,[::1]",
                "LETHE_JOURNAL_INTERVAL": "300ms",
                "LETHE_SWEEP_INTERVAL": "5s",
                "LETHE_CLOCK_SKEW": "1ms",  # all on one host
                "LETHE_METRICS_ADDRESS": f"127.0.0.1:{self.port}",
                "LETHE_LOG_LEVEL": "DEBUG",
                "LETHE_LOG_FORMAT": "text",
                **(environment or {}),
            },
        )

    def start(self) -> "OperatorProcess":
        """Start, and wait until it is ready to serve."""
        self._child.start()
        wait_until(self.ready, what="the operator to be ready", children=[self._child])
        return self

    def begin(self) -> None:
        """Start without waiting."""
        self._child.start()

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._child.running

    @property
    def threads(self) -> int:
        """How many threads it has, as the kernel counts them."""
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("Threads:")))

    @property
    def peak_memory(self) -> int:
        """How many bytes of memory it has had at the most, as the kernel counts them."""
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) * 1024

    @property
    def pid(self) -> int:
        """Which process it is: another one after each start."""
        return self._child.pid

    def stop(self) -> int | None:
        """Ask it to end, wait until it has, and return its exit code; `None` if it had to be killed."""
        return self._child.stop()

    def kill9(self) -> None:
        """Kill it as a power cut would."""
        self._child.kill9()

    def ready(self) -> bool:
        """Whether it says that it is ready."""
        try:
            return self.page("readyz") == "ready\n"
        except (urllib.error.URLError, OSError):
            return False

    def page(self, path: str) -> str:
        """Return a page of its HTTP endpoint."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> float:
        """Return the sum of all samples of a metric."""
        lines = (line for line in self.page("metrics").splitlines() if not line.startswith("#"))
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name
        )
