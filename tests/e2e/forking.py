"""Operators that are forked from a process which has made their imports: nine tenths of a start are those."""

from __future__ import annotations

import multiprocessing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from devtools.servers.children import free_port
from devtools.servers.controlplane import ControlPlane
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from tests.e2e import crashing
from tests.e2e.crashing import Fatal

FORKS = multiprocessing.get_context("forkserver")
# One for all tests of this process.
FORKS.set_forkserver_preload(
    [
        "tests.e2e.crashing",
        "lethe.adapters.backups.directory",
        "lethe.adapters.notices.letters",
        "lethe.adapters.notices.smtp",
        "lethe.adapters.stores.sql.store",
    ]
)


def fork_operator(
    folder: Path, control_plane: ControlPlane, namespace: str, fatal: Fatal, **settings: str
) -> BaseProcess:
    """Start an operator that dies at a moment (0: never), with ledger and keys in `folder`.

    Beside them it leaves `moments`, and `operator.log`.
    """
    environment = {
        "LETHE_KUBECONFIG": str(control_plane.kubeconfig_of("operator")),
        "LETHE_NAMESPACES": namespace,
        "LETHE_LEDGER_URL": f"sqlite:///{folder / 'ledger.db'}",
        "LETHE_KEYS_DIR": str(folder / "keys"),
        "LETHE_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
        "LETHE_STORE_HOSTS": "*,127.0.0.0/8,[::1]",
        "LETHE_LOG_FORMAT": "text",
        **settings,
    }
    arguments = (environment, fatal, folder / "moments", folder / "operator.log")
    operator = FORKS.Process(target=crashing.run_forked, args=arguments, daemon=True)
    operator.start()
    return operator


def end(operator: BaseProcess) -> None:
    """Kill an operator, if it lives."""
    operator.kill()
    operator.join()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An operator's folder with an empty ledger and keys: to make one takes longer than most stories."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "keys").mkdir()
    open_ledger(f"sqlite:///{folder / 'ledger.db'}", FileKeyring(folder / "keys")).close()
    return folder
