"""People's decisions about versions: approved, rejected, rolled back, and what follows from each."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.governance.changes.model import Approval, missing_roles
from falaj.governance.changes.service import ChangeService
from falaj.kernel.access import Principal
from falaj.kernel.clock import Clock
from falaj.kernel.errors import Conflict, NotFound
from falaj.kernel.ids import new_id
from falaj.lifecycle.loop.model import RELEASE_FLOW
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.loop.starting import StartService
from falaj.lifecycle.registry.model import ADMISSIBLE, SERVED, ModelVersion
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.ports import Promotions
from falaj.lifecycle.rollout.service import RolloutService
from falaj.workflow.flow import Workflows


class DecisionPorts(msgspec.Struct, frozen=True):
    """What decisions work with."""

    registry: RegistryService
    changes: ChangeService
    flows: Workflows
    definitions: DefinitionService
    rollout: RolloutService
    starts: StartService
    clock: Clock
    promotions: Promotions


class DecisionService:
    """People's decisions about versions, and what follows from them."""

    def __init__(self, ports: DecisionPorts) -> None:
        self._registry = ports.registry
        self._changes = ports.changes
        self._flows = ports.flows
        self._definitions = ports.definitions
        self._rollout = ports.rollout
        self._starts = ports.starts
        self._clock = ports.clock
        self._promotions = ports.promotions

    def approve(self, actor: Principal, version: ModelVersion, reason: str, *, hold: bool = False) -> dict[str, Any]:
        """Approve a version; the approval that completes the quorum starts its way into traffic, unless it is to be held.

        It is complete with as many people as the version and its risk tier need, and with each role that they demand among
        them. In a tier that promotes nothing by itself it starts nothing: a person does, by `falaj rollout start`.
        Whoever gave that one may repeat it: what a crash left undone is done then, and nothing twice. Of several people who
        approve at the same moment one completes it, and the others are told.
        Raises `Conflict` unless the version awaits approval, `Denied` for its author.
        """
        subject = self._registry.subject(version)
        needed, _ = self._registry.asked(version)
        approval, rested_on = self._completed(actor, version) if version.state == "approved" else None, None
        if approval is None:
            rested_on = self._lapsed(version)
            self._awaiting(version, approved_before=rested_on is not None)
            approval = self._given(actor, version, "approved") or self._changes.decide(actor, subject, True, reason)
        counting = self._changes.counting(subject)
        missing = missing_roles(counting, subject)
        answer: dict[str, Any] = {
            "approval": approval.id,
            "approvals": len(counting),
            "needed": needed,
            "missing_roles": list(missing),
            "held": False,
        }
        if len(counting) < needed or missing:
            return {**answer, "flow": "", "rollout": False}
        if version.state == "approved" and rested_on is not None:
            self._registry.lapse(version.digest, actor.name, f"{rested_on}:lapsed")
        if version.state == "awaiting approval" or (version.state == "approved" and rested_on is not None):
            self._registry.decide(version.digest, "approved", "", actor.name, _approved_by(approval))
        held = hold or version.state in SERVED or not self._promotions.starts(version.model)
        flow = "" if held else self._starts.after_approval(actor, version, approval.id.partition("_")[2])
        return {**answer, "flow": flow, "rollout": flow.startswith("rol_"), "held": held and not hold}

    def reject(self, actor: Principal, version: ModelVersion, reason: str) -> dict[str, Any]:
        """Reject a version for good."""
        self._awaiting(version)
        subject = self._registry.subject(version)
        approval = self._given(actor, version, "rejected") or self._changes.decide(actor, subject, False, reason)
        self._registry.decide(
            version.digest, "rejected", f"rejected by {actor.name}", actor.name, f"{approval.id}:rejected"
        )
        return {"approval": approval.id, "state": "rejected"}

    def _given(self, actor: Principal, version: ModelVersion, decision: str) -> Approval | None:
        """What this person decided about this evidence, if all that was to follow from it can follow now."""
        subject = self._registry.subject(version)
        if decision != "approved":
            wanted = (actor.name, version.evidence, decision)
            found = (a for a in self.decisions(version.digest) if (a.principal, a.evidence, a.decision) == wanted)
            return next(found, None)
        counting = self._changes.counting(subject)
        needed, _ = self._registry.asked(version)
        if len(counting) < needed or missing_roles(counting, subject):
            return None
        return next((a for a in counting if a.principal == actor.name), None)

    def _completed(self, actor: Principal, version: ModelVersion) -> Approval | None:
        """This person's approval, if it is the one that made the version approved, and all that it rests on still counts."""
        given = self._given(actor, version, "approved")
        return given if given is not None and self._registry.done(_approved_by(given)) else None

    def _lapsed(self, version: ModelVersion) -> str | None:
        """The approval that made a version approved, when it is and its approvals no longer suffice: they expired, were taken
        back, or its tier rose. Its digest when no approval did; None when they suffice, or it is not approved.

        However many people renew it at the same moment, they all see the same one: so it lapses once.
        """
        if version.state not in ADMISSIBLE:
            return None
        subject = self._registry.subject(version)
        counting = self._changes.counting(subject)
        needed, _ = self._registry.asked(version)
        if len(counting) >= needed and not missing_roles(counting, subject):
            return None
        given = reversed(self.decisions(version.digest))
        return next((a.id for a in given if self._registry.done(_approved_by(a))), version.digest)

    def roll_back(self, actor: Principal, model: str, reason: str) -> dict[str, Any]:
        """Give all traffic back to the version that served before. Raises `Conflict` when there is none."""
        self.check_model(model)
        running = self._rollout.running(model)
        if running is not None:
            self._rollout.order(actor, model, "abort")
            return {"flow": running.id, "digest": running.stable}
        before = [v for v in self._registry.versions(model) if v.state == "retired"]
        if not before:
            raise Conflict(
                f"no version of {model} served before", hint="`falaj versions MODEL` shows them", code="nothing_before"
            )
        back = self._rollout.served_last(model, before)[0]
        flow = new_id("rel", self._clock.now())
        self._rollout.check_roll_back(actor, model, back.digest, reason, flow)
        self._flows.start(RELEASE_FLOW, flow, {"digest": back.digest, "actor": actor.name})
        return {"flow": flow, "digest": back.digest}

    def check_model(self, name: str) -> None:
        """Raises `NotFound` unless a version of the model exists, or the applied project defines it."""
        applied = self._definitions.newest()
        defined = [m.name for m in applied.definition.models] if applied else []
        known = sorted({*defined, *self._registry.models()})
        if name not in known:
            raise NotFound(
                f"there is no model {name[:80]!r}",
                hint=f"there is {', '.join(known)}" if known else "apply a project that defines it: `falaj apply`",
                code="no_such_model",
            )

    def decisions(self, digest: str) -> list[Approval]:
        """What was decided about a version, oldest first."""
        return self._changes.of(digest)

    @staticmethod
    def _awaiting(version: ModelVersion, *, approved_before: bool = False) -> None:
        if version.state != "awaiting approval" and not approved_before:
            raise Conflict(
                f"{version.alias} is {version.state}, it does not await approval",
                hint=f"`falaj versions {version.model}` shows where each version stands",
                code="not_awaiting",
            )


def _approved_by(approval: Approval) -> str:
    """The operation by which an approval makes its version approved."""
    return f"{approval.id}:approved"
