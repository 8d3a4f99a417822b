"""The admission policies: nobody makes Lethe do what they may not do themselves."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from lethe.api.crd import definition
from lethe.api.v1alpha1 import BackupSource, DataStore, DeletionRequest
from tests.api.apiserver import Answer, ApiServer
from tests.api.conftest import eventually
from tests.api.samples import REMOVED, changed, manifest

POLICIES = Path(__file__).parents[2] / "crds" / "policies"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
FOLDERS = {
    "ValidatingAdmissionPolicy": f"{ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{ADMISSION}/validatingadmissionpolicybindings",
}
EDIT = {
    "apiGroups": ["lethe.dev"],
    "resources": ["deletionrequests", "datastores", "backupsources"],
    "verbs": ["get", "create", "update", "patch"],
}
PRUNE = {"apiGroups": ["lethe.dev"], "resources": ["backupsources"], "verbs": ["prune"]}
READ_SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
PERSON = manifest("DeletionRequest", "support-48213")
NIGHTLY = manifest("BackupSource", "site-nightly")
IN_A_DIRECTORY = changed(
    NIGHTLY, {"spec.s3": REMOVED, "spec.directory": {"path": "/backups", "name": "{takenAt:%Y%m%d}"}}
)
IN_A_FOLDER_OF_RESTIC = changed(
    NIGHTLY,
    {
        "spec.s3": REMOVED,
        "spec.restic": {"repository": "/backups/restic", "credentialsSecretRef": {"name": "restic"}},
    },
)
BY_SECRET = manifest("DeletionRequest", "support-48214")
RECORDS = manifest("DeletionRequest", "customer-42-orders")
SITE = manifest("DataStore", "site")


def _documents() -> Iterator[dict[str, Any]]:
    for path in sorted(POLICIES.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def _allow(apiserver: ApiServer, namespace: str, user: str, *rules: dict[str, Any]) -> ApiServer:
    """Give `user` these rights in `namespace`, and return the API server as that user sees it."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": user},
        "rules": [*rules],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    for kind, document in (("roles", role), ("rolebindings", binding)):
        answer = apiserver.apply(document, f"{RBAC}/namespaces/{namespace}/{kind}")
        assert answer, answer.text
    return apiserver.speaking_as(user)


def _settled(attempt: Callable[[], Answer]) -> Answer:
    """Return the answer once the role is seen: until then RBAC itself refuses, in other words."""
    answers: list[Answer] = []

    def beyond_rbac() -> bool:
        answers.append(attempt())
        return (
            "cannot create resource" not in answers[-1].text
            and "cannot update resource" not in answers[-1].text
        )

    eventually(beyond_rbac, "the role is seen")
    return answers[-1]


@pytest.fixture(scope="module")
def policies(apiserver: ApiServer) -> Iterator[None]:
    """The policies in force; other tests of this session are not to meet them."""
    for document in _documents():
        answer = apiserver.apply(document, FOLDERS[document["kind"]])
        assert answer, answer.text
    future = changed(PERSON, {"spec.requestedAt": "2999-01-01T00:00:00Z"})
    unread = changed(SITE, {"metadata.name": "probe"})
    stranger = apiserver.speaking_as("stranger-with-all-rights-but-secrets")
    _allow(apiserver, "default", "stranger-with-all-rights-but-secrets", EDIT)
    eventually(
        lambda: "lies in the future" in apiserver.create(future, "default", dry_run=True).text, "policies act"
    )
    eventually(
        lambda: "lacks the verb" in stranger.create(PERSON, "default", dry_run=True).text, "policies act"
    )
    eventually(
        lambda: "may not read" in stranger.create(unread, "default", dry_run=True).text, "policies act"
    )
    yield
    for document in _documents():
        apiserver.send("DELETE", f"{FOLDERS[document['kind']]}/{document['metadata']['name']}")


def test_the_policies_do_not_stand_where_crds_are_applied_from() -> None:
    """`kubectl apply -f crds` takes the CRDs alone."""
    assert sorted(path.name for path in POLICIES.glob("*")) == [
        "erase.yaml",
        "prune.yaml",
        "requested-at.yaml",
        "secrets.yaml",
    ]


def test_a_policy_fails_closed_and_is_bound() -> None:
    documents = list(_documents())
    made = {each["metadata"]["name"] for each in documents if each["kind"] == "ValidatingAdmissionPolicy"}
    bound = {each["spec"]["policyName"] for each in documents if each["kind"].endswith("Binding")}
    assert made == bound
    for each in documents:
        if each["kind"].endswith("Binding"):
            assert each["spec"]["validationActions"] == ["Deny"]
        else:
            assert each["spec"]["failurePolicy"] == "Fail"


