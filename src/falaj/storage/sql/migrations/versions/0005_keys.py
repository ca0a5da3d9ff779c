"""Signing keys that were replaced or revoked: their public halves, and until when what they signed counts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table; versions get the moment of their signature, which is not that of a version that was packaged again."""
    op.add_column("versions", sa.Column("signed_at", sa.String(), nullable=False, server_default=""))
    op.create_table(
        "retired_keys",
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("pem", sa.String(), nullable=False),
        sa.Column("algorithm", sa.String(), nullable=False),
        sa.Column("until", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_retired_keys")),
    )
