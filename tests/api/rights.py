"""The admission policies of the checkout, and users whose rights a test gives them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.api.apiserver import Answer, ApiServer, eventually

POLICIES = Path(__file__).parents[2] / "crds" / "policies"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
FOLDERS = {
    "ValidatingAdmissionPolicy": f"{_ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{_ADMISSION}/validatingadmissionpolicybindings",
    "MutatingAdmissionPolicy": f"{_ADMISSION}/mutatingadmissionpolicies",
    "MutatingAdmissionPolicyBinding": f"{_ADMISSION}/mutatingadmissionpolicybindings",
}

EDIT = {
    "apiGroups": ["lethe.dev"],
    "resources": [
        "deletionrequests",
        "datastores",
        "backupsources",
        "legalrequests",
        "restoredrills",
        "restoreevents",
    ],
    "verbs": ["get", "create", "update", "patch"],
}
CONNECT = {"apiGroups": ["lethe.dev"], "resources": ["datastores"], "verbs": ["connect"]}
DRILL = {"apiGroups": ["lethe.dev"], "resources": ["datastores"], "verbs": ["drill"]}
ERASE = {"apiGroups": ["lethe.dev"], "resources": ["datastores"], "verbs": ["erase"]}
PRUNE = {"apiGroups": ["lethe.dev"], "resources": ["backupsources"], "verbs": ["prune"]}
NOTIFY = {"apiGroups": ["lethe.dev"], "resources": ["legalrequests"], "verbs": ["notify"]}
REVIEW = {"apiGroups": ["lethe.dev"], "resources": ["legalrequests"], "verbs": ["review"]}
REJOIN = {"apiGroups": ["lethe.dev"], "resources": ["datastores"], "verbs": ["rejoin"]}
READ_SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
DELETE_SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["delete"]}


def documents() -> Iterator[dict[str, Any]]:
    """Return the policies and their bindings."""
    for path in sorted(POLICIES.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def allow(apiserver: ApiServer, namespace: str, user: str, *rules: dict[str, Any]) -> ApiServer:
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


def settled(attempt: Callable[[], Answer]) -> Answer:
    """Return the answer once the role is seen: until then RBAC itself refuses, in other words."""
    answers: list[Answer] = []

    def beyond_rbac() -> bool:
        answers.append(attempt())
        return not any(
            f"cannot {verb} resource" in answers[-1].text for verb in ("create", "update", "patch")
        )

    eventually(beyond_rbac, "the role is seen")
    return answers[-1]
