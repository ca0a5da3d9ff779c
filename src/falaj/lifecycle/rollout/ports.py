"""Where traffic plans are kept."""

from __future__ import annotations

from typing import Protocol

from falaj.lifecycle.rollout.model import TrafficPlan
from falaj.storage.sql.database import Tx


class PlanStore(Protocol):
    def put(self, tx: Tx, environment: str, plan: TrafficPlan, at: str) -> None: ...

    def all(self, tx: Tx, environment: str) -> list[TrafficPlan]: ...
