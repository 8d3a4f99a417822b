"""An API server of the chart's own: Helm would refuse to own the CRDs that other tests have applied."""

from collections.abc import Iterator

import pytest
import yaml

from devtools.chart.copies import CHART
from devtools.chart.helm import NAMESPACE, Helm
from devtools.servers.controlplane import ControlPlane
from tests.chart.monitoring import definitions
from tests.chart.releases import SECOND, install


@pytest.fixture(scope="module")
def bare_cluster(built_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real API server that has never heard of Lethe, with namespaces and kinds that ci/*.yaml needs."""
    with ControlPlane(tmp_path_factory.mktemp("bare-cluster")) as running:
        for name in (NAMESPACE, "shop", "crm", "hrm"):
            running.kubectl("create", "namespace", name)
        running.kubectl("create", "--filename=-", input=yaml.safe_dump_all(definitions()))
        running.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        yield running


@pytest.fixture(scope="session")
def helm(built_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm without a cluster."""
    return Helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def cluster_helm(tmp_path_factory: pytest.TempPathFactory, bare_cluster: ControlPlane) -> Helm:
    """Helm as the administrator of the cluster."""
    return Helm(tmp_path_factory.mktemp("cluster-helm"), bare_cluster.kubeconfig)


@pytest.fixture(scope="module")
def cluster(bare_cluster: ControlPlane, cluster_helm: Helm) -> ControlPlane:
    """A cluster in which `lethe` is installed for all namespaces, and `second` for hrm."""
    install(cluster_helm)
    account = ("--set", "serviceAccount.create=true", "--set", "serviceAccount.name=second")
    cluster_helm("install", "second", str(CHART), "-n", NAMESPACE, "--no-hooks", "--values", SECOND, *account)
    bare_cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    return bare_cluster
