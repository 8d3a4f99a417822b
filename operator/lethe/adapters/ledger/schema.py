"""The tables of the ledger. A change here needs a migration and a new `VERSIONS` entry."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

VERSIONS = ("0001",)
"""Every schema version that the migrations know, the newest last."""


class Blob(LargeBinary):
    """Bytes as the drivers give and take them, without a conversion per value."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> None:
        """Convert nothing."""

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        """Convert nothing."""


# INTEGER PRIMARY KEY is SQLite's own row number: no second index for the sequence.
_Sequence = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData()

ledger = Table(
    "ledger",
    metadata,
    Column("ledger_id", String(32), primary_key=True),
    Column("created_at", String(32), nullable=False),
    Column("check_value", String(64), nullable=False),
    Column("token", BigInteger, nullable=False),
    # Keyed digest of where the chain ends: without the keys, nobody can cut it or write it anew.
    Column("end_mac", Blob(), nullable=False),
)
"""One row: who this ledger is, with which keys, and who may write."""

period_keys = Table(
    "period_keys",
    metadata,
    Column("period", String(7), primary_key=True),
    Column("wrapped_key", Blob()),
    Column("destroyed_at", String(32)),
)
"""The key of each month's payloads, sealed; destroying it destroys them all, in every copy of the ledger."""

