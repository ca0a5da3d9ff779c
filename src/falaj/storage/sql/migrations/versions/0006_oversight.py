"""Oversight: what people say of models, validations, kills, approvals taken back, and reviews of changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the tables."""
    for table, key, columns, indexed in _TABLES:
        op.create_table(
            table,
            sa.Column(key, sa.String(), nullable=False),
            *(sa.Column(name, sa.String(), nullable=False) for name in columns),
            sa.PrimaryKeyConstraint(key, name=op.f(f"pk_{table}")),
        )
        if indexed:
            op.create_index(op.f(f"ix_{table}_{indexed}"), table, [indexed], unique=False)


_TABLES = (
    ("approval_revocations", "approval", ("principal", "at", "reason"), ""),
    ("model_facts", "id", ("model", "fact", "value", "by", "at", "reason"), "model"),
    (
        "validations", "id",
        ("model", "alias", "digest", "author", "validator", "outcome", "findings", "at", "until"), "model",
    ),
    (
        "kills", "id",
        (
            "model", "by", "reason", "at", "fallback", "proposed_by", "proposed_at", "proposed_reason", "revived_by",
            "revived_at", "revived_reason",
        ),
        "model",
    ),
    ("change_reviews", "id", ("change", "outcome", "text", "reviewer", "at"), "change"),
)  # fmt: skip
