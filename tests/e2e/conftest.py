"""A company in a namespace of its own, with the operator that serves it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.company import Api, Site
from devtools.operator_process import OperatorProcess
from devtools.servers.controlplane import ControlPlane


@pytest.fixture
def api(control_plane: ControlPlane, namespace: str) -> Api:
    """The API server, in the test's namespace."""
    return Api(control_plane, namespace)


@pytest.fixture
def site(database: str) -> Site:
    """The site's database."""
    return Site(database)


@pytest.fixture
def operator(tmp_path: Path, control_plane: ControlPlane, namespace: str) -> Iterator[OperatorProcess]:
    """The operator, ready, for the test's namespace only."""
    process = OperatorProcess(
        tmp_path / "operator", control_plane.kubeconfig_of("operator"), namespaces=[namespace]
    )
    try:
        yield process.start()
    finally:
        process.stop()


StartOperator = Callable[..., OperatorProcess]


@pytest.fixture
def start_operator(tmp_path: Path, control_plane: ControlPlane, namespace: str) -> Iterator[StartOperator]:
    """Start operators with settings of the test's own; all are stopped at the end."""
    started: list[OperatorProcess] = []

    def start(*, directory: str = "operator", **environment: str) -> OperatorProcess:
        process = OperatorProcess(
            tmp_path / directory,
            control_plane.kubeconfig_of("operator"),
            namespaces=[namespace],
            environment=environment,
        )
        started.append(process)
        return process.start()

    yield start
    for process in started:
        process.stop()
