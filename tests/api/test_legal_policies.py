"""The admission policies of LegalRequests: who has the user told, who decides, and as whom."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from lethe.api.crd import definition
from lethe.api.v1alpha1 import LegalRequest
from tests.api.apiserver import RESOURCES, Answer, ApiServer, eventually
from tests.api.rights import (
    DELETE_SECRETS,
    EDIT,
    FOLDERS,
    NOTIFY,
    READ_SECRETS,
    REVIEW,
    allow,
    documents,
    settled,
)
from tests.api.samples import REMOVED, changed, manifest

pytestmark = pytest.mark.usefixtures("policies")

DECIDED = manifest("LegalRequest", "le-2026-0107")
DISCLOSURE = changed(DECIDED, {"spec.review": REMOVED, "spec.courtOrder.documentSecretRef": REMOVED})
DISCLOSURE_AND_REVIEW = changed(DISCLOSURE, {"spec.review": {"decision": "Comply"}})
WITHOUT_ORDER = changed(DISCLOSURE, {"spec.courtOrder": REMOVED, "spec.nonDisclosure": REMOVED})
BY_SECRET = manifest("LegalRequest", "le-2026-0112")
PRESERVATION = changed(
    BY_SECRET, {"spec.subject": {"id": "4711"}, "spec.authority.contactSecretRef": REMOVED}
)
ORDER = DISCLOSURE["spec"]["courtOrder"]
GAG = DISCLOSURE["spec"]["nonDisclosure"]
LIFTED = {"because": "the court has ended it"}
OF_OPERATOR = (
    {"apiGroups": ["lethe.dev"], "resources": ["legalrequests"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["lethe.dev"], "resources": ["legalrequests/status"], "verbs": ["patch"]},
)


@pytest.fixture
def clerk(apiserver: ApiServer, namespace: str) -> ApiServer:
    """May have the user told; decides nothing."""
    return _may_write(allow(apiserver, namespace, "clerk", EDIT, NOTIFY), namespace)


@pytest.fixture
def counsel(apiserver: ApiServer, namespace: str) -> ApiServer:
    """Decides; applies no requests."""
    return _may_write(allow(apiserver, namespace, "counsel", EDIT, REVIEW), namespace)


@pytest.fixture
def partner(apiserver: ApiServer, namespace: str) -> ApiServer:
    """Does both."""
    return _may_write(allow(apiserver, namespace, "partner", EDIT, NOTIFY, REVIEW), namespace)


@pytest.fixture
def intern(apiserver: ApiServer, namespace: str) -> ApiServer:
    """May write legal requests as far as RBAC goes."""
    return _may_write(allow(apiserver, namespace, "intern", EDIT), namespace)


def _may_write(user: ApiServer, namespace: str) -> ApiServer:
    settled(partial(user.create, DISCLOSURE, namespace, dry_run=True))
    return user


def _created(apiserver: ApiServer, namespace: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Create an object as the administrator, who may do everything, and return it as it is stored."""
    answer = apiserver.create(asked, namespace)
    assert answer, answer.text
    return answer.body


def _decided_by(user: ApiServer, created: dict[str, Any], decision: str = "Comply") -> dict[str, Any]:
    answer = user.replace(created, changed(created, {"spec.review": {"decision": decision}}), dry_run=False)
    assert answer, answer.text
    return answer.body


def _is_refused(answer: Answer, *words: str) -> None:
    assert answer.code == 403, answer.text
    for said in words:
        assert said in answer.body["message"]


# who may have the user told


def test_who_lacks_notify_cannot_apply_a_legal_request(
    clerk: ApiServer, intern: ApiServer, counsel: ApiServer, namespace: str
) -> None:
    for asked in (DISCLOSURE, WITHOUT_ORDER, PRESERVATION):
        assert clerk.create(asked, namespace, dry_run=True).code == 201
        _is_refused(
            intern.create(asked, namespace, dry_run=True),
            f'intern lacks the verb "notify" on legalrequests.lethe.dev in namespace {namespace}',
        )
        _is_refused(counsel.create(asked, namespace, dry_run=True), 'counsel lacks the verb "notify"')


