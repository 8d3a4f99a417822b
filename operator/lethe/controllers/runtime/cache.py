"""What is held in memory: all of it can be lost, and is rebuilt from ledger and API server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import Any

from lethe.api.v1alpha1.backupsource import BackupSource
from lethe.api.v1alpha1.datastore import Gate
from lethe.api.v1alpha1.restoredrill import RestoreDrill
from lethe.controllers.runtime.status_writer import ShownStatus
from lethe.domain.announced import (
    EXPECTED,
    Announcement,
    ClosedAhead,
    Underway,
    closed_ahead,
    is_answered,
)
from lethe.domain.drill_facts import DrillEnded
from lethe.domain.drills import DrillRecord, Rehearsal
from lethe.domain.legal import LegalRecord
from lethe.domain.mapping import StoreOwner
from lethe.domain.requests import RequestRecord
from lethe.domain.restores import Release, RestoreEpisode
from lethe.domain.trouble import Trouble
from lethe.domain.trust import Blocker
from lethe.ports.backups import Backend
from lethe.ports.cluster import Manifest
from lethe.workflows.backup.scan import KnownSource, Scan, SourceDescription
from lethe.workflows.drill.conduct import Halt
from lethe.workflows.store_session import StoreDescription, StoreSession

ObjectKey = tuple[str, str]
"""(namespace, name) of an object."""


@dataclass(slots=True)
class RequestView:
    """A DeletionRequest as the API server last showed it, reduced to what its status needs.

    `blocker` is what taking it in ran into, `ending` what keeps a request from ending that no store blocks.
    `first_seen` is monotonic. `claimed` is false where the name belongs to another request (`NameReused`).
    """

    shown: ShownStatus
    generation: int
    blocker: Blocker | None = None
    ending: Blocker | None = None
    first_seen: float = 0.0
    claimed: bool = True


@dataclass(slots=True)
class RestoreEventView:
    """A RestoreEvent as the API server last showed it."""

    manifest: Manifest
    shown: ShownStatus

    @property
    def generation(self) -> int:
        """Return its metadata.generation."""
        return int(self.manifest["metadata"].get("generation", 1))

    @property
    def declared_at(self) -> datetime:
        """Return when it was made: to the second, and not later than it was; by Lethe, exactly."""
        noticed_at = (self.expected or {}).get("noticedAt")
        return datetime.fromisoformat(noticed_at or self.manifest["metadata"]["creationTimestamp"])

    @property
    def store(self) -> ObjectKey:
        """Return which DataStore it is about."""
        return self.manifest["metadata"].get("namespace", ""), self.manifest.get("spec", {}).get("store", "")

    @property
    def announcement(self) -> Announcement | None:
        """Return what it tells of a restore ahead; `None`: nothing, or nothing any more."""
        name, expected = self.manifest["metadata"]["name"], self.expected
        said = self.manifest.get("spec", {}).get("underway")
        if said is not None:
            return Announcement(name, self.declared_at, Underway(said))
        if expected is None or self.shown.status.get("state") == "Expired":
            return None
        by = f"{expected['kind']} {expected['namespace']}/{expected['name']}"
        return Announcement(name, self.declared_at, None, expected=by)

    @property
    def expected(self) -> Mapping[str, str] | None:
        """Return the object of others because of which Lethe has made it."""
        found: Mapping[str, str] | None = self.manifest.get("spec", {}).get("expected")
        return found

    @property
    def release(self) -> Mapping[str, str]:
        """Return its spec.release; empty if there is none."""
        return self.manifest.get("spec", {}).get("release") or {}

    @property
    def names_another_uid(self) -> bool:
        """Tell whether its spec.release was meant to break the glass of another object."""
        return self.release.get("uid", self.shown.uid) != self.shown.uid


@dataclass(slots=True)
class StoreWork:
    """What is done in a store's thread right now, and since when (monotonic): a pass, or a question.

    `turn` holds when its thread had its turn, `seconds` is how long it may take from then on.
    """

    future: asyncio.Future[Any]
    began: float
    is_pass: bool
    records: Sequence[RequestRecord] = ()
    turn: Sequence[float] = ()
    seconds: float = inf

    @property
    def ends_at(self) -> float:
        """Return when it is to have ended (monotonic)."""
        return self.turn[0] + self.seconds if self.turn else inf


@dataclass(slots=True)
class StoreQuestion:
    """What somebody awaits of a store: asked in its thread, between two passes."""

    ask: Callable[[StoreSession], Any]
    answer: asyncio.Future[Any]


@dataclass(slots=True)
class ManagedStore:
    """A DataStore as its manifest says, the session with the store, and what is known of it now.

    `session` is `None` for a third party's and for one that can't be connected at all; `unusable` says why.
    `work` is under way in its thread, `questions` wait for their turn; `rung` says that something rang for
    it meanwhile, `given_up` that the work is cut off, `suspended` that the store is to be left alone,
    `let_go` that it was, and nobody has looked at it since. `looked_in` is the session in which a look has
    ended: what it has found is known.
    `pass_ended_well` tells whether any pass has: no earlier operator can erase there since. `replay` is why
    the store is not safe to serve: `(reason, message)`, `release` the restore since which it is served
    because a person says so; `was_safe` is whether it was, when it was last looked at as the ledger knows it
    (`None`: not asked yet), `bound` the RestoreEvents that it has tied to restores of the store (as
    `bound_events` says; `None`: not asked yet). `gate` says whom it keeps out, `gate_trouble` why that
    can't be set. `snapshots_remain` tells whether a snapshot is known that is not proven gone
    (`None`: not asked yet). `plaintext` is the field that lets it do without TLS. `retry_after` is monotonic.
    """

    manifest: Manifest
    description: StoreDescription
    shown: ShownStatus
    session: StoreSession | None = None
    unusable: Trouble | None = None
    without_backups: bool = False
    snapshots_remain: bool | None = None
    manual_release: bool = False
    suspended: bool = False
    let_go: bool = False
    looked_in: StoreSession | None = None
    gate: Gate | None = None
    gate_trouble: Trouble | None = None
    was_safe: bool | None = None
    bound: Mapping[str, datetime | None] | None = None
    plaintext: str | None = None
    replay: tuple[str, str] | None = None
    missing: int = 0
    applied: int = 0
    journal_number: int = 0
    work: StoreWork | None = None
    questions: deque[StoreQuestion] = field(default_factory=deque)
    rung: bool = False
    given_up: bool = False
    retries: int = 0
    retry_after: float = 0.0
    pass_ended_well: bool = False
    secret_version: str | None = None
    secret_read: float = float("-inf")
    release: RestoreEpisode | None = None

    @property
    def name(self) -> str:
        """Return the store's name in ledger and metrics."""
        return self.description.name

    @property
    def key(self) -> ObjectKey:
        """Return where its object is."""
        return self.description.namespace, self.description.short_name

    @property
    def trouble(self) -> Trouble | None:
        """Return why the store can't be used now, whoever has found out."""
        found = self.session.trouble if self.session is not None else None
        return found or self.unusable

    @property
    def earlier_work_may_go_on(self) -> bool:
        """Tell whether what an earlier process had begun in the store may still erase there.

        It has ended, or is refused there, once this process has visited the store.
        """
        asked = self.description.owner is not StoreOwner.THIRD_PARTY and self.unusable is None
        return asked and not self.pass_ended_well

    @property
    def pass_began_at(self) -> float | None:
        """Return since when a pass has been under way (monotonic)."""
        return self.work.began if self.work is not None and self.work.is_pass else None