@pytest.mark.usefixtures("policies")
def test_who_may_not_erase_on_any_store_cannot_ask_for_an_erasure(
    apiserver: ApiServer, namespace: str
) -> None:
    dana = _allow(apiserver, namespace, "dana", EDIT)
    for request in (PERSON, BY_SECRET, RECORDS):
        answer = _settled(partial(dana.create, request, namespace, dry_run=True))
        assert answer.code == 403
        assert 'dana lacks the verb "erase" on' in answer.body["message"]


@pytest.mark.usefixtures("policies")
def test_who_may_erase_on_one_store_can_ask_for_its_data_only(apiserver: ApiServer, namespace: str) -> None:
    on_site = {
        "apiGroups": ["lethe.dev"],
        "resources": ["datastores"],
        "verbs": ["erase"],
        "resourceNames": ["site"],
    }
    dana = _allow(apiserver, namespace, "dana", EDIT, on_site)
    answer = _settled(lambda: dana.create(RECORDS, namespace, dry_run=True))
    assert answer.code == 201, answer.text
    elsewhere = dana.create(changed(RECORDS, {"spec.data.store": "crm-db"}), namespace, dry_run=True)
    assert elsewhere.code == 403
    assert f"on datastores.lethe.dev crm-db in namespace {namespace}" in elsewhere.body["message"]
    person = dana.create(PERSON, namespace, dry_run=True)
    assert person.code == 403
    assert (
        f"on all datastores.lethe.dev in namespace {namespace}, which a request for a person needs"
        in person.text
    )


@pytest.mark.usefixtures("policies")
def test_the_right_in_one_namespace_is_none_in_another(apiserver: ApiServer, namespace: str) -> None:
    on_all = {"apiGroups": ["lethe.dev"], "resources": ["datastores"], "verbs": ["erase"]}
    _allow(apiserver, namespace, "dana", EDIT, on_all)
    dana = _allow(apiserver, "default", "dana", EDIT)
    assert _settled(lambda: dana.create(PERSON, namespace, dry_run=True)).code == 201
    assert _settled(lambda: dana.create(PERSON, "default", dry_run=True)).code == 403


@pytest.mark.usefixtures("policies")
def test_two_users_are_told_apart(apiserver: ApiServer, namespace: str) -> None:
    on_all = {"apiGroups": ["lethe.dev"], "resources": ["datastores"], "verbs": ["erase"]}
    sam = _allow(apiserver, namespace, "sam", EDIT, on_all)
    dana = _allow(apiserver, namespace, "dana", EDIT)
    assert _settled(lambda: sam.create(PERSON, namespace, dry_run=True)).code == 201
    refused = _settled(lambda: dana.create(PERSON, namespace, dry_run=True))
    assert refused.code == 403
    assert "dana lacks" in refused.text
    assert "sam" not in refused.text


@pytest.mark.usefixtures("policies")
def test_a_secret_is_deleted_for_those_only_who_may_delete_it(apiserver: ApiServer, namespace: str) -> None:
    on_all = {"apiGroups": ["lethe.dev"], "resources": ["datastores"], "verbs": ["erase"]}
    own = {
        "apiGroups": [""],
        "resources": ["secrets"],
        "verbs": ["delete"],
        "resourceNames": ["support-48214"],
    }
    dana = _allow(apiserver, namespace, "dana", EDIT, on_all, own)
    assert _settled(lambda: dana.create(BY_SECRET, namespace, dry_run=True)).code == 201
    other = changed(BY_SECRET, {"spec.subject.identifierSecretRef.name": "tls"})
    refused = dana.create(other, namespace, dry_run=True)
    assert refused.code == 403
    assert (
        "dana may not delete the Secret tls, and Lethe would delete it on your behalf"
        in refused.body["message"]
    )


@pytest.mark.usefixtures("policies")
def test_the_legal_clock_cannot_start_in_the_future_for_anybody(apiserver: ApiServer, namespace: str) -> None:
    later = changed(PERSON, {"spec.requestedAt": "2999-01-01T00:00:00Z"})
    refused = apiserver.create(later, namespace, dry_run=True)
    assert refused.code == 422
    assert "spec.requestedAt lies in the future: it is now 20" in refused.body["message"]
    for moment in ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00.5+02:00"):
        assert (
            apiserver.create(changed(PERSON, {"spec.requestedAt": moment}), namespace, dry_run=True).code
            == 201
        )
    assert (
        apiserver.create(changed(PERSON, {"spec.requestedAt": REMOVED}), namespace, dry_run=True).code == 201
    )


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize(
    ("kind", "name", "secret"),
    [
        ("DataStore", "site", "site-db"),
        ("DataStore", "crm", "crm-api"),
        ("DataStore", "hrm", "hrm-api"),
        ("DataStore", "tryton", "hrm-tryton"),
        ("BackupSource", "site-nightly", "backup-s3"),
    ],
)
def test_a_secret_is_read_for_those_only_who_may_read_it(
    kind: str, name: str, secret: str, apiserver: ApiServer, namespace: str
) -> None:
    read = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": [secret]}
    sam = _allow(apiserver, namespace, "sam", EDIT, PRUNE, read)
    dana = _allow(apiserver, namespace, "dana", EDIT, PRUNE)
    assert _settled(lambda: sam.create(manifest(kind, name), namespace, dry_run=True)).code == 201
    refused = _settled(lambda: dana.create(manifest(kind, name), namespace, dry_run=True))
    assert refused.code == 403
    assert (
        f"dana may not read every Secret that this names ({secret}), and Lethe would use it on your behalf"
        in (refused.body["message"])
    )


