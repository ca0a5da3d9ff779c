"""Quarantine, break-glass, and tokens that are bound to a project."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Create the tables."""
    for table, columns in _TABLES:
        op.create_table(
            table,
            sa.Column("id", sa.String(), nullable=False),
            *(sa.Column(name, sa.String(), nullable=False) for name in columns),
            sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        )
    op.add_column("tokens", sa.Column("project", sa.String(), nullable=True))


_TABLES = (
    (
        "break_glass",
        (
            "actions", "minutes", "reason", "proposed_by", "proposed_at", "opened_by", "opened_at", "opened_reason", "until",
            "incident", "closed_by", "closed_at",
        ),
    ),
    ("quarantine", ("kind", "name", "by", "reason", "at", "lifted_by", "lifted_at", "lifted_reason")),
)  # fmt: skip
