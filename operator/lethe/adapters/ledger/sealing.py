"""Texts that are destroyed one by one: each under a key of its own, which goes with its row.

`sealed` and `sealed_legal` alike: the id of whom a text is for, the wrapped key, and the ciphertext.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Column, Connection, Table, delete, insert, select

from lethe.adapters.ledger.docs import chunked
from lethe.ports.keys import Keyring, SealBroken
from lethe.ports.ledger import ChainBroken

_NONCE_BYTES = 12


def seal(connection: Connection, keyring: Keyring, table: Table, texts: Mapping[str, bytes]) -> bool:
    """Seal texts by id; return whether earlier ones were destroyed."""
    if not texts:
        return False
    replaced = destroy(connection, table, texts)
    rows = []
    for owner, plain in texts.items():
        key, nonce = AESGCM.generate_key(256), os.urandom(_NONCE_BYTES)
        ciphertext = nonce + AESGCM(key).encrypt(nonce, plain, owner.encode())
        rows.append((owner, keyring.seal(key, f"{table.name}:{owner}"), ciphertext))
    names = [column.name for column in table.c]
    connection.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])
    return replaced


def destroy(connection: Connection, table: Table, of: Collection[str]) -> bool:
    """Destroy what is sealed under these ids; return whether there was anything."""
    gone = [connection.execute(delete(table).where(_id(table).in_(chunk))).rowcount for chunk in chunked(of)]
    return any(gone)


def opened(
    connection: Connection, keyring: Keyring, table: Table, of: Collection[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield the ids with their plain texts; none for what was destroyed. Raises `ChainBroken`."""
    for chunk in chunked(of):
        for owner, wrapped, text in connection.execute(select(table).where(_id(table).in_(chunk))):
            try:
                key = AESGCM(keyring.unseal(wrapped, f"{table.name}:{owner}"))
                yield owner, key.decrypt(text[:_NONCE_BYTES], text[_NONCE_BYTES:], owner.encode())
            except (SealBroken, InvalidTag):
                raise ChainBroken(f"What is sealed for request {owner} was changed.") from None


def _id(table: Table) -> Column[str]:
    (column,) = table.primary_key.columns
    return column
