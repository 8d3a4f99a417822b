"""A cluster for the story: a real node on this machine, or kind where Docker is; only if asked for."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.chart.helm import NAMESPACE
from devtools.node import images, leftovers
from devtools.node.node import Node, obstacles
from devtools.node.outside import Outside
from devtools.servers.postgres import PostgresServer

IMAGE = "localhost/lethe:node-e2e"
SETTINGS = {
    "settings.journalInterval": "1s",
    "settings.sweepInterval": "10s",
    "gate.networkPolicies": "true",
}
WHERE = ("node", "kind")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the story unless `-m node` or `-m kind` asks for it: it changes the machine.

    The node that is killed comes first: a machine has room for one, and the story's lives to the end.
    """
    asked = set(WHERE) & set(str(config.option.markexpr).split())
    unasked = [item for item in items if any(item.get_closest_marker(one) for one in set(WHERE) - asked)]
    if unasked:
        config.hook.pytest_deselected(items=unasked)
        items[:] = [item for item in items if item not in unasked]
    items.sort(key=lambda item: item.path.name != "test_killed.py")


@pytest.fixture(scope="session", params=[pytest.param(one, marks=getattr(pytest.mark, one)) for one in WHERE])
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A cluster that knows the operator's image, and nothing else of it."""
    home = tmp_path_factory.mktemp("outside")
    if request.param == "kind":
        yield _in_kind(request.getfixturevalue("kind_cluster"), home)
        return
    reasons = obstacles()
    if reasons:
        pytest.skip(f"NO REAL NODE HERE: {'; '.join(reasons)}")
    node = Node()
    with node:
        node.load(images.operator_image(IMAGE))
        node.add_volume("ledger")
        yield Outside(node.kubeconfig, image=IMAGE, address=node.address, home=home)
    assert leftovers.traces(node.directory) == []


def _in_kind(cluster: Any, home: Path) -> Outside:
    image = os.environ["IMAGE"]
    cluster.load_docker_image(image)
    gateway = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
    command = ["docker", "network", "inspect", "kind", "--format", gateway]
    addresses = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    address = next(one for one in addresses if "." in one)
    return Outside(Path(cluster.kubeconfig_path), image=image, address=address, home=home)


@pytest.fixture(scope="session")
def outside(bare: Outside) -> Outside:
    """The cluster with the chart installed and the operator ready."""
    bare.restricted_namespace(NAMESPACE)
    bare.release(SETTINGS)
    return bare


@pytest.fixture(scope="session")
def open_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL outside of the cluster that pods may reach, with a password."""
    directory = tmp_path_factory.mktemp("open-postgres")
    with PostgresServer(directory, fsync=False, from_elsewhere=True) as server:
        yield server
