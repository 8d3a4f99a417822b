"""A key by which a restic repository opens at once: the same password, the same keys behind it, one round.

restic lets each guess of a password cost a quarter of a second of a processor, and opens the repository anew
with each command.
"""

import json
import os
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.poly1305 import Poly1305


def quicken(repository: Path, password: str) -> None:
    """Seal the only key of a repository anew, under a password that is derived at once."""
    (file,) = (repository / "keys").iterdir()
    key = json.loads(file.read_bytes())
    sealed = b64decode(key["data"])
    master = _stream(_derived(key, password)[:32], sealed[:16], sealed[16:-16])
    key |= {"N": 2, "r": 1, "p": 1}
    secret, nonce = _derived(key, password), os.urandom(16)
    hidden = _stream(secret[:32], nonce, master)
    tag = Poly1305.generate_tag(secret[48:] + _stream(secret[32:48], nonce, bytes(16)), hidden)
    text = json.dumps(key | {"data": b64encode(nonce + hidden + tag).decode()}).encode()
    file.unlink()
    file.with_name(sha256(text).hexdigest()).write_bytes(text)


def _derived(key: dict[str, Any], password: str) -> bytes:
    salt = b64decode(key["salt"])
    return Scrypt(salt=salt, length=64, n=key["N"], r=key["r"], p=key["p"]).derive(password.encode())


def _stream(secret: bytes, nonce: bytes, text: bytes) -> bytes:
    return Cipher(AES(secret), CTR(nonce)).encryptor().update(text)