def test_the_right_to_notify_in_one_namespace_is_none_in_another(
    apiserver: ApiServer, clerk: ApiServer, namespace: str
) -> None:
    allow(apiserver, "default", "clerk", EDIT)
    assert clerk.create(DISCLOSURE, namespace, dry_run=True).code == 201
    answer = settled(lambda: clerk.create(DISCLOSURE, "default", dry_run=True))
    _is_refused(answer, 'clerk lacks the verb "notify" on legalrequests.lethe.dev in namespace default')


LATER = {
    "a court order is added": (WITHOUT_ORDER, {"spec.courtOrder": ORDER}),
    "the user is not to be told any more": (WITHOUT_ORDER, {"spec.nonDisclosure": GAG}),
    "a gag is prolonged": (DISCLOSURE, {"spec.nonDisclosure.until": "2027-06-01"}),
    "a hold is asked for": (DISCLOSURE, {"spec.preservation": {}}),
    "a hold is prolonged": (PRESERVATION, {"spec.preservation.until": "2027-06-01T00:00:00Z"}),
    "a hold is widened": (PRESERVATION, {"spec.preservation.stores": ["site", "crm", "hrm"]}),
    "a hold's end is dropped": (DISCLOSURE, {"spec.preservation": {"stores": ["site"]}}),
}


@pytest.mark.parametrize(("before", "changes"), LATER.values(), ids=LATER)
def test_what_moves_a_notice_or_a_hold_later_takes_notify_too(
    *,
    before: dict[str, Any],
    changes: dict[str, Any],
    apiserver: ApiServer,
    clerk: ApiServer,
    intern: ApiServer,
    counsel: ApiServer,
    namespace: str,
) -> None:
    created = _created(apiserver, namespace, before)
    answer = clerk.replace(created, changed(before, changes))
    assert answer.code == 200, answer.text
    for user, name in ((intern, "intern"), (counsel, "counsel")):
        _is_refused(
            user.replace(created, changed(before, changes)),
            f'{name} lacks the verb "notify" on legalrequests.lethe.dev in namespace {namespace}',
        )


# Secrets that are named


def test_an_identifiers_secret_is_deleted_for_those_only_who_may_delete_it(
    apiserver: ApiServer, clerk: ApiServer, namespace: str
) -> None:
    asked = changed(BY_SECRET, {"spec.authority.contactSecretRef": REMOVED})
    _is_refused(
        clerk.create(asked, namespace, dry_run=True),
        "clerk may not delete the Secret le-2026-0112, and Lethe would delete it on your behalf",
    )
    own = {**DELETE_SECRETS, "resourceNames": ["le-2026-0112"]}
    paralegal = allow(apiserver, namespace, "paralegal", EDIT, NOTIFY, own)
    assert settled(lambda: paralegal.create(asked, namespace, dry_run=True)).code == 201
    other = changed(asked, {"spec.subject.identifierSecretRef.name": "tls"})
    _is_refused(paralegal.create(other, namespace, dry_run=True), "paralegal may not delete the Secret tls")


ORDERED = {"name": "order", "key": "order.pdf"}
TO_READ = {
    "order": {"spec.courtOrder.documentSecretRef": ORDERED},
    "contact": {"spec.authority.contactSecretRef": {"name": "contact", "key": "email"}},
}


@pytest.mark.parametrize("secret", TO_READ)
def test_a_named_secret_is_read_for_those_only_who_may_read_it(
    secret: str, apiserver: ApiServer, clerk: ApiServer, namespace: str
) -> None:
    asked = changed(DISCLOSURE, TO_READ[secret])
    _is_refused(
        clerk.create(asked, namespace, dry_run=True),
        f"clerk may not read every Secret that this names ({secret}), and Lethe would use it on your behalf",
    )
    own = {**READ_SECRETS, "resourceNames": [secret]}
    paralegal = allow(apiserver, namespace, "paralegal", EDIT, NOTIFY, own)
    assert settled(lambda: paralegal.create(asked, namespace, dry_run=True)).code == 201
    [other] = set(TO_READ) - {secret}
    both = changed(asked, TO_READ[other])
    _is_refused(paralegal.create(both, namespace, dry_run=True), "paralegal may not read every Secret")


