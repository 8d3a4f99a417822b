"""DataStore: a system that may hold personal data, and how Lethe erases there."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar, assert_never

from pydantic import Field

from lethe.api.model import AGE, ApiModel, Column, Definition, Resource, condition_column
from lethe.api.rules import ATOMIC_LIST, FORBIDDEN, SET, Keywords, Rule, exactly_one, map_by
from lethe.api.scalars import Count, GivenInstant, Instant
from lethe.api.v1alpha1.conditions import Status
from lethe.api.v1alpha1.datastore_remote import HttpStore, LdapStore, Plugin, ScimStore, TrytonStore
from lethe.api.v1alpha1.datastore_sql import SqlStore, TableName
from lethe.api.v1alpha1.identifiers import OpaqueKey, no_address
from lethe.api.v1alpha1.references import ObjectName
from lethe.domain.mapping import StoreOwner, StoreRole

_BACKENDS = ("sql", "http", "scim", "ldap", "tryton", "plugin")


class BackupsExpected(StrEnum):
    """Whether a store has backups."""

    COVERED = "Covered"
    NONE = "None"


class GateRelease(StrEnum):
    """Who opens a gate again."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


class WhenAway(StrEnum):
    """What becomes of pods that come up while a store can't be looked at."""

    CLOSED = "Closed"
    LAST_VERIFIED = "LastVerified"


class LabelOperator(StrEnum):
    """How a label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


def _label(pattern: str) -> Rule:
    """Return the rule that a text is what a pod's label can be."""
    return Rule(
        rule=f"self.matches('{pattern}')",
        message="must be what a label can be: letters, digits, and -, _, . between them",
        reason=FORBIDDEN,
        holds=lambda text: re.fullmatch(pattern, text) is not None,
    )


_LabelValue = Annotated[str, Field(max_length=63), _label("^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")]
_LabelKey = Annotated[
    str,
    Field(max_length=317),
    _label("^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"),
]


class LabelRequirement(ApiModel):
    """One comparison of a label."""

    rules = (
        Rule(
            rule="(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
            field_path=".values",
            message="must be given with In and NotIn, and must be absent elsewhere",
            holds=lambda one: (one.operator in (LabelOperator.IN, LabelOperator.NOT_IN)) == bool(one.values),
        ),
    )

    key: _LabelKey = Field(description="The label.")
    operator: LabelOperator = Field(description="In, NotIn, Exists or DoesNotExist.")
    values: Annotated[tuple[_LabelValue, ...], Field(max_length=64), ATOMIC_LIST] = Field(
        default=(), description="With In and NotIn: what it is compared with."
    )

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a pod's labels fulfil it."""
        match self.operator:
            case LabelOperator.IN:
                return labels.get(self.key) in self.values
            case LabelOperator.NOT_IN:
                return labels.get(self.key) not in self.values
            case LabelOperator.EXISTS:
                return self.key in labels
            case LabelOperator.DOES_NOT_EXIST:
                return self.key not in labels
            case _:
                assert_never(self.operator)


class PodSelector(ApiModel):
    """Which pods, by their labels."""

    rules = (
        Rule(
            rule="(has(self.matchLabels) && self.matchLabels.size() > 0) || "
            "(has(self.matchExpressions) && self.matchExpressions.size() > 0)",
            message="must not be empty: it would close every pod of the namespace",
            holds=lambda selector: bool(selector.match_labels or selector.match_expressions),
        ),
    )

    match_labels: Annotated[Mapping[str, _LabelValue], Field(max_length=16)] | None = Field(
        default=None, description="Labels that a pod must have."
    )
    match_expressions: Annotated[tuple[LabelRequirement, ...], Field(max_length=16), ATOMIC_LIST] = Field(
        default=(), description="Comparisons that must all hold."
    )

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a pod with these labels is one of them, as the API server does."""
        equal = all(labels.get(key) == value for key, value in (self.match_labels or {}).items())
        return equal and all(one.holds(labels) for one in self.match_expressions)


_Selector = Annotated[PodSelector, Keywords({"x-kubernetes-map-type": "atomic"})]
_RoleName = Annotated[str, Field(min_length=1, max_length=63)]


class RoleGate(ApiModel):
    """Roles of the database's server that may not connect while erasures are missing in the store."""

    names: Annotated[tuple[_RoleName, ...], Field(min_length=1, max_length=16), SET] = Field(
        description="The roles that the application connects as, and nobody else does: in every database of "
        "the server they can't connect meanwhile. Never a superuser, never Lethe's own."
    )


class IpBlock(ApiModel):
    """A network."""

    cidr: Annotated[str, Field(min_length=1, max_length=43)] = Field(description="As 10.20.0.0/16.")


