"""The admission policies: nobody makes Lethe do what they may not do themselves."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from lethe.api.crd import definition
from lethe.api.v1alpha1 import BackupSource, DataStore, DeletionRequest, LegalRequest, RestoreEvent
from tests.api.apiserver import ApiServer
from tests.api.rights import (
    CONNECT,
    DELETE_SECRETS,
    DRILL,
    EDIT,
    ERASE,
    POLICIES,
    PRUNE,
    READ_SECRETS,
    REJOIN,
    allow,
    documents,
    settled,
)
from tests.api.samples import REMOVED, changed, manifest

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
BY_THE_POD = changed(NIGHTLY, {"spec.s3.credentialsSecretRef": REMOVED})
BY_SECRET = manifest("DeletionRequest", "support-48214")
SUNDAY, BY_JOB = manifest("RestoreDrill", "sunday"), manifest("RestoreDrill", "sunday-by-job")
RECORDS = manifest("DeletionRequest", "customer-42-orders")
SITE = manifest("DataStore", "site")
ANALYTICS = changed(SITE, {"spec.role": "Other", "spec.owner": "ThirdParty", "spec.gate": REMOVED})
RESTORE = manifest("RestoreEvent", "site-2026-11-22")
UNDECLARED = {**RESTORE, "spec": {"store": "site", "reason": "Undeclared"}}
SAYS: dict[str, dict[str, Any]] = {
    "declare": {"spec.reason": "Drill", "spec.justification": "INC-2231"},
    "decide": {"spec.identities": [{"table": "users", "key": "7", "decision": "Erase"}]},
    "release": {"spec.release": {"because": "INC-2231"}},
}
"""What each verb on RestoreEvents lets say."""


def test_the_policies_do_not_stand_where_crds_are_applied_from() -> None:
    """`kubectl apply -f crds` takes the CRDs alone."""
    assert sorted(path.name for path in POLICIES.glob("*")) == [
        "connect.yaml",
        "drill.yaml",
        "erase.yaml",
        "notify.yaml",
        "prune.yaml",
        "rejoin.yaml",
        "releaser-map.yaml",
        "requested-at.yaml",
        "restore.yaml",
        "review.yaml",
        "reviewer-map.yaml",
        "secrets.yaml",
    ]


def test_a_policy_fails_closed_and_is_bound() -> None:
    every = list(documents())
    made = {(each["kind"], each["metadata"]["name"]) for each in every if "Binding" not in each["kind"]}
    bound = {
        (each["kind"].removesuffix("Binding"), each["spec"]["policyName"])
        for each in every
        if each["kind"].endswith("Binding")
    }
    assert made == bound
    for each in every:
        if each["kind"] == "ValidatingAdmissionPolicyBinding":
            assert each["spec"]["validationActions"] == ["Deny"]
        elif "Binding" not in each["kind"]:
            assert each["spec"]["failurePolicy"] == "Fail"


@pytest.mark.usefixtures("policies")
def test_who_may_not_erase_on_any_store_cannot_ask_for_an_erasure(
    apiserver: ApiServer, namespace: str
) -> None:
    dana = allow(apiserver, namespace, "dana", EDIT)
    for request in (PERSON, BY_SECRET, RECORDS):
        answer = settled(partial(dana.create, request, namespace, dry_run=True))
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
    dana = allow(apiserver, namespace, "dana", EDIT, on_site)
    answer = settled(lambda: dana.create(RECORDS, namespace, dry_run=True))
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
    allow(apiserver, namespace, "dana", EDIT, ERASE)
    dana = allow(apiserver, "default", "dana", EDIT)
    assert settled(lambda: dana.create(PERSON, namespace, dry_run=True)).code == 201
    assert settled(lambda: dana.create(PERSON, "default", dry_run=True)).code == 403


@pytest.mark.usefixtures("policies")
def test_two_users_are_told_apart(apiserver: ApiServer, namespace: str) -> None:
    sam = allow(apiserver, namespace, "sam", EDIT, ERASE)
    dana = allow(apiserver, namespace, "dana", EDIT)
    assert settled(lambda: sam.create(PERSON, namespace, dry_run=True)).code == 201
    refused = settled(lambda: dana.create(PERSON, namespace, dry_run=True))
    assert refused.code == 403
    assert "dana lacks" in refused.text
    assert "sam" not in refused.text


@pytest.mark.usefixtures("policies")
def test_a_secret_is_deleted_for_those_only_who_may_delete_it(apiserver: ApiServer, namespace: str) -> None:
    own = {
        "apiGroups": [""],
        "resources": ["secrets"],
        "verbs": ["delete"],
        "resourceNames": ["support-48214"],
    }
    dana = allow(apiserver, namespace, "dana", EDIT, ERASE, own)
    assert settled(lambda: dana.create(BY_SECRET, namespace, dry_run=True)).code == 201
    other = changed(BY_SECRET, {"spec.subject.identifierSecretRef.name": "tls"})
    refused = dana.create(other, namespace, dry_run=True)
    assert refused.code == 403
    assert (
        "dana may not delete the Secret tls, and Lethe would delete it on your behalf"
        in refused.body["message"]
    )


@pytest.mark.usefixtures("policies")
def test_the_legal_clock_cannot_start_in_the_future_for_anybody(apiserver: ApiServer, namespace: str) -> None:
    later = changed(PERSON, {"spec.requestedAt": "2199-01-01T00:00:00Z"})
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
        ("RestoreDrill", "sunday", "scratch-db"),
    ],
)
def test_a_secret_is_read_for_those_only_who_may_read_it(
    kind: str, name: str, secret: str, apiserver: ApiServer, namespace: str
) -> None:
    read = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": [secret]}
    verbs = PRUNE, CONNECT, DRILL
    sam = allow(apiserver, namespace, "sam", EDIT, *verbs, read)
    dana = allow(apiserver, namespace, "dana", EDIT, *verbs)
    assert settled(lambda: sam.create(manifest(kind, name), namespace, dry_run=True)).code == 201
    refused = settled(lambda: dana.create(manifest(kind, name), namespace, dry_run=True))
    assert refused.code == 403
    assert (
        f"dana may not read every Secret that this names ({secret}), and Lethe would use it on your behalf"
        in (refused.body["message"])
    )


@pytest.mark.usefixtures("policies")
def test_a_drill_takes_its_verb_on_the_store_and_by_a_job_the_right_to_make_jobs(
    apiserver: ApiServer, namespace: str
) -> None:
    on_site = {**DRILL, "resourceNames": ["site"]}
    jobs = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}
    sam = allow(apiserver, namespace, "sam", EDIT, READ_SECRETS, on_site, jobs)
    dana = allow(apiserver, namespace, "dana", EDIT, READ_SECRETS, on_site)
    eve = allow(apiserver, namespace, "eve", EDIT, READ_SECRETS, jobs)
    assert settled(lambda: sam.create(BY_JOB, namespace, dry_run=True)).code == 201
    assert settled(lambda: dana.create(SUNDAY, namespace, dry_run=True)).code == 201
    refused = dana.create(BY_JOB, namespace, dry_run=True)
    assert (refused.code, "dana may not create Jobs" in refused.body["message"]) == (403, True)
    refused = settled(lambda: eve.create(SUNDAY, namespace, dry_run=True))
    assert (refused.code, 'eve lacks the verb "drill"' in refused.body["message"]) == (403, True)
    whichever = changed(SUNDAY, {"spec.store": REMOVED})
    assert sam.create(whichever, namespace, dry_run=True).code == 403
    elsewhere = changed(SUNDAY, {"spec.store": "crm"})
    assert sam.create(elsewhere, namespace, dry_run=True).code == 403


@pytest.mark.usefixtures("policies")
def test_a_drill_that_rewrites_takes_its_verb_on_the_source_and_by_a_job_that_right(
    apiserver: ApiServer, namespace: str
) -> None:
    on_site = {**DRILL, "resourceNames": ["site"]}
    on_source = {
        "apiGroups": ["lethe.dev"],
        "resources": ["backupsources"],
        "verbs": ["rewrite"],
        "resourceNames": [SUNDAY["spec"]["source"]],
    }
    sam = allow(apiserver, namespace, "sam", EDIT, READ_SECRETS, on_site, on_source)
    dana = allow(apiserver, namespace, "dana", EDIT, READ_SECRETS, on_site)
    rewrites = changed(SUNDAY, {"spec.rewrite": True, "spec.dump": {"command": "pg-dump"}})
    assert settled(lambda: sam.create(rewrites, namespace, dry_run=True)).code == 201
    refused = settled(lambda: dana.create(rewrites, namespace, dry_run=True))
    assert (refused.code, 'dana lacks the verb "rewrite"' in refused.body["message"]) == (403, True)
    by_job = changed(rewrites, {"spec.dump": BY_JOB["spec"]["restore"]})
    refused = sam.create(by_job, namespace, dry_run=True)
    assert (refused.code, "sam may not create Jobs" in refused.body["message"]) == (403, True)
    for wrong in ({"spec.dump": REMOVED}, {"spec.rewrite": False}, {"spec.rewrite": REMOVED}):
        assert "give dump with rewrite" in sam.create(changed(rewrites, wrong), namespace).text


@pytest.mark.usefixtures("policies")
def test_who_may_not_read_the_secret_may_still_label_the_store_but_not_move_it(
    apiserver: ApiServer, namespace: str
) -> None:
    created = apiserver.create(SITE, namespace)
    dana = allow(apiserver, namespace, "dana", EDIT)
    labelled = {**created.body, "metadata": {**created.body["metadata"], "labels": {"team": "site"}}}
    answer = settled(lambda: dana.replace(labelled, SITE))
    assert answer.code == 200, answer.text
    moved = changed(SITE, {"spec.gate.release": "Manual"})
    assert dana.replace(created.body, moved).code == 403


@pytest.mark.usefixtures("policies")
def test_who_may_not_connect_cannot_have_identifiers_sent_anywhere(
    apiserver: ApiServer, namespace: str
) -> None:
    sam = allow(apiserver, namespace, "sam", EDIT, READ_SECRETS, CONNECT)
    dana = allow(apiserver, namespace, "dana", EDIT, READ_SECRETS)
    assert settled(lambda: sam.create(SITE, namespace, dry_run=True)).code == 201
    refused = settled(lambda: dana.create(SITE, namespace, dry_run=True))
    assert refused.code == 403
    lacks = f'dana lacks the verb "connect" on datastores.lethe.dev in namespace {namespace}'
    assert f"{lacks}, and Lethe would send" in refused.body["message"]


@pytest.mark.usefixtures("policies")
def test_a_store_that_is_sent_nothing_and_closes_no_pod_takes_no_verb(
    apiserver: ApiServer, namespace: str
) -> None:
    dana = allow(apiserver, namespace, "dana", EDIT, READ_SECRETS)
    answer = settled(lambda: dana.create(ANALYTICS, namespace))
    assert answer.code == 201, answer.text
    gated = changed(ANALYTICS, {"spec.gate": SITE["spec"]["gate"]})
    for moved in (changed(ANALYTICS, {"spec.owner": "Self"}), gated):
        refused = dana.replace(answer.body, moved)
        assert 'lacks the verb "connect"' in refused.body["message"]
    assert 'lacks the verb "connect"' in dana.create(gated, namespace, dry_run=True).body["message"]


@pytest.mark.usefixtures("policies")
def test_who_may_connect_one_store_only_can_change_no_other(apiserver: ApiServer, namespace: str) -> None:
    dana = allow(apiserver, namespace, "dana", EDIT, READ_SECRETS, {**CONNECT, "resourceNames": ["site"]})
    assert settled(lambda: dana.create(SITE, namespace, dry_run=True)).code == 201
    other = changed(SITE, {"metadata.name": "shop"})
    assert 'lacks the verb "connect"' in dana.create(other, namespace, dry_run=True).body["message"]


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize(
    "change",
    [
        {"spec.owner": "ThirdParty", "spec.role": "Other"},
        {"spec.gate": REMOVED},
        {"spec.sql.urlSecretRef.name": "mine"},
        {"spec.backups": "None"},
    ],
    ids=["disown", "ungate", "move", "without-backups"],
)
def test_a_connected_store_is_changed_by_those_only_who_may_connect(
    change: dict[str, Any], apiserver: ApiServer, namespace: str
) -> None:
    created = apiserver.create(SITE, namespace).body
    sam = allow(apiserver, namespace, "sam", EDIT, READ_SECRETS, CONNECT)
    dana = allow(apiserver, namespace, "dana", EDIT, READ_SECRETS)
    labelled = {**created, "metadata": {**created["metadata"], "labels": {"team": "site"}}}
    assert settled(lambda: dana.replace(labelled, SITE)).code == 200
    assert 'lacks the verb "connect"' in dana.replace(created, changed(SITE, change)).body["message"]
    answer = settled(lambda: sam.replace(created, changed(SITE, change)))
    assert answer.code == 200, answer.text


@pytest.mark.usefixtures("policies")
def test_who_may_connect_a_store_cannot_say_who_has_come_back(apiserver: ApiServer, namespace: str) -> None:
    again = {"table": "users", "key": "7", "since": "2026-11-22T09:00:00Z", "because": "CRM-7"}
    created = apiserver.create(SITE, namespace).body
    connects = allow(apiserver, namespace, "dana", EDIT, READ_SECRETS, CONNECT)
    rejoins = allow(apiserver, namespace, "sam", EDIT, READ_SECRETS, CONNECT, REJOIN)
    assert settled(lambda: connects.replace(created, SITE)).code == 200
    said = changed(SITE, {"spec.rejoined": [again]})
    refused = connects.replace(created, said)
    assert refused.code == 403
    lacks = f'dana lacks the verb "rejoin" on datastores.lethe.dev in namespace {namespace}'
    assert lacks in refused.body["message"]
    assert lacks in connects.create(changed(said, {"metadata.name": "b"}), namespace).body["message"]
    known = settled(lambda: rejoins.replace(created, said, dry_run=False))
    assert known.code == 200, known.text
    newer = changed(said, {"spec.rejoined": [{**again, "since": "2026-11-23T09:00:00Z"}]})
    assert lacks in connects.replace(known.body, newer).body["message"]
    kept = connects.replace(known.body, changed(said, {"spec.backups": "None"}))
    assert kept.code == 200, kept.text
    assert lacks in connects.replace(kept.body, SITE).body["message"]


@pytest.mark.usefixtures("policies")
def test_who_may_not_erase_can_confirm_nothing_either(apiserver: ApiServer, namespace: str) -> None:
    created = apiserver.create(BY_SECRET, namespace).body
    confirmed = changed(BY_SECRET, {"spec.confirmed": ["TooManyRecords"]})
    sam = allow(apiserver, namespace, "sam", EDIT, ERASE)
    dana = allow(apiserver, namespace, "dana", EDIT, DELETE_SECRETS)
    labelled = {**created, "metadata": {**created["metadata"], "labels": {"team": "site"}}}
    assert settled(lambda: dana.replace(labelled, BY_SECRET)).code == 200
    refused = dana.replace(created, confirmed)
    assert refused.code == 403
    assert 'dana lacks the verb "erase" on all datastores.lethe.dev' in refused.body["message"]
    # Her right to the Secret was asked for when she named it; by now Lethe has deleted it.
    assert settled(lambda: sam.replace(created, confirmed)).code == 200


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize("verb", SAYS)
def test_what_a_restoreevent_says_takes_the_verb_for_it(
    verb: str, apiserver: ApiServer, namespace: str
) -> None:
    on_events = {"apiGroups": ["lethe.dev"], "resources": ["restoreevents"]}
    others = [other for other in SAYS if other != verb]
    sam = allow(apiserver, namespace, "sam", EDIT, {**on_events, "verbs": [verb]})
    dana = allow(apiserver, namespace, "dana", EDIT, {**on_events, "verbs": others})
    found = settled(lambda: dana.create(UNDECLARED, namespace))
    assert found.code == 201, found.text
    said = changed(UNDECLARED, SAYS[verb])
    fresh = changed(said, {"metadata.name": "another"})
    for refused in (dana.replace(found.body, said), dana.create(fresh, namespace, dry_run=True)):
        assert refused.code == 403
        assert f'dana lacks the verb "{verb}" on restoreevents.lethe.dev' in refused.body["message"]
    for answer in (
        settled(lambda: sam.replace(found.body, said)),
        sam.create(fresh, namespace, dry_run=True),
    ):
        assert answer, answer.text
    labelled = {**found.body, "metadata": {**found.body["metadata"], "labels": {"team": "site"}}}
    assert dana.replace(labelled, UNDECLARED).code == 200


@pytest.mark.usefixtures("policies")
def test_only_who_may_warn_says_by_what_a_restore_is_expected(apiserver: ApiServer, namespace: str) -> None:
    on_events = {"apiGroups": ["lethe.dev"], "resources": ["restoreevents"]}
    lethe = allow(apiserver, namespace, "lethe", EDIT, {**on_events, "verbs": ["warn"]})
    dana = allow(apiserver, namespace, "dana", EDIT, {**on_events, "verbs": [*SAYS]})
    expected = {"kind": "Restore", "namespace": "velero", "name": "nightly", "uid": "3b0c6a52"}
    event = changed(UNDECLARED, {"spec.expected": expected})
    refused = settled(lambda: dana.create(event, namespace))
    assert refused.code == 403
    assert 'dana lacks the verb "warn" on restoreevents.lethe.dev' in refused.body["message"]
    answer = settled(lambda: lethe.create(event, namespace))
    assert answer.code == 201, answer.text


@pytest.mark.usefixtures("policies")
def test_who_breaks_the_glass_needs_the_verb_names_the_events_uid_and_signs(
    apiserver: ApiServer, namespace: str
) -> None:
    on_events = {"apiGroups": ["lethe.dev"], "resources": ["restoreevents"]}
    every = [*SAYS]
    breaker = allow(apiserver, namespace, "breaker", EDIT, {**on_events, "verbs": ["breakglass"]})
    dana = allow(apiserver, namespace, "dana", EDIT, {**on_events, "verbs": every})
    found = settled(lambda: dana.create(UNDECLARED, namespace)).body
    another = settled(lambda: dana.create(changed(UNDECLARED, {"metadata.name": "b"}), namespace)).body
    uid = found["metadata"]["uid"]
    broken = changed(UNDECLARED, {"spec.release": {"because": "INC-2231", "uid": uid}})
    lacks = 'dana lacks the verb "breakglass" on restoreevents.lethe.dev'
    refused = settled(lambda: dana.replace(found, broken))
    assert refused.code == 403
    assert lacks in refused.body["message"]
    # The uid of another object, which lay ready; and before there is one.
    elsewhere = breaker.replace(another, broken)
    assert not elsewhere
    assert f"must be the metadata.uid of this RestoreEvent, {another['metadata']['uid']}" in elsewhere.text
    fresh = breaker.create(changed(broken, {"metadata.name": "c"}), namespace)
    assert not fresh
    assert "which it has once it is made" in fresh.text
    forged = breaker.replace(found, changed(broken, {"spec.release.by": "dana"}))
    assert forged.code == 403
    assert 'write by: \\"breaker\\"' in forged.text
    # Who had released it without a uid breaks no glass by that; who may adds the uid.
    early = changed(UNDECLARED, {"spec.release": {"because": "INC-2231"}})
    released = dana.replace(found, early, dry_run=False)
    assert released.body["spec"]["release"] == {"because": "INC-2231", "by": "dana"}
    answer = settled(lambda: breaker.replace(released.body, broken, dry_run=False))
    assert answer.body["spec"]["release"] == {"because": "INC-2231", "uid": uid, "by": "breaker"}
    again = dana.replace(answer.body, broken)  # as from Git, where nobody is named
    assert again, again.text
    assert again.body["spec"]["release"]["by"] == "breaker"


@pytest.mark.usefixtures("policies")
def test_who_may_not_declare_can_neither_begin_nor_end_a_restore(
    apiserver: ApiServer, namespace: str
) -> None:
    on_events = {"apiGroups": ["lethe.dev"], "resources": ["restoreevents"]}
    sam = allow(apiserver, namespace, "sam", EDIT, {**on_events, "verbs": ["declare"]})
    dana = allow(apiserver, namespace, "dana", EDIT, {**on_events, "verbs": ["decide", "release"]})
    begun = changed(UNDECLARED, {"spec.underway": "Begun"})
    made = settled(lambda: sam.create(begun, namespace))
    assert made.code == 201, made.text
    ended = changed(made.body, {"spec.underway": "Ended"})
    fresh = changed(begun, {"metadata.name": "another"})
    for refused in (dana.create(fresh, namespace, dry_run=True), dana.replace(made.body, ended)):
        assert refused.code == 403
        assert "spec.restoredFrom or spec.underway" in refused.body["message"]
    assert sam.replace(made.body, ended).code == 200


def test_every_field_of_a_restoreevent_takes_a_verb() -> None:
    """But `store`, which says nothing by itself and can't be changed."""
    [version] = definition(RestoreEvent)["spec"]["versions"]
    fields = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    policy = (POLICIES / "restore.yaml").read_text(encoding="utf-8")
    assert [name for name in fields if f"variables.before.?{name}" not in policy] == ["store"]


