"""The operator where its users run it: from its image, as a restricted pod, installed by Helm."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from devtools.chart.helm import NAMESPACE
from devtools.company import Api, Site, eventually
from devtools.node import images
from devtools.node.outside import RELEASE, ApiFromOutside, Outside, container_status
from devtools.servers.children import CommandFailed
from devtools.servers.postgres import PostgresServer
from tests.node.conftest import SETTINGS

PATIENCE = 180
_numbers = itertools.count(1)


@dataclass
class Company:
    """A namespace with a site whose database is outside of the cluster, and its store in Lethe."""

    api: Api
    site: Site
    database: str

    def request(self, keys: Sequence[int]) -> None:
        """Ask for the erasure of persons by their keys."""
        for key in keys:
            self.api.request_by_id(f"person-{key}", key)

    def states(self) -> list[str]:
        """Return where the requests stand."""
        return [one.get("status", {}).get("state", "") for one in self.api.list("deletionrequests")]

    def are_erased(self, keys: Sequence[int]) -> None:
        """Wait until Lethe says so, and see for ourselves."""
        for key in keys:
            self.api.wait("deletionrequests", f"person-{key}", "Erased", patience=PATIENCE)
            assert self.site.is_cleared(key)

    @contextlib.contextmanager
    def holding(self, keys: Sequence[int]) -> Iterator[None]:
        """Keep persons' rows locked, as a long transaction of the site's does: nobody can erase them."""
        with psycopg.connect(self.site.url) as connection:
            connection.execute("SELECT 1 FROM users WHERE id = ANY(%s) FOR UPDATE", (list(keys),))
            yield


@pytest.fixture
def company(outside: Outside, open_postgres: PostgresServer) -> Company:
    """A company of one's own, whose store is safe to serve."""
    name = f"company-{next(_numbers)}"
    outside.restricted_namespace(name)
    site = Site(open_postgres.create_database(name))
    api = ApiFromOutside(outside, name)
    address = urlsplit(site.url)
    from_pods = site.url.replace(f"@{address.hostname}:", f"@{outside.address}:")
    gate = {"podSelector": {"matchLabels": {"app": "site"}}}
    api.sql_store("site", from_pods, plaintext=True, gate=gate)
    api.wait("datastores", "site", "SafeToServe", patience=PATIENCE)
    return Company(api, site, name)


def told_by(outside: Outside) -> Callable[[], str]:
    """Return what to say of the operator's pod when something did not happen."""
    return lambda: outside.kubectl("describe", "pods", f"--namespace={NAMESPACE}")


def test_the_pod_is_ready_where_pod_security_is_restricted(outside: Outside) -> None:
    pod = outside.operator_pod()
    conditions = {one["type"]: one["status"] for one in pod["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    namespace = outside.read("namespace", NAMESPACE)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    privileged = {"name": "x", "image": outside.image, "securityContext": {"privileged": True}}
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        outside.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "x", "namespace": NAMESPACE},
                "spec": {"containers": [privileged]},
            }
        )


def test_the_image_has_a_user_with_a_name_and_neither_pip_nor_a_compiler(outside: Outside) -> None:
    assert outside.in_operator("id").startswith("uid=65532(lethe) gid=65532(lethe)")
    with pytest.raises(CommandFailed, match="Read-only file system"):
        outside.in_operator("touch", "/opt/lethe/x")
    found = (
        "import importlib.util, shutil;"
        "print(importlib.util.find_spec('pip'), *map(shutil.which, ('cc', 'gcc', 'go')))"
    )
    assert outside.in_operator("/opt/lethe/bin/python", "-c", found).split() == ["None"] * 4
    assert "CycloneDX" in outside.in_operator("cat", "/usr/share/sbom/lethe.cdx.json")
    assert outside.in_operator("restic", "version").startswith("restic 0.")


def test_authorities_of_the_company_come_beside_those_of_the_system(outside: Outside) -> None:
    """The chart's extraCA sets SSL_CERT_FILE; the system's authorities are found by the folder then."""
    code = (
        "import os, ssl; folder = ssl.get_default_verify_paths().capath;"
        "print(sum(name.endswith('.0') for name in os.listdir(folder)))"
    )
    found = outside.in_operator("env", "SSL_CERT_FILE=/nowhere", "/opt/lethe/bin/python", "-c", code)
    assert int(found) > 100


def test_the_pod_has_the_lease(outside: Outside) -> None:
    lease = outside.read("lease", "lethe", f"--namespace={NAMESPACE}")
    assert lease["spec"]["holderIdentity"] == outside.operator_pod()["metadata"]["name"]


@pytest.mark.node
def test_the_image_adds_at_most_150_megabytes_to_its_base(bare: Outside) -> None:
    if not bare.image.startswith("localhost/"):
        pytest.skip("somebody else's builder made the image")
    assert images.megabytes(bare.image) - images.megabytes(images.python_image()) <= 150


