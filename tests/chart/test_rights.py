"""What the operator may do: what it does, by the API server's audit log, and nothing else."""

import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devtools.chart.helm import NAMESPACE, Helm, Manifest, of_kind
from devtools.company import Api, Site, eventually
from devtools.dumps import PATTERN, days_ago, leave_dump
from devtools.operator_process import OperatorProcess
from devtools.servers import ControlPlane, MailServer, PostgresServer
from tests.api.apiserver import ApiServer
from tests.chart.releases import SECOND, kubeconfig_of

Right = tuple[str, str, str]
"""Verb, group, resource with subresource."""

LEASES = {"lethe": "lethe", "second": "second-lethe"}
"""The Lease of each release."""

KINDS = (
    "backupsnapshots",
    "backupsources",
    "datastores",
    "deletionrequests",
    "legalrequests",
    "restoredrills",
    "restoreevents",
)


@pytest.mark.parametrize("values", [(), ("--values", SECOND)])
def test_the_operators_rights_are_these_and_no_others(helm: Helm, values: Sequence[str]) -> None:
    manifests = helm.rendered(*values)
    assert granted(roles_of(manifests)) == {
        *((verb, "lethe.dev", kind) for kind in KINDS for verb in ("list", "watch")),
        ("get", "lethe.dev", "backupsnapshots"),
        ("get", "lethe.dev", "deletionrequests"),
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
        *((verb, "coordination.k8s.io", "leases") for verb in ("get", "create", "update")),
    }


def test_the_operator_may_make_jobs_only_where_drills_are_enabled(helm: Helm) -> None:
    jobs = {(verb, "batch", "jobs") for verb in ("get", "create", "delete")}
    without, with_them = (
        granted(roles_of(helm.rendered("--set", f"drills.enabled={said}"))) for said in ("false", "true")
    )
    assert with_them - without == jobs


@pytest.mark.parametrize("values", [(), ("--values", SECOND)])
def test_the_rights_are_of_its_namespaces_only_and_the_lease_is_its_own(
    helm: Helm, values: Sequence[str]
) -> None:
    places = {
        (role["metadata"].get("namespace"), group)
        for role in roles_of(helm.rendered(*values))
        for rule in role["rules"]
        for group in rule["apiGroups"]
    }
    groups = {"lethe.dev", "", "events.k8s.io"}
    where = "hrm" if values else None
    assert places == {*((where, group) for group in groups), (NAMESPACE, "coordination.k8s.io")}
    rules = [rule for role in of_kind(helm.rendered(*values), "Role") for rule in role["rules"]]
    named = [rule for rule in rules if "leases" in rule["resources"] and "resourceNames" in rule]
    assert [(len(rule["resourceNames"]), rule["verbs"]) for rule in named] == [(1, ["get", "update"])]


POLICY = f"lethe-only-its-own-pod-condition.lethe.{NAMESPACE}"


@pytest.mark.parametrize(
    ("setting", "roles", "policies"),
    [
        ("rbac.create=true", True, [POLICY]),
        ("rbac.create=false", False, [POLICY]),
        ("policies.enabled=false", True, [POLICY]),
        ("podStatusPolicy.enabled=false", True, []),
    ],
)
def test_who_brings_roles_of_their_own_still_gets_the_policy_on_pods(
    helm: Helm, setting: str, *, roles: bool, policies: list[str]
) -> None:
    manifests = helm.rendered("--set", setting)
    assert bool(roles_of(manifests)) is roles
    for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
        names = {one["metadata"]["name"] for one in of_kind(manifests, kind)}
        assert sorted(name for name in names if name.startswith("lethe-only-its-own")) == policies


def test_a_namespace_s_own_administrator_can_install_without_what_is_the_cluster_s(helm: Helm) -> None:
    switches = "crds.enabled=false,policies.enabled=false,podStatusPolicy.enabled=false,namespaces={hrm}"
    kinds = {one["kind"] for one in helm.rendered("--set", switches)}
    of_a_namespace = {"Deployment", "PersistentVolumeClaim", "Role", "RoleBinding", "Secret", "Service"}
    assert kinds == {*of_a_namespace, "ServiceAccount"}


def test_the_rights_are_an_account_s_that_is_named_and_never_the_default_one(helm: Helm) -> None:
    manifests = helm.rendered("--set", "serviceAccount.create=false,serviceAccount.name=privacy")
    bindings = of_kind(manifests, "ClusterRoleBinding") + of_kind(manifests, "RoleBinding")
    assert {subject["name"] for one in bindings for subject in one["subjects"]} == {"privacy"}
    assert not of_kind(manifests, "ServiceAccount")
    policies = of_kind(manifests, "ValidatingAdmissionPolicy")
    (policy,) = (one for one in policies if one["metadata"]["name"] == POLICY)
    assert f":{NAMESPACE}:privacy'" in policy["spec"]["matchConditions"][0]["expression"]


