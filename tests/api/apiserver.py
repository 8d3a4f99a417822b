"""A thin HTTP client of an API server: hundreds of dry runs over one connection, no process for each."""

import http.client
import json
import ssl
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lethe.api.v1alpha1 import KINDS

PLURALS = {kind.definition.kind: kind.definition.plural for kind in KINDS}
RESOURCES = "/apis/lethe.dev/v1alpha1"


@dataclass(frozen=True)
class Answer:
    """What the API server said: status code, raw text and the same as JSON."""

    code: int
    text: str

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.text)
        return body

    @property
    def causes(self) -> list[tuple[str, str]]:
        """Field and message of each thing that a refusal is about."""
        details = self.body.get("details") or {}
        return [(cause.get("field", ""), cause["message"]) for cause in details.get("causes", [])]

    def __bool__(self) -> bool:
        return self.code < 300


class ApiServer:
    """Speaks to an API server as one user; an administrator can speak as another."""

    def __init__(self, url: str, token: str, impersonated: Mapping[str, str] | None = None) -> None:
        address = urllib.parse.urlsplit(url)
        assert address.hostname is not None
        unverified = ssl._create_unverified_context()  # noqa: S323 - a server of this test, on loopback
        self._connection = http.client.HTTPSConnection(address.hostname, address.port, context=unverified)
        self._url, self._token = url, token
        self._headers = {"Authorization": f"Bearer {token}", **(impersonated or {})}

    def speaking_as(self, user: str) -> "ApiServer":
        return ApiServer(self._url, self._token, {"Impersonate-User": user})

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content: str = "application/json",
        accept: str = "*/*",
    ) -> Answer:
        payload = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, "Content-Type": content, "Accept": accept}
        try:
            self._connection.request(method, path, payload, headers)
            answer = self._connection.getresponse()
        except (OSError, http.client.HTTPException):
            # The connection was idle for too long, or the server too busy to greet.
            self._connection.close()
            self._connection.request(method, path, payload, headers)
            answer = self._connection.getresponse()
        return Answer(answer.status, answer.read().decode())

    def create(self, manifest: Mapping[str, Any], namespace: str, *, dry_run: bool = False) -> Answer:
        options = "fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        placed = {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}
        return self.send("POST", f"{_folder(manifest, namespace)}?{options}", placed)

    def replace(
        self, current: Mapping[str, Any], manifest: Mapping[str, Any], *, dry_run: bool = True
    ) -> Answer:
        """Put `manifest` in place of `current`, as the API server last showed it."""
        metadata = current["metadata"]
        options = "fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        placed = {**current, **manifest, "metadata": metadata}
        path = f"{_folder(manifest, metadata['namespace'])}/{metadata['name']}?{options}"
        return self.send("PUT", path, placed)

    def set_status(self, current: Mapping[str, Any], status: Mapping[str, Any]) -> Answer:
        metadata = current["metadata"]
        path = f"{_folder(current, metadata['namespace'])}/{metadata['name']}/status?fieldValidation=Strict"
        return self.send("PUT", path, {**current, "status": status})

    def apply(
        self, manifest: Mapping[str, Any], path: str, *, manager: str = "tests", dry_run: bool = False
    ) -> Answer:
        """Apply server-side as the field manager `manager`."""
        options = f"fieldManager={manager}&force=true" + ("&dryRun=All" if dry_run else "")
        named = f"{path}/{manifest['metadata']['name']}?{options}"
        return self.send("PATCH", named, manifest, content="application/apply-patch+yaml")


def _folder(manifest: Mapping[str, Any], namespace: str) -> str:
    if manifest["kind"] == "Secret":
        return f"/api/v1/namespaces/{namespace}/secrets"
    return f"{RESOURCES}/namespaces/{namespace}/{PLURALS[manifest['kind']]}"


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait until `holds`; the bound is there to end a run that is broken, it is no claim about speed."""
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError(f"it never came true that {what}")
