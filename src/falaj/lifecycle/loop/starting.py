"""A version's way into traffic: begun by its last approval, or by a person.

by steps   a rollout, when another version serves that it can be compared with
at once    a release
"""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.kernel.access import Principal
from falaj.kernel.clock import Clock, iso
from falaj.kernel.errors import Conflict, Denied, FalajError, Invalid
from falaj.kernel.ids import new_id
from falaj.lifecycle.loop.model import RELEASE_FLOW, ROLLOUT_FLOW
from falaj.lifecycle.loop.ports import Strategies
from falaj.lifecycle.registry.model import ADMISSIBLE, ModelVersion
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.model import champion
from falaj.lifecycle.rollout.service import RolloutService, already_running
from falaj.lifecycle.rollout.strategy import Rollout, Strategy, check_strategy, first_stage
from falaj.workflow.flow import Workflows

_ROLLED_BACK = "rolled back"


class Order(msgspec.Struct, frozen=True):
    """How a person wants a version to get its traffic; what is left out is as the model's own strategy says.

    `steps` are percent of the traffic, `shadow` and `requests` as in `Strategy`. `again`: the version was rolled back
    before, and what stopped it is known to be gone.
    """

    reason: str = ""
    at_once: bool = False
    shadow: int | None = None
    steps: tuple[int, ...] = ()
    requests: int | None = None
    again: bool = False

    @property
    def says_how(self) -> bool:
        """Whether it asks for steps of its own."""
        return self.shadow is not None or bool(self.steps) or self.requests is not None


class Ports(msgspec.Struct, frozen=True):
    """What starting works with."""

    registry: RegistryService
    rollout: RolloutService
    strategies: Strategies
    flows: Workflows
    clock: Clock


class StartService:
    """A version's way into traffic: at once, or by a rollout."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports

    def after_approval(self, actor: Principal, version: ModelVersion, suffix: str) -> str:
        """Start as the model's strategy says, under ids that end in `suffix`; returns the flow's.

        Doing it again starts nothing twice. Raises `Conflict` while another rollout of the model runs.
        """
        return self._begin(actor, version, suffix, self._p.strategies.strategy(version.model))

    def start(self, actor: Principal, version: ModelVersion, order: Order) -> dict[str, Any]:
        """Start as a person orders: a version that was approved and held, whose start was lost, or that served before.

        While the version is on its way already, the running rollout is the answer. Raises `Denied` by policy or for
        a version that nobody approved, `Invalid` for steps that cannot be followed, and `Conflict` when it serves
        already, another rollout of the model runs, or it is in no state for traffic.
        """
        p = self._p
        p.rollout.check_start(actor, version.model)
        strategy = self._strategy(version.model, order)
        running = p.rollout.running(version.model)
        if running is not None and running.challenger == version.digest:
            p.flows.start(ROLLOUT_FLOW, running.id, {"rollout": running.id})
            return _answer(version, running.id, running.strategy, already=True)
        try:
            if running is not None:
                raise already_running(running)
            self._check(version, order)
        except FalajError as e:
            p.rollout.refuse_start(actor, version.model, version.digest, e)
            raise
        suffix = new_id("rol", p.clock.now()).partition("_")[2]
        if version.state == _ROLLED_BACK:
            why = f"{actor.name} gives it another try: {order.reason}"
            p.registry.move(version.digest, "approved", why, actor.name, f"rol_{suffix}:again")
        flow = self._begin(actor, version, suffix, strategy, order)
        return _answer(version, flow, strategy if flow.startswith("rol_") else None, already=False)

    def _begin(
        self,
        actor: Principal,
        version: ModelVersion,
        suffix: str,
        strategy: Strategy | None,
        order: Order | None = None,
    ) -> str:
        p, rollout_id, now = self._p, f"rol_{suffix}", iso(self._p.clock.now())
        running = p.rollout.running(version.model)
        if running is not None and running.id != rollout_id:
            raise already_running(running)
        stable = champion(p.rollout.present(version.model))
        if strategy is None or stable in ("", version.digest):
            flow = f"rel_{suffix}"
            if order is not None:
                told = {"challenger": version.digest, "flow": flow, "reason": order.reason[:500]}
                p.rollout.order_release(actor, version.model, told)
            p.flows.start(RELEASE_FLOW, flow, {"digest": version.digest, "actor": actor.name})
            return flow
        stage, step = first_stage(strategy)
        rollout = Rollout(
            id=rollout_id,
            model=version.model,
            challenger=version.digest,
            stable=stable,
            strategy=strategy,
            stage=stage,
            step=step,
            generation=0,
            actor=actor.name,
            reason="",
            started_at=now,
            updated_at=now,
        )
        p.rollout.start(actor, rollout, f"{rollout_id}:start", order.reason if order else "")
        p.flows.start(ROLLOUT_FLOW, rollout_id, {"rollout": rollout_id})
        return rollout_id

    def _strategy(self, model: str, order: Order) -> Strategy | None:
        """The model's own strategy with what the order says instead; None: at once."""
        own = self._p.strategies.strategy(model)
        if order.at_once and order.says_how:
            raise Invalid(
                "at once has no steps",
                hint="leave out --at-once, or --shadow, --canary and --requests",
                code="bad_strategy",
            )
        if order.at_once or not order.says_how:
            return None if order.at_once else own
        base = own or Strategy()
        return check_strategy(
            msgspec.structs.replace(
                base,
                shadow=base.shadow if order.shadow is None else order.shadow,
                steps=order.steps or base.steps,
                requests=base.requests if order.requests is None else order.requests,
            )
        )

    def _check(self, version: ModelVersion, order: Order) -> None:
        stable, look = champion(self._p.rollout.present(version.model)), f"`falaj versions {version.model}`"
        start = f"`falaj rollout start {version.alias}"
        if stable == version.digest:
            if order.at_once:
                return
            raise Conflict(
                f"{version.alias} serves already",
                hint=f"nothing to do; to admit and publish it again: {start} --at-once`",
                code="serves_already",
            )
        if version.state in ("candidate", "registered", "awaiting approval"):
            approve = f"someone other than {version.author} approves it: `falaj approve {version.alias} --reason '…'`"
            stage = f"carry it on first: `falaj promote {version.alias} --to staging`"
            raise Denied(
                f"{version.alias} is {version.state}: nobody lets it take traffic yet",
                hint=stage if version.state == "registered" else approve,
                code="not_approved",
            )
        if version.state == _ROLLED_BACK and not order.again:
            raise Conflict(
                f"{version.alias} was rolled back: {version.reason}",
                hint=f"train a better one; if what stopped it is gone: {start} --again --reason '…'`",
                code="was_rolled_back",
            )
        if version.state not in (*ADMISSIBLE, _ROLLED_BACK):
            raise Conflict(
                f"{version.alias} is {version.state}", hint=f"{look} shows those that may serve", code="wrong_state"
            )
        if not stable and order.says_how:
            raise Conflict(
                f"no version of {version.model} serves that it could be compared with",
                hint=f"{start} --at-once`",
                code="nothing_serves",
            )


def _answer(version: ModelVersion, flow: str, strategy: Strategy | None, *, already: bool) -> dict[str, Any]:
    return {
        "version": version.alias,
        "digest": version.digest,
        "flow": flow,
        "rollout": flow.startswith("rol_"),
        "strategy": msgspec.to_builtins(strategy),
        "already": already,
    }