class Peer(ApiModel):
    """Who may reach pods all the same, as a NetworkPolicy says it."""

    rules = (
        Rule(
            rule="has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
            message="give ipBlock, or podSelector and namespaceSelector, or one of these two",
            holds=lambda peer: (
                (peer.ip_block is not None)
                != (peer.pod_selector is not None or peer.namespace_selector is not None)
            ),
        ),
    )

    pod_selector: _Selector | None = Field(
        default=None, description="Pods of this namespace, or of the selected ones."
    )
    namespace_selector: _Selector | None = Field(default=None, description="Namespaces by their labels.")
    ip_block: IpBlock | None = Field(default=None, description="A network.")


class NetworkPolicyGate(ApiModel):
    """Pods that can be reached only by who is listed, while erasures are missing in the store."""

    pod_selector: _Selector = Field(description="Which pods of this namespace can't be reached.")
    allow: Annotated[tuple[Peer, ...], Field(max_length=16), ATOMIC_LIST] = Field(
        default=(),
        description="Who can reach them all the same: Lethe, where they are the database's. Empty: nobody.",
    )


class PoolerGate(ApiModel):
    """Poolers of CloudNativePG that are paused while erasures are missing in the store."""

    names: Annotated[tuple[ObjectName, ...], Field(min_length=1, max_length=16), SET] = Field(
        description="Names of Poolers of this namespace."
    )


GATE_WAYS = ("podSelector", "role", "networkPolicy", "cnpgPooler")


class Gate(ApiModel):
    """Who is kept out while erasures are missing in the store: in one way at least."""

    rules = (
        Rule(
            rule=" || ".join(f"has(self.{way})" for way in GATE_WAYS),
            message="must say who is kept out: by podSelector, role, networkPolicy or cnpgPooler",
            holds=lambda gate: any((gate.pod_selector, gate.role, gate.network_policy, gate.cnpg_pooler)),
        ),
    )

    pod_selector: _Selector | None = Field(default=None, description="Which pods of this namespace.")
    role: RoleGate | None = Field(
        default=None,
        description="Roles that may not connect meanwhile, from wherever. For sql on PostgreSQL.",
    )
    network_policy: NetworkPolicyGate | None = Field(
        default=None,
        description="A NetworkPolicy that is there meanwhile. Needs the chart's "
        "gate.networkPolicies, and a network plugin that heeds it.",
    )
    cnpg_pooler: PoolerGate | None = Field(
        default=None, description="Poolers that are paused meanwhile. Needs the chart's gate.cnpgPoolers."
    )
    release: GateRelease = Field(
        default=GateRelease.AUTOMATIC,
        description="Automatic: pods serve again once all is erased and verified. Manual: once a person "
        "says so in "
        "RestoreEvent.spec.release.",
    )
    when_away: WhenAway = Field(
        default=WhenAway.CLOSED,
        description="What becomes of pods that come up while the store can't be looked at. Closed: they "
        "wait. LastVerified: they serve if the store was safe to serve when it was last looked at. Pods that "
        "serve already go on in both.",
    )


MappingVersion = Annotated[
    str,
    Field(max_length=16),
    Rule(
        rule="self.matches('^[0-9a-f]{16}$')",
        reason=FORBIDDEN,
        message="must be the version that MappingComplete tells, sixteen of 0-9 and a-f",
        holds=lambda version: re.fullmatch("[0-9a-f]{16}", version) is not None,
    ),
]


class Rejoined(ApiModel):
    """Somebody who was erased, and who has consented anew to be in the same row."""

    table: TableName = Field(description="Table of the row, as the event WrittenBackAgain names it.")
    key: OpaqueKey = Field(description="Key of the row.")
    since: GivenInstant = Field(
        description="When the person consented anew. What was asked for later counts; after a restore to "
        "before this was recorded give a later one."
    )
    because: Annotated[
        str,
        Field(min_length=1, max_length=1024),
        no_address("must not hold personal data such as an e-mail address"),
    ] = Field(description="Where that is written down, in a sentence. No personal data.")


class RunsIn(ApiModel):
    """Where in this cluster a store's database runs: by this, others' objects are known to restore it."""

    namespace: ObjectName | None = Field(
        default=None, description="The namespace. Absent: the DataStore's own."
    )
    cloud_native_pg: ObjectName | None = Field(
        default=None, description="Name of the CloudNativePG Cluster that it is, or is recovered from."
    )
    claims: Annotated[tuple[ObjectName, ...], Field(max_length=64), SET] = Field(
        default=(), description="Names of the PersistentVolumeClaims that it lies on."
    )


