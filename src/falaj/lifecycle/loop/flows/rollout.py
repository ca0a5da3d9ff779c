"""Rollout: an approved challenger takes the traffic step by step, or loses it.

    admit → shadow → canary, step by step → promoted
    each step: plan → publish → observe → look at what the data plane records, until it is decided

Looking may go on as long as it takes: the analysis holds under continuous looking, and the data
plane's own guard takes traffic away faster than this flow could. Each plan is set only if the traffic still is where
the step before left it; a rollout that breaks off gives it back to the stable version on the same condition.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec

from falaj.kernel.access import SYSTEM
from falaj.kernel.errors import Conflict, Denied, FalajError, from_dict
from falaj.kernel.log import logger
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.model import Guard, Route, TrafficPlan, all_to, champion
from falaj.lifecycle.rollout.ports import Analyst, Promotions
from falaj.lifecycle.rollout.service import RolloutService, plan_changed
from falaj.lifecycle.rollout.strategy import Analysis, Rollout, decide
from falaj.lifecycle.serving.service import ServingService
from falaj.workflow.flow import FlowRun, Payload, operation

_log = logger(__name__)
_LOAD_SECONDS = 30.0
_LOOK_SECONDS = 0.5


class Stages(msgspec.Struct, frozen=True):
    """The stages that a rollout goes through."""

    registry: RegistryService
    rollout: RolloutService
    serving: ServingService
    analyst: Analyst
    promotions: Promotions | None = None


class RolloutFlow:
    """Traffic to a challenger in steps, and back."""

    def __init__(self, stages: Stages) -> None:
        self._s = stages

    async def roll_out(self, run: FlowRun, payload: Payload) -> Payload:
        """Payload: `rollout` (its id). Result: how it ended.

        Raises `Denied` (rolled_back) when the challenger lost its traffic, with the reason.
        """
        rollout = self._s.rollout.rollout(payload["rollout"])
        try:
            rollout = await self._steps(run, rollout)
        except FalajError as e:
            error = e
            await run.step("fail", lambda: self._break_off(run, payload["rollout"], error))
            raise
        return self._result(rollout)

    async def _steps(self, run: FlowRun, rollout: Rollout) -> Rollout:
        s = self._s
        environment = s.serving.target.environment
        admitted = await run.step("admit", lambda: self._admit(rollout, environment, operation(run, "admit")))
        before = msgspec.convert(admitted["plan"], TrafficPlan)
        rollout = msgspec.structs.replace(rollout, forgives=admitted["generation"])
        number, ended = 0, False
        # After a crash it may have ended in SQL already, and its steps are still those that were taken.
        while not ended:
            number += 1
            began = await run.step(f"begin-{number}", self._begin(run, rollout, number, before))
            rollout = msgspec.convert(began, Rollout)
            before = plan_of(rollout)
            run.emit({"type": "progress", "text": f"{rollout.stage} {rollout.weight} %"})
            judged = await run.step(f"judge-{number}", self._judge(run, rollout))
            analysis = msgspec.convert(judged["analysis"], Analysis)
            stage, step = judged["next"]
            moved = msgspec.structs.replace(rollout, stage=stage, step=step, reason=analysis.reason)
            rollout = msgspec.convert(
                await run.step(f"move-{number}", self._moved(run, moved, analysis, number)), Rollout
            )
            ended = rollout.ended
        await run.step("settle", lambda: self._settle(run, rollout, before))
        return rollout

    def _admit(self, rollout: Rollout, environment: str, operation_id: str) -> dict[str, Any]:
        """Admit the challenger; returns the plan that this was judged against, and the newest generation then."""
        before = self._s.rollout.present(rollout.model)
        if champion(before) != rollout.stable:
            raise plan_changed(rollout.model)
        self._s.registry.admit(rollout.challenger, environment, SYSTEM, operation_id)
        return {"plan": msgspec.to_builtins(before), "generation": self._s.serving.generation()}

    def _break_off(self, run: FlowRun, rollout_id: str, error: FalajError) -> str:
        """Something failed that is no fault of the challenger: the stable version gets its traffic back."""
        s = self._s
        rollout = s.rollout.rollout(rollout_id)
        ended = msgspec.structs.replace(rollout, stage="aborted", order="abort", reason=error.message)
        s.rollout.move(ended, operation(run, "fail"), {"reason": error.message[:500]})
        present = s.rollout.present(rollout.model)
        if champion(present) == rollout.stable and any(r.digest == rollout.challenger for r in present.routes):
            back = all_to(rollout.model, rollout.stable)
            with suppress(Conflict):  # another version has the traffic by now
                s.rollout.set_plan(back, rollout.actor, operation(run, "plan-fail"), present)
        s.serving.publish(rollout.actor, operation(run, "publish-fail"))
        return ended.stage

    def _begin(self, run: FlowRun, rollout: Rollout, number: int, before: TrafficPlan) -> Any:
        """Give the traffic of this step, instead of the plan `before`, and wait until the data plane has it."""
        s = self._s

        def begin() -> dict[str, Any]:
            s.rollout.set_plan(plan_of(rollout), rollout.actor, operation(run, f"plan-{number}"), before)
            generation = s.serving.publish(rollout.actor, operation(run, f"publish-{number}"))
            report = s.serving.observe(generation, rollout.challenger, _LOAD_SECONDS)
            begun = msgspec.structs.replace(rollout, generation=generation)
            if report is not None and report.state != "loaded":
                s.serving.record_refusal(report, generation, rollout.actor)
                begun = msgspec.structs.replace(begun, order="abort", reason=report.reason)
            told = {"generation": generation}
            result: dict[str, Any] = msgspec.to_builtins(s.rollout.move(begun, operation(run, f"begun-{number}"), told))
            return result

        return begin

    def _judge(self, run: FlowRun, rollout: Rollout) -> Any:
        """Look until it is decided where the rollout goes."""
        s = self._s

        async def judge() -> dict[str, Any]:
            said = ""
            while True:
                current = await asyncio.to_thread(s.rollout.rollout, rollout.id)
                analysis = await asyncio.to_thread(self._analysed, current)
                following = decide(current, analysis)
                waits = await asyncio.to_thread(self._waits, current, following)
                if following is not None and not waits:
                    return {"analysis": msgspec.to_builtins(analysis), "next": list(following)}
                if (waits or analysis.reason) != said:
                    said = waits or analysis.reason
                    run.emit(
                        {
                            "type": "progress",
                            "text": f"{current.stage} {current.weight} %: {said}",
                            "done": analysis.requests,
                        }
                    )
                await asyncio.to_thread(s.analyst.wait, _LOOK_SECONDS)

        return judge

    def _analysed(self, rollout: Rollout) -> Analysis:
        try:
            return self._s.analyst.analyse(rollout)
        except FalajError:
            raise
        except Exception as e:  # a flow that died of it would leave a challenger with traffic that nobody can take away
            _log.error("analysis_failed", rollout=rollout.id, error=f"{type(e).__name__}: {e}")
            return Analysis(Verdict.ERROR, f"it cannot be judged: {type(e).__name__}; see the control plane's log", 0)

    def _waits(self, rollout: Rollout, following: tuple[str, int] | None) -> str:
        """Why a challenger stays where it is although it may go on: its tier wants a person's order for the last step, or
        nothing new of its model enters production now. Going back never waits."""
        promotions = self._s.promotions
        if following is None or following[0] == "aborted" or promotions is None:
            return ""
        try:
            promotions.check(rollout.model)
        except FalajError as e:
            return e.message
        return promotions.waits(rollout.model) if following[0] == "promoted" and rollout.order != "promote" else ""

    def _moved(self, run: FlowRun, rollout: Rollout, analysis: Analysis, number: int) -> Any:
        def move() -> dict[str, Any]:
            told = {"verdict": analysis.verdict.value, "reason": analysis.reason[:500], "requests": analysis.requests}
            moved: dict[str, Any] = msgspec.to_builtins(
                self._s.rollout.move(rollout, operation(run, f"move-{number}"), told)
            )
            return moved

        return move

    def _settle(self, run: FlowRun, rollout: Rollout, before: TrafficPlan) -> int:
        """All traffic to the winner; write down what became of both versions."""
        s, actor = self._s, rollout.actor
        winner = rollout.challenger if rollout.stage == "promoted" else rollout.stable
        s.rollout.set_plan(all_to(rollout.model, winner), actor, operation(run, "plan-end"), before)
        generation = s.serving.publish(actor, operation(run, "publish-end"))
        s.serving.settle(generation, _LOAD_SECONDS)
        if rollout.stage == "promoted":
            s.registry.move(
                rollout.stable, "retired", "another version took its traffic", actor, operation(run, "retire")
            )
            s.registry.move(rollout.challenger, "serving", "", actor, operation(run, "serving"))
        else:
            s.registry.move(rollout.challenger, "rolled back", rollout.reason, actor, operation(run, "rolled-back"))
        return generation

    def _result(self, rollout: Rollout) -> Payload:
        version = self._s.registry.by_digest(rollout.challenger)
        result = {
            "rollout": rollout.id,
            "version": version.alias,
            "digest": version.digest,
            "stage": rollout.stage,
            "reason": rollout.reason,
        }
        if rollout.stage == "promoted":
            return result
        error = Denied(
            f"{version.alias} was rolled back: {rollout.reason}",
            hint=f"`falaj rollout status {version.model}` has the figures; mend it and train again; if it was not the version's fault: `falaj rollout start {version.alias} --again --reason '…'`",
            code="rolled_back",
            details=result,
        )
        raise from_dict(error.as_dict())


def plan_of(rollout: Rollout) -> TrafficPlan:
    """The traffic of a rollout's present step, with the guard that the data plane follows by itself.

    A shadow's guard leaves the scores to the analysis: nobody gets them, so there is time for evidence.
    """
    limits = rollout.strategy.limits
    stable = Route(rollout.stable, 100 - rollout.weight)
    shadow = rollout.stage == "shadow"
    guard = Guard(
        max_error_share=limits.errors,
        max_non_finite_share=limits.errors,
        max_latency_ms=limits.latency_ms,
        max_slow_share=limits.slow,
        max_score_shift=None if shadow else limits.shift,
        min_count=limits.least,
        forgives=rollout.forgives,
    )
    part = (100, "shadow") if shadow else (rollout.weight, "canary")
    return TrafficPlan(rollout.model, (stable, Route(rollout.challenger, *part)), guard)
