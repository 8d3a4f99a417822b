"""The port to the key Secret: keyed digests, sealing, signing."""

from __future__ import annotations

from typing import Protocol


class KeysUnusable(Exception):
    """The folder of keys can't be used; the message names the file and the remedy, never a key."""


class SealBroken(Exception):
    """A sealed text was changed, belongs elsewhere, or was sealed with another key."""


class Keyring(Protocol):
    """The three keys of a ledger: `fingerprint`, `seal`, `sign`."""

    def fingerprint(self, purpose: str, *parts: str) -> bytes:
        """Return the HMAC-SHA256 (32 bytes) of the parts under the fingerprint key.

        Purpose and parts are length-prefixed, so that no two different lists collide.
        """
        ...

    def seal(self, plaintext: bytes, context: str) -> bytes:
        """Encrypt and authenticate (AES-256-GCM, random nonce); `context` must be given again to open."""
        ...

    def unseal(self, sealed: bytes, context: str) -> bytes:
        """Return what was sealed. Raises `SealBroken`."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature (64 bytes)."""
        ...

    @property
    def check_value(self) -> str:
        """Return a text by which a ledger recognises its own keys; it tells nothing about them."""
        ...


def record_digest(keyring: Keyring, store: str, table: str, key: str) -> bytes:
    """Return the keyed digest under which a ledger remembers that a record of a store was erased."""
    return keyring.fingerprint("record", store, table, key)
