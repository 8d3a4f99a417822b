"""Others' objects through the API server: a list, page by page, and a watch from there on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from lethe.adapters.cluster.api import PAGE, KubernetesCluster, folder_of, heard
from lethe.ports.cluster import Manifest, OthersKind, Seen

BARE = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
WATCH_SECONDS = 300


class KubernetesOthers:
    """`lethe.ports.cluster.OthersObjects`, on connections of its own: each watch keeps one."""

    def __init__(self, cluster: KubernetesCluster) -> None:
        self._cluster = cluster

    async def read(self, kind: OthersKind, namespace: str, name: str) -> Manifest | None:
        """Return an object in full, or `None` where there is none."""
        return await self._cluster.read(f"{folder_of(kind.root, kind.plural, namespace)}/{quote(name)}")

    async def follow(self, kind: OthersKind, namespace: str) -> AsyncIterator[Seen | None]:
        """Yield all objects, `None`, and then what changes."""
        version = ""
        async for page in self._pages(kind, namespace):
            version = page["metadata"]["resourceVersion"]
            for item in page.get("items") or ():
                yield Seen(item)
        yield None
        while True:
            query = {
                "watch": "true",
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(WATCH_SECONDS),
            }
            async for change in self._changes(kind, namespace, query):
                said = change["object"]
                if change["type"] == "ERROR":
                    return
                version = said["metadata"]["resourceVersion"]
                if change["type"] != "BOOKMARK":
                    yield Seen(said, gone=change["type"] == "DELETED")

    async def _pages(self, kind: OthersKind, namespace: str) -> AsyncIterator[Mapping[str, Any]]:
        token = ""
        while True:
            query = {"limit": str(PAGE), "continue": token, "fieldSelector": kind.selector}
            response = await self._cluster.answer(
                "GET",
                folder_of(kind.root, kind.plural, namespace),
                query={key: value for key, value in query.items() if value},
                accept=BARE.format("List") if kind.bare else "application/json",
            )
            with heard():
                page: Mapping[str, Any] = msgspec.json.decode(await response.read())
            yield page
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def _changes(
        self, kind: OthersKind, namespace: str, query: Mapping[str, str]
    ) -> AsyncIterator[Mapping[str, Any]]:
        selected = {"fieldSelector": kind.selector} if kind.selector else {}
        response = await self._cluster.answer(
            "GET",
            folder_of(kind.root, kind.plural, namespace),
            query={**query, **selected},
            accept=BARE.format("") if kind.bare else "application/json",
            seconds=WATCH_SECONDS + 30,
        )
        try:
            with heard():
                async for line in response.content:
                    yield msgspec.json.decode(line)
        finally:
            response.close()
