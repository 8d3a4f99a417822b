"""What the engine holds in memory: all of it can be lost, and is rebuilt from ledger and API server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lethe.api.v1alpha1.backupsource import BackupSource
from lethe.controllers.runtime.status_writer import ShownStatus
from lethe.domain.legal import LegalRecord
from lethe.domain.requests import RequestRecord
from lethe.domain.trouble import Trouble
from lethe.domain.trust import Blocker
from lethe.ports.cluster import Manifest
from lethe.workflows.scanning import KnownSource, Scan, SourceDescription
from lethe.workflows.store_session import StoreDescription, StoreSession

ObjectKey = tuple[str, str]
"""(namespace, name) of an object."""


@dataclass(slots=True)
class RequestView:
    """A DeletionRequest as the API server last showed it, reduced to what reporting needs.

    `blocker` is what intake ran into, `ending` what keeps a request from ending that no store blocks.
    `claimed` is false where the name belongs to another request (`NameReused`).
    """

    uid: str
    generation: int
    status: dict[str, Any]
    blocker: Blocker | None = None
    ending: Blocker | None = None
    first_seen: float = 0.0
    written_at: float = -1e9
    claimed: bool = True


@dataclass(slots=True)
class ManagedStore:
    """A DataStore, the task that looks after it, and what its status last said.

    `release` is a person's word on an open restore: `(episode, because)`. `pass_began_at` is when the
    visit began that is under way (monotonic), `pass_ended_well` whether one has ended well: no earlier
    operator can erase there since. `contacts_of` are the legal requests whose subjects are to be told.

    `store` is `None` for a third party's and for one that can't be connected at all (`trouble`).
    """

    manifest: Manifest
    description: StoreDescription
    store: StoreSession | None = None
    trouble: tuple[str, str] | None = None
    without_backups: bool = False
    manual_release: bool = False
    gate: Manifest | None = None
    replay: tuple[str, str] | None = None
    missing: int = 0
    applied: int = 0
    journal_number: int = 0
    release: tuple[str, str] | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    retries: int = 0
    retry_after: float = 0.0
    pass_ended_well: bool = False
    secret_version: str | None = None
    uid: str = ""
    status: dict[str, Any] = field(default_factory=dict)
    status_written: float = 0.0
    pass_began_at: float | None = None
    contacts_of: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """Return the store's name in ledger and metrics."""
        return self.description.name


@dataclass(slots=True)
class ManagedSource:
    """A BackupSource, the task that looks after it, and what its status last said.

    `known` is `None` while its backend can't be reached at all (`trouble`). `scan` is the last that ended.
    """

    manifest: Manifest
    source: BackupSource
    description: SourceDescription
    uid: str
    generation: int
    status: dict[str, Any]
    known: KnownSource | None = None
    trouble: tuple[str, str] | None = None
    scan: Scan | None = None
    met_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    counts: dict[str, int] | None = None
    oldest: datetime | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    retries: int = 0
    secret_version: str | None = None
    status_written: float = -1e9

    @property
    def name(self) -> str:
        """Return the source's name in ledger and metrics."""
        return self.description.name

    @property
    def key(self) -> ObjectKey:
        """Return where its object is."""
        return self.description.namespace, self.description.short_name


@dataclass(slots=True)
class LegalView:
    """A LegalRequest as the API server last showed it, and what only this process knows of it.

    `registered` is the manifest that was registered last with nothing left to try again, `generation` that of
    the one that was read last. `contact_secret` is where the authority's address stands. `blocker` is what
    registering ran into, `document_problem` why the order's document could not be read, `waits` why its
    notice is not sent yet. `troubles` are those of controllers that failed over it, by their name.
    """

    manifest: Manifest
    shown: ShownStatus
    generation: int
    registered: Manifest | None = None
    contact_secret: tuple[str, str] | None = None
    blocker: Blocker | None = None
    document_problem: str | None = None
    waits: str | None = None
    answer_waits: str | None = None
    troubles: dict[str, Trouble] = field(default_factory=dict)


@dataclass(slots=True)
class ObjectCache:
    """Everything that the engine knows at the moment.

    `scans` are those under way and when each began (monotonic), also of sources that were changed meanwhile
    or are gone: a thread that deletes can't be interrupted.
    """

    stores: dict[ObjectKey, ManagedStore] = field(default_factory=dict)
    dirty: dict[ObjectKey, Manifest] = field(default_factory=dict)
    views: dict[ObjectKey, RequestView] = field(default_factory=dict)
    records: dict[ObjectKey, RequestRecord] = field(default_factory=dict)
    restore_events: dict[ObjectKey, Manifest] = field(default_factory=dict)
    sources: dict[ObjectKey, ManagedSource] = field(default_factory=dict)
    legal: dict[ObjectKey, LegalView] = field(default_factory=dict)
    legal_records: dict[ObjectKey, LegalRecord] = field(default_factory=dict)
    scans: dict[asyncio.Future[Scan], tuple[KnownSource, float]] = field(default_factory=dict)

    def sources_of(self, store: str) -> list[ManagedSource]:
        """Return the sources that say they hold snapshots of a store (`namespace/name`)."""
        return [source for source in self.sources.values() if store in source.description.stores]

    def stores_of(self, namespace: str) -> list[ManagedStore]:
        """Return the guards of a namespace."""
        return [managed for (ns, _), managed in self.stores.items() if ns == namespace]

    def primary_of(self, namespace: str) -> ManagedStore | None:
        """Return the Primary of a namespace; the oldest, should somebody have applied two."""
        primaries = [g for g in self.stores_of(namespace) if g.description.role == "Primary"]
        return min(primaries, key=_age, default=None)

    def open_records(self, namespace: str) -> list[RequestRecord]:
        """Return the open requests of a namespace, oldest first."""
        return [r for (ns, _), r in self.records.items() if ns == namespace and r.open]


def _age(managed: ManagedStore) -> str:
    """Return when a DataStore was made, to the second; of two of one second the first met counts as older."""
    return str(managed.manifest.get("metadata", {}).get("creationTimestamp", ""))


def request_at(key: ObjectKey, uid: str) -> Manifest:
    """Return what names a DeletionRequest in an event about it."""
    return {"kind": "DeletionRequest", "metadata": {"namespace": key[0], "name": key[1], "uid": uid}}


def key_of(manifest: Manifest) -> ObjectKey:
    """Return where an object is."""
    metadata = manifest["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
