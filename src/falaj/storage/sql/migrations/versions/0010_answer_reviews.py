"""Answers that people look at."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_TEXTS = (
    "model", "digest", "answer", "because", "asked_by", "at", "due_at", "state", "decided_by", "decided_at", "code",
    "override", "salt",
)  # fmt: skip


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "answer_reviews",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("prediction", sa.String(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in _TEXTS),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_answer_reviews")),
        sa.UniqueConstraint("prediction", "row", name=op.f("uq_answer_reviews_prediction")),
    )
    op.create_index("ix_answer_reviews_waiting", "answer_reviews", ["state", "due_at"])
