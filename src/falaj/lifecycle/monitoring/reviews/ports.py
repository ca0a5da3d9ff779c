"""What reviewing needs of others."""

from __future__ import annotations

from typing import Protocol

from falaj.lifecycle.monitoring.policy import ReviewPolicy
from falaj.lifecycle.monitoring.reviews.model import Review
from falaj.lifecycle.training.model import ModelContract
from falaj.storage.sql.database import Tx


class ReviewStore(Protocol):
    """Rows of reviews. Moments are RFC 3339, UTC."""

    def add(self, tx: Tx, reviews: list[Review]) -> None:
        """Write new ones down."""
        ...

    def known(self, tx: Tx, predictions: list[str]) -> set[tuple[str, int]]:
        """Which rows of these answers are or were before people, by prediction and row."""
        ...

    def get(self, tx: Tx, review_id: str) -> Review | None:
        """One review; None when there is none of this id."""
        ...

    def of(self, tx: Tx, prediction: str, row: int) -> Review | None:
        """The review of a row; None when nobody was asked to look at it."""
        ...

    def all(self, tx: Tx, state: str, model: str, limit: int) -> list[Review]:
        """Those that wait, the one that is due first at the top; then the decided ones, newest first. Empty conditions hold for
        all."""
        ...

    def decide(self, tx: Tx, review: Review) -> bool:
        """Write down what was decided; whether it was still waiting."""
        ...

    def overdue(self, tx: Tx, now: str) -> dict[str, tuple[int, str]]:
        """Model → how many of its answers wait though they were due before `now`, and since when the first was due."""
        ...

    def waiting(self, tx: Tx) -> int:
        """How many wait."""
        ...

    def next_due(self, tx: Tx, now: str) -> str:
        """When the next of those that wait is due; empty when none is."""
        ...


class Policies(Protocol):
    """What the applied project asks for."""

    def review(self, model: str) -> ReviewPolicy | None:
        """Which answers of this model people look at; None when it says nothing of it."""
        ...


class Versions(Protocol):
    """What is known of the version that answered."""

    def contract(self, digest: str) -> ModelContract:
        """Its contract. Raises `NotFound`, `Integrity`."""
        ...


class Authors(Protocol):
    """Who made what answered."""

    def author(self, digest: str) -> str:
        """Raises `NotFound`."""
        ...