def roles_of(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Return the roles, be they of the cluster or of namespaces."""
    return of_kind(manifests, "ClusterRole") + of_kind(manifests, "Role")


def granted(roles: Sequence[Manifest]) -> set[Right]:
    """Return what roles let do."""
    return {
        (verb, group, resource)
        for role in roles
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
def mail(tmp_path: Path) -> Iterator[MailServer]:
    """The company's mail server, whose certificate is of the company's own authority."""
    with MailServer(tmp_path / "mail", tls="implicit") as running:
        yield running


@pytest.fixture
def operator(
    cluster: ControlPlane, mail: MailServer, release: str, tmp_path: Path
) -> Iterator[OperatorProcess]:
    """The operator as the ServiceAccount of a release."""
    process = OperatorProcess(
        tmp_path / "operator",
        kubeconfig_of(cluster, release, tmp_path / "kubeconfig"),
        namespaces=["hrm"] if release == "second" else [],
        environment={
            "LETHE_LEASE": f"{NAMESPACE}/{LEASES[release]}",
            "LETHE_SCAN_INTERVAL": "500ms",
            "LETHE_BACKUP_DIRECTORIES": str(tmp_path),
            "LETHE_SMTP_URL": mail.url,
            "LETHE_MAIL_FROM": "Privacy <privacy@site.example>",
            # As the chart's extraCA gives it.
            "SSL_CERT_FILE": str(mail.ca_file),
        },
    )
    try:
        yield process.start()
    finally:
        process.stop()


@pytest.mark.e2e
@pytest.mark.slow
def test_the_operator_needs_all_the_rights_that_it_has_and_no_more(
    *,
    cluster: ControlPlane,
    helm: Helm,
    release: str,
    operator: OperatorProcess,
    mail: MailServer,
    database: str,
    postgres: PostgresServer,
    tmp_path: Path,
) -> None:
    """Erasure, a restore that nobody declared, a gate, backups, authorities: the story, and its audit log."""
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
    _plan_a_drill(api)
    _answer_authorities(api, bob, mail)
    assert operator.metric("lethe_legal_requests_total") == 2

    eventually(lambda: _is_renewed(cluster, LEASES[release]), "the Lease to be renewed")

    user = f"system:serviceaccount:{NAMESPACE}:{release}"
    calls = [event for event in cluster.audit_events() if event["user"]["username"] == user]
    refused = {_right(call) for call in calls if call.get("responseStatus", {}).get("code") == 403}
    assert refused == set()
    used = {_right(call) for call in calls if "objectRef" in call}
    roles = roles_of(helm.rendered(*(("--values", SECOND) if release == "second" else ())))
    assert granted(roles) == used


def _is_renewed(cluster: ControlPlane, name: str) -> bool:
    spec = json.loads(cluster.kubectl("get", "lease", name, "-n", NAMESPACE, "-o", "json"))["spec"]
    return bool(spec["renewTime"] > spec["acquireTime"])


def _plan_a_drill(api: Api) -> None:
    """Apply a RestoreDrill that is not due."""
    spec = {
        "source": "nightly",
        "schedule": "0 4 29 2 *",
        "scratch": {"urlSecretRef": {"name": "site-db", "key": "url"}},
        "restore": {"command": "restore"},
    }
    api.create("restoredrills", "leap-day", spec)
    api.wait("restoredrills", "leap-day", "Ready", patience=60)


def _keep_backups(api: Api, directory: Path) -> None:
    """Find dumps, prune the expired one, and give way to a job that applies its BackupSnapshot itself."""
    old, new = leave_dump(directory, days_ago(300)), leave_dump(directory, days_ago(3))
    taken = new.name.removeprefix("site-").removesuffix(".dump").lower()
    other = {"source": "weekly", "ref": "other", "takenAt": "2026-01-01T00:00:00Z"}
    api.create("backupsnapshots", f"nightly-{taken}", other)  # under the name that Lethe would give
    source = {"stores": ["site"], "directory": {"path": str(directory), "name": PATTERN}}
    api.create("backupsources", "nightly", source)

    def found() -> set[tuple[bool, str, str]]:
        return {
            (
                one["metadata"]["name"] == "by-the-job",
                one["spec"]["ref"],
                one.get("status", {}).get("state", ""),
            )
            for one in api.list("backupsnapshots")
            if one["spec"]["source"] == "nightly"
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


def _answer_authorities(api: Api, person: int, mail: MailServer) -> None:
    """Reject a request without a court order, and have one with it decided; the person is told of both."""
    # Received after the restore, by a manifest's whole seconds: before it her key might have been another's.
    time.sleep(1.1)
    api.legal_request("le-1", person, receivedAt=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    api.wait("legalrequests", "le-1", "UserInformed", patience=60)
    eventually(lambda: api.get("secrets", "le-1-answer") is not None, "the draft of an answer")
    api.secret("le-2", {"email": "bob@canary.example"}, "lethe.dev/identifier")
    api.secret("order", {"order.pdf": b"%PDF the order"})
    order = {"court": "Superior Court", "docket": "26-CV-1182", "issuedAt": "2026-11-19"}
    api.legal_request(
        "le-2",
        None,
        subject={"identifierSecretRef": {"name": "le-2", "key": "email"}},
        courtOrder={**order, "documentSecretRef": {"name": "order", "key": "order.pdf"}},
        review={"decision": "Comply", "reviewer": "admin"},
    )
    api.wait("legalrequests", "le-2", "Decided", patience=60)
    api.wait("legalrequests", "le-2", "UserInformed", patience=60)
    assert api.get("secrets", "le-2") is None
    assert [one.recipients for one in mail.messages()] == [("bob@canary.example",)] * 2


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