entries = Table(
    "entries",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("request", Text),
    Column("store", Text),
    Column("number", BigInteger),
    Column("period", String(7), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("payload", Blob()),
    Column("payload_digest", Blob(), nullable=False),
    Column("previous_digest", Blob(), nullable=False),
    Column("digest", Blob(), nullable=False),
    Index("entries_period", "period"),
)
"""The chain of facts. `number` is the first journal number of an `Intended`."""

requests = Table(
    "requests",
    metadata,
    Column("request", Text, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("accepted_sequence", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("doc", Blob(), nullable=False),
    Column("completed_at", BigInteger),
    Column("outcome", String(16)),
    Column("purged_at", BigInteger),
    UniqueConstraint("namespace", "name", name="requests_namespace_name"),
    Index("requests_open", "open", "accepted_sequence"),
)
"""What each request has become: a projection of the chain. Instants are microseconds since 1970, UTC.

`purged_at` stands in this column only, not in the doc: it comes and goes for a million at once.
"""

request_months = Table(
    "request_months",
    metadata,
    Column("period", String(7), primary_key=True),
    Column("request", Text, primary_key=True),
    Index("request_months_request", "request"),
    sqlite_with_rowid=False,
)
"""In which months a request has entries of its own, as far as those months have not ended."""

sealed = Table(
    "sealed",
    metadata,
    Column("request", Text, ForeignKey("requests.request", name="sealed_request"), primary_key=True),
    Column("wrapped_key", Blob(), nullable=False),
    Column("ciphertext", Blob(), nullable=False),
)
"""What is known of a person until the request has ended; key and text go with the row."""

legal_requests = Table(
    "legal_requests",
    metadata,
    Column("legal", Text, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("registered_sequence", BigInteger, nullable=False),
    Column("period", String(7), nullable=False),
    Column("doc", Blob(), nullable=False),
    UniqueConstraint("namespace", "name", name="legal_requests_namespace_name"),
    Index("legal_requests_open", "open", "registered_sequence"),
)
"""What each legal request has become: a projection of the chain. `period` is when it was registered."""

sealed_legal = Table(
    "sealed_legal",
    metadata,
    Column("legal", Text, ForeignKey("legal_requests.legal", name="sealed_legal_request"), primary_key=True),
    Column("wrapped_key", Blob(), nullable=False),
    Column("ciphertext", Blob(), nullable=False),
)
"""How to reach an erased person who is to be told later; key and text go with the row."""

tombstones = Table(
    "tombstones",
    metadata,
    Column("store", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("position", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""Where each verified tombstone stands: in which `Intended` entry, at which position."""

rejoined = Table(
    "rejoined",
    metadata,
    Column("store", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("since", String(32), nullable=False),
    Column("at", String(32), nullable=False),
    sqlite_with_rowid=False,
)
"""The tombstones of who has consented anew since, and when that was recorded."""

erased_identifiers = Table(
    "erased_identifiers",
    metadata,
    Column("digest", Blob(), primary_key=True),
    Column("request", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""Keyed digests of who was erased and verified, with the last request that did it."""

absent_addresses = Table(
    "absent_addresses",
    metadata,
    Column("store", Text, primary_key=True),
    Column("digest", Blob(), primary_key=True),
    Column("request", Text, nullable=False),
    Index("absent_addresses_request", "request"),
    sqlite_with_rowid=False,
)
"""Keyed digests of the addresses by which a store was searched and held nobody, with the last request."""

store_heads = Table(
    "store_heads",
    metadata,
    Column("store", Text, primary_key=True),
    Column("head_move", BigInteger),
    Column("head_digest", String(64)),
    Column("head_positions", Text, nullable=False),
    Column("pending_expected", String(64)),
    Column("pending_move", BigInteger),
    Column("pending_digest", String(64)),
    Column("pending_token", BigInteger),
    Column("positions", Text, nullable=False),
    Column("last_number", BigInteger, nullable=False),
    Column("identity", Text),
    Column("head_at", String(32)),
    Column("settled_at", String(32)),
)
"""What is known of each store's journal."""

mappings = Table(
    "mappings",
    metadata,
    Column("store", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("doc", Blob(), nullable=False),
)
"""Every mapping that was proved."""

episodes = Table(
    "episodes",
    metadata,
    Column("store", Text, primary_key=True),
    Column("episode", Text, primary_key=True),
    Column("open", Boolean, nullable=False),
    Column("detected_sequence", BigInteger, nullable=False),
    Column("doc", Blob(), nullable=False),
    Index("episodes_open", "open"),
)
"""What each restore has become: a projection of the chain."""

drills = Table(
    "drills",
    metadata,
    Column("drill", Text, primary_key=True),
    Column("doc", Blob(), nullable=False),
)
"""What each RestoreDrill has come to: a projection of the chain."""

sources = Table(
    "sources",
    metadata,
    Column("source", Text, primary_key=True),
    Column("doc", Blob(), nullable=False),
)
"""What each BackupSource has become: a projection of the chain."""

snapshots = Table(
    "snapshots",
    metadata,
    Column("source", Text, primary_key=True),
    Column("ref", Text, primary_key=True),
    Column("purged_at", BigInteger),
    Column("doc", Blob(), nullable=False),
    Index("snapshots_purged", "purged_at"),
)
"""What each snapshot has become: a projection of the chain, until it is purged and forgotten."""

NOWHERE = ""
"""The `store` of a clearing that waits for no backup: the person was erased, and no store had been asked."""

clearings = Table(
    "clearings",
    metadata,
    Column("request", Text, primary_key=True),
    Column("store", Text, primary_key=True),
    Column("cleared_at", BigInteger, nullable=False),
    Column("gone_at", BigInteger),
    Column("proven", Boolean, nullable=False),
    # Everything that grading asks of a row that stays as it is: a million are compared without reading any.
    Index("clearings_graded", "store", "cleared_at", "proven", "gone_at"),
    Index(
        "clearings_gone",
        "proven",
        "request",
        sqlite_where=text("gone_at IS NULL"),
        postgresql_where=text("gone_at IS NULL"),
    ),
    sqlite_with_rowid=False,
)
"""Of whom backups may still hold a copy: exactly the requests that have erased and are not purged.

A row for each store in which the person was erased, or proven absent: an older snapshot may tell otherwise.
`cleared_at` is the last verified clearing; `gone_at` when the last snapshot known to hold the person dies
(`NULL`: none is known); `proven` whether a listing since then has shown it.
"""
