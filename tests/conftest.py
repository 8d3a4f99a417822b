"""Real servers, started once per run when a test first asks for one; what a test gets of them is its own."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.servers import ControlPlane, PostgresServer, TrytonServer

CRDS = Path(__file__).parent.parent / "crds"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real API server that knows the project's kinds; the audit log tells `operator` apart."""
    control_plane = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    control_plane.add_user("operator", ["system:masters"])
    with control_plane as running:
        if CRDS.is_dir():
            running.kubectl("apply", "--server-side", "--filename", str(CRDS))
            running.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        yield running


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A real PostgreSQL for everybody; a test that stops or restores a server starts one of its own."""
    with PostgresServer(tmp_path_factory.mktemp("postgres"), fsync=False) as running:
        yield running


@pytest.fixture(scope="session")
def tryton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrytonServer]:
    """A real CRM and a real HRM, in the databases `crm` and `hrm`."""
    with TrytonServer(tmp_path_factory.mktemp("tryton")) as running:
        yield running


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The address of an empty PostgreSQL database of one's own."""
    name = f"test_{next(_numbers)}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """The name of an empty namespace of one's own. It is not deleted: nobody would finish that here."""
    name = f"test-{next(_numbers)}"
    control_plane.kubectl("create", "namespace", name)
    return name