def test_a_document_that_comes_later_is_read_for_those_only_who_may_read_it(
    apiserver: ApiServer, clerk: ApiServer, namespace: str
) -> None:
    before = changed(WITHOUT_ORDER, TO_READ["contact"])
    created = _created(apiserver, namespace, before)
    assert clerk.replace(created, changed(before, {"spec.courtOrder": ORDER})).code == 200
    documented = changed(before, {"spec.courtOrder": {**ORDER, "documentSecretRef": ORDERED}})
    _is_refused(clerk.replace(created, documented), "clerk may not read every Secret that this names (order)")
    # Naming once more what somebody else has named elsewhere is no way around it.
    again = changed(documented, {"spec.courtOrder.documentSecretRef.name": "contact"})
    _is_refused(clerk.replace(created, again), "clerk may not read every Secret that this names (contact)")
    own = {**READ_SECRETS, "resourceNames": ["order"]}
    paralegal = allow(apiserver, namespace, "paralegal", EDIT, NOTIFY, own)
    assert settled(lambda: paralegal.replace(created, documented)).code == 200


def test_counsel_decides_without_reading_what_a_clerk_has_named(
    apiserver: ApiServer, counsel: ApiServer, namespace: str
) -> None:
    before = changed(DISCLOSURE, {**TO_READ["order"], **TO_READ["contact"]})
    before = changed(before, {"spec.subject": BY_SECRET["spec"]["subject"]})
    created = _created(apiserver, namespace, before)
    assert _decided_by(counsel, created)["spec"]["review"]["reviewer"] == "counsel"


# who decides


REVIEWED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a decision": (DISCLOSURE, {"spec.review": {"decision": "Refuse"}}),
    "another decision": (DECIDED, {"spec.review": {"decision": "Refuse"}}),
    "a gag is lifted": (DISCLOSURE, {"spec.nonDisclosure.lifted": LIFTED}),
    "a hold is lifted": (PRESERVATION, {"spec.preservation.lifted": LIFTED}),
    "a gag is lifted for another reason": (
        changed(DISCLOSURE, {"spec.nonDisclosure.lifted": LIFTED}),
        {"spec.nonDisclosure.lifted.because": "a slip"},
    ),
}


@pytest.mark.parametrize(("before", "changes"), REVIEWED.values(), ids=REVIEWED)
def test_who_lacks_review_can_neither_decide_nor_lift(
    *,
    before: dict[str, Any],
    changes: dict[str, Any],
    apiserver: ApiServer,
    clerk: ApiServer,
    intern: ApiServer,
    counsel: ApiServer,
    namespace: str,
) -> None:
    created = _created(apiserver, namespace, before)
    answer = counsel.replace(created, changed(before, changes))
    assert answer.code == 200, answer.text
    for user, name in ((intern, "intern"), (clerk, "clerk")):
        _is_refused(
            user.replace(created, changed(before, changes)),
            f'{name} lacks the verb "review" on legalrequests.lethe.dev in namespace {namespace}',
            "to set spec.review, and to lift",
        )


ENDLESS = {
    "a gag": (
        changed(WITHOUT_ORDER, {"spec.nonDisclosure": {"legalBasis": GAG["legalBasis"]}}),
        {"spec.nonDisclosure": {**GAG, "until": "2020-01-01"}},
    ),
    "a hold": (
        changed(DISCLOSURE, {"spec.preservation": {}}),
        {"spec.preservation": {"until": "2020-01-01T00:00:00Z"}},
    ),
}


@pytest.mark.parametrize(("before", "changes"), ENDLESS.values(), ids=ENDLESS)
def test_an_end_for_what_had_none_is_counsels_too(
    *,
    before: dict[str, Any],
    changes: dict[str, Any],
    apiserver: ApiServer,
    clerk: ApiServer,
    partner: ApiServer,
    namespace: str,
) -> None:
    created = _created(apiserver, namespace, before)
    _is_refused(
        clerk.replace(created, changed(before, changes)), 'clerk lacks the verb "review"', "give it an end"
    )
    assert partner.replace(created, changed(before, changes)).code == 200


def test_a_decision_at_once_takes_both_rights(clerk: ApiServer, partner: ApiServer, namespace: str) -> None:
    lifted = changed(DISCLOSURE, {"spec.nonDisclosure.lifted": LIFTED})
    for asked in (DISCLOSURE_AND_REVIEW, lifted):
        _is_refused(clerk.create(asked, namespace, dry_run=True), 'clerk lacks the verb "review"')
    answer = partner.create(DISCLOSURE_AND_REVIEW, namespace, dry_run=True)
    assert answer.code == 201, answer.text
    assert answer.body["spec"]["review"] == {"decision": "Comply", "reviewer": "partner"}
    assert partner.create(lifted, namespace, dry_run=True).code == 201


