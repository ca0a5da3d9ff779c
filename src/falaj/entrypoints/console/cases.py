"""Answers before people, of a real home, for the console."""

from __future__ import annotations

from typing import Any

from falaj.bootstrap.control_plane import ControlPlane
from falaj.entrypoints.console.sights import Case, Named, ReviewPage, ReviewsPage, Went
from falaj.governance.door import Intent
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.errors import FalajError, NotFound
from falaj.lifecycle.monitoring.reviews.model import CONFIRMED, OVERRIDDEN, PENDING, Review, Word
from falaj.lifecycle.serving.model import PREDICTION_READ
from falaj.lifecycle.serving.plane.journal import Prediction, read_record
from falaj.lifecycle.training.model import ModelContract

MOST_WAITING, MOST_DECIDED = 200, 30
"""Reviews on the page; `falaj review list --all` has more."""


class CaseReader:
    """Reviews as pages, and what is decided on them."""

    def __init__(self, plane: ControlPlane) -> None:
        self._p = plane

    def all(self, viewer: Principal) -> ReviewsPage:
        """Those that wait, and the newest decisions; that they were looked at stands in the log. Raises `Denied`, `Integrity`."""
        reviews = self._p.reviews
        waiting = reviews.listed(viewer, PENDING, limit=MOST_WAITING)
        decided = [r for state in (CONFIRMED, OVERRIDDEN) for r in reviews.all(state, limit=MOST_DECIDED)]
        decided.sort(key=lambda r: r.decided_at, reverse=True)
        return ReviewsPage(
            number=reviews.waiting(),
            waiting=tuple(self._case(r) for r in waiting),
            decided=tuple(self._case(r) for r in decided[:MOST_DECIDED]),
        )

    def one(self, viewer: Principal, review: str) -> ReviewPage:
        """One review with what went into the answer; that it was looked at stands in the log. Raises `NotFound`, `Denied`,
        `Integrity`."""
        found = self._p.reviews.shown(viewer, review)
        self._p.door.read(Intent(viewer, PREDICTION_READ, Resource("Prediction", found.prediction)))
        return ReviewPage(
            case=self._case(found),
            went_in=self._went_in(found),
            choices=self._p.reviews.choices(found.digest),
            codes=self._p.reviews.codes(found.model),
            may_decide=self._p.reviews.may_decide(viewer, found),
        )

    def decide(self, viewer: Principal, review: str, word: Word) -> None:
        """Confirm, or override. Raises `Denied`, `NotFound`, `Conflict`, `Invalid`."""
        self._p.reviews.decide(viewer, review, word)

    def waiting(self) -> int:
        """How many wait."""
        return self._p.reviews.waiting()

    def _case(self, review: Review) -> Case:
        told = review.told()
        return Case(
            id=review.id,
            model=review.model,
            prediction=f"{review.prediction}/{review.row}",
            answer=_text(told["answer"]),
            because=review.because,
            asked_by=review.asked_by,
            at=review.at,
            due_at=review.due_at,
            state=review.state,
            late=review.state == PENDING and review.due_at <= iso(self._p.clock.now()),
            version=self._version(review.digest),
            decided_by=review.decided_by,
            decided_at=review.decided_at,
            code=review.code,
            override="" if told["override"] is None else _text(told["override"]),
        )

    def _version(self, digest: str) -> Named | None:
        try:
            version = self._p.registry.by_digest(digest)
        except NotFound:  # somebody else serves it
            return None
        return Named(version.alias, version.digest, str(version.number) if version.number else "", version.state)

    def _went_in(self, review: Review) -> tuple[Went, ...]:
        try:
            record = read_record(self._p.layout.plane / "journal", review.prediction)
            contract = self._p.external.contract(review.digest)
        except FalajError:  # its segment was archived, or cannot be read: the review stands without it
            return ()
        return went_in(record, contract, review.row)


def went_in(record: Prediction, contract: ModelContract, row: int) -> tuple[Went, ...]:
    """What the caller sent for a row, then what was looked up for it."""
    views = {name: view.name for view in contract.views for name in view.columns}
    sent = (Went(name, _text(_at(values, row))) for name, values in record.inputs.items())
    looked_up = (Went(name, _text(_at(values, row)), views.get(name, "")) for name, values in record.features.items())
    return (*sent, *looked_up)


def _at(values: list[Any], row: int) -> Any:
    return values[row] if row < len(values) else None


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(v) for v in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)
