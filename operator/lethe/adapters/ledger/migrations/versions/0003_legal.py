"""Legal requests, and what is sealed for their notices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
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
