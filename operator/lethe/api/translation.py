"""From models of manifests to the domain's terms."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from lethe.api.v1alpha1.backupsource import BACKENDS, BackupSource, BackupSourceSpec
from lethe.api.v1alpha1.datastore import DataStore, DataStoreSpec
from lethe.api.v1alpha1.datastore_sql import ClearedColumn, Subjects
from lethe.api.v1alpha1.deletionrequest import DeletionRequest
from lethe.api.v1alpha1.legalrequest import LegalRequest
from lethe.domain.identifiers import Identifier
from lethe.domain.mapping import (
    ClearRule,
    ClearTo,
    Dependent,
    PiiKind,
    Quarantine,
    StoreOwner,
    StoreRole,
    SubjectMapping,
)
from lethe.domain.periods import Period, parse_duration
from lethe.workflows.backup.scan import SourceDescription
from lethe.workflows.erasure.accept import ErasureOrder
from lethe.workflows.legal.register import CourtOrder, LegalOrder, NonDisclosure, PreservationWanted
from lethe.workflows.store_session import Rejoining, StoreDescription


def subject_mapping(subjects: Subjects) -> SubjectMapping:
    """Return the mapping that `spec.sql.subjects` describes."""
    return SubjectMapping(
        table=subjects.table,
        key=subjects.key,
        identifiers=dict(subjects.identifiers or {}),
        clear=_rules(subjects.clear),
        created_at=subjects.created_at,
        ignore=tuple(subjects.ignore),
        dependents=tuple(
            Dependent(
                table=dependent.table,
                foreign_key=dependent.foreign_key,
                delete=bool(dependent.delete),
                clear=_rules(dependent.clear or ()),
            )
            for dependent in subjects.dependents
        ),
        quarantine=(
            Quarantine(subjects.quarantine.column, subjects.quarantine.value) if subjects.quarantine else None
        ),
    )


def _rules(columns: Sequence[ClearedColumn]) -> tuple[ClearRule, ...]:
    return tuple(
        ClearRule(
            column=column.column,
            holds=PiiKind(column.holds.value),
            to=ClearTo(column.to.value),
            text=column.template if column.template is not None else column.value,
        )
        for column in columns
    )


def store_description(store: DataStore) -> StoreDescription:
    """Return what a DataStore says of a store, apart from how to reach it."""
    spec = store.spec
    identifiers = (spec.sql.subjects.identifiers or {}) if spec.sql and spec.sql.subjects else {}
    reach = spec.sql or spec.tryton or spec.http
    addressed = spec.tryton or (spec.sql.subjects if spec.sql else None)
    return StoreDescription(
        namespace=store.metadata.namespace or "",
        short_name=store.metadata.name or "",
        role=StoreRole(spec.role.value),
        owner=StoreOwner(spec.owner.value),
        needs_primary_key="primaryKey" in identifiers and spec.role.value != "Primary",
        max_records=reach.max_records if reach else 5,
        catch_up=spec.catch_up,
        one_owner_per_address=addressed.one_owner_per_address if addressed else False,
        formerly=spec.formerly,
        rejoined=tuple(Rejoining(one.table, one.key, one.since, one.because) for one in spec.rejoined),
    )


def plaintext_field(spec: DataStoreSpec | BackupSourceSpec) -> str | None:
    """Return the field that lets Lethe do without TLS; `None`: none does."""
    for name in ("sql", "tryton", "s3", "restic"):
        backend = getattr(spec, name, None)
        if backend is not None and backend.allow_plaintext:
            return f"spec.{name}.allowPlaintext"
    return None


def place_and_name(spec: BackupSourceSpec, ref: str) -> tuple[str, str]:
    """Return where a source's snapshots lie, and what one is called there, as what restores it needs both."""
    if spec.directory is not None:
        return spec.directory.path, ref
    if spec.s3 is not None:
        return f"{spec.s3.endpoint or 's3:/'}/{spec.s3.bucket}", f"{spec.s3.prefix or ''}{ref}"
    return spec.restic.repository if spec.restic is not None else _place(spec), ref


def source_description(source: BackupSource, longest: Period, skew: timedelta) -> SourceDescription:
    """Return what a BackupSource says; `longest` is `LETHE_RETENTION`, `skew` `LETHE_CLOCK_SKEW`.

    Raises `InvalidPeriod`.
    """
    spec, namespace = source.spec, source.metadata.namespace or ""
    duration = parse_duration(spec.longest_duration).total_seconds() if spec.longest_duration else 0.0
    too_long = Period.parse(spec.retention).exceeds(longest)
    return SourceDescription(
        namespace=namespace,
        short_name=source.metadata.name or "",
        stores=tuple(sorted(f"{namespace}/{name}" for name in spec.stores)),
        retention=str(longest) if too_long else spec.retention,  # the policy holds whatever is asked for
        longest_duration=duration,
        hold_last=spec.last_snapshot.value == "Hold",
        most_per_run=spec.max_prunes_per_run,
        confirm_prunes=spec.confirm_prunes,
        suspended=bool(spec.suspend),
        too_long=too_long,
        skew=skew.total_seconds(),
        place=_place(spec),
        names=_names(spec),
    )


