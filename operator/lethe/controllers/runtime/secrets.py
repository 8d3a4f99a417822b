"""Reading and deleting the Secrets that manifests name."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from lethe.controllers.runtime.metrics import Metrics
from lethe.domain.identifiers import Identifier, NotAnEmailAddress, email_identifier
from lethe.domain.trust import Blocker, BlockReason
from lethe.ports.cluster import Cluster, ClusterRefused, SecretContent

IDENTIFIER_TYPE = "lethe.dev/identifier"
CALLS_AT_ONCE = 8
"""How many Secrets of one namespace are read or deleted at the same time."""


class UnusableSecret(Exception):
    """A Secret that a manifest names can't be used; the message names it and the remedy, no content."""


class Secrets:
    """The Secrets of a cluster, a few at a time."""

    def __init__(self, cluster: Cluster, metrics: Metrics) -> None:
        self._cluster, self._metrics = cluster, metrics
        self._calls: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(CALLS_AT_ONCE)
        )

    async def read(self, namespace: str, name: str) -> SecretContent:
        """Return a Secret. Raises `UnusableSecret`, `ClusterUnavailable`."""
        try:
            async with self._calls[namespace]:
                secret = await self._cluster.secret(namespace, name)
        except ClusterRefused as refused:
            raise UnusableSecret(str(refused)) from None
        if secret is None:
            raise UnusableSecret(f"Secret {name} does not exist in namespace {namespace}; create it")
        return secret

    async def delete(
        self, namespace: str, name: str, secret: SecretContent, *, meanwhile: str
    ) -> Blocker | None:
        """Delete exactly the Secret that was read; return what blocks it. `meanwhile` says what goes on."""
        problem = f"Secret {name} changed after it was read"
        try:
            self._metrics.api_writes.labels("secret").inc()
            async with self._calls[namespace]:
                deleted = await self._cluster.delete_secret(
                    namespace, name, uid=secret.uid, resource_version=secret.resource_version
                )
            if deleted:
                return None
        except ClusterRefused as refused:
            problem = f"Secret {name} can't be deleted: {refused}"
        return Blocker(BlockReason.SECRET_MISSING, f"{problem}; {meanwhile}, the Secret is tried again")


def content_of(secret: SecretContent, name: str, key: str) -> bytes:
    """Return what stands under a key. Raises `UnusableSecret`."""
    if key not in secret.content:
        raise UnusableSecret(f"Secret {name} has no key {key}; add it, or correct the request")
    return secret.content[key]


def address_in(secret: SecretContent, name: str, key: str) -> Identifier:
    """Return the one e-mail address that stands under a key. Raises `UnusableSecret`."""
    try:
        return email_identifier(content_of(secret, name, key).decode())
    except (NotAnEmailAddress, UnicodeDecodeError):
        raise UnusableSecret(f"key {key} of Secret {name} is not one e-mail address; correct it") from None


def identifier_in(secret: SecretContent, name: str, key: str) -> Identifier:
    """Return the person whom a Secret names; it is going to be deleted, so its type must say so.

    Raises `UnusableSecret`.
    """
    if secret.type != IDENTIFIER_TYPE:
        raise UnusableSecret(
            f"Secret {name} must be of type {IDENTIFIER_TYPE}; create it anew with that type"
        )
    return address_in(secret, name, key)
