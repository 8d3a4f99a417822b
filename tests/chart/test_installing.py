"""The chart in a real cluster: what outlives it, and what the operator may do with the rights it gives."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from tests.api.apiserver import ApiServer
from tests.chart.copies import CHART
from tests.chart.helm import NAMESPACE, Helm, Manifest, of_kind, the
from tests.e2e.company import Api, Site, eventually
from tests.e2e.dumps import PATTERN, days_ago, leave_dump
from tests.e2e.process import OperatorProcess
from tests.servers import CommandFailed, ControlPlane, PostgresServer

SECOND = str(CHART / "ci" / "second-release-values.yaml")
"""A second release brings neither CRDs nor policies, and serves the namespace hrm only."""

Right = tuple[str, str, str]
"""Verb, group, resource with subresource."""

KINDS = (
    "backupsnapshots",
    "backupsources",
    "datastores",
    "deletionrequests",
    "legalrequests",
    "restoreevents",
)


FOR_LEGAL_REQUESTS = {("patch", "lethe.dev", "legalrequests/status"), ("create", "", "secrets")}
"""Rights that the story of this module doesn't use: there is no legal request in it."""

SMTP = ("urlSecretRef.name=smtp", "urlSecretRef.key=url", "from=privacy@example.com")
WEBHOOK = ("secretRef.name=webhook", "secretRef.key=secret", "url=https://mail.example.com")


@pytest.fixture(scope="module")
def cluster(bare_cluster: ControlPlane, cluster_helm: Helm) -> ControlPlane:
    """A cluster in which `lethe` is installed for all namespaces, and `second` for hrm."""
    install(cluster_helm)
    account = ("--set", "serviceAccount.create=true", "--set", "serviceAccount.name=second")
    cluster_helm("install", "second", str(CHART), "-n", NAMESPACE, "--no-hooks", "--values", SECOND, *account)
    bare_cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    return bare_cluster


def install(helm: Helm, *arguments: str) -> None:
    """Install the release `lethe`; nothing runs pods here, so nothing is waited for."""
    helm("install", "lethe", str(CHART), "--namespace", NAMESPACE, "--no-hooks", *arguments)


def keys_of(cluster: ControlPlane) -> dict[str, str]:
    """Return the content of the keys' Secret."""
    secret = json.loads(cluster.kubectl("get", "secret", "lethe-keys", "-n", NAMESPACE, "-o", "json"))
    return dict(secret["data"])


def test_the_keys_survive_an_upgrade(cluster: ControlPlane, cluster_helm: Helm) -> None:
    before = keys_of(cluster)
    cluster_helm(
        "upgrade", "lethe", str(CHART), "-n", NAMESPACE, "--no-hooks", "--set", "settings.sweepInterval=2h"
    )
    assert "2h" in cluster.kubectl("get", "deployment", "lethe", "-n", NAMESPACE, "-o", "yaml")
    assert keys_of(cluster) == before


def test_keys_made_up_by_rendering_without_a_cluster_are_refused(cluster: ControlPlane, helm: Helm) -> None:
    before = keys_of(cluster)
    rendered = the(helm.rendered(), "Secret")
    assert rendered["data"] != before
    with pytest.raises(CommandFailed, match="immutable"):
        cluster.kubectl(
            "apply", "--server-side", "--force-conflicts", "--filename=-", input=yaml.safe_dump(rendered)
        )
    assert keys_of(cluster) == before


def test_what_must_not_be_lost_survives_an_uninstallation_and_is_taken_up_again(
    cluster: ControlPlane, cluster_helm: Helm
) -> None:
    before = keys_of(cluster)
    cluster.kubectl("apply", "--server-side", "--filename=-", input=yaml.safe_dump(_a_request("kept")))
    cluster_helm("uninstall", "lethe", "--namespace", NAMESPACE, "--no-hooks")
    try:
        deployments = cluster.kubectl("get", "deployment", "-n", NAMESPACE, "-o", "name")
        assert deployments.split() == ["deployment.apps/second-lethe"]
        assert keys_of(cluster) == before
        claim = json.loads(cluster.kubectl("get", "pvc", "lethe-ledger", "-n", NAMESPACE, "-o", "json"))
        assert "deletionTimestamp" not in claim["metadata"]
        cluster.kubectl("get", "dreq", "kept", "-n", "shop")
        cluster.kubectl("get", "validatingadmissionpolicy", "lethe-erase.lethe.dev")
    finally:
        install(cluster_helm)
    assert keys_of(cluster) == before
    cluster.kubectl("delete", "dreq", "kept", "-n", "shop")


def _a_request(name: str) -> Manifest:
    return {
        "apiVersion": "lethe.dev/v1alpha1",
        "kind": "DeletionRequest",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"subject": {"id": "4711"}},
    }


