"""The chart in a real cluster: what outlives it, and what its policies refuse."""

import json

import pytest
import yaml

from devtools.chart.copies import CHART
from devtools.chart.helm import NAMESPACE, Helm, Manifest, the
from devtools.company import eventually
from devtools.servers import CommandFailed, ControlPlane
from tests.chart.releases import install, keys_of

SMTP = ("urlSecretRef.name=smtp", "urlSecretRef.key=url", "from=privacy@example.com")
WEBHOOK = ("secretRef.name=webhook", "secretRef.key=secret", "url=https://mail.example.com")


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
