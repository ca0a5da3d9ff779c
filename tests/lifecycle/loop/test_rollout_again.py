"""A rollout that is killed after any step's work, before that is recorded, ends as one that is not."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from falaj.kernel.clock import iso
from falaj.kernel.errors import Denied
from falaj.lifecycle.loop.flows.rollout import RolloutFlow, Stages
from falaj.lifecycle.rollout.model import champion
from falaj.lifecycle.rollout.strategy import Analysis, Rollout, Strategy
from falaj.workflow.flow import Work
from tests.lifecycle.house import MODEL, House


class Killed(BaseException):
    """What SIGKILL is to a flow."""


class Memory:
    """A `FlowRun` that remembers the results of steps in their order, and refuses another order, as the engine does."""

    def __init__(self, flow: str, kill_after: str) -> None:
        self.id = flow
        self._kill_after = kill_after
        self.done: list[tuple[str, Any]] = []
        self._at = 0

    def again(self) -> None:
        """The next process takes the flow up."""
        self._kill_after, self._at = "", 0

    async def step(self, name: str, work: Work) -> Any:
        if self._at < len(self.done):
            recorded, result = self.done[self._at]
            assert recorded == name, f"{recorded} was recorded when {name} was expected"
        else:
            found = work()
            result = await found if inspect.isawaitable(found) else found
            if name == self._kill_after:
                raise Killed
            self.done.append((name, result))
        self._at += 1
        return result

    def emit(self, event: dict[str, Any]) -> None:
        pass


def begun(home: House, order: str = "promote") -> Rollout:
    """A rollout of an approved version beside the one that serves, and a person's order to promote or abort it."""
    plane, challenger = home.plane, home.approved()
    now, stable = iso(plane.clock.now()), champion(plane.rollout.present(MODEL))
    rollout = Rollout(
        home.operation().replace("op_", "rol_"), MODEL, challenger.digest, stable, Strategy(), "canary", 0, 0,
        home.risk.name, "", now, now,
    )  # fmt: skip
    plane.rollout.start(home.risk, rollout, f"{rollout.id}:start")
    plane.rollout.order(home.risk, MODEL, order)
    return rollout


@pytest.mark.parametrize("killed_after", ["admit", "begin-1", "judge-1", "move-1", "settle"])
def test_it_takes_the_same_steps_again(home: House, killed_after: str) -> None:
    plane = home.plane
    if not champion(plane.rollout.present(MODEL)):
        assert home.release(home.registered()).state == "done"
    rollout = begun(home)
    flow = RolloutFlow(Stages(plane.registry, plane.rollout, plane.serving, plane.analyst))
    run = Memory(rollout.id, killed_after)
    with pytest.raises(Killed):
        asyncio.run(flow.roll_out(run, {"rollout": rollout.id}))
    run.again()
    result = asyncio.run(flow.roll_out(run, {"rollout": rollout.id}))
    assert result["stage"] == "promoted"
    assert [name for name, _ in run.done] == ["admit", "begin-1", "judge-1", "move-1", "settle"]
    assert champion(plane.rollout.present(MODEL)) == rollout.challenger
    assert plane.registry.by_digest(rollout.challenger).state == "serving"
    moved = [
        f.entry.operation_id for f in home.log(action="rollout.step") if f.entry.operation_id.startswith(rollout.id)
    ]
    assert sorted(moved) == [f"{rollout.id}:begun-1", f"{rollout.id}:move-1"]


def test_an_analysis_that_breaks_decides_nothing_and_a_person_still_ends_it(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = home.plane
    if not champion(plane.rollout.present(MODEL)):
        assert home.release(home.registered()).state == "done"
    rollout = begun(home, "abort")
    nothing: dict[str, Analysis] = {}
    monkeypatch.setattr(plane.analyst, "analyse", lambda _rollout: nothing["a fault of ours"])
    flow = RolloutFlow(Stages(plane.registry, plane.rollout, plane.serving, plane.analyst))
    with pytest.raises(Denied) as refusal:
        asyncio.run(flow.roll_out(Memory(rollout.id, ""), {"rollout": rollout.id}))
    assert refusal.value.code == "rolled_back" and "cannot be judged" in refusal.value.message
    assert champion(plane.rollout.present(MODEL)) == rollout.stable
    assert [r.digest for r in plane.rollout.present(MODEL).routes] == [rollout.stable]
