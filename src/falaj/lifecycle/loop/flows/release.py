"""Release: an approved version takes the traffic.

    admit → set the traffic plan → publish the bundle → observe it on the data plane

The plan is set only if the traffic still is where it was when the version was admitted: of two that met the same
champion, one is released. The data plane verifies everything again before it loads; if it refuses, the version before
goes on serving, the plan goes back, and the refusal is audited.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from falaj.kernel.access import SYSTEM
from falaj.kernel.errors import Conflict, from_dict
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.model import TrafficPlan, all_to
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.serving.model import LoadReport
from falaj.lifecycle.serving.service import ServingService
from falaj.workflow.flow import FlowRun, Payload, operation

_LOAD_SECONDS = 30.0


class ReleaseFlow:
    """From an approved version to one that serves."""

    def __init__(self, registry: RegistryService, rollout: RolloutService, serving: ServingService) -> None:
        self._registry = registry
        self._rollout = rollout
        self._serving = serving

    async def release(self, run: FlowRun, payload: Payload) -> Payload:
        """Payload: `digest`, `actor` (who approved). Result: where the version serves."""
        digest, actor = payload["digest"], payload["actor"]
        environment = self._serving.target.environment
        before = await run.step("admit", lambda: self._admit(digest, environment, operation(run, "admit")))
        await run.step("plan", lambda: self._plan(digest, before, actor, run))
        generation = await run.step("publish", lambda: self._serving.publish(actor, operation(run, "publish")))
        report = await run.step("observe", lambda: self._observe(digest, generation))
        if report.get("state") == "refused":
            await run.step(
                "return", lambda: self._return(run, digest, before, {**report, "generation": generation}, actor)
            )
            raise from_dict(
                {"error": report["reason"], "kind": "integrity", "code": report["code"], "hint": report["hint"]}
            )
        await run.step("serving", lambda: self._serving_now(run, digest, before, actor))
        version = self._registry.by_digest(digest)
        return {
            "version": version.alias,
            "digest": digest,
            "generation": generation,
            "loaded": report.get("state") == "loaded",
        }

    def _admit(self, digest: str, environment: str, operation_id: str) -> dict[str, Any]:
        """Admit the version; returns the plan that this was judged against."""
        before = self._rollout.present(self._registry.by_digest(digest).model)
        self._registry.admit(digest, environment, SYSTEM, operation_id)
        plan: dict[str, Any] = msgspec.to_builtins(before)
        return plan

    def _plan(self, digest: str, before: dict[str, Any], actor: str, run: FlowRun) -> str:
        """Send everything to the version. Raises `Conflict` when the plan is not the one before any more."""
        judged = msgspec.convert(before, TrafficPlan)
        self._rollout.set_plan(all_to(judged.model, digest), actor, operation(run, "plan"), judged)
        return digest

    def _observe(self, digest: str, generation: int) -> dict[str, Any]:
        report = self._serving.observe(generation, digest, _LOAD_SECONDS)
        return msgspec.to_builtins(report) if report else {}

    def _return(self, run: FlowRun, digest: str, before: dict[str, Any], report: dict[str, Any], actor: str) -> int:
        """The data plane refused: audit it, give the traffic back to the version before, publish."""
        self._serving.record_refusal(msgspec.convert(report, LoadReport), report["generation"], actor)
        self._registry.move(digest, "refused", report["reason"], actor, operation(run, "refused"))
        back = msgspec.convert(before, TrafficPlan)
        with suppress(Conflict):  # another version has the traffic by now
            self._rollout.set_plan(back, actor, operation(run, "back"), all_to(back.model, digest))
        return self._serving.publish(actor, operation(run, "publish-back"))

    def _serving_now(self, run: FlowRun, digest: str, before: dict[str, Any], actor: str) -> str:
        """Write down which version serves and which no longer does."""
        for route in before["routes"]:
            if route["digest"] != digest:
                self._retire(route["digest"], actor, operation(run, f"retire-{route['digest'][7:19]}"))
        self._registry.move(digest, "serving", "", actor, operation(run, "serving"))
        return "serving"

    def _retire(self, digest: str, actor: str, operation_id: str) -> None:
        version: ModelVersion = self._registry.by_digest(digest)
        if version.state == "serving":
            self._registry.move(digest, "retired", "another version took its traffic", actor, operation_id)
