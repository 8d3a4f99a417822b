"""From a DataStore's manifest to a session with its store: what is wrong there is that store's alone."""

from __future__ import annotations

from typing import Protocol

from lethe.api.parse import parse
from lethe.api.translation import plaintext_field, store_description
from lethe.api.v1alpha1.datastore import DataStore
from lethe.controllers.runtime.cache import ManagedStore
from lethe.controllers.runtime.status_writer import ShownStatus
from lethe.controllers.runtime.threads import in_daemon
from lethe.domain.trouble import Trouble, TroubleReason
from lethe.ports.cluster import Cluster, ClusterRefused, Manifest, SecretContent
from lethe.ports.stores import MappingInvalid, StoreError
from lethe.workflows.store_session import StoreSession

SUSPENDED = Trouble(
    TroubleReason.SUSPENDED,
    "spec.suspend is set: Lethe has let go of the store, and nothing is erased there until it is taken out",
)


class ConnectStore(Protocol):
    """Makes the port to a store from its manifest and the Secret that holds its credentials."""

    def __call__(self, store: DataStore, secret: SecretContent | None) -> StoreSession:
        """Raises `ValueError` with a printable message where manifest or Secret can't be used."""
        ...

    def secret_name(self, store: DataStore) -> str | None:
        """Return the name of the Secret that the manifest names; `None` if it names none."""
        ...


def managed_store(manifest: Manifest, shown: ShownStatus) -> ManagedStore:
    """Return what a manifest says of a store, without a session yet. Raises `InvalidManifest`."""
    store = parse(DataStore, manifest)
    return ManagedStore(
        manifest=manifest,
        description=store_description(store),
        shown=shown,
        without_backups=store.spec.backups.value == "None",
        manual_release=bool(store.spec.gate and store.spec.gate.release.value == "Manual"),
        plaintext=plaintext_field(store.spec),
        gate=store.spec.gate,
        suspended=bool(store.spec.suspend),
    )


async def open_session(managed: ManagedStore, cluster: Cluster, connect: ConnectStore) -> None:
    """Open a session with a store; what keeps it from being opened is its trouble (`unusable`).

    Raises `ClusterUnavailable`.
    """
    store = parse(DataStore, managed.manifest)
    if store.spec.owner.value == "ThirdParty":
        return
    wanted, secret = connect.secret_name(store), None
    if wanted is not None:
        try:
            secret = await cluster.secret(managed.description.namespace, wanted)
        except ClusterRefused as refused:
            managed.unusable = Trouble(TroubleReason.SECRET_MISSING, str(refused))
            return
        if secret is None:
            message = f"Secret {wanted} does not exist; create it"
            managed.unusable = Trouble(TroubleReason.SECRET_MISSING, message)
            return
        managed.secret_version = secret.resource_version
    reason = TroubleReason.SECRET_MISSING if wanted else TroubleReason.MAPPING_INVALID
    try:
        managed.session = await in_daemon(f"connecting {managed.name}", lambda: connect(store, secret))
    except ValueError as wrong:
        managed.unusable = Trouble(reason, str(wrong))
    except MappingInvalid as invalid:
        managed.unusable = Trouble(TroubleReason.MAPPING_INVALID, str(invalid))
    except StoreError as unusable:
        managed.unusable = Trouble(TroubleReason.UNREACHABLE, str(unusable))


async def has_other_secret(managed: ManagedStore, cluster: Cluster, connect: ConnectStore) -> bool:
    """Tell whether a store's Secret is another one by now, such as a rotated password.

    Raises `ClusterUnavailable`.
    """
    wanted = connect.secret_name(parse(DataStore, managed.manifest))
    if wanted is None:
        return False
    try:
        secret = await cluster.secret(managed.description.namespace, wanted)
    except ClusterRefused:
        return False
    return secret is not None and secret.resource_version != managed.secret_version
