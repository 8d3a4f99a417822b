"""What must not get into the cluster is refused, at the right field, in words that help, without echo."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from lethe.api.crd import definition
from lethe.api.parse import InvalidManifest, parse
from lethe.api.v1alpha1 import KINDS
from tests.api.apiserver import ApiServer
from tests.api.samples import ADDRESS, MANIFESTS, MODELS, REMOVED, changed, leaves, manifest

SITE = ("DataStore", "site")
CRM = ("DataStore", "crm")
HRM = ("DataStore", "hrm")
TRYTON = ("DataStore", "tryton")
PERSON = ("DeletionRequest", "support-48213")
BY_SECRET = ("DeletionRequest", "support-48214")
RECORDS = ("DeletionRequest", "customer-42-orders")
DATABASE = ("DeletionRequest", "customer-42-all")
RESTORE = ("RestoreEvent", "site-2026-11-22")
NIGHTLY = ("BackupSource", "site-nightly")
SUNDAY = ("RestoreDrill", "sunday")
SNAPSHOT = ("BackupSnapshot", "site-nightly-20260522t030000z")
LEGAL = ("LegalRequest", "le-2026-0107")

A_SECRET = {"name": "a", "key": "b"}
DUE = {"until": "2027-02-20T00:00:00Z"}


@dataclass(frozen=True)
class Refusal:
    """A change to one of the contract's manifests, and what is said about it.

    `models_too`: the models refuse it by themselves, with the same field (where it has one).
    """

    of: tuple[str, str]
    changes: Mapping[str, Any]
    at: str
    says: str
    models_too: bool = field(default=True)


AT_CREATION = {
    # who is to be erased
    "an e-mail address as the id": Refusal(
        PERSON,
        {"spec.subject.id": ADDRESS},
        "spec.subject.id",
        "name it in subject.identifierSecretRef {name, key}",
    ),
    "an e-mail address as the id, and data beside it": Refusal(
        PERSON, {"spec.subject.id": ADDRESS, "spec.data": {"store": "site"}}, "spec.subject.id", "opaque key"
    ),
    "an e-mail address as a ticket's number": Refusal(
        PERSON, {"spec.reference": ADDRESS}, "spec.reference", "give the ticket's number"
    ),
    "an e-mail address as the Secret's name": Refusal(
        BY_SECRET,
        {"spec.subject.identifierSecretRef.name": ADDRESS},
        "spec.subject.identifierSecretRef.name",
        "must be the name of an object of this namespace",
    ),
    "an e-mail address as the Secret's key": Refusal(
        BY_SECRET,
        {"spec.subject.identifierSecretRef.key": ADDRESS},
        "spec.subject.identifierSecretRef.key",
        "must be a key of the Secret",
    ),
    "id and Secret at once": Refusal(
        PERSON, {"spec.subject.identifierSecretRef": A_SECRET}, "spec.subject", "give exactly one of id"
    ),
    "neither id nor Secret": Refusal(PERSON, {"spec.subject": {}}, "spec.subject", "give exactly one of id"),
    "subject and data at once": Refusal(
        PERSON,
        {"spec.data": {"store": "site", "records": {"table": "orders", "keys": ["1"]}}},
        "spec",
        "give exactly one of spec.subject (a person) and spec.data",
    ),
    "neither subject nor data": Refusal(PERSON, {"spec": {}}, "spec", "give exactly one of spec.subject"),
    "no spec": Refusal(PERSON, {"spec": REMOVED}, "spec", "equired"),
    "an empty id": Refusal(PERSON, {"spec.subject.id": ""}, "spec.subject.id", "at least 1"),
    "an id without end": Refusal(PERSON, {"spec.subject.id": "1" * 254}, "spec.subject.id", "253"),
    "an id that YAML took for a number": Refusal(
        PERSON, {"spec.subject.id": 4711}, "spec.subject.id", "string"
    ),
    "a request's name that is too long": Refusal(
        PERSON, {"metadata.name": "a" * 64}, "metadata.name", "63", models_too=False
    ),
    "an answer that nobody asked for": Refusal(
        PERSON, {"spec.confirmed": ["Anything"]}, "spec.confirmed[0]", "NothingFound"
    ),
    "a moment without a time zone": Refusal(
        PERSON, {"spec.requestedAt": "2026-11-20T09:30:00"}, "spec.requestedAt", "", models_too=True
    ),
    "a misspelt field": Refusal(PERSON, {"spec.dryrun": True}, "", "unknown field", models_too=False),
    # what a customer deletes
    "records and database at once": Refusal(
        RECORDS,
        {"spec.data.database": {"name": "a", "confirm": "a"}},
        "spec.data",
        "give exactly one of records, tables and database; given: records database",
    ),
    "neither records nor tables nor a database": Refusal(
        RECORDS,
        {"spec.data.records": REMOVED},
        "spec.data",
        "give exactly one of records, tables and database",
    ),
    "an e-mail address among keys": Refusal(
        RECORDS, {"spec.data.records.keys": ["17", ADDRESS]}, "spec.data.records.keys", "keys are opaque"
    ),
    "no keys": Refusal(RECORDS, {"spec.data.records.keys": []}, "spec.data.records.keys", "at least 1"),
    "more keys than one request may have": Refusal(
        RECORDS, {"spec.data.records.keys": [str(n) for n in range(1001)]}, "spec.data.records.keys", "1000"
    ),
    "an e-mail address as the store": Refusal(
        RECORDS, {"spec.data.store": ADDRESS}, "spec.data.store", "must be the name of an object"
    ),
    "an e-mail address as the table": Refusal(
        RECORDS, {"spec.data.records.table": ADDRESS}, "spec.data.records.table", "is the name of a table"
    ),
    "an e-mail address as the database": Refusal(
        DATABASE,
        {"spec.data.database": {"name": ADDRESS, "confirm": ADDRESS}},
        "spec.data.database.name",
        "is the name of a database",
    ),
    "a database's name that is repeated wrongly": Refusal(
        DATABASE,
        {"spec.data.database.confirm": "customer_24"},
        "spec.data.database.confirm",
        "as a safeguard",
    ),
    "tables' names that are repeated in another order": Refusal(
        RECORDS,
        {"spec.data.records": REMOVED, "spec.data.tables": {"names": ["a", "b"], "confirm": ["b", "a"]}},
        "spec.data.tables.confirm",
        "must repeat names exactly",
    ),
    # stores
    "two backends": Refusal(
        SITE,
        {"spec.plugin": {"name": "x"}},
        "spec",
        "give exactly one of sql, http, scim, ldap, tryton and plugin; given: sql plugin",
    ),
    "no backend": Refusal(SITE, {"spec.sql": REMOVED}, "spec", "give exactly one of sql, http, scim"),
    "a role that does not exist": Refusal(SITE, {"spec.role": "Main"}, "spec.role", "Primary"),
    "a Primary store of somebody else": Refusal(
        SITE, {"spec.owner": "ThirdParty"}, "spec.owner", "must be Self for the Primary store"
    ),
    "a gate for every pod": Refusal(
        SITE,
        {"spec.gate.podSelector": {}},
        "spec.gate.podSelector",
        "it would close every pod of the namespace",
    ),
    "a gate for every pod, said with empty labels": Refusal(
        SITE, {"spec.gate.podSelector": {"matchLabels": {}}}, "spec.gate.podSelector", "must not be empty"
    ),
    "a gate that keeps nobody out": Refusal(
        SITE, {"spec.gate": {"release": "Manual"}}, "spec.gate", "must say who is kept out"
    ),
    "roles of a store that has none": Refusal(
        CRM, {"spec.gate": {"role": {"names": ["app"]}}}, "spec.gate.role", "can only be given with sql"
    ),
    "a peer that is a network and pods": Refusal(
        SITE,
        {
            "spec.gate.networkPolicy": {
                "podSelector": {"matchLabels": {"app": "db"}},
                "allow": [
                    {"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {"matchLabels": {"app": "lethe"}}}
                ],
            }
        },
        "spec.gate.networkPolicy.allow[0]",
        "give ipBlock, or podSelector and namespaceSelector",
    ),
    "a backup that takes three thousand years": Refusal(
        NIGHTLY, {"spec.longestDuration": "999999d"}, "spec.longestDuration", "of 99d at most"
    ),
    "a request from the year one": Refusal(
        PERSON, {"spec.requestedAt": "0001-01-01T00:00:00Z"}, "spec.requestedAt", "between the years 1970 and"
    ),
    "a request from the end of all days": Refusal(
        PERSON, {"spec.requestedAt": "9999-12-31T23:59:59Z"}, "spec.requestedAt", "between the years 1970 and"
    ),
    "a label of pods that is compared with nothing": Refusal(
        SITE,
        {"spec.gate.podSelector": {"matchExpressions": [{"key": "app", "operator": "In"}]}},
        "spec.gate.podSelector.matchExpressions[0].values",
        "must be given with In and NotIn",
    ),
    "a label that no pod can have": Refusal(
        SITE,
        {
            "spec.gate.podSelector": {
                "matchExpressions": [{"key": "app", "operator": "In", "values": ["site,x!=y"]}]
            }
        },
        "spec.gate.podSelector.matchExpressions[0].values[0]",
        "must be what a label can be",
    ),
    "a label whose name no pod can have": Refusal(
        SITE,
        {"spec.gate.podSelector": {"matchExpressions": [{"key": "of site", "operator": "Exists"}]}},
        "spec.gate.podSelector.matchExpressions[0].key",
        "must be what a label can be",
    ),
    "a mapping that is caught up with by another name": Refusal(
        SITE, {"spec.catchUp": "all of it"}, "spec.catchUp", "must be the version that MappingComplete tells"
    ),
    "a template without to: Template": Refusal(
        SITE,
        {"spec.sql.subjects.clear[2].to": "SetNull"},
        "spec.sql.subjects.clear[2].template",
        "is required with to: Template, and must be absent elsewhere",
    ),
    "to: Template without a template": Refusal(
        SITE,
        {"spec.sql.subjects.clear[2].template": REMOVED},
        "spec.sql.subjects.clear[2].template",
        "is required with to: Template",
    ),
    "SetNull with a value": Refusal(
        SITE,
        {"spec.sql.subjects.clear[0].value": "x"},
        "spec.sql.subjects.clear[0].value",
        "is required with to: Value, and must be absent elsewhere",
    ),
    "to: Value without a value": Refusal(
        SITE,
        {"spec.sql.subjects.clear[3].value": REMOVED},
        "spec.sql.subjects.clear[3].value",
        "is required with to: Value",
    ),
    "nothing to clear": Refusal(
        SITE, {"spec.sql.subjects.clear": []}, "spec.sql.subjects.clear", "at least 1"
    ),
    "one column cleared twice": Refusal(
        SITE,
        {"spec.sql.subjects.clear[1].column": "first_name"},
        "spec.sql.subjects.clear[1]",
        "uplicate",
        models_too=False,
    ),
    "a kind of identifier that does not exist": Refusal(
        SITE,
        {"spec.sql.subjects.identifiers": {"phone": "phone"}},
        "spec.sql.subjects.identifiers",
        "email and primaryKey",
    ),
    "no kind of identifier": Refusal(
        SITE, {"spec.sql.subjects.identifiers": {}}, "spec.sql.subjects.identifiers", "at least 1"
    ),
    "a dependent that is deleted and cleared": Refusal(
        SITE,
        {"spec.sql.subjects.dependents[1].delete": True},
        "spec.sql.subjects.dependents[1]",
        "give exactly one of delete: true and clear",
    ),
    "a dependent of which nothing is said": Refusal(
        SITE,
        {"spec.sql.subjects.dependents[0].delete": False},
        "spec.sql.subjects.dependents[0]",
        "give exactly one of delete: true and clear",
    ),
    "a quarantine without a value": Refusal(
        SITE,
        {"spec.sql.subjects.quarantine": {"column": "state"}},
        "spec.sql.subjects.quarantine.value",
        "equired",
    ),
    "a bound of zero records": Refusal(
        SITE, {"spec.sql.maxRecords": 0}, "spec.sql.maxRecords", "greater than or equal to 1"
    ),
    "a bound of any number of records": Refusal(
        TRYTON, {"spec.tryton.maxRecords": 1001}, "spec.tryton.maxRecords", "less than or equal to 1000"
    ),
    "credentials in a URL": Refusal(
        CRM,
        {"spec.http.baseUrl": f"https://{ADDRESS}:secret@crm.internal.example/api"},
        "spec.http.baseUrl",
        "without credentials or query",
    ),
    "a query in a URL": Refusal(
        CRM, {"spec.http.baseUrl": "https://crm.internal.example/?key=1"}, "spec.http.baseUrl", "or query"
    ),
    "a URL of a file": Refusal(
        TRYTON, {"spec.tryton.url": "file:///etc/passwd"}, "spec.tryton.url", "http(s) URL"
    ),
    "credentials in an LDAP URL": Refusal(
        HRM,
        {
            "spec.scim": REMOVED,
            "spec.ldap": {
                "url": f"ldaps://{ADDRESS}@ldap.example",
                "bindSecretRef": {"name": "a"},
                "baseDN": "dc=a",
            },
        },
        "spec.ldap.url",
        "ldap(s) URL of a host, without credentials",
    ),
    "a path that leads to another host": Refusal(
        CRM,
        {"spec.http.find.request.path": "//elsewhere.example/"},
        "spec.http.find.request.path",
        "begins with one slash",
    ),
    "a path that holds an e-mail address": Refusal(
        CRM, {"spec.http.find.request.path": ADDRESS}, "spec.http.find.request.path", "begins with one slash"
    ),
    "what is no JSONPath": Refusal(
        CRM, {"spec.http.find.records": "items"}, "spec.http.find.records", "begins with $"
    ),
    "two ways to sign in": Refusal(
        CRM,
        {"spec.http.auth.basicSecretRef": {"name": "a"}},
        "spec.http.auth",
        "give exactly one of bearerTokenSecretRef",
    ),
    "no way to sign in": Refusal(
        CRM, {"spec.http.auth": {}}, "spec.http.auth", "give exactly one of bearerTokenSecretRef"
    ),
    "an erasure that is not read back": Refusal(
        CRM,
        {"spec.http.verify.gone": REMOVED, "spec.http.verify.cleared": REMOVED},
        "spec.http.verify",
        "an erasure that can't be read back is never called done",
    ),
    "is: Value without a value": Refusal(
        CRM,
        {"spec.http.verify.cleared[2].value": REMOVED},
        "spec.http.verify.cleared[2].value",
        "is required with is: Value",
    ),
    # restores
    "a restore without justification": Refusal(
        RESTORE, {"spec.justification": REMOVED}, "spec.reason", "needs spec.justification"
    ),
    "a restore for a reason that the policy does not know": Refusal(
        RESTORE, {"spec.reason": "Convenience"}, "spec.reason", "NaturalDisaster"
    ),
    "an e-mail address in a justification": Refusal(
        RESTORE, {"spec.justification": f"asked by {ADDRESS}"}, "spec.justification", "personal data"
    ),
    "an e-mail address in a release": Refusal(
        RESTORE, {"spec.release": {"because": f"{ADDRESS} says so"}}, "spec.release.because", "personal data"
    ),
    "an e-mail address as an unclear row's key": Refusal(
        RESTORE,
        {"spec.identities": [{"table": "users", "key": ADDRESS, "decision": "Erase"}]},
        "spec.identities[0].key",
        "opaque key",
    ),
    "a snapshot and a moment at once": Refusal(
        RESTORE,
        {"spec.restoredFrom.takenAt": "2026-11-01T03:00:00Z"},
        "spec.restoredFrom",
        "give exactly one of snapshot",
    ),
    "a restore that has ended when it is told of": Refusal(
        RESTORE, {"spec.underway": "Ended"}, "spec.underway", "is Begun at first", models_too=False
    ),
    # backups
    "two places for backups": Refusal(
        NIGHTLY, {"spec.velero": {}}, "spec", "cloudNativePG, volumeSnapshots and plugin; given: s3 velero"
    ),
    "no place for backups": Refusal(
        NIGHTLY, {"spec.s3": REMOVED}, "spec", "give exactly one of directory, s3"
    ),
    "a retention of nothing": Refusal(
        NIGHTLY, {"spec.retention": "P0M"}, "spec.retention", "greater than zero"
    ),
    "no duration for how long a backup takes": Refusal(
        NIGHTLY, {"spec.longestDuration": "0h"}, "spec.longestDuration", "such as 90m, 6h or 1d"
    ),
    "a retention in words": Refusal(
        NIGHTLY, {"spec.retention": "6 months"}, "spec.retention", "ISO 8601 period"
    ),
    "credentials in an endpoint": Refusal(
        NIGHTLY,
        {"spec.s3.endpoint": "https://key:secret@s3.example"},
        "spec.s3.endpoint",
        "without credentials",
    ),
    "a password in a repository": Refusal(
        NIGHTLY,
        {
            "spec.s3": REMOVED,
            "spec.restic": {
                "repository": f"rest:https://me:{ADDRESS}@host/",
                "credentialsSecretRef": {"name": "a"},
            },
        },
        "spec.restic.repository",
        "must hold no password",
    ),
    "a relative directory": Refusal(
        NIGHTLY,
        {"spec.s3": REMOVED, "spec.directory": {"path": "backups", "name": "{takenAt}"}},
        "spec.directory.path",
        "absolute path",
    ),
    "a drill once in five words": Refusal(
        SUNDAY, {"spec.schedule": "on Sundays at four"}, "spec.schedule", "five fields"
    ),
    "a drill by a path": Refusal(
        SUNDAY, {"spec.restore.command": "../../bin/sh"}, "spec.restore.command", "never a path"
    ),
    "a drill by a command and by a Job": Refusal(
        SUNDAY, {"spec.restore.jobTemplate": {"spec": {"a": "b"}}}, "spec.restore", "exactly one of"
    ),
    "a drill that rewrites by nothing": Refusal(
        SUNDAY, {"spec.rewrite": True}, "spec", "give dump with rewrite: true"
    ),
    "a drill because of somebody": Refusal(
        SUNDAY, {"spec.runNow": ADDRESS}, "spec.runNow", "personal data such as an e-mail"
    ),
    "a snapshot of an unknown day": Refusal(SNAPSHOT, {"spec.takenAt": REMOVED}, "spec.takenAt", "equired"),
    # authorities
    "an e-mail address as a legal request's id": Refusal(
        LEGAL, {"spec.subject.id": ADDRESS}, "spec.subject.id", "opaque key in the Primary store"
    ),
    "an e-mail address as an authority's number": Refusal(
        LEGAL, {"spec.reference": ADDRESS}, "spec.reference", "personal data"
    ),
    "an e-mail address as an authority's Secret": Refusal(
        LEGAL,
        {"spec.authority.contactSecretRef": {"name": ADDRESS, "key": "email"}},
        "spec.authority.contactSecretRef.name",
        "must be the name of an object of this namespace",
    ),
    "a contact without the Secret's key": Refusal(
        LEGAL,
        {"spec.authority.contactSecretRef": {"name": "le-2026-0107-contact"}},
        "spec.authority.contactSecretRef.key",
        "equired",
    ),
    "a legal request's name that leaves no room for its answer's": Refusal(
        LEGAL, {"metadata.name": "a" * 64}, "metadata.name", "63", models_too=False
    ),
    "consent without a court order": Refusal(
        LEGAL, {"spec.courtOrder": REMOVED}, "spec.review", "nothing is disclosed without one"
    ),
    "a preservation of which nothing is said": Refusal(
        LEGAL, {"spec.type": "Preservation"}, "spec", "type Preservation needs spec.preservation"
    ),
    "a gag's last day without a time zone": Refusal(
        LEGAL,
        {"spec.nonDisclosure.timeZone": REMOVED},
        "spec.nonDisclosure.timeZone",
        "until and timeZone go together",
    ),
    "a time zone that does not exist": Refusal(
        LEGAL,
        {"spec.nonDisclosure.timeZone": "Europe/Atlantis"},
        "spec.nonDisclosure.timeZone",
        "IANA time zone",
    ),
    "a country by its name": Refusal(
        LEGAL, {"spec.authority.country": "us"}, "spec.authority.country", "two capital letters"
    ),
}


@pytest.mark.parametrize("refusal", [pytest.param(each, id=name) for name, each in AT_CREATION.items()])
def test_it_is_refused_where_it_is_wrong_and_not_repeated(
    refusal: Refusal, apiserver: ApiServer, namespace: str
) -> None:
    kind, name = refusal.of
    answer = apiserver.create(changed(manifest(kind, name), refusal.changes), namespace, dry_run=True)
    _is_refused(refusal, answer.code, answer.text, answer.causes or [("", str(answer.body.get("message")))])


@pytest.mark.parametrize(
    "refusal", [pytest.param(each, id=name) for name, each in AT_CREATION.items() if each.models_too]
)
def test_the_models_refuse_it_by_themselves_and_do_not_repeat_it(refusal: Refusal) -> None:
    """A manifest that no API server has seen (a file given to a command) is judged alike."""
    kind, name = refusal.of
    bad = changed(manifest(kind, name), {"metadata.namespace": "privacy", **refusal.changes})
    with pytest.raises(InvalidManifest) as refused:
        parse(MODELS[kind], bad)
    assert refused.value.field == refusal.at
    assert str(refused.value).startswith(f"{kind} privacy/{name}: {refusal.at}: ")
    assert ADDRESS not in str(refused.value)
    assert refused.value.__cause__ is refused.value.__context__ is None


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_an_address_in_any_field_of_any_manifest_is_never_repeated(
    kind: str, apiserver: ApiServer, namespace: str
) -> None:
    """But in a field with closed choices or a date, where the message is the API server's own."""
    repeated = []
    for original in (each for each in MANIFESTS if each["kind"] == kind):
        for path in leaves(original["spec"], "spec"):
            answer = apiserver.create(changed(original, {path: ADDRESS}), namespace, dry_run=True)
            repeated += [
                (path, says)
                for at, says in (() if answer else answer.causes)
                if ADDRESS in says
                and not says.startswith("Unsupported value")
                and "must be of type date" not in says
            ]
    assert repeated == []


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_the_models_never_repeat_what_stands_in_any_field_or_key(kind: str) -> None:
    for original in (each for each in MANIFESTS if each["kind"] == kind):
        for path in leaves(original["spec"], "spec"):
            for changes in (
                {path: ADDRESS},
                {path: [ADDRESS]},
                {path: {ADDRESS: ADDRESS}},
                {path: [{ADDRESS: 1}]},
            ):
                refused = _refusal(kind, changed(original, {"metadata.namespace": "privacy", **changes}))
                if refused is not None:
                    assert "jane" not in str(refused)
                    assert "jane" not in repr(refused.__dict__)
                    assert refused.__cause__ is refused.__context__ is None


