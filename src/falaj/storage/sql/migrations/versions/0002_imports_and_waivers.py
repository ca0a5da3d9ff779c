"""Models that exist already: where they came from, and the waivers that admit them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "imports",
        *(sa.Column(name, sa.String(), nullable=False) for name in _IMPORT if name != "id"),
        sa.Column("id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
    )
    op.create_index(op.f("ix_imports_model"), "imports", ["model"], unique=False)
    op.create_table(
        "waivers",
        *(sa.Column(name, sa.String(), nullable=False) for name in _WAIVER if name != "id"),
        sa.Column("id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_waivers")),
    )
    op.create_index(op.f("ix_waivers_digest"), "waivers", ["digest"], unique=False)
    op.create_table(
        "waiver_signatures",
        sa.Column("waiver", sa.String(), nullable=False),
        sa.Column("principal", sa.String(), nullable=False),
        sa.Column("roles", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("waiver", "principal", name=op.f("pk_waiver_signatures")),
    )


_IMPORT = (
    "id", "model", "state", "author", "format", "uri", "source", "files", "claims", "contract", "artifacts", "digest",
    "missing", "started_at", "finished_at", "reason",
)  # fmt: skip
_WAIVER = (
    "id", "alias", "digest", "model", "author", "evidence", "waived", "reason", "proposed_at", "until", "statement",
    "revoked_by", "revoked_at", "revoked_reason",
)  # fmt: skip
