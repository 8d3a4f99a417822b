"""What the chart renders is what a real API server takes, with the values of charts/lethe/ci and without."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio.config import incluster_config

from devtools.chart.copies import CHART, COPIES, CRDS, texts
from devtools.chart.helm import NAMESPACE, Helm, Manifest, of_kind, the
from devtools.servers import CommandFailed, ControlPlane
from lethe.adapters.keys.files import FileKeyring
from lethe.api.v1alpha1 import KINDS
from lethe.settings import read_settings

CASES: list[Any] = [
    pytest.param((), id="default"),
    *(
        pytest.param(("--values", str(file)), id=file.stem)
        for file in sorted((CHART / "ci").glob("*-values.yaml"))
    ),
]


FROM_SECRETS = {
    "LETHE_LEDGER_URL": "postgresql://user@ledger.example/lethe",
    "LETHE_SMTP_URL": "smtp+starttls://mail.example:587",
    "LETHE_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}
SINCE_1_36 = (
    "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",
    "admissionregistration.k8s.io/v1/MutatingAdmissionPolicyBinding",
)


@pytest.mark.parametrize("values", CASES)
def test_lint_finds_nothing(helm: Helm, values: tuple[str, ...]) -> None:
    said = helm("lint", "--strict", str(CHART), *values)
    assert "[ERROR]" not in said
    assert "[WARNING]" not in said


@pytest.mark.parametrize("values", CASES)
def test_a_real_api_server_takes_what_is_rendered(
    helm: Helm, bare_cluster: ControlPlane, values: tuple[str, ...]
) -> None:
    manifests = helm.rendered(*values)
    said = bare_cluster.kubectl(
        "apply", "--server-side", "--dry-run=server", "--filename=-", input=yaml.safe_dump_all(manifests)
    )
    assert len(said.splitlines()) == len(manifests)


def test_the_copies_of_the_crds_are_theirs() -> None:
    assert texts(COPIES) == texts(CRDS), "crds/ has changed: run `python -m devtools.chart`"


def test_crds_and_policies_are_rendered_as_they_are_and_outlive_the_release(helm: Helm) -> None:
    rendered = {
        (manifest["kind"], manifest["metadata"]["name"]): manifest
        for manifest in helm.rendered(*(f"--api-versions={version}" for version in SINCE_1_36))
    }
    sources = [d for text in texts(CRDS).values() for d in yaml.safe_load_all(text) if d]
    assert len(sources) == len(KINDS) + 2 * len(list((CRDS / "policies").glob("*.yaml")))
    for source in sources:
        manifest = rendered[source["kind"], source["metadata"]["name"]]
        assert manifest["spec"] == source["spec"]
        assert manifest["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_an_older_kubernetes_is_given_no_kind_that_it_does_not_know(helm: Helm) -> None:
    """The reviewer of a legal request is not filled in there; the other policy asks for it."""
    policies = {manifest["metadata"]["name"]: manifest["kind"] for manifest in helm.rendered()}
    assert "lethe-reviewer.lethe.dev" not in policies
    assert policies["lethe-review.lethe.dev"].startswith("ValidatingAdmissionPolicy")


@pytest.mark.parametrize("values", CASES)
def test_the_pod_passes_the_restricted_pod_security_standard(
    helm: Helm, bare_cluster: ControlPlane, values: tuple[str, ...]
) -> None:
    _restricted(bare_cluster)
    template = the(helm.rendered(*values), "Deployment")["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "namespace": "restricted", "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
    }
    bare_cluster.kubectl("create", "--dry-run=server", "--filename=-", input=yaml.safe_dump(pod))


def test_a_pod_that_may_do_more_is_refused_by_that_standard(helm: Helm, bare_cluster: ControlPlane) -> None:
    _restricted(bare_cluster)
    template = the(helm.rendered(), "Deployment")["spec"]["template"]
    del template["spec"]["containers"][0]["securityContext"]["capabilities"]
    metadata = {"name": "operator", "namespace": "restricted"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        bare_cluster.kubectl("create", "--dry-run=server", "--filename=-", input=yaml.safe_dump(pod))


def _restricted(cluster: ControlPlane) -> None:
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "restricted", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    cluster.kubectl("apply", "--server-side", "--filename=-", input=yaml.safe_dump(namespace))


class _Asked(Mapping[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self, content: Mapping[str, str]) -> None:
        self._content = content
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._content[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)


@pytest.mark.parametrize("values", CASES)
def test_the_operator_reads_every_setting_that_the_chart_gives(helm: Helm, values: tuple[str, ...]) -> None:
    environment = environment_of(helm.rendered(*values))
    asked = _Asked(environment)
    read_settings(asked)
    assert set(environment) <= asked.names


def test_the_chart_can_give_every_setting_that_the_operator_reads(helm: Helm) -> None:
    given = {name for case in CASES for name in environment_of(helm.rendered(*case.values[0]))}
    asked = _Asked({})
    read_settings(asked)
    # A kubeconfig is for an operator outside of a cluster.
    assert given == asked.names - {"LETHE_KUBECONFIG"}


def test_the_default_values_are_the_operators_own_defaults(helm: Helm) -> None:
    in_a_pod = {"LETHE_LEASE": f"{NAMESPACE}/lethe"}  # as bootstrap.candidacy says
    assert read_settings(environment_of(helm.rendered())) == read_settings(in_a_pod)


def environment_of(manifests: list[Manifest]) -> dict[str, str]:
    """Return the operator's environment; what comes from a Secret is given a value here."""
    (container,) = the(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    return {
        variable["name"]: variable["value"] if "value" in variable else FROM_SECRETS[variable["name"]]
        for variable in container["env"]
        if variable["name"] not in {"SSL_CERT_FILE", "USER"}  # OpenSSL's and Go's own, and Python's
    }


def test_the_keys_that_the_chart_makes_are_keys_of_the_operator(helm: Helm, tmp_path: Path) -> None:
    secret = the(helm.rendered(), "Secret")
    for name, encoded in secret["data"].items():
        (tmp_path / name).write_bytes(base64.b64decode(encoded))
    tmp_path.chmod(0o500)
    FileKeyring(tmp_path)
    assert len(set(secret["data"].values())) == 3
    assert the(helm.rendered(), "Secret")["data"] != secret["data"]


def test_a_ledger_in_postgresql_needs_no_volume(helm: Helm) -> None:
    manifests = helm.rendered("--values", str(CHART / "ci" / "postgresql-values.yaml"))
    assert not of_kind(manifests, "PersistentVolumeClaim")
    assert not of_kind(manifests, "Secret")
    spec = the(manifests, "Deployment")["spec"]["template"]["spec"]
    assert {volume["name"] for volume in spec["volumes"]} == {"keys", "token", "tmp"}


def test_notices_are_set_as_the_values_say_and_files_lie_where_settings_point(helm: Helm) -> None:
    spec = the(helm.rendered("--values", str(CHART / "ci" / "notices-values.yaml")), "Deployment")["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    variables = {variable.pop("name"): variable for variable in container["env"]}
    assert variables["LETHE_SMTP_URL"]["valueFrom"]["secretKeyRef"] == {"name": "lethe-smtp", "key": "url"}
    assert variables["LETHE_MAIL_FROM"]["value"] == "Example Privacy <privacy@example.com>"
    assert variables["LETHE_WEBHOOK_URL"]["value"] == "https://mail.example.com/lethe"
    assert variables["LETHE_WEBHOOK_SECRET"]["valueFrom"]["secretKeyRef"] == {
        "name": "lethe-webhook",
        "key": "secret",
    }
    assert variables["LETHE_NOTICES_PER_HOUR"]["value"] == "120"
    volumes = {volume.pop("name"): volume for volume in pod["volumes"]}
    assert {
        setting: volumes[mount["name"]]
        for mount in container["volumeMounts"]
        for setting, said in variables.items()
        if said.get("value") in {mount["mountPath"], f"{mount['mountPath']}/ca.crt"} and mount["readOnly"]
    } == {
        "LETHE_KEYS_DIR": {"secret": {"secretName": "lethe-keys", "defaultMode": 0o440}},
        "LETHE_SMTP_CA_FILE": _certificate("tls-ca.pem"),
        "LETHE_WEBHOOK_CA_FILE": _certificate("ca.crt"),
        "LETHE_TEMPLATES_DIR": {"configMap": {"name": "letters"}},
    }


def _certificate(key: str) -> Manifest:
    return {"secret": {"secretName": "company-ca", "items": [{"key": key, "path": "ca.crt"}]}}


@pytest.mark.parametrize(
    ("values", "source"),
    [
        ("everything", {"configMap": {"name": "company-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}),
        ("network", _certificate("tls-ca.pem")),
        (None, None),
    ],
)
def test_authorities_of_ones_own_are_where_openssl_is_told_to_look(
    helm: Helm, values: str | None, source: Manifest | None
) -> None:
    given = ("--values", str(CHART / "ci" / f"{values}-values.yaml")) if values else ()
    pod = the(helm.rendered(*given), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    told = [one["value"] for one in container["env"] if one["name"] == "SSL_CERT_FILE"]
    mounted = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "ca"]
    sources = [one for one in pod["volumes"] if one["name"] == "ca"]
    assert told == [f"{path}/ca.crt" for path in mounted]
    assert sources == ([{"name": "ca", **source}] if source else [])
    assert len(mounted) == len(sources)


def test_the_token_is_mounted_for_the_operator_alone_where_its_clients_look_for_it(helm: Helm) -> None:
    manifests = helm.rendered()
    pod = the(manifests, "Deployment")["spec"]["template"]["spec"]
    assert the(manifests, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    (folder,) = (Path(one["mountPath"]) for one in container["volumeMounts"] if one["name"] == "token")
    (volume,) = (one["projected"] for one in pod["volumes"] if one["name"] == "token")
    token, authority, namespace = volume["sources"]
    assert str(folder / token["serviceAccountToken"]["path"]) == incluster_config.SERVICE_TOKEN_FILENAME
    (item,) = authority["configMap"]["items"]
    assert str(folder / item["path"]) == incluster_config.SERVICE_CERT_FILENAME
    # Kopf looks for it, too.
    assert [one["path"] for one in namespace["downwardAPI"]["items"]] == ["namespace"]


def test_a_network_policy_lets_in_whoever_scrapes_and_nobody_else(helm: Helm) -> None:
    assert not of_kind(helm.rendered(), "NetworkPolicy")
    manifests = helm.rendered("--set", "networkPolicy.enabled=true")
    spec = the(manifests, "NetworkPolicy")["spec"]
    assert spec["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]
    assert spec["policyTypes"] == ["Ingress"], "what goes out is not restricted unless it is listed"
    pod = the(manifests, "Deployment")["spec"]["template"]
    assert spec["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert "http" in {one["name"] for one in pod["spec"]["containers"][0]["ports"]}
    listed = the(helm.rendered("--values", str(CHART / "ci" / "network-values.yaml")), "NetworkPolicy")[
        "spec"
    ]
    assert listed["policyTypes"] == ["Ingress", "Egress"]
    assert [list(rule) for rule in listed["ingress"]] == [["ports", "from"]]
    assert {"ports": [{"port": 5432}], "to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}]} in listed["egress"]


@pytest.mark.parametrize("per_hour", [1, 30, 999_999])
def test_a_number_of_letters_is_written_as_a_number(helm: Helm, per_hour: int) -> None:
    environment = environment_of(helm.rendered("--set", f"notices.perHour={per_hour}"))
    assert read_settings(environment).notices_per_hour == per_hour
