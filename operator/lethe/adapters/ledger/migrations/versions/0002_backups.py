"""Backups: sources, snapshots, who may still be in them, and in which months a request has entries.

What only the sealed docs tell (`requests.completed_at`, `outcome`, `clearings`) is filled in by the caller
of `migrate`, in the same transaction: see `clearings.fill`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("entries_period", "entries", ["period"])
    op.add_column("requests", sa.Column("completed_at", sa.BigInteger))
    op.add_column("requests", sa.Column("outcome", sa.String(16)))
    op.add_column("requests", sa.Column("purged_at", sa.BigInteger))
    op.add_column("store_heads", sa.Column("head_at", sa.String(32)))
    op.add_column("store_heads", sa.Column("settled_at", sa.String(32)))
    op.create_table(
        "request_months",
        sa.Column("period", sa.String(7), primary_key=True),
        sa.Column("request", sa.Text, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("request_months_request", "request_months", ["request"])
    op.execute(
        "INSERT INTO request_months (period, request) "
        "SELECT DISTINCT period, request FROM entries WHERE request IS NOT NULL"
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
