"""Where traffic plans are kept."""

from __future__ import annotations

from typing import Protocol

from falaj.lifecycle.rollout.model import TrafficPlan
from falaj.lifecycle.rollout.strategy import Analysis, Rollout
from falaj.storage.sql.database import Tx


class PlanStore(Protocol):
    def put(self, tx: Tx, environment: str, plan: TrafficPlan, at: str) -> None: ...

    def all(self, tx: Tx, environment: str) -> list[TrafficPlan]: ...


class RolloutStore(Protocol):
    def put(self, tx: Tx, rollout: Rollout) -> None:
        """Add it, or replace the row of the same id."""
        ...

    def get(self, tx: Tx, rollout_id: str) -> Rollout | None: ...

    def of_model(self, tx: Tx, model: str) -> list[Rollout]:
        """Newest first."""
        ...


class Analyst(Protocol):
    """Judges a challenger by what the data plane recorded; implemented by monitoring."""

    def analyse(self, rollout: Rollout) -> Analysis: ...

    def wait(self, seconds: float) -> None:
        """Until something new was recorded, or the time is over."""
        ...
