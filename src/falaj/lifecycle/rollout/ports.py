"""Where traffic plans are kept."""

from __future__ import annotations

from typing import Protocol

from falaj.lifecycle.rollout.model import TrafficPlan
from falaj.lifecycle.rollout.strategy import Analysis, Rollout
from falaj.storage.sql.database import Tx


class PlanStore(Protocol):
    """Traffic plans by environment."""

    def put(self, tx: Tx, environment: str, plan: TrafficPlan, at: str) -> None:
        """Add a model's next plan; it holds from now on."""
        ...

    def all(self, tx: Tx, environment: str) -> list[TrafficPlan]:
        """The newest plan of each model, by name."""
        ...

    def of_model(self, tx: Tx, environment: str, model: str) -> list[TrafficPlan]:
        """Every plan that a model has had, newest first."""
        ...


class RolloutStore(Protocol):
    """Rollouts, each a row that moves."""

    def put(self, tx: Tx, rollout: Rollout) -> None:
        """Add it, or replace the row of the same id."""
        ...

    def get(self, tx: Tx, rollout_id: str) -> Rollout | None:
        """One rollout; None when there is none of this id."""
        ...

    def of_model(self, tx: Tx, model: str) -> list[Rollout]:
        """Newest first."""
        ...


class Analyst(Protocol):
    """Judges a challenger by what the data plane recorded; implemented by monitoring."""

    def analyse(self, rollout: Rollout) -> Analysis:
        """The verdict on a rollout's challenger as things stand now."""
        ...

    def wait(self, seconds: float) -> None:
        """Until something new was recorded, or the time is over."""
        ...


class Promotions(Protocol):
    """What a model's risk tier and its inventory let the platform do."""

    def check(self, model: str) -> None:
        """Raises what keeps every new version of the model from production now, if anything does."""
        ...

    def starts(self, model: str) -> bool:
        """Whether the last approval may start a version's way into traffic; else a person does."""
        ...

    def waits(self, model: str) -> str:
        """Why a challenger may not go on to the rest of the traffic by itself; empty when it may."""
        ...
