"""Reading manifests: what is tolerated, what is refused, and what is said about it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from lethe.api.parse import InvalidManifest, parse
from lethe.api.v1alpha1 import DataStore, DeletionRequest, RestoreEvent
from lethe.api.v1alpha1.datastore_sql import SqlStore
from lethe.api.v1alpha1.deletionrequest import StoreOutcome, StoreState
from lethe.api.v1alpha1.restoreevent import RestoreReason
from tests.api.samples import REMOVED, changed, manifest


def _request(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    return changed(
        manifest("DeletionRequest", "support-48213"), {"metadata.namespace": "privacy", **(changes or {})}
    )


def test_an_instant_is_read_as_utc_and_written_as_kubernetes_writes_it() -> None:
    request = parse(DeletionRequest, _request({"spec.requestedAt": "2026-11-20T10:30:00+01:00"}))
    assert request.spec.requested_at == datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
    assert request.spec.requested_at.tzinfo is UTC
    assert request.wire()["spec"]["requestedAt"] == "2026-11-20T09:30:00Z"


def test_an_instant_that_has_no_place_in_utc_is_refused() -> None:
    with pytest.raises(InvalidManifest, match=r"spec\.requestedAt: is too far in the past or the future"):
        parse(DeletionRequest, _request({"spec.requestedAt": "0001-01-01T00:00:00+14:00"}))


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert parse(DeletionRequest, _request({"spec.urgency": "High"})) == parse(DeletionRequest, _request())


def test_a_status_that_cannot_be_read_is_taken_for_one_never_written() -> None:
    """It is display: a newer Lethe may have written it, and an erasure must not wait for that."""
    read = parse(DeletionRequest, _request({"status": {"state": "SomethingNew"}}))
    assert read.status == parse(DeletionRequest, _request()).status
    assert read.spec == parse(DeletionRequest, _request()).spec


def test_an_unreadable_status_does_not_hide_an_unreadable_spec() -> None:
    with pytest.raises(
        InvalidManifest, match=r"^DeletionRequest privacy/support-48213: spec: give exactly one"
    ):
        parse(DeletionRequest, _request({"spec": {}, "status": {"state": "SomethingNew"}}))


@pytest.mark.parametrize(("name", "value"), [("kind", "DataStore"), ("apiVersion", "lethe.dev/v2")])
def test_an_object_of_another_kind_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidManifest, match=f"^DeletionRequest privacy/support-48213: {name}: must be "):
        parse(DeletionRequest, _request({name: value}))


def test_a_list_item_may_lack_its_kind() -> None:
    """As the API server leaves it out in some lists."""
    assert parse(DeletionRequest, _request({"kind": REMOVED, "apiVersion": REMOVED})).spec.subject is not None


def test_the_key_of_a_map_is_not_named_in_an_error() -> None:
    store = changed(
        manifest("DataStore", "site"),
        {"spec.gate.podSelector.matchLabels": {"jane@example": 7}, "metadata.namespace": "p"},
    )
    with pytest.raises(InvalidManifest, match=r"spec\.gate\.podSelector\.matchLabels\[\*\]: Input should be"):
        parse(DataStore, store)


def test_a_manifest_without_metadata_is_refused() -> None:
    with pytest.raises(InvalidManifest, match=r"^DeletionRequest /: metadata: Field required"):
        parse(DeletionRequest, _request({"metadata": REMOVED}))


def test_a_model_cannot_be_changed() -> None:
    request = parse(DeletionRequest, _request())
    with pytest.raises(ValueError, match="frozen"):
        request.spec.dry_run = True  # type: ignore[misc]


def test_the_backend_of_a_store_is_the_one_that_is_given() -> None:
    store = parse(DataStore, changed(manifest("DataStore", "site"), {"metadata.namespace": "privacy"}))
    assert isinstance(store.spec.backend, SqlStore)
    assert store.spec.backend is store.spec.sql
    assert store.spec.backend.max_records == 5


def test_lists_that_lethe_does_not_fill_are_not_written() -> None:
    """An empty list of answers, once stored, could not be left out by the person who applies theirs."""
    event = RestoreEvent.model_validate(
        {
            "metadata": {"name": "site-1", "namespace": "privacy"},
            "spec": {"store": "site", "reason": RestoreReason.UNDECLARED},
        }
    )
    assert event.manifest()["spec"] == {"store": "site", "reason": "Undeclared"}


def test_a_count_of_zero_is_written() -> None:
    outcome = StoreOutcome(name="crm", state=StoreState.VERIFIED, erased={"contacts": 0}, attempts=0)
    assert outcome.wire() == {"name": "crm", "state": "Verified", "erased": {"contacts": 0}, "attempts": 0}
