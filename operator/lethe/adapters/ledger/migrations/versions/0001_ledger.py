"""The first schema of the ledger."""

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
    op.create_table(
        "requests",
        sa.Column("request", sa.Text, primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("open", sa.Boolean, nullable=False),
        sa.Column("accepted_sequence", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("doc", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("namespace", "name", name="requests_namespace_name"),
    )
    op.create_index("requests_open", "requests", ["open", "accepted_sequence"])
    op.create_table(
        "sealed",
        sa.Column(
            "request", sa.Text, sa.ForeignKey("requests.request", name="sealed_request"), primary_key=True
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
