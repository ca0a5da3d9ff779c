"""Set traffic plans through the door."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import SYSTEM, Resource
from falaj.kernel.clock import iso
from falaj.lifecycle.rollout.model import PLAN_SET, TrafficPlan, check_plan
from falaj.lifecycle.rollout.ports import PlanStore
from falaj.storage.sql.database import Database, Tx


class RolloutService:
    def __init__(self, database: Database, store: PlanStore, door: Door, environment: str) -> None:
        self._database = database
        self._store = store
        self._door = door
        self._environment = environment

    def plans(self) -> list[TrafficPlan]:
        """The plan of every model that takes traffic."""
        return [p for p in self._database.read(lambda tx: self._store.all(tx, self._environment)) if p.routes]

    def plan(self, model: str) -> TrafficPlan | None:
        return next((p for p in self.plans() if p.model == model), None)

    def set_plan(self, plan: TrafficPlan, on_behalf_of: str, operation_id: str) -> TrafficPlan:
        """Make `plan` the model's plan. Raises `Invalid` when its weights are wrong."""
        check_plan(plan)

        def do(tx: Tx) -> Done[dict[str, Any]]:
            self._store.put(tx, self._environment, plan, iso(self._door.clock.now()))
            return Done(msgspec.to_builtins(plan))

        detail = {"environment": self._environment, "routes": msgspec.to_builtins(plan.routes)}
        context = {"on_behalf_of": on_behalf_of}
        intent = Intent(SYSTEM, PLAN_SET, Resource("Model", plan.model), operation_id, context, detail)
        return msgspec.convert(self._door.change(intent, do), TrafficPlan)