def test_a_person_is_erased_and_nobody_else(company: Company) -> None:
    ada, bob = company.site.sign_up("ada@canary.example", "bob@canary.example")
    company.api.request_by_email("ada", "ada@canary.example")
    company.api.wait("deletionrequests", "ada", "Erased", patience=PATIENCE)
    assert company.site.is_cleared(ada)
    assert company.site.is_intact(bob)


def test_metrics_are_scraped_through_the_service(outside: Outside, company: Company) -> None:
    (ada,) = company.site.sign_up("ada@canary.example")
    company.request([ada])
    company.are_erased([ada])
    metrics = outside.metrics()
    assert metrics[f'lethe_store_safe_to_serve{{store="{company.api.namespace}/site"}}'] == 1


def test_a_restore_takes_the_site_out_of_its_service_until_all_is_erased_again(
    outside: Outside, company: Company, open_postgres: PostgresServer, tmp_path: Path
) -> None:
    ada, bob = company.site.sign_up("ada@canary.example", "bob@canary.example")
    serve_site(outside, company.api.namespace)
    eventually(lambda: endpoints(outside, company) == [True], told_by(outside), PATIENCE)
    dump = open_postgres.dump(company.database, tmp_path / "site.dump")
    company.request([ada])
    company.are_erased([ada])

    open_postgres.restore(company.database, dump, "--clean", "--if-exists")
    with company.holding([ada]):
        eventually(lambda: endpoints(outside, company) == [False], "the pod to be taken out", PATIENCE)
        assert not company.site.is_cleared(ada)
    eventually(lambda: endpoints(outside, company) == [True], "the pod to be let in again", PATIENCE)
    assert company.site.is_cleared(ada)
    assert company.site.is_intact(bob)
    (restore,) = company.api.list("restoreevents")
    assert restore["spec"]["reason"] == "Undeclared"
    assert restore["status"]["replay"]["reErased"] == 1


def test_a_rollout_while_a_store_or_lethe_is_away_goes_as_the_docs_say(
    outside: Outside, company: Company, open_postgres: PostgresServer
) -> None:
    namespace = company.api.namespace
    serve_site(outside, namespace)
    eventually(lambda: endpoints(outside, company) == [True], told_by(outside), PATIENCE)

    # The store is away: who serves goes on, who comes up waits, unless the gate says otherwise.
    open_postgres.psql(f'ALTER DATABASE "{company.database}" ALLOW_CONNECTIONS false')
    open_postgres.psql(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{company.database}'"
    )
    company.api.wait_reason("datastores", "site", "Unreachable", patience=PATIENCE)
    serve_site(outside, namespace, pod="site-2")
    eventually(lambda: is_running(outside, namespace, "site-2"), told_by(outside), PATIENCE)
    eventually(lambda: sorted(endpoints(outside, company)) == [False, True], told_by(outside), PATIENCE)
    away = "DataStore site can't be looked at: "
    eventually(lambda: gate(outside, namespace, "site-2").startswith(away), told_by(outside), PATIENCE)
    company.api.patch_spec("datastores", "site", {"gate": {"whenAway": "LastVerified"}})
    eventually(lambda: endpoints(outside, company) == [True, True], told_by(outside), PATIENCE)
    open_postgres.psql(f'ALTER DATABASE "{company.database}" ALLOW_CONNECTIONS true')

    # Lethe is away: who serves goes on, who comes up waits until it is back.
    outside.uninstall()
    serve_site(outside, namespace, pod="site-3")
    eventually(lambda: is_running(outside, namespace, "site-3"), "the third pod to run", PATIENCE)
    eventually(
        lambda: sorted(endpoints(outside, company)) == [False, True, True], "the third pod to wait", PATIENCE
    )
    outside.release(SETTINGS)
    eventually(lambda: endpoints(outside, company) == [True] * 3, told_by(outside), PATIENCE)


def is_running(outside: Outside, namespace: str, pod: str) -> bool:
    """Whether a pod's containers are ready, whatever its gate says."""
    return conditions(outside, namespace, pod).get("ContainersReady", {}).get("status") == "True"


def gate(outside: Outside, namespace: str, pod: str) -> str:
    """Return what Lethe says at a pod's gate; nothing before it has seen the pod."""
    return str(conditions(outside, namespace, pod).get("lethe.dev/safe-to-serve", {}).get("message", ""))


def conditions(outside: Outside, namespace: str, pod: str) -> dict[str, dict[str, str]]:
    """Return a pod's conditions by type."""
    status = outside.read("pod", pod, f"--namespace={namespace}")["status"]
    return {one["type"]: one for one in status.get("conditions", ())}


