"""Set traffic plans through the door."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import SYSTEM, Action, Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.errors import Conflict, FalajError, NotFound
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.rollout.model import PLAN_SET, TrafficPlan, champion, check_plan, standing, withdrawn
from falaj.lifecycle.rollout.ports import PlanStore, Promotions, RolloutStore
from falaj.lifecycle.rollout.strategy import ROLLOUT_START, ROLLOUT_STEER, ROLLOUT_STEP, Rollout
from falaj.storage.sql.database import Database, Tx


class Stores(NamedTuple):
    """Where plans and rollouts are kept."""

    plans: PlanStore
    rollouts: RolloutStore


class RolloutService:
    """Who gets which traffic in one environment, and how that moves."""

    def __init__(
        self, database: Database, stores: Stores, door: Door, environment: str, promotions: Promotions
    ) -> None:
        self._promotions = promotions
        self._database = database
        self._store = stores.plans
        self._rollouts = stores.rollouts
        self._door = door
        self._environment = environment

    def plans(self) -> list[TrafficPlan]:
        """The plan of every model that takes traffic."""
        return [p for p in self._database.read(lambda tx: self._store.all(tx, self._environment)) if p.routes]

    def plan(self, model: str) -> TrafficPlan | None:
        """The plan of one model; None when it takes no traffic."""
        return next((p for p in self.plans() if p.model == model), None)

    def present(self, model: str) -> TrafficPlan:
        """The plan of a model, or a withdrawn one when it takes no traffic."""
        return self.plan(model) or withdrawn(model)

    def champion(self, model: str, environment: str) -> str:
        """The digest that serves a model in an environment now, beside any challenger; empty when none does."""
        plans = self._database.read(lambda tx: self._store.all(tx, environment))
        return next((champion(p) for p in plans if p.model == model), "")

    def champions(self, model: str) -> tuple[str, ...]:
        """The digests that have served a model beside any challenger, each once, the one that did last first."""
        plans = self._database.read(lambda tx: self._store.of_model(tx, self._environment, model))
        return tuple(dict.fromkeys(digest for digest in map(champion, plans) if digest))

    def served_last(self, model: str, retired: Iterable[ModelVersion]) -> list[ModelVersion]:
        """Versions that served before, the one that did last first."""
        served = self.champions(model)
        return sorted(retired, key=lambda v: (served.index(v.digest) if v.digest in served else len(served), -v.number))

    def set_plan(
        self, plan: TrafficPlan, on_behalf_of: str, operation_id: str, instead_of: TrafficPlan | None = None
    ) -> TrafficPlan:
        """Make `plan` the model's plan. Raises `Invalid` when its weights are wrong.

        `instead_of` is the plan that the admission was judged against (a withdrawn one for none). If by now other
        versions have a part in the traffic than those in it, nothing is changed: raises `Conflict` (plan_changed).
        """
        check_plan(plan)

        def do(tx: Tx) -> Done[dict[str, Any]]:
            if instead_of is not None:
                now = next((p for p in self._store.all(tx, self._environment) if p.model == plan.model), None)
                if standing(now) != standing(instead_of):
                    raise plan_changed(plan.model)
            self._store.put(tx, self._environment, plan, iso(self._door.clock.now()))
            return Done(msgspec.to_builtins(plan))

        detail = {"environment": self._environment, "routes": msgspec.to_builtins(plan.routes)}
        context = {"on_behalf_of": on_behalf_of}
        intent = Intent(SYSTEM, PLAN_SET, Resource("Model", plan.model), operation_id, context, detail)
        return msgspec.convert(self._door.change(intent, do), TrafficPlan)

    # rollouts

    def rollouts(self, model: str) -> list[Rollout]:
        """A model's rollouts, newest first."""
        return self._database.read(lambda tx: self._rollouts.of_model(tx, model))

    def rollout(self, rollout_id: str) -> Rollout:
        """Raises `NotFound`."""
        found = self._database.read(lambda tx: self._rollouts.get(tx, rollout_id))
        if found is None:
            raise NotFound(
                f"there is no rollout {rollout_id[:60]}",
                hint="`falaj rollout status MODEL` shows them",
                code="no_such_rollout",
            )
        return found

    def running(self, model: str) -> Rollout | None:
        """The rollout of a model that has not ended."""
        return next((r for r in self.rollouts(model) if not r.ended), None)

    def check_start(self, actor: Principal, model: str) -> None:
        """Authorise giving a version traffic, before anything is looked at. Raises `Denied`."""
        self._door.check(Intent(actor, ROLLOUT_START, Resource("Model", model)))

    def refuse_start(self, actor: Principal, model: str, digest: str, error: FalajError) -> None:
        """Write down why a version was not given traffic."""
        intent = Intent(actor, ROLLOUT_START, Resource("Model", model), detail={"challenger": digest})
        self._door.refuse(intent, error)

    def order_release(self, actor: Principal, model: str, detail: dict[str, Any]) -> None:
        """Authorise giving a version all traffic at once, and write down who wanted it and why."""
        self._door.read(Intent(actor, ROLLOUT_START, Resource("Model", model), detail=detail))

    def start(self, actor: Principal, rollout: Rollout, operation_id: str, why: str = "") -> Rollout:
        """Commit the intent to roll out. Raises `Conflict` while another rollout of the model runs."""

        def do(tx: Tx) -> Done[dict[str, Any]]:
            running = [r for r in self._rollouts.of_model(tx, rollout.model) if not r.ended]
            if running:
                raise already_running(running[0])
            self._rollouts.put(tx, rollout)
            return Done(msgspec.to_builtins(rollout))

        detail = {"rollout": rollout.id, "challenger": rollout.challenger, "stable": rollout.stable}
        if why:
            detail["reason"] = why[:500]
        return self._move(actor, ROLLOUT_START, rollout, do, operation_id, detail)

    def move(self, rollout: Rollout, operation_id: str, detail: dict[str, Any]) -> Rollout:
        """Write down where a rollout stands now; an order that came meanwhile is kept."""

        def do(tx: Tx) -> Done[dict[str, Any]]:
            current = self._rollouts.get(tx, rollout.id)
            order = rollout.order or (current.order if current and not rollout.ended else "")
            moved = msgspec.structs.replace(rollout, order=order, updated_at=iso(self._door.clock.now()))
            self._rollouts.put(tx, moved)
            return Done(msgspec.to_builtins(moved))

        told = {"rollout": rollout.id, "stage": rollout.stage, "weight": rollout.weight, **detail}
        return self._move(SYSTEM, ROLLOUT_STEP, rollout, do, operation_id, told)

    def order(self, actor: Principal, model: str, what: str) -> Rollout:
        """Ask the running rollout to `promote` or `abort`; it does so at once. Raises `Conflict` when none runs."""
        running = self.running(model)
        if running is None:
            raise Conflict(
                f"no rollout of {model} runs",
                hint=f"`falaj rollout status {model}` shows the last",
                code="rollout_not_running",
            )

        if what == "promote":
            self._check_promotable(actor, model, running)

        def do(tx: Tx) -> Done[dict[str, Any]]:
            current = self._rollouts.get(tx, running.id) or running
            if current.ended:
                raise Conflict(
                    f"the rollout has ended: {current.stage}", hint="nothing more to do", code="rollout_not_running"
                )
            ordered = msgspec.structs.replace(current, order=what)
            self._rollouts.put(tx, ordered)
            return Done(msgspec.to_builtins(ordered))

        return self._move(actor, ROLLOUT_STEER, running, do, "", {"rollout": running.id, "order": what})

    def check_roll_back(self, actor: Principal, model: str, digest: str, reason: str, flow: str) -> None:
        """Authorise giving the traffic back to an earlier version by a flow, and write down why."""
        detail = {"back_to": digest, "reason": reason[:500], "flow": flow}
        self._door.read(Intent(actor, ROLLOUT_STEER, Resource("Model", model), detail=detail))

    def _check_promotable(self, actor: Principal, model: str, running: Rollout) -> None:
        """Raises what keeps new versions of the model from production, whoever asks."""
        intent = Intent(actor, ROLLOUT_STEER, Resource("Model", model), detail={"rollout": running.id})
        self._door.check(intent)
        try:
            self._promotions.check(model)
        except FalajError as e:
            self._door.refuse(intent, e)
            raise

    def _move(
        self,
        actor: Principal,
        action: Action,
        rollout: Rollout,
        do: Callable[[Tx], Done[dict[str, Any]]],
        operation_id: str,
        detail: dict[str, Any],
    ) -> Rollout:
        context = {"on_behalf_of": rollout.actor}
        intent = Intent(actor, action, Resource("Model", rollout.model), operation_id, context, detail)
        return msgspec.convert(self._door.change(intent, do), Rollout)


def already_running(rollout: Rollout) -> Conflict:
    """Why no other version of this model gets traffic now."""
    return Conflict(
        f"{rollout.model} is being rolled out already ({rollout.id})",
        hint=f"let it end, or end it: `falaj rollout abort {rollout.model}`; then start yours: `falaj rollout start {rollout.model}@N`",
        code="rollout_running",
    )


def plan_changed(model: str) -> Conflict:
    """Why a version does not get the traffic that it was admitted for."""
    return Conflict(
        f"the traffic of {model} went to another version meanwhile",
        hint=f"see `falaj versions {model}`, then start yours again: `falaj rollout start {model}@N`",
        code="plan_changed",
    )
