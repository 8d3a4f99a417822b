"""The schema of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "ledger",
        sa.Column("ledger_id", sa.String(32), primary_key=True),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("check_value", sa.String(64), nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("end_mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "period_keys",
        sa.Column("period", sa.String(7), primary_key=True),
        sa.Column("wrapped_key", sa.LargeBinary),
        sa.Column("destroyed_at", sa.String(32)),
    )
    op.create_table(
        "entries",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("request", sa.Text),
        sa.Column("store", sa.Text),
        sa.Column("number", sa.BigInteger),
        sa.Column("period", sa.String(7), nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("payload_digest", sa.LargeBinary, nullable=False),
        sa.Column("previous_digest", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
    )
    op.create_index("entries_period", "entries", ["period"])
    op.create_table(
        "requests",
        sa.Column("request", sa.Text, primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("open", sa.Boolean, nullable=False),
        sa.Column("accepted_sequence", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("doc", sa.LargeBinary, nullable=False),
        sa.Column("completed_at", sa.BigInteger),
        sa.Column("outcome", sa.String(16)),
        sa.Column("purged_at", sa.BigInteger),
        sa.UniqueConstraint("namespace", "name", name="requests_namespace_name"),
    )
    op.create_index("requests_open", "requests", ["open", "accepted_sequence"])
    op.create_table(
        "request_months",
        sa.Column("period", sa.String(7), primary_key=True),
        sa.Column("request", sa.Text, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("request_months_request", "request_months", ["request"])
    op.create_table(
        "sealed",
        sa.Column(
            "request", sa.Text, sa.ForeignKey("requests.request", name="sealed_request"), primary_key=True
        ),
        sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
        sa.Column("ciphertext", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "legal_requests",
        sa.Column("legal", sa.Text, primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("open", sa.Boolean, nullable=False),
        sa.Column("registered_sequence", sa.BigInteger, nullable=False),
        sa.Column("period", sa.String(7), nullable=False),
        sa.Column("doc", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("namespace", "name", name="legal_requests_namespace_name"),
    )
    op.create_index("legal_requests_open", "legal_requests", ["open", "registered_sequence"])
    op.create_table(
        "sealed_legal",
        sa.Column(
            "legal",
            sa.Text,
            sa.ForeignKey("legal_requests.legal", name="sealed_legal_request"),
            primary_key=True,
        ),
        sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
        sa.Column("ciphertext", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "tombstones",
        sa.Column("store", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rejoined",
        sa.Column("store", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("since", sa.String(32), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "absent_addresses",
        sa.Column("store", sa.Text, primary_key=True),
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("request", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("absent_addresses_request", "absent_addresses", ["request"])
    op.create_table(
        "erased_identifiers",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("request", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "store_heads",
        sa.Column("store", sa.Text, primary_key=True),
        sa.Column("head_move", sa.BigInteger),
        sa.Column("head_digest", sa.String(64)),
        sa.Column("head_positions", sa.Text, nullable=False),
        sa.Column("pending_expected", sa.String(64)),
        sa.Column("pending_move", sa.BigInteger),
        sa.Column("pending_digest", sa.String(64)),
        sa.Column("pending_token", sa.BigInteger),
        sa.Column("positions", sa.Text, nullable=False),
        sa.Column("last_number", sa.BigInteger, nullable=False),
        sa.Column("identity", sa.Text),
        sa.Column("head_at", sa.String(32)),
        sa.Column("settled_at", sa.String(32)),
    )
    op.create_table(
        "mappings",
        sa.Column("store", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("doc", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "episodes",
        sa.Column("store", sa.Text, primary_key=True),
        sa.Column("episode", sa.Text, primary_key=True),
        sa.Column("open", sa.Boolean, nullable=False),
        sa.Column("detected_sequence", sa.BigInteger, nullable=False),
        sa.Column("doc", sa.LargeBinary, nullable=False),
    )
    op.create_index("episodes_open", "episodes", ["open"])
    op.create_table(
        "drills",
        sa.Column("drill", sa.Text, primary_key=True),
        sa.Column("doc", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "sources",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("doc", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "snapshots",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("ref", sa.Text, primary_key=True),
        sa.Column("purged_at", sa.BigInteger),
        sa.Column("doc", sa.LargeBinary, nullable=False),
    )
    op.create_index("snapshots_purged", "snapshots", ["purged_at"])
    op.create_table(
        "clearings",
        sa.Column("request", sa.Text, primary_key=True),
        sa.Column("store", sa.Text, primary_key=True),
        sa.Column("cleared_at", sa.BigInteger, nullable=False),
        sa.Column("gone_at", sa.BigInteger),
        sa.Column("proven", sa.Boolean, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("clearings_graded", "clearings", ["store", "cleared_at", "proven", "gone_at"])
    op.create_index(
        "clearings_gone",
        "clearings",
        ["proven", "request"],
        sqlite_where=sa.text("gone_at IS NULL"),
        postgresql_where=sa.text("gone_at IS NULL"),
    )