@pytest.mark.usefixtures("policies")
def test_who_may_not_read_the_secret_may_still_label_the_store_but_not_move_it(
    apiserver: ApiServer, namespace: str
) -> None:
    created = apiserver.create(SITE, namespace)
    dana = _allow(apiserver, namespace, "dana", EDIT)
    labelled = {**created.body, "metadata": {**created.body["metadata"], "labels": {"team": "site"}}}
    answer = _settled(lambda: dana.replace(labelled, SITE))
    assert answer.code == 200, answer.text
    moved = changed(SITE, {"spec.gate.release": "Manual"})
    assert dana.replace(created.body, moved).code == 403


@pytest.mark.usefixtures("policies")
def test_who_may_not_prune_cannot_have_lethe_prune(apiserver: ApiServer, namespace: str) -> None:
    sam = _allow(apiserver, namespace, "sam", EDIT, READ_SECRETS, PRUNE)
    dana = _allow(apiserver, namespace, "dana", EDIT, READ_SECRETS)
    assert _settled(lambda: sam.create(NIGHTLY, namespace, dry_run=True)).code == 201
    refused = _settled(lambda: dana.create(NIGHTLY, namespace, dry_run=True))
    assert refused.code == 403
    assert (
        f'dana lacks the verb "prune" on backupsources.lethe.dev in namespace {namespace}'
        in refused.body["message"]
    )


@pytest.mark.usefixtures("policies")
def test_who_may_not_prune_can_neither_shorten_a_retention_nor_confirm(
    apiserver: ApiServer, namespace: str
) -> None:
    created = apiserver.create(NIGHTLY, namespace)
    dana = _allow(apiserver, namespace, "dana", EDIT, READ_SECRETS)
    labelled = {**created.body, "metadata": {**created.body["metadata"], "labels": {"team": "site"}}}
    assert _settled(lambda: dana.replace(labelled, NIGHTLY)).code == 200
    for field, value in (("spec.retention", "P1D"), ("spec.confirmPrunes", 1000), ("spec.suspend", True)):
        assert dana.replace(created.body, changed(NIGHTLY, {field: value})).code == 403


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize("source", [IN_A_DIRECTORY, IN_A_FOLDER_OF_RESTIC], ids=["directory", "restic"])
def test_a_directory_that_all_namespaces_share_takes_the_right_in_all_of_them(
    source: dict[str, Any], apiserver: ApiServer, namespace: str
) -> None:
    dana = _allow(apiserver, namespace, "dana", EDIT, READ_SECRETS, PRUNE)
    assert _settled(lambda: dana.create(NIGHTLY, namespace, dry_run=True)).code == 201
    refused = dana.create(source, namespace, dry_run=True)
    assert refused.code == 403
    assert "in all namespaces, which a source in a directory needs" in refused.body["message"]
    assert apiserver.create(source, namespace, dry_run=True).code == 201


def test_every_secret_that_can_be_named_is_guarded() -> None:
    """A new backend that reads a Secret fails here until its policy knows it."""
    policy = {
        each["metadata"]["name"]: str(each["spec"]) for each in _documents() if "Binding" not in each["kind"]
    }
    guarded = {DataStore: "lethe-named-secrets.lethe.dev", BackupSource: "lethe-named-secrets.lethe.dev"}
    for kind, name in {**guarded, DeletionRequest: "lethe-erase.lethe.dev"}.items():
        [version] = definition(kind)["spec"]["versions"]
        named = list(_secret_names(version["schema"]["openAPIV3Schema"]["properties"]["spec"], "object.spec"))
        assert named
        assert [path for path in named if path not in policy[name]] == []


def _secret_names(schema: dict[str, Any], path: str) -> Iterator[str]:
    assert not path.endswith("SecretRef[]"), "a list of Secrets needs a policy of its own"
    for name, field in schema.get("properties", {}).items():
        if name.endswith("SecretRef"):
            yield f"{path}.?{name}.?name"
        yield from _secret_names(field, f"{path}.?{name}")
