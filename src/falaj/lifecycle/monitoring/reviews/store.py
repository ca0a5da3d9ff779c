"""Reviews in `falaj.db`: a row is added once and decided once."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Column, Index, Integer, String, Table, UniqueConstraint, case, func, insert, select, update

from falaj.lifecycle.monitoring.reviews.model import PENDING, Review
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

answer_reviews = Table(
    "answer_reviews",
    metadata,
    Column("id", String, primary_key=True),
    Column("prediction", String, nullable=False),
    Column("row", Integer, nullable=False),
    *(
        Column(name, String, nullable=False)
        for name in (
            "model", "digest", "answer", "because", "asked_by", "at", "due_at", "state", "decided_by", "decided_at",
            "code", "override", "salt",
        )
    ),
    UniqueConstraint("prediction", "row"),
    Index("ix_answer_reviews_waiting", "state", "due_at"),
)  # fmt: skip
_r = answer_reviews.c
_SOME = 500  # how many values one query names


class SqlReviewStore:
    """A `ReviewStore` over the table above."""

    def add(self, tx: Tx, reviews: list[Review]) -> None:
        """Write new ones down."""
        if reviews:
            tx.execute(insert(answer_reviews), [msgspec.structs.asdict(r) for r in reviews])

    def known(self, tx: Tx, predictions: list[str]) -> set[tuple[str, int]]:
        """Which rows of these answers are or were before people."""
        found: set[tuple[str, int]] = set()
        for i in range(0, len(predictions), _SOME):
            query = select(_r.prediction, _r.row).where(_r.prediction.in_(predictions[i : i + _SOME]))
            found |= {(r.prediction, r.row) for r in tx.execute(query)}
        return found

    def get(self, tx: Tx, review_id: str) -> Review | None:
        """One review."""
        return _first(tx, _r.id == review_id)

    def of(self, tx: Tx, prediction: str, row: int) -> Review | None:
        """The review of a row."""
        return _first(tx, (_r.prediction == prediction) & (_r.row == row))

    def all(self, tx: Tx, state: str, model: str, limit: int) -> list[Review]:
        """Those that wait first."""
        waiting = _r.state == PENDING
        query = select(answer_reviews).order_by(
            case((waiting, 0), else_=1), case((waiting, _r.due_at), else_=""), _r.decided_at.desc(), _r.id
        )
        if state:
            query = query.where(_r.state == state)
        if model:
            query = query.where(_r.model == model)
        return [_review(r) for r in tx.execute(query.limit(limit))]

    def decide(self, tx: Tx, review: Review) -> bool:
        """Write down what was decided, once."""
        told = {n: getattr(review, n) for n in ("state", "decided_by", "decided_at", "code", "override", "salt")}
        waits = (_r.id == review.id) & (_r.state == PENDING)
        return tx.execute(update(answer_reviews).where(waits).values(told)).rowcount == 1

    def overdue(self, tx: Tx, now: str) -> dict[str, tuple[int, str]]:
        """Model → how many wait too long, and since when the first was due."""
        late = (_r.state == PENDING) & (_r.due_at <= now)
        query = select(_r.model, func.count(), func.min(_r.due_at)).where(late).group_by(_r.model)
        return {model: (int(count), since) for model, count, since in tx.execute(query)}

    def waiting(self, tx: Tx) -> int:
        """How many wait."""
        return int(tx.execute(select(func.count()).where(_r.state == PENDING)).scalar() or 0)

    def next_due(self, tx: Tx, now: str) -> str:
        """When the next is due."""
        query = select(func.min(_r.due_at)).where(_r.state == PENDING, _r.due_at > now)
        return str(tx.execute(query).scalar() or "")


def _first(tx: Tx, condition: Any) -> Review | None:
    row = tx.execute(select(answer_reviews).where(condition)).first()
    return _review(row) if row else None


def _review(row: Any) -> Review:
    return Review(**{str(name): value for name, value in row._mapping.items()})
