"""An API server in memory, as far as controllers notice a difference: objects, statuses, events, a watch."""

import copy
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lethe.api.v1alpha1 import KINDS
from lethe.domain.gates import GateVerdict
from lethe.ports.cluster import ClusterUnavailable, Event, Manifest, SecretContent

Key = tuple[str, str]

KIND_OF = {kind.definition.plural: kind.definition.kind for kind in KINDS}


class ClusterInMemory:
    """The objects of a cluster; `watchers` are told of each change, by plural, as Kopf would tell them.

    `away` lets every call fail, `writes` counts those of statuses by plural and name.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[Key, dict[str, Any]]] = {}
        self.secrets: dict[Key, SecretContent] = {}
        self.watchers: dict[str, Callable[[Manifest, bool], None]] = {}
        self.events: list[Event] = []
        self.gates: list[GateVerdict] = []
        self.policies: dict[str, Manifest | None] = {}
        self.writes: Counter[tuple[str, str]] = Counter()
        self.away = False
        self._count = 0

    # as a person uses it

    def apply(
        self, plural: str, namespace: str, name: str, spec: Any, *, status: Any = None
    ) -> dict[str, Any]:
        """Create an object, or edit its spec."""
        known = self.objects.setdefault(plural, {}).get((namespace, name))
        metadata = known["metadata"] if known else {}
        self._count += 1
        manifest = {
            "apiVersion": "lethe.dev/v1alpha1",
            "kind": KIND_OF[plural],
            "metadata": {
                "namespace": namespace,
                "name": name,
                "uid": metadata.get("uid", f"uid-{self._count}"),
                "generation": metadata.get("generation", 0) + 1,
                "creationTimestamp": metadata.get("creationTimestamp", f"2026-01-01T00:00:{self._count:02}Z"),
            },
            "spec": spec,
            "status": (known or {}).get("status", status or {}),
        }
        return self._keep(plural, manifest)

    def remove(self, plural: str, namespace: str, name: str) -> None:
        """Delete an object."""
        self._ring(plural, self.objects[plural].pop((namespace, name)), gone=True)

    def condition(self, plural: str, namespace: str, name: str, kind: str = "Ready") -> Mapping[str, Any]:
        """Return a condition of an object; empty if there is none."""
        status = self.objects.get(plural, {}).get((namespace, name), {}).get("status") or {}
        return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})

    def _keep(self, plural: str, manifest: dict[str, Any]) -> dict[str, Any]:
        metadata = manifest["metadata"]
        self.objects.setdefault(plural, {})[metadata["namespace"], metadata["name"]] = manifest
        self._ring(plural, manifest, gone=False)
        return manifest

    def _ring(self, plural: str, manifest: Manifest, *, gone: bool) -> None:
        if plural in self.watchers:
            self.watchers[plural](copy.deepcopy(manifest), gone)

    def _answer(self) -> None:
        if self.away:
            raise ClusterUnavailable("the API server is away")

    # as controllers use it

    async def list(
        self, plural: str, namespaces: Collection[str], selector: str = ""
    ) -> AsyncIterator[Manifest]:
        """Yield all objects of a kind; no selector is known here."""
        self._answer()
        for manifest in list(self.objects.get(plural, {}).values()):
            yield copy.deepcopy(manifest)

    async def get(self, plural: str, namespace: str, name: str) -> Manifest | None:
        """Return an object."""
        self._answer()
        return copy.deepcopy(self.objects.get(plural, {}).get((namespace, name)))

    async def create(self, plural: str, namespace: str, manifest: Manifest) -> Manifest | None:
        """Create an object."""
        self._answer()
        name = manifest["metadata"]["name"]
        if (namespace, name) in self.objects.get(plural, {}):
            return None
        self._count += 1
        made_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        uid = f"uid-{self._count}"
        given = {"uid": uid, "generation": 1, "creationTimestamp": made_at}
        metadata = {"namespace": namespace, **manifest["metadata"], **given}
        return copy.deepcopy(self._keep(plural, {**manifest, "metadata": metadata}))

    async def delete(self, plural: str, namespace: str, name: str, *, uid: str) -> bool:
        """Delete an object."""
        self._answer()
        if self.objects.get(plural, {}).get((namespace, name), {}).get("metadata", {}).get("uid") == uid:
            self.remove(plural, namespace, name)
        return True

    async def write_status(
        self, plural: str, namespace: str, name: str, *, uid: str, status: Mapping[str, Any]
    ) -> bool:
        """Merge a status into what stands there."""
        self._answer()
        known = self.objects.get(plural, {}).get((namespace, name))
        if known is None or known["metadata"]["uid"] != uid:
            return False
        self.writes[plural, name] += 1
        self._keep(plural, {**known, "status": _merged(known.get("status") or {}, status)})
        return True

    async def secret(self, namespace: str, name: str) -> SecretContent | None:
        """Return a Secret."""
        self._answer()
        return self.secrets.get((namespace, name))

    async def delete_secret(self, namespace: str, name: str, *, uid: str, resource_version: str) -> bool:
        """Delete a Secret."""
        self._answer()
        return self.secrets.pop((namespace, name), None) is not None

    async def create_secret(
        self,
        namespace: str,
        name: str,
        type_: str,
        texts: Mapping[str, str],
        *,
        owner: Manifest | None = None,
    ) -> bool:
        """Create a Secret."""
        self._answer()
        if (namespace, name) in self.secrets:
            return False
        self._count += 1
        content = {key: text.encode() for key, text in texts.items()}
        self.secrets[namespace, name] = SecretContent(type_, content, f"uid-{self._count}", "1")
        return True

    async def server_time(self) -> datetime | None:
        """Return the time by the API server's clock, which is this host's."""
        return datetime.now(UTC)

    async def record_event(self, event: Event) -> None:
        """Remember an event."""
        self.events.append(event)

    async def set_gate(
        self,
        namespace: str,
        selector: Manifest,
        verdict: Callable[[Mapping[str, str]], GateVerdict],
        *,
        confirm: Callable[[], Awaitable[None]],
    ) -> Sequence[str]:
        """Note what would be said of a pod that the selector takes in."""
        self._answer()
        self.gates.append(verdict(selector["matchLabels"]))
        return ()

    async def set_network_policy(self, namespace: str, name: str, spec: Manifest | None) -> None:
        """Keep a NetworkPolicy, or none."""
        self._answer()
        self.policies = {**self.policies, name: spec}

    async def pause_pooler(self, namespace: str, name: str, claimant: str, *, paused: bool) -> None:
        """Pause a Pooler."""
        raise NotImplementedError


def _merged(known: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(known)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            merged[name] = _merged(merged.get(name) or {}, value)
        else:
            merged[name] = copy.deepcopy(value)
    return merged