def test_who_lacks_the_verb_erase_may_not_ask_for_an_erasure(cluster: ControlPlane) -> None:
    cluster.kubectl(
        "create",
        "role",
        "requester",
        "-n",
        "shop",
        "--verb=create,patch,get",
        "--resource=deletionrequests.lethe.dev",
    )
    cluster.kubectl("create", "rolebinding", "requester", "-n", "shop", "--role=requester", "--user=mallory")
    apply = ("apply", "--server-side", "--dry-run=server", "--filename=-", "--as=mallory")
    request = yaml.safe_dump(_a_request("mallory"))

    def refused() -> bool:
        try:
            cluster.kubectl(*apply, input=request)
        except CommandFailed as said:
            return 'lacks the verb "erase"' in said.stderr
        return False

    eventually(refused, "the admission policy to be in force")
    # As the chart's notes say it.
    cluster.kubectl(
        "create", "role", "lethe-erase", "-n", "shop", "--verb=erase", "--resource=datastores.lethe.dev"
    )
    cluster.kubectl(
        "create", "rolebinding", "lethe-erase", "-n", "shop", "--role=lethe-erase", "--user=mallory"
    )
    eventually(lambda: not refused(), "the right to be in force")


def test_counsels_name_is_filled_in_where_the_release_says_so(cluster: ControlPlane) -> None:
    decided = {
        "apiVersion": "lethe.dev/v1alpha1",
        "kind": "LegalRequest",
        "metadata": {"name": "decided", "namespace": "shop"},
        "spec": {
            "type": "Disclosure",
            "authority": {"name": "County Sheriff's Office", "level": "Local", "country": "US"},
            "receivedAt": "2026-11-22T10:00:00Z",
            "subject": {"id": "4711"},
            "review": {"decision": "Refuse"},
        },
    }

    def reviewer() -> str:
        command = ("apply", "--server-side", "--dry-run=server", "--filename=-", "--output=json")
        stored = json.loads(cluster.kubectl(*command, input=yaml.safe_dump(decided)))
        return str(stored["spec"]["review"].get("reviewer"))

    eventually(lambda: reviewer() == "admin", "the policy to be in force")


@pytest.mark.parametrize(
    ("channel", "silent"),
    [
        ([], True),
        ([f"notices.smtp.{one}" for one in SMTP], False),
        ([f"notices.webhook.{one}" for one in WEBHOOK], False),
    ],
    ids=["none", "smtp", "webhook"],
)
def test_the_notes_say_if_nobody_is_told_of_legal_requests(
    helm: Helm, channel: list[str], silent: bool
) -> None:
    said = helm("install", "lethe", str(CHART), "--dry-run=client", "--set", ",".join(channel))
    notes = said.partition("\nNOTES:\n")[2]
    assert "create role lethe-notify --verb=notify --resource=legalrequests.lethe.dev" in notes
    assert ("nobody is told of legal requests" in notes) is silent


@pytest.mark.parametrize("values", [(), ("--values", SECOND)])
def test_the_operators_rights_are_these_and_no_others(helm: Helm, values: Sequence[str]) -> None:
    manifests = helm.rendered(*values)
    roles = of_kind(manifests, "ClusterRole") + of_kind(manifests, "Role")
    assert granted(roles[0]) == {
        *((verb, "lethe.dev", kind) for kind in KINDS for verb in ("get", "list", "watch")),
        *(("patch", "lethe.dev", f"{kind}/status") for kind in KINDS),
        ("create", "lethe.dev", "restoreevents"),
        ("create", "lethe.dev", "backupsnapshots"),
        ("delete", "lethe.dev", "backupsnapshots"),
        ("get", "", "secrets"),
        ("create", "", "secrets"),
        ("delete", "", "secrets"),
        ("list", "", "pods"),
        ("patch", "", "pods/status"),
        ("create", "events.k8s.io", "events"),
    }
    assert [role["metadata"].get("namespace") for role in roles] == (["hrm"] if values else [None])


