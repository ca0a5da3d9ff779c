"""Traffic plans in SQL: the newest row of a model is its plan; older rows are its history."""

from __future__ import annotations

import msgspec
from sqlalchemy import Column, Index, Integer, String, Table, func, insert, select

from falaj.lifecycle.rollout.model import TrafficPlan
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

plans = Table(
    "traffic_plans",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("environment", String, nullable=False),
    Column("model", String, nullable=False),
    Column("plan", String, nullable=False),
    Column("at", String, nullable=False),
    Index("ix_traffic_plans_model", "environment", "model"),
)
_p = plans.c


class SqlPlanStore:
    def put(self, tx: Tx, environment: str, plan: TrafficPlan, at: str) -> None:
        body = msgspec.json.encode(plan).decode()
        tx.execute(insert(plans).values(environment=environment, model=plan.model, plan=body, at=at))

    def all(self, tx: Tx, environment: str) -> list[TrafficPlan]:
        newest = select(func.max(_p.id)).where(_p.environment == environment).group_by(_p.model)
        rows = tx.execute(select(_p.plan).where(_p.id.in_(newest)).order_by(_p.model)).scalars()
        return [msgspec.json.decode(r, type=TrafficPlan) for r in rows]
