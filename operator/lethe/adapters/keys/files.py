"""The key Secret as a folder of files: one per key, base64 text of 32 random bytes."""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import hmac
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lethe.ports.keys import KeysUnusable, SealBroken

NAMES = ("fingerprint", "seal", "sign")
"""The files of a key folder; `sign` holds the seed of an Ed25519 key."""

_KEY_BYTES = 32
_NONCE_BYTES = 12
_LENGTH = struct.Struct(">I").pack
_RESTORE = "restore it from the backup of the key Secret"


class FileKeyring:
    """The keys in a folder; made on first use where the folder is empty of them and can be written.

    Raises `KeysUnusable` for a folder that can't be read, a key that is none, and for a set of which
    only a part is there: to complete it silently would orphan all that the lost key has sealed.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        keys = _existing_or_new(Path(directory))
        # HMAC (RFC 2104) from the two states that depend on the key only: a third of the time of
        # hmac.digest, which sets them up anew for each of the million calls of a sweep.
        padded = keys["fingerprint"].ljust(hashlib.sha256().block_size, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))
        self._seal = AESGCM(keys["seal"])
        self._sign = Ed25519PrivateKey.from_private_bytes(keys["sign"])
        proofs = (hmac.digest(keys[name], b"lethe key check " + name.encode(), "sha256") for name in NAMES)
        self._check_value = hashlib.sha256(b"".join(proofs)).hexdigest()

    def __repr__(self) -> str:
        return "<FileKeyring>"

    def fingerprint(self, purpose: str, *parts: str) -> bytes:
        """Return the HMAC-SHA256 (32 bytes) of purpose and parts, each of them length-prefixed."""
        message = b""
        for text in (purpose, *parts):
            encoded = text.encode()
            message += _LENGTH(len(encoded)) + encoded
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()

    def seal(self, plaintext: bytes, context: str) -> bytes:
        """Encrypt and authenticate; the random nonce comes first in what is returned."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._seal.encrypt(nonce, plaintext, context.encode())

    def unseal(self, sealed: bytes, context: str) -> bytes:
        """Return what was sealed. Raises `SealBroken`."""
        try:
            return self._seal.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):
            raise SealBroken("A sealed text was changed, moved, or sealed with another key.") from None

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature (64 bytes)."""
        return self._sign.sign(message)

    @property
    def public_key(self) -> bytes:
        """Return the 32 bytes of the Ed25519 key by which anybody can check a signature."""
        return self._sign.public_key().public_bytes_raw()

    @property
    def check_value(self) -> str:
        """Return a digest that changes with any of the three keys, and tells nothing about them."""
        return self._check_value


def _existing_or_new(directory: Path) -> Mapping[str, bytes]:
    keys = _read(directory)
    if len(keys) < len(NAMES):
        with _only_one_process(directory):
            # Under the lock, a part of a set is no longer somebody else's making of it.
            keys = _read(directory)
            if not keys:
                _make(directory)
                keys = _read(directory)
    missing = [name for name in NAMES if name not in keys]
    if missing:
        raise KeysUnusable(
            f"Key file {directory / missing[0]} is missing while others of its set exist; {_RESTORE}, or, if "
            "no ledger was ever written with this set, remove the others so that a new set is made."
        )
    return keys


def _read(directory: Path) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for name in NAMES:
        path = directory / name
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise KeysUnusable(
                f"Key file {path} can't be read ({error.strerror}); let the operator's user read it."
            ) from None
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except binascii.Error:
            key = b""
        if len(key) != _KEY_BYTES:
            raise KeysUnusable(f"Key file {path} is not the base64 text of {_KEY_BYTES} bytes; {_RESTORE}.")
        keys[name] = key
    return keys


@contextmanager
def _only_one_process(directory: Path) -> Iterator[None]:
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise KeysUnusable(
            f"Key folder {directory} can't be opened ({error.strerror}); mount the key Secret there."
        ) from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _make(directory: Path) -> None:
    """Make all keys; `link` gives each its name only once it is whole and durable, and never over another."""
    path = directory / NAMES[0]
    try:
        for name in NAMES:
            path = directory / name
            descriptor, unnamed = tempfile.mkstemp(prefix=".new-", dir=directory)  # mkstemp: O_EXCL, 0600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.link(unnamed, path)
            finally:
                Path(unnamed).unlink()
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise KeysUnusable(
            f"Key file {path} does not exist and can't be made ({error.strerror}); mount a Secret with "
            f"{', '.join(NAMES)} (base64 text of {_KEY_BYTES} random bytes each), "
            f"or make {directory} writable."
        ) from None