def test_the_right_to_review_may_be_for_one_request(
    apiserver: ApiServer, clerk: ApiServer, namespace: str
) -> None:
    one = _created(apiserver, namespace, DISCLOSURE)
    other = _created(apiserver, namespace, changed(DISCLOSURE, {"metadata.name": "other"}))
    of_one = {**REVIEW, "resourceNames": [one["metadata"]["name"]]}
    outside = allow(apiserver, namespace, "outside-counsel", EDIT, of_one)
    settled(lambda: outside.replace(one, one))
    assert _decided_by(outside, one)["spec"]["review"]["reviewer"] == "outside-counsel"
    _is_refused(
        outside.replace(other, changed(other, {"spec.review": {"decision": "Comply"}})),
        "outside-counsel lacks",
    )


# as whom


def test_a_decision_bears_the_name_of_who_made_it_and_then_of_who_changed_it(
    apiserver: ApiServer, counsel: ApiServer, partner: ApiServer, namespace: str
) -> None:
    decided = _decided_by(counsel, _created(apiserver, namespace, DISCLOSURE))
    assert decided["spec"]["review"] == {"decision": "Comply", "reviewer": "counsel"}
    # `kubectl edit` shows the former reviewer, who is still there when the decision has been changed.
    otherwise = partner.replace(decided, changed(decided, {"spec.review.decision": "Refuse"}))
    assert otherwise.body["spec"]["review"] == {"decision": "Refuse", "reviewer": "partner"}
    assert _decided_by(partner, decided, "Refuse")["spec"]["review"]["reviewer"] == "partner"


def test_nobody_decides_as_somebody_else(
    apiserver: ApiServer, counsel: ApiServer, partner: ApiServer, clerk: ApiServer, namespace: str
) -> None:
    created = _created(apiserver, namespace, DISCLOSURE)
    forged = changed(created, {"spec.review": {"decision": "Comply", "reviewer": "counsel"}})
    _is_refused(clerk.replace(created, forged), 'clerk lacks the verb "review"')
    _is_refused(
        partner.replace(created, forged),
        "spec.review.reviewer must be who sets spec.review: "
        'write review: {decision: Comply, reviewer: "partner"}',
    )
    _is_refused(partner.create(changed(forged, {"metadata": {"name": "new"}}), namespace), "must be who sets")
    decided = _decided_by(counsel, created)
    for user, words in ((clerk, 'lacks the verb "review"'), (partner, "must be who sets spec.review")):
        _is_refused(user.replace(decided, changed(decided, {"spec.review.reviewer": "intern"})), words)


def test_a_reviewer_can_make_a_decision_their_own(
    apiserver: ApiServer, counsel: ApiServer, partner: ApiServer, namespace: str
) -> None:
    decided = _decided_by(counsel, _created(apiserver, namespace, DISCLOSURE))
    taken_over = partner.replace(decided, changed(decided, {"spec.review.reviewer": "partner"}))
    assert taken_over.code == 200, taken_over.text
    assert taken_over.body["spec"]["review"] == {"decision": "Comply", "reviewer": "partner"}


# who changes nothing


def test_applying_counsels_request_again_takes_no_right_and_leaves_the_reviewer(
    apiserver: ApiServer, counsel: ApiServer, clerk: ApiServer, intern: ApiServer, namespace: str
) -> None:
    """A pipeline applies what stands in Git, which has no reviewer."""
    created = _created(apiserver, namespace, DISCLOSURE)
    decided = _decided_by(counsel, created)
    from_git = changed(DISCLOSURE_AND_REVIEW, {"metadata.namespace": namespace})
    folder = f"{RESOURCES}/namespaces/{namespace}/legalrequests"
    for user in (clerk, intern):
        for answer in (
            user.replace(decided, from_git),
            user.apply(from_git, folder, manager="pipeline", dry_run=True),
        ):
            assert answer.code == 200, answer.text
            assert answer.body["spec"]["review"] == {"decision": "Comply", "reviewer": "counsel"}
    _is_refused(
        clerk.apply(changed(from_git, {"spec.review.decision": "Refuse"}), folder, dry_run=True),
        'clerk lacks the verb "review"',
    )


