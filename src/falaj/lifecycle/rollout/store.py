"""Traffic plans in SQL: the newest row of a model is its plan; older rows are its history."""

from __future__ import annotations

import msgspec
from sqlalchemy import Column, Index, Integer, String, Table, delete, func, insert, select

from falaj.lifecycle.rollout.model import TrafficPlan
from falaj.lifecycle.rollout.strategy import Rollout
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
rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String, primary_key=True),
    Column("model", String, nullable=False, index=True),
    Column("rollout", String, nullable=False),
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

    def of_model(self, tx: Tx, environment: str, model: str) -> list[TrafficPlan]:
        here = (_p.environment == environment) & (_p.model == model)
        rows = tx.execute(select(_p.plan).where(here).order_by(_p.id.desc())).scalars()
        return [msgspec.json.decode(r, type=TrafficPlan) for r in rows]


class SqlRolloutStore:
    """Each row is the present state of a rollout; its moves are in the audit log."""

    def put(self, tx: Tx, rollout: Rollout) -> None:
        tx.execute(delete(rollouts).where(rollouts.c.id == rollout.id))
        body = msgspec.json.encode(rollout).decode()
        tx.execute(insert(rollouts).values(id=rollout.id, model=rollout.model, rollout=body))

    def get(self, tx: Tx, rollout_id: str) -> Rollout | None:
        row = tx.execute(select(rollouts.c.rollout).where(rollouts.c.id == rollout_id)).scalar()
        return msgspec.json.decode(row, type=Rollout) if row else None

    def of_model(self, tx: Tx, model: str) -> list[Rollout]:
        rows = tx.execute(select(rollouts.c.rollout).where(rollouts.c.model == model).order_by(rollouts.c.id.desc()))
        return [msgspec.json.decode(r, type=Rollout) for r in rows.scalars()]