def _refusal(kind: str, bad: Mapping[str, Any]) -> InvalidManifest | None:
    try:
        parse(MODELS[kind], bad)
    except InvalidManifest as refused:
        return refused
    return None


DECIDED = {"spec.identities": [{"table": "users", "key": "9001", "decision": "LeaveAlone"}]}
LIFTED = {"because": "the court said so"}
ONCE_MADE = {
    "another person": (
        {},
        Refusal(
            PERSON, {"spec.subject.id": "4712"}, "spec", "can't be changed once made (but for spec.confirmed)"
        ),
    ),
    "a dry run that becomes real": (
        {"spec.dryRun": True},
        Refusal(PERSON, {"spec.dryRun": False}, "spec", "apply another one under a new name"),
    ),
    "another ticket": (
        {},
        Refusal(PERSON, {"spec.reference": "SUPPORT-1"}, "spec", "can't be changed once made"),
    ),
    "a later clock": (
        {},
        Refusal(PERSON, {"spec.requestedAt": "2026-11-21T09:30:00Z"}, "spec", "can't be changed once made"),
    ),
    "a clock that is taken away": (
        {},
        Refusal(PERSON, {"spec.requestedAt": REMOVED}, "spec", "can't be changed once made"),
    ),
    "other records": (
        {},
        Refusal(
            RECORDS, {"spec.data.records.keys": ["17", "18", "19"]}, "spec", "can't be changed once made"
        ),
    ),
    "an answer that is taken back": (
        {"spec.confirmed": ["NothingFound", "SharedRecord"]},
        Refusal(PERSON, {"spec.confirmed": ["SharedRecord"]}, "spec", "can't be taken back"),
    ),
    "all answers that are taken back": (
        {"spec.confirmed": ["NothingFound"]},
        Refusal(PERSON, {"spec.confirmed": REMOVED}, "spec", "can't be taken back"),
    ),
    "another store": (
        {},
        Refusal(RESTORE, {"spec.store": "crm-db"}, "spec.store", "apply another RestoreEvent"),
    ),
    "another reason": (
        {},
        Refusal(RESTORE, {"spec.reason": "Drill"}, "spec.reason", "can only be given once"),
    ),
    "what others' object announces, added later": (
        {},
        Refusal(
            RESTORE,
            {"spec.expected": {"kind": "Job", "namespace": "shop", "name": "a", "uid": "b"}},
            "spec",
            "spec.expected is given when the RestoreEvent is made, and stays",
        ),
    ),
    "another justification": (
        {},
        Refusal(RESTORE, {"spec.justification": "else"}, "spec", "can't be changed once a reason is given"),
    ),
    "another snapshot": (
        {},
        Refusal(RESTORE, {"spec.restoredFrom.snapshot": "other"}, "spec", "can be added, not changed"),
    ),
    "a decision that is changed": (
        DECIDED,
        Refusal(
            RESTORE,
            {"spec.identities[0].decision": "Erase"},
            "spec.identities[0]",
            "a decision can't be changed",
        ),
    ),
    "a decision that is emptied away": (
        DECIDED,
        Refusal(RESTORE, {"spec.identities": []}, "spec.identities", "a decision can't be taken back"),
    ),
    "a decision that is removed with its list": (
        DECIDED,
        Refusal(
            RESTORE, {"spec.identities": REMOVED}, "spec", "decisions in spec.identities can't be taken back"
        ),
    ),
    "a release that is taken back": (
        {"spec.release": {"because": "checked by hand"}},
        Refusal(RESTORE, {"spec.release": REMOVED}, "spec", "neither changed nor taken back"),
    ),
    "a restore that begins after all": (
        {},
        Refusal(RESTORE, {"spec.underway": "Begun"}, "spec", "is given when the RestoreEvent is made"),
    ),
    "a restore that has never begun": (
        {"spec.underway": "Begun"},
        Refusal(RESTORE, {"spec.underway": REMOVED}, "spec", "can only become Ended"),
    ),
    "a broken glass that is mended": (
        {"spec.release": {"because": "checked by hand", "uid": "u"}},
        Refusal(RESTORE, {"spec.release.uid": REMOVED}, "spec", "neither changed nor taken back"),
    ),
    "another moment of a snapshot": (
        {},
        Refusal(
            SNAPSHOT, {"spec.takenAt": "2026-05-23T03:00:00Z"}, "spec", "it tells what was taken and when"
        ),
    ),
    "another court order": (
        {},
        Refusal(LEGAL, {"spec.courtOrder.docket": "26-CV-1"}, "spec", "neither changed nor removed"),
    ),
    "a gag that is removed": (
        {},
        Refusal(LEGAL, {"spec.nonDisclosure": REMOVED}, "spec", "set spec.nonDisclosure.lifted"),
    ),
    "a gag that ends earlier": (
        {},
        Refusal(
            LEGAL,
            {"spec.nonDisclosure.until": "2027-01-01"},
            "spec.nonDisclosure.until",
            "can only be moved later",
        ),
    ),
    "a gag that is lifted no more": (
        {"spec.nonDisclosure.lifted": LIFTED},
        Refusal(
            LEGAL, {"spec.nonDisclosure.lifted": REMOVED}, "spec.nonDisclosure", "lifted can't be taken back"
        ),
    ),
    "a hold that is removed": (
        {"spec.preservation": DUE},
        Refusal(LEGAL, {"spec.preservation": REMOVED}, "spec", "set spec.preservation.lifted"),
    ),
    "a hold that lets go of a store": (
        {"spec.preservation": {"stores": ["site", "crm"]}},
        Refusal(LEGAL, {"spec.preservation.stores": ["site"]}, "spec.preservation.stores", "can only grow"),
    ),
    "a hold of all stores that becomes one of some": (
        {"spec.preservation": {}},
        Refusal(LEGAL, {"spec.preservation.stores": ["site"]}, "spec.preservation.stores", "can only grow"),
    ),
    "a hold of all stores, said by an empty list, that becomes one of some": (
        {"spec.preservation": {"stores": []}},
        Refusal(LEGAL, {"spec.preservation.stores": ["site"]}, "spec.preservation.stores", "can only grow"),
    ),
    "a gag by another law": (
        {},
        Refusal(
            LEGAL,
            {"spec.nonDisclosure.legalBasis": "else"},
            "spec.nonDisclosure.legalBasis",
            "can't be changed",
        ),
    ),
    "a hold that ends earlier": (
        {"spec.preservation": DUE},
        Refusal(
            LEGAL,
            {"spec.preservation.until": "2027-02-19T00:00:00Z"},
            "spec.preservation.until",
            "can only be moved later; to end the hold earlier, set lifted",
        ),
    ),
    "a hold that is lifted no more": (
        {"spec.preservation": {**DUE, "lifted": LIFTED}},
        Refusal(
            LEGAL, {"spec.preservation.lifted": REMOVED}, "spec.preservation", "lifted can't be taken back"
        ),
    ),
    "a review that is removed": (
        {},
        Refusal(LEGAL, {"spec.review": REMOVED}, "spec", "spec.review can't be removed"),
    ),
    "another authority": (
        {},
        Refusal(LEGAL, {"spec.authority.level": "Federal"}, "spec", "apply another LegalRequest"),
    ),
    "another address for the authority's answer": (
        {},
        Refusal(LEGAL, {"spec.authority.contactSecretRef": A_SECRET}, "spec", "apply another LegalRequest"),
    ),
}


