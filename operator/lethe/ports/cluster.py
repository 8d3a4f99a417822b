"""The port to the API server: asynchronous, and counted, since writes to it are the cost that scales."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from lethe.domain.gates import GateVerdict

Manifest = Mapping[str, Any]
"""An object as the API server sends it."""


class ClusterUnavailable(Exception):
    """The API server can't be reached, or is too busy; try again later."""


class ClusterRefused(Exception):
    """The API server refused; `code` is the HTTP status, the message names verb and object, no content."""

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(message)


OURS: Mapping[str, str] = {"app.kubernetes.io/managed-by": "lethe"}
"""The label of what Lethe made, and may change and delete again."""


@dataclass(frozen=True, slots=True, repr=False)
class SecretContent:
    """A Secret as it was read; its content never shows in a repr."""

    type: str
    content: Mapping[str, bytes]
    uid: str
    resource_version: str
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """An event for `kubectl describe`: about which object, of what kind, and why."""

    regarding: Manifest
    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class OthersKind:
    """A kind of another project: its `root`, as /apis/velero.io/v1, and plural.

    `selector` is a field selector; `bare` tells that no more than metadata is asked for.
    """

    root: str
    plural: str
    selector: str = ""
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """An object of others as it was seen; `gone`: the last time, or it has left the selector."""

    manifest: Manifest
    gone: bool = False


class OthersObjects(Protocol):
    """Others' objects, which are read and nothing else. All raise `ClusterUnavailable`, `ClusterRefused`."""

    def follow(self, kind: OthersKind, namespace: str) -> AsyncIterator[Seen | None]:
        """Yield the objects of a kind (empty `namespace`: of the whole cluster), `None` once these were all,
        then each as it changes. It ends where changes were missed, and is to be begun again.
        """
        ...

    async def read(self, kind: OthersKind, namespace: str, name: str) -> Manifest | None:
        """Return an object in full, or `None` where there is none."""
        ...


class Cluster(Protocol):
    """What the controllers ask of the API server. All raise `ClusterUnavailable` and `ClusterRefused`."""

    def list(self, plural: str, namespaces: Collection[str], selector: str = "") -> AsyncIterator[Manifest]:
        """Yield all objects of a kind (empty `namespaces`: of the whole cluster) that a field selector
        takes in.
        """
        ...

    async def secret(self, namespace: str, name: str) -> SecretContent | None:
        """Return a Secret, or `None` where there is none."""
        ...

    async def delete_secret(self, namespace: str, name: str, *, uid: str, resource_version: str) -> bool:
        """Delete exactly the Secret that was read; `False` if it has changed since.

        One that is gone is deleted.
        """
        ...

    async def create_secret(
        self,
        namespace: str,
        name: str,
        type_: str,
        texts: Mapping[str, str],
        *,
        owner: Manifest | None = None,
    ) -> bool:
        """Create a Secret of texts; `False` if one of that name exists. It goes with its `owner`."""
        ...

    async def write_status(
        self, plural: str, namespace: str, name: str, *, uid: str, status: Mapping[str, Any]
    ) -> bool:
        """Write an object's status; `False` if the object is gone or is another one by now."""
        ...

    async def create(self, plural: str, namespace: str, manifest: Manifest) -> Manifest | None:
        """Create an object and return it as it is now; `None` if one of that name exists."""
        ...

    async def get(self, plural: str, namespace: str, name: str) -> Manifest | None:
        """Return an object, or `None` where there is none."""
        ...

    async def delete(self, plural: str, namespace: str, name: str, *, uid: str) -> bool:
        """Delete exactly this object; `False` if it is another one by now. One that is gone is deleted."""
        ...

    async def server_time(self) -> datetime | None:
        """Return what time it is by the API server's clock; `None` if it does not say."""
        ...

    async def record_event(self, event: Event) -> None:
        """Write an event. Failing to is no error: an event is a courtesy."""
        ...

    async def set_gate(
        self,
        namespace: str,
        selector: Manifest,
        verdict: Callable[[Mapping[str, str]], GateVerdict],
        *,
        confirm: Callable[[], Awaitable[None]],
    ) -> Sequence[str]:
        """Set the condition `lethe.dev/safe-to-serve` on the pods that a label selector takes in.

        `verdict` tells of a pod's labels what is to become of it, and is asked right before it is written.
        Before pods are opened that were read as closed, `confirm` is awaited: what it raises ends it.

        Returns the names of the pods that were changed.
        """
        ...

    async def set_network_policy(self, namespace: str, name: str, spec: Manifest | None) -> None:
        """Let there be a NetworkPolicy of Lethe's as `spec` says, or none (`None`).

        Raises `ClusterRefused` where one of that name is to be made and is somebody else's.
        """
        ...

    async def pause_pooler(self, namespace: str, name: str, claimant: str, *, paused: bool) -> None:
        """Pause a Pooler of CloudNativePG in the name of `claimant`, or withdraw what was said in it.

        It goes on when nobody else has it paused. Raises `ClusterRefused` where there is no such Pooler.
        """
        ...