@dataclass(slots=True)
class ManagedSource:
    """A BackupSource, what goes on for it in threads, and what is known of it.

    `known` is `None` while its backend is not connected; why it can't be used now is its `trouble`. `scan` is
    the last that ended. `connecting` or `scanning` is what is under way; `began`, `abandoned_at` and
    `scan_due` are monotonic. `rung` tells that something was applied since the last scan began.
    """

    manifest: Manifest
    source: BackupSource
    description: SourceDescription
    generation: int
    shown: ShownStatus
    known: KnownSource | None = None
    trouble: Trouble | None = None
    scan: Scan | None = None
    met_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    counts: dict[str, int] | None = None
    oldest: datetime | None = None
    connecting: asyncio.Future[Backend] | None = None
    scanning: asyncio.Future[Scan] | None = None
    began: float = 0.0
    abandoned_at: float | None = None
    scan_due: float = 0.0
    rung: bool = False
    retries: int = 0
    secret_version: str | None = None

    @property
    def name(self) -> str:
        """Return the source's name in ledger and metrics."""
        return self.description.name

    @property
    def key(self) -> ObjectKey:
        """Return where its object is."""
        return self.description.namespace, self.description.short_name

    @property
    def under_way(self) -> asyncio.Future[Any] | None:
        """Return what goes on in a thread."""
        return self.connecting or self.scanning

    @property
    def uid(self) -> str:
        """Return its object's uid."""
        return self.shown.uid


@dataclass(slots=True)
class DrillRun:
    """A drill that goes on in a thread, `halt` ends it. `store` is whose restore it rehearses; `clears` tells
    that it only ends what an earlier process had begun.
    """

    future: asyncio.Future[DrillEnded]
    halt: Halt
    began_at: datetime
    store: str = ""
    clears: bool = False


