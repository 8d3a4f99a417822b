"""The API server through `kubernetes.aio`, without its models: raw JSON in and out costs a tenth of them."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import ApiException

from lethe.domain.gates import GateState, GateVerdict
from lethe.domain.labels import label_selector
from lethe.ports.cluster import OURS, ClusterRefused, ClusterUnavailable, Event, Manifest, SecretContent

GROUP = "/apis/lethe.dev/v1alpha1"
PAGE = 500
TIMEOUT_SECONDS = 30
GATE = "lethe.dev/safe-to-serve"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
POOLERS = "/apis/postgresql.cnpg.io/v1"
ROOTS = {"jobs": "/apis/batch/v1"}
"""Of kinds that are not Lethe's own."""


async def connect(kubeconfig: str | None = None, *, connections: int = 100) -> KubernetesCluster:
    """Connect as the pod's ServiceAccount, else by kubeconfig (`kubeconfig`, `KUBECONFIG`, `~/.kube/config`).

    `connections` is how many there may be at the same time (0: as many as are needed). Raises
    `ClusterUnavailable` where neither is there.
    """
    configuration = Configuration()
    configuration.connection_pool_maxsize = connections
    try:
        if kubeconfig is None:
            try:
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            except config.ConfigException:
                await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(kubeconfig, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as missing:
        raise ClusterUnavailable(
            "no API server to connect to: run in a pod, or set KUBECONFIG to a kubeconfig file"
        ) from missing
    return KubernetesCluster(ApiClient(configuration))


class KubernetesCluster:
    """`lethe.ports.cluster.Cluster` over one connection pool."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def list(
        self, plural: str, namespaces: Collection[str], selector: str = ""
    ) -> AsyncIterator[Manifest]:
        """Yield all objects of a kind, page by page."""
        for namespace in namespaces or ("",):
            path = _path(plural, namespace)
            token = ""
            while True:
                query = {"limit": str(PAGE), "fieldSelector": selector, "continue": token}
                page = await self._call("GET", path, query={k: v for k, v in query.items() if v})
                for item in page.get("items", ()):
                    yield item
                token = page.get("metadata", {}).get("continue", "")
                if not token:
                    break

    async def secret(self, namespace: str, name: str) -> SecretContent | None:
        """Return a Secret, or `None` where there is none."""
        found = await self.read(_secret_path(namespace, name))
        if found is None:
            return None
        return SecretContent(
            type=found.get("type", "Opaque"),
            content={key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()},
            uid=found["metadata"]["uid"],
            resource_version=found["metadata"]["resourceVersion"],
            created_at=datetime.fromisoformat(found["metadata"]["creationTimestamp"]),
        )

    async def delete_secret(self, namespace: str, name: str, *, uid: str, resource_version: str) -> bool:
        """Delete exactly the Secret that was read."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        return await self._delete(_secret_path(namespace, name), preconditions)

    async def create_secret(
        self,
        namespace: str,
        name: str,
        type_: str,
        texts: Mapping[str, str],
        *,
        owner: Manifest | None = None,
    ) -> bool:
        """Create a Secret; `False` if one of that name exists."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "labels": OURS,
                **({"ownerReferences": [owner]} if owner is not None else {}),
            },
            "type": type_,
            "data": {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()},
        }
        return await self._unless_conflict("POST", f"/api/v1/namespaces/{quote(namespace)}/secrets", body)

    async def lease(self, namespace: str, name: str) -> Manifest | None:
        """Return a Lease, or `None` where there is none."""
        return await self.read(_lease_path(namespace, name))

    async def create_lease(self, namespace: str, lease: Manifest) -> bool:
        """Create a Lease; `False` if one of that name exists."""
        return await self._unless_conflict("POST", _lease_path(namespace), lease)

    async def replace_lease(self, namespace: str, name: str, lease: Manifest) -> bool:
        """Write a Lease that was read; `False` if it has changed since."""
        return await self._unless_conflict("PUT", _lease_path(namespace, name), lease)

    async def read(self, path: str) -> Manifest | None:
        """Return the object at a path, or `None` where there is none."""
        try:
            found: Manifest = await self._call("GET", path)
        except ClusterRefused as refused:
            if refused.code == 404:
                return None
            raise
        return found

    async def _delete(self, path: str, preconditions: Mapping[str, str]) -> bool:
        # A Job's Pods would stay where nothing is said.
        options = {"preconditions": preconditions, "propagationPolicy": "Background"}
        try:
            return await self._unless_conflict("DELETE", path, options)
        except ClusterRefused as refused:
            if refused.code == 404:
                return True
            raise

    async def _unless_conflict(self, verb: str, path: str, body: Manifest) -> bool:
        try:
            await self._call(verb, path, body=body)
        except ClusterRefused as refused:
            if refused.code == 409:
                return False
            raise
        return True

    async def write_status(
        self, plural: str, namespace: str, name: str, *, uid: str, status: Mapping[str, Any]
    ) -> bool:
        """Write an object's status, if it is still the same object."""
        body = {"metadata": {"uid": uid}, "status": status}
        try:
            path = f"{_path(plural, namespace)}/{quote(name)}/status"
            await self._call("PATCH", path, body=body, content_type=MERGE_PATCH)
        except ClusterRefused as refused:
            if refused.code in (404, 409):
                return False
            raise
        return True

    async def create(self, plural: str, namespace: str, manifest: Manifest) -> Manifest | None:
        """Create an object; `None` if one of that name exists."""
        try:
            created: Manifest = await self._call("POST", _path(plural, namespace), body=manifest)
        except ClusterRefused as refused:
            if refused.code == 409:
                return None
            raise
        return created

    async def get(self, plural: str, namespace: str, name: str) -> Manifest | None:
        """Return an object, or `None` where there is none."""
        return await self.read(f"{_path(plural, namespace)}/{quote(name)}")

    async def delete(self, plural: str, namespace: str, name: str, *, uid: str) -> bool:
        """Delete exactly this object, if it is still the same."""
        return await self._delete(f"{_path(plural, namespace)}/{quote(name)}", {"uid": uid})

    async def server_time(self) -> datetime | None:
        """Return the `Date` of an answer of the API server: whole seconds."""
        response, _ = await self._send("GET", "/version")
        date = response.headers.get("Date")
        try:
            return parsedate_to_datetime(date).astimezone(UTC) if date else None
        except ValueError:
            return None

    async def served_schema(self) -> Manifest | None:
        """Return the OpenAPI document of Lethe's kinds; `None` where the API server serves none of them.

        Everybody who is logged in may read it (`system:discovery`), unlike the CRDs themselves.
        """
        return await self.read(f"/openapi/v3{GROUP}")

    async def record_event(self, event: Event) -> None:
        """Write an event of `events.k8s.io/v1`."""
        about = event.regarding
        metadata = about["metadata"]
        namespace = metadata["namespace"]
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{secrets.token_hex(8)}", "namespace": namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "lethe.dev/operator",
            "reportingInstance": "lethe",
            "action": "Reconcile",
            "type": "Warning" if event.warning else "Normal",
            "reason": event.reason,
            "note": event.message[:1024],
            "regarding": {
                "apiVersion": about.get("apiVersion", "lethe.dev/v1alpha1"),
                "kind": about.get("kind"),
                "name": metadata["name"],
                "namespace": namespace,
                "uid": metadata.get("uid"),
            },
        }
        try:
            await self._call(
                "POST", f"/apis/events.k8s.io/v1/namespaces/{quote(namespace)}/events", body=body
            )
        except (ClusterUnavailable, ClusterRefused):
            return

    async def set_gate(
        self,
        namespace: str,
        selector: Manifest,
        verdict: Callable[[Mapping[str, str]], GateVerdict],
        *,
        confirm: Callable[[], Awaitable[None]],
    ) -> Sequence[str]:
        """Set the readiness gate's condition on the pods that a label selector takes in."""
        path = f"/api/v1/namespaces/{quote(namespace)}/pods"
        pods = await self._call("GET", path, query={"labelSelector": label_selector(selector)})
        confirmed = False
        changed: list[str] = []
        for pod in pods.get("items", ()):
            labels = pod["metadata"].get("labels") or {}
            said = verdict(labels)
            condition = _gate_condition(pod, said)
            if condition is not None and said.state is GateState.OPEN and not confirmed:
                await confirm()
                confirmed = True
                said = verdict(labels)  # it may be another one by now
                condition = _gate_condition(pod, said)
            if condition is None:
                continue
            # Opened only as it was read: who was slow must not open what somebody else has closed meanwhile.
            # Closed in any case: a kubelet that writes at the same moment must not keep a gate open.
            exactly = ("uid",) if said.state is GateState.CLOSED else ("uid", "resourceVersion")
            as_read = {key: pod["metadata"][key] for key in exactly}
            body = {"metadata": as_read, "status": {"conditions": [condition]}}
            name = pod["metadata"]["name"]
            try:
                await self._call(
                    "PATCH", f"{path}/{quote(name)}/status", body=body, content_type=STRATEGIC_PATCH
                )
            except ClusterRefused as refused:
                if refused.code not in (404, 409):
                    raise
                continue
            changed.append(name)
        return changed

    async def set_network_policy(self, namespace: str, name: str, spec: Manifest | None) -> None:
        """Let there be a NetworkPolicy of Lethe's as `spec` says, or none."""
        folder = folder_of("/apis/networking.k8s.io/v1", "networkpolicies", namespace)
        path = f"{folder}/{quote(name)}"
        found = await self.read(path)
        metadata = found["metadata"] if found is not None else {}
        ours = OURS.items() <= (metadata.get("labels") or {}).items()
        if spec is None:
            if ours:
                await self._delete(path, {"uid": metadata["uid"]})
            return
        if found is not None and not ours:
            message = f"NetworkPolicy {name} is somebody else's: give that another name"
            raise ClusterRefused(message, 409)
        if found is not None and found["spec"] == spec:
            return
        body: dict[str, Any] = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "labels": OURS},
            "spec": spec,
        }
        if found is None:
            await self._call("POST", folder, body=body)
            return
        body["metadata"] = {**metadata, "labels": {**metadata.get("labels", {}), **OURS}}
        await self._call("PUT", path, body=body)

    async def pause_pooler(self, namespace: str, name: str, claimant: str, *, paused: bool) -> None:
        """Pause a Pooler by owning its field, and withdraw that: the API server knows who else owns it."""
        path = f"{folder_of(POOLERS, 'poolers', namespace)}/{quote(name)}"
        found = await self.read(path)
        if found is None:
            message = f"there is no Pooler {name} of {POOLERS[6:]}: correct spec.gate.cnpgPooler.names"
            raise ClusterRefused(message, 404)
        claimed = any(
            one.get("manager") == claimant and one.get("operation") == "Apply"
            for one in found["metadata"].get("managedFields") or ()
        )
        stands = claimed and found["spec"].get("pgbouncer", {}).get("paused") is True
        if stands if paused else not claimed:
            return
        body: dict[str, Any] = {
            "apiVersion": found["apiVersion"],
            "kind": found["kind"],
            "metadata": {"name": name, "uid": found["metadata"]["uid"]},
        }
        if paused:
            body["spec"] = {"pgbouncer": {"paused": True}}
        query = {"fieldManager": claimant, "force": "true"}
        await self._call("PATCH", path, query=query, body=body, content_type=APPLY_PATCH)

    async def _call(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Any:
        _, content = await self._send(verb, path, query=query, body=body, content_type=content_type)
        return msgspec.json.decode(content) if content else {}

    async def _send(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        response = await self.answer(verb, path, query=query, body=body, content_type=content_type)
        with heard():
            return response, await response.read()

    async def answer(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        seconds: float = TIMEOUT_SECONDS,
    ) -> aiohttp.ClientResponse:
        """Return the answer to a call before it is read, which has to end within so many seconds."""
        try:
            with heard():
                request = await self._client.param_serialize(
                    verb,
                    path,
                    query_params=list((query or {}).items()),
                    header_params={"Accept": accept, "Content-Type": content_type},
                    body=body,
                    auth_settings=["BearerToken"],
                )
                timeout = aiohttp.ClientTimeout(total=seconds)
                answer = await self._client.call_api(*request, _request_timeout=timeout)
        except ApiException as refused:
            raise _error(verb, path, int(refused.status or 0)) from None
        response: aiohttp.ClientResponse = answer.response
        if response.status >= 400:
            response.close()
            raise _error(verb, path, response.status)
        return response


@contextmanager
def heard() -> Iterator[None]:
    """Raise `ClusterUnavailable` where the API server does not answer, or not to the end."""
    try:
        yield
    except (TimeoutError, OSError, aiohttp.ClientError) as away:
        raise ClusterUnavailable(f"the API server does not answer ({type(away).__name__})") from None


def _gate_condition(pod: Manifest, verdict: GateVerdict) -> dict[str, str] | None:
    """Return the condition that a pod is to have by a verdict; `None` if it stays as it is.

    One that is closed is written once more for another reason: so whoever has read it before can't open it.
    """
    conditions = pod.get("status", {}).get("conditions") or ()
    now: Manifest = next((one for one in conditions if one["type"] == GATE), {})
    wanted = "True" if verdict.state is GateState.OPEN else "False"
    said = (now.get("status"), now.get("reason"), now.get("message"))
    if pod["metadata"].get("deletionTimestamp") or said == (wanted, verdict.reason, verdict.message):
        return None
    if now.get("status") == "True" and verdict.state is not GateState.CLOSED:
        return None
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": GATE,
        "status": wanted,
        "reason": verdict.reason,
        "message": verdict.message,
        "lastTransitionTime": now["lastTransitionTime"] if now.get("status") == wanted else since,
    }


def _error(verb: str, path: str, code: int) -> ClusterRefused | ClusterUnavailable:
    if code in {0, 429} or code >= 500:
        return ClusterUnavailable(f"the API server is unavailable (HTTP {code})")
    remedy = "; check the operator's RBAC" if code in (401, 403) else ""
    return ClusterRefused(f"the API server refused {verb} {path} (HTTP {code}){remedy}", code)


def folder_of(root: str, plural: str, namespace: str) -> str:
    """Return the path of a kind's objects below a `root`; empty `namespace`: of the whole cluster."""
    return f"{root}/namespaces/{quote(namespace)}/{plural}" if namespace else f"{root}/{plural}"


def _path(plural: str, namespace: str) -> str:
    return folder_of(ROOTS.get(plural, GROUP), plural, namespace)


def _secret_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace)}/secrets/{quote(name)}"


def _lease_path(namespace: str, name: str = "") -> str:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace)}/leases"
    return f"{path}/{quote(name)}" if name else path
