"""The keys of the stores, wrapped by the key-encryption key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the table; the home's first opening fills it."""
    op.create_table(
        "store_keys",
        sa.Column("store", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("wrapped", sa.String(), nullable=False),
        sa.Column("kek", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("store", "number", name=op.f("pk_store_keys")),
    )