@dataclass(slots=True)
class ManagedDrill:
    """A RestoreDrill, and what is known of it. `trouble` is why none can begin; `gone`: its object is.

    `met_at` is when this process met it, should its object not say when it was made. `tidied` is the database
    of the drill of which neither Job nor Secret is left.
    """

    manifest: Manifest
    drill: RestoreDrill
    shown: ShownStatus
    met_at: datetime
    record: DrillRecord | None = None
    run: DrillRun | None = None
    trouble: Trouble | None = None
    gone: bool = False
    tried_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    tidied: str = ""

    @property
    def key(self) -> ObjectKey:
        """Return where its object is."""
        return key_of(self.manifest)

    @property
    def name(self) -> str:
        """Return the drill's name in ledger and metrics."""
        return "/".join(self.key)

    @property
    def created_at(self) -> datetime:
        """Return when its object was made."""
        return self.drill.metadata.creation_timestamp or self.met_at


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
    """Everything that the controllers know at the moment.

    `datastores` are the newest manifests, `stores` what is made of them; `requests` wait to be taken in.
    `rehearsals` are the last drills that passed, by store.
    `scans` are those under way and when each began (monotonic), also of sources that were changed meanwhile
    or are gone: a thread that deletes can't be interrupted. `announced` are the restores that RestoreEvents
    tell of ahead, by store and event.
    """

    datastores: dict[ObjectKey, Manifest] = field(default_factory=dict)
    stores: dict[ObjectKey, ManagedStore] = field(default_factory=dict)
    requests: dict[ObjectKey, Manifest] = field(default_factory=dict)
    views: dict[ObjectKey, RequestView] = field(default_factory=dict)
    records: dict[ObjectKey, RequestRecord] = field(default_factory=dict)
    restore_events: dict[ObjectKey, RestoreEventView] = field(default_factory=dict)
    announced: dict[ObjectKey, dict[str, Announcement]] = field(default_factory=dict)
    sources: dict[ObjectKey, ManagedSource] = field(default_factory=dict)
    legal: dict[ObjectKey, LegalView] = field(default_factory=dict)
    legal_records: dict[ObjectKey, LegalRecord] = field(default_factory=dict)
    drills: dict[ObjectKey, ManagedDrill] = field(default_factory=dict)
    rehearsals: dict[str, Rehearsal] = field(default_factory=dict)
    scans: dict[asyncio.Future[Scan], tuple[KnownSource, float]] = field(default_factory=dict)

    def sources_of(self, store: str) -> list[ManagedSource]:
        """Return the sources that say they hold snapshots of a store (`namespace/name`)."""
        return [source for source in self.sources.values() if store in source.description.stores]

    def watched_stores(self) -> frozenset[str]:
        """Return the names of all stores that are looked after."""
        stores = self.stores.values()
        return frozenset(m.name for m in stores if m.description.owner is not StoreOwner.THIRD_PARTY)

    def stores_of(self, namespace: str) -> list[ManagedStore]:
        """Return the stores of a namespace."""
        return [managed for (ns, _), managed in self.stores.items() if ns == namespace]

    def ahead_of(self, managed: ManagedStore) -> ClosedAhead | None:
        """Return why a store is closed ahead of a restore, as its RestoreEvents say; `None`: they don't."""
        announced = self.announced.get(managed.key)
        return closed_ahead(announced.values(), managed.bound) if announced else None

    def why_unsafe(self, managed: ManagedStore) -> tuple[str, str] | None:
        """Return why a store may not be served, as reason and message, whatever is seen of it."""
        ahead = self.ahead_of(managed)
        if ahead is None or (ahead.reason == EXPECTED and managed.replay is not None):
            return managed.replay
        return ahead.reason, ahead.message

    def expected_of(self, managed: ManagedStore) -> list[Announcement]:
        """Return the restores of a store that are expected because of others' objects, and were not found."""
        announced = self.announced.get(managed.key, {}).values()
        return [one for one in announced if one.expected and not is_answered(one, managed.bound or {})]

    def releases_of(self, managed: ManagedStore) -> dict[str, Release]:
        """Return the words that a store may be served, by the RestoreEvent of it that says so.

        One that names the uid of another object was copied from there, and says nothing.
        """
        return {
            name: Release(said.get("because", ""), said.get("uid", ""), said.get("by", ""))
            for (_, name), view in self.restore_events.items()
            if view.store == managed.key and (said := view.release) and not view.names_another_uid
        }

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


def version_of(manifest: Manifest) -> int:
    """Return how new a manifest is; resourceVersions are numbers that grow (Kubernetes 1.35 promises it)."""
    version = manifest["metadata"].get("resourceVersion", "")
    return int(version) if version.isdecimal() else 0


def request_at(key: ObjectKey, uid: str) -> Manifest:
    """Return what names a DeletionRequest in an event about it."""
    return {"kind": "DeletionRequest", "metadata": {"namespace": key[0], "name": key[1], "uid": uid}}


def key_of(manifest: Manifest) -> ObjectKey:
    """Return where an object is."""
    metadata = manifest["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