def granted(role: Manifest) -> set[Right]:
    """Return what a role lets do."""
    return {
        (verb, group, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


@pytest.fixture(params=["lethe", "second"])
def release(request: pytest.FixtureRequest) -> str:
    """A release, which is its ServiceAccount's name, too."""
    return str(request.param)


@pytest.fixture
def operator(cluster: ControlPlane, helm: Helm, release: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator as the ServiceAccount of a release."""
    process = OperatorProcess(
        tmp_path / "operator",
        kubeconfig_of(cluster, release, tmp_path / "kubeconfig"),
        namespaces=["hrm"] if release == "second" else [],
        environment={"LETHE_SCAN_INTERVAL": "500ms", "LETHE_BACKUP_DIRECTORIES": str(tmp_path)},
    )
    try:
        yield process.start()
    finally:
        process.stop()


def kubeconfig_of(cluster: ControlPlane, account: str, file: Path) -> Path:
    """Write and return the kubeconfig of a ServiceAccount in the release's namespace."""
    content = json.loads(cluster.kubeconfig.read_text())
    content["users"][0]["user"] = {
        "token": cluster.kubectl("create", "token", account, "-n", NAMESPACE).strip()
    }
    file.write_text(json.dumps(content))
    return file


@pytest.mark.e2e
@pytest.mark.slow
def test_the_operator_needs_all_the_rights_that_it_has_and_no_more(
    *,
    cluster: ControlPlane,
    helm: Helm,
    release: str,
    operator: OperatorProcess,
    database: str,
    postgres: PostgresServer,
    tmp_path: Path,
) -> None:
    """An erasure, and a restore that nobody declared, with a gate: the whole story, and its audit log."""
    api, site = Api(cluster, "hrm" if release == "second" else "crm"), Site(database)
    cluster.kubectl("run", "site", "-n", api.namespace, "--image=site", "--labels=app=site")
    ada, bob = site.sign_up("ada@canary.example", "bob@canary.example")
    api.sql_store("site", site.url, gate={"podSelector": {"matchLabels": {"app": "site"}}})
    api.wait("datastores", "site", "SafeToServe", patience=60)
    dump = tmp_path / "site.dump"
    name = database.rpartition("/")[2].partition("?")[0]
    postgres.dump(name, dump)
    api.request_by_email("ada", "ada@canary.example")
    api.wait("deletionrequests", "ada", "Erased", patience=60)
    postgres.restore(name, dump, "--clean", "--if-exists")
    eventually(lambda: bool(api.list("restoreevents")), "a RestoreEvent", 60)
    restore = api.list("restoreevents")[0]["metadata"]["name"]
    api.wait("restoreevents", restore, "SafeToServe", patience=60)
    assert site.is_cleared(ada)
    assert site.is_intact(bob)
    _keep_backups(api, tmp_path)

    user = f"system:serviceaccount:{NAMESPACE}:{release}"
    calls = [event for event in cluster.audit_events() if event["user"]["username"] == user]
    refused = {_right(call) for call in calls if call.get("responseStatus", {}).get("code") == 403}
    assert refused == set()
    used = {_right(call) for call in calls if "objectRef" in call}
    # Who may list may read; `get` adds nothing to it, and is what people expect beside it.
    assert granted(the(helm.rendered(), "ClusterRole")) - used == {
        *(("get", "lethe.dev", kind) for kind in KINDS if kind != "deletionrequests"),
        *FOR_LEGAL_REQUESTS,
    }


def _keep_backups(api: Api, directory: Path) -> None:
    """Find dumps, prune the expired one, and give way to a job that applies its BackupSnapshot itself."""
    old, new = leave_dump(directory, days_ago(300)), leave_dump(directory, days_ago(3))
    source = {"stores": ["site"], "directory": {"path": str(directory), "name": PATTERN}}
    api.create("backupsources", "nightly", source)

    def found() -> set[tuple[bool, str, str]]:
        return {
            (one["metadata"]["name"] == "by-the-job", one["spec"]["ref"], one["status"].get("state", ""))
            for one in api.list("backupsnapshots")
        }

    known = {(False, old.name, "Purged"), (False, new.name, "Present")}
    eventually(lambda: found() == known, lambda: str(found()), 60)
    spec = {"source": "nightly", "ref": new.name, "takenAt": "2026-01-01T00:00:00Z"}
    api.create("backupsnapshots", "by-the-job", spec)
    given_way = {(False, old.name, "Purged"), (True, new.name, "Present")}
    eventually(lambda: found() == given_way, lambda: str(found()), 60)
    eventually(
        lambda: "backups" in (api.get("deletionrequests", "ada") or {})["status"], "the last copy's day", 60
    )


def _right(call: Manifest) -> Right:
    about = call.get("objectRef", {})
    subresource = f"/{about['subresource']}" if "subresource" in about else ""
    return call["verb"], about.get("apiGroup", ""), about.get("resource", call["requestURI"]) + subresource


@pytest.mark.parametrize("release", ["lethe", "second"])
def test_the_operator_may_set_its_own_condition_of_a_pod_and_nothing_else_of_it(
    cluster: ControlPlane, release: str
) -> None:
    cluster.kubectl("run", f"gated-{release}", "-n", "hrm", "--image=site")
    administrator = ApiServer(cluster.url, cluster.admin_token)
    operator = administrator.speaking_as(f"system:serviceaccount:{NAMESPACE}:{release}")

    def patched(body: Manifest, by: ApiServer = operator) -> str:
        path = f"/api/v1/namespaces/hrm/pods/gated-{release}/status?dryRun=All"
        return by.send("PATCH", path, body, content="application/strategic-merge-patch+json").text

    def condition(kind: str) -> Manifest:
        return {"status": {"conditions": [{"type": kind, "status": "False"}]}}

    eventually(
        lambda: "may change no other condition" in patched(condition("Ready")), "the policy to be in force"
    )
    assert "may change nothing of a pod's status but" in patched({"status": {"phase": "Failed"}})
    assert "may change nothing of a pod's status but" in patched({"status": {"podIPs": [{"ip": "10.0.0.9"}]}})
    assert "may not touch a pod's metadata" in patched({"metadata": {"labels": {"app": "other"}}})
    assert json.loads(patched(condition("lethe.dev/safe-to-serve")))["kind"] == "Pod"
    assert json.loads(patched(condition("Ready"), by=administrator))["kind"] == "Pod"
