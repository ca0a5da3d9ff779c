"""Stop a flow that is under way: the intent is committed first, then its step process is ended.

The flow raises `flow_cancelled` in the step that is under way, or in its next one, and ends as it does on any other
failure: a training run is recorded as failed, a load as refused. A flow that a crash interrupted after the order
finds it again and ends the same way.
"""

from __future__ import annotations

from typing import Any

from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import Principal, Resource
from falaj.kernel.errors import Conflict, FalajError
from falaj.lifecycle.loop.model import FLOW_CANCEL, RELEASE_FLOW, ROLLOUT_FLOW
from falaj.workflow.flow import FlowState, Workflows
from falaj.workflow.steps import StepRunner


class CancelService:
    """People's orders to stop a flow."""

    def __init__(self, door: Door, flows: Workflows, steps: StepRunner) -> None:
        self._door = door
        self._flows = flows
        self._steps = steps

    def running(self) -> tuple[FlowState, ...]:
        """The flows that have not ended, oldest first."""
        return self._flows.running()

    def cancel(self, actor: Principal, flow_id: str, reason: str) -> dict[str, Any]:
        """Order a flow to stop; again while it stops does nothing more.

        Raises `Denied` by policy, `NotFound`, and `Conflict` for one that has ended or that moves traffic.
        """
        intent = Intent(
            actor, FLOW_CANCEL, Resource("Flow", flow_id), _operation(flow_id), detail={"reason": reason[:500]}
        )
        self._door.check(intent)
        state = self._flows.state(flow_id)
        if state.name in (ROLLOUT_FLOW, RELEASE_FLOW):
            raise Conflict(
                f"{flow_id} moves traffic, which must not stop half-way",
                hint="end a rollout with `falaj rollout abort MODEL`; a release takes seconds: `falaj rollback MODEL` undoes it",
                code="flow_moves_traffic",
            )
        if state.state != "running":
            raise Conflict(
                f"{flow_id} has ended ({state.state}): there is nothing to stop",
                hint="`falaj flow list` shows what is under way",
                code="flow_ended",
            )
        earlier = self._door.result(_operation(flow_id))
        if earlier is None:
            told = {"flow": flow_id, "name": state.name, "by": actor.name, "reason": reason[:500]}
            earlier = self._door.change(intent, lambda _tx: Done(told))
        self._steps.end(flow_id)
        answer: dict[str, Any] = earlier
        return answer


def cancelled(door: Door, flow_id: str) -> FalajError | None:
    """What a flow's step raises once somebody ordered the flow to stop; None otherwise."""
    order = door.result(_operation(flow_id))
    if order is None:
        return None
    why = f": {order['reason']}" if order["reason"] else ""
    return Conflict(
        f"{order['name']} {flow_id} was cancelled by {order['by']}{why}",
        hint="what it had committed stays; start it again when it is wanted",
        code="flow_cancelled",
    )


def _operation(flow_id: str) -> str:
    return f"{flow_id}:cancel"
