"""From the version before to this one, and away and back again: nothing that was erased is forgotten."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from devtools.chart.copies import CHART, CRDS
from devtools.chart.helm import NAMESPACE, Helm, Manifest
from devtools.company import Api, Site, eventually
from devtools.operator_process import OperatorProcess
from devtools.servers import ControlPlane, PostgresServer
from tests.chart.releases import install, keys_of, kubeconfig_of, mount_keys

FIELD = "erasures"
"""A field of a DataStore's status that the version before does not know."""


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The chart of a version before: its CRD has a field less, and a policy says something else."""
    chart = tmp_path / "before" / "lethe"
    shutil.copytree(CHART, chart)
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "0.0.9", "appVersion": "0.0.9"}))
    file = chart / "files" / "crds" / "lethe.dev_datastores.yaml"
    crd = yaml.safe_load(file.read_text())
    del status_of(crd)[FIELD]
    file.write_text(yaml.safe_dump(crd))
    policy = chart / "files" / "crds" / "policies" / "erase.yaml"
    assert '"erase"' in policy.read_text()
    policy.write_text(policy.read_text().replace('lacks the verb "erase"', 'lacks the verb "forget"'))
    assert '"forget"' in policy.read_text()
    return chart


def status_of(crd: Manifest) -> Manifest:
    """Return the fields of the status that a CRD knows."""
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    fields: Manifest = schema["properties"]["status"]["properties"]
    return fields


class Operators:
    """One operator after another, as the Deployment starts them: one ledger, and the keys of the Secret."""

    def __init__(self, cluster: ControlPlane, directory: Path) -> None:
        self._cluster, self._directory = cluster, directory
        self._running: OperatorProcess | None = None

    def begin(self) -> OperatorProcess:
        """Begin the next one, as the ServiceAccount that there is now."""
        self.stop()
        mount_keys(keys_of(self._cluster), self._directory / "keys")
        kubeconfig = kubeconfig_of(self._cluster, "lethe", self._directory / "kubeconfig")
        self._running = OperatorProcess(self._directory, kubeconfig, environment={"LETHE_LOG_LEVEL": "INFO"})
        self._running.begin()
        return self._running

    def stop(self) -> None:
        """Stop the one that runs."""
        if self._running is not None:
            self._running.stop()


@pytest.fixture
def operators(bare_cluster: ControlPlane, tmp_path: Path) -> Iterator[Operators]:
    """Operators of the release; the last one is stopped in the end."""
    all_of_them = Operators(bare_cluster, tmp_path / "operator")
    yield all_of_them
    all_of_them.stop()


def complaints(operator: OperatorProcess) -> list[str]:
    """Return what an operator has said of the CRDs."""
    return [line for line in operator.log.read_text().splitlines() if "CustomResourceDefinition" in line]


@pytest.mark.e2e
@pytest.mark.slow
def test_nothing_is_forgotten_by_an_upgrade_nor_by_an_uninstallation(
    *,
    bare_cluster: ControlPlane,
    cluster_helm: Helm,
    before: Path,
    operators: Operators,
    database: str,
    postgres: PostgresServer,
    tmp_path: Path,
) -> None:
    cluster, helm = bare_cluster, cluster_helm
    install(helm, chart=before)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    keys, claim = keys_of(cluster), _uid(cluster, "pvc", "lethe-ledger")
    assert FIELD not in status_of(_json(cluster, "crd", "datastores.lethe.dev"))

    # This version's operator, with the CRDs of the one before: one line, and no work.
    operator = operators.begin()
    eventually(lambda: bool(complaints(operator)), "a line about the CRDs")
    assert "status.erasures; upgrade the CRDs: helm upgrade" in complaints(operator)[0]
    assert "datastores.lethe.dev is older than this operator" in complaints(operator)[0]
    assert not operator.ready()

    helm("upgrade", "lethe", str(CHART), "--namespace", NAMESPACE, "--no-hooks")
    assert FIELD in status_of(_json(cluster, "crd", "datastores.lethe.dev"))
    assert 'lacks the verb \\"erase\\"' in json.dumps(
        _json(cluster, "validatingadmissionpolicy", "lethe-erase.lethe.dev")
    )
    assert keys_of(cluster) == keys
    assert _uid(cluster, "pvc", "lethe-ledger") == claim
    eventually(operator.ready, "the operator to take up its work", 60)
    assert len(complaints(operator)) == 1

    api, site = Api(cluster, "shop"), Site(database)
    ada, bob = site.sign_up("ada@canary.example", "bob@canary.example")
    api.sql_store("site", site.url)
    api.wait("datastores", "site", "SafeToServe", patience=60)
    dump, name = tmp_path / "site.dump", database.rpartition("/")[2].partition("?")[0]
    postgres.dump(name, dump)
    api.request_by_id("ada", ada)
    api.wait("deletionrequests", "ada", "Erased", patience=60)

    operators.stop()
    helm("uninstall", "lethe", "--namespace", NAMESPACE, "--no-hooks")
    postgres.restore(name, dump, "--clean", "--if-exists")
    assert site.is_intact(ada)
    install(helm)
    assert keys_of(cluster) == keys
    assert _uid(cluster, "pvc", "lethe-ledger") == claim
    operators.begin()
    eventually(lambda: site.is_cleared(ada), "what was erased to be erased again", 60)
    eventually(lambda: bool(api.list("restoreevents")), "a RestoreEvent", 60)
    api.wait("datastores", "site", "SafeToServe", patience=60)
    assert site.is_intact(bob)
    operators.stop()
    helm("uninstall", "lethe", "--namespace", NAMESPACE, "--no-hooks")


def _json(cluster: ControlPlane, kind: str, name: str) -> Manifest:
    found: Manifest = json.loads(cluster.kubectl("get", kind, name, "-n", NAMESPACE, "-o", "json"))
    return found


def _uid(cluster: ControlPlane, kind: str, name: str) -> str:
    return str(_json(cluster, kind, name)["metadata"]["uid"])


@pytest.mark.e2e
@pytest.mark.slow
def test_an_operator_without_crds_says_so_in_one_line_and_begins_once_they_are_there(tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "control-plane") as cluster:
        operator = OperatorProcess(tmp_path / "operator", cluster.kubeconfig)
        try:
            operator.begin()
            eventually(lambda: bool(complaints(operator)), "a line about the CRDs")
            assert "is missing; upgrade the CRDs" in complaints(operator)[0]
            assert (
                "lethe crds | kubectl apply --server-side --force-conflicts -f -" in complaints(operator)[0]
            )
            cluster.kubectl("apply", "--server-side", "--filename", str(CRDS))
            eventually(operator.ready, "the operator to begin", 60)
            assert len(complaints(operator)) == 1
        finally:
            operator.stop()
