"""People whom an identity provider knows: the issuer that their name belongs to, and what they are called."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "external_principals",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("display", sa.String(), nullable=False),
        sa.Column("signed_in_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["name"], ["principals.name"], name=op.f("fk_external_principals_name")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_external_principals")),
    )