def test_labels_take_no_right_at_all(apiserver: ApiServer, intern: ApiServer, namespace: str) -> None:
    for asked in (DECIDED, BY_SECRET):
        created = _created(apiserver, namespace, asked)
        labelled = changed(created, {"metadata.labels": {"case": "7"}})
        assert intern.replace(labelled, asked).code == 200


def test_the_operator_reports_and_decides_nothing(
    apiserver: ApiServer, counsel: ApiServer, namespace: str
) -> None:
    operator = allow(apiserver, namespace, "operator", *OF_OPERATOR)
    decided = _decided_by(counsel, _created(apiserver, namespace, DISCLOSURE))
    path = f"{RESOURCES}/namespaces/{namespace}/legalrequests/{decided['metadata']['name']}/status"
    report = {"spec": {"review": {"decision": "Refuse"}}, "status": {"notice": {"state": "Sent"}}}

    def patched() -> Answer:
        return operator.send("PATCH", path, report, content="application/merge-patch+json")

    answer = settled(patched)
    assert answer.code == 200, answer.text
    assert answer.body["status"]["notice"] == {"state": "Sent"}
    assert answer.body["spec"]["review"] == {"decision": "Comply", "reviewer": "counsel"}
    refused = operator.replace(decided, changed(decided, {"spec.review.decision": "Refuse"}))
    assert "cannot update resource" in refused.text


# Kubernetes before 1.36


@pytest.fixture
def nothing_fills_in_the_reviewer(apiserver: ApiServer) -> Iterator[None]:
    """No MutatingAdmissionPolicy, as in an older Kubernetes."""
    ours = ("MutatingAdmissionPolicyBinding", "lethe-reviewer.lethe.dev")
    binding = next(each for each in documents() if (each["kind"], each["metadata"]["name"]) == ours)

    def filled_in() -> bool:
        return '"reviewer":' in apiserver.create(DISCLOSURE_AND_REVIEW, "default", dry_run=True).text

    apiserver.send("DELETE", f"{FOLDERS[binding['kind']]}/{binding['metadata']['name']}")
    eventually(lambda: not filled_in(), "the reviewer is filled in no more")
    yield
    assert apiserver.apply(binding, FOLDERS[binding["kind"]])
    eventually(filled_in, "the reviewer is filled in again")


@pytest.mark.usefixtures("nothing_fills_in_the_reviewer")
def test_where_nothing_fills_in_the_reviewer_the_message_says_what_to_write(
    apiserver: ApiServer, counsel: ApiServer, partner: ApiServer, clerk: ApiServer, namespace: str
) -> None:
    remedy = 'must be who sets spec.review: write review: {decision: Comply, reviewer: "counsel"}'
    created = _created(apiserver, namespace, DISCLOSURE)
    _is_refused(counsel.replace(created, DISCLOSURE_AND_REVIEW), remedy)
    written = changed(DISCLOSURE_AND_REVIEW, {"spec.review.reviewer": "counsel"})
    _is_refused(partner.replace(created, written), 'reviewer: "partner"}')
    answer = counsel.replace(created, written, dry_run=False)
    assert answer.code == 200, answer.text
    # Another decision under the former reviewer's name.
    _is_refused(
        partner.replace(answer.body, changed(written, {"spec.review.decision": "Refuse"})),
        'write review: {decision: Refuse, reviewer: "partner"}',
    )
    # With the reviewer in it, a pipeline can apply it again; without, it would take the name away.
    assert clerk.replace(answer.body, written).code == 200
    _is_refused(clerk.replace(answer.body, DISCLOSURE_AND_REVIEW), 'clerk lacks the verb "review"')


def test_every_field_that_can_be_changed_takes_a_right() -> None:
    """A new field fails here until a policy knows it, or a rule says that it can't be changed."""
    [version] = definition(LegalRequest)["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    rules = " ".join(rule["rule"] for rule in spec["x-kubernetes-validations"])
    frozen = {field for field in spec["properties"] if f"self.{field} == oldSelf.{field}" in rules}
    policies = " ".join(str(each["spec"]) for each in documents())
    for field in set(spec["properties"]) - frozen:
        inner = spec["properties"][field]["properties"]
        whole = re.search(rf"object\.spec\.\?{field} != variables\.before\.\?{field}(?!\w|\.)", policies)
        assert whole or all(f"object.spec.?{field}.?{name} != variables" in policies for name in inner), field