_REACHES = {"credentials_secret_ref", "allow_plaintext"}
"""What is said of a backend and may change while the place stays."""


def _place(spec: BackupSourceSpec) -> str:
    """Return where a source looks. Two that say the same are the same place, whatever reaches it."""
    if spec.directory is not None:
        return f"directory {posixpath.normpath(spec.directory.path)}"
    if spec.s3 is not None:
        service = _service(spec.s3.endpoint) if spec.s3.endpoint else "AWS"
        return f"bucket {service}/{spec.s3.bucket}/{spec.s3.prefix or ''}"
    if spec.restic is not None:
        return f"restic {_service(spec.restic.repository.removeprefix('local:'))}"
    # Of any other, all that is said counts. What is taken for another place by mistake stays known twice; two
    # that are taken for one would prove bytes gone where they never lay.
    ((kind, backend),) = spec.given(BACKENDS).items()
    said = backend.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=_REACHES)
    return f"{kind} {json.dumps(said, sort_keys=True)}"


def _service(url: str) -> str:
    """Return a URL without what may change while the place stays: scheme, usual port, slash at the end."""
    bare = re.sub("https?://", "", url, count=1).rstrip("/")
    return re.sub(r"^([^/]*?)(:443|:80)?(/|$)", lambda found: found[1].lower() + found[3], bare, count=1)


def _names(spec: BackupSourceSpec) -> str:
    """Return what a source takes for a snapshot in its place."""
    if spec.restic is not None:
        return json.dumps({"host": spec.restic.host, "paths": sorted(spec.restic.paths)})
    named = spec.directory or spec.s3
    return named.name if named is not None else ""


def erasure_order(
    request: DeletionRequest, identifier: Identifier | None, secret_problem: str | None
) -> ErasureOrder:
    """Return the order that a DeletionRequest for a person gives, with what its Secret holds."""
    spec, metadata = request.spec, request.metadata
    immutable = spec.model_dump(mode="json", by_alias=True, exclude={"confirmed"}, exclude_none=True)
    return ErasureOrder(
        namespace=metadata.namespace or "",
        name=metadata.name or "",
        uid=metadata.uid or "",
        spec_text=json.dumps(immutable, sort_keys=True),
        created_at=metadata.creation_timestamp or datetime.now(UTC),
        requested_at=spec.requested_at,
        subject_id=spec.subject.id if spec.subject else None,
        identifier=identifier,
        reference=spec.reference,
        dry_run=spec.dry_run,
        confirmed=tuple(answer.value for answer in spec.confirmed),
        secret_problem=secret_problem,
    )


_FIXED = {"type", "authority", "received_at", "reference", "subject"}
"""What a LegalRequest says once and for all."""


def legal_order(
    request: LegalRequest,
    *,
    identifier: Identifier | None,
    document: str | None,
    secret_problem: str | None,
) -> LegalOrder:
    """Return what a LegalRequest says, with what its Secrets hold; `document` is the order's `sha256:…`."""
    spec, metadata = request.spec, request.metadata
    namespace = metadata.namespace or ""
    fixed = spec.model_dump(mode="json", by_alias=True, include=_FIXED, exclude_none=True)
    order, gag, preservation, review = spec.court_order, spec.non_disclosure, spec.preservation, spec.review
    return LegalOrder(
        namespace=namespace,
        name=metadata.name or "",
        uid=metadata.uid or "",
        spec_text=json.dumps(fixed, sort_keys=True),
        kind=spec.type,
        authority=spec.authority.name,
        level=spec.authority.level.value,
        country=spec.authority.country,
        received_at=spec.received_at,
        reference=spec.reference,
        subject_id=spec.subject.id,
        identifier=identifier,
        order=CourtOrder(
            order.court, order.docket, order.issued_at, documented=order.document_secret_ref is not None
        )
        if order
        else None,
        document=document,
        gag=NonDisclosure(
            gag.legal_basis, gag.until, gag.time_zone, gag.lifted.because if gag.lifted else None
        )
        if gag
        else None,
        preservation=PreservationWanted(
            tuple(sorted(f"{namespace}/{name}" for name in preservation.stores)),
            preservation.until,
            preservation.lifted.because if preservation.lifted else None,
        )
        if preservation
        else None,
        review=review.decision.value if review else None,
        reviewer=review.reviewer if review else None,
        secret_problem=secret_problem,
    )