class DataStoreSpec(ApiModel):
    """What the store is and what it holds. Exactly one of sql, http, scim, ldap, tryton and plugin."""

    rules = (
        exactly_one(*_BACKENDS),
        Rule(
            rule="self.role != 'Primary' || self.owner == 'Self'",
            field_path=".owner",
            message="must be Self for the Primary store",
            holds=lambda spec: spec.role is not StoreRole.PRIMARY or spec.owner is StoreOwner.SELF,
        ),
        Rule(
            rule="!has(self.gate) || !has(self.gate.role) || (has(self.sql) && self.owner == 'Self')",
            field_path=".gate.role",
            message="can only be given with sql, and not for a ThirdParty's store",
            holds=lambda spec: (
                spec.gate is None
                or spec.gate.role is None
                or (spec.sql is not None and spec.owner is StoreOwner.SELF)
            ),
        ),
    )

    role: StoreRole = Field(
        description="Primary (one per namespace; its keys name persons), CRM, HRM or Other."
    )
    owner: StoreOwner = Field(description="Self or ThirdParty. Nothing is ever sent to a ThirdParty store.")
    sql: SqlStore | None = Field(default=None, description="A database that SQLAlchemy can reach.")
    http: HttpStore | None = Field(default=None, description="A store with an HTTP API that speaks JSON.")
    scim: ScimStore | None = Field(default=None, description="A store that speaks SCIM 2.0.")
    ldap: LdapStore | None = Field(default=None, description="A directory that speaks LDAP.")
    tryton: TrytonStore | None = Field(default=None, description="A Tryton server.")
    plugin: Plugin | None = Field(
        default=None, description="A store of another kind, by an installed adapter."
    )
    gate: Gate | None = Field(
        default=None, description="Who is kept out while erasures are missing in the store."
    )
    runs_in: RunsIn | None = Field(
        default=None,
        description="Where in this cluster the database runs. Where LETHE_EARLY_WARNING has others' restores "
        "watched, one that concerns this place closes the gate before the data is there.",
    )
    formerly: ObjectName | None = Field(
        default=None,
        description="The name of the DataStore that this one replaces: what was erased is remembered under "
        "that name, and BackupSources and LegalRequests go on naming the store so.",
    )
    catch_up: MappingVersion | None = Field(
        default=None,
        description="The version of the mapping that MappingComplete tells: who was erased before it is "
        "cleared, too, as it says.",
    )
    rejoined: Annotated[tuple[Rejoined, ...], Field(max_length=256), map_by("table", "key")] = Field(
        default=(),
        description="Rows that are not erased again, for the person came back by her own will. What is "
        "recorded holds when it is taken out here; a new DeletionRequest ends it.",
    )
    backups: BackupsExpected = Field(
        default=BackupsExpected.COVERED,
        description="Covered: some BackupSource must name this store. None: it has no backups.",
    )

    suspend: bool | None = Field(
        default=None,
        description="While true, Lethe has no session in the store, erases nothing there, and keeps its gate "
        "closed: for as long as somebody drops or replaces the database.",
    )

    @property
    def backend(self) -> SqlStore | HttpStore | ScimStore | LdapStore | TrytonStore | Plugin:
        """The one of the alternatives that is given."""
        alternatives = (self.sql, self.http, self.scim, self.ldap, self.tryton, self.plugin)
        return next(backend for backend in alternatives if backend is not None)


class StoreErasures(ApiModel):
    """How many erasures the store holds, and how many it lacks."""

    applied: Count | None = Field(default=None, description="Erasures that the store's journal holds.")
    missing: Count | None = Field(
        default=None, description="Erasures that the ledger holds and the store lacks."
    )


class StoreJournal(ApiModel):
    """Where the store's journal stands."""

    number: Count | None = Field(
        default=None, description="Number of the journal's head when it was last read."
    )


class DataStoreStatus(Status):
    """What Lethe has seen of the store."""

    last_seen_at: Instant | None = Field(default=None, description="When the store last answered.")
    last_swept_at: Instant | None = Field(
        default=None, description="When all that was erased was last checked to be still cleared."
    )
    erasures: StoreErasures | None = Field(
        default=None, description="Erasures that the store holds and lacks."
    )
    journal: StoreJournal | None = Field(default=None, description="Where the store's journal stands.")
    unmapped: Annotated[tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=64), SET] = Field(
        default=(),
        description="Columns that look like PII, or point at persons, and what may keep a copy of what is "
        "cleared; neither mapped nor ignored.",
    )


class DataStore(Resource):
    """A system that may hold personal data, and how Lethe erases there."""

    definition: ClassVar = Definition(
        kind="DataStore",
        plural="datastores",
        short_name="dstore",
        selectable=(".spec.role", ".spec.owner"),
        columns=(
            Column(name="Role", json_path=".spec.role"),
            Column(name="Owner", json_path=".spec.owner"),
            condition_column("Ready", "Ready"),
            condition_column("Reason", "Ready", "reason"),
            condition_column("Safe", "SafeToServe"),
            condition_column("Backups", "BackupsCovered", "reason"),
            AGE,
            condition_column("Message", "Ready", "message", priority=1),
        ),
    )

    spec: DataStoreSpec = Field(description="What the store is.")
    status: DataStoreStatus = Field(
        default_factory=DataStoreStatus.unseen, description="What Lethe has seen of it."
    )
