"""Every manifest of the contract is accepted, by the API server and by the models alike."""

from typing import Any

import pytest

from lethe.api.parse import parse
from tests.api.apiserver import ApiServer
from tests.api.samples import MANIFESTS, MODELS, changed

OF_LETHE = [
    pytest.param(manifest, id=f"{manifest['kind']}-{manifest['metadata']['name']}")
    for manifest in MANIFESTS
    if manifest["kind"] in MODELS
]
FULL_STATUS: dict[str, dict[str, Any]] = {
    "RestoreDrill": {
        "lastStartedAt": "2026-11-22T04:00:00Z",
        "lastEndedAt": "2026-11-22T04:12:00Z",
        "lastPassedAt": "2026-11-22T04:12:00Z",
        "nextAt": "2026-11-29T04:00:00Z",
        "lastSnapshot": {"ref": "site-20260522T030000Z.dump", "takenAt": "2026-05-22T03:00:00Z"},
        "result": "Passed",
        "measures": {
            "databaseBytes": 5_000_000_000,
            "restoredIn": "11m2s",
            "erasedAgainIn": "28.3s",
            "verifiedIn": "3.2s",
        },
        "findings": {"erasedAgain": 812, "leftAlone": 1, "missed": 0},
        "history": [{"startedAt": "2026-11-22T04:00:00Z", "result": "Passed", "snapshot": "a.dump"}],
    },
    "DataStore": {
        "lastSeenAt": "2026-11-20T09:30:00Z",
        "lastSweptAt": "2026-11-20T09:00:00Z",
        "erasures": {"applied": 812, "missing": 0},
        "journal": {"number": 5_000_000_000},
        "unmapped": ["users.phone"],
    },
    "DeletionRequest": {
        "state": "Erased",
        "acceptedAt": "2026-11-20T09:30:01Z",
        "dueAt": "2026-12-20T09:30:00Z",
        "erasedAt": "2026-11-20T09:30:03Z",
        "stores": [
            {
                "name": "site",
                "state": "Verified",
                "erased": {"users": 1, "sessions": 3},
                "erasedAt": "2026-11-20T09:30:02Z",
                "attempts": 1,
            },
            {"name": "hrm", "state": "NotFound", "attempts": 1},
            {
                "name": "crm",
                "state": "Unreachable",
                "attempts": 3,
                "reason": "StoreUnreachable",
                "message": "away",
            },
            {"name": "old", "state": "Planned", "erased": {"users": 1}},
        ],
        "backups": {"lastCopyGoneAt": "2027-05-20T03:00:00Z"},
        "ledger": {"sequence": 812, "digest": "sha256:" + "0" * 64},
    },
    "BackupSource": {
        "snapshots": {"total": 181, "overdue": 0, "held": 1},
        "oldestTakenAt": "2026-05-22T03:00:00Z",
        "lastScanAt": "2026-11-20T09:30:00Z",
    },
    "BackupSnapshot": {
        "state": "Purged",
        "expiresAt": "2026-11-22T03:00:00Z",
        "deletedAt": "2026-11-22T03:00:01Z",
        "purgedAt": "2026-11-22T03:00:02Z",
    },
    "RestoreEvent": {
        "state": "IdentityUnclear",
        "detectedBy": "TableIdentity",
        "replay": {
            "missing": 1204,
            "reErased": 1202,
            "leftAlone": 1,
            "unclear": 1,
            "missingSince": "2026-11-01T03:00:00Z",
            "tables": [{"table": "users", "rows": 1202}],
        },
        "unclear": [{"table": "users", "key": "9001"}],
        "safeToServeAt": "2026-11-22T10:00:00Z",
    },
    "LegalRequest": {
        "decision": {"outcome": "Rejected", "reason": "NoCourtOrder", "decidedAt": "2026-11-22T10:00:01Z"},
        "notice": {
            "state": "Sent",
            "dueAt": "2026-11-22T10:00:01Z",
            "sentAt": "2026-11-22T10:00:02Z",
            "messageId": "<1@lethe>",
        },
        "answer": {
            "state": "Sent",
            "secret": "le-2026-0107-answer",
            "sentAt": "2026-11-22T10:00:02Z",
            "messageId": "<2@lethe>",
        },
        "document": {"digest": "sha256:" + "1" * 64},
        "hold": {
            "stores": ["site", "crm"],
            "since": "2026-11-22T10:00:01Z",
            "until": "2027-02-20T00:00:00Z",
        },
        "ledger": {"sequence": 813, "digest": "sha256:" + "2" * 64},
    },
}
CONDITIONS = [
    {
        "type": "Ready",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-11-20T09:30:03Z",
        "reason": "Erased",
        "message": "erased everywhere",
    }
]


