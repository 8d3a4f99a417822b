"""Real servers, started once per run when a test first asks for one; what a test gets of them is its own."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from devtools.servers import ControlPlane, PostgresServer, TrytonServer

CRDS = Path(__file__).parent.parent / "crds"
_numbers = itertools.count(1)

# Every run draws the same examples: what was red is red again. Only sizes are a test's own: tests/search.
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[
        HealthCheck.too_slow,  # a busy machine is no fault
        HealthCheck.function_scoped_fixture,  # one server or ledger is meant to serve all
        HealthCheck.differing_executors,  # a contract's property runs once for each adapter
    ],
)
# `make search`: others each time, until the time is over; the first fault of a test is made small and told.
settings.register_profile(
    "search",
    settings.get_profile("repeatable"),
    derandomize=False,
    max_examples=1_000,  # at a time: the plugin begins anew, before what was drawn fills the memory
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("repeatable")


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
