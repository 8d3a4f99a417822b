"""Real servers, started once per run when a test first asks for one; what a test gets of them is its own.

And what a run is made of: which examples are drawn, which tests are fast, what took longest.
"""

import itertools
from collections import defaultdict
from collections.abc import Generator, Iterator
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

NOT_FAST = frozenset({"e2e", "kind", "node", "slow", "stage2"})
LONG = (Path(__file__).parent / "invariants", Path(__file__).parent / "image")


def is_fast(item: pytest.Item) -> bool:
    """Tell whether a test belongs to `make test-fast`.

    Neither it nor a fixture of its asks for `built_programs`, it has no marker of those that take long, and
    it is in none of the folders that take long as a whole.
    """
    return (
        "built_programs" not in getattr(item, "fixturenames", ())
        and NOT_FAST.isdisjoint(marker.name for marker in item.iter_markers())
        and not any(item.path.is_relative_to(folder) for folder in LONG)
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--fast`."""
    parser.addoption("--fast", action="store_true", help="only tests that need nothing but the virtualenv")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not fast, where only that was asked for."""
    if config.getoption("fast"):
        config.hook.pytest_deselected(items=[item for item in items if not is_fast(item)])
        items[:] = [item for item in items if is_fast(item)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """See to it that a fast test asks for nothing that is built, in every lane: there it is told at once."""
    with pytest.MonkeyPatch.context() as patch:
        if is_fast(item):
            patch.setenv("LETHE_BUILDS", "never")
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which files took longest, beside the tests, where `--durations` asks for those."""
    longest = config.getoption("durations")
    if longest is None:
        return
    seconds = defaultdict[str, float](float)
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            seconds[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.section("slowest files")
    for file, spent in sorted(seconds.items(), key=lambda one: -one[1])[: longest or None]:
        terminalreporter.write_line(f"{spent:7.1f}s {file}")


@pytest.fixture(scope="session")
def built_programs() -> None:
    """Programs and servers outside of the virtualenv, built once per machine: who needs one asks for this."""


@pytest.fixture(scope="session")
def control_plane(built_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
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
def tryton(built_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrytonServer]:
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