@pytest.mark.parametrize(
    "manifest", [pytest.param(each, id=f"{each['kind']}-{each['metadata']['name']}") for each in MANIFESTS]
)
def test_the_api_server_accepts_it_and_knows_each_field(
    manifest: dict[str, Any], apiserver: ApiServer, namespace: str
) -> None:
    answer = apiserver.create(manifest, namespace, dry_run=True)
    assert answer.code == 201, answer.text


@pytest.mark.parametrize("manifest", OF_LETHE)
def test_the_models_read_it_as_the_api_server_stores_it(
    manifest: dict[str, Any], apiserver: ApiServer, namespace: str
) -> None:
    """The same defaults, and every field in its place."""
    model = MODELS[manifest["kind"]]
    stored = apiserver.create(manifest, namespace, dry_run=True).body
    read = parse(model, changed(manifest, {"metadata.namespace": namespace}))
    assert parse(model, stored).model_dump(exclude={"metadata"}) == read.model_dump(exclude={"metadata"})


@pytest.mark.parametrize("manifest", OF_LETHE)
def test_what_a_model_writes_is_what_it_was_read_from(manifest: dict[str, Any]) -> None:
    model = MODELS[manifest["kind"]]
    placed = changed(manifest, {"metadata.namespace": "privacy"})
    written = parse(model, placed).manifest()
    assert parse(model, written) == parse(model, placed)
    assert _missing(written["spec"], placed["spec"]) == []


def _missing(part: Any, whole: Any) -> list[Any]:
    """Return what is written and was not read."""
    if isinstance(part, dict):
        return [lost for name, inner in part.items() for lost in _missing(inner, whole.get(name))]
    if isinstance(part, list):
        return [lost for one, other in zip(part, whole, strict=True) for lost in _missing(one, other)]
    return [] if part == whole else [(part, whole)]


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_an_object_that_nobody_has_seen_is_not_ready(kind: str, apiserver: ApiServer, namespace: str) -> None:
    """kstatus takes an object without conditions for one that is done."""
    manifest = next(each for each in MANIFESTS if each["kind"] == kind)
    created = apiserver.create(manifest, namespace).body
    unseen = MODELS[kind].model_fields["status"].get_default(call_default_factory=True)
    assert created["status"] == unseen.wire()
    [ready] = created["status"]["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "Unknown", "Pending")
    assert ready["observedGeneration"] < created["metadata"]["generation"]


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_a_status_that_a_model_writes_is_stored_whole(
    kind: str, apiserver: ApiServer, namespace: str
) -> None:
    manifest = next(each for each in MANIFESTS if each["kind"] == kind)
    created = apiserver.create(manifest, namespace).body
    full = {"observedGeneration": 1, "conditions": CONDITIONS, **FULL_STATUS[kind]}
    status_model = MODELS[kind].model_fields["status"].annotation
    assert status_model is not None
    written = status_model.model_validate(full).wire()
    assert written == full
    answer = apiserver.set_status(created, written)
    assert answer, answer.text
    assert answer.body["status"] == full