def serve_site(outside: Outside, namespace: str, *, pod: str = "site") -> None:
    """Run a pod of the site with the readiness gate, behind its Service."""
    metadata = {"name": "site", "namespace": namespace}
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "site",
        "image": outside.image,
        "imagePullPolicy": "Never",
        "command": ["python", "-m", "http.server", "8000"],
        "securityContext": restricted,
    }
    spec = {
        "readinessGates": [{"conditionType": "lethe.dev/safe-to-serve"}],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    service = {"selector": {"app": "site"}, "ports": [{"port": 80, "targetPort": 8000}]}
    labelled = metadata | {"name": pod, "labels": {"app": "site"}}
    outside.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
        {"apiVersion": "v1", "kind": "Pod", "metadata": labelled, "spec": spec},
    )


def endpoints(outside: Outside, company: Company) -> list[bool]:
    """Return whether each endpoint of the site's Service is ready."""
    selector = ("--selector=kubernetes.io/service-name=site", f"--namespace={company.api.namespace}")
    slices = outside.read("endpointslices", *selector)["items"]
    return [bool(one["conditions"]["ready"]) for part in slices for one in part.get("endpoints") or ()]


def test_an_upgrade_in_the_middle_of_a_batch_loses_nothing(outside: Outside, company: Company) -> None:
    keys = company.site.sign_up(*(f"p{number}@canary.example" for number in range(20)))
    before = outside.operator_pod()["metadata"]["uid"]
    with company.holding(keys[10:]):
        company.request(keys[:-1])
        eventually(lambda: "Erased" in company.states(), lambda: str(company.states()), PATIENCE)
        outside.release({**SETTINGS, "settings.logLevel": "DEBUG"})
        assert company.states().count("Erased") <= 10
    assert outside.operator_pod()["metadata"]["uid"] != before
    company.are_erased(keys[:-1])
    assert company.site.is_intact(keys[-1])
    assert ledger_is_whole(outside)


def test_a_killed_operator_goes_on_where_it_was(outside: Outside, company: Company) -> None:
    keys = company.site.sign_up(*(f"p{number}@canary.example" for number in range(10)))
    pod = outside.operator_pod()
    restarts = container_status(pod)["restartCount"]
    with company.holding(keys[3:]):
        company.request(keys[:-1])
        eventually(lambda: "Erased" in company.states(), lambda: str(company.states()), PATIENCE)
        outside.kill9(pod)
        eventually(
            lambda: container_status(outside.operator_pod())["restartCount"] > restarts,
            told_by(outside),
            PATIENCE,
        )
    ended = container_status(outside.operator_pod())["lastState"]["terminated"]
    assert ended["exitCode"] == 137
    company.are_erased(keys[:-1])
    assert company.site.is_intact(keys[-1])
    assert ledger_is_whole(outside)


def test_what_was_asked_while_memory_was_too_little_is_done_with_enough(
    outside: Outside, company: Company
) -> None:
    ada, bob, cleo = company.site.sign_up(*(f"{name}@canary.example" for name in ("ada", "bob", "cleo")))
    status = outside.in_operator("cat", "/proc/1/status")
    needed = int(status.partition("VmRSS:")[2].split()[0])
    too_little = f"{int(needed * 0.7)}Ki"
    with company.holding([ada]):
        company.request([ada])
        amount = {"resources.limits.memory": too_little, "resources.requests.memory": too_little}
        outside.release({**SETTINGS, **amount}, wait=False)

        def killed_for_memory() -> bool:
            status = container_status(outside.operator_pod())
            ended = [status.get(when, {}).get("terminated", {}) for when in ("state", "lastState")]
            return any(one.get("reason") == "OOMKilled" for one in ended)

        eventually(killed_for_memory, told_by(outside), PATIENCE)
        company.request([bob])
    outside.release(SETTINGS)
    company.are_erased([ada, bob])
    assert company.site.is_intact(cleo)
    assert ledger_is_whole(outside)


def ledger_is_whole(outside: Outside) -> bool:
    """Whether the whole chain of the ledger follows; said by the command that its users run."""
    return "each follows from the one before" in outside.in_operator("lethe", "ledger", "verify")


def test_an_uninstalled_operator_remembers_whom_it_erased(
    outside: Outside, company: Company, open_postgres: PostgresServer, tmp_path: Path
) -> None:
    (ada,) = company.site.sign_up("ada@canary.example")
    dump = open_postgres.dump(company.database, tmp_path / "site.dump")
    company.request([ada])
    company.are_erased([ada])
    outside.uninstall()
    open_postgres.restore(company.database, dump, "--clean", "--if-exists")
    assert company.site.is_intact(ada)
    outside.release(SETTINGS)
    eventually(lambda: company.site.is_cleared(ada), f"{RELEASE} to erase again", PATIENCE)