@pytest.mark.parametrize(
    ("before", "refusal"), [pytest.param(*each, id=name) for name, each in ONCE_MADE.items()]
)
def test_it_cannot_be_changed_any_more(
    before: Mapping[str, Any], refusal: Refusal, apiserver: ApiServer, namespace: str
) -> None:
    original = changed(manifest(*refusal.of), before)
    created = apiserver.create(original, namespace)
    assert created, created.text
    answer = apiserver.replace(created.body, changed(original, refusal.changes))
    _is_refused(refusal, answer.code, answer.text, answer.causes)


def test_a_gag_cannot_come_after_the_user_was_told(apiserver: ApiServer, namespace: str) -> None:
    original = changed(manifest(*LEGAL), {"spec.nonDisclosure": REMOVED})
    created = apiserver.create(original, namespace).body
    told = apiserver.set_status(created, {**created["status"], "notice": {"state": "Sent"}})
    assert told, told.text
    answer = apiserver.replace(
        told.body, changed(original, {"spec.nonDisclosure": {"legalBasis": "18 U.S.C. 2705(b)"}})
    )
    assert [(at, "comes too late" in says) for at, says in answer.causes] == [("spec.nonDisclosure", True)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"stores": ["site"]}, {"stores": ["crm", "site"]}),
        ({"stores": ["site"]}, {}),
        ({"stores": ["site"]}, {"stores": []}),
        ({"stores": []}, {}),
        ({}, {"stores": []}),
    ],
)
def test_a_hold_can_be_widened(
    before: dict[str, Any], after: dict[str, Any], apiserver: ApiServer, namespace: str
) -> None:
    original = changed(manifest(*LEGAL), {"spec.preservation": before})
    created = apiserver.create(original, namespace)
    answer = apiserver.replace(created.body, changed(original, {"spec.preservation": after}))
    assert answer.code == 200, answer.text


