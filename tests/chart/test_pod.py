"""Who the pod runs as, where it may run, how it is replaced, and what labels and annotations it is given."""

import getpass
import pwd

import pytest

from devtools.chart.copies import CHART
from devtools.chart.helm import Helm, Manifest, of_kind, the
from tests.chart.test_rendering import CASES

EVERYTHING = ("--values", str(CHART / "ci" / "everything-values.yaml"))
POSTGRESQL = "ledger.urlSecretRef.name=ledger,ledger.urlSecretRef.key=url"


def pod_of(manifests: list[Manifest]) -> Manifest:
    """Return the specification of the operator's pod."""
    spec: Manifest = the(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


def tmp_of(manifests: list[Manifest]) -> Manifest:
    """Return the volume that is mounted at /tmp."""
    pod = pod_of(manifests)
    (name,) = (one["name"] for one in pod["containers"][0]["volumeMounts"] if one["mountPath"] == "/tmp")
    (volume,) = (one for one in pod["volumes"] if one["name"] == name)
    return dict(volume["emptyDir"])


@pytest.mark.parametrize(
    ("setting", "limit"),
    [
        ("ledger.volume.size=1Gi", {"sizeLimit": "1280Mi"}),
        ("ledger.volume.size=300Mi", {"sizeLimit": "556Mi"}),
        ("ledger.volume.size=300M", {"sizeLimit": "556Mi"}),
        ("ledger.volume.size=20G", {"sizeLimit": "20736Mi"}),
        ("ledger.volume.size=2Ti", {"sizeLimit": "2097408Mi"}),
        ("ledger.volume.existingClaim=ledger-of-ours", {}),
        (POSTGRESQL, {"sizeLimit": "256Mi"}),
    ],
)
def test_tmp_holds_a_copy_of_the_ledger_besides_what_else_is_there(
    helm: Helm, setting: str, limit: Manifest
) -> None:
    """A backup copies it there (docs/install.md), and a pod with more in it than its limit is evicted."""
    assert tmp_of(helm.rendered("--set", setting)) == limit


FIXED = {
    "runAsNonRoot": True,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def test_the_pod_runs_as_the_image_s_account(helm: Helm) -> None:
    own = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532}
    assert pod_of(helm.rendered())["securityContext"] == {**own, **FIXED}


def test_the_pod_runs_as_the_values_say(helm: Helm) -> None:
    """Numbers as large as OpenShift's, and none where the value is null."""
    given = {"runAsUser": 1000650000, "fsGroup": 1000650000, "supplementalGroups": [2049]}
    assert pod_of(helm.rendered(*EVERYTHING))["securityContext"] == {**given, **FIXED}


def test_the_platform_may_choose_all_of_the_numbers(helm: Helm) -> None:
    numbers = ",".join(f"podSecurityContext.{one}=null" for one in ("runAsUser", "runAsGroup", "fsGroup"))
    assert pod_of(helm.rendered("--set", numbers))["securityContext"] == FIXED


def test_an_account_that_the_image_does_not_know_has_a_name(
    helm: Helm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kopf asks for one when it starts, and an exception would be the answer."""

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    (container,) = pod_of(helm.rendered(*EVERYTHING))["containers"]
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    for variable in container["env"]:
        if variable["name"] == "USER":
            monkeypatch.setenv("USER", variable["value"])
    assert getpass.getuser() == "lethe"


def test_labels_for_all_are_on_every_object_and_on_the_pod(helm: Helm) -> None:
    asked = ("--set", "dashboard.enabled=true", "--set", "replicas=2", "--set", POSTGRESQL)
    manifests = helm.rendered(*EVERYTHING, *asked)
    without = {one["kind"] for one in manifests if one["metadata"]["labels"].get("cost-center") != "privacy"}
    assert without == set()
    assert {"CustomResourceDefinition", "PodDisruptionBudget", "ConfigMap"} <= {
        one["kind"] for one in manifests
    }
    labels = the(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert labels["cost-center"] == "privacy"
    assert labels["team"] == "privacy"


@pytest.mark.parametrize(
    ("kind", "value"),
    [("ServiceMonitor", "serviceMonitor"), ("PrometheusRule", "prometheusRule"), ("ConfigMap", "dashboard")],
)
def test_a_label_for_one_object_wins_over_that_for_all(helm: Helm, kind: str, value: str) -> None:
    said = f"commonLabels.team=all,{value}.enabled=true,{value}.labels.team=one"
    assert the(helm.rendered("--set", said), kind)["metadata"]["labels"]["team"] == "one"


def test_a_label_for_pods_wins_over_that_for_all(helm: Helm) -> None:
    deployment = the(helm.rendered("--set", "commonLabels.team=all,podLabels.team=one"), "Deployment")
    assert deployment["metadata"]["labels"]["team"] == "all"
    assert deployment["spec"]["template"]["metadata"]["labels"]["team"] == "one"


@pytest.mark.parametrize("values", CASES)
def test_the_chart_s_own_labels_are_those_by_which_the_pod_is_found(
    helm: Helm, values: tuple[str, ...]
) -> None:
    manifests = helm.rendered(*values)
    deployment, service = the(manifests, "Deployment")["spec"], the(manifests, "Service")["spec"]
    labels = deployment["template"]["metadata"]["labels"].items()
    assert deployment["selector"]["matchLabels"] == service["selector"]
    assert service["selector"].items() <= labels


def test_annotations_are_where_the_values_say_and_keep_the_ledger(helm: Helm) -> None:
    manifests = helm.rendered(*EVERYTHING)
    deployment = the(manifests, "Deployment")
    assert deployment["metadata"]["annotations"] == {"reloader.stakater.com/auto": "true"}
    assert deployment["spec"]["template"]["metadata"]["annotations"] == {"prometheus.io/scrape": "true"}
    assert the(manifests, "PersistentVolumeClaim")["metadata"]["annotations"] == {
        "example.com/snapshots": "nightly",
        "helm.sh/resource-policy": "keep",
    }


@pytest.mark.parametrize(("replicas", "budgets"), [(1, []), (2, [1]), (3, [1])])
def test_a_drain_takes_one_of_several_pods_and_is_never_stopped_by_the_only_one(
    helm: Helm, replicas: int, budgets: list[int]
) -> None:
    manifests = helm.rendered("--set", f"{POSTGRESQL},replicas={replicas}")
    found = [one["spec"] for one in of_kind(manifests, "PodDisruptionBudget")]
    assert [one["maxUnavailable"] for one in found] == budgets
    assert all("minAvailable" not in one for one in found)
    labels = the(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert all(one["selector"]["matchLabels"].items() <= labels.items() for one in found)


@pytest.mark.parametrize(
    ("setting", "strategy"),
    [
        ("replicas=1", "Recreate"),
        ("ledger.volume.existingClaim=ledger-of-ours", "Recreate"),
        (POSTGRESQL, "RollingUpdate"),
        (f"{POSTGRESQL},replicas=2", "RollingUpdate"),
    ],
)
def test_two_pods_never_have_a_ledger_on_a_volume(helm: Helm, setting: str, strategy: str) -> None:
    manifests = helm.rendered("--set", setting)
    assert the(manifests, "Deployment")["spec"]["strategy"] == {"type": strategy}
    has_volume = "ledger" in {one["name"] for one in pod_of(manifests)["volumes"]}
    assert has_volume is (strategy == "Recreate")


def test_one_pod_with_volumes_of_dumps_ends_before_another_mounts_them(helm: Helm) -> None:
    """Many a volume can be mounted by one node only: a rolling update would wait for ever on another."""
    volume = "backups.directories[0].volume.persistentVolumeClaim.claimName=dumps"
    dumps = f"backups.directories[0].name=dumps,backups.directories[0].mountPath=/backups/dumps,{volume}"
    strategies = [
        the(helm.rendered("--set", f"{POSTGRESQL},{dumps},replicas={n}"), "Deployment")["spec"]["strategy"]
        for n in (1, 2)
    ]
    assert strategies == [{"type": "Recreate"}, {"type": "RollingUpdate"}]


def test_several_pods_are_on_several_nodes_if_there_are_any(helm: Helm) -> None:
    assert "affinity" not in pod_of(helm.rendered())
    manifests = helm.rendered("--set", f"{POSTGRESQL},replicas=2")
    (term,) = pod_of(manifests)["affinity"]["podAntiAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    selector = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert selector == the(manifests, "Deployment")["spec"]["selector"]["matchLabels"]


def test_an_affinity_that_is_given_replaces_the_chart_s(helm: Helm) -> None:
    affinity = pod_of(helm.rendered(*EVERYTHING, "--set", f"{POSTGRESQL},replicas=2"))["affinity"]
    assert list(affinity) == ["nodeAffinity"]