@pytest.mark.usefixtures("policies")
def test_who_may_not_prune_cannot_have_lethe_prune(apiserver: ApiServer, namespace: str) -> None:
    sam = allow(apiserver, namespace, "sam", EDIT, READ_SECRETS, PRUNE)
    dana = allow(apiserver, namespace, "dana", EDIT, READ_SECRETS)
    assert settled(lambda: sam.create(NIGHTLY, namespace, dry_run=True)).code == 201
    refused = settled(lambda: dana.create(NIGHTLY, namespace, dry_run=True))
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
    dana = allow(apiserver, namespace, "dana", EDIT, READ_SECRETS)
    labelled = {**created.body, "metadata": {**created.body["metadata"], "labels": {"team": "site"}}}
    assert settled(lambda: dana.replace(labelled, NIGHTLY)).code == 200
    for field, value in (("spec.retention", "P1D"), ("spec.confirmPrunes", 1000), ("spec.suspend", True)):
        assert dana.replace(created.body, changed(NIGHTLY, {field: value})).code == 403


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize(
    "source",
    [IN_A_DIRECTORY, IN_A_FOLDER_OF_RESTIC, BY_THE_POD],
    ids=["directory", "restic", "the pod's role"],
)
def test_what_all_namespaces_share_takes_the_right_to_prune_in_all_of_them(
    source: dict[str, Any], apiserver: ApiServer, namespace: str
) -> None:
    dana = allow(apiserver, namespace, "dana", EDIT, READ_SECRETS, PRUNE)
    assert settled(lambda: dana.create(NIGHTLY, namespace, dry_run=True)).code == 201
    refused = dana.create(source, namespace, dry_run=True)
    assert refused.code == 403
    assert "in all namespaces, which a source in a directory needs" in refused.body["message"]
    assert apiserver.create(source, namespace, dry_run=True).code == 201


def test_every_secret_that_can_be_named_is_guarded() -> None:
    """A new backend that reads a Secret fails here until its policy knows it."""
    policy = {
        each["metadata"]["name"]: str(each["spec"]) for each in documents() if "Binding" not in each["kind"]
    }
    guarded = {
        DataStore: "lethe-named-secrets.lethe.dev",
        BackupSource: "lethe-named-secrets.lethe.dev",
        DeletionRequest: "lethe-erase.lethe.dev",
        LegalRequest: "lethe-notify.lethe.dev",
    }
    for kind, name in guarded.items():
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