def test_every_rule_is_shown_to_refuse_something() -> None:
    """A rule that no case here breaks could be dropped, or be wrong, and nobody would see it."""
    shown: set[str] = set()
    every: set[str] = set()
    for kind in KINDS:
        [version] = definition(kind)["spec"]["versions"]
        for path, rule in _rules(version["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec"):
            every.add(rule["rule"] + rule["message"])
            if _is_shown(kind.__name__, path + rule.get("fieldPath", ""), rule["message"]):
                shown.add(rule["rule"] + rule["message"])
    assert every - shown == set()


def _is_shown(kind: str, path: str, message: str) -> bool:
    cases = (*AT_CREATION.values(), *(refusal for _, refusal in ONCE_MADE.values()))
    return any(
        case.of[0] == kind
        and re.sub(r"\[\d+\]", "[]", case.at) == path
        and case.says
        and case.says.partition("; given:")[0] in message
        for case in cases
    )


def _rules(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path, rule
    for name, inner in schema.get("properties", {}).items():
        yield from _rules(inner, f"{path}.{name}")
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")


ONCE_MADE_BUT_ALLOWED = {
    "one more answer": (
        {"spec.confirmed": ["NothingFound"]},
        PERSON,
        {"spec.confirmed": ["NothingFound", "SharedRecord"]},
    ),
    "a reason for an undeclared restore": (
        {"spec.reason": "Undeclared", "spec.justification": REMOVED},
        RESTORE,
        {"spec.reason": "SecurityBreach", "spec.justification": "INC-7"},
    ),
    "one more decision": (
        DECIDED,
        RESTORE,
        {
            "spec.identities": [
                *DECIDED["spec.identities"],
                {"table": "users", "key": "7", "decision": "Erase"},
            ]
        },
    ),
    "a restore that has ended": ({"spec.underway": "Begun"}, RESTORE, {"spec.underway": "Ended"}),
    "a release": ({}, RESTORE, {"spec.release": {"because": "checked by hand"}}),
    "a release that breaks the glass later": (
        {"spec.release": {"because": "checked by hand"}},
        RESTORE,
        {"spec.release": {"because": "it burns", "uid": "u"}},
    ),
    "a gag that ends later": ({}, LEGAL, {"spec.nonDisclosure.until": "2027-03-20"}),
    "a gate in every way": (
        {},
        SITE,
        {
            "spec.gate.role": {"names": ["app"]},
            "spec.gate.cnpgPooler": {"names": ["rw"]},
            "spec.gate.networkPolicy": {
                "podSelector": {"matchLabels": {"app": "db"}},
                "allow": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            },
        },
    ),
    "a store that moved": ({}, SITE, {"spec.sql.urlSecretRef.name": "site-db-2"}),
}


@pytest.mark.parametrize(
    ("before", "of", "changes"),
    [pytest.param(*each, id=name) for name, each in ONCE_MADE_BUT_ALLOWED.items()],
)
def test_what_may_grow_does_grow(
    before: Mapping[str, Any],
    of: tuple[str, str],
    changes: Mapping[str, Any],
    apiserver: ApiServer,
    namespace: str,
) -> None:
    original = changed(manifest(*of), before)
    created = apiserver.create(original, namespace)
    assert created, created.text
    answer = apiserver.replace(created.body, changed(original, changes))
    assert answer, answer.text


def _is_refused(refusal: Refusal, code: int, text: str, causes: list[tuple[str, str]]) -> None:
    assert code in {400, 422}, text
    assert [(at, says) for at, says in causes if at == refusal.at and refusal.says in says], text
    assert ADDRESS not in text
